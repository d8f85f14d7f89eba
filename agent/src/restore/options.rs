//! What of a logical backup is restored, and how.

use serde::{Deserialize, Serialize};

/// Whether scheduled events are created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Events {
    /// They are created, and do not run before somebody enables them.
    #[default]
    Disabled,
    /// They are created as they were.
    AsBackedUp,
    /// They are left out.
    Skip,
}

/// Whose rights views, routines, triggers and events have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Definers {
    /// Their old definer's; its account has to be there when they are used.
    #[default]
    Keep,
    /// The account's that restores.
    CurrentUser,
}

/// What of a logical backup is restored, and how. The defaults change nothing beyond the databases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogicalOptions {
    /// Which databases; empty: all that are in the backup.
    pub databases: Vec<String>,
    /// Accounts and grants too, where the backup has them.
    pub include_users: bool,
    /// Tell the server that it has the backup's transactions: MySQL's `gtid_purged`, MariaDB's
    /// `gtid_slave_pos`.
    pub gtid_purged: bool,
    /// Write what is restored into the server's binary log, so that its replicas get it.
    pub binary_log: bool,
    /// Stored procedures and functions.
    pub routines: bool,
    /// Triggers.
    pub triggers: bool,
    /// Scheduled events.
    pub events: Events,
    /// Whose rights views, routines, triggers and events have.
    pub definers: Definers,
}

impl Default for LogicalOptions {
    fn default() -> Self {
        Self {
            databases: Vec::new(),
            include_users: false,
            gtid_purged: false,
            binary_log: true,
            routines: true,
            triggers: true,
            events: Events::Disabled,
            definers: Definers::Keep,
        }
    }
}

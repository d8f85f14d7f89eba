//! What an archive says of itself: its first member and the one before its sums.

use serde::{Deserialize, Serialize};

/// Version of the archive format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// `towline/metadata.json`, the first member: what is known before the tool runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// See [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Id of the backup, as in the `X-Backup-Id` header.
    pub backup_id: String,
    /// `mariadb` or `mysql`.
    pub server_flavour: String,
    /// As `SELECT VERSION()` gives it.
    pub server_version: String,
    /// `server_uuid` of MySQL; MariaDB 10.11 has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_uuid: Option<String>,
    /// `physical` or `logical`.
    pub method: String,
    /// Name of the backup tool, e.g. `mariadb-backup`.
    pub tool: String,
    /// What the tool's `--version` printed.
    pub tool_version: String,
    /// When the backup began; also the modification time of every member.
    pub start_time: jiff::Timestamp,
}

/// Where in the server's history the backup stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// GTID set (MySQL) or position (MariaDB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
    /// Binary log file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binlog_file: Option<String>,
    /// Offset in the binary log file, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binlog_position: Option<u64>,
    /// InnoDB log sequence number that the copy reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
}

/// The accounts in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Users {
    /// Number of accounts, roles included.
    pub accounts: u64,
    /// Number of `users/` members. Filled in by the writer.
    #[serde(default)]
    pub members: u64,
    /// Sum of their sizes, bytes. Filled in by the writer.
    #[serde(default)]
    pub bytes: u64,
}

/// `towline/summary.json`, the last member before `SHA256SUMS`: what is known when the tool has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// When the tool had ended.
    pub end_time: jiff::Timestamp,
    /// Number of `data/` members. Filled in by the writer.
    #[serde(default)]
    pub data_members: u64,
    /// Sum of their sizes, bytes. Filled in by the writer.
    #[serde(default)]
    pub data_bytes: u64,
    /// The accounts; `None` where they are not in the archive, or are in the tool's own output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Users>,
    /// The tool's exit status.
    pub tool_exit_status: i32,
    /// Whether the tool said that it was complete.
    pub completion_line_seen: bool,
    /// Binary log position and LSN.
    #[serde(default)]
    pub position: Position,
    /// Tables by schema, for the checks of a restore; sorted.
    #[serde(default)]
    pub schemas: std::collections::BTreeMap<String, Vec<String>>,
    /// Reserved for incremental backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Reserved for incremental backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_lsn: Option<u64>,
}

impl Summary {
    /// Whether the tool ended well **and** said so. An archive of anything else has no end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.tool_exit_status == 0 && self.completion_line_seen
    }
}

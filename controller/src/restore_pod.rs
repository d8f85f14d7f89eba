//! What the controller and a restore's pod tell each other. The pod has no rights at the API server: it
//! gets a plan in a variable of its environment, and leaves a report as its termination message.

mod agent;
mod drill;
pub mod local;
pub mod progress;
mod report;
mod run;
mod volume;

pub use run::{Pod, Stop, run};
pub use towline_agent::restore::checks::{Check, CheckResult};

use crate::{api::BackupStoreSpec, reason::RestoreReason};
use serde::{Deserialize, Serialize};
use towline_agent::{
    archive::Position,
    restore::{Expected, LogicalOptions},
};

/// Variable of the environment that holds a [`Plan`] as JSON.
pub const PLAN_VARIABLE: &str = "TOWLINE_RESTORE_PLAN";
/// Port of `GET /progress`, which answers a [`towline_agent::restore::progress::Look`] as JSON to anybody.
pub const PROGRESS_PORT: u16 = 8476;
/// Each key of the store's Secret is a file here.
pub const STORE_SECRET_DIR: &str = "/run/towline/store";
/// The identity Secret's key is the file `identity` here.
pub const IDENTITY_DIR: &str = "/run/towline/identity";
/// `token`, `ca.crt`, `tls.crt` and `tls.key` of the agent, as far as the spec names them.
pub const AGENT_SECRET_DIR: &str = "/run/towline/agent";
/// The data directory that is restored, of a volume or of a drill's server.
pub const DATA_DIR: &str = "/restore/data";
/// Shared by the containers of a drill: socket, error log, hand-over.
pub const DRILL_DIR: &str = "/restore/drill";
/// Socket of a drill's server, in [`DRILL_DIR`].
pub const DRILL_SOCKET: &str = "mysqld.sock";
/// A drill's server writes its exit status here, in [`DRILL_DIR`], when it ends.
pub const DRILL_EXITED: &str = "exited";
/// A drill's server logs here, in [`DRILL_DIR`].
pub const DRILL_LOG: &str = "error.log";
/// Option file of a drill's server, in [`DRILL_DIR`]: the first container writes it, with what the files
/// of a physical backup were made with.
pub const DRILL_SETTINGS: &str = "server.cnf";
/// Private folder for what tools write for a moment.
pub const SCRATCH_DIR: &str = "/restore/scratch";
/// Where kubelet takes the report from.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Longest report, bytes: kubelet cuts a termination message there.
pub const MAX_REPORT_BYTES: usize = 4096;

/// What a pod has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The store's spec, as the `BackupStore` has it.
    pub store: BackupStoreSpec,
    /// Namespace under which the backup lies.
    pub namespace: String,
    /// Folder of the backup as `towline ls` prints it, without the store's prefix.
    pub folder: String,
    /// What its manifest said when the restore was admitted; it must say the same now.
    pub expected: Expected,
    /// What is done with it.
    pub task: Task,
}

/// What is done with the backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Task {
    /// A physical backup into [`DATA_DIR`], the mounted claim.
    #[serde(rename_all = "camelCase")]
    Volume {
        /// Memory of the backup tool's prepare, bytes; `None`: its default.
        use_memory: Option<u64>,
    },
    /// A logical backup into a running server, through its agent.
    #[serde(rename_all = "camelCase")]
    Agent {
        /// `https://host:port` or `http://host:port`.
        url: String,
        /// Name that the agent's certificate must have; `None`: the URL's host.
        server_name: Option<String>,
        /// What of it, and how.
        options: LogicalOptions,
    },
    /// First container of a drill: a physical backup into [`DATA_DIR`]; a logical one is only proven.
    #[serde(rename_all = "camelCase")]
    DrillPrepare {
        /// Memory of the backup tool's prepare, bytes; `None`: its default.
        use_memory: Option<u64>,
    },
    /// Beside the drill's server: loads a logical backup over its socket, runs the checks, stops it.
    #[serde(rename_all = "camelCase")]
    DrillCheck {
        /// The user's checks, after the default ones.
        checks: Vec<Check>,
    },
}

/// How a pod's container ended, at most [`MAX_REPORT_BYTES`] as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// `None`: all that was asked for was done and proven.
    pub reason: Option<RestoreReason>,
    /// What went wrong and what to do next; empty where nothing did.
    pub message: String,
    /// Whether anything was written to the target.
    pub target_written: bool,
    /// Bytes of the archive read.
    pub bytes: u64,
    /// Tables restored, or found by a drill.
    pub tables: u64,
    /// Rows that a drill counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Where in the source's history the restored data stands, as exactly as it is known.
    pub position: Position,
    /// A drill's checks; those that failed come first where not all fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckResult>,
}

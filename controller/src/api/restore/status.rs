//! What became of a `RestoreJob`.

use crate::{api::job::Position, reason::RestoreReason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a restore is. The conditions say the same with reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    /// Nothing runs yet.
    #[default]
    Pending,
    /// Its pod may run.
    Running,
    /// All of the backup was proven and is in its place.
    Succeeded,
    /// It is not; the reason says why, `targetWritten` whether the target was touched.
    Failed,
}

impl RestorePhase {
    /// The word in status and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What became of the restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreJobStatus {
    /// Where the restore is.
    #[serde(default)]
    pub phase: RestorePhase,
    /// `Complete`, `Failed`, and `Progressing`, which says what it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// Why it failed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RestoreReason>,
    /// When the controller took it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The backup that was chosen. From now on retention does not delete it, until the restore has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<RestoredBackup>,
    /// The backup, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub from: Option<String>,
    /// The target, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 600))]
    pub to: Option<String>,
    /// Name of the batch/v1 Job, written before it is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub job: Option<String>,
    /// Uid of that Job, once it was created. It is never created a second time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub job_uid: Option<String>,
    /// Name of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// Since when its pod cannot start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RestoreProgress>,
    /// Whether anything was written to the target; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_written: Option<bool>,
    /// Bytes of the archive that were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Tables that were restored, or found by a drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// Rows that a drill counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// A drill's checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub checks: Vec<CheckStatus>,
    /// Where in the source's history the restored data stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// From start to end, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub duration: Option<String>,
    /// After the end: nothing runs any more, and what a drill used is removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tidied: bool,
}

/// The backup that is restored, as its manifest has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoredBackup {
    /// Name of the BackupStore in which it lies.
    #[schemars(length(max = 253))]
    pub store: String,
    /// Its key as `towline ls` prints it, without the store's prefix.
    #[schemars(length(max = 1024))]
    pub key: String,
    /// Name of the BackupJob that made it, which may be gone.
    #[schemars(length(max = 253))]
    pub backup_job: String,
    /// `physical` or `logical`.
    #[schemars(length(max = 32))]
    pub method: String,
    /// Size of the archive, bytes.
    pub bytes: u64,
    /// SHA-256 of the archive, hex.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// Whether it is encrypted.
    #[serde(default)]
    pub encrypted: bool,
    /// `mariadb` or `mysql`.
    #[schemars(length(max = 32))]
    pub server_flavour: String,
    /// Version of the server that it is of.
    #[schemars(length(max = 256))]
    pub server_version: String,
    /// Id that the agent gave it.
    #[schemars(length(max = 128))]
    pub backup_id: String,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// How far a restore is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreProgress {
    /// What it is doing: Verifying, Extracting, Preparing, Loading, Checking.
    #[schemars(length(max = 32))]
    pub stage: String,
    /// Bytes of the archive read in this stage.
    pub bytes: u64,
    /// Bytes of the archive; 0 where they are not known.
    #[serde(default)]
    pub total_bytes: u64,
    /// Bytes a second, of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// When it was last seen to get further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,
    /// Stage, share and rate for people, e.g. `Extracting 40% 85.0MiB/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub summary: Option<String>,
}

/// How one of a drill's checks went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckStatus {
    /// What was checked.
    #[schemars(length(max = 2048))]
    pub check: String,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was found.
    #[schemars(length(max = 1024))]
    pub found: String,
}

/// All of the backup was proven and is in its place.
pub const COMPLETE: &str = "Complete";
/// It is not.
pub const FAILED: &str = "Failed";
/// Something still happens or will.
pub const PROGRESSING: &str = "Progressing";

//! What lies in a bucket: keys, the ownership mark of an attempt, and `manifest.json`, the one
//! decision about a job.

use crate::storage::{Store, StoreError};
use serde::{Deserialize, Serialize};

/// Whose backup it is; fixes every key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobIdentity {
    /// `--cluster-id`, else the uid of namespace kube-system; of the command line: `cli`.
    pub cluster_id: String,
    /// Namespace of the job.
    pub namespace: String,
    /// Name of the `BackupJob`.
    pub job_name: String,
    /// Its uid.
    pub job_uid: String,
    /// Name of the schedule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_name: Option<String>,
    /// Its uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_uid: Option<String>,
    /// Uid of the `BackupStore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_uid: Option<String>,
    /// `metadata.creationTimestamp` of the job.
    pub created: jiff::Timestamp,
}

impl JobIdentity {
    /// `<namespace>/<schedule or job>/<created as 20060102T150405Z>-<job uid>`, without the store's prefix.
    #[must_use]
    pub fn folder(&self) -> String {
        todo!()
    }
}

/// How a job ended, as its manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The objects are a backup.
    Complete,
    /// There is no backup, and there never will be one under this job.
    Abandoned,
}

/// One object of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Full key in the bucket, prefix included.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// `manifest.json`: create-only, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this format: 1.
    pub format_version: u32,
    /// How the job ended.
    pub outcome: Outcome,
    /// Whose it is.
    #[serde(flatten)]
    pub identity: JobIdentity,
    /// The attempt that won; of an abandoned job the last.
    pub attempt: u32,
    /// When this was decided.
    pub time: jiff::Timestamp,
    /// The archive, in order. Empty when abandoned.
    #[serde(default)]
    pub objects: Vec<ObjectRef>,
    /// Bytes of all objects.
    #[serde(default)]
    pub bytes: u64,
    /// SHA-256 of all objects one after the other, lower-case hex.
    #[serde(default)]
    pub sha256: String,
    /// Id that the agent gave the backup.
    #[serde(default)]
    pub backup_id: String,
    /// `physical` or `logical`.
    #[serde(default)]
    pub method: String,
    /// Server flavour, e.g. `mariadb`.
    #[serde(default)]
    pub server_flavour: String,
    /// Server version.
    #[serde(default)]
    pub server_version: String,
    /// Binary log position, GTID and LSN, where they are known.
    #[serde(default)]
    pub position: towline_agent::archive::Position,
    /// When the attempt began.
    pub start_time: jiff::Timestamp,
}

/// Reads the decision about a job; `None` when there is none yet.
///
/// # Errors
/// When the store does not answer, or the manifest is not readable.
pub async fn read_decision(_store: &Store, _job: &JobIdentity) -> Result<Option<Manifest>, StoreError> {
    todo!()
}

/// Decides that a job has no backup, before it ends Failed or Cancelled. Whoever decided first
/// wins: the answer is the manifest that stands, which may be Complete.
///
/// # Errors
/// When the store does not answer.
pub async fn abandon(_store: &Store, _job: &JobIdentity, _attempt: u32, _now: jiff::Timestamp) -> Result<Manifest, StoreError> {
    todo!()
}

/// What is left of a dead attempt.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Unfinished uploads that were aborted.
    pub aborted_uploads: usize,
    /// Objects that a complete had made, or may have; they stay until the manifest decides against them.
    pub completed_objects: Vec<String>,
}

/// Cleans up after attempts that died: aborts the uploads that their marks name. Completed objects
/// are deleted (then the mark) only when the job's manifest names another attempt or is Abandoned.
/// Marks that do not name `job` are left alone. Idempotent.
///
/// # Errors
/// When the store does not answer.
pub async fn clean_attempt(_store: &Store, _job: &JobIdentity, _attempt: u32) -> Result<Cleaned, StoreError> {
    todo!()
}

//! `verified/<UTC time>.json` beside a manifest: what a drill found out about the backup.

use super::{FORMAT_VERSION, to_json};
use crate::{
    reason::RestoreReason,
    restore_pod::CheckResult,
    storage::{Store, StoreError},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towline_agent::archive::Position;

/// Whether a backup restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It was restored, and every check passed.
    Passed,
    /// It is at fault.
    Failed,
}

/// A drill's result. Only a backup that was proven, or proven to be at fault, has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Version of this format: 1.
    pub format_version: u32,
    /// Cluster in which the drill ran.
    pub cluster_id: String,
    /// Id that the agent gave the backup.
    pub backup_id: String,
    /// When the drill ended.
    pub time: Timestamp,
    /// Its result.
    pub result: Verdict,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RestoreReason>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What was checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckResult>,
    /// Tables found.
    #[serde(default)]
    pub tables: u64,
    /// Rows counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Where in the source's history the restored data stood.
    #[serde(default)]
    pub position: Position,
    /// Image of the server that it was restored into.
    pub image: String,
}

impl Proof {
    /// A proof of now, to be filled in.
    #[must_use]
    pub fn new(cluster_id: &str, backup_id: &str, time: Timestamp, result: Verdict) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            cluster_id: cluster_id.to_owned(),
            backup_id: backup_id.to_owned(),
            time,
            result,
            reason: None,
            message: String::new(),
            checks: Vec::new(),
            tables: 0,
            rows: None,
            position: Position::default(),
            image: String::new(),
        }
    }

    /// Writes it into the folder of a backup (without the store's prefix), unless it stands there
    /// already: its time is its name. Gives its key.
    ///
    /// # Errors
    /// When the store does not do it. It may stand nevertheless: write it again.
    pub async fn write(&self, store: &Store, folder: &str) -> Result<String, StoreError> {
        let name = self.time.strftime("%Y%m%dT%H%M%SZ");
        let key = store.key(&format!("{folder}/verified/{name}.json"))?;
        store.create(&key, to_json(self)?).await?;
        Ok(key.to_string())
    }
}

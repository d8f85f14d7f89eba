//! `verified/<UTC time>.json` beside a manifest: what a drill found out about the backup.

use super::{FORMAT_VERSION, MAX_BYTES, format_version, to_json};
use crate::{
    reason::RestoreReason,
    restore_pod::CheckResult,
    storage::{Store, StoreError},
};
use jiff::Timestamp;
use object_store::path::Path;
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

    /// Reads one; `None` when it is gone.
    ///
    /// # Errors
    /// When the store does not answer, or it is not a proof.
    pub async fn read(store: &Store, key: &Path) -> Result<Option<Self>, StoreError> {
        let Some(body) = store.get(key, MAX_BYTES).await? else {
            return Ok(None);
        };
        let bad = |why: String| StoreError::failed(format!("store {}: {key} {why}", store.url()));
        let version = format_version(&body).map_err(bad)?;
        if version > FORMAT_VERSION {
            return Err(bad(format!(
                "has format version {version}, this program reads up to {FORMAT_VERSION}: use a newer one"
            )));
        }
        let proof =
            serde_json::from_slice(&body).map_err(|e| bad(format!("is not a proof: {e}")))?;
        Ok(Some(proof))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{survey, tests::*},
        storage::StoreError,
    };

    #[tokio::test]
    async fn the_newest_proof_counts_and_the_first_of_a_time_stands() -> Result<(), StoreError> {
        let (_dir, store) = store();
        let manifest = complete(&store);
        let folder = manifest.identity.folder();
        crate::catalog::decide(&store, &manifest).await?;
        let verdict = async |known: &mut _| {
            let folders = survey(&store, "ns", known).await.unwrap();
            folders
                .into_iter()
                .map(|f| (f.manifest.is_some(), f.verdict))
                .collect::<Vec<_>>()
        };
        let mut known = crate::catalog::Known::default();
        assert_eq!(verdict(&mut known).await, [(true, None)]);
        let at = |time: &str| time.parse::<Timestamp>().unwrap();
        let failed = Proof {
            reason: Some(RestoreReason::CheckFailed),
            ..Proof::new("c", "b", at("2026-01-03T00:00:00Z"), Verdict::Failed)
        };
        let key = failed.write(&store, &folder).await?;
        assert_eq!(key, format!("p/q/{folder}/verified/20260103T000000Z.json"));
        assert_eq!(verdict(&mut known).await, [(true, Some(Verdict::Failed))]);
        let same = Proof::new("c", "b", failed.time, Verdict::Passed);
        same.write(&store, &folder).await?;
        let older = Proof::new("c", "b", at("2026-01-02T00:00:00Z"), Verdict::Passed);
        older.write(&store, &folder).await?;
        assert_eq!(verdict(&mut known).await, [(true, Some(Verdict::Failed))]);
        assert_eq!(Proof::read(&store, &key.into()).await?, Some(failed));
        let newer = Proof::new("c", "b", at("2026-01-04T00:00:00Z"), Verdict::Passed);
        newer.write(&store, &folder).await?;
        for known in [&mut known, &mut crate::catalog::Known::default()] {
            assert_eq!(verdict(known).await, [(true, Some(Verdict::Passed))]);
        }
        // What is no proof says nothing, and hides nothing.
        let bad = store.key(&format!("{folder}/verified/20260105T000000Z.json"))?;
        store.create(&bad, "{}".into()).await?;
        assert_eq!(verdict(&mut known).await, [(true, None)]);
        Ok(())
    }
}

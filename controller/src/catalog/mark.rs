//! `upload.json`: says whose an attempt's folder is, and which uploads are open in it.

use super::{FORMAT_VERSION, JobIdentity, MAX_BYTES, format_version, to_json};
use crate::storage::{Store, StoreError};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

/// The ownership mark of one attempt. Put before an upload is opened, rewritten with each upload's
/// id before its first part, deleted last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mark {
    pub(crate) format_version: u32,
    #[serde(flatten)]
    pub(crate) identity: JobIdentity,
    pub(crate) attempt: u32,
    /// When the attempt began.
    pub(crate) start_time: jiff::Timestamp,
    #[serde(default)]
    pub(crate) uploads: Vec<UploadRef>,
    /// The backup that the attempt made is being deleted: once its manifest is gone, so may be all else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleting: bool,
}

/// One multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UploadRef {
    /// Full key of the object that it would make.
    pub(crate) key: String,
    pub(crate) upload_id: String,
}

impl Mark {
    pub(crate) fn new(identity: JobIdentity, attempt: u32, start_time: jiff::Timestamp) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            identity,
            attempt,
            start_time,
            uploads: Vec::new(),
            deleting: false,
        }
    }

    pub(crate) fn key(store: &Store, job: &JobIdentity, attempt: u32) -> Result<Path, StoreError> {
        store.key(&format!("{}/{attempt}/upload.json", job.folder()))
    }

    pub(crate) async fn write(&self, store: &Store) -> Result<(), StoreError> {
        store
            .put(
                &Self::key(store, &self.identity, self.attempt)?,
                to_json(self)?,
            )
            .await
    }

    pub(crate) async fn read(
        store: &Store,
        job: &JobIdentity,
        attempt: u32,
    ) -> Result<Option<Self>, StoreError> {
        let folder = store.key(&job.folder())?;
        Self::read_in(store, &folder, attempt).await
    }

    /// The mark of an attempt in the folder of whatever job, which is a full key.
    pub(crate) async fn read_in(
        store: &Store,
        folder: &Path,
        attempt: u32,
    ) -> Result<Option<Self>, StoreError> {
        let key = folder.clone().join(attempt.to_string()).join("upload.json");
        let Some(body) = store.get(&key, MAX_BYTES).await? else {
            return Ok(None);
        };
        let bad = |why: String| StoreError::failed(format!("store {}: {key} {why}", store.url()));
        let version = format_version(&body).map_err(bad)?;
        if version > FORMAT_VERSION {
            return Err(bad(format!(
                "has format version {version}, this program reads up to {FORMAT_VERSION}: use a newer one"
            )));
        }
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|e| bad(format!("is not an ownership mark: {e}")))
    }
}

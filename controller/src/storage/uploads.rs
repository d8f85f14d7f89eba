//! Multipart uploads, the same way for every kind of store.

use super::{Backend, Store, StoreError, error};
use bytes::Bytes;
use object_store::{PutPayload, multipart::MultipartStore, path::Path};
use std::sync::Arc;

/// Multipart uploads of a store, with errors that speak of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uploads<'a> {
    store: &'a Store,
}

/// The handle of one upload, cheap to clone into tasks.
#[derive(Clone, Debug)]
pub(crate) struct PartWriter {
    uploads: Arc<dyn MultipartStoreDebug>,
    store_url: String,
    key: Path,
    id: String,
}

/// A multipart store that can be shown.
pub(crate) trait MultipartStoreDebug: MultipartStore + std::fmt::Debug {}
impl<T: MultipartStore + std::fmt::Debug> MultipartStoreDebug for T {}

impl<'a> Uploads<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    fn bulk(self) -> Arc<dyn MultipartStoreDebug> {
        match &self.store.backend {
            Backend::S3(s3) => Arc::new(s3.bulk.clone()),
            Backend::File { uploads, .. } => Arc::new(uploads.clone()),
        }
    }

    fn control(self) -> Arc<dyn MultipartStoreDebug> {
        match &self.store.backend {
            Backend::S3(s3) => Arc::new(s3.control.clone()),
            Backend::File { uploads, .. } => Arc::new(uploads.clone()),
        }
    }

    /// Opens an upload; its id belongs into the attempt's mark before the first part is sent.
    pub(crate) async fn open(self, key: &Path) -> Result<String, StoreError> {
        self.control()
            .create_multipart(key)
            .await
            .map_err(|e| self.store.error(&format!("opening an upload of {key}"), &e))
    }

    /// Writes parts of an open upload.
    pub(crate) fn parts(self, key: &Path, id: &str) -> PartWriter {
        PartWriter {
            uploads: self.bulk(),
            store_url: self.store.url(),
            key: key.clone(),
            id: id.to_owned(),
        }
    }

    /// Makes the object. An error does not mean that there is none: ask for its size.
    pub(crate) async fn complete(
        self,
        key: &Path,
        id: &str,
        parts: Vec<object_store::multipart::PartId>,
    ) -> Result<(), StoreError> {
        self.bulk()
            .complete_multipart(key, &id.to_owned(), parts)
            .await
            .map(drop)
            .map_err(|e| {
                self.store
                    .error(&format!("completing the upload of {key}"), &e)
            })
    }

    /// Throws an upload away; one that is not there counts as aborted (`false`).
    pub(crate) async fn abort(self, key: &Path, id: &str) -> Result<bool, StoreError> {
        match self.control().abort_multipart(key, &id.to_owned()).await {
            Ok(()) => Ok(true),
            Err(e) if error::is_missing_object(&e) => Ok(false),
            Err(e) => Err(self
                .store
                .error(&format!("aborting the upload of {key}"), &e)),
        }
    }
}

impl PartWriter {
    /// Sends part `index`, counted from 0; every part but the last has the store's part size.
    pub(crate) async fn put(
        &self,
        index: usize,
        part: Bytes,
    ) -> Result<object_store::multipart::PartId, StoreError> {
        self.uploads
            .put_part(&self.key, &self.id, index, PutPayload::from_bytes(part))
            .await
            .map_err(|e| {
                error::classify(
                    &self.store_url,
                    &format!("writing part {} of {}", index + 1, self.key),
                    &e,
                )
            })
    }
}

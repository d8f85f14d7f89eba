//! Multipart uploads, the same way for every kind of store.

use super::{
    Store, StoreError,
    error::{self, Place, Right, element},
};
use bytes::Bytes;
use object_store::{
    PutPayload,
    client::{HttpClient, HttpRequest},
    multipart::MultipartStore,
    path::Path,
};
use std::sync::Arc;

/// Multipart uploads of a store, with errors that speak of it.
#[derive(Clone, Copy, Debug)]
pub struct Uploads<'a> {
    store: &'a Store,
}

/// The handle of one upload, cheap to clone into tasks.
#[derive(Clone)]
pub struct PartWriter {
    uploads: Arc<dyn MultipartStore>,
    place: Arc<Place>,
    key: Path,
    id: String,
}

impl<'a> Uploads<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Opens an upload; its id belongs into the attempt's mark before the first part is sent.
    pub async fn open(self, key: &Path) -> Result<String, StoreError> {
        self.store.backend.check(key)?;
        let control = &self.store.backend.control.uploads;
        control.create_multipart(key).await.map_err(|e| {
            self.store.error(
                Right::CreateUpload,
                &format!("opening an upload of {key}"),
                &e,
            )
        })
    }

    /// Writes parts of an open upload.
    pub fn parts(self, key: &Path, id: &str) -> PartWriter {
        PartWriter {
            uploads: Arc::clone(&self.store.backend.bulk.uploads),
            place: Arc::clone(&self.store.place),
            key: key.clone(),
            id: id.to_owned(),
        }
    }

    /// Makes the object. An error does not mean that there is none: ask for its size.
    pub async fn complete(
        self,
        key: &Path,
        id: &str,
        parts: Vec<object_store::multipart::PartId>,
    ) -> Result<(), StoreError> {
        self.store.backend.check(key)?;
        let bulk = &self.store.backend.bulk.uploads;
        bulk.complete_multipart(key, &id.to_owned(), parts)
            .await
            .map(drop)
            .map_err(|e| {
                let doing = format!("completing the upload of {key}");
                self.store.error(Right::PutPart, &doing, &e)
            })
    }

    /// Throws an upload away; one that is not there counts as aborted (`false`).
    pub async fn abort(self, key: &Path, id: &str) -> Result<bool, StoreError> {
        self.store.backend.check(key)?;
        let control = &self.store.backend.control.uploads;
        match control.abort_multipart(key, &id.to_owned()).await {
            Ok(()) => Ok(true),
            Err(e) if error::is_missing_object(&e) => Ok(false),
            Err(e) => Err(self.store.error(
                Right::AbortUpload,
                &format!("aborting the upload of {key}"),
                &e,
            )),
        }
    }
}

impl std::fmt::Debug for PartWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartWriter")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl PartWriter {
    /// Sends part `index`, counted from 0; every part but the last has the store's part size.
    pub async fn put(
        &self,
        index: usize,
        part: Bytes,
    ) -> Result<object_store::multipart::PartId, StoreError> {
        self.uploads
            .put_part(&self.key, &self.id, index, PutPayload::from_bytes(part))
            .await
            .map_err(|e| {
                error::classify(
                    &self.place,
                    Right::PutPart,
                    &format!("writing part {} of {}", index + 1, self.key),
                    &e,
                )
            })
    }
}

/// Asks for a list of uploads; the error never holds the address, which may be signed.
pub(super) async fn ask(http: &HttpClient, request: HttpRequest) -> Result<String, String> {
    let answer = http
        .execute(request)
        .await
        .map_err(|e| format!("{:?}", e.kind()))?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    let body = answer
        .into_body()
        .bytes()
        .await
        .map_err(|e| format!("{:?}", e.kind()))?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Key and id of each `<Upload>` under `folder`. What is escaped is not ours: our keys and the ids
/// that stores make need no escaping.
pub(super) fn parse_uploads(xml: &str, folder: &Path) -> Vec<(Path, String)> {
    xml.split("<Upload>")
        .skip(1)
        .filter_map(|upload| {
            let key = Path::parse(element(upload, "Key")?).ok()?;
            (key.prefix_matches(folder)).then_some((key, element(upload, "UploadId")?.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_of_another_folder_are_not_ours() {
        let xml = "<R><Upload><Key>p/a/1/x</Key><UploadId>i1</UploadId></Upload>\
                   <Upload><Key>p/a/10/x</Key><UploadId>i2</UploadId></Upload><Upload><Key>p/a/1/y</Key></Upload></R>";
        assert_eq!(
            parse_uploads(xml, &Path::from("p/a/1")),
            [(Path::from("p/a/1/x"), "i1".to_owned())]
        );
        assert!(parse_uploads("<garbage", &Path::from("p")).is_empty());
    }
}

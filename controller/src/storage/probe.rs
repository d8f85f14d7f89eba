//! Proves what a store can do by doing it.

use super::{
    Capabilities, Store, StoreError,
    backend::{Client, Lister},
    config::Kind,
    error::{self, Right},
};
use crate::reason::StoreReason;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{ObjectStoreExt as _, PutMode, PutPayload, path::Path};
use std::time::Duration;

/// A store that answers, but slowly, gets this long for all steps together.
const WHOLE: Duration = Duration::from_secs(20);

/// What is written.
const BODY: Bytes = Bytes::from_static(b"towline probes this store; the object may be deleted\n");

/// The keys of one probe, in a folder of its own.
struct Keys {
    folder: Path,
    object: Path,
    upload: Path,
    checked: Path,
}

pub(super) async fn probe(store: &Store, folder: &str) -> Result<Capabilities, StoreError> {
    let keys = keys(store, folder)?;
    match tokio::time::timeout(WHOLE, steps(store, &keys)).await {
        Ok(done) => done,
        Err(_) => Err(StoreError {
            message: format!(
                "store {}: the probe was not done within {} s: the store is too slow",
                store.url(),
                WHOLE.as_secs()
            ),
            reason: StoreReason::Unreachable,
        }),
    }
}

fn keys(store: &Store, folder: &str) -> Result<Keys, StoreError> {
    let folder = store.key(&format!("{folder}/.probe-{}", uuid::Uuid::new_v4()))?;
    store.backend.check(&folder)?;
    Ok(Keys {
        object: folder.clone().join("object"),
        upload: folder.clone().join("upload"),
        checked: folder.clone().join("checked"),
        folder,
    })
}

async fn steps(store: &Store, keys: &Keys) -> Result<Capabilities, StoreError> {
    let told = write_and_read(store, keys).await;
    let told = match told {
        Ok(()) => upload(store, keys).await,
        Err(error) => Err(error),
    };
    // Whatever the first steps said, the object goes; their error is the one that explains.
    let deleted = delete(store, &keys.object).await;
    let list_uploads = told?;
    deleted?;
    Ok(Capabilities {
        crc64nvme: checks_crc64nvme(store, keys).await,
        list_uploads,
    })
}

async fn delete(store: &Store, key: &Path) -> Result<(), StoreError> {
    match store.backend.probe.objects.delete(key).await {
        Err(e) if !error::is_missing_object(&e) => {
            Err(store.error(Right::Delete, "deleting an object", &e))
        }
        _ => Ok(()),
    }
}

async fn write_and_read(store: &Store, keys: &Keys) -> Result<(), StoreError> {
    let objects = &store.backend.probe.objects;
    let key = &keys.object;
    let create = || objects.put_opts(key, payload(), PutMode::Create.into());
    match create().await {
        // The client may have retried a create of its own that had won.
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(e) => return Err(store.error(Right::Put, "writing an object", &e)),
    }
    // Google's API guarantees it; its stand-ins do not.
    if store.place.kind != Kind::Gcs {
        match create().await {
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(e) => {
                return Err(store.error(
                    Right::Put,
                    "writing an object that exists, create-only",
                    &e,
                ));
            }
            Ok(_) => {
                return Err(StoreError {
                    message: format!(
                        "store {}: it ignores create-only writes (If-None-Match: *), so two writers could overwrite each \
                         other: use a store or a version that honours them",
                        store.url()
                    ),
                    reason: StoreReason::CreateOnlyUnsupported,
                });
            }
        }
    }
    let read = async { objects.get(key).await?.bytes().await }.await;
    let read = read.map_err(|e| store.error(Right::Get, "reading an object back", &e))?;
    if read != BODY {
        return Err(StoreError::failed(format!(
            "store {}: an object read back differs from what was written",
            store.url()
        )));
    }
    let head = objects
        .head(key)
        .await
        .map_err(|e| store.error(Right::Get, "asking for an object's size", &e))?;
    if head.size != BODY.len() as u64 {
        return Err(StoreError::failed(format!(
            "store {}: HEAD gives {} bytes for an object of {}",
            store.url(),
            head.size,
            BODY.len()
        )));
    }
    let listed: Vec<_> = objects
        .list(Some(&keys.folder))
        .try_collect()
        .await
        .map_err(|e| store.error(Right::List, "listing objects", &e))?;
    if !listed.iter().any(|o| o.location == *key) {
        return Err(StoreError::failed(format!(
            "store {}: a listing does not show an object that was just written: use a store with consistent listings",
            store.url()
        )));
    }
    Ok(())
}

/// Opens an upload, writes the last part that one may have, and throws it away. Says whether
/// uploads can be listed.
async fn upload(store: &Store, keys: &Keys) -> Result<bool, StoreError> {
    let key = &keys.upload;
    let uploads = &store.backend.probe.uploads;
    let id = uploads
        .create_multipart(key)
        .await
        .map_err(|e| store.error(Right::CreateUpload, "opening a multipart upload", &e))?;
    let written = last_part(store, key, &id).await;
    let listed = match &store.backend.lister {
        Lister::S3(lister) => lister.list(&keys.folder).await,
        Lister::Gcs(lister) => lister.list(&keys.folder).await,
        Lister::Azure | Lister::File(_) => Ok(Vec::new()),
    };
    let listed = match listed {
        Ok(found) => found.iter().any(|(_, found)| *found == id),
        Err(error) => {
            tracing::debug!(store = store.url(), error, "uploads cannot be listed here");
            false
        }
    };
    if store.place.kind == Kind::Azure && written.is_ok() {
        // There is no abort: the block would stay for a week.
        let part = written?;
        uploads
            .complete_multipart(key, &id, vec![part])
            .await
            .map_err(|e| store.error(Right::PutPart, "completing an upload", &e))?;
        delete(store, key).await?;
        return Ok(false);
    }
    let aborted = uploads
        .abort_multipart(key, &id)
        .await
        .map_err(|e| store.error(Right::AbortUpload, "aborting a multipart upload", &e));
    written?;
    aborted?;
    Ok(listed)
}

async fn last_part(
    store: &Store,
    key: &Path,
    id: &String,
) -> Result<object_store::multipart::PartId, StoreError> {
    let uploads = &store.backend.probe.uploads;
    let max_parts = store.config().max_parts;
    let last = match store.place.kind {
        // A file would be made as large as that.
        Kind::File => 0,
        _ => max_parts as usize - 1,
    };
    let refused = match uploads.put_part(key, id, last, payload()).await {
        Ok(part) => return Ok(part),
        Err(e) => e,
    };
    let answered = matches!(error::status(&refused.to_string()), Some(400 | 416));
    if answered && last > 0 && uploads.put_part(key, id, 0, payload()).await.is_ok() {
        return Err(StoreError {
            message: format!(
                "store {}: it takes part 1 of an upload, but not part {max_parts}: lower spec.maxParts to what it takes, \
                 and raise spec.partSize if archives should stay in few objects",
                store.url()
            ),
            reason: StoreReason::MaxPartsRefused,
        });
    }
    Err(store.error(
        Right::PutPart,
        &format!("writing part {} of an upload", last + 1),
        &refused,
    ))
}

/// Whether the store compares CRC64NVME checksums: it refuses a part that was changed on its way,
/// takes the same part whole, and makes an object of it. Whatever else happens means no.
async fn checks_crc64nvme(store: &Store, keys: &Keys) -> bool {
    let Some((intact, corrupt)) = &store.backend.checked else {
        return false;
    };
    let key = &keys.checked;
    let Ok(id) = intact.uploads.create_multipart(key).await else {
        return false;
    };
    let checked = compare(intact, corrupt, key, &id).await;
    if checked.is_err() {
        // An upload that is left is found by its age.
        let _ = intact.uploads.abort_multipart(key, &id).await;
    }
    let _ = delete(store, key).await;
    match checked {
        Ok(()) => true,
        Err(why) => {
            tracing::debug!(store = store.url(), why, "CRC64NVME is not relied upon");
            false
        }
    }
}

async fn compare(intact: &Client, corrupt: &Client, key: &Path, id: &String) -> Result<(), String> {
    match corrupt.uploads.put_part(key, id, 0, payload()).await {
        Ok(_) => return Err("a changed part is taken".to_owned()),
        Err(e) if error::status(&e.to_string()).is_some() => {}
        Err(_) => return Err("the store did not answer".to_owned()),
    }
    let part = intact.uploads.put_part(key, id, 0, payload()).await;
    let part = part.map_err(|_| "an unchanged part is refused".to_owned())?;
    let made = intact.uploads.complete_multipart(key, id, vec![part]).await;
    made.map_err(|_| "an upload with checksums is not completed".to_owned())?;
    match intact.objects.head(key).await {
        Ok(found) if found.size == BODY.len() as u64 => Ok(()),
        _ => Err("the object has another size".to_owned()),
    }
}

/// Only what speeds transfers up: whether checksums are compared.
pub(super) async fn capabilities(store: &Store, folder: &str) -> Capabilities {
    let asking = async {
        let keys = keys(store, folder).ok()?;
        Some(checks_crc64nvme(store, &keys).await)
    };
    let crc64nvme = tokio::time::timeout(WHOLE, asking).await;
    Capabilities {
        crc64nvme: crc64nvme.ok().flatten().unwrap_or_default(),
        list_uploads: false,
    }
}

fn payload() -> PutPayload {
    PutPayload::from_bytes(BODY)
}

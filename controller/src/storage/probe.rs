//! Proves what a store can do by doing it.

use super::{Backend, Store, StoreError, error};
use bytes::Bytes;
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, aws::AmazonS3,
    multipart::MultipartStore as _, path::Path,
};
use std::time::Duration;

/// A store that answers, but slowly, gets this long for all steps together.
const WHOLE: Duration = Duration::from_secs(15);

pub(super) async fn probe(store: &Store, folder: &str) -> Result<(), StoreError> {
    let key = store.key(&format!("{folder}/.probe-{}", uuid::Uuid::new_v4()))?;
    let (objects, s3): (&dyn ObjectStore, Option<&AmazonS3>) = match &store.backend {
        Backend::S3(s3) => (&s3.probe, Some(&s3.probe)),
        Backend::File { objects, .. } => (objects, None),
    };
    match tokio::time::timeout(WHOLE, steps(store, objects, s3, &key)).await {
        Ok(done) => done,
        Err(_) => Err(StoreError {
            message: format!(
                "store {}: the probe was not done within {} s: the store is too slow",
                store.url(),
                WHOLE.as_secs()
            ),
            reason: StoreError::UNREACHABLE,
        }),
    }
}

async fn steps(
    store: &Store,
    objects: &dyn ObjectStore,
    s3: Option<&AmazonS3>,
    key: &Path,
) -> Result<(), StoreError> {
    let told = write_and_read(store, objects, key).await;
    // Whatever the first steps said, the object goes; their error is the one that explains.
    let deleted = match objects.delete(key).await {
        Err(e) if !error::is_missing_object(&e) => Err(store.error("deleting an object", &e)),
        _ => Ok(()),
    };
    told?;
    deleted?;
    if let Some(s3) = s3 {
        let id = s3
            .create_multipart(key)
            .await
            .map_err(|e| store.error("opening a multipart upload", &e))?;
        s3.abort_multipart(key, &id)
            .await
            .map_err(|e| store.error("aborting a multipart upload", &e))?;
    }
    Ok(())
}

async fn write_and_read(
    store: &Store,
    objects: &dyn ObjectStore,
    key: &Path,
) -> Result<(), StoreError> {
    let body = Bytes::from_static(b"towline probes this store; the object may be deleted\n");
    let create = || {
        objects.put_opts(
            key,
            PutPayload::from_bytes(body.clone()),
            PutMode::Create.into(),
        )
    };
    match create().await {
        // The client may have retried a create of its own that had won.
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(e) => return Err(store.error("writing an object", &e)),
    }
    match create().await {
        Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(e) => return Err(store.error("writing an object that exists, create-only", &e)),
        Ok(_) => {
            return Err(StoreError {
                message: format!(
                    "store {}: it ignores create-only writes (If-None-Match: *), so two writers could overwrite each \
                     other: use a store or a version that honours them",
                    store.url()
                ),
                reason: StoreError::CREATE_ONLY_UNSUPPORTED,
            });
        }
    }
    let read = async { objects.get(key).await?.bytes().await }.await;
    let read = read.map_err(|e| store.error("reading an object back", &e))?;
    if read != body {
        return Err(StoreError::failed(format!(
            "store {}: an object read back differs from what was written",
            store.url()
        )));
    }
    let head = objects
        .head(key)
        .await
        .map_err(|e| store.error("asking for an object's size", &e))?;
    if head.size != body.len() as u64 {
        return Err(StoreError::failed(format!(
            "store {}: HEAD gives {} bytes for an object of {}",
            store.url(),
            head.size,
            body.len()
        )));
    }
    Ok(())
}

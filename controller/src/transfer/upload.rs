//! Puts a stream of unknown length into a store with bounded memory, and makes it visible only
//! when it is told to.

use super::pace::Pace;
use crate::{
    catalog::{JobIdentity, Mark, ObjectRef, UploadRef},
    reason::StoreReason,
    storage::{PartWriter, Store, StoreError},
};
use bytes::{Bytes, BytesMut};
use object_store::{multipart::PartId, path::Path};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

/// Parts sent at once when the store keeps up; with the one that is being filled this bounds the memory of a transfer.
const IN_FLIGHT: usize = 4;
/// How often a part is sent that arrives as something else.
const MAX_SENT: u32 = 3;
/// How long a store may take to put the parts of one object together; S3 needs minutes for many.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(900);
/// How long parts under way may take to end before they are cut off.
const PARTS_END: Duration = Duration::from_secs(5);
/// How long the store may take to throw an upload away before that is left to the next attempt.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(20);

/// One object that is being made.
struct Object {
    key: Path,
    id: String,
    writer: PartWriter,
    /// By index; `None` while it is under way.
    parts: Vec<Option<PartId>>,
    bytes: u64,
    complete_tried: bool,
}

/// What a part's task hands back: where it belongs, its buffer, and the store's answer.
struct PartDone {
    object: usize,
    index: usize,
    buffer: Bytes,
    /// How often it was sent.
    sent: u32,
    result: Result<PartId, StoreError>,
}

/// The objects of one attempt. Dropping it stops all that is under way and leaves the rest to
/// whoever reads the mark; [`Upload::abort`] cleans up at once.
pub(crate) struct Upload {
    store: Arc<Store>,
    mark: Mark,
    extension: &'static str,
    objects: Vec<Object>,
    filling: BytesMut,
    spare: Vec<BytesMut>,
    parts: JoinSet<PartDone>,
    /// A task of its own, so that an id is learned even when the transfer is cancelled meanwhile.
    opening: JoinSet<Result<(Path, String), StoreError>>,
    pace: Pace,
    /// When the store last finished a part, or had none to finish.
    last_part: Instant,
    store_stall: Duration,
}

impl Upload {
    /// `store_stall`: how long the store may finish no part while we wait for one.
    pub(crate) fn new(
        store: Arc<Store>,
        job: &JobIdentity,
        attempt: u32,
        start_time: jiff::Timestamp,
        extension: &'static str,
        store_stall: Duration,
    ) -> Self {
        let throttled = store.throttled();
        Self {
            store,
            mark: Mark::new(job.clone(), attempt, start_time),
            extension,
            objects: Vec::new(),
            filling: BytesMut::new(),
            spare: Vec::new(),
            parts: JoinSet::new(),
            opening: JoinSet::new(),
            pace: Pace::new(IN_FLIGHT, throttled),
            last_part: Instant::now(),
            store_stall,
        }
    }

    /// Puts the ownership mark, then opens the first upload.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        self.mark.write(&self.store).await?;
        self.open_object().await
    }

    /// Takes bytes; waits while the store has enough to do.
    pub(crate) async fn write(&mut self, mut data: &[u8]) -> Result<(), StoreError> {
        let part_size = usize::try_from(self.store.config().part_size).unwrap_or(usize::MAX);
        while !data.is_empty() {
            if self.filling.capacity() == 0 {
                self.filling = self.spare.pop().unwrap_or_default();
            }
            let take = data.len().min(part_size - self.filling.len());
            self.filling.extend_from_slice(&data[..take]);
            data = &data[take..];
            if self.filling.len() == part_size {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Resolves when a part has failed; never while all goes well. Cancel-safe.
    pub(crate) async fn failed(&mut self) -> StoreError {
        loop {
            match self.parts.join_next().await {
                Some(done) => {
                    if let Err(error) = self.note(done) {
                        return error;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Makes the objects: call it only after a good verdict. Every object's size is asked for
    /// afterwards, because an answer to a complete may be lost or untrue.
    pub(crate) async fn complete(&mut self) -> Result<Vec<ObjectRef>, StoreError> {
        if !self.filling.is_empty() {
            self.send_part().await?;
        }
        while !self.parts.is_empty() {
            self.wait_part().await?;
        }
        let mut made = Vec::with_capacity(self.objects.len());
        for object in &mut self.objects {
            let parts: Option<Vec<PartId>> = object.parts.iter().cloned().collect();
            let Some(parts) = parts.filter(|p| !p.is_empty()) else {
                return Err(StoreError::failed(format!(
                    "a part of {} was lost",
                    object.key
                )));
            };
            object.complete_tried = true;
            let uploads = self.store.uploads();
            let completing = uploads.complete(&object.key, &object.id, parts);
            let completed = tokio::time::timeout(COMPLETE_TIMEOUT, completing)
                .await
                .unwrap_or_else(|_| {
                    Err(StoreError::failed(format!(
                        "store {}: completing {} took longer than {} s",
                        self.store.url(),
                        object.key,
                        COMPLETE_TIMEOUT.as_secs()
                    )))
                });
            let size = self.store.head(&object.key).await;
            match (completed, size) {
                (_, Ok(Some(size))) if size == object.bytes => {}
                (Err(error), _) | (Ok(()), Err(error)) => return Err(error),
                (Ok(()), Ok(size)) => {
                    return Err(StoreError::failed(format!(
                        "store {}: {} should have {} bytes, but the store gives {}",
                        self.store.url(),
                        object.key,
                        object.bytes,
                        size.map_or_else(|| "none".to_owned(), |n| n.to_string())
                    )));
                }
            }
            made.push(ObjectRef {
                key: object.key.to_string(),
                bytes: object.bytes,
            });
        }
        Ok(made)
    }

    /// Whether a completed object may exist.
    pub(crate) fn complete_tried(&self) -> bool {
        self.objects.iter().any(|o| o.complete_tried)
    }

    /// Throws away all that is not completed, then the mark. The mark stays when a completed
    /// object may exist, or when something could not be thrown away: the answer says what.
    pub(crate) async fn abort(&mut self) -> Result<(), StoreError> {
        match tokio::time::timeout(CLEANUP_TIMEOUT, self.abort_all()).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::failed(format!(
                "the store did not do it within {} s",
                CLEANUP_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn abort_all(&mut self) -> Result<(), StoreError> {
        // A part that arrives beside the abort may outlive it (so the S3 manual on
        // AbortMultipartUpload): those under way may end first, within reason.
        let ending = async { while self.parts.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(PARTS_END, ending).await;
        self.parts.shutdown().await;
        if let Some(Ok(Ok((key, id)))) = self.opening.join_next().await {
            self.add_object(key, id);
        }
        let mut first_error = None;
        for object in self.objects.iter().filter(|o| !o.complete_tried) {
            if let Err(error) = self.store.uploads().abort(&object.key, &object.id).await {
                first_error.get_or_insert(error);
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        if !self.complete_tried() {
            let folder = self
                .mark
                .identity
                .attempt_folder(&self.store, self.mark.attempt)?;
            self.store.abort_unrecorded(&folder).await?;
            self.store
                .delete(&Mark::key(
                    &self.store,
                    &self.mark.identity,
                    self.mark.attempt,
                )?)
                .await?;
        }
        Ok(())
    }

    fn key_of(&self, index: usize) -> Result<Path, StoreError> {
        let folder = self
            .mark
            .identity
            .attempt_folder(&self.store, self.mark.attempt)?;
        let continued = if index == 0 {
            String::new()
        } else {
            format!(".{index:04}")
        };
        Ok(folder.join(format!("backup{}{continued}", self.extension)))
    }

    /// Opens the next object's upload and records its id before any part is sent.
    async fn open_object(&mut self) -> Result<(), StoreError> {
        let key = self.key_of(self.objects.len())?;
        let store = Arc::clone(&self.store);
        self.opening.spawn(async move {
            let id = store.uploads().open(&key).await?;
            Ok((key, id))
        });
        match self.opening.join_next().await {
            Some(Ok(Ok((key, id)))) => self.add_object(key, id),
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(error)) => return Err(lost_task(&error)),
            None => return Err(StoreError::failed("opening an upload was lost")),
        }
        self.mark.write(&self.store).await
    }

    fn add_object(&mut self, key: Path, id: String) {
        self.mark.uploads.push(UploadRef {
            key: key.to_string(),
            upload_id: id.clone(),
        });
        let writer = self.store.uploads().parts(&key, &id);
        self.objects.push(Object {
            key,
            id,
            writer,
            parts: Vec::new(),
            bytes: 0,
            complete_tried: false,
        });
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let max_parts = self.store.config().max_parts as usize;
        if self
            .objects
            .last()
            .is_some_and(|o| o.parts.len() >= max_parts)
        {
            self.open_object().await?;
        }
        while self.parts.len() >= self.pace.limit() {
            self.wait_part().await?;
        }
        let object = self.objects.len().saturating_sub(1);
        let Some(current) = self.objects.last_mut() else {
            return Err(StoreError::failed("no upload is open"));
        };
        let buffer = std::mem::take(&mut self.filling).freeze();
        let index = current.parts.len();
        current.parts.push(None);
        current.bytes += buffer.len() as u64;
        if self.parts.is_empty() {
            self.last_part = Instant::now();
        }
        self.spawn_part(object, index, buffer, 1);
        Ok(())
    }

    fn spawn_part(&mut self, object: usize, index: usize, buffer: Bytes, sent: u32) {
        let Some(current) = self.objects.get(object) else {
            return;
        };
        let writer = current.writer.clone();
        self.parts.spawn(async move {
            let result = writer.put(index, buffer.clone()).await;
            PartDone {
                object,
                index,
                buffer,
                sent,
                result,
            }
        });
    }

    async fn wait_part(&mut self) -> Result<(), StoreError> {
        match tokio::time::timeout(self.store_stall, self.parts.join_next()).await {
            Ok(Some(done)) => self.note(done),
            Ok(None) => Ok(()),
            Err(_) => Err(StoreError {
                message: format!(
                    "store {}: no part was taken within {} s: the store or the line to it is stuck",
                    self.store.url(),
                    self.store_stall.as_secs()
                ),
                reason: StoreReason::Unreachable,
            }),
        }
    }

    fn note(&mut self, done: Result<PartDone, JoinError>) -> Result<(), StoreError> {
        let done = done.map_err(|e| lost_task(&e))?;
        self.pace.part_done(self.store.throttled());
        let part = match done.result {
            Ok(part) => part,
            Err(error) => {
                let again = match error.reason {
                    // The client has waited and tried for minutes; it goes on as long as the
                    // store takes any part at all.
                    StoreReason::Throttled => self.last_part.elapsed() < self.store_stall,
                    // The line has spoilt it: once is bad luck.
                    StoreReason::Corrupted => done.sent < MAX_SENT,
                    _ => false,
                };
                if !again {
                    return Err(error);
                }
                tracing::info!(error = error.message, "a part is sent again");
                self.spawn_part(done.object, done.index, done.buffer, done.sent + 1);
                return Ok(());
            }
        };
        self.last_part = Instant::now();
        if let Some(slot) = self
            .objects
            .get_mut(done.object)
            .and_then(|o| o.parts.get_mut(done.index))
        {
            *slot = Some(part);
        }
        // The buffer is used again, unless the HTTP client still holds it.
        if let Ok(mut buffer) = done.buffer.try_into_mut() {
            buffer.clear();
            self.spare.push(buffer);
        }
        Ok(())
    }
}

fn lost_task(error: &JoinError) -> StoreError {
    StoreError::failed(format!("an upload's task ended without an answer: {error}"))
}

#[cfg(test)]
mod tests;

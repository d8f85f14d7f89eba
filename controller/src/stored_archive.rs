//! An archive as it lies in a store: its objects as one stream of bytes, for a reader on a thread of
//! its own.

use crate::{
    catalog::{Manifest, ObjectRef},
    storage::{Store, StoreError},
};
use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use object_store::path::Path;
use std::{
    collections::VecDeque,
    io::{self, Read},
    sync::Arc,
};
use tokio::{sync::mpsc, task::AbortHandle};

/// Bytes that go from the store to the reader at once: each hand-over wakes a thread.
const BATCH: usize = 256 << 10;
/// Batches between them.
const BATCHES: usize = 8;

/// Why stored objects cannot be read as an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// The store refused or failed; the backup may be sound.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The objects are not those that the manifest names.
    #[error("{0}")]
    Damaged(String),
}

impl StoredError {
    /// The error inside an error of [`StoredArchive`]'s reads.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// Compares the sizes of all objects with the manifest, before anything is read.
///
/// # Errors
/// [`StoredError`]; an object that is not there is `Damaged`.
pub async fn check_sizes(store: &Store, manifest: &Manifest) -> Result<(), StoredError> {
    for object in &manifest.objects {
        let key = parse(&object.key)?;
        match store.head(&key).await? {
            Some(bytes) if bytes == object.bytes => {}
            Some(bytes) => return Err(other_size(object, bytes)),
            None => {
                return Err(StoredError::Damaged(format!(
                    "{key} is not there: the store has lost it, or somebody deleted it"
                )));
            }
        }
    }
    Ok(())
}

fn other_size(object: &ObjectRef, bytes: u64) -> StoredError {
    StoredError::Damaged(format!(
        "{} has {bytes} bytes, the manifest says {}: the store has lost or changed data",
        object.key, object.bytes
    ))
}

fn parse(key: &str) -> Result<Path, StoredError> {
    Path::parse(key).map_err(|e| StoredError::Damaged(format!("{key:?} is no key: {e}")))
}

/// What a store hands over.
enum Piece {
    Bytes(Vec<Bytes>),
    Failed(StoredError),
    /// All was read. Without it, the end is no end.
    End,
}

/// All objects of a backup, one after the other. Its reads block, so it is for a thread of its own;
/// their errors carry a [`StoredError`]. Dropped, it asks the store for nothing more.
pub struct StoredArchive {
    pieces: mpsc::Receiver<Piece>,
    current: VecDeque<Bytes>,
    ended: bool,
    /// A failure stays one, whoever reads on.
    failed: Option<StoredError>,
    fetching: AbortHandle,
}

impl StoredArchive {
    /// Begins to read ahead. To be called within a runtime.
    #[must_use]
    pub fn open(store: Arc<Store>, manifest: &Manifest) -> Self {
        let (sender, pieces) = mpsc::channel(BATCHES);
        let objects = manifest.objects.clone();
        let fetching = tokio::spawn(async move {
            let last = match fetch(&store, &objects, &sender).await {
                Ok(()) => Piece::End,
                Err(error) => Piece::Failed(error),
            };
            // Nobody reads any more, or this is read.
            let _ = sender.send(last).await;
        });
        Self {
            pieces,
            current: VecDeque::new(),
            ended: false,
            failed: None,
            fetching: fetching.abort_handle(),
        }
    }
}

async fn fetch(
    store: &Store,
    objects: &[ObjectRef],
    to: &mpsc::Sender<Piece>,
) -> Result<(), StoredError> {
    let mut batch = Vec::new();
    let mut size = 0;
    for object in objects {
        let mut pieces = store.stream(&parse(&object.key)?).await?;
        let mut bytes = 0u64;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            bytes += piece.len() as u64;
            size += piece.len();
            batch.push(piece);
            if size >= BATCH {
                size = 0;
                if to
                    .send(Piece::Bytes(std::mem::take(&mut batch)))
                    .await
                    .is_err()
                {
                    return Ok(());
                }
            }
        }
        if bytes != object.bytes {
            return Err(other_size(object, bytes));
        }
    }
    let _ = to.send(Piece::Bytes(batch)).await;
    Ok(())
}

impl Read for StoredArchive {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            while let Some(piece) = self.current.front_mut() {
                if piece.is_empty() {
                    self.current.pop_front();
                    continue;
                }
                let take = out.len().min(piece.len());
                piece.copy_to_slice(&mut out[..take]);
                return Ok(take);
            }
            if self.ended {
                return Ok(0);
            }
            if let Some(error) = &self.failed {
                return Err(io::Error::other(error.clone()));
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(pieces)) => self.current = pieces.into(),
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(error)) => self.failed = Some(error),
                None => {
                    return Err(io::Error::other("nobody reads from the store any more"));
                }
            }
        }
    }
}

impl Drop for StoredArchive {
    fn drop(&mut self) {
        self.fetching.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{JobIdentity, Outcome},
        storage::{Location, StoreConfig},
    };

    /// A backup of three objects, the second of which is large.
    async fn stored() -> (tempfile::TempDir, Arc<Store>, Manifest, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::File {
            root: dir.path().to_owned(),
            confined_to: None,
        };
        let store = Store::open(StoreConfig::new(location)).unwrap();
        let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let mut objects = Vec::new();
        let mut whole = Vec::new();
        for (name, len) in [("a", 10), ("b", 3 * BATCH + 5), ("c", 7)] {
            let body: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            store
                .put(&store.key(name).unwrap(), body.clone().into())
                .await
                .unwrap();
            objects.push(ObjectRef {
                key: name.into(),
                bytes: len as u64,
            });
            whole.extend(body);
        }
        let manifest = Manifest {
            format_version: 1,
            outcome: Outcome::Complete,
            identity: JobIdentity {
                cluster_id: "c".into(),
                namespace: "ns".into(),
                job_name: "j".into(),
                job_uid: "u".into(),
                schedule_name: None,
                schedule_uid: None,
                store_uid: None,
                created: now,
            },
            attempt: 1,
            time: now,
            objects,
            bytes: whole.len() as u64,
            sha256: String::new(),
            backup_id: String::new(),
            method: String::new(),
            server_flavour: String::new(),
            server_version: String::new(),
            position: Default::default(),
            start_time: now,
        };
        (dir, Arc::new(store), manifest, whole)
    }

    async fn read(store: &Arc<Store>, manifest: &Manifest) -> (Vec<u8>, io::Result<usize>) {
        let mut archive = StoredArchive::open(Arc::clone(store), manifest);
        let reading = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            let end = archive.read_to_end(&mut out);
            if end.is_err() {
                let again = archive.read(&mut [0]).unwrap_err();
                assert!(StoredError::of(&again).is_some(), "it stays an error");
            }
            (out, end)
        });
        reading.await.unwrap()
    }

    #[tokio::test]
    async fn the_objects_are_one_stream() {
        let (_dir, store, manifest, whole) = stored().await;
        check_sizes(&store, &manifest).await.unwrap();
        let (out, end) = read(&store, &manifest).await;
        assert_eq!(end.unwrap(), whole.len());
        assert!(out == whole);
    }

    /// What is not as the manifest says is no end of the archive, whenever it is found.
    #[tokio::test]
    async fn what_is_missing_is_an_error_not_an_end() {
        let (dir, store, manifest, _) = stored().await;
        std::fs::write(dir.path().join("b"), vec![0; 3 * BATCH]).unwrap();
        let found = check_sizes(&store, &manifest).await.unwrap_err();
        assert!(
            matches!(&found, StoredError::Damaged(m) if m.contains("lost or changed")),
            "{found}"
        );
        let (_, end) = read(&store, &manifest).await;
        assert_eq!(StoredError::of(&end.unwrap_err()), Some(&found));

        std::fs::remove_file(dir.path().join("b")).unwrap();
        let found = check_sizes(&store, &manifest).await.unwrap_err();
        assert!(
            matches!(&found, StoredError::Damaged(m) if m.contains("not there")),
            "{found}"
        );
        let (_, end) = read(&store, &manifest).await;
        let end = end.unwrap_err();
        assert!(matches!(StoredError::of(&end), Some(StoredError::Store(_))));
    }
}

//! Stored bytes read on a thread of their own: counted, digested, verified, and passed on.

use super::{Expected, Measured, Progress, RestoreError};
use crate::archive::{self, Identities, Metadata, Sink, Verified};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// What is restored.
pub struct Source<R> {
    /// The stored bytes of all objects, in order. A restore that is ended leaves it where it is, so it must
    /// end soon after by itself.
    pub archive: R,
    /// Who opens it, where it is encrypted.
    pub identities: Arc<Identities>,
    /// What the bytes have to be.
    pub expected: Expected,
    /// Id that the archive has to have; empty: any.
    pub backup_id: String,
}

/// The archive's reader. Dropped, it reads no more.
pub(super) struct Reading {
    stopped: Arc<AtomicBool>,
    verdict: oneshot::Receiver<Result<Verified, RestoreError>>,
}

impl Reading {
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start<R: Read + Send + 'static>(
        source: Source<R>,
        sink: impl Sink + Send + 'static,
        progress: Progress,
    ) -> Result<Self, RestoreError> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (tell, verdict) = oneshot::channel();
        let archive = Stoppable {
            archive: source.archive,
            stopped: Arc::clone(&stopped),
        };
        let stored = Measured::new(archive, Some(progress));
        let sink = Named {
            backup_id: source.backup_id,
            other: None,
            sink,
        };
        let (identities, expected) = (source.identities, source.expected);
        // No thread of the runtime's: that would wait for it at its end, and a source may be slow.
        std::thread::Builder::new()
            .name("restore".to_owned())
            .spawn(move || {
                let _ = tell.send(read(stored, sink, &identities, &expected));
            })
            .map_err(|source| RestoreError::Io {
                doing: "starting a thread".to_owned(),
                source,
            })?;
        Ok(Self { stopped, verdict })
    }

    /// What was read, once all is read and the sink is gone.
    pub(super) async fn verdict(&mut self) -> Result<Verified, RestoreError> {
        (&mut self.verdict).await.unwrap_or_else(|_| {
            Err(RestoreError::Io {
                doing: "reading the archive".to_owned(),
                source: io::Error::other("its thread ended without an answer"),
            })
        })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn read(
    mut stored: Measured<impl Read + Send>,
    mut sink: Named<impl Sink>,
    identities: &Identities,
    expected: &Expected,
) -> Result<Verified, RestoreError> {
    let opened = archive::open(identities, &mut stored)?;
    let read = archive::read(opened, &mut sink);
    if let Some(id) = sink.other {
        return Err(RestoreError::NotAsStored(format!(
            "the archive is of backup {id:?}, the manifest speaks of {:?}: the objects were changed after they were stored; restore another backup",
            sink.backup_id
        )));
    }
    let verified = read?;
    let found = stored.finish().map_err(|source| RestoreError::Io {
        doing: "reading the archive to its end".to_owned(),
        source,
    })?;
    if found != *expected {
        return Err(RestoreError::NotAsStored(format!(
            "the objects have {} bytes with the SHA-256 {}, the manifest says {} with {}: they were changed after they were stored; restore another backup",
            found.bytes, found.sha256, expected.bytes, expected.sha256
        )));
    }
    Ok(verified)
}

/// The stored bytes, until somebody ends the restore.
struct Stoppable<R> {
    archive: R,
    stopped: Arc<AtomicBool>,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("the restore was ended"));
        }
        self.archive.read(buffer)
    }
}

/// A sink that gets the backup it was promised, or nothing.
struct Named<S> {
    backup_id: String,
    /// The archive's id, where it is another.
    other: Option<String>,
    sink: S,
}

impl<S: Sink> Sink for Named<S> {
    fn metadata(&mut self, metadata: &Metadata) -> io::Result<()> {
        if !self.backup_id.is_empty() && self.backup_id != metadata.backup_id {
            self.other = Some(metadata.backup_id.clone());
            return Err(io::Error::other("another backup"));
        }
        self.sink.metadata(metadata)
    }

    fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        self.sink.data(piece)
    }

    fn users(&mut self, piece: &[u8]) -> io::Result<()> {
        self.sink.users(piece)
    }
}

//! From the tool's output to the body: bounded memory, back pressure, one digest.
//!
//! ```text
//! stdout -> pump -> queue -> archive thread (tar, zstd, age) -> forward (rate, SHA-256) -> body
//! ```
//! The queue is short, but for the time that the tool holds locks: then it takes up to the lock
//! buffer, so that a slow reader does not prolong them.

use super::BackupMetrics;
use super::gate::{Gate, READ};
use super::slot::{Stop, Stopper};
use super::stage::Stage;
use crate::archive::encryption::Envelope;
use crate::archive::{ArchiveWriter, Metadata, Recipient, Summary};
use crate::protocol::StreamReason;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{mpsc, oneshot, watch};

/// Bytes in the queue while no locks are held.
pub(super) const QUEUE: u64 = 4 << 20;
/// Bytes of one chunk of the body.
const CHUNK: usize = 256 << 10;
/// Chunks between the archive thread and the forwarder.
pub(super) const CHUNKS: usize = 4;

/// What goes through the queue.
#[derive(Debug)]
pub(super) enum Piece {
    /// The tool's output.
    Data(Bytes),
    /// SQL of accounts, after all data.
    Users(Bytes),
}

/// Bytes of the pipe from the tool: with the system's 64 KiB the tool and the agent wake each other
/// for every few pages.
const PIPE: usize = 1 << 20;

/// Enlarges the pipe from the tool.
pub(crate) fn widen(stdout: impl AsFd) {
    // A user who has used up what the system allows for pipes gets the small one, which works too.
    let _ = rustix::pipe::fcntl_setpipe_size(stdout, PIPE);
}

/// Waits for room for SQL of accounts, and takes it. No locks are held any more.
pub(super) async fn take(gate: &Gate, bytes: usize) {
    gate.below(QUEUE).await;
    gate.add(bytes);
}

/// What the pump needs.
pub(super) struct Pump {
    pub(super) queue: mpsc::UnboundedSender<Piece>,
    pub(super) gate: Arc<Gate>,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) lock_buffer: u64,
    pub(super) max_lock: Duration,
    pub(super) metrics: BackupMetrics,
}

impl Pump {
    /// Reads the output to its end; shows every piece to `look`.
    ///
    /// # Errors
    /// [`Stop`]: locks were held too long for a reader that is too slow, or the output cannot be
    /// read or passed on.
    pub(super) async fn run(
        mut self,
        mut stdout: impl AsyncRead + Unpin,
        mut look: impl FnMut(&[u8]),
    ) -> Result<(), Stop> {
        let mut buffer = BytesMut::new();
        loop {
            self.room().await?;
            // A new buffer for every short read would hold many times what is counted.
            if buffer.capacity() < READ / 8 {
                buffer = self.gate.buffer();
            }
            let read = stdout.read_buf(&mut buffer).await.map_err(|error| {
                Stop::new(
                    StreamReason::Internal,
                    format!("the tool's output cannot be read: {error}"),
                )
            })?;
            if read == 0 {
                self.metrics.lock_buffer.set(0);
                return Ok(());
            }
            let chunk = buffer.split().freeze();
            if buffer.capacity() < READ / 8 {
                // Memory is used again when nobody else has it.
                buffer = BytesMut::new();
            }
            look(&chunk);
            self.metrics.raw_bytes.inc_by(chunk.len() as u64);
            let queued = self.gate.add(chunk.len());
            let buffered = if self.stage.borrow().locking {
                queued
            } else {
                0
            };
            self.metrics
                .lock_buffer
                .set(i64::try_from(buffered).unwrap_or(i64::MAX));
            // The archive thread has ended early: whoever ended it says why.
            if self.queue.send(Piece::Data(chunk)).is_err() {
                return Err(Stop::new(
                    StreamReason::Internal,
                    "the archive could not be written",
                ));
            }
        }
    }

    /// Waits for room in the queue.
    async fn room(&mut self) -> Result<(), Stop> {
        loop {
            let stage = *self.stage.borrow_and_update();
            let limit = if stage.locking {
                self.lock_buffer.max(QUEUE)
            } else {
                QUEUE
            };
            if self.gate.queued() < limit {
                return Ok(());
            }
            // Under locks every byte of room counts; else it is waited for until it is worth it.
            let enough = if stage.locking { limit } else { limit / 2 };
            let deadline = stage.locked_since.map(|since| since + self.max_lock);
            tokio::select! {
                () = self.gate.below(enough) => return Ok(()),
                changed = self.stage.changed() => if changed.is_err() { return Ok(()) },
                () = sleep_until(deadline) => {
                    return Err(Stop::new(StreamReason::LockTimeout, format!(
                        "the reader is too slow: the lock buffer of {} MiB is full, and locks have been held for {} s; \
                         raise --lock-buffer, or give the reader a faster way",
                        self.lock_buffer >> 20, self.max_lock.as_secs(),
                    )));
                }
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the tool has waited for a lock for too long: to wait for one can hold up others.
pub(super) async fn lock_waited_for(mut stage: watch::Receiver<Stage>, max_lock: Duration) -> Stop {
    loop {
        let deadline = stage
            .borrow_and_update()
            .waiting_since
            .map(|since| since + max_lock);
        tokio::select! {
            changed = stage.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = sleep_until(deadline) => {
                return Stop::new(StreamReason::LockTimeout, format!(
                    "the tool did not get a lock within {} s: a long query or transaction holds it; see SHOW PROCESSLIST",
                    max_lock.as_secs()
                ));
            }
        }
    }
}

/// What the archive thread needs.
pub(super) struct Archive {
    pub(super) queue: mpsc::UnboundedReceiver<Piece>,
    pub(super) gate: Arc<Gate>,
    pub(super) metadata: Metadata,
    pub(super) extension: &'static str,
    pub(super) level: Option<i32>,
    pub(super) recipients: Vec<Recipient>,
    /// Comes when the backup is found complete; dropped when it is not.
    pub(super) summary: oneshot::Receiver<Summary>,
    pub(super) out: mpsc::Sender<Bytes>,
}

impl Archive {
    /// Writes the archive; to be run on a thread of its own. `Ok(false)`: cut, for no summary came.
    ///
    /// # Errors
    /// When the archive cannot be written or nobody takes it.
    pub(super) fn run(mut self) -> io::Result<bool> {
        let sink = Sink {
            out: self.out,
            buffer: BytesMut::with_capacity(CHUNK),
        };
        let sink = Envelope::new(sink, &self.recipients)?;
        let mut writer = ArchiveWriter::new(sink, &self.metadata, self.extension, self.level)?;
        while let Some(piece) = self.queue.blocking_recv() {
            let chunk = match piece {
                Piece::Data(chunk) => chunk,
                Piece::Users(chunk) => {
                    writer.begin_users()?;
                    chunk
                }
            };
            writer.write_all(&chunk)?;
            self.gate.release(chunk);
        }
        let Ok(summary) = self.summary.blocking_recv() else {
            return Ok(false);
        };
        writer.finish(summary)?.finish()?.flush()?;
        Ok(true)
    }
}

/// Collects chunks for the body.
struct Sink {
    out: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK)).freeze();
        let sent = self.out.blocking_send(chunk);
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the archive"))
    }
}

/// What was handed to the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) sha256: [u8; 32],
    pub(super) bytes: u64,
}

/// What the forwarder needs.
pub(super) struct Forward {
    pub(super) chunks: mpsc::Receiver<Bytes>,
    pub(super) body: mpsc::Sender<Bytes>,
    /// Most bytes a second, while no locks are held.
    pub(super) max_rate: Option<u64>,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) stall_timeout: Duration,
    pub(super) stopper: Stopper,
    pub(super) metrics: BackupMetrics,
}

impl Forward {
    /// Passes chunks on at the reader's pace. `None` when the reader went away or stalled; then the
    /// backup was asked to stop.
    pub(super) async fn run(mut self) -> Option<Sent> {
        let mut digest = Context::new(&SHA256);
        let mut bytes = 0;
        let mut next = Instant::now();
        loop {
            let chunk = tokio::select! {
                biased;
                () = self.body.closed() => return self.reader_gone(),
                chunk = self.chunks.recv() => chunk,
            };
            let Some(chunk) = chunk else { break };
            let length = chunk.len() as u64;
            digest.update(&chunk);
            bytes += length;
            if let Some(rate) = self.max_rate {
                if !self.pace(next).await {
                    return self.reader_gone();
                }
                // What went while locks were held is not paid back: the body would pause for long.
                if !self.stage.borrow().locking {
                    let cost = Duration::from_secs_f64(length as f64 / rate.max(1) as f64);
                    next = next.max(Instant::now()) + cost;
                }
            }
            // A tool that is quiet is no stall; a reader that takes nothing is one.
            match tokio::time::timeout(self.stall_timeout, self.body.send(chunk)).await {
                Ok(Ok(())) => self.metrics.sent_bytes.inc_by(length),
                Ok(Err(_)) => return self.reader_gone(),
                Err(_) => {
                    self.stopper.stop(
                        StreamReason::Stalled,
                        format!(
                            "the reader took nothing for {} s",
                            self.stall_timeout.as_secs()
                        ),
                    );
                    return None;
                }
            }
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest.finish().as_ref());
        Some(Sent { sha256, bytes })
    }

    /// Waits for its time, or for locks, which are worth more than the rate. `false`: no reader.
    async fn pace(&mut self, next: Instant) -> bool {
        while Instant::now() < next && !self.stage.borrow_and_update().locking {
            tokio::select! {
                () = self.body.closed() => return false,
                () = tokio::time::sleep_until(next.into()) => return true,
                changed = self.stage.changed() => if changed.is_err() { return true },
            }
        }
        true
    }

    fn reader_gone(&self) -> Option<Sent> {
        self.stopper
            .stop(StreamReason::Cancelled, "the reader went away");
        None
    }
}

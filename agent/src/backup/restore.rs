//! A restore through the agent: it holds the slot of a backup, asks the server before it takes a byte,
//! and says at its end whether everything is there.

use super::request::{Method, RestoreRequest, RestoreStarted, StartError, Upload};
use super::slot::{Slot, Stop, Stopper};
use super::stage::Stage as Doing;
use super::{BackupMetrics, Engine, EngineConfig};
use crate::body::{BackupBody, BodySender, Timings, Verdict};
use crate::protocol::StreamReason;
use crate::restore::logical::{self, Input};
use crate::restore::target::{self, Target};
use crate::restore::{Expected, Progress, RestoreError};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two lines of progress.
const LOOK: Duration = Duration::from_secs(1);
/// How often a new stage is looked for.
const GLANCE: Duration = Duration::from_millis(100);
/// Lines of progress that a caller may leave where they are; further ones are left out.
const LINES: usize = 16;
/// Pieces of the request's body between the connection and the reader of the archive.
const PIECES: usize = 8;

impl Engine {
    /// Takes the slot, asks the server whether it can take the backup, and begins to load it. No byte of
    /// the archive is asked for before that. Dropping the future, or the body later, ends it.
    ///
    /// # Errors
    /// [`StartError`], before anything was written.
    pub async fn restore(
        &self,
        request: RestoreRequest,
        mut upload: Upload,
    ) -> Result<RestoreStarted, StartError> {
        let begun = Instant::now();
        let config = &self.0.config;
        if !config.allow_restore {
            return Err(StartError::RestoreNotAllowed);
        }
        let slot = self.0.slots.take(Method::Logical, None).await?;
        slot.stage().send_replace(Doing::named("precheck"));
        let target = target::check(&config.database, request.wanted).await?;
        // The client of HTTP/1.1 that waits for a word begins to send with this, and hears of the 200 then.
        let first = next(&mut upload, config.stall_timeout)
            .await
            .map_err(|stop| StartError::BadParameter {
                parameter: "body".to_owned(),
                message: stop.message,
            })?;
        let (sender, body) = BackupBody::channel(LINES);
        slot.set_body(body.ended());
        let id = slot.id().to_owned();
        let precheck = begun.elapsed();
        let run = Run {
            config: config.clone(),
            metrics: self.0.metrics.clone(),
            slot,
            target,
            expected: request.expected,
            begun,
            precheck,
        };
        tokio::spawn(run.supervise(first, upload, sender));
        Ok(RestoreStarted { id, precheck, body })
    }
}

/// One running restore.
struct Run {
    config: EngineConfig,
    metrics: BackupMetrics,
    slot: Slot,
    target: Target,
    expected: Expected,
    begun: Instant,
    precheck: Duration,
}

impl Run {
    async fn supervise(self, first: Option<Bytes>, upload: Upload, sender: BodySender) {
        let BodySender {
            chunks,
            verdict: tell,
        } = sender;
        let id = self.slot.id().to_owned();
        let bytes = self.expected.bytes;
        tracing::info!(restore = id, bytes, "restore starts");
        self.metrics.restore_running.set(1);
        let progress = Progress::default();
        let lines = tokio::spawn(report(
            progress.clone(),
            chunks,
            self.slot.stopper(),
            self.metrics.clone(),
        ));
        let loaded = self.run(first, upload, &progress).await;
        // The reporter ends with the stage that says so.
        progress.enter(crate::restore::Stage::Ended, 0);
        let timings = Timings {
            precheck: self.precheck,
            copy: self.begun.elapsed().saturating_sub(self.precheck),
            ..Timings::default()
        };
        let told = lines.await.ok();
        let verdict = match (loaded, told) {
            (Ok(()), Some((bytes, sha256))) => Verdict::Complete {
                sha256,
                bytes,
                timings,
            },
            (Ok(()), None) => Verdict::Failed {
                reason: StreamReason::Internal,
                message: "the restore is complete, but its progress was not told to the end"
                    .to_owned(),
                timings,
            },
            (Err(Stop { reason, message }), _) => Verdict::Failed {
                reason,
                message,
                timings,
            },
        };
        self.metrics.restore_running.set(0);
        let seconds = self.begun.elapsed().as_secs_f64();
        match &verdict {
            Verdict::Complete { .. } => {
                self.metrics.restored(None);
                tracing::info!(restore = id, bytes, seconds, "restore is complete");
            }
            Verdict::Failed {
                reason, message, ..
            } => {
                self.metrics.restored(Some(*reason));
                tracing::warn!(restore = id, %reason, message, seconds, "restore failed");
            }
        }
        // The slot is free when the caller learns of the end.
        drop(self);
        let _ = tell.send(verdict);
    }

    async fn run(
        &self,
        first: Option<Bytes>,
        upload: Upload,
        progress: &Progress,
    ) -> Result<(), Stop> {
        self.slot.stage().send_replace(Doing::named("load"));
        let (pieces, queue) = mpsc::channel(PIECES);
        let receive = receive(
            first,
            upload,
            pieces,
            self.config.stall_timeout,
            self.slot.stopper(),
        );
        let input = Input {
            archive: Pieces {
                queue,
                current: Bytes::new(),
            },
            identities: Arc::default(),
            expected: self.expected.clone(),
        };
        let stopped = async { self.slot.stopped().await.message };
        let load = logical::run(input, &self.target, &self.config.tmp, progress, stopped);
        let received = tokio::spawn(receive);
        let loaded = load.await;
        received.abort();
        let error = match loaded {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // Who asked for the end comes before what broke because of it.
        if let Some(stop) = self.slot.asked() {
            return Err(Stop::new(
                stop.reason,
                format!("{}; {}", stop.message, left(&self.target)),
            ));
        }
        let reason = match &error {
            RestoreError::Archive(crate::archive::ArchiveError::Data(_))
            | RestoreError::Io { .. }
            | RestoreError::Interrupted(_) => StreamReason::Internal,
            RestoreError::Archive(_)
            | RestoreError::NotAsStored(_)
            | RestoreError::Incompatible(_)
            | RestoreError::Invalid(_) => StreamReason::ArchiveDamaged,
            RestoreError::Database(_) => StreamReason::DatabaseLost,
            RestoreError::Tool { .. } => self.blame().await,
            _ => StreamReason::ToolFailed,
        };
        Err(Stop::new(
            reason,
            format!("{error}; {}", left(&self.target)),
        ))
    }

    /// A client that failed: was it the dump, or did the server go away?
    async fn blame(&self) -> StreamReason {
        match self.config.database.connect().await {
            Ok(session) => {
                session.close().await;
                StreamReason::ToolFailed
            }
            Err(_) => StreamReason::DatabaseLost,
        }
    }
}

/// What a restore that failed leaves.
fn left(target: &Target) -> String {
    format!(
        "what was restored so far is not to be used: the databases with a table {} are unfinished ({})",
        logical::UNFINISHED,
        target.databases().join(", ")
    )
}

/// The next bytes of a body; `None` at its end.
async fn next(upload: &mut Upload, stall_timeout: Duration) -> Result<Option<Bytes>, Stop> {
    loop {
        let frame = tokio::time::timeout(stall_timeout, upload.frame()).await;
        let frame = frame.map_err(|_| {
            Stop::new(
                StreamReason::Stalled,
                format!("the sender sent nothing for {} s", stall_timeout.as_secs()),
            )
        })?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => {
                return Err(Stop::new(
                    StreamReason::Cancelled,
                    format!("the sender went away: {error}"),
                ));
            }
        }
    }
}

/// Passes the body on. One that does not come to its end asks for the restore's end before the reader
/// of the archive sees one.
async fn receive(
    first: Option<Bytes>,
    mut upload: Upload,
    pieces: mpsc::Sender<Bytes>,
    stall_timeout: Duration,
    stopper: Stopper,
) {
    let mut piece = first;
    while let Some(data) = piece {
        if pieces.send(data).await.is_err() {
            return;
        }
        piece = match next(&mut upload, stall_timeout).await {
            Ok(piece) => piece,
            Err(Stop { reason, message }) => {
                stopper.stop(reason, message);
                return;
            }
        };
    }
}

/// The request's body as the archive's reader wants it, on its own thread.
struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.queue.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let take = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..take]);
        Ok(take)
    }
}

/// Tells how far it is, a line of JSON a second and for every stage, until it has ended. Returns what was
/// told. A caller that goes away asks for the end.
async fn report(
    progress: Progress,
    lines: mpsc::Sender<Bytes>,
    stopper: Stopper,
    metrics: BackupMetrics,
) -> (u64, [u8; 32]) {
    let mut digest = Context::new(&SHA256);
    let mut sent = 0;
    let mut counted = 0;
    let mut last: Option<(crate::restore::Stage, Instant)> = None;
    loop {
        let look = progress.look();
        if look.bytes > counted {
            metrics.restore_bytes.inc_by(look.bytes - counted);
            counted = look.bytes;
        }
        let due = last.is_none_or(|(stage, at)| stage != look.stage || at.elapsed() >= LOOK);
        if due {
            last = Some((look.stage, Instant::now()));
            let mut line = serde_json::to_vec(&look).unwrap_or_default();
            line.push(b'\n');
            let line = Bytes::from(line);
            // One that the caller does not take is left out: the next one says more.
            if lines.try_send(line.clone()).is_ok() {
                digest.update(&line);
                sent += line.len() as u64;
            }
        }
        if look.stage == crate::restore::Stage::Ended {
            break;
        }
        tokio::select! {
            () = lines.closed() => {
                stopper.stop(StreamReason::Cancelled, "the caller went away");
                break;
            }
            () = tokio::time::sleep(GLANCE) => {}
        }
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest.finish().as_ref());
    (sent, sha256)
}

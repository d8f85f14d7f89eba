//! A physical backup into an empty data directory, in one pass: the bytes are counted, digested, verified
//! and extracted as they come; nothing is prepared before all of it has matched, and nothing is called
//! usable before it is prepared and in its place.

mod tools;

use super::marker::{self, Marker, State};
use super::place::place;
use super::tools::Tool;
use super::{Expected, Progress, RestoreError, Restored, Stage};
use crate::archive::{self, Identities, Metadata, Sink, Verified};
use crate::backup::pipeline::widen;
use aws_lc_rs::digest::{Context, SHA256};
use std::io::{self, PipeWriter, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use tokio::process::Command;
use tokio::sync::oneshot;
use tools::Tools;

/// What a copying tool's last line has to be, beside its exit status of zero.
const COMPLETED: &str = "completed OK!";

/// Where a physical backup goes, and how it is prepared.
#[derive(Clone, Debug)]
pub struct PhysicalTarget {
    /// The data directory. It has to be empty; it is made where it is missing.
    pub directory: PathBuf,
    /// Folder for what the tools write for a moment.
    pub scratch: PathBuf,
    /// Memory of the prepare, bytes; `None`: the tool's default.
    pub use_memory: Option<u64>,
}

/// What is restored.
pub struct Source<R> {
    /// The stored bytes of all objects, in order. Where `stop` resolves it is left where it is, so it must
    /// end soon after by itself.
    pub archive: R,
    /// Who opens it, where it is encrypted.
    pub identities: Identities,
    /// What the bytes have to be.
    pub expected: Expected,
    /// Id that the archive has to have; empty: any.
    pub backup_id: String,
}

/// Restores a physical backup. `stop` resolves with the reason when it has to end early.
///
/// The directory is untouched where the error is [`RestoreError::TargetNotEmpty`],
/// [`RestoreError::Incompatible`] or [`RestoreError::Invalid`], or came before the first byte was
/// extracted; else its marker says that it is not usable. No process of ours runs any more when this
/// returns.
///
/// # Errors
/// [`RestoreError`].
pub async fn physical<R: Read + Send + 'static>(
    source: Source<R>,
    target: &PhysicalTarget,
    progress: &Progress,
    stop: impl Future<Output = String>,
) -> Result<Restored, RestoreError> {
    let mut stop = std::pin::pin!(stop);
    let directory = &target.directory;
    make(directory)?;
    marker::check_empty(directory)?;
    let total = source.expected.bytes;
    progress.enter(Stage::Extracting, total);
    let mut reading = Reading::start(source, progress.clone())?;

    let metadata = tokio::select! {
        why = &mut stop => return Err(RestoreError::Interrupted(why)),
        metadata = reading.metadata() => metadata?,
    };
    let tools = tools::choose(&metadata).await?;

    let unfinished = Marker::unfinished(&metadata, jiff::Timestamp::now());
    unfinished
        .claim(directory)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => RestoreError::TargetNotEmpty(format!(
                "another restore has just begun in {}: restore into an empty directory",
                directory.display()
            )),
            _ => RestoreError::io(
                format!("writing into {}", directory.display()),
                directory,
                error,
            ),
        })?;
    let restored = async {
        let verified = extract(&mut reading, &tools, directory, &mut stop).await?;
        progress.enter(Stage::Preparing, 0);
        prepare(&tools, target, &mut stop).await?;
        finish(directory, &unfinished, &verified).await?;
        Ok::<_, RestoreError>(verified)
    };
    match restored.await {
        Ok(Verified { metadata, summary }) => Ok(Restored {
            databases: summary.schemas.keys().cloned().collect(),
            tables: summary
                .schemas
                .values()
                .map(|tables| tables.len() as u64)
                .sum(),
            metadata,
            summary,
        }),
        Err(error) => {
            let failed = Marker {
                end_time: Some(jiff::Timestamp::now()),
                reason: Some(error.to_string()),
                ..unfinished
            };
            // The first marker says that it is not usable, too.
            if let Err(error) = failed.replace(directory) {
                tracing::warn!(%error, "the marker does not tell why the restore failed");
            }
            Err(error)
        }
    }
}

fn make(directory: &Path) -> Result<(), RestoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory);
    made.map_err(|error| {
        RestoreError::io(format!("making {}", directory.display()), directory, error)
    })
}

/// Streams the data into the extracting tool. `Ok`: everything has matched, and everything is written.
async fn extract(
    reading: &mut Reading,
    tools: &Tools,
    directory: &Path,
    stop: &mut (impl Future<Output = String> + Unpin),
) -> Result<Verified, RestoreError> {
    let pipe = |source| RestoreError::Io {
        doing: "making a pipe".to_owned(),
        source,
    };
    let (output, input) = io::pipe().map_err(pipe)?;
    widen(&input);
    let mut command = Command::new(&tools.stream.path);
    command
        .arg("-x")
        .arg("-C")
        .arg(directory)
        .stdin(output)
        .stdout(Stdio::null());
    let mut tool = Tool::start(tools.stream.name, command)?;
    reading.go_on(input);
    let mut ended = None;
    let verdict = loop {
        tokio::select! {
            why = &mut *stop => {
                tool.end().await;
                return Err(RestoreError::Interrupted(why));
            }
            verdict = reading.verdict() => break verdict,
            status = tool.wait(), if ended.is_none() => {
                let (status, said) = (status?, tool.said().await);
                if said.no_space.is_some() {
                    return Err(tool.failure(status, &said, directory));
                }
                // It may have met what the sums have not reached yet: they say whose fault it is.
                ended = Some((status, said));
            }
        }
    };
    let verified = match verdict {
        Ok(verified) => verified,
        Err(error) => {
            tool.end().await;
            return Err(error);
        }
    };
    let (status, said) = match ended {
        Some(ended) => ended,
        None => tokio::select! {
            why = &mut *stop => {
                tool.end().await;
                return Err(RestoreError::Interrupted(why));
            }
            status = tool.wait() => (status?, tool.said().await),
        },
    };
    if status.success() {
        Ok(verified)
    } else {
        Err(tool.failure(status, &said, directory))
    }
}

async fn prepare(
    tools: &Tools,
    target: &PhysicalTarget,
    stop: &mut (impl Future<Output = String> + Unpin),
) -> Result<(), RestoreError> {
    let mut command = Command::new(&tools.backup.path);
    // Its options are in the backup itself; those of this machine's servers are not read.
    command
        .arg("--prepare")
        .arg(format!("--target-dir={}", target.directory.display()))
        .arg(format!("--tmpdir={}", target.scratch.display()));
    if let Some(bytes) = target.use_memory {
        command.arg(format!("--use-memory={bytes}"));
    }
    command
        .current_dir(&target.scratch)
        .env("HOME", &target.scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut tool = Tool::start(tools.backup.name, command)?;
    let status = tokio::select! {
        why = stop => {
            tool.end().await;
            return Err(RestoreError::Interrupted(why));
        }
        status = tool.wait() => status?,
    };
    let said = tool.said().await;
    if status.success() && said.last_line().ends_with(COMPLETED) {
        Ok(())
    } else {
        Err(tool.failure(status, &said, &target.directory))
    }
}

async fn finish(
    directory: &Path,
    unfinished: &Marker,
    verified: &Verified,
) -> Result<(), RestoreError> {
    let usable = Marker {
        state: State::Usable,
        end_time: Some(jiff::Timestamp::now()),
        position: verified.summary.position.clone(),
        ..unfinished.clone()
    };
    let owned = directory.to_owned();
    // To have everything written to the disk takes its time.
    let done = tokio::task::spawn_blocking(move || {
        place(&owned)?;
        usable.replace(&owned)
    });
    let doing = || {
        format!(
            "putting the files of {} in their place",
            directory.display()
        )
    };
    match done.await {
        Ok(done) => done.map_err(|error| RestoreError::io(doing(), directory, error)),
        Err(error) => Err(RestoreError::Io {
            doing: doing(),
            source: io::Error::other(error),
        }),
    }
}

/// The archive's reader, on a thread of its own. Dropped, it reads no more.
struct Reading {
    stopped: Arc<AtomicBool>,
    metadata: oneshot::Receiver<Metadata>,
    pipe: mpsc::SyncSender<PipeWriter>,
    verdict: oneshot::Receiver<Result<Verified, RestoreError>>,
}

impl Reading {
    fn start<R: Read + Send + 'static>(
        source: Source<R>,
        progress: Progress,
    ) -> Result<Self, RestoreError> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (tell_metadata, metadata) = oneshot::channel();
        let (pipe, wait_for_pipe) = mpsc::sync_channel(1);
        let (tell_verdict, verdict) = oneshot::channel();
        let sink = Extraction {
            backup_id: source.backup_id,
            other: None,
            tell: Some(tell_metadata),
            wait: wait_for_pipe,
            pipe: None,
        };
        let stored = Stored {
            archive: source.archive,
            sum: Context::new(&SHA256),
            bytes: 0,
            progress,
            stopped: Arc::clone(&stopped),
        };
        let (identities, expected) = (source.identities, source.expected);
        // No thread of the runtime's: that would wait for it at its end, and a source may be slow.
        std::thread::Builder::new()
            .name("restore".to_owned())
            .spawn(move || {
                let _ = tell_verdict.send(read(stored, sink, &identities, &expected));
            })
            .map_err(|source| RestoreError::Io {
                doing: "starting a thread".to_owned(),
                source,
            })?;
        Ok(Self {
            stopped,
            metadata,
            pipe,
            verdict,
        })
    }

    /// The first member, before anything is taken of what follows.
    async fn metadata(&mut self) -> Result<Metadata, RestoreError> {
        if let Ok(metadata) = (&mut self.metadata).await {
            return Ok(metadata);
        }
        match self.verdict().await {
            Err(error) => Err(error),
            Ok(_) => Err(lost()),
        }
    }

    /// The data goes here from now on.
    fn go_on(&self, pipe: PipeWriter) {
        // If the thread is gone, its verdict says why.
        let _ = self.pipe.send(pipe);
    }

    /// What was read. The tool's input is closed by then.
    async fn verdict(&mut self) -> Result<Verified, RestoreError> {
        (&mut self.verdict).await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn lost() -> RestoreError {
    RestoreError::Io {
        doing: "reading the archive".to_owned(),
        source: io::Error::other("its thread ended without an answer"),
    }
}

fn read(
    mut stored: Stored<impl Read>,
    mut sink: Extraction,
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
    let (bytes, sha256) = (stored.bytes, hex::encode(stored.sum.finish()));
    if (bytes, &sha256) != (expected.bytes, &expected.sha256) {
        return Err(RestoreError::NotAsStored(format!(
            "the objects have {bytes} bytes with the SHA-256 {sha256}, the manifest says {} with {}: they were changed after they were stored; restore another backup",
            expected.bytes, expected.sha256
        )));
    }
    Ok(verified)
}

/// The stored bytes, counted and digested on their way.
struct Stored<R> {
    archive: R,
    sum: Context,
    bytes: u64,
    progress: Progress,
    stopped: Arc<AtomicBool>,
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("the restore was ended"));
        }
        let read = self.archive.read(buffer)?;
        self.sum.update(&buffer[..read]);
        self.bytes += read as u64;
        self.progress.read(read as u64);
        Ok(read)
    }
}

/// The data's way into the extracting tool.
struct Extraction {
    backup_id: String,
    /// The archive's id, where it is another.
    other: Option<String>,
    tell: Option<oneshot::Sender<Metadata>>,
    wait: mpsc::Receiver<PipeWriter>,
    /// `None`: the tool takes no more. The rest is read all the same, for the sums say whether it or the
    /// archive is at fault.
    pipe: Option<PipeWriter>,
}

impl Sink for Extraction {
    fn metadata(&mut self, metadata: &Metadata) -> io::Result<()> {
        if !self.backup_id.is_empty() && self.backup_id != metadata.backup_id {
            self.other = Some(metadata.backup_id.clone());
            return Err(io::Error::other("another backup"));
        }
        let told = self
            .tell
            .take()
            .is_some_and(|tell| tell.send(metadata.clone()).is_ok());
        self.pipe = self.wait.recv().ok();
        if told && self.pipe.is_some() {
            Ok(())
        } else {
            Err(io::Error::other("the restore was ended"))
        }
    }

    fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        match self.pipe.as_mut().map(|pipe| pipe.write_all(piece)) {
            Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.pipe = None;
                Ok(())
            }
            Some(written) => written,
            None => Ok(()),
        }
    }
}

//! A physical backup into an empty data directory, in one pass: the bytes are counted, digested, verified
//! and extracted as they come; nothing is prepared before all of it has matched, and nothing is called
//! usable before it is prepared and in its place.

mod tools;

use super::marker::{self, Marker, State};
use super::place::place;
use super::reading::{Reading, Source};
use super::tools::Tool;
use super::{Progress, RestoreError, Restored, Stage};
use crate::archive::{Metadata, Sink, Verified};
use crate::backup::pipeline::widen;
use std::io::{self, PipeWriter, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
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
    let mut reading = Extracting::start(source, progress.clone())?;

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
    reading: &mut Extracting,
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
            verdict = reading.reading.verdict() => break verdict,
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

/// The archive's reader, which begins with the metadata and waits for a place for the data.
struct Extracting {
    reading: Reading,
    metadata: oneshot::Receiver<Metadata>,
    pipe: mpsc::SyncSender<PipeWriter>,
}

impl Extracting {
    fn start<R: Read + Send + 'static>(
        source: Source<R>,
        progress: Progress,
    ) -> Result<Self, RestoreError> {
        let (tell, metadata) = oneshot::channel();
        let (pipe, wait) = mpsc::sync_channel(1);
        let sink = Extraction {
            tell: Some(tell),
            wait,
            pipe: None,
        };
        Ok(Self {
            reading: Reading::start(source, sink, progress)?,
            metadata,
            pipe,
        })
    }

    /// The first member, before anything is taken of what follows.
    async fn metadata(&mut self) -> Result<Metadata, RestoreError> {
        if let Ok(metadata) = (&mut self.metadata).await {
            return Ok(metadata);
        }
        match self.reading.verdict().await {
            Err(error) => Err(error),
            Ok(_) => Err(RestoreError::Io {
                doing: "reading the archive".to_owned(),
                source: io::Error::other("it ended before it began"),
            }),
        }
    }

    /// The data goes here from now on.
    fn go_on(&self, pipe: PipeWriter) {
        // If the thread is gone, its verdict says why.
        let _ = self.pipe.send(pipe);
    }
}

/// The data's way into the extracting tool.
struct Extraction {
    tell: Option<oneshot::Sender<Metadata>>,
    wait: mpsc::Receiver<PipeWriter>,
    /// `None`: the tool takes no more. The rest is read all the same, for the sums say whether it or the
    /// archive is at fault.
    pipe: Option<PipeWriter>,
}

impl Sink for Extraction {
    fn metadata(&mut self, metadata: &Metadata) -> io::Result<()> {
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

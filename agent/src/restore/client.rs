//! The command line client that loads a dump: fed, watched, and gone when it has to be.

use super::RestoreError;
use super::target::Target;
use crate::backup::process::{Process, describe};
use crate::database::{Connection, Flavour, private_folder};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Bytes of stderr that are kept, the last ones.
const TAIL: usize = 3000;
/// How long the ends of the client's pipes may outlive it.
const PIPES: Duration = Duration::from_secs(5);
/// How long a session of a client that was ended may take to go.
const SESSION: Duration = Duration::from_secs(10);

/// A running client.
pub(super) struct Client {
    name: String,
    process: Process,
    stdin: Option<ChildStdin>,
    stderr: JoinHandle<String>,
    /// Number of its session at the server.
    session: Option<oneshot::Receiver<String>>,
    connection: Connection,
    _folder: TempDir,
}

impl Client {
    /// Starts it. Nothing was written to the server yet.
    ///
    /// # Errors
    /// When its private folder or itself cannot be had.
    pub(super) fn start(target: &Target, tmp: &Path) -> Result<Self, RestoreError> {
        let name = target.client.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let cannot = |doing: String| move |source| RestoreError::Io { doing, source };
        let folder = private_folder(tmp).map_err(cannot(format!(
            "writing to {}; give a writable folder by TMPDIR",
            tmp.display()
        )))?;
        let password = target.password.as_deref();
        let mut command = target
            .connection
            .command(&target.client, password, folder.path())
            .map_err(cannot(format!("writing the options of {name}")))?;
        command
            .args([
                "--batch",
                "--skip-column-names",
                // Bytes are taken as they are, and no line is a command of the client's own.
                "--binary-mode",
                // They belong to the bodies of routines.
                "--comments",
                "--default-character-set=utf8mb4",
                "--max-allowed-packet=1G",
                // What was set for the session would be lost.
                "--skip-reconnect",
                "--local-infile=0",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if target.server.flavour == Flavour::Mariadb {
            command.arg("--abort-source-on-error");
        }
        let mut process = Process::start(command)
            .map_err(cannot(format!("starting {}", target.client.display())))?;
        let gone = |what: &str| RestoreError::Io {
            doing: format!("starting {name}"),
            source: io::Error::other(format!("it has no {what}")),
        };
        let stdin = process.child.stdin.take().ok_or_else(|| gone("stdin"))?;
        let stdout = process.child.stdout.take().ok_or_else(|| gone("stdout"))?;
        let stderr = process.child.stderr.take().ok_or_else(|| gone("stderr"))?;
        let (tell, session) = oneshot::channel();
        tokio::spawn(first_line(stdout, tell));
        Ok(Self {
            name,
            process,
            stdin: Some(stdin),
            stderr: tokio::spawn(tail(stderr)),
            session: Some(session),
            connection: target.connection.clone(),
            _folder: folder,
        })
    }

    /// Gives it everything that comes, and keeps its input open. An error means that it takes no more.
    pub(super) async fn feed(&mut self, chunks: &mut mpsc::Receiver<Bytes>) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        loop {
            let chunk = tokio::select! {
                biased;
                // It ended, though nobody said that there is no more.
                _ = self.process.child.wait() => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                chunk = chunks.recv() => chunk,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            stdin.write_all(&chunk).await?;
        }
    }

    /// Says that there is no more, and waits for its end.
    ///
    /// # Errors
    /// [`RestoreError::Tool`], unless it ended with success.
    pub(super) async fn finish(&mut self) -> Result<(), RestoreError> {
        drop(self.stdin.take());
        let status = self.process.child.wait().await;
        let status = status.map_err(|source| RestoreError::Io {
            doing: format!("waiting for {}", self.name),
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        Err(self.failed(status).await)
    }

    /// Ends it, and its session at the server. It is reaped when this returns.
    pub(super) async fn end(mut self) {
        // It waits for its input on SIGINT, too; its session is ended below.
        if let Err(error) = self.process.kill().await {
            tracing::error!(%error, "the client cannot be waited for");
        }
        // Not before: at the end of its input a client runs what it has, half a statement too.
        drop(self.stdin.take());
        let Some(session) = self.session.take() else {
            return;
        };
        if let Ok(Ok(id)) = tokio::time::timeout(PIPES, session).await
            && let Err(error) = end_session(&self.connection, &id).await
        {
            tracing::warn!(
                error,
                "it is not known whether the client's session has ended"
            );
        }
    }

    async fn failed(&mut self, status: ExitStatus) -> RestoreError {
        let stderr = match tokio::time::timeout(PIPES, &mut self.stderr).await {
            Ok(Ok(stderr)) => stderr,
            _ => "(stderr could not be read to its end)".to_owned(),
        };
        let full = ["No space left on device", "Errcode: 28", "errno: 28"];
        if full.iter().any(|words| stderr.contains(words)) {
            return RestoreError::NoSpace {
                place: "the server's volume".to_owned(),
                message: stderr,
            };
        }
        RestoreError::Tool {
            tool: self.name.clone(),
            status: describe(status),
            stderr,
        }
    }
}

/// Kills a session, and waits until it is gone: a long statement ends at its own pace.
async fn end_session(connection: &Connection, id: &str) -> Result<(), String> {
    let Ok(id) = id.trim().parse::<u64>() else {
        return Err(format!("{:?} is no number of a session", id.trim()));
    };
    let gone = async {
        let mut session = connection.connect().await?;
        // One that is gone already cannot be killed.
        let _ = session.execute("sessions", &format!("KILL {id}")).await;
        let query = format!("SELECT 1 FROM information_schema.processlist WHERE id = {id}");
        while session.value("sessions", &query).await?.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        session.close().await;
        Ok::<(), crate::database::DatabaseError>(())
    };
    match tokio::time::timeout(SESSION, gone).await {
        Ok(gone) => gone.map_err(|error| error.to_string()),
        Err(_) => Err(format!("session {id} is still there")),
    }
}

/// Tells the first line, and reads the rest, which nobody needs.
async fn first_line(stdout: impl AsyncRead + Unpin, tell: oneshot::Sender<String>) {
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    if stdout.read_until(b'\n', &mut line).await.is_ok() {
        let _ = tell.send(String::from_utf8_lossy(&line).into_owned());
    }
    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
}

/// The last lines.
async fn tail(stderr: impl AsyncRead + Unpin) -> String {
    let mut stderr = BufReader::new(stderr);
    let mut lines: VecDeque<String> = VecDeque::new();
    let mut line = Vec::new();
    loop {
        let buffer = match stderr.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(buffer) => buffer,
        };
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&piece[..piece.len().min(TAIL - line.len().min(TAIL))]);
        let used = piece.len() + usize::from(end.is_some());
        stderr.consume(used);
        if end.is_some() {
            push(&mut lines, &mut line);
        }
    }
    push(&mut lines, &mut line);
    Vec::from(lines).join("\n")
}

fn push(lines: &mut VecDeque<String>, line: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    if text.is_empty() {
        return;
    }
    tracing::debug!(line = text, "client");
    lines.push_back(text);
    while lines.iter().map(String::len).sum::<usize>() > TAIL && lines.len() > 1 {
        lines.pop_front();
    }
}

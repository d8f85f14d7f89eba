//! The tools of a restore as processes: what they say, and how they ended.

use super::RestoreError;
use crate::backup::process::{Process, describe};
use crate::backup::tool::series;
use std::collections::VecDeque;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// Bytes of stderr that are kept for a message, the last ones.
const TAIL: usize = 2000;
/// Longest line of stderr that is looked at, bytes.
const LINE: usize = 8 << 10;
/// How long stderr may outlive the tool: something that it started may hold it open.
const STDERR: Duration = Duration::from_secs(5);

/// What a tool said on its standard error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    lines: VecDeque<String>,
    /// The first line that speaks of a full disk.
    pub(crate) no_space: Option<String>,
}

impl Said {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if line.trim().is_empty() {
            return;
        }
        if self.no_space.is_none() && speaks_of_no_space(line) {
            self.no_space = Some(line.to_owned());
        }
        self.lines.push_back(line.to_owned());
        while self.lines.iter().map(String::len).sum::<usize>() > TAIL && self.lines.len() > 1 {
            self.lines.pop_front();
        }
    }

    /// The last line that is not blank.
    pub(crate) fn last_line(&self) -> &str {
        self.lines.back().map_or("", String::as_str)
    }

    /// The end of it.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

/// Whether a line of a tool or a server says that the disk is full: by the system's words, or by
/// `ENOSPC`'s number as MySQL and MariaDB print it.
#[must_use]
pub fn speaks_of_no_space(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let number = |before: &str| {
        lower.split(before).skip(1).any(|rest| {
            rest.starts_with("28") && !rest[2..].starts_with(|c: char| c.is_ascii_digit())
        })
    };
    lower.contains("no space left on device")
        || lower.contains("disk quota exceeded")
        || lower.contains("disk is full")
        || number("errcode: ")
        || number("errno: ")
        || number("error number ")
        || number("os errno ")
}

/// Whether two versions, of servers or tools, are of one release series, as 10.11 or 8.4.
#[must_use]
pub fn same_series(one: &str, other: &str) -> bool {
    match (series(one), series(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// A tool that runs, in a process group of its own.
#[derive(Debug)]
pub(crate) struct Tool {
    name: String,
    process: Process,
    stderr: JoinHandle<Said>,
}

impl Tool {
    /// Starts it; its standard error is read from now on.
    ///
    /// # Errors
    /// [`RestoreError::Io`] when it cannot be executed.
    pub(crate) fn start(name: &str, mut command: Command) -> Result<Self, RestoreError> {
        command
            .stderr(Stdio::piped())
            // A group of its own, so that what it starts ends with it, and Ctrl-C reaches us alone.
            .process_group(0)
            .kill_on_drop(true)
            // Messages that are read here come in one language.
            .env("LC_ALL", "C.UTF-8");
        let started = Process::start(command);
        let mut process = started
            .map_err(|error| RestoreError::io(format!("starting {name}"), Path::new("/"), error))?;
        let stderr = process.child.stderr.take();
        let stderr = tokio::spawn(async move {
            match stderr {
                Some(stderr) => listen(stderr).await,
                None => Said::default(),
            }
        });
        Ok(Self {
            name: name.to_owned(),
            process,
            stderr,
        })
    }

    /// Waits for its end. Safe to drop and to call again.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus, RestoreError> {
        let status = self.process.child.wait().await;
        status.map_err(|source| RestoreError::Io {
            doing: format!("waiting for {}", self.name),
            source,
        })
    }

    /// Ends it with all that it started, and reaps it.
    pub(crate) async fn end(&mut self) {
        if let Err(error) = self.process.end().await {
            tracing::error!(tool = self.name, %error, "a tool cannot be waited for");
        }
    }

    /// What it said, once it has ended.
    pub(crate) async fn said(&mut self) -> Said {
        match tokio::time::timeout(STDERR, &mut self.stderr).await {
            Ok(said) => said.unwrap_or_default(),
            Err(_) => {
                self.stderr.abort();
                Said::default()
            }
        }
    }

    /// Why it ended badly: no space on `place`, or its own words.
    pub(crate) fn failure(&self, status: ExitStatus, said: &Said, place: &Path) -> RestoreError {
        match &said.no_space {
            Some(line) => RestoreError::NoSpace {
                place: place.display().to_string(),
                message: line.clone(),
            },
            None => RestoreError::Tool {
                tool: self.name.clone(),
                status: describe(status),
                stderr: said.tail(),
            },
        }
    }
}

async fn listen(stderr: impl AsyncRead + Unpin) -> Said {
    let mut said = Said::default();
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        let buffer = match stderr.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(buffer) => buffer,
        };
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&piece[..piece.len().min(LINE - line.len())]);
        let used = piece.len() + usize::from(end.is_some());
        stderr.consume(used);
        if end.is_some() {
            let text = String::from_utf8_lossy(&line).into_owned();
            tracing::debug!(line = text, "tool");
            said.line(&text);
            line.clear();
        }
    }
    said.line(&String::from_utf8_lossy(&line));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_by_its_words() {
        for line in [
            "mbstream: Can't create/write to file (Errcode: 28 \"No space left on device\")",
            "mbstream: write error (Errcode: 28)",
            "2026-03-01  2:10:00 0 [ERROR] InnoDB: Operating system error number 28 in a file operation.",
            "InnoDB: Error number 28 means 'No space left on device'",
            "error: OS errno 28 - No space left on device",
        ] {
            assert!(speaks_of_no_space(line), "{line}");
        }
        for line in [
            "completed OK!",
            "Operating system error number 2 in a file operation.",
            "error number 280",
            "page [page id: space=28, page number=28]",
        ] {
            assert!(!speaks_of_no_space(line), "{line}");
        }
    }

    #[tokio::test]
    async fn the_end_of_what_is_said_is_kept() {
        let text = (0..1000).map(|n| format!("line {n}\n")).collect::<String>() + "\n  \nlast";
        let said = listen(text.as_bytes()).await;
        assert_eq!(said.last_line(), "last");
        assert!(said.tail().len() < 2 * TAIL && said.tail().contains("line 999\nlast"));
    }
}

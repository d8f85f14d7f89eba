//! A tool's stderr: its last words, its stages, its position.

use super::BackupMetrics;
use super::stage::{Log, Stage};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;

/// How long stderr may outlive the tool: something that it started may hold it open.
const STDERR: Duration = Duration::from_secs(5);
/// Bytes of stderr that are kept for a message, the last ones.
const TAIL: usize = 3000;
/// Longest line of stderr that is looked at.
const LINE: usize = 8 << 10;

/// What stderr said.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) log: Log,
    tail: VecDeque<String>,
    error_seen: bool,
}

impl Report {
    /// A message with the last lines of stderr.
    pub(super) fn told(&self, message: &str) -> String {
        if self.tail.is_empty() {
            return message.to_owned();
        }
        let lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        format!("{message}; the tool's last words:\n{}", lines.join("\n"))
    }

    /// Dump tools may print an error and go on.
    pub(super) fn has_error(&self) -> bool {
        self.error_seen
    }

    fn line(&mut self, line: &str) {
        self.log.line(line);
        if line.trim().is_empty() {
            return;
        }
        let lower = line.to_ascii_lowercase();
        self.error_seen |= ["dump: error", "dump: got error", "dump: couldn't"]
            .iter()
            .any(|e| lower.contains(e));
        self.tail.push_back(line.trim_end().to_owned());
        while self.tail.iter().map(String::len).sum::<usize>() > TAIL && self.tail.len() > 1 {
            self.tail.pop_front();
        }
    }
}

/// What a reader made of stderr, once the tool has ended.
pub(super) async fn finished(mut task: tokio::task::JoinHandle<Report>) -> Report {
    match tokio::time::timeout(STDERR, &mut task).await {
        Ok(report) => report.unwrap_or_default(),
        Err(_) => {
            task.abort();
            Report::default()
        }
    }
}

/// Reads stderr to its end; keeps the stage up to date.
pub(super) async fn read(
    stderr: impl AsyncRead + Unpin,
    stage: watch::Sender<Stage>,
    metrics: BackupMetrics,
) -> Report {
    let mut report = Report::default();
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    let mut entered = Instant::now();
    metrics.stage_duration.reset();
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
        if end.is_none() {
            continue;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        tracing::debug!(line = text, "tool");
        report.line(&text);
        let now = Instant::now();
        let before = *stage.borrow();
        if let Some(next) = before.after(&text, now) {
            if next.name != before.name {
                metrics
                    .stage_duration
                    .with_label_values(&[before.name])
                    .set((now - entered).as_secs_f64());
                entered = now;
            }
            stage.send_replace(next);
        }
    }
    if !line.is_empty() {
        report.line(&String::from_utf8_lossy(&line));
    }
    let last = stage.borrow().name;
    metrics
        .stage_duration
        .with_label_values(&[last])
        .set(entered.elapsed().as_secs_f64());
    report
}

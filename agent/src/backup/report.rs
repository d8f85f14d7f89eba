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
    /// Of a stderr that was not read to its end: what it did not say may have been an error.
    fn unknown() -> Self {
        Self {
            tail: ["(stderr could not be read to its end)".to_owned()].into(),
            error_seen: true,
            ..Self::default()
        }
    }

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
        Ok(report) => report.unwrap_or_else(|_| Report::unknown()),
        Err(_) => {
            task.abort();
            Report::unknown()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex};

    const LOG: &[u8] = include_bytes!("../../tests/fixtures/mariadb-backup-10.11.log");

    /// Every stage, in order, and what was said, of stderr that comes in pieces of these sizes.
    fn read_in(stderr: &[u8], sizes: &[usize]) -> (Vec<&'static str>, Log, Vec<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let metrics = BackupMetrics::new(&prometheus::Registry::new()).unwrap();
            let names = Arc::new(Mutex::new(Vec::new()));
            let (sender, mut stages) = watch::channel(Stage::default());
            let (mut write, stderr_end) = tokio::io::duplex(1 << 10);
            let reading = read(stderr_end, sender, metrics);
            let writing = async {
                use tokio::io::AsyncWriteExt as _;
                let mut left = stderr;
                for size in sizes.iter().cycle() {
                    let (now, later) = left.split_at(left.len().min(*size));
                    write.write_all(now).await.unwrap();
                    // The reader runs as far as it can.
                    tokio::task::yield_now().await;
                    left = later;
                    if left.is_empty() {
                        break;
                    }
                }
                drop(write);
            };
            let seen = Arc::clone(&names);
            let watching = async {
                while stages.changed().await.is_ok() {
                    seen.lock().unwrap().push(stages.borrow_and_update().name);
                }
            };
            let (report, (), ()) = tokio::join!(reading, writing, watching);
            let mut names = names.lock().unwrap().clone();
            names.dedup();
            (names, report.log, report.tail.into())
        })
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_no_success() {
        let held_open = tokio::spawn(std::future::pending());
        let panicked = tokio::spawn(async { panic!("a fault") });
        for task in [held_open, panicked] {
            let report = finished(task).await;
            assert!(report.has_error() && !report.log.completed);
            assert!(report.told("x").contains("not be read"));
        }
    }

    /// An eighth of what is usual, or of what PROPTEST_CASES says: a whole log is long.
    fn cases() -> ProptestConfig {
        let usual = ProptestConfig::default();
        ProptestConfig {
            cases: (usual.cases / 8).max(1),
            ..usual
        }
    }

    proptest! {
        #![proptest_config(cases())]

        /// However a tool's words arrive, they say the same.
        #[test]
        fn pieces_change_nothing(sizes in proptest::collection::vec(1_usize..2000, 1..6)) {
            let (_, log, tail) = read_in(LOG, &sizes);
            let (_, whole, whole_tail) = read_in(LOG, &[LOG.len()]);
            prop_assert!(log.completed);
            prop_assert_eq!(log, whole);
            prop_assert_eq!(tail, whole_tail);
        }

        /// Any bytes, in any pieces: no panic, memory for the last words alone.
        #[test]
        fn any_bytes_are_read(
            bytes in proptest::collection::vec(any::<u8>(), 0..20_000),
            sizes in proptest::collection::vec(1_usize..5000, 1..6),
        ) {
            let (names, log, tail) = read_in(&bytes, &sizes);
            let (whole_names, whole, whole_tail) = read_in(&bytes, &[bytes.len().max(1)]);
            prop_assert_eq!((names, log, &tail), (whole_names, whole, &whole_tail));
            let kept = tail.iter().map(String::len).sum::<usize>();
            prop_assert!(kept <= TAIL || tail.len() == 1, "{}", kept);
        }
    }
}

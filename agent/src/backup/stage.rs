//! Reads mariadb-backup's stderr: what it is doing, which locks it holds, where it stands.

use crate::archive::Position;
use std::time::{Duration, Instant};

/// What a tool is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    /// For people and metrics; a bounded set.
    pub(super) name: &'static str,
    /// Whether output is buffered, so that locks are released at the tool's own pace.
    pub(super) locking: bool,
    /// Since when a lock is waited for: waiting for a global lock can block others, too.
    pub(super) waiting_since: Option<Instant>,
    /// Since when locks are held that can block writes.
    pub(super) locked_since: Option<Instant>,
    /// How long such locks were held in all, up to their release.
    pub(super) locked_for: Duration,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            name: "precheck",
            locking: false,
            waiting_since: None,
            locked_since: None,
            locked_for: Duration::ZERO,
        }
    }
}

impl Stage {
    pub(super) fn named(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// How long locks were held, counted up to now while they are.
    pub(super) fn lock_time(&self, now: Instant) -> Duration {
        self.locked_for
            + self
                .locked_since
                .map_or(Duration::ZERO, |since| now - since)
    }

    /// The stage after one line of stderr; `None` when the line does not change it.
    ///
    /// `BACKUP STAGE`, <https://mariadb.com/kb/en/backup-stage/>: START lets everything go on,
    /// FLUSH stops writes to tables that are not transactional, BLOCK_DDL also DDL, BLOCK_COMMIT
    /// every commit.
    pub(super) fn after(self, line: &str, now: Instant) -> Option<Self> {
        if line.ends_with("All tables unlocked") {
            return Some(Self {
                locking: false,
                waiting_since: None,
                locked_since: None,
                locked_for: self.lock_time(now),
                name: "finish",
            });
        }
        let (before, word) = line.rsplit_once("BACKUP STAGE ")?;
        let name = match word {
            "START" => "start",
            "FLUSH" => "flush",
            "BLOCK_DDL" => "block-ddl",
            "BLOCK_COMMIT" => "block-commit",
            _ => return None,
        };
        let blocks = name != "start";
        if before.ends_with("Starting ") || before.ends_with("Started ") {
            return Some(Self {
                name,
                locking: self.locking || name != "start",
                waiting_since: Some(now),
                ..self
            });
        }
        before.ends_with("Acquired locks for ").then(|| Self {
            name,
            waiting_since: None,
            locked_since: self.locked_since.or(blocks.then_some(now)),
            ..self
        })
    }
}

/// What is learnt from the lines of stderr beside the stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    /// The last line that is not blank is `completed OK!`.
    pub(super) completed: bool,
    /// Where the backup stands.
    pub(super) position: Position,
}

impl Log {
    /// Takes one line.
    pub(super) fn line(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        self.completed = line.ends_with("completed OK!");
        // binlog position: filename 'bin.000001', position '1984', GTID of the last change '0-1-10'
        if let Some((_, rest)) = line.split_once("binlog position: filename ") {
            self.position.binlog_file = quoted(rest);
            self.position.binlog_position =
                after(rest, "position ").and_then(|value| value.parse().ok());
            self.position.gtid = after(rest, "GTID of the last change ").filter(|g| !g.is_empty());
        }
        // Redo log (from LSN 44878 to 53860) was copied.
        if let Some((_, rest)) = line.split_once("Redo log (from LSN ")
            && let Some((_, to)) = rest.split_once(" to ")
        {
            let digits: String = to.chars().take_while(char::is_ascii_digit).collect();
            self.position.lsn = digits.parse().ok();
        }
    }
}

fn quoted(text: &str) -> Option<String> {
    text.split('\'').nth(1).map(str::to_owned)
}

fn after(text: &str, label: &str) -> Option<String> {
    text.split_once(label).and_then(|(_, rest)| quoted(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = include_str!("../../tests/fixtures/mariadb-backup-10.11.log");

    #[test]
    fn the_stages_of_a_real_log() {
        let start = Instant::now();
        let mut stage = Stage::named("copy");
        let mut seen = Vec::new();
        for (n, line) in LOG.lines().enumerate() {
            if let Some(next) = stage.after(line, start + Duration::from_secs(n as u64)) {
                if next.name != stage.name {
                    seen.push((next.name, next.locking));
                }
                stage = next;
            }
        }
        assert_eq!(
            seen,
            [
                ("start", false),
                ("flush", true),
                ("block-ddl", true),
                ("block-commit", true),
                ("finish", false)
            ]
        );
        // A second a line: from "Acquired locks for BACKUP STAGE FLUSH" to "All tables unlocked".
        let line = |text: &str| LOG.lines().position(|line| line.ends_with(text)).unwrap();
        let held = line("All tables unlocked") - line("Acquired locks for BACKUP STAGE FLUSH");
        assert_eq!(stage.locked_for, Duration::from_secs(held as u64));
        assert_eq!((stage.waiting_since, stage.locked_since), (None, None));
    }

    #[test]
    fn the_position_and_the_last_word_of_a_real_log() {
        let mut log = Log::default();
        for line in LOG.lines() {
            assert!(!log.completed);
            log.line(line);
        }
        assert!(log.completed);
        assert_eq!(
            log.position,
            Position {
                gtid: Some("0-1-10".into()),
                binlog_file: Some("bin.000001".into()),
                binlog_position: Some(1984),
                lsn: Some(53860),
            }
        );
        log.line("");
        assert!(log.completed);
        log.line("something after it");
        assert!(!log.completed);
    }

    #[test]
    fn waiting_for_a_lock_is_seen() {
        let now = Instant::now();
        let stage = Stage::default()
            .after("x Starting BACKUP STAGE BLOCK_COMMIT", now)
            .unwrap();
        assert_eq!(stage.waiting_since, Some(now));
        assert!(stage.locking && stage.locked_since.is_none());
    }
}

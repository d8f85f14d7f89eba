//! Reads a copying tool's stderr: what it is doing, which locks it holds, where it stands.

use crate::archive::Position;
use std::time::{Duration, Instant};

/// The stage of xtrabackup's global read lock.
const READ_LOCK: &str = "read-lock";

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
        match line.rsplit_once("BACKUP STAGE ") {
            Some((before, word)) => self.mariadb_backup(before, word, now),
            None => self.xtrabackup(line, now),
        }
    }

    fn mariadb_backup(self, before: &str, word: &str, now: Instant) -> Option<Self> {
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
                locking: self.locking || blocks,
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

    /// It says what it asks for, and not that it got it: that it goes on says so, but for the thread
    /// that follows the redo log. `LOCK INSTANCE FOR BACKUP` lets writes go on; the global read lock,
    /// taken for tables that are not InnoDB's, does not.
    fn xtrabackup(self, line: &str, now: Instant) -> Option<Self> {
        let asked = line.rsplit_once("Executing ").map_or("", |(_, sql)| sql);
        if asked.starts_with("LOCK ") && asked.contains(" FOR BACKUP") {
            return Some(Self {
                name: "start",
                waiting_since: Some(now),
                ..self
            });
        }
        if asked.starts_with("FLUSH TABLES WITH READ LOCK") {
            return Some(Self {
                name: READ_LOCK,
                locking: true,
                waiting_since: Some(now),
                ..self
            });
        }
        let goes_on = self.waiting_since.is_some() && ["start", READ_LOCK].contains(&self.name);
        if !goes_on || line.trim().is_empty() || line.contains("log scanned up to") {
            return None;
        }
        // A wait of mariadb-backup's ends with a line of its own.
        if !line.contains("[Xtrabackup]") {
            return None;
        }
        let blocks = self.name == READ_LOCK;
        Some(Self {
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
        // Transaction log of lsn (18204315) to (18204325) was copied.
        if let Some((_, rest)) = line
            .split_once("Redo log (from LSN ")
            .or_else(|| line.split_once("Transaction log of lsn ("))
            && let Some((_, to)) = rest.split_once(" to ")
        {
            let to = to.trim_start_matches('(');
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
    use proptest::prelude::*;

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

    /// In the form that its documentation and bug reports show, with tables that are not InnoDB's.
    const XTRABACKUP: &str = "\
2026-01-01T00:00:00.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] Executing LOCK INSTANCE FOR BACKUP ...
2026-01-01T00:00:01.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] uses posix_fadvise().
2026-01-01T00:00:02.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] >> log scanned up to (18204325)
2026-01-01T00:00:03.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] Executing FLUSH NO_WRITE_TO_BINLOG TABLES...
2026-01-01T00:00:04.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] Executing FLUSH TABLES WITH READ LOCK...
2026-01-01T00:00:05.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] >> log scanned up to (18204325)
2026-01-01T00:00:06.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] Starting to backup non-InnoDB tables and files
2026-01-01T00:00:07.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] Executing FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS...
2026-01-01T00:00:08.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] Executing UNLOCK INSTANCE
2026-01-01T00:00:09.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] Executing UNLOCK TABLES
2026-01-01T00:00:10.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] All tables unlocked
2026-01-01T00:00:11.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] MySQL binlog position: filename 'binlog.000003', position '157', GTID of the last change '4b27-11eb:1-2'
2026-01-01T00:00:12.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] Transaction log of lsn (18204315) to (18204325) was copied.
2026-01-01T00:00:13.000001+00:00 0 [Note] [MY-011825] [Xtrabackup] completed OK!
";

    #[test]
    fn what_xtrabackup_says() {
        let start = Instant::now();
        let mut stage = Stage::named("copy");
        let (mut log, mut seen) = (Log::default(), Vec::new());
        for (n, line) in XTRABACKUP.lines().enumerate() {
            log.line(line);
            if let Some(next) = stage.after(line, start + Duration::from_secs(n as u64)) {
                stage = next;
                let waits = stage.waiting_since.is_some();
                seen.push((stage.name, waits, stage.locking));
            }
        }
        assert_eq!(
            seen,
            [
                ("start", true, false),
                ("start", false, false),
                ("read-lock", true, true),
                ("read-lock", false, true),
                ("finish", false, false)
            ]
        );
        // From "Starting to backup" to "All tables unlocked".
        assert_eq!(stage.locked_for, Duration::from_secs(4));
        assert!(log.completed);
        assert_eq!(
            log.position,
            Position {
                gtid: Some("4b27-11eb:1-2".into()),
                binlog_file: Some("binlog.000003".into()),
                binlog_position: Some(157),
                lsn: Some(18_204_325),
            }
        );
    }

    /// What is read of stderr by the lines that `lines` gives.
    fn read<'a>(lines: impl Iterator<Item = &'a str>, now: Instant) -> (Stage, Log) {
        let (mut stage, mut log) = (Stage::default(), Log::default());
        for line in lines {
            log.line(line);
            stage = stage.after(line, now).unwrap_or(stage);
        }
        (stage, log)
    }

    proptest! {
        /// Whatever a tool writes: no panic, and only its last line makes it complete.
        #[test]
        fn any_lines_are_read(
            lines in proptest::collection::vec(
                prop_oneof![
                    any::<String>(),
                    "(Starting|Acquired locks for|Executing)? ?(BACKUP STAGE|LOCK|FLUSH TABLES WITH)? ?(START|FLUSH|INSTANCE FOR BACKUP|READ LOCK|BLOCK_COMMIT)?",
                    "(MySQL )?binlog position: filename '?[a-z.']{0,9}'?, position '?[0-9]{0,30}'?",
                    "(Redo log \\(from LSN |Transaction log of lsn \\()[0-9()]{0,25}( to \\(?[0-9]{0,25})?",
                    Just("All tables unlocked".to_owned()),
                ],
                0..30,
            ),
        ) {
            let now = Instant::now();
            let (stage, log) = read(lines.iter().map(String::as_str), now);
            prop_assert_eq!(stage.lock_time(now), Duration::ZERO);
            let last = lines.iter().rfind(|line| !line.trim().is_empty());
            let says_so = last.is_some_and(|line| line.ends_with("completed OK!"));
            prop_assert_eq!(log.completed, says_so);
        }

        /// A real log that is cut anywhere is not complete.
        #[test]
        fn a_cut_log_is_not_complete(at in any::<prop::sample::Index>()) {
            for whole in [LOG, XTRABACKUP] {
                let end = whole.trim_end().len();
                let cut = at.index(end);
                prop_assume!(whole.is_char_boundary(cut));
                let (_, log) = read(whole[..cut].lines(), Instant::now());
                prop_assert!(!log.completed, "cut at {} of {}", cut, end);
            }
        }
    }
}

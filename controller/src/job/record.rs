//! How a job's status changes: pure functions, so that what a person will read is tested as a table.

use super::plan::final_phase;
use crate::{
    api::{
        BackupJobSpec, BackupJobStatus,
        conditions::{self, Status, cut},
        job::{
            Attempt, COMPLETE, FAILED, FAILURE_TARGET, Object, PROGRESSING, Phase, Position,
            Progress, SourceStatus, Timings,
        },
    },
    catalog::Manifest,
    jitter,
    reason::{FailureReason, Retry},
    transfer,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Attempts that a status keeps.
const KEPT_ATTEMPTS: usize = 10;
/// Objects that a status lists; the manifest has them all.
const KEPT_OBJECTS: usize = 1000;
/// Interruptions in a row, none of which got further than one before, after which they count.
const FRUITLESS_INTERRUPTIONS: usize = 5;
/// First delay between attempts.
const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(10);
/// Longest delay between attempts.
const LONGEST_DELAY: SignedDuration = SignedDuration::from_mins(6);
/// How long a busy agent is left alone when it does not say.
const BUSY_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// When a store that did not answer is asked again about a job that must not end without it.
const STORE_DELAY: SignedDuration = SignedDuration::from_secs(15);

/// A change of one job's status at one time.
#[derive(Debug)]
pub struct Record<'a> {
    /// The spec.
    pub spec: &'a BackupJobSpec,
    /// `metadata.uid`: two jobs that failed together are tried again apart.
    pub uid: &'a str,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The status, changed in place.
    pub status: &'a mut BackupJobStatus,
    /// Now.
    pub now: Timestamp,
}

/// What follows from a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt at this time.
    Retry(Timestamp),
    /// The job fails.
    GiveUp,
}

impl Record<'_> {
    /// The controller takes the job up.
    pub fn take_up(&mut self) {
        self.status.start_time = Some(Time(self.now));
        self.status.method = self.spec.method.map(|m| m.as_str().to_owned());
        self.progressing(Status::True, "Pending", "no attempt has been made yet");
        self.condition(COMPLETE, Status::False, "Pending", "");
        self.condition(FAILED, Status::False, "Pending", "");
    }

    /// No attempt can be made at the moment. `reason` is a word of the closed set where one fits.
    pub fn wait(&mut self, reason: Option<FailureReason>, word: &str, message: &str) {
        self.status.phase = Phase::Pending;
        self.status.reason = reason;
        self.progressing(Status::True, word, message);
    }

    /// Claims the next attempt; answers its number.
    pub fn claim(&mut self, agent: &str, pod: Option<&str>, role: Option<&str>) -> u32 {
        let number = self.push_attempt(Some(agent));
        let server_version = self.status.source.take().and_then(|s| s.server_version);
        let source = SourceStatus {
            pod: pod.map(str::to_owned),
            server_version,
            role: role.map(|role| cut(role, 32).to_owned()),
        };
        self.status.source = Some(source).filter(|s| *s != SourceStatus::default());
        self.status.phase = Phase::Running;
        self.status.reason = None;
        self.status.retry_time = None;
        self.status.progress = None;
        self.status.size = None;
        self.progressing(
            Status::True,
            "Running",
            &format!("attempt {number} reads from {}", pod.unwrap_or(agent)),
        );
        number
    }

    /// An attempt that failed before an agent was found.
    pub fn fail_unclaimed(&mut self, failure: &transfer::Failure) -> Next {
        self.push_attempt(None);
        self.fail(failure)
    }

    fn push_attempt(&mut self, agent: Option<&str>) -> u32 {
        let number = self.status.attempt.saturating_add(1);
        self.status.attempt = number;
        self.status.attempts.push(Attempt {
            number,
            agent: agent.map(str::to_owned),
            start: Time(self.now),
            end: None,
            reason: None,
            message: None,
            bytes: 0,
        });
        let surplus = self.status.attempts.len().saturating_sub(KEPT_ATTEMPTS);
        self.status.attempts.drain(..surplus);
        number
    }

    /// The latest attempt failed.
    pub fn fail(&mut self, failure: &transfer::Failure) -> Next {
        let now = self.now;
        if let Some(attempt) = self.status.attempts.last_mut() {
            attempt.end = Some(Time(now));
            attempt.reason = Some(failure.reason);
            attempt.message = Some(cut(&failure.message, 2048).to_owned());
            attempt.bytes = failure.bytes.max(attempt.bytes);
        }
        let status = &mut *self.status;
        status.complete_tried |= failure.complete_tried;
        status.progress = None;
        status.size = None;
        status.phase = Phase::Pending;
        status.reason = Some(failure.reason);

        let counted = match failure.retry {
            Retry::Never | Retry::Counted => true,
            Retry::NotCounted => {
                failure.reason == FailureReason::Interrupted
                    && fruitless(&status.attempts) >= FRUITLESS_INTERRUPTIONS
            }
        };
        if counted {
            status.failures = status.failures.saturating_add(1);
        }
        let word = failure.reason.as_str();
        if failure.retry == Retry::Never || status.failures > self.spec.backoff_limit {
            status.retry_time = None;
            let message = match failure.retry {
                Retry::Never => failure.message.clone(),
                _ => format!(
                    "{} (attempt {}; backoffLimit {})",
                    failure.message, status.attempt, self.spec.backoff_limit
                ),
            };
            self.condition(FAILURE_TARGET, Status::True, word, &message);
            self.progressing(
                Status::True,
                word,
                "the job fails once the store is left in order",
            );
            return Next::GiveUp;
        }
        let at = now
            .checked_add(delay(failure, status, self.uid))
            .unwrap_or(now);
        status.retry_time = Some(Time(at));
        let message = format!(
            "attempt {} failed: {word}: {}",
            status.attempt, failure.message
        );
        self.progressing(Status::True, word, &message);
        Next::Retry(at)
    }

    /// How far the running attempt is.
    pub fn report(&mut self, progress: &transfer::Progress, bytes_per_second: Option<u64>) {
        let status = &mut *self.status;
        if let (Some(version), source) = (&progress.server_version, &mut status.source) {
            source.get_or_insert_default().server_version = Some(cut(version, 256).to_owned());
        }
        if let Some(attempt) = status.attempts.last_mut() {
            attempt.bytes = progress.bytes;
        }
        status.size = Some(human_bytes(progress.bytes));
        status.duration = status
            .start_time
            .as_ref()
            .map(|start| human_duration(self.now.duration_since(start.0)));
        status.progress = Some(Progress {
            bytes: progress.bytes,
            estimated_bytes: progress.estimated_bytes,
            bytes_per_second,
            last_progress_time: progress.last_progress.map(Time),
            summary: bytes_per_second.map(|rate| summary(rate, progress.estimated_bytes)),
        });
    }

    /// The backup stands, as `manifest` says.
    pub fn succeed(
        &mut self,
        manifest: &Manifest,
        manifest_key: String,
        timings: Option<&transfer::Timings>,
    ) {
        let now = self.now;
        // An earlier attempt may be the one that won.
        if let Some(attempt) = self.status.attempts.last_mut().filter(|a| a.end.is_none()) {
            attempt.end = Some(Time(now));
            if attempt.number == manifest.attempt {
                attempt.bytes = manifest.bytes;
            } else {
                attempt.message = Some(format!("attempt {} had won already", manifest.attempt));
            }
        }
        let status = &mut *self.status;
        status.phase = Phase::Succeeded;
        status.reason = None;
        status.retry_time = None;
        status.progress = None;
        if !manifest.method.is_empty() {
            status.method = Some(cut(&manifest.method, 32).to_owned());
        }
        status.objects = manifest
            .objects
            .iter()
            .take(KEPT_OBJECTS)
            .map(|o| Object {
                key: o.key.clone(),
                bytes: o.bytes,
            })
            .collect();
        status.manifest_key = Some(manifest_key);
        status.bytes = Some(manifest.bytes);
        status.size = Some(human_bytes(manifest.bytes));
        status.sha256 = Some(manifest.sha256.clone());
        if !manifest.server_version.is_empty() {
            status.source.get_or_insert_default().server_version =
                Some(cut(&manifest.server_version, 256).to_owned());
        }
        let position = &manifest.position;
        status.position = Some(Position {
            gtid: position.gtid.as_deref().map(|g| cut(g, 8192).to_owned()),
            binlog_file: position.binlog_file.clone(),
            binlog_position: position.binlog_position,
            lsn: position.lsn,
        })
        .filter(|p| *p != Position::default());
        status.timings = timings.map(|t| Timings {
            dns: t.dns,
            connect: t.connect,
            tls: t.tls,
            wrote_request: t.wrote_request,
            first_byte: t.first_byte,
            copy: t.copy,
            lock: t.lock,
            finalize: t.finalize,
        });
        self.finish();
        let message = format!(
            "{} in attempt {}",
            human_bytes(manifest.bytes),
            manifest.attempt
        );
        self.condition(COMPLETE, Status::True, "Succeeded", &message);
        self.condition(FAILED, Status::False, "Succeeded", "");
        self.progressing(Status::False, "Succeeded", "");
    }

    /// A backup that exists already, as `manifest` says.
    pub fn import(&mut self, manifest: &Manifest, manifest_key: String) {
        self.succeed(manifest, manifest_key, None);
        let (start, end) = (manifest.start_time, manifest.time);
        self.status.start_time = Some(Time(start));
        self.status.completion_time = Some(Time(end));
        self.status.duration = Some(human_duration(end.duration_since(start)));
        let message = format!("{}, imported", human_bytes(manifest.bytes));
        self.condition(COMPLETE, Status::True, "Imported", &message);
    }

    /// The store could not be asked about an attempt that may have got through: it is asked again.
    pub fn undecided(&mut self, problem: &str) {
        let message =
            format!("an attempt may have got through, and the store cannot be asked: {problem}");
        self.wait(
            Some(FailureReason::StoreError),
            FailureReason::StoreError.as_str(),
            &message,
        );
        self.pause();
    }

    /// There will be no backup, but the job does not end before the store is left in order.
    pub fn hold(&mut self, reason: FailureReason, message: &str, problem: &str) {
        self.condition(FAILURE_TARGET, Status::True, reason.as_str(), message);
        let problem = format!("the job fails once the store is left in order, but: {problem}");
        self.wait(Some(reason), reason.as_str(), &problem);
        self.pause();
    }

    /// In the status, so that whatever else wakes the job does not end the pause.
    fn pause(&mut self) {
        self.status.retry_time = self.now.checked_add(STORE_DELAY).ok().map(Time);
    }

    /// There is no backup and will be none.
    pub fn conclude(&mut self, reason: FailureReason, message: &str) {
        self.status.phase = final_phase(reason);
        self.status.reason = Some(reason);
        self.status.retry_time = None;
        self.status.progress = None;
        self.status.size = None;
        self.finish();
        self.condition(FAILED, Status::True, reason.as_str(), message);
        self.condition(COMPLETE, Status::False, reason.as_str(), "");
        self.progressing(Status::False, reason.as_str(), "");
    }

    fn finish(&mut self) {
        let now = self.now;
        self.status.completion_time = Some(Time(now));
        self.status.duration = self
            .status
            .start_time
            .as_ref()
            .map(|start| human_duration(now.duration_since(start.0)));
        self.status.conditions.retain(|c| c.type_ != FAILURE_TARGET);
    }

    fn progressing(&mut self, status: Status, reason: &str, message: &str) {
        self.condition(PROGRESSING, status, reason, message);
    }

    fn condition(&mut self, type_: &str, status: Status, reason: &str, message: &str) {
        conditions::set(
            &mut self.status.conditions,
            type_,
            status,
            reason,
            message,
            self.generation,
            self.now,
        );
    }
}

/// How many of the latest attempts were interrupted without getting further than one before.
/// Waiting for a busy agent in between changes nothing.
fn fruitless(attempts: &[Attempt]) -> usize {
    let streak = attempts
        .iter()
        .rev()
        .filter(|a| a.reason != Some(FailureReason::AgentBusy))
        .take_while(|a| a.reason == Some(FailureReason::Interrupted));
    let mut bytes: Vec<u64> = streak.map(|a| a.bytes).collect();
    bytes.reverse();
    let (mut longest, mut since) = (0, 0);
    for got in bytes {
        if got > longest {
            (longest, since) = (got, 1);
        } else {
            since += 1;
        }
    }
    since
}

/// How long to wait after a failure: what the agent asked for, else 10 s doubling to 6 min, each up
/// to a quarter longer, so that what failed together does not come back together. The first
/// interruption is made up for at once.
fn delay(failure: &transfer::Failure, status: &BackupJobStatus, uid: &str) -> SignedDuration {
    if let Some(asked) = failure.retry_after {
        return SignedDuration::try_from(asked)
            .unwrap_or(LONGEST_DELAY)
            .clamp(SignedDuration::from_secs(1), LONGEST_DELAY);
    }
    let doublings = match failure.reason {
        FailureReason::AgentBusy => return BUSY_DELAY,
        FailureReason::Interrupted => match fruitless(&status.attempts) {
            0 | 1 => return SignedDuration::ZERO,
            n => u32::try_from(n - 2).unwrap_or(u32::MAX),
        },
        _ => status.failures.saturating_sub(1),
    };
    let delay = FIRST_DELAY
        .checked_mul(1_i32.checked_shl(doublings.min(16)).unwrap_or(i32::MAX))
        .unwrap_or(LONGEST_DELAY)
        .min(LONGEST_DELAY);
    let quarter = u64::try_from(delay.as_millis() / 4).unwrap_or(0);
    let more = jitter::below(uid, i64::from(status.attempt), quarter);
    delay
        .checked_add(SignedDuration::from_millis(more.cast_signed()))
        .unwrap_or(LONGEST_DELAY)
        .min(LONGEST_DELAY)
}

/// How fast it is, and how much may come: the estimate is of what is not compressed yet.
fn summary(bytes_per_second: u64, estimated_bytes: Option<u64>) -> String {
    let rate = human_bytes(bytes_per_second);
    match estimated_bytes {
        Some(all) => format!("{rate}/s of <{}", human_bytes(all)),
        None => format!("{rate}/s"),
    }
}

/// Bytes for people: three significant digits, powers of 1024.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let exponent = (u64::BITS - 1 - bytes.leading_zeros()) / 10;
    #[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
    let mut value = bytes as f64 / (1_u64 << (10 * exponent)) as f64;
    let mut unit = exponent as usize - 1;
    if value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

/// A duration for people, as kubectl writes ages.
#[must_use]
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, h, _, _) => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests;

//! How far something is that has not ended.

use super::time;
use crate::api::{
    BackupJob, RestoreJob, conditions,
    job::{self, Phase},
    restore,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;

/// A job or a restore that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Where it is: Pending or Running.
    pub phase: &'static str,
    /// Number of the attempt; 0 before the first, and of a restore, which runs once.
    pub attempt: u32,
    /// What a restore is doing.
    pub stage: Option<String>,
    /// Since when the controller minds it.
    pub since: Option<Timestamp>,
    /// What it waits for: a word of the closed set.
    pub reason: Option<String>,
    /// What it does or waits for, in words.
    pub message: Option<String>,
    /// When the next attempt may start.
    pub retry: Option<Timestamp>,
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes at the end. Of a backup the agent's guess, before compression: it will hardly be more.
    pub total_bytes: Option<u64>,
    /// Whether `total_bytes` is the agent's guess.
    pub estimated: bool,
    /// Bytes a second, of late.
    pub bytes_per_second: Option<u64>,
    /// Share of `total_bytes`, 0 to 99: it has not ended.
    pub percent: Option<u8>,
    /// When it will have ended at this rate; of a backup, the latest.
    pub eta: Option<Timestamp>,
    /// When bytes last came.
    pub last_progress: Option<Timestamp>,
}

impl Running {
    /// Of a backup; none when it has ended.
    #[must_use]
    pub fn of_job(job: &BackupJob) -> Option<Self> {
        let status = job.status.clone().unwrap_or_default();
        if status.phase.is_final() {
            return None;
        }
        let progressing = conditions::get(&status.conditions, job::PROGRESSING);
        let mut running = Self {
            name: job.name_any(),
            phase: status.phase.as_str(),
            attempt: status.attempt,
            stage: None,
            since: time(status.start_time.as_ref()),
            reason: status.reason.map(|r| r.as_str().to_owned()),
            message: progressing
                .map(|c| c.message.clone())
                .filter(|m| !m.is_empty()),
            retry: time(status.retry_time.as_ref()),
            bytes: 0,
            total_bytes: None,
            estimated: true,
            bytes_per_second: None,
            percent: None,
            eta: None,
            last_progress: None,
        };
        if let (Phase::Running, Some(progress)) = (status.phase, &status.progress) {
            running.bytes = progress.bytes;
            running.total_bytes = progress.estimated_bytes.filter(|all| *all > 0);
            running.bytes_per_second = progress.bytes_per_second;
            running.last_progress = time(progress.last_progress_time.as_ref());
            running.project();
        }
        Some(running)
    }

    /// Of a restore; none when it has ended.
    #[must_use]
    pub fn of_restore(restore: &RestoreJob) -> Option<Self> {
        let status = restore.status.clone().unwrap_or_default();
        if status.phase.is_final() {
            return None;
        }
        let progressing = conditions::get(&status.conditions, restore::PROGRESSING);
        let mut running = Self {
            name: restore.name_any(),
            phase: status.phase.as_str(),
            attempt: 0,
            stage: None,
            since: time(status.start_time.as_ref()),
            reason: status.reason.map(|r| r.as_str().to_owned()),
            message: progressing
                .map(|c| c.message.clone())
                .filter(|m| !m.is_empty()),
            retry: None,
            bytes: 0,
            total_bytes: None,
            estimated: false,
            bytes_per_second: None,
            percent: None,
            eta: None,
            last_progress: None,
        };
        if let Some(progress) = &status.progress {
            running.stage = Some(progress.stage.clone());
            running.bytes = progress.bytes;
            running.total_bytes = Some(progress.total_bytes).filter(|all| *all > 0);
            running.bytes_per_second = progress.bytes_per_second;
            running.last_progress = time(progress.last_progress_time.as_ref());
            running.project();
        }
        Some(running)
    }

    /// Share and end, from bytes, total and rate. Reckoned from when bytes last came, so that the same status
    /// always says the same.
    fn project(&mut self) {
        let Some(all) = self.total_bytes else {
            return;
        };
        let share = u128::from(self.bytes.min(all)) * 100 / u128::from(all);
        self.percent = u8::try_from(share.min(99)).ok();
        let left = all.saturating_sub(self.bytes);
        let seconds = self
            .bytes_per_second
            .filter(|rate| *rate > 0)
            .map(|rate| left / rate);
        self.eta = seconds.zip(self.last_progress).and_then(|(seconds, at)| {
            at.checked_add(SignedDuration::from_secs(i64::try_from(seconds).ok()?))
                .ok()
        });
    }
}

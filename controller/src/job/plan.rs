//! What a job does next: a pure function of its object, of the transfer that runs here, and the time.

use crate::{
    api::{
        BackupJobSpec, BackupJobStatus, conditions,
        job::{FAILURE_TARGET, Import, Phase},
    },
    reason::FailureReason,
};
use jiff::{SignedDuration, Timestamp};

/// What was observed.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// What is wanted.
    pub spec: &'a BackupJobSpec,
    /// What was written last.
    pub status: &'a BackupJobStatus,
    /// The transfer of this job in this process.
    pub local: Local,
    /// Now.
    pub now: Timestamp,
}

/// The transfer of a job in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// There is none.
    None,
    /// It runs.
    Running,
    /// It has ended; its result is not in the status yet.
    Ended,
}

/// The one next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the object changes.
    Rest,
    /// The job has ended and its time to live is over: delete the object.
    Delete,
    /// Nothing before this time.
    Wait(Timestamp),
    /// Take the job up: write its start time.
    TakeUp,
    /// Choose an agent, claim an attempt, start its transfer.
    Start,
    /// Read what there is of a backup that exists already.
    Import(Import),
    /// Write how far the transfer is.
    Report,
    /// Cancel the transfer here; what became of it follows.
    Stop(FailureReason),
    /// Write what became of the transfer.
    Record,
    /// An attempt was claimed by a process that is gone: find out what became of it.
    Recover,
    /// End the job without a backup, unless the store says that there is one.
    Conclude {
        /// Why.
        reason: FailureReason,
        /// For people.
        message: String,
    },
}

/// Plans.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Step {
    let Observed {
        spec,
        status,
        local,
        now,
    } = *observed;
    if status.phase.is_final() {
        return match (local, end_of_life(spec, status)) {
            (Local::Running, _) => Step::Stop(FailureReason::Cancelled),
            (_, Some(end)) if end <= now => Step::Delete,
            (_, Some(end)) => Step::Wait(end),
            (_, None) => Step::Rest,
        };
    }
    match local {
        Local::Ended => return Step::Record,
        Local::Running => return stopped_by(observed).map_or(Step::Report, Step::Stop),
        Local::None => {}
    }
    if status.start_time.is_none() {
        return Step::TakeUp;
    }
    let paused = status
        .retry_time
        .as_ref()
        .map(|at| at.0)
        .filter(|at| *at > now);
    if open_attempt(status) {
        return paused.map_or(Step::Recover, Step::Wait);
    }
    // What was decided once stands; the store may have to be asked again.
    if let Some(target) = conditions::get(&status.conditions, FAILURE_TARGET) {
        let known = FailureReason::ALL
            .into_iter()
            .find(|r| r.as_str() == target.reason);
        let conclude = Step::Conclude {
            reason: known.unwrap_or(FailureReason::InvalidSpec),
            message: target.message.clone(),
        };
        return paused.map_or(conclude, Step::Wait);
    }
    if let Some(reason) = stopped_by(observed) {
        let message = match reason {
            FailureReason::Cancelled => "spec.cancel was set".to_owned(),
            _ => deadline_message(spec, status),
        };
        return Step::Conclude { reason, message };
    }
    match paused {
        Some(at) => Step::Wait(deadline(spec, status).map_or(at, |end| end.min(at))),
        None => spec.import.clone().map_or(Step::Start, Step::Import),
    }
}

/// Whether the latest attempt was claimed and has no end.
#[must_use]
pub fn open_attempt(status: &BackupJobStatus) -> bool {
    status.attempts.last().is_some_and(|a| a.end.is_none())
}

/// When `activeDeadlineSeconds` are over, once the job was taken up.
#[must_use]
pub fn deadline(spec: &BackupJobSpec, status: &BackupJobStatus) -> Option<Timestamp> {
    let start = status.start_time.as_ref()?.0;
    start
        .checked_add(SignedDuration::from_secs(i64::from(
            spec.active_deadline_seconds,
        )))
        .ok()
}

/// Why no attempt may run any longer.
#[must_use]
pub fn stopped_by(observed: &Observed<'_>) -> Option<FailureReason> {
    if observed.spec.cancel {
        return Some(FailureReason::Cancelled);
    }
    deadline(observed.spec, observed.status)
        .filter(|end| *end <= observed.now)
        .map(|_| FailureReason::DeadlineExceeded)
}

fn deadline_message(spec: &BackupJobSpec, status: &BackupJobStatus) -> String {
    let waited_for = match (
        status.reason,
        status.attempts.last().and_then(|a| a.message.as_deref()),
    ) {
        (Some(reason), Some(message)) => format!("; last: {reason}: {message}"),
        (Some(reason), None) => format!("; it waited for {reason}"),
        (None, _) => String::new(),
    };
    format!(
        "activeDeadlineSeconds ({}) are over{waited_for}. Raise it if backups may take longer",
        spec.active_deadline_seconds
    )
}

fn end_of_life(spec: &BackupJobSpec, status: &BackupJobStatus) -> Option<Timestamp> {
    let ttl = SignedDuration::from_secs(i64::from(spec.ttl_seconds_after_finished?));
    status.completion_time.as_ref()?.0.checked_add(ttl).ok()
}

/// Whether a job that has ended did so as planned; for the phase it ends in.
#[must_use]
pub fn final_phase(reason: FailureReason) -> Phase {
    if reason == FailureReason::Cancelled {
        Phase::Cancelled
    } else {
        Phase::Failed
    }
}

#[cfg(test)]
mod tests;

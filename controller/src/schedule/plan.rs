//! What a schedule does next: a pure function of what was observed and the time.

use super::{
    due::{self, Due},
    overdue,
};
use crate::{
    api::{
        conditions::{self, Status},
        job::Phase,
        schedule::{
            ActiveJob, BackupScheduleSpec, BackupScheduleStatus, ConcurrencyPolicy, FAILING,
            OVERDUE, READY,
        },
    },
    reason::{FailureReason, ScheduleReason},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How far the clock may be set back before what ran counts as made by a wrong clock.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// A job that this schedule owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedJob {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it is.
    pub phase: Phase,
    /// Why it failed.
    pub reason: Option<FailureReason>,
    /// When it ended.
    pub completion: Option<Timestamp>,
    /// The due time that it was created for, as its name tells.
    pub due: Option<Timestamp>,
    /// Whether it was told to end.
    pub cancelled: bool,
}

/// What was observed.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// What is wanted.
    pub spec: &'a BackupScheduleSpec,
    /// What was written last.
    pub status: &'a BackupScheduleStatus,
    /// `metadata.uid`: two schedules with the same jitter start apart.
    pub uid: &'a str,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `metadata.creationTimestamp`: nothing was due before.
    pub created: Timestamp,
    /// The jobs that this schedule owns.
    pub jobs: &'a [OwnedJob],
    /// Now.
    pub now: Timestamp,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Create the job of this due time.
    pub create: Option<Due>,
    /// Write this, with what was created.
    pub status: BackupScheduleStatus,
    /// Cancel these jobs, `(name, uid)`, for one that is due.
    pub cancel: Vec<(String, String)>,
    /// Delete these jobs, `(name, uid)`; what they stored stays.
    pub delete: Vec<(String, String)>,
    /// Look again at this time.
    pub wake: Option<Timestamp>,
}

/// Plans.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let Observed {
        spec,
        status: before,
        jobs,
        now,
        generation,
        ..
    } = *observed;
    let mut status = before.clone();
    // A job may exist that no status tells of: whoever created it died before it wrote so.
    let created = jobs.iter().filter_map(|job| job.due);
    let told = before.last_schedule_time.as_ref().map(|t| t.0);
    // A due time far ahead was made by a clock that was wrong: it must not silence the schedule until
    // then. A run that is planned anew meets the job of its name, if that is still there.
    let credible = |due: &Timestamp| due.duration_since(now) <= CLOCK_TOLERANCE;
    status.last_schedule_time = created.chain(told).filter(credible).max().map(Time);

    count_finished(&mut status, before, jobs, generation, now);
    status.active = jobs
        .iter()
        .filter(|job| !job.phase.is_final())
        .map(|job| ActiveJob {
            name: job.name.clone(),
            uid: job.uid.clone(),
        })
        .collect();
    status.active.sort_by(|a, b| a.name.cmp(&b.name));
    status.active.truncate(100);

    let since = status
        .last_schedule_time
        .as_ref()
        .map_or(observed.created, |t| t.0.max(observed.created));
    let times = due::times(spec, observed.uid, since, now);
    let run = times
        .as_ref()
        .ok()
        .and_then(|times| times.run)
        .filter(|_| !spec.suspend);
    let free = status.active.is_empty() || spec.concurrency_policy == ConcurrencyPolicy::Allow;
    let create = run.filter(|_| free);
    let next = times
        .as_ref()
        .ok()
        .map(|times| times.next.start)
        .filter(|_| !spec.suspend);
    status.next_schedule_time = next.map(Time);
    let replacing = run.is_some() && spec.concurrency_policy == ConcurrencyPolicy::Replace;
    let (ready, reason, message) = match (&times, run) {
        (Err(error), _) => (
            Status::False,
            ScheduleReason::InvalidSchedule,
            error.to_string(),
        ),
        (Ok(_), _) if spec.suspend => (
            Status::True,
            ScheduleReason::Suspended,
            "spec.suspend is set: no jobs are created".to_owned(),
        ),
        (Ok(_), Some(due)) if create.is_none() => {
            let how = if replacing {
                ", which is being cancelled for it,"
            } else {
                ""
            };
            let message = format!(
                "due since {}; it starts when {}{how} has ended",
                due.start,
                names(&status.active)
            );
            (Status::True, ScheduleReason::WaitingForJob, message)
        }
        (Ok(_), _) => (Status::True, ScheduleReason::Scheduled, String::new()),
    };
    conditions::set(
        &mut status.conditions,
        READY,
        ready,
        reason.as_str(),
        &message,
        generation,
        now,
    );

    let overdue_at = judge_overdue(&mut status, observed);

    Plan {
        create,
        status,
        cancel: if replacing {
            to_cancel(jobs)
        } else {
            Vec::new()
        },
        delete: surplus(spec, jobs),
        wake: next.into_iter().chain(overdue_at).min(),
    }
}

/// Sets the condition `Overdue`; answers when it is to be judged again, if nothing happens before.
fn judge_overdue(status: &mut BackupScheduleStatus, observed: &Observed<'_>) -> Option<Timestamp> {
    let Observed {
        spec,
        created,
        generation,
        now,
        ..
    } = *observed;
    let success = status.last_successful_time.as_ref().map(|t| t.0);
    let limit = overdue::of_backups(spec, status, created);
    let (holds, reason, message) = match (&limit, success) {
        // What is said of Ready says it all.
        (Err(_), _) => (
            Status::Unknown,
            ScheduleReason::InvalidSchedule,
            String::new(),
        ),
        (Ok(_), _) if spec.suspend => (
            Status::False,
            ScheduleReason::Suspended,
            "spec.suspend is set: no backups are made".to_owned(),
        ),
        (Ok(limit), None) if *limit <= now => (
            Status::True,
            ScheduleReason::NeverSucceeded,
            format!(
                "no backup has succeeded since the schedule was created at {created}: see kubectl get bkjob and kubectl describe bksched"
            ),
        ),
        (Ok(limit), Some(success)) if *limit <= now => (
            Status::True,
            ScheduleReason::NoRecentSuccess,
            format!(
                "the last backup that succeeded ended at {success}, more than twice the schedule's interval ago: see kubectl get bkjob"
            ),
        ),
        (Ok(_), _) => (Status::False, ScheduleReason::InTime, String::new()),
    };
    conditions::set(
        &mut status.conditions,
        OVERDUE,
        holds,
        reason.as_str(),
        &message,
        generation,
        now,
    );
    limit.ok().filter(|at| *at > now && !spec.suspend)
}

/// Jobs that run and were not told to end yet.
fn to_cancel(jobs: &[OwnedJob]) -> Vec<(String, String)> {
    let running = jobs
        .iter()
        .filter(|job| !job.phase.is_final() && !job.cancelled);
    running
        .map(|job| (job.name.clone(), job.uid.clone()))
        .collect()
}

/// Takes account of jobs that have ended since the status was written.
fn count_finished(
    status: &mut BackupScheduleStatus,
    before: &BackupScheduleStatus,
    jobs: &[OwnedJob],
    generation: Option<i64>,
    now: Timestamp,
) {
    let known = before.last_schedule_time.as_ref().map(|t| t.0);
    let open = |job: &OwnedJob| {
        before.active.iter().any(|a| a.uid == job.uid)
            || job.due.is_some_and(|due| Some(due) > known)
    };
    let mut ended: Vec<_> = jobs
        .iter()
        .filter(|job| job.phase.is_final() && open(job))
        .collect();
    ended.sort_by_key(|job| job.completion);
    for job in &ended {
        match job.phase {
            Phase::Succeeded => {
                status.consecutive_failures = 0;
                conditions::set(
                    &mut status.conditions,
                    FAILING,
                    Status::False,
                    "Succeeded",
                    &format!("{} succeeded", job.name),
                    generation,
                    now,
                );
            }
            Phase::Failed => {
                status.consecutive_failures = status.consecutive_failures.saturating_add(1);
                let reason = job.reason.map_or("Failed", FailureReason::as_str);
                let message = format!(
                    "{} failed: see kubectl describe bkjob {}",
                    job.name, job.name
                );
                conditions::set(
                    &mut status.conditions,
                    FAILING,
                    Status::True,
                    reason,
                    &message,
                    generation,
                    now,
                );
            }
            Phase::Cancelled | Phase::Pending | Phase::Running => {}
        }
    }
    let latest_success = jobs
        .iter()
        .filter(|j| j.phase == Phase::Succeeded)
        .filter_map(|j| j.completion)
        .max();
    status.last_successful_time = latest_success
        .max(before.last_successful_time.as_ref().map(|t| t.0))
        .map(Time);
}

/// Ended jobs beyond the history limits, oldest first.
fn surplus(spec: &BackupScheduleSpec, jobs: &[OwnedJob]) -> Vec<(String, String)> {
    let beyond = |wanted: fn(Phase) -> bool, keep: u32| {
        let mut ended: Vec<_> = jobs.iter().filter(|j| wanted(j.phase)).collect();
        ended.sort_by(|a, b| (a.completion, &a.name).cmp(&(b.completion, &b.name)));
        let surplus = ended.len().saturating_sub(keep as usize);
        ended.truncate(surplus);
        ended
    };
    let succeeded = beyond(
        |p| p == Phase::Succeeded,
        spec.successful_jobs_history_limit,
    );
    let failed = beyond(
        |p| matches!(p, Phase::Failed | Phase::Cancelled),
        spec.failed_jobs_history_limit,
    );
    succeeded
        .into_iter()
        .chain(failed)
        .map(|j| (j.name.clone(), j.uid.clone()))
        .collect()
}

fn names(active: &[ActiveJob]) -> String {
    let names: Vec<_> = active.iter().map(|a| a.name.as_str()).collect();
    names.join(", ")
}

/// Name of the job of one due time: the same however often it is planned, so that a run is created once.
#[must_use]
pub fn job_name(schedule: &str, due: Timestamp) -> String {
    format!("{schedule}-{}", due.as_second().div_euclid(60))
}

/// The due time of a job, from its name; `None` where the name is not of [`job_name`]'s making.
#[must_use]
pub fn due_of(schedule: &str, job: &str) -> Option<Timestamp> {
    let minutes = job.strip_prefix(schedule)?.strip_prefix('-')?;
    let due = Timestamp::from_second(minutes.parse::<i64>().ok()?.checked_mul(60)?).ok()?;
    (job_name(schedule, due) == job).then_some(due)
}

/// Writes into a status that the job of a due time exists.
pub fn record_created(status: &mut BackupScheduleStatus, due: Timestamp, job: ActiveJob) {
    status.last_schedule_time = Some(Time(due));
    if !status.active.contains(&job) {
        status.active.push(job);
    }
}

#[cfg(test)]
mod tests;

//! What a schedule does next: a pure function of what was observed and the time.

use super::calendar::{Calendar, InvalidSchedule};
use crate::{
    api::{
        conditions::{self, Status},
        job::Phase,
        schedule::{ActiveJob, BackupScheduleSpec, BackupScheduleStatus, FAILING, READY},
    },
    reason::FailureReason,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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
}

/// What was observed.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// What is wanted.
    pub spec: &'a BackupScheduleSpec,
    /// What was written last.
    pub status: &'a BackupScheduleStatus,
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
    pub create: Option<Timestamp>,
    /// Write this, with what was created.
    pub status: BackupScheduleStatus,
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

    let times = times(observed);
    let create = match &times {
        Ok((due, _)) => due.filter(|_| status.active.is_empty() && !spec.suspend),
        Err(_) => None,
    };
    let next = times.as_ref().ok().map(|(_, next)| *next);
    status.next_schedule_time = next.filter(|_| !spec.suspend).map(Time);
    let (ready, reason, message) = match &times {
        Err(error) => (Status::False, "InvalidSchedule", error.to_string()),
        Ok(_) if spec.suspend => (
            Status::True,
            "Suspended",
            "spec.suspend is set: no jobs are created".to_owned(),
        ),
        Ok((Some(due), _)) if create.is_none() => (
            Status::True,
            "WaitingForJob",
            format!(
                "due since {due}; it starts when {} has ended",
                names(&status.active)
            ),
        ),
        Ok(_) => (Status::True, "Scheduled", String::new()),
    };
    conditions::set(
        &mut status.conditions,
        READY,
        ready,
        reason,
        &message,
        generation,
        now,
    );

    Plan {
        create,
        status,
        delete: surplus(spec, jobs),
        wake: next.filter(|_| !spec.suspend),
    }
}

/// The due time that is to be run now, and the next one.
fn times(observed: &Observed<'_>) -> Result<(Option<Timestamp>, Timestamp), InvalidSchedule> {
    let Observed {
        spec,
        status,
        created,
        now,
        ..
    } = *observed;
    let calendar = Calendar::parse(&spec.schedule, &spec.time_zone)?;
    let next = calendar.next(now)?;
    let since = status
        .last_schedule_time
        .as_ref()
        .map_or(created, |t| t.0.max(created));
    let due = calendar.latest(since, now).filter(|due| {
        spec.starting_deadline_seconds.is_none_or(|limit| {
            now.duration_since(*due) <= SignedDuration::from_secs(i64::from(limit))
        })
    });
    Ok((due, next))
}

/// Takes account of jobs that were active when the status was written and have ended since.
fn count_finished(
    status: &mut BackupScheduleStatus,
    before: &BackupScheduleStatus,
    jobs: &[OwnedJob],
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut ended: Vec<_> = jobs
        .iter()
        .filter(|job| job.phase.is_final() && before.active.iter().any(|a| a.uid == job.uid))
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

/// Writes into a status that the job of a due time exists.
pub fn record_created(status: &mut BackupScheduleStatus, due: Timestamp, job: ActiveJob) {
    status.last_schedule_time = Some(Time(due));
    if !status.active.contains(&job) {
        status.active.push(job);
    }
}

#[cfg(test)]
mod tests;

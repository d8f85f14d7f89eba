//! What a schedule's metrics say, from its status and from its jobs' records.

use super::{overdue, readable};
use crate::{
    api::{
        BackupJob, BackupSchedule, BackupScheduleStatus, conditions,
        job::{self, Phase},
        schedule::VERIFIED,
    },
    context::Guard,
    metrics::ScheduleMetrics,
    transfer::Timings,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};

/// What is known of a schedule. `last_drill`: how long the newest drill that passed took.
pub(super) fn of(
    schedule: &BackupSchedule,
    status: &BackupScheduleStatus,
    jobs: &[Arc<Guard<BackupJob>>],
    verify_overdue: Option<Timestamp>,
    last_drill: Option<Duration>,
) -> ScheduleMetrics {
    let created = schedule
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    let spec = &schedule.spec;
    let verified = conditions::get(&status.conditions, VERIFIED).filter(|_| spec.verify.is_some());
    let newest = readable(jobs)
        .filter_map(|job| job.status.as_ref())
        .filter(|s| s.phase == Phase::Succeeded)
        .max_by_key(|s| s.completion_time.as_ref().map(|t| t.0));
    let failed = readable(jobs)
        .filter_map(|job| job.status.as_ref())
        .filter(|s| s.phase == Phase::Failed)
        .filter_map(|s| Some((s.completion_time.as_ref()?.0.as_second(), s.reason?)))
        .max_by_key(|(when, _)| *when);
    let duration = newest.and_then(|s| {
        let (start, end) = (s.start_time.as_ref()?, s.completion_time.as_ref()?);
        Duration::try_from(end.0.duration_since(start.0)).ok()
    });
    ScheduleMetrics {
        last_success: status
            .last_successful_time
            .as_ref()
            .map(|t| t.0.as_second()),
        overdue: overdue::of_backups(spec, status, created)
            .ok()
            .filter(|_| !spec.suspend)
            .map(Timestamp::as_second),
        last_verified: status.last_verified_time.as_ref().map(|t| t.0.as_second()),
        verified: match verified.map(|c| c.status.as_str()) {
            Some("True") => Some(true),
            Some("False") => Some(false),
            _ => None,
        },
        verify_overdue: verify_overdue.map(Timestamp::as_second),
        next_run: status.next_schedule_time.as_ref().map(|t| t.0.as_second()),
        last_bytes: newest.and_then(|s| s.bytes),
        last_duration: duration,
        last_timings: newest
            .and_then(|s| s.timings.as_ref())
            .map(timings)
            .unwrap_or_default(),
        last_drill,
        last_failure: failed,
        consecutive_failures: status.consecutive_failures,
        suspended: spec.suspend,
        backups: status.backups,
        stored_bytes: status.bytes,
    }
}

fn timings(told: &job::Timings) -> Timings {
    Timings {
        dns: told.dns,
        connect: told.connect,
        tls: told.tls,
        wrote_request: told.wrote_request,
        first_byte: told.first_byte,
        copy: told.copy,
        lock: told.lock,
        finalize: told.finalize,
    }
}

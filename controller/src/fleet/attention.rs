//! What somebody should look at, and why.

use super::{
    Fleet, JobRow, Objects, RestoreRow, Running, ScheduleRow, ScheduleState, StoreRow, time,
};
use crate::{
    api::{
        BackupSchedule, conditions,
        job::Phase,
        restore::RestorePhase,
        schedule::{OVERDUE, READY, RETAINED, VERIFIED},
    },
    job::record::human_duration,
    reason::{FailureReason, RestoreReason, advice::NOT_TAKEN_UP},
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;
use std::collections::HashMap;

/// How long a failure that nothing follows up stays worth a line: of a job that no schedule made, and of a
/// restore.
const RECENT: SignedDuration = SignedDuration::from_hours(24);
/// How long the controller may take to look at a new object.
const TAKEN_UP: SignedDuration = SignedDuration::from_mins(2);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Gravity {
    /// Data would be lost if the database were lost now, or nothing can be backed up.
    Critical,
    /// Something failed. What was good before is still there.
    Warning,
    /// It is meant to be so, or passes by itself.
    Notice,
}

impl Gravity {
    /// The word, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "Critical",
            Self::Warning => "Warning",
            Self::Notice => "Notice",
        }
    }
}

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// How bad it is.
    pub gravity: Gravity,
    /// E.g. `BackupSchedule`.
    pub kind: &'static str,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// A word of the kind's closed set, which docs/troubleshooting.md has a section on.
    pub reason: String,
    /// What is the matter, in words.
    pub text: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// All of it, the gravest first, the longest standing first among equals.
pub(super) fn of(fleet: &Fleet, objects: &Objects<'_>, now: Timestamp) -> Vec<Attention> {
    let mut found = Vec::new();
    let schedules: HashMap<_, _> = objects
        .schedules
        .iter()
        .map(|s| ((s.namespace().unwrap_or_default(), s.name_any()), s))
        .collect();
    for row in &fleet.schedules {
        if let Some(schedule) = schedules.get(&(row.namespace.clone(), row.name.clone())) {
            of_schedule(row, schedule, now, &mut found);
        }
    }
    for row in &fleet.jobs {
        of_job(row, now, &mut found);
    }
    of_restores(&fleet.restores, now, &mut found);
    found.extend(fleet.stores.iter().filter_map(of_store));
    found.extend(objects.malformed.iter().map(|object| Attention {
        gravity: Gravity::Critical,
        kind: object.kind,
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        reason: FailureReason::InvalidSpec.as_str().to_owned(),
        text: format!("cannot be read, and is left alone: {}", object.error),
        since: None,
    }));
    found.sort_by(|a, b| {
        let key = |x: &Attention| (x.gravity, x.since.unwrap_or(Timestamp::MAX));
        (key(a), &a.namespace, a.kind, &a.name).cmp(&(key(b), &b.namespace, b.kind, &b.name))
    });
    found
}

/// How long ago, for people.
fn ago(time: Timestamp, now: Timestamp) -> String {
    human_duration(now.duration_since(time))
}

fn of_schedule(
    row: &ScheduleRow,
    schedule: &BackupSchedule,
    now: Timestamp,
    found: &mut Vec<Attention>,
) {
    let created = time(schedule.metadata.creation_timestamp.as_ref());
    let status = schedule.status.as_ref();
    let conditions = status.map_or(&[][..], |s| s.conditions.as_slice());
    let mut push = |gravity, reason: &str, text: String, since| {
        found.push(Attention {
            gravity,
            kind: "BackupSchedule",
            namespace: row.namespace.clone(),
            name: row.name.clone(),
            reason: reason.to_owned(),
            text,
            since,
        });
    };
    let condition = |type_| conditions::get(conditions, type_);
    match condition(READY) {
        Some(ready) if ready.status == "False" => push(
            Gravity::Critical,
            &ready.reason,
            format!("makes no backups: {}", ready.message),
            Some(ready.last_transition_time.0),
        ),
        None if created.is_some_and(|at| now.duration_since(at) > TAKEN_UP) => push(
            Gravity::Critical,
            NOT_TAKEN_UP,
            "no controller has looked at it: is one running, and does it watch this namespace?"
                .to_owned(),
            created,
        ),
        _ => {}
    }
    if let Some(overdue) = condition(OVERDUE).filter(|c| c.status == "True") {
        let text = match row.last_success {
            Some(success) => format!("last good backup {} ago", ago(success, now)),
            None => "no backup has ever succeeded".to_owned(),
        };
        let failed = row.last_failure.as_ref().map_or_else(String::new, |f| {
            format!("; the last job failed: {}: {}", f.reason, f.message)
        });
        push(
            Gravity::Critical,
            &overdue.reason,
            text + &failed,
            Some(overdue.last_transition_time.0),
        );
    } else if let Some(failure) = &row.last_failure {
        let times = match row.consecutive_failures {
            0 | 1 => "the last job failed".to_owned(),
            n => format!("the last {n} jobs failed"),
        };
        push(
            Gravity::Warning,
            &failure.reason,
            format!("{times}: {}", failure.message),
            Some(failure.time),
        );
    }
    if let Some(verified) = condition(VERIFIED).filter(|_| row.verified == Some(false)) {
        push(
            Gravity::Critical,
            &verified.reason,
            format!("a backup does not restore: {}", verified.message),
            Some(verified.last_transition_time.0),
        );
    }
    if let Some(retained) = condition(RETAINED).filter(|c| c.status == "False") {
        push(
            Gravity::Warning,
            &retained.reason,
            format!("old backups are not deleted: {}", retained.message),
            Some(retained.last_transition_time.0),
        );
    }
    if row.state == ScheduleState::Suspended {
        let since = condition(READY).filter(|c| c.reason == "Suspended");
        push(
            Gravity::Notice,
            "Suspended",
            "is suspended: no backups are made".to_owned(),
            since.map(|c| c.last_transition_time.0),
        );
    }
    for running in row.running.iter().filter(|r| r.phase == "Pending") {
        waiting(&row.namespace, running, "BackupJob", found);
    }
}

fn of_job(row: &JobRow, now: Timestamp, found: &mut Vec<Attention>) {
    let at = |gravity, reason: &str, text: String| Attention {
        gravity,
        kind: "BackupJob",
        namespace: row.namespace.clone(),
        name: row.name.clone(),
        reason: reason.to_owned(),
        text,
        since: row.ended,
    };
    let recent = row.ended.is_some_and(|at| now.duration_since(at) <= RECENT);
    if row.phase == Phase::Failed && recent {
        let reason = row.reason.as_deref().unwrap_or("Failed");
        let message = row.message.as_deref().unwrap_or_default();
        found.push(at(Gravity::Warning, reason, format!("failed: {message}")));
    }
    if row.verified == Some(false) {
        let text = "this backup does not restore".to_owned();
        let reason = RestoreReason::CheckFailed.as_str();
        found.push(at(Gravity::Warning, reason, text));
    }
    if let Some(running) = row.running.as_ref().filter(|r| r.phase == "Pending") {
        waiting(&row.namespace, running, "BackupJob", found);
    }
}

/// What waits for something that the closed set has a word for.
fn waiting(namespace: &str, running: &Running, kind: &'static str, found: &mut Vec<Attention>) {
    if let Some(reason) = &running.reason {
        found.push(Attention {
            gravity: Gravity::Notice,
            kind,
            namespace: namespace.to_owned(),
            name: running.name.clone(),
            reason: reason.clone(),
            text: format!("waits: {}", running.message.as_deref().unwrap_or(reason)),
            since: running.since,
        });
    }
}

/// Restores that failed of late. Of a schedule's drills the newest that has ended counts, and where it has found
/// the backup bad, the schedule says so.
fn of_restores(rows: &[RestoreRow], now: Timestamp, found: &mut Vec<Attention>) {
    for row in rows {
        if let Some(running) = row.running.as_ref().filter(|r| r.phase == "Pending") {
            waiting(&row.namespace, running, "RestoreJob", found);
        }
        let recent = row.ended.is_some_and(|at| now.duration_since(at) <= RECENT);
        if row.phase != RestorePhase::Failed || !recent {
            continue;
        }
        let blames = RestoreReason::ALL
            .iter()
            .any(|r| r.blames_backup() && Some(r.as_str()) == row.reason.as_deref());
        let later = |other: &RestoreRow| {
            other.namespace == row.namespace
                && other.schedule == row.schedule
                && other.ended > row.ended
        };
        if row.schedule.is_some() && (blames || rows.iter().any(later)) {
            continue;
        }
        let what = if row.drill {
            "the drill"
        } else {
            "the restore"
        };
        found.push(Attention {
            gravity: Gravity::Warning,
            kind: "RestoreJob",
            namespace: row.namespace.clone(),
            name: row.name.clone(),
            reason: row.reason.clone().unwrap_or_else(|| "Failed".to_owned()),
            text: format!(
                "{what} failed: {}",
                row.message.as_deref().unwrap_or_default()
            ),
            since: row.ended,
        });
    }
}

fn of_store(row: &StoreRow) -> Option<Attention> {
    (row.ready != Some(true) && row.reason.is_some()).then(|| Attention {
        gravity: Gravity::Critical,
        kind: "BackupStore",
        namespace: row.namespace.clone(),
        name: row.name.clone(),
        reason: row.reason.clone().unwrap_or_default(),
        text: format!(
            "cannot be used: {}",
            row.message.as_deref().unwrap_or_default()
        ),
        since: row.since,
    })
}

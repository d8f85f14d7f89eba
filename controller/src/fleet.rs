//! The fleet at a glance: what every schedule has, what runs, and what needs attention. Pure; `kubectl towline`
//! and the status page show the same of it. It judges nothing anew: what the controller has written into the
//! statuses is put together.

mod attention;
mod running;
#[cfg(test)]
mod tests;

pub use attention::{Attention, Gravity};
pub use running::Running;

use crate::{
    api::{
        BackupJob, BackupSchedule, BackupStore, LABEL_IMPORTED, LABEL_SCHEDULE, RestoreJob,
        conditions, job, job::Phase, restore, restore::RestorePhase, schedule, store,
    },
    job::schedule_of,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde::Serialize;
use std::collections::HashMap;

/// The objects, of one namespace or of all.
#[derive(Clone, Debug, Default)]
pub struct Objects<'a> {
    /// Schedules.
    pub schedules: Vec<&'a BackupSchedule>,
    /// Jobs.
    pub jobs: Vec<&'a BackupJob>,
    /// Stores.
    pub stores: Vec<&'a BackupStore>,
    /// Restores, drills among them.
    pub restores: Vec<&'a RestoreJob>,
    /// Objects that their type cannot hold.
    pub malformed: Vec<Malformed>,
}

/// An object that its type cannot hold: the controller leaves it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Malformed {
    /// E.g. `BackupSchedule`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What cannot be read.
    pub error: String,
}

/// All at one time. Rows are sorted by namespace and name, what needs attention by gravity.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// When it was looked at.
    pub time: Timestamp,
    /// What somebody should look at, the gravest first.
    pub attention: Vec<Attention>,
    /// The schedules.
    pub schedules: Vec<ScheduleRow>,
    /// Jobs that no schedule made. Records of imported backups are not among them.
    pub jobs: Vec<JobRow>,
    /// Restores and drills.
    pub restores: Vec<RestoreRow>,
    /// The stores.
    pub stores: Vec<StoreRow>,
}

/// A schedule.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it runs, as its spec has it.
    pub schedule: String,
    /// In which time zone.
    pub time_zone: String,
    /// Name of the BackupStore.
    pub store: String,
    /// One word for all of it.
    pub state: ScheduleState,
    /// No backups are made.
    pub suspended: bool,
    /// When a backup last succeeded.
    pub last_success: Option<Timestamp>,
    /// Whether there are drills.
    pub drilled: bool,
    /// When a drill last restored a backup.
    pub last_verified: Option<Timestamp>,
    /// What the newest drill that said anything about its backup has found.
    pub verified: Option<bool>,
    /// When the next job starts.
    pub next_run: Option<Timestamp>,
    /// Since when no backup has succeeded for too long.
    pub overdue_since: Option<Timestamp>,
    /// Jobs that failed since one succeeded.
    pub consecutive_failures: u32,
    /// Of the last job, when it failed.
    pub last_failure: Option<LastFailure>,
    /// Jobs that have not ended, the oldest first.
    pub running: Vec<Running>,
    /// Backups in the store, when they were last counted.
    pub backups: Option<u64>,
    /// Their size, bytes.
    pub bytes: Option<u64>,
}

/// One word for a schedule, the worst that is true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ScheduleState {
    /// The schedule makes no sense, or nobody has taken it up.
    NotReady,
    /// No backup has succeeded for too long.
    Overdue,
    /// The newest backup that was drilled does not restore.
    Unrestorable,
    /// The last job failed.
    Failing,
    /// No backups are made.
    Suspended,
    /// Nothing has been made yet, and nothing is late.
    New,
    /// All is well.
    Good,
}

impl ScheduleState {
    /// The word, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "NotReady",
            Self::Overdue => "Overdue",
            Self::Unrestorable => "Unrestorable",
            Self::Failing => "Failing",
            Self::Suspended => "Suspended",
            Self::New => "New",
            Self::Good => "Good",
        }
    }
}

/// Why the last job of a schedule failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// Name of the BackupJob, unless it is gone.
    pub job: Option<String>,
    /// A word of the closed set.
    pub reason: String,
    /// In words.
    pub message: String,
    /// When it ended, or else since when jobs have failed.
    pub time: Timestamp,
}

/// A job that no schedule made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the BackupStore.
    pub store: String,
    /// Where it is.
    pub phase: Phase,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// What a drill has found.
    pub verified: Option<bool>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Size of the backup, bytes.
    pub bytes: Option<u64>,
    /// How far it is, unless it has ended.
    pub running: Option<Running>,
}

/// A restore or a drill.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it restores into a server that is thrown away.
    pub drill: bool,
    /// The schedule whose drill it is.
    pub schedule: Option<String>,
    /// The backup, for people.
    pub from: Option<String>,
    /// The target, for people.
    pub to: Option<String>,
    /// Where it is.
    pub phase: RestorePhase,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How far it is, unless it has ended.
    pub running: Option<Running>,
}

/// A store.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where the backups lie.
    pub location: Option<String>,
    /// Whether it can be used; absent before the first probe.
    pub ready: Option<bool>,
    /// Why not.
    pub reason: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// Since when it is as it is.
    pub since: Option<Timestamp>,
    /// Backups in it, when they were last counted.
    pub backups: Option<u64>,
    /// Their size, bytes.
    pub bytes: Option<u64>,
}

impl Fleet {
    /// Puts the objects together, as they are at `now`.
    #[must_use]
    pub fn of(objects: &Objects<'_>, now: Timestamp) -> Self {
        let mut jobs_of: HashMap<(String, String), Vec<&BackupJob>> = HashMap::new();
        let mut alone = Vec::new();
        let known: std::collections::HashSet<_> = objects
            .schedules
            .iter()
            .map(|s| (s.namespace().unwrap_or_default(), s.name_any()))
            .collect();
        for &job in &objects.jobs {
            if job.labels().contains_key(LABEL_IMPORTED) {
                continue;
            }
            let schedule = schedule_name(job)
                .map(|name| (job.namespace().unwrap_or_default(), name))
                .filter(|key| known.contains(key));
            match schedule {
                Some(key) => jobs_of.entry(key).or_default().push(job),
                None => alone.push(job_row(job)),
            }
        }
        let schedules = objects.schedules.iter().map(|schedule| {
            let key = (
                schedule.namespace().unwrap_or_default(),
                schedule.name_any(),
            );
            let jobs = jobs_of.get(&key).map_or(&[][..], Vec::as_slice);
            schedule_row(schedule, jobs)
        });
        let mut fleet = Self {
            time: now,
            attention: Vec::new(),
            schedules: schedules.collect(),
            jobs: alone,
            restores: objects.restores.iter().map(|r| restore_row(r)).collect(),
            stores: objects.stores.iter().map(|s| store_row(s)).collect(),
        };
        let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        fleet
            .schedules
            .sort_by_cached_key(|r| key(&r.namespace, &r.name));
        fleet
            .jobs
            .sort_by_cached_key(|r| key(&r.namespace, &r.name));
        fleet
            .restores
            .sort_by_cached_key(|r| key(&r.namespace, &r.name));
        fleet
            .stores
            .sort_by_cached_key(|r| key(&r.namespace, &r.name));
        fleet.attention = attention::of(&fleet, objects, now);
        fleet
    }
}

/// The schedule that made a job, or whose name somebody has written on it.
#[must_use]
pub fn schedule_name(job: &BackupJob) -> Option<String> {
    let owner = schedule_of(job).map(|owner| owner.name.clone());
    owner.or_else(|| job.labels().get(LABEL_SCHEDULE).cloned())
}

/// What a condition says: absent and `Unknown` are not known.
fn holds(condition: Option<&Condition>) -> Option<bool> {
    match condition?.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|t| t.0)
}

fn schedule_row(schedule: &BackupSchedule, jobs: &[&BackupJob]) -> ScheduleRow {
    let spec = &schedule.spec;
    let status = schedule.status.clone().unwrap_or_default();
    let condition = |type_| conditions::get(&status.conditions, type_);
    let overdue = condition(schedule::OVERDUE).filter(|c| c.status == "True");
    let failing = condition(schedule::FAILING).filter(|c| c.status == "True");
    let verified = holds(condition(schedule::VERIFIED)).filter(|_| spec.verify.is_some());
    let ready = holds(condition(schedule::READY));
    let last_success = time(status.last_successful_time.as_ref());
    let state = if ready == Some(false) {
        ScheduleState::NotReady
    } else if overdue.is_some() {
        ScheduleState::Overdue
    } else if verified == Some(false) {
        ScheduleState::Unrestorable
    } else if failing.is_some() {
        ScheduleState::Failing
    } else if spec.suspend {
        ScheduleState::Suspended
    } else if ready.is_none() {
        ScheduleState::NotReady
    } else if last_success.is_none() {
        ScheduleState::New
    } else {
        ScheduleState::Good
    };
    let mut running: Vec<_> = jobs.iter().filter_map(|job| Running::of_job(job)).collect();
    running.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
    ScheduleRow {
        namespace: schedule.namespace().unwrap_or_default(),
        name: schedule.name_any(),
        schedule: spec.schedule.clone(),
        time_zone: spec.time_zone.clone(),
        store: spec.job_template.spec.store_name().to_owned(),
        state,
        suspended: spec.suspend,
        last_success,
        drilled: spec.verify.is_some(),
        last_verified: time(status.last_verified_time.as_ref()),
        verified,
        next_run: time(status.next_schedule_time.as_ref()),
        overdue_since: overdue.map(|c| c.last_transition_time.0),
        consecutive_failures: status.consecutive_failures,
        last_failure: failing.map(|condition| last_failure(condition, jobs)),
        running,
        backups: status.backups,
        bytes: status.bytes,
    }
}

/// What the newest failed job says; the schedule's own words when the history has lost it.
fn last_failure(failing: &Condition, jobs: &[&BackupJob]) -> LastFailure {
    let newest = jobs
        .iter()
        .filter_map(|job| Some((job, job.status.as_ref()?)))
        .filter(|(_, status)| status.phase == Phase::Failed)
        .max_by_key(|(_, status)| time(status.completion_time.as_ref()));
    let told = newest.and_then(|(job, status)| {
        let failed = conditions::get(&status.conditions, job::FAILED)?;
        Some(LastFailure {
            job: Some(job.name_any()),
            reason: failed.reason.clone(),
            message: failed.message.clone(),
            time: time(status.completion_time.as_ref()).unwrap_or(failed.last_transition_time.0),
        })
    });
    told.unwrap_or_else(|| LastFailure {
        job: None,
        reason: failing.reason.clone(),
        message: failing.message.clone(),
        time: failing.last_transition_time.0,
    })
}

fn job_row(job: &BackupJob) -> JobRow {
    let status = job.status.clone().unwrap_or_default();
    JobRow {
        namespace: job.namespace().unwrap_or_default(),
        name: job.name_any(),
        store: job.spec.store_name().to_owned(),
        phase: status.phase,
        reason: status.reason.map(|r| r.as_str().to_owned()),
        message: message(&status.conditions, job::FAILED, job::PROGRESSING),
        verified: holds(conditions::get(&status.conditions, job::VERIFIED)),
        created: time(job.metadata.creation_timestamp.as_ref()),
        ended: time(status.completion_time.as_ref()),
        bytes: status.bytes,
        running: Running::of_job(job),
    }
}

fn restore_row(restore: &RestoreJob) -> RestoreRow {
    let status = restore.status.clone().unwrap_or_default();
    RestoreRow {
        namespace: restore.namespace().unwrap_or_default(),
        name: restore.name_any(),
        drill: restore.spec.to.drill.is_some(),
        schedule: restore.labels().get(LABEL_SCHEDULE).cloned(),
        from: status.from.clone(),
        to: status.to.clone(),
        phase: status.phase,
        reason: status.reason.map(|r| r.as_str().to_owned()),
        message: message(&status.conditions, restore::FAILED, restore::PROGRESSING),
        created: time(restore.metadata.creation_timestamp.as_ref()),
        ended: time(status.completion_time.as_ref()),
        running: Running::of_restore(restore),
    }
}

/// Why it failed, or else what it does.
fn message(conditions: &[Condition], failed: &str, progressing: &str) -> Option<String> {
    let failed = conditions::get(conditions, failed).filter(|c| c.status == "True");
    let told = failed.or_else(|| conditions::get(conditions, progressing))?;
    Some(told.message.clone()).filter(|m| !m.is_empty())
}

fn store_row(store: &BackupStore) -> StoreRow {
    let status = store.status.clone().unwrap_or_default();
    let ready = conditions::get(&status.conditions, store::READY);
    let not = ready.filter(|c| c.status != "True");
    StoreRow {
        namespace: store.namespace().unwrap_or_default(),
        name: store.name_any(),
        location: status.location.clone(),
        ready: holds(ready),
        reason: not.map(|c| c.reason.clone()),
        message: not.map(|c| c.message.clone()),
        since: ready.map(|c| c.last_transition_time.0),
        backups: status.backups,
        bytes: status.bytes,
    }
}

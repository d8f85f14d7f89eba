//! `BackupSchedule`: when backups are made.

mod retention;
mod verify;

pub use retention::Retention;
pub use verify::Verify;

use super::BackupJobSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When backups are made, and what kind.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "towline.dev",
    version = "v1alpha1",
    kind = "BackupSchedule",
    namespaced,
    status = "BackupScheduleStatus",
    shortname = "bksched",
    category = "towline",
    derive = "PartialEq",
    doc = "Creates a BackupJob at each due time.",
    validation = Rule::new("size(self.metadata.name) <= 52").message("metadata.name must have at most 52 characters: names of jobs are made from it"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Overdue", type_ = "string", json_path = ".status.conditions[?(@.type==\"Overdue\")].status"),
    printcolumn(name = "Last Success", type_ = "date", json_path = ".status.lastSuccessfulTime"),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.conditions[?(@.type==\"Verified\")].status"),
    printcolumn(name = "Failures", type_ = "integer", json_path = ".status.consecutiveFailures"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(name = "Backups", type_ = "integer", json_path = ".status.backups"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active[*].name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Time Zone", type_ = "string", json_path = ".spec.timeZone", priority = 1),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.jobTemplate.spec.storeRef.name", priority = 1),
    printcolumn(name = "Last Verified", type_ = "date", json_path = ".status.lastVerifiedTime", priority = 1),
    printcolumn(name = "Last Run", type_ = "date", json_path = ".status.lastScheduleTime", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleSpec {
    /// Five cron fields (minute, hour, day of month, month, day of week) or a macro like `@daily`.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = crate::api::cron::schedule_rule())]
    pub schedule: String,
    /// IANA time zone in which `schedule` is read.
    #[serde(default = "default_time_zone")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = crate::api::cron::zone_form_rule())]
    #[x_kube(validation = crate::api::cron::zone_exists_rule())]
    pub time_zone: String,
    /// No new jobs while this is set. Times that pass meanwhile are not made up for, but for the
    /// latest of them within `startingDeadlineSeconds`.
    #[serde(default)]
    pub suspend: bool,
    /// Each job starts up to so many seconds after its due time, always the same for the same run,
    /// so that many schedules with one time do not start as one. Never later than the next due time.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub jitter_seconds: u32,
    /// What happens when a job is due while the one before still runs.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// A job that could not be started this long after its time (and jitter) is not started at all.
    /// Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 31_536_000))]
    pub starting_deadline_seconds: Option<u32>,
    /// What each job is made of.
    pub job_template: JobTemplate,
    /// Which of this schedule's backups are kept in the store; the others are deleted. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Drills: the newest backup is restored into a server that is thrown away, at times of its own.
    /// Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// How many succeeded BackupJobs of this schedule are kept. What is in the bucket stays.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 0, max = 1000))]
    pub successful_jobs_history_limit: u32,
    /// How many failed BackupJobs of this schedule are kept.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed_jobs_history_limit: u32,
}

fn default_time_zone() -> String {
    "Etc/UTC".into()
}

fn default_history_limit() -> u32 {
    3
}

/// What happens when a job is due while the one before still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// It waits: the latest time that passed is made up for when the job before has ended.
    #[default]
    Forbid,
    /// It starts. An agent makes one backup at a time: of the same agent, the job waits for it.
    Allow,
    /// The one before is cancelled, and the job starts when that has ended.
    Replace,
}

/// What a job is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.spec.cancel").message("a template cannot be cancelled: remove cancel, or set spec.suspend of the schedule").field_path(".spec.cancel"),
    validation = Rule::new("self.spec.deletionPolicy == 'Retain'").message("scheduled backups are deleted by spec.retention of the schedule: remove deletionPolicy").field_path(".spec.deletionPolicy"),
    validation = Rule::new("!has(self.spec.__import__)").message("a schedule makes backups: set source and storeRef, and import existing ones with towline catalog import").field_path(".spec.import")
)]
pub struct JobTemplate {
    /// Labels and annotations of each job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Spec of each job.
    pub spec: BackupJobSpec,
}

/// Labels and annotations of each job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels of each job, beside the controller's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of each job, beside the controller's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// What the schedule did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleStatus {
    /// `Ready`: the schedule is understood and the next time is known. `Failing`: the last job failed.
    /// `Overdue`: no backup has succeeded within twice the schedule's interval.
    /// `Retained`: only what `spec.retention` keeps is in the store. `Verified`: the newest drill that said
    /// anything about its backup has restored it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// The latest due time for which a job was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the next job starts, jitter included; absent while suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// When a job of this schedule last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// When a drill last restored a backup of this schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// The latest due time of drills that was taken care of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verify_schedule_time: Option<Time>,
    /// Jobs that have not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub active: Vec<ActiveJob>,
    /// Jobs that failed since one succeeded; cancelled ones are not counted.
    #[serde(default)]
    pub consecutive_failures: u32,
    /// Backups of this schedule in its store, adopted ones included, when they were last counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<u64>,
    /// Size of these backups, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Size of these backups, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
}

/// A job that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveJob {
    /// Name of the BackupJob.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its uid.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// The schedule is understood and the next time is known.
pub const READY: &str = "Ready";
/// What `spec.retention` says was done; False: it could not be. Absent without `spec.retention`.
pub const RETAINED: &str = "Retained";
/// A drill has restored the newest backup that it was given; False: that backup is at fault. Absent before
/// the first that said anything about its backup.
pub const VERIFIED: &str = "Verified";
/// The last job failed.
pub const FAILING: &str = "Failing";
/// No backup has succeeded within twice the schedule's interval.
pub const OVERDUE: &str = "Overdue";

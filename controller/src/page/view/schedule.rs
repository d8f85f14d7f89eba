//! One schedule, with what it has made.

use super::{
    super::parts::{Badge, HelpPart, Shell, path},
    Alarm, ConditionRow, conditions, helps, time,
};
use crate::{
    api::{
        BackupJob, BackupSchedule, LABEL_IMPORTED, LABEL_SCHEDULE, RestoreJob,
        conditions as condition,
        job::{self, Phase},
        restore,
    },
    fleet::{Fleet, Objects, Running, ScheduleRow, schedule_name},
    job::record::human_duration,
};
use askama::Template;
use jiff::Timestamp;
use kube::ResourceExt;
use std::cmp::Reverse;

/// Rows of the history.
const LATEST: usize = 200;

/// One schedule.
#[derive(Template)]
#[template(path = "page/schedule.html")]
pub(in crate::page) struct SchedulePage {
    shell: Shell,
    row: ScheduleRow,
    badge: Badge,
    drills: String,
    keeps: String,
    alarms: Vec<Alarm>,
    history: Vec<Run>,
    restores: Vec<Run>,
    conditions: Vec<ConditionRow>,
    help: Vec<HelpPart>,
}

/// A job or a restore in a history.
pub(super) struct Run {
    pub(super) name: String,
    pub(super) href: String,
    pub(super) phase: Badge,
    pub(super) began: Option<Timestamp>,
    pub(super) took: String,
    pub(super) bytes: Option<u64>,
    pub(super) attempts: u32,
    /// What a drill has found.
    pub(super) verified: Badge,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) running: Option<Running>,
}

impl Run {
    pub(super) fn of_job(job: &BackupJob, now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let namespace = job.namespace().unwrap_or_default();
        let verified = condition::get(&status.conditions, job::VERIFIED);
        let began = time(status.start_time.as_ref());
        let ended = time(status.completion_time.as_ref());
        Self {
            name: job.name_any(),
            href: path("BackupJob", &namespace, &job.name_any()),
            phase: Badge::of_phase(status.phase.as_str()),
            began: began.or(time(job.metadata.creation_timestamp.as_ref())),
            took: took(began, ended, now),
            bytes: status.bytes,
            attempts: status.attempt,
            verified: match (status.phase, verified.map(|c| c.status.as_str())) {
                (Phase::Succeeded, Some("True")) => Badge::of_verified(Some(true)),
                (Phase::Succeeded, Some("False")) => Badge::of_verified(Some(false)),
                (Phase::Succeeded, _) => Badge::of_verified(None),
                _ => Badge::new(super::super::parts::Tone::Plain, "No backup"),
            },
            reason: status.reason.map(|r| r.to_string()).unwrap_or_default(),
            message: told(
                &status.conditions,
                job::FAILED,
                status.phase == Phase::Failed,
            ),
            running: Running::of_job(job),
        }
    }

    pub(super) fn of_restore(restore: &RestoreJob, now: Timestamp) -> Self {
        let status = restore.status.clone().unwrap_or_default();
        let namespace = restore.namespace().unwrap_or_default();
        let began = time(status.start_time.as_ref());
        let ended = time(status.completion_time.as_ref());
        Self {
            name: restore.name_any(),
            href: path("RestoreJob", &namespace, &restore.name_any()),
            phase: Badge::of_phase(status.phase.as_str()),
            began: began.or(time(restore.metadata.creation_timestamp.as_ref())),
            took: took(began, ended, now),
            bytes: status.bytes,
            attempts: 1,
            verified: Badge::of_verified(None),
            reason: status.reason.map(|r| r.to_string()).unwrap_or_default(),
            message: told(
                &status.conditions,
                restore::FAILED,
                status.phase == crate::api::restore::RestorePhase::Failed,
            ),
            running: Running::of_restore(restore),
        }
    }
}

/// From the start to the end, or until now.
pub(super) fn took(began: Option<Timestamp>, ended: Option<Timestamp>, now: Timestamp) -> String {
    began.map_or_else(
        || "–".to_owned(),
        |began| human_duration(ended.unwrap_or(now).duration_since(began)),
    )
}

/// What a condition says, of one that has failed.
fn told(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    type_: &str,
    failed: bool,
) -> String {
    let condition = condition::get(conditions, type_).filter(|_| failed);
    condition.map(|c| c.message.clone()).unwrap_or_default()
}

impl SchedulePage {
    /// `fleet` is of its namespace.
    pub(in crate::page) fn new(
        version: &'static str,
        fleet: &Fleet,
        schedule: &BackupSchedule,
        objects: &Objects<'_>,
    ) -> Option<Self> {
        let (namespace, name) = (
            schedule.namespace().unwrap_or_default(),
            schedule.name_any(),
        );
        let now = fleet.time;
        let row = fleet.schedules.iter().find(|row| row.name == name)?.clone();
        let alarms = fleet.attention.iter();
        let alarms = alarms
            .filter(|a| a.kind == "BackupSchedule" && a.name == name)
            .map(|a| Alarm::new(a, now, false))
            .collect();
        let made = |job: &BackupJob| {
            let imported = job.labels().contains_key(LABEL_IMPORTED);
            !imported && schedule_name(job).as_deref() == Some(&name)
        };
        let mut history: Vec<Run> = objects
            .jobs
            .iter()
            .filter(|job| made(job))
            .map(|job| Run::of_job(job, now))
            .collect();
        history.sort_by_key(|run| Reverse(run.began));
        history.truncate(LATEST);
        let mut drills: Vec<Run> = objects
            .restores
            .iter()
            .filter(|restore| restore.labels().get(LABEL_SCHEDULE) == Some(&name))
            .map(|restore| Run::of_restore(restore, now))
            .collect();
        drills.sort_by_key(|run| Reverse(run.began));
        drills.truncate(LATEST);
        let told = schedule.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let reasons = history.iter().map(|run| run.reason.clone()).collect();
        let spec = &schedule.spec;
        let keeps = spec.retention.as_ref().map_or_else(
            || "All backups".to_owned(),
            |retention| {
                let value = serde_json::to_value(retention).unwrap_or_default();
                let rules = value.as_object().into_iter().flatten();
                let rules = rules.filter(|(rule, _)| rule.starts_with("keep"));
                let rules: Vec<String> = rules
                    .map(|(rule, value)| match value.as_str() {
                        Some(text) => format!("{rule} {text}"),
                        None => format!("{rule} {value}"),
                    })
                    .collect();
                rules.join(", ")
            },
        );
        Some(Self {
            shell: Shell {
                title: format!("Schedule {namespace}/{name}"),
                version,
                now,
            },
            badge: Badge::of_schedule(row.state),
            drills: spec.verify.as_ref().map_or_else(
                || "None".to_owned(),
                |v| {
                    if v.suspend {
                        format!("{} (suspended)", v.schedule)
                    } else {
                        v.schedule.clone()
                    }
                },
            ),
            keeps,
            alarms,
            history,
            restores: drills,
            conditions: conditions(told, now),
            help: helps("BackupJob", &namespace, &name, reasons),
            row,
        })
    }
}

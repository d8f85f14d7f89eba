//! One restore or drill.

use super::{
    super::parts::{Badge, HelpPart, Shell, Tone, path},
    ConditionRow, conditions, helps,
    schedule::took,
    time,
};
use crate::{
    api::{LABEL_SCHEDULE, RestoreJob, conditions as condition, restore},
    fleet::Running,
};
use askama::Template;
use jiff::Timestamp;
use kube::ResourceExt;

/// One restore or drill.
#[derive(Template)]
#[template(path = "page/restore.html")]
pub(in crate::page) struct RestorePage {
    shell: Shell,
    namespace: String,
    name: String,
    drill: bool,
    badge: Badge,
    schedule: Option<(String, String)>,
    job: Option<(String, String)>,
    from: String,
    to: String,
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
    took: String,
    bytes: Option<u64>,
    counted: String,
    /// Whether the target was touched.
    written: &'static str,
    running: Option<Running>,
    message: String,
    checks: Vec<(String, Badge, String)>,
    conditions: Vec<ConditionRow>,
    help: Vec<HelpPart>,
}

impl RestorePage {
    pub(in crate::page) fn new(version: &'static str, object: &RestoreJob, now: Timestamp) -> Self {
        let status = object.status.clone().unwrap_or_default();
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let drill = object.spec.to.drill.is_some();
        let began = time(status.start_time.as_ref());
        let ended = time(status.completion_time.as_ref());
        let failed =
            condition::get(&status.conditions, restore::FAILED).filter(|c| c.status == "True");
        let told = failed.or_else(|| condition::get(&status.conditions, restore::PROGRESSING));
        let checks = status.checks.iter().map(|check| {
            let passed = match check.passed {
                true => Badge::new(Tone::Good, "Passed"),
                false => Badge::new(Tone::Bad, "Failed"),
            };
            (check.check.clone(), passed, check.found.clone())
        });
        let counted: Vec<String> = [(status.tables, "tables"), (status.rows, "rows")]
            .into_iter()
            .filter_map(|(count, what)| Some(format!("{} {what}", count?)))
            .collect();
        let job = status.backup.as_ref().map(|b| b.backup_job.clone());
        let reasons = status.reason.iter().map(ToString::to_string).collect();
        let what = if drill { "Drill" } else { "Restore" };
        Self {
            shell: Shell {
                title: format!("{what} {namespace}/{name}"),
                version,
                now,
            },
            drill,
            badge: Badge::of_phase(status.phase.as_str()),
            schedule: object
                .labels()
                .get(LABEL_SCHEDULE)
                .map(|s| (path("BackupSchedule", &namespace, s), s.clone())),
            job: job
                .filter(|job| !job.is_empty())
                .map(|job| (path("BackupJob", &namespace, &job), job)),
            from: status.from.clone().unwrap_or_default(),
            to: status.to.clone().unwrap_or_default(),
            began,
            ended,
            took: took(began, ended, now),
            bytes: status.bytes,
            counted: counted.join(", "),
            written: match status.target_written {
                Some(true) => "Yes",
                Some(false) => "No",
                None => "Not known",
            },
            running: Running::of_restore(object),
            message: told.map(|c| c.message.clone()).unwrap_or_default(),
            checks: checks.collect(),
            conditions: conditions(&status.conditions, now),
            help: helps("RestoreJob", &namespace, &name, reasons),
            namespace,
            name,
        }
    }
}

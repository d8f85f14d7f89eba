//! One backup job.

use super::{
    super::parts::{Badge, HelpPart, Shell, Tone, path},
    ConditionRow, conditions, helps,
    schedule::took,
    time,
};
use crate::{
    api::{BackupJob, conditions as condition, job},
    fleet::{Running, schedule_name},
};
use askama::Template;
use jiff::Timestamp;
use kube::ResourceExt;

/// One backup job.
#[derive(Template)]
#[template(path = "page/job.html")]
pub(in crate::page) struct JobPage {
    shell: Shell,
    namespace: String,
    name: String,
    badge: Badge,
    verified: Option<Badge>,
    schedule: Option<(String, String)>,
    store: (String, String),
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
    took: String,
    method: String,
    bytes: Option<u64>,
    source: String,
    key: String,
    sha256: String,
    running: Option<Running>,
    /// What it says of itself: why it failed, or what it waits for.
    message: String,
    attempts: Vec<AttemptRow>,
    stages: Vec<(&'static str, String)>,
    conditions: Vec<ConditionRow>,
    help: Vec<HelpPart>,
}

struct AttemptRow {
    number: u32,
    state: Badge,
    agent: String,
    began: Timestamp,
    took: String,
    bytes: Option<u64>,
    reason: String,
    message: String,
}

impl JobPage {
    pub(in crate::page) fn new(version: &'static str, job: &BackupJob, now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
        let began = time(status.start_time.as_ref());
        let ended = time(status.completion_time.as_ref());
        let verified = condition::get(&status.conditions, job::VERIFIED);
        let attempts: Vec<AttemptRow> = status
            .attempts
            .iter()
            .rev()
            .map(|attempt| {
                let end = time(attempt.end.as_ref());
                AttemptRow {
                    number: attempt.number,
                    state: match (attempt.reason, end) {
                        (Some(_), _) => Badge::new(Tone::Bad, "Failed"),
                        (None, Some(_)) => Badge::new(Tone::Good, "Succeeded"),
                        (None, None) => Badge::new(Tone::Busy, "Running"),
                    },
                    agent: attempt.agent.clone().unwrap_or_default(),
                    began: attempt.start.0,
                    took: took(Some(attempt.start.0), end, now),
                    bytes: Some(attempt.bytes),
                    reason: attempt.reason.map(|r| r.to_string()).unwrap_or_default(),
                    message: attempt.message.clone().unwrap_or_default(),
                }
            })
            .collect();
        let mut reasons: Vec<String> = status.reason.iter().map(ToString::to_string).collect();
        reasons.extend(attempts.iter().map(|attempt| attempt.reason.clone()));
        let failed = condition::get(&status.conditions, job::FAILED).filter(|c| c.status == "True");
        let told = failed.or_else(|| condition::get(&status.conditions, job::PROGRESSING));
        let timings = status.timings.unwrap_or_default();
        let stages = [
            ("Resolve the name", timings.dns),
            ("Connect", timings.connect),
            ("TLS handshake", timings.tls),
            ("Send the request", timings.wrote_request),
            ("Wait for the first byte", timings.first_byte),
            ("Copy", timings.copy),
            ("Of it, locks held", timings.lock),
            ("Finalize", timings.finalize),
        ];
        let source = status.source.unwrap_or_default();
        let source = [source.pod, source.role, source.server_version];
        let source: Vec<String> = source.into_iter().flatten().collect();
        let store = job.spec.store_name().to_owned();
        Self {
            shell: Shell {
                title: format!("Backup {namespace}/{name}"),
                version,
                now,
            },
            badge: Badge::of_phase(status.phase.as_str()),
            verified: verified.map(|c| Badge::of_verified(Some(c.status == "True"))),
            schedule: schedule_name(job).map(|s| (path("BackupSchedule", &namespace, &s), s)),
            store: (path("BackupStore", &namespace, &store), store),
            began,
            ended,
            took: took(began, ended, now),
            method: status.method.unwrap_or_default(),
            bytes: status.bytes,
            source: source.join(", "),
            key: status.manifest_key.unwrap_or_default(),
            sha256: status.sha256.unwrap_or_default(),
            running: Running::of_job(job),
            message: told.map(|c| c.message.clone()).unwrap_or_default(),
            stages: stages
                .into_iter()
                .filter_map(|(stage, seconds)| Some((stage, format!("{:.3} s", seconds?))))
                .collect(),
            conditions: conditions(&status.conditions, now),
            help: helps("BackupJob", &namespace, &name, reasons),
            attempts,
            namespace,
            name,
        }
    }
}

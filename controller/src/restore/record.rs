//! How a restore's status changes: pure functions, so that what a person will read is tested as a table.

use super::outcome::{Outcome, Wait};
use crate::{
    api::{
        RestoreJobSpec, RestoreJobStatus,
        conditions::{self, Status, cut},
        job::Position,
        restore::{
            COMPLETE, CheckStatus, FAILED, PROGRESSING, RestorePhase, RestoreProgress,
            RestoredBackup,
        },
    },
    job::record::{human_bytes, human_duration},
    peer_text::{Keep, clean},
    reason::RestoreReason,
    restore_pod::Report,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use towline_agent::restore::progress::Look;

/// Checks that a status lists; those that failed come first where not all fit.
const KEPT_CHECKS: usize = 100;

/// A change of one restore's status at one time.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// The spec.
    pub(super) spec: &'a RestoreJobSpec,
    /// `metadata.generation`.
    pub(super) generation: Option<i64>,
    /// The status, changed in place.
    pub(super) status: &'a mut RestoreJobStatus,
    /// Now.
    pub(super) now: Timestamp,
}

impl Record<'_> {
    /// The controller takes the restore up.
    pub(super) fn take_up(&mut self) {
        self.status.start_time = Some(Time(self.now));
        self.status.from = Some(from(self.spec));
        self.status.to = Some(to(self.spec));
        self.progressing(Status::True, "Pending", "the backup is looked for");
        self.condition(COMPLETE, Status::False, "Pending", "");
        self.condition(FAILED, Status::False, "Pending", "");
    }

    /// The store cannot be asked at the moment.
    pub(super) fn wait(&mut self, reason: RestoreReason, message: &str) {
        self.status.reason = Some(reason);
        self.progressing(Status::True, reason.as_str(), message);
    }

    /// This backup is restored.
    pub(super) fn resolved(&mut self, backup: RestoredBackup) {
        self.status.from = Some(cut(&backup.backup_job, 256).to_owned());
        self.status.reason = None;
        let message = format!("backup {} was found", backup.key);
        self.status.backup = Some(backup);
        self.progressing(Status::True, "Resolved", &message);
    }

    /// The target can take it: this Job will do it.
    pub(super) fn admitted(&mut self, job: &str) {
        self.status.phase = RestorePhase::Running;
        self.status.job = Some(job.to_owned());
        self.progressing(
            Status::True,
            "Admitted",
            &format!("Job {job} is about to be created"),
        );
    }

    /// The Job is there.
    pub(super) fn created(&mut self, uid: &str) {
        self.status.job_uid = Some(uid.to_owned());
        let job = self.status.job.as_deref().unwrap_or_default();
        let message = format!("Job {job} was created");
        self.progressing(Status::True, "Running", &message);
    }

    /// The Job's pod waits for something.
    pub(super) fn waiting(&mut self, pod: Option<&str>, wait: Wait, why: &str) {
        self.seen(pod);
        let before = conditions::get(&self.status.conditions, PROGRESSING);
        if before.is_none_or(|c| Wait::of(&c.reason) != Some(wait)) {
            self.status.waiting_since = Some(Time(self.now));
        }
        self.progressing(Status::True, wait.as_str(), why);
    }

    /// The pod works; `look` is what it says of itself, if it could be asked.
    pub(super) fn running(&mut self, pod: &str, look: Option<Look>) {
        self.seen(Some(pod));
        self.status.waiting_since = None;
        self.progressing(Status::True, "Running", &format!("pod {pod} works"));
        let Some(look) = look else {
            return;
        };
        let before = self.status.progress.take();
        let now = progress(before.as_ref(), look, self.now);
        // Only together with what is new anyway: a write for each second that passes would call for the next.
        if before.as_ref() != Some(&now) {
            self.status.duration = self.lasted();
        }
        self.status.progress = Some(now);
    }

    fn seen(&mut self, pod: Option<&str>) {
        if let Some(pod) = pod {
            self.status.pod = Some(pod.to_owned());
        }
    }

    fn lasted(&self) -> Option<String> {
        let start = self.status.start_time.as_ref()?.0;
        Some(human_duration(self.now.duration_since(start)))
    }

    /// It is over, as the pod or what became of it tells.
    pub(super) fn end(&mut self, outcome: &Outcome) {
        self.report(&outcome.report);
        self.status.target_written = outcome.target_written;
        match outcome.reason {
            None => self.succeed(),
            Some(reason) => self.fail(reason, &outcome.message),
        }
    }

    /// It is over before anything was begun.
    pub(super) fn conclude(&mut self, reason: RestoreReason, message: &str) {
        self.status.target_written = Some(false);
        self.fail(reason, message);
    }

    /// Nothing is left of it but this record.
    pub(super) fn tidied(&mut self) {
        self.status.tidied = true;
    }

    fn report(&mut self, report: &Report) {
        let status = &mut *self.status;
        let known = |number: u64| Some(number).filter(|n| *n > 0);
        status.bytes = known(report.bytes);
        status.tables = known(report.tables);
        status.rows = report.rows;
        let position = &report.position;
        status.position = Some(Position {
            gtid: position.gtid.as_deref().map(|g| cut(g, 8192).to_owned()),
            binlog_file: position
                .binlog_file
                .as_deref()
                .map(|f| cut(f, 512).to_owned()),
            binlog_position: position.binlog_position,
            lsn: position.lsn,
        })
        .filter(|p| *p != Position::default());
        let checks = report.checks.iter().take(KEPT_CHECKS);
        status.checks = checks
            .map(|check| CheckStatus {
                check: cut(&check.check, 2048).to_owned(),
                passed: check.passed,
                found: clean(&check.found, None, Keep::Start),
            })
            .collect();
    }

    fn succeed(&mut self) {
        self.finish(RestorePhase::Succeeded, None);
        let message = success(self.status);
        self.condition(COMPLETE, Status::True, "Succeeded", &message);
        self.condition(FAILED, Status::False, "Succeeded", "");
        self.progressing(Status::False, "Succeeded", "");
    }

    fn fail(&mut self, reason: RestoreReason, message: &str) {
        self.finish(RestorePhase::Failed, Some(reason));
        self.condition(FAILED, Status::True, reason.as_str(), message);
        self.condition(COMPLETE, Status::False, reason.as_str(), "");
        self.progressing(Status::False, reason.as_str(), "");
    }

    fn finish(&mut self, phase: RestorePhase, reason: Option<RestoreReason>) {
        let duration = self.lasted();
        let status = &mut *self.status;
        status.phase = phase;
        status.reason = reason;
        status.progress = None;
        status.waiting_since = None;
        status.completion_time = Some(Time(self.now));
        status.duration = duration;
    }

    fn progressing(&mut self, status: Status, reason: &str, message: &str) {
        self.condition(PROGRESSING, status, reason, message);
    }

    fn condition(&mut self, type_: &str, status: Status, reason: &str, message: &str) {
        conditions::set(
            &mut self.status.conditions,
            type_,
            status,
            reason,
            message,
            self.generation,
            self.now,
        );
    }
}

/// `1.20GiB, 14 tables, 3 checks`.
#[must_use]
pub(super) fn success(status: &RestoreJobStatus) -> String {
    let mut parts = vec![human_bytes(
        status
            .bytes
            .or(status.backup.as_ref().map(|b| b.bytes))
            .unwrap_or(0),
    )];
    let mut add = |count: Option<u64>, what: &str| {
        if let Some(count) = count {
            let s = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} {what}{s}"));
        }
    };
    add(status.tables, "table");
    add(status.rows, "row");
    add(Some(status.checks.len() as u64).filter(|n| *n > 0), "check");
    parts.join(", ")
}

fn from(spec: &RestoreJobSpec) -> String {
    let from = &spec.from;
    let text = if let Some(job) = &from.backup_job_ref {
        job.name.clone()
    } else if let Some(store) = &from.store {
        store.key.clone()
    } else if let Some(latest) = &from.latest {
        match &latest.schedule {
            Some(schedule) => format!("latest of {schedule}"),
            None => format!("latest in {}", latest.store_ref.name),
        }
    } else {
        String::new()
    };
    cut(&text, 256).to_owned()
}

fn to(spec: &RestoreJobSpec) -> String {
    let to = &spec.to;
    let text = if let Some(volume) = &to.persistent_volume_claim {
        match &volume.sub_path {
            Some(path) => format!("claim {}/{path}", volume.claim_name),
            None => format!("claim {}", volume.claim_name),
        }
    } else if let Some(agent) = &to.agent {
        match (&agent.url, &agent.pod_selector) {
            (Some(url), _) => format!("agent {url}"),
            (None, Some(selector)) => {
                let labels = selector.match_labels.iter();
                let labels: Vec<_> = labels.map(|(k, v)| format!("{k}={v}")).collect();
                format!("agent {}", labels.join(","))
            }
            (None, None) => "agent".to_owned(),
        }
    } else {
        "drill".to_owned()
    };
    cut(&text, 600).to_owned()
}

fn progress(before: Option<&RestoreProgress>, look: Look, now: Timestamp) -> RestoreProgress {
    let stage = look.stage.as_str();
    let before = before.filter(|b| b.stage == stage);
    let got = before.map_or(0, |b| look.bytes.saturating_sub(b.bytes));
    let since = before
        .and_then(|b| b.last_progress_time.as_ref())
        .map(|t| t.0);
    let seconds = since.map_or(0, |since| {
        u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0)
    });
    // Two looks that are close tell nothing about the rate.
    let rate = match (got, seconds) {
        (0, _) => None,
        (_, 0) => before.and_then(|b| b.bytes_per_second),
        (got, seconds) => Some(got / seconds),
    };
    let moved = before.is_none() || got > 0;
    RestoreProgress {
        stage: stage.to_owned(),
        bytes: look.bytes,
        total_bytes: look.total_bytes,
        bytes_per_second: rate,
        last_progress_time: match moved {
            true => Some(Time(now)),
            false => before.and_then(|b| b.last_progress_time.clone()),
        },
        summary: Some(summary(look, rate)),
    }
}

/// `Extracting 40% 85.0MiB/s`.
fn summary(look: Look, rate: Option<u64>) -> String {
    let mut text = look.stage.as_str().to_owned();
    if look.total_bytes > 0 {
        let part = look.bytes.min(look.total_bytes);
        let percent = u128::from(part) * 100 / u128::from(look.total_bytes);
        text.push_str(&format!(" {percent}%"));
    }
    if let Some(rate) = rate {
        text.push_str(&format!(" {}/s", human_bytes(rate)));
    }
    text
}

#[cfg(test)]
mod tests;

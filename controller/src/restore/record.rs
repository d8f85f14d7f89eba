//! How a restore's status changes: pure functions, so that what a person will read is tested as a table.

use super::outcome::Outcome;
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
    pub(super) fn waiting(&mut self, pod: Option<&str>, why: &str) {
        self.seen(pod);
        self.status.waiting_since.get_or_insert(Time(self.now));
        self.progressing(Status::True, "Waiting", why);
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
        self.status.progress = Some(progress(before.as_ref(), look, self.now));
    }

    fn seen(&mut self, pod: Option<&str>) {
        if let Some(pod) = pod {
            self.status.pod = Some(pod.to_owned());
        }
        self.status.duration = self
            .status
            .start_time
            .as_ref()
            .map(|start| human_duration(self.now.duration_since(start.0)));
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
        let status = &mut *self.status;
        status.phase = phase;
        status.reason = reason;
        status.progress = None;
        status.waiting_since = None;
        status.completion_time = Some(Time(self.now));
        status.duration = status
            .start_time
            .as_ref()
            .map(|start| human_duration(self.now.duration_since(start.0)));
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
mod tests {
    use super::*;
    use crate::restore_pod::CheckResult;
    use serde_json::json;
    use towline_agent::restore::Stage;

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn spec(to: serde_json::Value) -> RestoreJobSpec {
        let from = json!({"latest": {"storeRef": {"name": "s"}, "schedule": "nightly"}});
        serde_json::from_value(json!({"from": from, "to": to})).unwrap()
    }

    fn at<'a>(
        spec: &'a RestoreJobSpec,
        status: &'a mut RestoreJobStatus,
        second: i64,
    ) -> Record<'a> {
        Record {
            spec,
            generation: Some(1),
            status,
            now: t(second),
        }
    }

    #[test]
    fn what_is_shown_of_source_and_target() {
        for (to, shown) in [
            (json!({"drill": {"image": "mariadb:10.11"}}), "drill"),
            (
                json!({"persistentVolumeClaim": {"claimName": "data-0"}}),
                "claim data-0",
            ),
            (
                json!({"persistentVolumeClaim": {"claimName": "data-0", "subPath": "mysql"}}),
                "claim data-0/mysql",
            ),
            (
                json!({"agent": {"url": "https://db:8474"}}),
                "agent https://db:8474",
            ),
            (
                json!({"agent": {"podSelector": {"matchLabels": {"app": "db", "role": "a"}}}}),
                "agent app=db,role=a",
            ),
        ] {
            let spec = spec(to);
            let mut status = RestoreJobStatus::default();
            at(&spec, &mut status, 0).take_up();
            assert_eq!(status.to.as_deref(), Some(shown));
            assert_eq!(status.from.as_deref(), Some("latest of nightly"));
        }
    }

    #[test]
    fn a_restore_that_succeeds() {
        let spec = spec(json!({"drill": {"image": "i"}}));
        let mut status = RestoreJobStatus::default();
        at(&spec, &mut status, 0).take_up();
        at(&spec, &mut status, 1).wait(RestoreReason::StoreNotReady, "x");
        let backup = RestoredBackup {
            backup_job: "nightly-1".into(),
            bytes: 5,
            ..RestoredBackup::default()
        };
        at(&spec, &mut status, 2).resolved(backup);
        assert_eq!(
            (status.from.as_deref(), status.reason),
            (Some("nightly-1"), None)
        );
        at(&spec, &mut status, 3).admitted("r-restore");
        assert_eq!(status.phase, RestorePhase::Running);
        at(&spec, &mut status, 4).created("u");
        at(&spec, &mut status, 5).waiting(None, "w");
        at(&spec, &mut status, 9).waiting(Some("p"), "w");
        assert_eq!(status.waiting_since, Some(Time(t(5))));
        let look = Look {
            stage: Stage::Extracting,
            bytes: 100 << 20,
            total_bytes: 200 << 20,
        };
        at(&spec, &mut status, 10).running("p", Some(look));
        assert_eq!(status.waiting_since, None);
        let report = Report {
            bytes: 200 << 20,
            tables: 3,
            rows: Some(70),
            checks: vec![CheckResult {
                check: "CHECK TABLE".into(),
                passed: true,
                found: "a\u{1b}[2Jb".into(),
            }],
            ..Report::default()
        };
        let outcome = Outcome {
            target_written: Some(true),
            report,
            ..Outcome::default()
        };
        at(&spec, &mut status, 75).end(&outcome);
        let complete = conditions::get(&status.conditions, COMPLETE).unwrap();
        assert_eq!(
            (complete.status.as_str(), complete.message.as_str()),
            ("True", "200MiB, 3 tables, 70 rows, 1 check")
        );
        assert!(!conditions::is_true(&status.conditions, FAILED));
        assert_eq!(
            (status.phase, status.duration.as_deref(), status.progress),
            (RestorePhase::Succeeded, Some("1m15s"), None)
        );
        assert_eq!(status.checks[0].found, "a [2Jb");
    }

    #[test]
    fn one_that_fails_says_whether_the_target_was_touched() {
        let spec = spec(json!({"persistentVolumeClaim": {"claimName": "c"}}));
        let mut status = RestoreJobStatus::default();
        at(&spec, &mut status, 0).take_up();
        let mut refused = status.clone();
        at(&spec, &mut refused, 1).conclude(RestoreReason::TargetInUse, "pod db-0");
        assert_eq!(refused.target_written, Some(false));
        let failed = conditions::get(&refused.conditions, FAILED).unwrap();
        assert_eq!(
            (failed.status.as_str(), failed.reason.as_str()),
            ("True", "TargetInUse")
        );
        assert!(!conditions::is_true(&refused.conditions, COMPLETE));
        let outcome = Outcome {
            reason: Some(RestoreReason::Interrupted),
            message: "m".into(),
            ..Outcome::default()
        };
        at(&spec, &mut status, 9).end(&outcome);
        assert_eq!(
            (status.phase, status.reason, status.target_written),
            (RestorePhase::Failed, Some(RestoreReason::Interrupted), None)
        );
    }

    #[test]
    fn the_rate_is_of_one_stage_and_survives_looks_that_are_close() {
        let look = |stage, mib: u64| Look {
            stage,
            bytes: mib << 20,
            total_bytes: 100 << 20,
        };
        let summary = |p: &RestoreProgress| p.summary.clone().unwrap();
        let first = progress(None, look(Stage::Verifying, 10), t(0));
        assert_eq!(summary(&first), "Verifying 10%");
        let second = progress(Some(&first), look(Stage::Verifying, 60), t(5));
        assert_eq!(summary(&second), "Verifying 60% 10.0MiB/s");
        let close = progress(Some(&second), look(Stage::Verifying, 61), t(5));
        assert_eq!(summary(&close), "Verifying 61% 10.0MiB/s");
        let still = progress(Some(&close), look(Stage::Verifying, 61), t(9));
        assert_eq!(summary(&still), "Verifying 61%");
        assert_eq!(still.last_progress_time, Some(Time(t(5))));
        let next = progress(Some(&still), look(Stage::Loading, 1), t(10));
        assert_eq!(summary(&next), "Loading 1%");
    }
}

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

fn at<'a>(spec: &'a RestoreJobSpec, status: &'a mut RestoreJobStatus, second: i64) -> Record<'a> {
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
    at(&spec, &mut status, 5).waiting(None, Wait::Things, "w");
    at(&spec, &mut status, 9).waiting(Some("p"), Wait::Things, "w");
    assert_eq!(status.waiting_since, Some(Time(t(5))));
    at(&spec, &mut status, 9).waiting(Some("p"), Wait::Stuck, "s");
    assert_eq!(status.waiting_since, Some(Time(t(9))));
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

/// Each write calls for the next look: what does not get further is not written again.
#[test]
fn while_nothing_happens_nothing_is_written() {
    let spec = spec(json!({"drill": {"image": "i"}}));
    let mut status = RestoreJobStatus::default();
    at(&spec, &mut status, 0).take_up();
    at(&spec, &mut status, 5).waiting(Some("p"), Wait::Things, "w");
    let before = status.clone();
    at(&spec, &mut status, 9).waiting(Some("p"), Wait::Things, "w");
    assert_eq!(status, before);
    let look = Look {
        stage: Stage::Preparing,
        bytes: 0,
        total_bytes: 0,
    };
    at(&spec, &mut status, 10).running("p", Some(look));
    let before = status.clone();
    for second in [13, 60, 600] {
        at(&spec, &mut status, second).running("p", Some(look));
        at(&spec, &mut status, second).running("p", None);
        assert_eq!(status, before, "{second}");
    }
}

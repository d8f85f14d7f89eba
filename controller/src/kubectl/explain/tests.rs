use super::*;
use serde_json::json;

fn now() -> Timestamp {
    "2026-03-04T12:00:00Z".parse().unwrap()
}

fn failed_job() -> BackupJob {
    serde_json::from_value(json!({
        "metadata": {"name": "nightly-1", "namespace": "shop", "labels": {"towline.dev/schedule": "nightly"}},
        "spec": {"source": {"url": "http://db:8474"}, "storeRef": {"name": "offsite"}},
        "status": {
            "phase": "Failed", "reason": "StreamError", "attempt": 2, "failures": 2,
            "startTime": "2026-03-04T02:00:00Z", "completionTime": "2026-03-04T02:10:00Z",
            "source": {"pod": "mariadb-0"},
            "attempts": [
                {"number": 1, "agent": "http://10.0.0.1:8474", "start": "2026-03-04T02:00:00Z", "end": "2026-03-04T02:01:00Z", "reason": "Interrupted", "message": "the agent was stopped", "bytes": 1024},
                {"number": 2, "agent": "http://10.0.0.1:8474", "start": "2026-03-04T02:02:00Z", "end": "2026-03-04T02:10:00Z", "reason": "StreamError", "message": "LockTimeout: held", "bytes": 2048},
            ],
            "conditions": [{"type": "Failed", "status": "True", "reason": "StreamError", "message": "LockTimeout: held", "lastTransitionTime": "2026-03-04T02:10:00Z"}],
        },
    }))
    .unwrap()
}

#[test]
fn a_failed_job_says_why_and_what_to_do_with_its_own_names() {
    let told = of_job(&failed_job());
    let text = told.render(false, now(), Paint::new(false));
    for needle in [
        "BackupJob shop/nightly-1: Failed\n",
        "There is no backup",
        "  failures:       2 counted, backoffLimit 3\n",
        "\nWhy\n  StreamError\n  LockTimeout: held\n",
        "  1  2026-03-04T02:00:00Z  1m0s long  1.00KiB  Interrupted  http://10.0.0.1:8474\n      the agent was stopped\n",
        "  2  2026-03-04T02:02:00Z  8m0s long  2.00KiB  StreamError  http://10.0.0.1:8474\n",
        "\nWhat to do about StreamError\n",
        // Its row of the table, and no other.
        "  LockTimeout: locks would have been held",
        "(docs/troubleshooting.md#backupjob-streamerror)",
    ] {
        assert!(text.contains(needle), "{needle:?} is not in\n{text}");
    }
    for none in ["ToolIncomplete", "**", "Conditions"] {
        assert!(!text.contains(none), "{none:?} is in\n{text}");
    }
    assert!(
        told.render(true, now(), Paint::new(false))
            .contains("Failed=True StreamError")
    );
    // For programs.
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(json["reason"], "StreamError");
    assert_eq!(json["attempts"][1]["message"], "LockTimeout: held");
    assert_eq!(
        json["advice"][0]["document"],
        "docs/troubleshooting.md#backupjob-streamerror"
    );
}

/// Each reason of each kind is explained, and no variable of the document is left in it that an object has.
#[test]
fn every_reason_leads_to_advice() {
    for reason in crate::reason::FailureReason::ALL {
        let mut job = failed_job();
        if let Some(status) = &mut job.status {
            status.reason = Some(reason);
        }
        let told = of_job(&job);
        assert_eq!(told.advice.len(), 1, "{reason}");
        let text = &told.advice[0].text;
        for variable in ["$NS", "$JOB", "$POD", "$STORE", "$SCHEDULE"] {
            assert!(!text.contains(variable), "{reason}: {variable} in {text}");
        }
    }
}

#[test]
fn a_schedule_that_is_late_names_what_its_jobs_died_of() {
    let schedule: BackupSchedule = serde_json::from_value(json!({
        "metadata": {"name": "nightly", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"source": {"url": "http://db"}, "storeRef": {"name": "offsite"}}}},
        "status": {"lastSuccessfulTime": "2026-03-01T00:00:00Z", "consecutiveFailures": 1, "conditions": [
            {"type": "Ready", "status": "True", "reason": "Scheduled", "message": "", "lastTransitionTime": "2026-03-04T02:10:00Z"},
            {"type": "Overdue", "status": "True", "reason": "NoRecentSuccess", "message": "m", "lastTransitionTime": "2026-03-04T02:10:00Z"},
            {"type": "Failing", "status": "True", "reason": "StreamError", "message": "m", "lastTransitionTime": "2026-03-04T02:10:00Z"},
        ]},
    }))
    .unwrap();
    let told = of_schedule(&schedule, &[failed_job()], now());
    assert_eq!(told.state, "Overdue");
    let reasons: Vec<_> = told.advice.iter().map(|a| a.reason.as_str()).collect();
    assert_eq!(reasons, ["NoRecentSuccess", "StreamError"]);
    let text = told.render(false, now(), Paint::new(false));
    assert!(text.contains("StreamError (nightly-1)"), "{text}");
    assert!(text.contains("last good backup 3d12h ago"), "{text}");
}

#[test]
fn a_restore_and_a_store_say_what_became_of_them() {
    let restore = |written: serde_json::Value| -> RestoreJob {
        serde_json::from_value(json!({
            "metadata": {"name": "back", "namespace": "shop"},
            "spec": {"from": {"backupJobRef": {"name": "b"}}, "to": {"agent": {"url": "http://db"}}},
            "status": {"phase": "Failed", "reason": "NoSpace", "targetWritten": written, "conditions": [
                {"type": "Failed", "status": "True", "reason": "NoSpace", "message": "the volume is full", "lastTransitionTime": "2026-03-04T02:10:00Z"}]},
        }))
        .unwrap()
    };
    for (written, needle) in [
        (json!(false), "nothing was written"),
        (json!(true), "is unusable"),
        (json!(null), "nobody knows"),
    ] {
        let told = of_restore(&restore(written));
        assert!(told.summary.contains(needle), "{}", told.summary);
        assert_eq!(told.message.as_deref(), Some("the volume is full"));
        assert_eq!(told.advice.len(), 1);
    }
    let store: BackupStore = serde_json::from_value(json!({
        "metadata": {"name": "offsite", "namespace": "shop"}, "spec": {"file": {"path": "a"}},
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "BucketNotFound", "message": "no bucket", "lastTransitionTime": "2026-03-04T02:10:00Z"}]},
    }))
    .unwrap();
    let told = of_store(&store);
    assert_eq!((&*told.state, told.advice.len()), ("NotReady", 1));
    let store: BackupStore = serde_json::from_value(json!({
        "metadata": {"name": "offsite", "namespace": "shop"}, "spec": {"file": {"path": "a"}},
    }))
    .unwrap();
    assert_eq!(of_store(&store).state, "Unknown");
}

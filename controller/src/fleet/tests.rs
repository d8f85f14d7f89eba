use super::*;
use serde_json::{Value, json};

const NOW: &str = "2026-03-04T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn condition(type_: &str, status: &str, reason: &str, message: &str, since: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
}

fn object<K: serde::de::DeserializeOwned>(name: &str, spec: Value, status: Value) -> K {
    let mut object = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    });
    if !status.is_null() {
        object["status"] = status;
    }
    serde_json::from_value(object).unwrap()
}

fn schedule(name: &str, spec: Value, status: Value) -> BackupSchedule {
    let mut whole = json!({
        "schedule": "0 2 * * *",
        "jobTemplate": {"spec": {"source": {"url": "http://db:8474"}, "storeRef": {"name": "offsite"}}},
    });
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    object(name, whole, status)
}

fn drilled() -> Value {
    json!({"verify": {"schedule": "@weekly", "image": "mariadb:10.11"}})
}

fn job(name: &str, schedule: Option<&str>, status: Value) -> BackupJob {
    let mut job: BackupJob = object(
        name,
        json!({"source": {"url": "http://db:8474"}, "storeRef": {"name": "offsite"}}),
        status,
    );
    if let Some(schedule) = schedule {
        let owner = json!([{"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "name": schedule, "uid": "u", "controller": true}]);
        job.metadata.owner_references = serde_json::from_value(owner).unwrap();
    }
    job
}

fn ready() -> Value {
    condition("Ready", "True", "Scheduled", "", "2026-01-01T00:00:00Z")
}

#[test]
fn a_schedule_that_is_well_says_so() {
    let good = schedule(
        "nightly",
        drilled(),
        json!({
            "conditions": [
                ready(),
                condition("Overdue", "False", "InTime", "", "2026-01-01T00:00:00Z"),
                condition("Failing", "False", "Succeeded", "", "2026-01-01T00:00:00Z"),
                condition("Verified", "True", "Succeeded", "", "2026-03-01T00:00:00Z"),
            ],
            "lastSuccessfulTime": "2026-03-04T02:10:00Z",
            "lastVerifiedTime": "2026-03-01T04:00:00Z",
            "nextScheduleTime": "2026-03-05T02:00:00Z",
            "backups": 7, "bytes": 7_000_000,
        }),
    );
    let fleet = Fleet::of(
        &Objects {
            schedules: vec![&good],
            ..Objects::default()
        },
        now(),
    );
    assert_eq!(fleet.attention, []);
    let row = &fleet.schedules[0];
    assert_eq!((row.state, row.verified), (ScheduleState::Good, Some(true)));
    assert_eq!((row.backups, row.bytes), (Some(7), Some(7_000_000)));
    assert_eq!(row.overdue_since, None);
    assert_eq!(row.next_run, "2026-03-05T02:00:00Z".parse().ok());
    assert_eq!(row.last_verified, "2026-03-01T04:00:00Z".parse().ok());
}

/// The table that a person would write: which status gives which word and which line.
#[test]
fn the_worst_that_is_true_is_the_state() {
    let overdue = |reason| condition("Overdue", "True", reason, "m", "2026-03-03T02:10:00Z");
    let failing = condition("Failing", "True", "NoAgent", "gone", "2026-03-02T02:00:00Z");
    let cases = [
        (
            json!({}),
            json!(null),
            ScheduleState::NotReady,
            vec![(Gravity::Critical, "NotTakenUp", "no controller")],
        ),
        (
            json!({}),
            json!({"conditions": [ready()]}),
            ScheduleState::New,
            vec![],
        ),
        (
            json!({}),
            json!({"conditions": [condition("Ready", "False", "InvalidSchedule", "timeZone: no such zone", "2026-03-03T00:00:00Z")]}),
            ScheduleState::NotReady,
            vec![(
                Gravity::Critical,
                "InvalidSchedule",
                "makes no backups: timeZone: no such zone",
            )],
        ),
        (
            json!({}),
            json!({"conditions": [ready(), overdue("NeverSucceeded")]}),
            ScheduleState::Overdue,
            vec![(
                Gravity::Critical,
                "NeverSucceeded",
                "no backup has ever succeeded",
            )],
        ),
        // One line tells both that it is late and why.
        (
            json!({}),
            json!({"conditions": [ready(), overdue("NoRecentSuccess"), failing], "lastSuccessfulTime": "2026-03-01T02:00:00Z", "consecutiveFailures": 3}),
            ScheduleState::Overdue,
            vec![(
                Gravity::Critical,
                "NoRecentSuccess",
                "last good backup 3d10h ago; the last job failed: NoAgent: gone",
            )],
        ),
        (
            json!({}),
            json!({"conditions": [ready(), failing], "lastSuccessfulTime": "2026-03-03T02:00:00Z", "consecutiveFailures": 2}),
            ScheduleState::Failing,
            vec![(Gravity::Warning, "NoAgent", "the last 2 jobs failed: gone")],
        ),
        (
            drilled(),
            json!({"conditions": [ready(), condition("Verified", "False", "CheckFailed", "nightly-1: no table", "2026-03-03T00:00:00Z")], "lastSuccessfulTime": "2026-03-04T02:00:00Z"}),
            ScheduleState::Unrestorable,
            vec![(
                Gravity::Critical,
                "CheckFailed",
                "a backup does not restore: nightly-1: no table",
            )],
        ),
        // Without drills an old verdict says nothing any more.
        (
            json!({}),
            json!({"conditions": [ready(), condition("Verified", "False", "CheckFailed", "m", "2026-03-03T00:00:00Z")], "lastSuccessfulTime": "2026-03-04T02:00:00Z"}),
            ScheduleState::Good,
            vec![],
        ),
        (
            json!({}),
            json!({"conditions": [ready(), condition("Retained", "False", "RetentionFailed", "s3:DeleteObject", "2026-03-03T00:00:00Z")], "lastSuccessfulTime": "2026-03-04T02:00:00Z"}),
            ScheduleState::Good,
            vec![(
                Gravity::Warning,
                "RetentionFailed",
                "old backups are not deleted: s3:DeleteObject",
            )],
        ),
        (
            json!({"suspend": true}),
            json!({"conditions": [condition("Ready", "True", "Suspended", "", "2026-03-03T00:00:00Z")], "lastSuccessfulTime": "2026-03-04T02:00:00Z"}),
            ScheduleState::Suspended,
            vec![(Gravity::Notice, "Suspended", "is suspended")],
        ),
    ];
    for (spec, status, state, lines) in cases {
        let schedule = schedule("nightly", spec, status.clone());
        let objects = Objects {
            schedules: vec![&schedule],
            ..Objects::default()
        };
        let fleet = Fleet::of(&objects, now());
        assert_eq!(fleet.schedules[0].state, state, "{status}");
        assert_eq!(fleet.attention.len(), lines.len(), "{:?}", fleet.attention);
        for (found, (gravity, reason, text)) in fleet.attention.iter().zip(lines) {
            assert_eq!((found.gravity, &*found.reason), (gravity, reason));
            assert!(found.text.starts_with(text), "{}", found.text);
        }
    }
}

#[test]
fn the_last_failure_is_the_newest_failed_jobs_own_words() {
    let failed = |name: &str, at: &str, message: &str| {
        job(
            name,
            Some("nightly"),
            json!({"phase": "Failed", "reason": "StoreError", "completionTime": at,
                "conditions": [condition("Failed", "True", "StoreError", message, at)]}),
        )
    };
    let older = failed("nightly-2", "2026-03-02T02:00:00Z", "old");
    let newer = failed("nightly-1", "2026-03-03T02:00:00Z", "quota");
    let status = json!({"conditions": [ready(), condition("Failing", "True", "StoreError", "nightly-1 failed: see", "2026-03-02T02:00:00Z")], "consecutiveFailures": 2});
    let nightly = schedule("nightly", json!({}), status);
    let fleet = Fleet::of(
        &Objects {
            schedules: vec![&nightly],
            jobs: vec![&newer, &older],
            ..Objects::default()
        },
        now(),
    );
    let failure = fleet.schedules[0].last_failure.clone().unwrap();
    assert_eq!(
        (failure.job.as_deref(), &*failure.message),
        (Some("nightly-1"), "quota")
    );
    // A job of a schedule is not told of twice.
    assert_eq!((fleet.jobs.len(), fleet.attention.len()), (0, 1));

    let fleet = Fleet::of(
        &Objects {
            schedules: vec![&nightly],
            ..Objects::default()
        },
        now(),
    );
    let failure = fleet.schedules[0].last_failure.clone().unwrap();
    assert_eq!(
        (failure.job, &*failure.message),
        (None, "nightly-1 failed: see")
    );
}

#[test]
fn what_runs_says_how_far_it_is() {
    let progress = |bytes: u64, all: Value, rate: Value| {
        job(
            "now",
            None,
            json!({"phase": "Running", "attempt": 2, "startTime": "2026-03-04T11:50:00Z",
                "conditions": [condition("Progressing", "True", "Running", "attempt 2 reads from db-0", "2026-03-04T11:50:00Z")],
                "progress": {"bytes": bytes, "estimatedBytes": all, "bytesPerSecond": rate, "lastProgressTime": "2026-03-04T11:59:59Z"}}),
        )
    };
    for (bytes, all, rate, percent, eta) in [
        (
            250,
            json!(1000),
            json!(50),
            Some(25),
            Some("2026-03-04T12:00:14Z"),
        ),
        // More than the agent guessed.
        (
            2000,
            json!(1000),
            json!(50),
            Some(99),
            Some("2026-03-04T11:59:59Z"),
        ),
        (250, json!(1000), json!(0), Some(25), None),
        (250, json!(null), json!(50), None, None),
        (250, json!(0), json!(null), None, None),
        (
            u64::MAX,
            json!(u64::MAX),
            json!(1),
            Some(99),
            Some("2026-03-04T11:59:59Z"),
        ),
        (0, json!(u64::MAX), json!(1), Some(0), None),
    ] {
        let job = progress(bytes, all, rate);
        let running = Running::of_job(&job).unwrap();
        assert_eq!(
            (running.percent, running.eta),
            (percent, eta.map(|t| t.parse().unwrap())),
            "{running:?}"
        );
        assert_eq!((running.phase, running.attempt), ("Running", 2));
    }
    let done = job("done", None, json!({"phase": "Succeeded"}));
    assert_eq!(Running::of_job(&done), None);
    assert_eq!(
        Running::of_job(&job("new", None, json!(null)))
            .unwrap()
            .phase,
        "Pending"
    );

    let restore: RestoreJob = object(
        "back",
        json!({"from": {"backupJobRef": {"name": "b"}}, "to": {"agent": {"url": "http://db"}}}),
        json!({"phase": "Running", "progress": {"stage": "Loading", "bytes": 50, "totalBytes": 100}}),
    );
    let running = Running::of_restore(&restore).unwrap();
    assert_eq!(
        (running.stage.as_deref(), running.percent),
        (Some("Loading"), Some(50))
    );
}

#[test]
fn jobs_restores_and_stores_have_their_lines_too() {
    let failed = |name: &str, at: &str| {
        job(
            name,
            None,
            json!({"phase": "Failed", "reason": "NoAgent", "completionTime": at,
                "conditions": [condition("Failed", "True", "NoAgent", "no pod", at)]}),
        )
    };
    let recent = failed("by-hand", "2026-03-04T11:00:00Z");
    let long_ago = failed("forgotten", "2026-02-04T11:00:00Z");
    let waits = job(
        "busy",
        None,
        json!({"phase": "Pending", "reason": "AgentBusy", "startTime": "2026-03-04T11:58:00Z",
            "conditions": [condition("Progressing", "True", "AgentBusy", "another backup runs", "2026-03-04T11:58:00Z")]}),
    );
    let mut record = job("record", None, json!({"phase": "Succeeded"}));
    record
        .metadata
        .labels
        .get_or_insert_default()
        .insert(LABEL_IMPORTED.into(), "true".into());
    let orphan = job("orphan", Some("gone"), json!({"phase": "Succeeded"}));

    let drill = |name: &str, reason: &str, at: &str| {
        let mut restore: RestoreJob = object(
            name,
            json!({"from": {"backupJobRef": {"name": "b"}}, "to": {"drill": {"image": "mariadb:10.11"}}}),
            json!({"phase": "Failed", "reason": reason, "completionTime": at, "conditions": [condition("Failed", "True", reason, "why", at)]}),
        );
        restore
            .metadata
            .labels
            .get_or_insert_default()
            .insert(LABEL_SCHEDULE.into(), "nightly".into());
        restore
    };
    let superseded = drill("drill-1", "PodFailed", "2026-03-04T10:00:00Z");
    let newest = drill("drill-2", "NoSpace", "2026-03-04T11:30:00Z");
    let store: BackupStore = object(
        "offsite",
        json!({"file": {"path": "a"}}),
        json!({"conditions": [condition("Ready", "False", "Unreachable", "no route", "2026-03-04T09:00:00Z")]}),
    );
    let new_store: BackupStore = object("new", json!({"file": {"path": "a"}}), json!(null));
    let fleet = Fleet::of(
        &Objects {
            jobs: vec![&recent, &long_ago, &waits, &record, &orphan],
            restores: vec![&superseded, &newest],
            stores: vec![&store, &new_store],
            malformed: vec![Malformed {
                kind: "BackupJob",
                namespace: "shop".into(),
                name: "odd".into(),
                error: "spec.method".into(),
            }],
            ..Objects::default()
        },
        now(),
    );
    let names: Vec<_> = fleet.jobs.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["busy", "by-hand", "forgotten", "orphan"]);
    let lines: Vec<_> = fleet
        .attention
        .iter()
        .map(|a| (a.gravity.as_str(), a.name.as_str(), a.reason.as_str()))
        .collect();
    assert_eq!(
        lines,
        [
            ("Critical", "offsite", "Unreachable"),
            ("Critical", "odd", "InvalidSpec"),
            ("Warning", "by-hand", "NoAgent"),
            ("Warning", "drill-2", "NoSpace"),
            ("Notice", "busy", "AgentBusy"),
        ]
    );
    assert_eq!(fleet.stores[0].ready, None);
    assert_eq!(fleet.stores[1].ready, Some(false));
}

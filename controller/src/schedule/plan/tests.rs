use super::*;

fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn spec(extra: serde_json::Value) -> BackupScheduleSpec {
    let mut spec = serde_json::json!({
        "schedule": "0 2 * * *",
        "jobTemplate": {"spec": {"source": {"podSelector": {"matchLabels": {"app": "db"}}}, "storeRef": {"name": "main"}}},
    });
    spec.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn job(name: &str, phase: Phase, completion: Option<&str>) -> OwnedJob {
    OwnedJob {
        name: name.into(),
        uid: format!("uid-{name}"),
        phase,
        reason: (phase == Phase::Failed).then_some(FailureReason::StreamError),
        completion: completion.map(t),
        due: due_of("nightly", name),
        cancelled: false,
    }
}

struct Case {
    spec: BackupScheduleSpec,
    status: BackupScheduleStatus,
    jobs: Vec<OwnedJob>,
    now: Timestamp,
}

impl Case {
    fn new(last: Option<&str>, now: &str) -> Self {
        let status = BackupScheduleStatus {
            last_schedule_time: last.map(|l| Time(t(l))),
            ..Default::default()
        };
        Self {
            spec: spec(serde_json::json!({})),
            status,
            jobs: Vec::new(),
            now: t(now),
        }
    }

    fn with(mut self, extra: serde_json::Value) -> Self {
        self.spec = spec(extra);
        self
    }

    fn job(mut self, job: OwnedJob, was_active: bool) -> Self {
        if was_active {
            self.status.active.push(ActiveJob {
                name: job.name.clone(),
                uid: job.uid.clone(),
            });
        }
        self.jobs.push(job);
        self
    }

    fn plan(&self) -> Plan {
        plan(&Observed {
            spec: &self.spec,
            status: &self.status,
            uid: "uid",
            generation: Some(1),
            created: t("2025-01-01T00:00:00Z"),
            jobs: &self.jobs,
            now: self.now,
        })
    }
}

fn reason<'a>(plan: &'a Plan, type_: &str) -> Option<&'a str> {
    conditions::get(&plan.status.conditions, type_).map(|c| c.reason.as_str())
}

#[test]
fn a_run_starts_when_it_is_due_and_once() {
    let suspended = serde_json::json!({"suspend": true});
    let deadline = serde_json::json!({"startingDeadlineSeconds": 600});
    for (what, case, create, why) in [
        (
            "not due",
            Case::new(None, "2025-01-01T01:59:59Z"),
            None,
            "Scheduled",
        ),
        (
            "due",
            Case::new(None, "2025-01-01T02:00:00Z"),
            Some("2025-01-01T02:00:00Z"),
            "Scheduled",
        ),
        (
            "ran already",
            Case::new(Some("2025-01-01T02:00:00Z"), "2025-01-01T02:00:00Z"),
            None,
            "Scheduled",
        ),
        (
            "down for days: one run",
            Case::new(Some("2025-01-01T02:00:00Z"), "2025-01-05T12:00:00Z"),
            Some("2025-01-05T02:00:00Z"),
            "Scheduled",
        ),
        (
            "suspended",
            Case::new(None, "2025-01-01T02:00:00Z").with(suspended),
            None,
            "Suspended",
        ),
        (
            "within the deadline",
            Case::new(None, "2025-01-01T02:10:00Z").with(deadline.clone()),
            Some("2025-01-01T02:00:00Z"),
            "Scheduled",
        ),
        (
            "after the deadline",
            Case::new(None, "2025-01-01T02:10:01Z").with(deadline),
            None,
            "Scheduled",
        ),
        (
            "the one before still runs",
            Case::new(Some("2025-01-01T02:00:00Z"), "2025-01-02T02:00:00Z")
                .job(job("a", Phase::Running, None), true),
            None,
            "WaitingForJob",
        ),
        (
            "the one before has ended: made up for",
            Case::new(Some("2025-01-01T02:00:00Z"), "2025-01-02T03:00:00Z").job(
                job("a", Phase::Succeeded, Some("2025-01-02T03:00:00Z")),
                true,
            ),
            Some("2025-01-02T02:00:00Z"),
            "Scheduled",
        ),
        (
            "never comes due",
            Case::new(None, "2025-01-01T02:00:00Z")
                .with(serde_json::json!({"schedule": "0 2 30 2 *"})),
            None,
            "InvalidSchedule",
        ),
    ] {
        let plan = case.plan();
        assert_eq!(plan.create.map(|due| due.time), create.map(t), "{what}");
        assert_eq!(reason(&plan, READY), Some(why), "{what}");
    }
}

#[test]
fn the_next_time_is_known_and_woken_for() {
    let plan = Case::new(None, "2025-01-01T02:00:00Z").plan();
    assert_eq!(plan.wake, Some(t("2025-01-02T02:00:00Z")));
    assert_eq!(
        plan.status.next_schedule_time,
        Some(Time(t("2025-01-02T02:00:00Z")))
    );
    let plan = Case::new(None, "2025-01-01T02:00:00Z")
        .with(serde_json::json!({"suspend": true}))
        .plan();
    assert_eq!((plan.wake, plan.status.next_schedule_time), (None, None));
}

#[test]
fn what_ended_is_counted_once() {
    let mut case = Case::new(Some("2025-01-01T02:00:00Z"), "2025-01-01T03:00:00Z")
        .job(job("a", Phase::Failed, Some("2025-01-01T02:30:00Z")), true);
    let plan = case.plan();
    assert_eq!(plan.status.consecutive_failures, 1);
    assert_eq!(reason(&plan, FAILING), Some("StreamError"));

    case.status = plan.status;
    let again = case.plan();
    assert_eq!(
        again.status.consecutive_failures, 1,
        "it is no longer active"
    );

    case.status.active.push(ActiveJob {
        name: "b".into(),
        uid: "uid-b".into(),
    });
    case.jobs
        .push(job("b", Phase::Cancelled, Some("2025-01-01T02:40:00Z")));
    let cancelled = case.plan();
    assert_eq!(
        cancelled.status.consecutive_failures, 1,
        "a cancelled job is no failure"
    );

    case.jobs[1].phase = Phase::Succeeded;
    let succeeded = case.plan();
    assert_eq!(succeeded.status.consecutive_failures, 0);
    assert_eq!(
        succeeded.status.last_successful_time,
        Some(Time(t("2025-01-01T02:40:00Z")))
    );
    assert_eq!(reason(&succeeded, FAILING), Some("Succeeded"));
}

#[test]
fn the_last_success_outlives_its_job() {
    let mut case = Case::new(None, "2025-01-01T01:00:00Z");
    case.status.last_successful_time = Some(Time(t("2024-12-31T02:10:00Z")));
    assert_eq!(
        case.plan().status.last_successful_time,
        Some(Time(t("2024-12-31T02:10:00Z")))
    );
}

#[test]
fn history_keeps_the_newest_of_each_kind() {
    let mut case = Case::new(None, "2025-01-01T01:00:00Z")
        .with(serde_json::json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 2}));
    for (name, phase, end) in [
        ("s1", Phase::Succeeded, Some("2025-01-01T00:01:00Z")),
        ("s2", Phase::Succeeded, Some("2025-01-01T00:02:00Z")),
        ("f1", Phase::Failed, Some("2025-01-01T00:03:00Z")),
        ("c1", Phase::Cancelled, Some("2025-01-01T00:04:00Z")),
        ("f2", Phase::Failed, Some("2025-01-01T00:05:00Z")),
        ("r1", Phase::Running, None),
    ] {
        case.jobs.push(job(name, phase, end));
    }
    let names: Vec<_> = case
        .plan()
        .delete
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["s1", "f1"]);
}

#[test]
fn what_happens_while_the_one_before_runs() {
    let at = |policy: &str| {
        Case::new(Some("2025-01-01T02:00:00Z"), "2025-01-02T02:00:00Z")
            .with(serde_json::json!({"concurrencyPolicy": policy}))
            .job(job("a", Phase::Running, None), true)
    };
    for (policy, creates, cancels, why) in [
        ("Forbid", false, false, "WaitingForJob"),
        ("Allow", true, false, "Scheduled"),
        ("Replace", false, true, "WaitingForJob"),
    ] {
        let plan = at(policy).plan();
        assert_eq!(plan.create.is_some(), creates, "{policy}");
        let cancelled: Vec<_> = plan.cancel.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(cancelled == ["a"], cancels, "{policy}");
        assert_eq!(reason(&plan, READY), Some(why), "{policy}");
    }
    let mut told = at("Replace");
    told.jobs[0].cancelled = true;
    let plan = told.plan();
    assert_eq!(
        (plan.create, plan.cancel.len()),
        (None, 0),
        "once is enough"
    );
    told.jobs[0].phase = Phase::Cancelled;
    assert!(told.plan().create.is_some(), "it has made room");
    let mut early = at("Replace");
    early.now = t("2025-01-02T01:59:59Z");
    assert!(early.plan().cancel.is_empty(), "nothing is due");
}

#[test]
fn a_job_that_no_status_tells_of_is_not_made_again() {
    // Whoever created it died before it wrote so.
    let due = t("2025-01-02T02:00:00Z");
    for policy in ["Forbid", "Allow", "Replace"] {
        for phase in [Phase::Running, Phase::Failed] {
            let end = phase.is_final().then_some("2025-01-02T02:01:00Z");
            let case = Case::new(Some("2025-01-01T02:00:00Z"), "2025-01-02T02:02:00Z")
                .with(serde_json::json!({"concurrencyPolicy": policy}))
                .job(job(&job_name("nightly", due), phase, end), false);
            let plan = case.plan();
            let what = format!("{policy} {phase:?}");
            assert_eq!((plan.create, plan.cancel.len()), (None, 0), "{what}");
            assert_eq!(plan.status.last_schedule_time, Some(Time(due)), "{what}");
            let failures = u32::from(phase == Phase::Failed);
            assert_eq!(plan.status.consecutive_failures, failures, "{what}");
        }
    }
}

#[test]
fn names_are_the_minute() {
    assert_eq!(
        job_name("nightly", t("2025-01-01T02:00:00Z")),
        "nightly-28928280"
    );
    assert!(job_name(&"s".repeat(52), t("2500-01-01T00:00:00Z")).len() <= 63);
    assert_eq!(
        due_of("nightly", "nightly-28928280"),
        Some(t("2025-01-01T02:00:00Z"))
    );
    for other in [
        "nightly",
        "nightly-",
        "nightly-x",
        "nightly-028928280",
        "nightly-1-28928280",
        "hourly-28928280",
        "nightly-99999999999999999",
    ] {
        assert_eq!(due_of("nightly", other), None, "{other}");
    }
}

#[test]
fn it_is_overdue_when_two_intervals_brought_no_backup() {
    let success = |at: &str| {
        let mut case = Case::new(Some("2025-01-02T02:00:00Z"), "2025-01-02T03:00:00Z");
        case.status.last_successful_time = Some(Time(t(at)));
        case
    };
    let at = |mut case: Case, now: &str| {
        case.now = t(now);
        case
    };
    let never = || Case::new(None, "2025-01-01T00:00:00Z");
    for (what, case, status, why) in [
        ("new", never(), "False", "InTime"),
        (
            "one run failed",
            at(never(), "2025-01-01T23:00:00Z"),
            "False",
            "InTime",
        ),
        // It was created two hours before the first run, ten minutes may make no difference.
        (
            "two runs failed",
            at(never(), "2025-01-03T02:00:00Z"),
            "True",
            "NeverSucceeded",
        ),
        ("good", success("2025-01-02T02:10:00Z"), "False", "InTime"),
        (
            "one missing",
            at(success("2025-01-02T02:10:00Z"), "2025-01-04T02:09:00Z"),
            "False",
            "InTime",
        ),
        (
            "two missing",
            at(success("2025-01-02T02:10:00Z"), "2025-01-04T02:10:00Z"),
            "True",
            "NoRecentSuccess",
        ),
        (
            "suspended",
            at(success("2025-01-02T02:10:00Z"), "2025-02-04T02:10:00Z")
                .with(serde_json::json!({"suspend": true})),
            "False",
            "Suspended",
        ),
        (
            "not understood",
            success("2025-01-02T02:10:00Z").with(serde_json::json!({"schedule": "0 0 31 2 *"})),
            "Unknown",
            "InvalidSchedule",
        ),
    ] {
        let plan = case.plan();
        let overdue = conditions::get(&plan.status.conditions, OVERDUE).unwrap();
        assert_eq!(
            (overdue.status.as_str(), overdue.reason.as_str()),
            (status, why),
            "{what}: {}",
            overdue.message
        );
    }
    // It wakes by itself to say so, even when the next run lies beyond.
    let plan = success("2025-01-02T02:10:00Z").plan();
    assert_eq!(plan.wake, Some(t("2025-01-03T02:00:00Z")));
    let late = at(success("2025-01-02T02:10:00Z"), "2025-01-04T02:05:00Z")
        .job(job("nightly-28932600", Phase::Running, None), true);
    assert_eq!(late.plan().wake, Some(t("2025-01-04T02:10:00Z")));
}

/// The clock was a year ahead for a while, and a run was made then.
#[test]
fn a_clock_that_was_far_ahead_does_not_silence_the_schedule() {
    let ahead = "2026-01-05T02:00:00Z";
    let future = job(
        &job_name("nightly", t(ahead)),
        Phase::Succeeded,
        Some(ahead),
    );
    let case = Case::new(Some(ahead), "2025-01-05T12:00:00Z").job(future, false);
    let plan = case.plan();
    assert_eq!(
        plan.create.map(|due| due.time),
        Some(t("2025-01-05T02:00:00Z"))
    );
    assert_eq!(plan.wake, Some(t("2025-01-06T02:00:00Z")));
    let mut after = case;
    after.status = plan.status;
    record_created(
        &mut after.status,
        t("2025-01-05T02:00:00Z"),
        ActiveJob {
            name: "nightly-x".into(),
            uid: "x".into(),
        },
    );
    after.jobs.push(job(
        "nightly-x",
        Phase::Succeeded,
        Some("2025-01-05T12:10:00Z"),
    ));
    let plan = after.plan();
    assert_eq!(plan.create, None, "it ran");
    assert_eq!(plan.wake, Some(t("2025-01-06T02:00:00Z")));

    // Set back by less, what ran does not run again.
    let hour = Case::new(Some("2025-01-05T02:00:00Z"), "2025-01-05T01:00:00Z").plan();
    assert_eq!(
        (hour.create, hour.wake),
        (None, Some(t("2025-01-06T02:00:00Z")))
    );
}

#[test]
fn a_schedule_that_is_resumed_makes_up_for_one_run() {
    let mut case = Case::new(Some("2025-01-01T02:00:00Z"), "2025-01-09T12:00:00Z")
        .with(serde_json::json!({"suspend": true}));
    case.status = case.plan().status;
    let mut resumed = Case::new(None, "2025-01-09T12:00:00Z");
    resumed.status = case.status.clone();
    let plan = resumed.plan();
    assert_eq!(
        plan.create.map(|due| due.time),
        Some(t("2025-01-09T02:00:00Z"))
    );
    // Unless that is too late by its own deadline, as with a CronJob.
    let late = resumed.with(serde_json::json!({"startingDeadlineSeconds": 600}));
    assert_eq!(late.plan().create, None);
}

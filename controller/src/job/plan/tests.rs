use super::*;
use crate::{
    api::conditions::Status,
    job::record::{Next, Record},
    reason::Retry,
    transfer::Failure,
};

fn t(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn spec(extra: serde_json::Value) -> BackupJobSpec {
    let mut spec = serde_json::json!({"source": {"podSelector": {"matchLabels": {"app": "db"}}}, "storeRef": {"name": "main"}});
    spec.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn failure(reason: FailureReason, retry: Retry) -> Failure {
    Failure {
        reason,
        message: "m".into(),
        retry,
        retry_after: None,
        bytes: 7,
        complete_tried: false,
    }
}

/// A story: what happened so far, told by the same functions that the controller uses.
struct Story {
    spec: BackupJobSpec,
    status: BackupJobStatus,
}

impl Story {
    fn new(extra: serde_json::Value) -> Self {
        Self {
            spec: spec(extra),
            status: BackupJobStatus::default(),
        }
    }

    fn record(&mut self, second: i64) -> Record<'_> {
        Record {
            spec: &self.spec,
            uid: "job",
            generation: Some(1),
            status: &mut self.status,
            now: t(second),
        }
    }

    fn taken_up(mut self) -> Self {
        self.record(0).take_up();
        self
    }

    fn claimed(mut self, second: i64) -> Self {
        self.record(second)
            .claim("http://10.0.0.1:8474", Some("db-0"), None);
        self
    }

    fn failed(mut self, second: i64, reason: FailureReason, retry: Retry) -> Self {
        let _: Next = self.record(second).fail(&failure(reason, retry));
        self
    }

    fn concluded(mut self, second: i64, reason: FailureReason) -> Self {
        self.record(second).conclude(reason, "m");
        self
    }

    fn step(&self, local: Local, second: i64) -> Step {
        plan(&Observed {
            spec: &self.spec,
            status: &self.status,
            local,
            now: t(second),
        })
    }
}

#[test]
fn each_state_has_its_next_step() {
    use FailureReason as R;
    let none = || serde_json::json!({});
    let cancel = || serde_json::json!({"cancel": true});
    let deadline = || serde_json::json!({"activeDeadlineSeconds": 100});
    let ttl = || serde_json::json!({"ttlSecondsAfterFinished": 60});
    let running = |extra| Story::new(extra).taken_up().claimed(1);
    for (what, story, local, second, step) in [
        ("new", Story::new(none()), Local::None, 0, Step::TakeUp),
        (
            "taken up",
            Story::new(none()).taken_up(),
            Local::None,
            0,
            Step::Start,
        ),
        (
            "it runs here",
            running(none()),
            Local::Running,
            2,
            Step::Report,
        ),
        (
            "it ended here",
            running(none()),
            Local::Ended,
            2,
            Step::Record,
        ),
        (
            "claimed by a process that is gone",
            running(none()),
            Local::None,
            2,
            Step::Recover,
        ),
        (
            "the same, cancelled: first find out",
            running(cancel()),
            Local::None,
            2,
            Step::Recover,
        ),
        (
            "cancelled while it runs",
            running(cancel()),
            Local::Running,
            2,
            Step::Stop(R::Cancelled),
        ),
        (
            "cancelled, but it has ended",
            running(cancel()),
            Local::Ended,
            2,
            Step::Record,
        ),
        (
            "too late while it runs",
            running(deadline()),
            Local::Running,
            100,
            Step::Stop(R::DeadlineExceeded),
        ),
        (
            "not yet too late",
            running(deadline()),
            Local::Running,
            99,
            Step::Report,
        ),
        (
            "its time has come",
            running(none()).failed(5, R::StreamError, Retry::Counted),
            Local::None,
            18,
            Step::Start,
        ),
        (
            "it waits no longer than the deadline",
            running(deadline()).failed(95, R::StreamError, Retry::Counted),
            Local::None,
            96,
            Step::Wait(t(100)),
        ),
        (
            "ended",
            Story::new(none()).taken_up().concluded(9, R::NoAgent),
            Local::None,
            1_000_000,
            Step::Rest,
        ),
        (
            "ended, to be deleted",
            Story::new(ttl()).taken_up().concluded(9, R::NoAgent),
            Local::None,
            10,
            Step::Wait(t(69)),
        ),
        (
            "ended, now",
            Story::new(ttl()).taken_up().concluded(9, R::NoAgent),
            Local::None,
            69,
            Step::Delete,
        ),
        (
            "ended by another, yet it runs here",
            running(none()).concluded(9, R::NoAgent),
            Local::Running,
            10,
            Step::Stop(R::Cancelled),
        ),
    ] {
        assert_eq!(story.step(local, second), step, "{what}");
    }
}

#[test]
fn it_concludes_when_it_gives_up_is_cancelled_or_too_late() {
    use FailureReason as R;
    for (what, story, second, reason) in [
        (
            "never again",
            Story::new(serde_json::json!({}))
                .taken_up()
                .claimed(1)
                .failed(2, R::AgentRefused, Retry::Never),
            3,
            R::AgentRefused,
        ),
        (
            "no attempts left",
            Story::new(serde_json::json!({"backoffLimit": 0}))
                .taken_up()
                .claimed(1)
                .failed(2, R::StreamTruncated, Retry::Counted),
            3,
            R::StreamTruncated,
        ),
        (
            "cancelled while waiting",
            Story::new(serde_json::json!({"cancel": true})).taken_up(),
            1,
            R::Cancelled,
        ),
        (
            "too late, waiting included",
            Story::new(serde_json::json!({"activeDeadlineSeconds": 10})).taken_up(),
            10,
            R::DeadlineExceeded,
        ),
    ] {
        match story.step(Local::None, second) {
            Step::Conclude {
                reason: got,
                message,
            } => {
                assert_eq!(got, reason, "{what}");
                assert!(!message.is_empty(), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_job_that_failed_is_never_complete() {
    let story = Story::new(serde_json::json!({}))
        .taken_up()
        .claimed(1)
        .concluded(2, FailureReason::StreamError);
    let of = |type_| {
        conditions::get(&story.status.conditions, type_)
            .map(|c| (c.status.as_str(), c.reason.as_str()))
    };
    assert_eq!(of("Failed"), Some((Status::True.as_str(), "StreamError")));
    assert_eq!(
        of("Complete"),
        Some((Status::False.as_str(), "StreamError"))
    );
    assert_eq!(
        of("Progressing"),
        Some((Status::False.as_str(), "StreamError"))
    );
    assert_eq!(story.status.phase, Phase::Failed);
    let cancelled = Story::new(serde_json::json!({}))
        .taken_up()
        .concluded(2, FailureReason::Cancelled);
    assert_eq!(cancelled.status.phase, Phase::Cancelled);
    assert!(conditions::is_true(&cancelled.status.conditions, "Failed"));
}

#[test]
fn a_store_that_does_not_answer_is_asked_again_after_a_pause() {
    let mut orphan = Story::new(serde_json::json!({})).taken_up().claimed(1);
    orphan.record(2).undecided("no answer");
    assert_eq!(orphan.step(Local::None, 3), Step::Wait(t(17)));
    assert_eq!(orphan.step(Local::None, 17), Step::Recover);

    let mut held = Story::new(serde_json::json!({"cancel": true})).taken_up();
    held.record(2)
        .hold(FailureReason::Cancelled, "m", "no answer");
    assert_eq!(held.step(Local::None, 3), Step::Wait(t(17)));
    let conclude = Step::Conclude {
        reason: FailureReason::Cancelled,
        message: "m".into(),
    };
    assert_eq!(held.step(Local::None, 17), conclude);
}

#[test]
fn it_waits_for_the_next_attempt() {
    let story = Story::new(serde_json::json!({}))
        .taken_up()
        .claimed(1)
        .failed(5, FailureReason::StreamError, Retry::Counted);
    let at = story.status.retry_time.as_ref().unwrap().0;
    assert!(at >= t(15) && at < t(18), "{at}");
    assert_eq!(story.step(Local::None, 6), Step::Wait(at));
}

/// A transfer that takes the controller down with it each time: the process dies after the claim and
/// whatever progress it wrote, and its successor can say nothing but Interrupted.
fn crashes_until_it_fails(extra: serde_json::Value, written: impl Fn(u32) -> Option<u64>) -> u32 {
    let mut story = Story::new(extra).taken_up();
    let mut second = 0;
    for crashes in 0..100 {
        loop {
            match story.step(Local::None, second) {
                Step::Start => break,
                Step::Wait(at) => second = at.as_second() - t(0).as_second() + 1,
                Step::Conclude { reason, .. } => {
                    assert_eq!(reason, FailureReason::Interrupted);
                    return crashes;
                }
                other => panic!("{other:?}"),
            }
        }
        story
            .record(second)
            .claim("http://10.0.0.1:8474", Some("db-0"), None);
        if let Some(bytes) = written(crashes) {
            let progress = crate::transfer::Progress {
                bytes,
                ..crate::transfer::Progress::default()
            };
            story.record(second).report(&progress, None);
        }
        assert_eq!(story.step(Local::None, second), Step::Recover);
        let lost = Failure {
            bytes: 0,
            ..failure(FailureReason::Interrupted, Retry::NotCounted)
        };
        let _: Next = story.record(second).fail(&lost);
    }
    panic!("it goes on for ever: {:?}", story.status);
}

#[test]
fn a_transfer_that_kills_the_controller_ends_in_failed() {
    let limit = |backoff| serde_json::json!({"backoffLimit": backoff});
    for (what, extra, written, crashes) in [
        ("before a byte is written", limit(0), [None, None, None], 5),
        ("with some to spare", limit(3), [None, None, None], 8),
        (
            "at the same place",
            limit(0),
            [Some(7), Some(7), Some(7)],
            5,
        ),
        // The farthest of them is the first to be no further than one before.
        (
            "now here, now there",
            limit(0),
            [Some(3), Some(9), Some(5)],
            6,
        ),
        ("early, then late once", limit(0), [None, None, Some(9)], 7),
    ] {
        let written = |crash: u32| written[crash as usize % 3];
        assert_eq!(crashes_until_it_fails(extra, written), crashes, "{what}");
    }
}

#[test]
fn a_record_is_read_and_never_run() {
    let import =
        serde_json::json!({"storeRef": {"name": "main"}, "key": "ns/nightly/20260102T030405Z-u"});
    let record = |extra: serde_json::Value| {
        let mut spec =
            serde_json::json!({"source": null, "storeRef": null, "import": import.clone()});
        spec.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        Story::new(spec).taken_up()
    };
    let import: Import = serde_json::from_value(import.clone()).unwrap();
    let mut story = record(serde_json::json!({"ttlSecondsAfterFinished": 60}));
    assert_eq!(story.spec.store_name(), "main");
    assert_eq!(story.step(Local::None, 1), Step::Import(import.clone()));
    story.record(1).undecided("m");
    assert_eq!(story.step(Local::None, 2), Step::Wait(t(16)));
    assert_eq!(story.step(Local::None, 16), Step::Import(import));
    let manifest = serde_json::from_value(serde_json::json!({
        "formatVersion": 1, "outcome": "Complete", "clusterId": "c", "namespace": "ns", "jobName": "nightly-1",
        "jobUid": "u", "created": t(-600), "attempt": 2, "startTime": t(-500), "time": t(-400), "method": "logical",
        "objects": [{"key": "ns/nightly/20260102T030405Z-u/2/backup.tar.zst", "bytes": 2048}], "bytes": 2048,
    }))
    .unwrap();
    story.record(16).import(
        &manifest,
        "ns/nightly/20260102T030405Z-u/manifest.json".into(),
    );
    let status = &story.status;
    assert_eq!(status.phase, Phase::Succeeded);
    assert_eq!(
        status.completion_time.as_ref().unwrap().0,
        t(-400),
        "the backup's, not the record's"
    );
    assert_eq!(
        (
            status.size.as_deref(),
            status.duration.as_deref(),
            status.method.as_deref(),
            status.attempt
        ),
        (Some("2.00KiB"), Some("1m40s"), Some("logical"), 0)
    );
    assert_eq!(
        conditions::get(&status.conditions, "Complete")
            .unwrap()
            .reason,
        "Imported"
    );
    assert_eq!(
        story.step(Local::None, 17),
        Step::Delete,
        "its time to live counts from the backup's end"
    );
    let cancelled = record(serde_json::json!({"cancel": true})).step(Local::None, 1);
    assert!(
        matches!(
            cancelled,
            Step::Conclude {
                reason: FailureReason::Cancelled,
                ..
            }
        ),
        "{cancelled:?}"
    );
}

use super::*;

fn t(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn spec() -> BackupJobSpec {
    serde_json::from_value(
        serde_json::json!({"source": {"url": "http://db:8474"}, "storeRef": {"name": "main"}}),
    )
    .unwrap()
}

fn failure(reason: FailureReason, retry: Retry, bytes: u64) -> transfer::Failure {
    transfer::Failure {
        reason,
        message: "m".into(),
        retry,
        retry_after: None,
        bytes,
        complete_tried: false,
    }
}

/// One attempt after the other, each failing at once; answers what followed from the last.
fn attempts(status: &mut BackupJobStatus, failures: &[transfer::Failure]) -> Next {
    let spec = spec();
    let mut next = Next::GiveUp;
    for failure in failures {
        let mut record = Record {
            spec: &spec,
            uid: "job",
            generation: None,
            status,
            now: t(0),
        };
        record.claim("http://db:8474", None, None);
        next = record.fail(failure);
    }
    next
}

#[test]
fn attempts_back_off_and_run_out() {
    use FailureReason as R;
    let counted = |n| vec![failure(R::StreamTruncated, Retry::Counted, 0); n];
    let interrupted = |n| vec![failure(R::Interrupted, Retry::NotCounted, 0); n];
    let growing = |n: u64| {
        (1..=n)
            .map(|i| failure(R::Interrupted, Retry::NotCounted, i))
            .collect::<Vec<_>>()
    };
    let busy = |after: Option<u64>| transfer::Failure {
        retry_after: after.map(std::time::Duration::from_secs),
        ..failure(R::AgentBusy, Retry::NotCounted, 0)
    };
    let busy_between = [interrupted(2), vec![busy(None)], interrupted(2)].concat();
    for (what, failures, next, counted_failures) in [
        ("first", counted(1), Next::Retry(t(10)), 1),
        ("second", counted(2), Next::Retry(t(20)), 2),
        ("third", counted(3), Next::Retry(t(40)), 3),
        ("fourth: backoffLimit is 3", counted(4), Next::GiveUp, 4),
        (
            "never",
            vec![failure(R::AgentRefused, Retry::Never, 0)],
            Next::GiveUp,
            1,
        ),
        ("interrupted: at once", interrupted(1), Next::Retry(t(0)), 0),
        ("interrupted again", interrupted(2), Next::Retry(t(10)), 0),
        ("four in a row", interrupted(4), Next::Retry(t(40)), 0),
        ("five in a row count", interrupted(5), Next::Retry(t(80)), 1),
        ("eight in a row: given up", interrupted(8), Next::GiveUp, 4),
        ("each got further", growing(9), Next::Retry(t(0)), 0),
        (
            "a busy agent in between",
            busy_between,
            Next::Retry(t(40)),
            0,
        ),
        ("busy", vec![busy(None)], Next::Retry(t(30)), 0),
        (
            "busy, as it asked",
            vec![busy(Some(7))],
            Next::Retry(t(7)),
            0,
        ),
        (
            "busy, asking too much",
            vec![busy(Some(100_000))],
            Next::Retry(t(360)),
            0,
        ),
        (
            "busy for ever does not count",
            vec![busy(Some(0)); 50],
            Next::Retry(t(1)),
            0,
        ),
    ] {
        let mut status = BackupJobStatus::default();
        let got = attempts(&mut status, &failures);
        // Up to a quarter more than the table says.
        match (got, next) {
            (Next::Retry(at), Next::Retry(base)) => {
                let most = base.duration_since(t(0)) * 5 / 4;
                assert!(
                    at >= base && at.duration_since(t(0)) <= most,
                    "{what}: {at}"
                );
            }
            (got, next) => assert_eq!(got, next, "{what}"),
        }
        assert_eq!(status.failures, counted_failures, "{what}");
        assert_eq!(status.attempt as usize, failures.len(), "{what}");
        assert!(status.attempts.len() <= 10, "{what}");
    }
}

#[test]
fn a_claim_opens_the_next_attempt() {
    let mut status = BackupJobStatus::default();
    let spec = spec();
    let mut record = Record {
        spec: &spec,
        uid: "job",
        generation: None,
        status: &mut status,
        now: t(3),
    };
    assert_eq!(record.claim("http://10.0.0.1:8474", Some("db-0"), None), 1);
    assert_eq!(status.phase, Phase::Running);
    assert_eq!(status.source.as_ref().unwrap().pod.as_deref(), Some("db-0"));
    let attempt = status.attempts.last().unwrap();
    assert_eq!(
        (attempt.number, attempt.end.clone(), attempt.start.clone()),
        (1, None, Time(t(3)))
    );
}

#[test]
fn whether_a_complete_was_tried_is_not_forgotten() {
    let tried = transfer::Failure {
        complete_tried: true,
        ..failure(FailureReason::StoreError, Retry::Counted, 0)
    };
    let mut status = BackupJobStatus::default();
    attempts(
        &mut status,
        &[tried, failure(FailureReason::StoreError, Retry::Counted, 0)],
    );
    assert!(status.complete_tried);
}

#[test]
fn sizes_and_durations_are_for_people() {
    for (bytes, text) in [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.00KiB"),
        (10 * 1024, "10.0KiB"),
        (1024 * 1024 - 1, "1.00MiB"),
        (2_147_483_648, "2.00GiB"),
        (123 << 30, "123GiB"),
        (u64::MAX, "16.0EiB"),
    ] {
        assert_eq!(human_bytes(bytes), text);
    }
    for (seconds, text) in [
        (-3, "0s"),
        (59, "59s"),
        (61, "1m1s"),
        (3700, "1h1m"),
        (90_000, "1d1h"),
    ] {
        assert_eq!(human_duration(SignedDuration::from_secs(seconds)), text);
    }
}

#[test]
fn a_job_that_fails_is_not_failed_before_the_store_is_in_order() {
    let mut status = BackupJobStatus::default();
    let spec = spec();
    let mut record = Record {
        spec: &spec,
        uid: "job",
        generation: None,
        status: &mut status,
        now: t(3),
    };
    record.take_up();
    record.hold(FailureReason::StoreError, "the store is down", "no answer");
    let of = |status: &BackupJobStatus, type_| conditions::is_true(&status.conditions, type_);
    assert!(of(&status, FAILURE_TARGET) && !of(&status, FAILED) && !status.phase.is_final());
    let mut record = Record {
        spec: &spec,
        uid: "job",
        generation: None,
        status: &mut status,
        now: t(4),
    };
    record.conclude(FailureReason::StoreError, "the store is down");
    assert!(!of(&status, FAILURE_TARGET) && of(&status, FAILED) && status.phase.is_final());
}

#[test]
fn what_failed_together_is_tried_again_apart() {
    let spec = spec();
    let after = |uid: &str, failures: u32| {
        let mut status = BackupJobStatus {
            failures,
            ..BackupJobStatus::default()
        };
        let spec = BackupJobSpec {
            backoff_limit: 100,
            ..spec.clone()
        };
        let mut record = Record {
            spec: &spec,
            uid,
            generation: None,
            status: &mut status,
            now: t(0),
        };
        record.claim("http://db:8474", None, None);
        match record.fail(&failure(FailureReason::StoreError, Retry::Counted, 0)) {
            Next::Retry(at) => at.duration_since(t(0)),
            Next::GiveUp => panic!("it gave up"),
        }
    };
    assert_ne!(after("a", 0), after("b", 0));
    assert_eq!(after("a", 0), after("a", 0));
    for failures in 0..60 {
        let delay = after("a", failures);
        assert!(delay >= FIRST_DELAY && delay <= LONGEST_DELAY, "{delay}");
    }
}

#[test]
fn progress_is_told_for_people_too() {
    for (rate, estimate, told) in [
        (85 << 20, Some(2 << 30), "85.0MiB/s of <2.00GiB"),
        (0, Some(1 << 20), "0B/s of <1.00MiB"),
        (1 << 10, None, "1.00KiB/s"),
    ] {
        assert_eq!(summary(rate, estimate), told);
    }
}

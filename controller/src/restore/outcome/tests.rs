use super::*;
use serde_json::{Value, json};

fn t(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn job(conditions: Value) -> Job {
    let job = json!({"metadata": {"name": "r-restore", "creationTimestamp": t(0)}, "status": {"conditions": conditions}});
    serde_json::from_value(job).unwrap()
}

fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "img", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn ended(code: i32, reason: &str, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": t(50)}})
}

fn pod(phase: &str, init: Vec<Value>, main: Vec<Value>, more: Value) -> Pod {
    let mut status =
        json!({"phase": phase, "initContainerStatuses": init, "containerStatuses": main});
    let fields = more.as_object().unwrap().clone();
    status.as_object_mut().unwrap().extend(fields);
    serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
}

fn one(phase: &str, state: Value) -> Pod {
    pod(phase, vec![], vec![container(RESTORE, state)], json!({}))
}

fn see(kind: Kind, job: Option<&Job>, pod: Option<&Pod>, now: i64) -> Seen {
    see_after(Wait::Things, kind, job, pod, now)
}

/// What is seen of a pod that has waited like that since 0.
fn see_after(wait: Wait, kind: Kind, job: Option<&Job>, pod: Option<&Pod>, now: i64) -> Seen {
    look(&Observed {
        kind,
        job,
        pod,
        had_pod: false,
        waiting: Some((wait, t(0))),
        over: false,
        now: t(now),
    })
}

fn end(kind: Kind, pod: &Pod) -> Outcome {
    let job = job(json!([]));
    match see(kind, Some(&job), Some(pod), 60) {
        Seen::Ended(outcome) => *outcome,
        other => panic!("{other:?}"),
    }
}

const DONE: &str =
    r#"{"reason":null,"message":"","targetWritten":true,"bytes":7,"tables":3,"position":{}}"#;
const DAMAGED: &str = r#"{"reason":"BackupDamaged","message":"cut","targetWritten":false}"#;
const CHECKED: &str =
    r#"{"reason":"CheckFailed","message":"the server did not start","targetWritten":true}"#;

#[test]
fn success_takes_a_report_and_a_clean_end() {
    let outcome = end(Kind::Volume, &one("Succeeded", ended(0, "Completed", DONE)));
    assert_eq!((outcome.reason, outcome.target_written), (None, Some(true)));
    assert_eq!((outcome.report.tables, outcome.at), (3, Some(t(50))));
    for (code, message) in [(0, ""), (0, "{"), (137, DONE), (1, DONE)] {
        let outcome = end(Kind::Volume, &one("Failed", ended(code, "Error", message)));
        assert!(outcome.reason.is_some(), "{code} {message}");
    }
}

#[test]
fn what_an_end_means() {
    use RestoreReason::{BackupDamaged, Interrupted, NoSpace, PodFailed};
    let evicted = |message: &str| {
        let state = container(RESTORE, ended(137, "Error", ""));
        let more = json!({"reason": "Evicted", "message": message});
        pod("Failed", vec![], vec![state], more)
    };
    let lost = pod(
        "Failed",
        vec![],
        vec![],
        json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "the node is gone"}]}),
    );
    for (pod, reason, written, part) in [
        (
            one("Failed", ended(1, "Error", DAMAGED)),
            BackupDamaged,
            Some(false),
            "cut",
        ),
        (
            one("Failed", ended(137, "OOMKilled", "")),
            Interrupted,
            None,
            "resources.limits.memory",
        ),
        (
            one("Failed", ended(137, "Error", "")),
            Interrupted,
            None,
            "status 137",
        ),
        (
            one("Failed", ended(1, "Error", "x")),
            Interrupted,
            None,
            "kubectl logs p -c restore",
        ),
        (
            one("Failed", ended(127, "StartError", "no towline")),
            PodFailed,
            Some(false),
            "no towline",
        ),
        (
            one("Failed", ended(2, "Error", "")),
            PodFailed,
            Some(false),
            "another version",
        ),
        (
            one("Succeeded", ended(0, "Completed", "")),
            PodFailed,
            Some(false),
            "no report",
        ),
        (
            evicted("The node was low on resource: memory"),
            Interrupted,
            None,
            "low on resource",
        ),
        (
            evicted("Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Gi\"."),
            NoSpace,
            None,
            "scratch",
        ),
        (lost, Interrupted, None, "the node is gone"),
    ] {
        let outcome = end(Kind::Volume, &pod);
        assert_eq!(outcome.reason, Some(reason), "{}", outcome.message);
        assert_eq!(outcome.target_written, written, "{}", outcome.message);
        assert!(outcome.message.contains(part), "{}", outcome.message);
        // Nobody takes what may be half a restore for one.
        if reason == Interrupted {
            assert!(
                outcome.message.contains("not usable"),
                "{}",
                outcome.message
            );
        }
    }
}

#[test]
fn a_drill_ends_with_its_checks_or_with_what_comes_before_them() {
    let drill = |restore: Value, server: Value, check: Value| {
        let main = vec![container(SERVER, server), container(CHECK, check)];
        pod(
            "Running",
            vec![container(RESTORE, restore)],
            main,
            json!({}),
        )
    };
    let running = json!({"running": {}});
    let waiting = json!({"waiting": {"reason": "PodInitializing"}});
    let done = || ended(0, "Completed", DONE);
    let going = drill(done(), running.clone(), running.clone());
    assert_eq!(
        see(Kind::Drill, Some(&job(json!([]))), Some(&going), 5000),
        Seen::Running
    );
    let starting = drill(running.clone(), waiting.clone(), waiting.clone());
    assert_eq!(
        see(Kind::Drill, Some(&job(json!([]))), Some(&starting), 5000),
        Seen::Running
    );
    // The container that checks sees that the server has ended, and says what it means.
    let dead = drill(done(), ended(1, "Error", ""), running.clone());
    assert_eq!(
        see(Kind::Drill, Some(&job(json!([]))), Some(&dead), 5000),
        Seen::Running
    );

    use RestoreReason::{BackupDamaged, CheckFailed, PodFailed};
    let checked = || ended(1, "Error", CHECKED);
    for (what, pod, reason) in [
        (
            "checks passed, the server is still on its way down",
            drill(done(), running.clone(), done()),
            None,
        ),
        (
            "a check failed",
            drill(done(), ended(0, "Completed", ""), checked()),
            Some(CheckFailed),
        ),
        (
            "it could not be restored",
            drill(ended(1, "Error", DAMAGED), waiting.clone(), waiting.clone()),
            Some(BackupDamaged),
        ),
        (
            "the server had too little memory",
            drill(done(), ended(137, "OOMKilled", ""), checked()),
            Some(PodFailed),
        ),
        (
            "the image has no such server",
            drill(done(), ended(127, "Error", ""), checked()),
            Some(PodFailed),
        ),
        (
            "the server could make no data directory",
            drill(done(), ended(NOT_INITIALISED, "Error", ""), checked()),
            Some(PodFailed),
        ),
        (
            "the server does not like the data",
            drill(done(), ended(1, "Error", ""), checked()),
            Some(CheckFailed),
        ),
    ] {
        assert_eq!(end(Kind::Drill, &pod).reason, reason, "{what}");
    }
}

#[test]
fn what_cannot_start_is_given_time_and_then_named() {
    let job = job(json!([]));
    let unscheduled = pod(
        "Pending",
        vec![],
        vec![],
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]}),
    );
    let stuck = |reason: &str| {
        let waiting =
            json!({"waiting": {"reason": reason, "message": "couldn't find key k in Secret ns/s"}});
        one("Pending", waiting)
    };
    let server = pod(
        "Running",
        vec![container(RESTORE, ended(0, "Completed", DONE))],
        vec![
            container(
                SERVER,
                json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
            ),
            container(CHECK, json!({"running": {}})),
        ],
        json!({}),
    );
    for (kind, pod, patience, part) in [
        (Kind::Volume, unscheduled, 600, "0/3 nodes are available"),
        (
            Kind::Volume,
            stuck("ImagePullBackOff"),
            60,
            "ImagePullBackOff",
        ),
        (
            Kind::Volume,
            stuck("CreateContainerConfigError"),
            60,
            "couldn't find key k",
        ),
        (
            Kind::Volume,
            stuck("ContainerCreating"),
            600,
            "volumes and images",
        ),
        (Kind::Drill, server, 60, "container server cannot start"),
    ] {
        let wait = if patience == 60 {
            Wait::Stuck
        } else {
            Wait::Things
        };
        let early = see_after(wait, kind, Some(&job), Some(&pod), patience - 1);
        assert!(
            matches!(&early, Seen::Waiting(_, why) if why.contains(part)),
            "{early:?}"
        );
        let Seen::Ended(late) = see_after(wait, kind, Some(&job), Some(&pod), patience) else {
            panic!("{part}");
        };
        // What it waited for before does not count.
        let other = if patience == 60 {
            Wait::Things
        } else {
            Wait::Stuck
        };
        let anew = see_after(other, kind, Some(&job), Some(&pod), patience);
        assert!(
            matches!(anew, Seen::Waiting(now, _) if now == wait),
            "{anew:?}"
        );
        assert_eq!(late.reason, Some(RestoreReason::PodFailed));
        assert_eq!(late.target_written, Some(false));
        assert!(late.message.contains(part), "{}", late.message);
    }
}

#[test]
fn without_a_pod_the_job_tells() {
    let running = job(json!([]));
    assert!(matches!(
        see(Kind::Volume, Some(&running), None, 120),
        Seen::Waiting(..)
    ));
    let failed =
        |reason: &str| job(json!([{"type": "Failed", "status": "True", "reason": reason}]));
    let complete = job(json!([{"type": "Complete", "status": "True"}]));
    let (limit, late) = (failed("BackoffLimitExceeded"), failed("DeadlineExceeded"));
    for (job, reason) in [
        (None, RestoreReason::Interrupted),
        (Some(&limit), RestoreReason::Interrupted),
        (Some(&late), RestoreReason::DeadlineExceeded),
        (Some(&complete), RestoreReason::Interrupted),
        (Some(&running), RestoreReason::PodFailed),
    ] {
        let Seen::Ended(outcome) = see(Kind::Volume, job, None, 121) else {
            panic!("{reason}");
        };
        assert_eq!(outcome.reason, Some(reason));
    }
}

#[test]
fn a_pod_that_was_there_and_is_not_any_more_was_ended() {
    let job = job(json!([]));
    for (had_pod, reason) in [
        (true, RestoreReason::Interrupted),
        (false, RestoreReason::PodFailed),
    ] {
        let seen = look(&Observed {
            kind: Kind::Volume,
            job: Some(&job),
            pod: None,
            had_pod,
            waiting: None,
            over: false,
            now: t(500),
        });
        let Seen::Ended(outcome) = seen else {
            panic!("{seen:?}");
        };
        assert_eq!(outcome.reason, Some(reason));
    }
}

#[test]
fn after_the_deadline_only_a_report_counts() {
    let job = job(json!([]));
    let at_end = |pod: &Pod| {
        let seen = look(&Observed {
            kind: Kind::Volume,
            job: Some(&job),
            pod: Some(pod),
            had_pod: true,
            waiting: None,
            over: true,
            now: t(60),
        });
        match seen {
            Seen::Ended(outcome) => outcome.reason,
            other => panic!("{other:?}"),
        }
    };
    let stopped = r#"{"reason":"Interrupted","message":"SIGTERM","targetWritten":true}"#;
    for (pod, reason) in [
        (
            one("Running", json!({"running": {}})),
            Some(RestoreReason::DeadlineExceeded),
        ),
        (
            one("Failed", ended(143, "Error", stopped)),
            Some(RestoreReason::DeadlineExceeded),
        ),
        (
            one("Failed", ended(137, "Error", "")),
            Some(RestoreReason::DeadlineExceeded),
        ),
        (
            one("Failed", ended(1, "Error", DAMAGED)),
            Some(RestoreReason::BackupDamaged),
        ),
        (one("Succeeded", ended(0, "Completed", DONE)), None),
    ] {
        assert_eq!(at_end(&pod), reason);
    }
}

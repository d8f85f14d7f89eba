use super::*;
use line::Line;
use serde_json::json;

const UID: &str = "3f0c1b2a-0000-4000-8000-000000000001";

fn job() -> BackupJob {
    serde_json::from_value(json!({
        "metadata": {"name": "nightly-1", "namespace": "shop", "uid": UID, "creationTimestamp": "2026-03-04T02:00:00Z"},
        "spec": {"source": {"url": "http://db:8474"}, "storeRef": {"name": "offsite"}},
        "status": {"phase": "Succeeded", "attempt": 2, "completionTime": "2026-03-04T02:10:00Z", "source": {"pod": "mariadb-0"}, "attempts": [
            {"number": 1, "agent": "http://10.0.0.1:8474", "start": "2026-03-04T02:00:00Z", "end": "2026-03-04T02:01:00Z", "reason": "Interrupted", "message": "stopped", "bytes": 1024},
            {"number": 2, "agent": "http://10.0.0.1:8474", "start": "2026-03-04T02:05:00Z", "end": "2026-03-04T02:10:00Z", "bytes": 2048},
        ]},
    }))
    .unwrap()
}

fn read(time: &str, line: &serde_json::Value) -> Line {
    Line::read(&format!("2026-03-04T{time}Z {line}")).unwrap()
}

#[test]
fn the_controllers_lines_about_a_job_are_those_that_name_it() {
    let who = Subject::of_job(&job());
    let line = |fields: serde_json::Value| {
        read(
            "02:00:01",
            &json!({"timestamp": "x", "level": "INFO", "target": "t", "fields": fields}),
        )
    };
    for (fields, about) in [
        (
            json!({"message": "attempt started", "namespace": "shop", "name": "nightly-1"}),
            true,
        ),
        (
            json!({"message": "m", "namespace": "shop", "name": "nightly-11"}),
            false,
        ),
        (
            json!({"message": "m", "namespace": "other", "name": "nightly-1"}),
            false,
        ),
        (json!({"message": "m", "uid": UID}), true),
        (
            json!({"message": "m", "request_id": format!("{UID}-2")}),
            true,
        ),
        (
            json!({"message": "m", "object": "BackupJob.v1alpha1.towline.dev/nightly-1.shop"}),
            true,
        ),
        (
            json!({"message": "m", "object": "RestoreJob.v1alpha1.towline.dev/nightly-1.shop"}),
            false,
        ),
        (
            json!({"message": "m", "object": "BackupJob.v1alpha1.towline.dev/a-nightly-1.shop"}),
            false,
        ),
        (json!({"message": "m"}), false),
    ] {
        assert_eq!(line(fields.clone()).of_controller(&who), about, "{fields}");
    }
    let text = Line::read("2026-03-04T02:00:01Z 2026-03-04T02:00:01.000001Z  WARN towline: attempt failed namespace=\"shop\" name=\"nightly-1\"").unwrap();
    assert!(text.of_controller(&who));
    assert_eq!(text.level, "WARN");
    assert!(
        text.text(&who).starts_with("towline: attempt failed"),
        "{}",
        text.text(&who)
    );
}

#[test]
fn an_agents_line_names_the_job_or_falls_into_an_attempt() {
    let who = Subject::of_job(&job());
    let access = |id: &str, path: &str| json!({"level": "INFO", "message": "request", "target": "towline_agent::access", "request_id": id, "path": path});
    for (time, line, about) in [
        (
            "02:00:30",
            json!({"level": "INFO", "message": "backup starts", "backup": "b", "target": "t"}),
            true,
        ),
        // Between the attempts.
        (
            "02:03:00",
            json!({"level": "INFO", "message": "backup starts", "backup": "b", "target": "t"}),
            false,
        ),
        (
            "02:03:00",
            json!({"level": "INFO", "message": "backup starts", "job": UID, "target": "t"}),
            true,
        ),
        (
            "02:00:30",
            json!({"level": "INFO", "message": "backup starts", "job": "another", "target": "t"}),
            false,
        ),
        ("02:03:00", access(&format!("{UID}-1"), "/v1/backup"), true),
        ("02:00:30", access("random", "/v1/backup"), true),
        ("02:00:30", access("random", "/v1/info"), false),
        // The slack of clocks, and not more.
        (
            "02:10:09",
            json!({"level": "INFO", "message": "m", "target": "t"}),
            true,
        ),
        (
            "02:10:11",
            json!({"level": "INFO", "message": "m", "target": "t"}),
            false,
        ),
        (
            "01:59:51",
            json!({"level": "INFO", "message": "m", "target": "t"}),
            true,
        ),
        (
            "01:59:49",
            json!({"level": "INFO", "message": "m", "target": "t"}),
            false,
        ),
    ] {
        assert_eq!(read(time, &line).of_agent(&who), about, "{time} {line}");
    }
}

#[test]
fn a_line_is_told_without_what_is_known() {
    let who = Subject::of_job(&job());
    let line = read(
        "02:00:01.5",
        &json!({"timestamp": "x", "level": "WARN", "target": "t", "fields": {"message": "attempt failed", "namespace": "shop", "name": "nightly-1", "attempt": 1, "detail": "no pod", "none": null}}),
    );
    let entry = Entry {
        time: line.time,
        source: Source::Controller,
        pod: None,
        level: line.level.clone(),
        text: line.text(&who),
    };
    assert_eq!(
        render(&entry, Paint::new(false)),
        "2026-03-04T02:00:01.500Z  controller  WARN   attempt failed attempt=1 detail=\"no pod\""
    );
    assert_eq!(
        serde_json::to_string(&entry).unwrap(),
        r#"{"time":"2026-03-04T02:00:01.500000Z","source":"controller","level":"WARN","text":"attempt failed attempt=1 detail=\"no pod\""}"#
    );
    assert!(Line::read("no time here").is_none());
}

#[test]
fn attempts_and_events_become_entries() {
    let entries = attempts(&job());
    let texts: Vec<_> = entries
        .iter()
        .map(|e| (e.level.as_str(), e.text.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            ("INFO", "attempt 1 begins: http://10.0.0.1:8474"),
            (
                "WARN",
                "attempt 1 failed after 1.00KiB: Interrupted: stopped"
            ),
            ("INFO", "attempt 2 begins: http://10.0.0.1:8474"),
            ("INFO", "attempt 2 is good: 2.00KiB"),
        ]
    );
    let event = |value: serde_json::Value| {
        let event: k8s_openapi::api::core::v1::Event = serde_json::from_value(value).unwrap();
        gather::event(&event)
    };
    let base = json!({"metadata": {}, "involvedObject": {}, "type": "Warning", "reason": "Retry", "message": "failed"});
    let with = |more: serde_json::Value| {
        let mut value = base.clone();
        value
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event(value)
    };
    assert_eq!(with(json!({})), None);
    let once = with(json!({"eventTime": "2026-03-04T02:00:00.000000Z"})).unwrap();
    assert_eq!(
        (once.level.as_str(), once.text.as_str()),
        ("WARN", "Retry: failed")
    );
    let often = with(json!({"eventTime": "2026-03-04T02:00:00.000000Z", "series": {"count": 3, "lastObservedTime": "2026-03-04T02:05:00.000000Z"}})).unwrap();
    assert_eq!(often.text, "Retry: failed (3 times)");
    assert_eq!(often.time, "2026-03-04T02:05:00Z".parse().unwrap());
}

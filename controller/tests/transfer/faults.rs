//! Agents that lie, break and stall.

use crate::{
    agent::{Agent, Step, TOKEN, good_trailers, head, problem},
    body, job,
    place::{Place, places},
    run, transfer_of,
};
use std::time::Duration;
use towline_controller::reason::{FailureReason, Retry};

fn without(name: &str, body: &[u8]) -> Vec<(&'static str, String)> {
    good_trailers(body)
        .into_iter()
        .filter(|(n, _)| *n != name)
        .collect()
}

fn with(name: &'static str, value: &str, body: &[u8]) -> Vec<(&'static str, String)> {
    let mut trailers = without(name, body);
    trailers.push((name, value.to_owned()));
    trailers
}

/// Every way to fail leaves nothing at all, and has its own reason.
#[tokio::test(flavor = "multi_thread")]
async fn each_fault_has_its_reason_and_leaves_nothing() {
    use FailureReason::*;
    use Retry::*;
    // Six MiB: one part has gone to the store before the fault shows.
    let data = body(6 << 20);
    let stream = |end: Vec<Step>| {
        let mut steps = vec![head(), Step::Chunk(data.clone())];
        steps.extend(end);
        steps
    };
    let ends = |trailers| stream(vec![Step::End(trailers)]);
    let twice = [
        good_trailers(&data),
        vec![("X-Streaming-Error", String::new())],
    ]
    .concat();
    let told = |word: &str, text: &str| {
        ends(vec![
            ("X-Streaming-Error", text.to_owned()),
            ("X-Streaming-Error-Reason", word.to_owned()),
        ])
    };
    let huge_trailer = ends(with("X-Padding", &"x".repeat(1 << 20), &data));
    let cases: Vec<(&str, Vec<Step>, FailureReason, Retry)> = vec![
        (
            "cut in a chunk",
            stream(vec![Step::Raw(b"ffff\r\nabc".to_vec()), Step::Close]),
            StreamTruncated,
            Counted,
        ),
        (
            "cut between chunks",
            stream(vec![Step::Close]),
            StreamTruncated,
            Counted,
        ),
        (
            "cut in the trailers",
            stream(vec![
                Step::Raw(b"0\r\nX-Streaming-Error: \r\n".to_vec()),
                Step::Close,
            ]),
            StreamTruncated,
            Counted,
        ),
        (
            "broken framing",
            stream(vec![Step::Raw(b"zzz\r\n".to_vec())]),
            StreamTruncated,
            Counted,
        ),
        (
            "trailers without end",
            huge_trailer,
            StreamTruncated,
            Counted,
        ),
        ("no trailers", ends(vec![]), TrailerMissing, Counted),
        (
            "no verdict",
            ends(without("X-Streaming-Error", &data)),
            TrailerMissing,
            Counted,
        ),
        ("verdict twice", ends(twice), TrailerMissing, Counted),
        (
            "no length",
            ends(without("X-Backup-Bytes", &data)),
            TrailerMissing,
            Counted,
        ),
        (
            "wrong length",
            ends(with("X-Backup-Bytes", "5", &data)),
            LengthMismatch,
            Counted,
        ),
        (
            "wrong digest",
            ends(with("Repr-Digest", &good_trailers(b"x")[2].1, &data)),
            DigestMismatch,
            Counted,
        ),
        (
            "tool failed",
            told("ToolFailed", "boom"),
            StreamError,
            Counted,
        ),
        ("draining", told("Draining", "bye"), Interrupted, NotCounted),
        (
            "preempted",
            told("Preempted", "bye"),
            Interrupted,
            NotCounted,
        ),
        (
            "a body that needs no trailers",
            vec![Step::Raw(
                b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc".to_vec(),
            )],
            TrailerMissing,
            Counted,
        ),
        (
            "an empty body",
            vec![head(), Step::End(good_trailers(b""))],
            StreamTruncated,
            Counted,
        ),
        ("no answer", vec![Step::Close], AgentUnreachable, Counted),
        (
            "garbage",
            vec![Step::Raw(b"SSH-2.0-x\r\n\r\n".to_vec())],
            AgentUnreachable,
            Counted,
        ),
        (
            "400",
            problem("400 Bad Request", "", "x"),
            AgentRefused,
            Never,
        ),
        (
            "401",
            problem("401 Unauthorized", "", "x"),
            AgentRefused,
            Counted,
        ),
        (
            "403",
            problem("403 Forbidden", "", "x"),
            AgentRefused,
            Counted,
        ),
        (
            "409",
            problem("409 Conflict", "retry-after: 7\r\n", "x"),
            AgentBusy,
            NotCounted,
        ),
        (
            "501",
            problem("501 Not Implemented", "", "x"),
            AgentRefused,
            Never,
        ),
        (
            "502",
            problem("502 Bad Gateway", "", "x"),
            AgentUnreachable,
            Counted,
        ),
        (
            "503",
            problem("503 Service Unavailable", "", "x"),
            Interrupted,
            NotCounted,
        ),
        (
            "a redirect",
            problem(
                "302 Found",
                "location: http://127.0.0.1:1/v1/backup\r\n",
                "x",
            ),
            AgentRefused,
            Never,
        ),
    ];
    let (places, _gateway) = places().await;
    for place in &places {
        let store = place.store(8);
        for (name, steps, reason, retry) in &cases {
            let agent = Agent::start(steps.clone()).await;
            let failure = run(transfer_of(&agent.url, &store, &job("u"), 1))
                .await
                .unwrap_err();
            assert_eq!(
                (failure.reason, failure.retry),
                (*reason, *retry),
                "{name}: {}",
                failure.message
            );
            assert!(!failure.complete_tried, "{name}");
            assert_eq!(place.remains().await, Vec::<String>::new(), "{name}");
            match *name {
                "409" => assert_eq!(failure.retry_after, Some(Duration::from_secs(7))),
                "tool failed" => {
                    assert!(
                        failure.message.starts_with("ToolFailed: boom"),
                        "{}",
                        failure.message
                    );
                    assert_eq!(failure.bytes, data.len() as u64);
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn what_a_peer_says_is_cut_and_cleaned() {
    let detail = format!("{TOKEN} \\u001b[2J {}", "y".repeat(5000));
    let agent = Agent::start(problem("400 Bad Request", "", &detail)).await;
    let place = Place::file();
    let failure = run(transfer_of(&agent.url, &place.store(8), &job("u"), 1))
        .await
        .unwrap_err();
    assert!(
        !failure.message.contains(TOKEN) && !failure.message.chars().any(char::is_control),
        "{}",
        failure.message
    );
    assert!(failure.message.len() < 1300 && failure.message.contains("yyy"));
}

#[tokio::test]
async fn silence_is_a_stall() {
    let agent = Agent::start(vec![head(), Step::Chunk(body(10)), Step::Hold]).await;
    let place = Place::file();
    let store = place.store(8);
    let mut t = transfer_of(&agent.url, &store, &job("u"), 1);
    t.stall_timeout = Duration::from_millis(300);
    let failure = run(t).await.unwrap_err();
    assert_eq!(
        (failure.reason, failure.bytes),
        (FailureReason::Stalled, 10)
    );
    assert_eq!(place.remains().await, Vec::<String>::new());
}

/// A tool may be quiet for much longer than the timeout, as long as the agent says that it goes on.
#[tokio::test]
async fn silence_while_the_agent_goes_on_is_no_stall() {
    let say = |stage: &str, id: &str| {
        format!(
            r#"{{"capabilities":["method"],"running":{{"id":"{id}","stage":"{stage}","bytes":10}}}}"#
        )
    };
    let data = body(10);
    let rest = [head(), Step::Chunk(data.clone()), Step::Hold];
    let agent = Agent::with_info(
        &say("COPY", "b-1"),
        [rest.to_vec(), vec![Step::End(good_trailers(&data))]].concat(),
    )
    .await;
    let place = Place::file();
    let store = place.store(8);
    let timeout = Duration::from_secs(1);
    let mut t = transfer_of(&agent.url, &store, &job("u"), 1);
    t.stall_timeout = timeout;
    let mut running = tokio::spawn(run(t));
    agent.reached_hold(&mut running).await;
    // Three times as long as silence may last.
    for stage in 0..60 {
        agent.say(&say(&format!("stage {stage}"), "b-1"));
        tokio::time::sleep(timeout / 20).await;
    }
    assert!(!running.is_finished(), "{:?}", running.await);
    agent.release();
    let success = running.await.unwrap().unwrap();
    assert_eq!(success.manifest.bytes, 10);

    // What another backup of the same agent does is of no concern.
    for (uid, id, part) in [
        ("v", "b-1", "stage FLUSH"),
        ("w", "b-2", "after 10 bytes: "),
    ] {
        let agent = Agent::with_info(&say("FLUSH", id), rest.to_vec()).await;
        let mut t = transfer_of(&agent.url, &store, &job(uid), 1);
        t.stall_timeout = timeout;
        let failure = run(t).await.unwrap_err();
        assert_eq!(failure.reason, FailureReason::Stalled, "{id}");
        assert!(failure.message.contains(part), "{}", failure.message);
    }
}

//! What a pull tells those who watch it, and that watching changes nothing.

use crate::{
    agent::{Agent, HEAD, Step, good, good_trailers, head},
    job,
    place::Place,
    run,
    tls::{Ca, server},
    transfer_of,
};
use http::{HeaderMap, StatusCode};
use rustls::version::TLS13;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use towline_controller::{
    agent_client::trace::{Agreed, ClientTrace, GotConnection, Target, Trace, Waterfall},
    pki::Usage,
    reason::FailureReason,
    transfer::{Failure, Success, Transfer},
};

/// Writes down every hook.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn word<T, E>(result: Result<T, E>) -> &'static str {
    if result.is_ok() { "ok" } else { "failed" }
}

impl ClientTrace for Recorder {
    fn get_connection(&self, target: &Target<'_>) {
        self.note(format!(
            "get connection for {} {}",
            target.method, target.path
        ));
    }
    fn dns_start(&self, host: &str) {
        self.note(format!("dns start {host}"));
    }
    fn dns_done(&self, addresses: Result<&[SocketAddr], &str>) {
        self.note(format!("dns {}", word(addresses)));
    }
    fn connect_start(&self, _address: SocketAddr) {
        self.note("connect start");
    }
    fn connect_done(&self, _address: SocketAddr, result: Result<(), &str>) {
        self.note(format!("connect {}", word(result)));
    }
    fn tls_start(&self) {
        self.note("tls start");
    }
    fn tls_done(&self, result: Result<&Agreed<'_>, &str>) {
        match result {
            Ok(agreed) => self.note(format!("tls ok {}", agreed.version)),
            Err(why) => self.note(format!("tls failed: {why}")),
        }
    }
    fn got_connection(&self, connection: &GotConnection) {
        let how = if connection.idle.is_some() {
            "used"
        } else {
            "new"
        };
        self.note(format!("got {how} connection"));
    }
    fn wrote_headers(&self) {
        self.note("wrote headers");
    }
    fn wrote_request(&self, result: Result<(), &str>) {
        self.note(format!("wrote request {}", word(result)));
    }
    fn got_informational(&self, status: StatusCode, headers: &HeaderMap) {
        self.note(format!("interim {} {}", status.as_u16(), headers.len()));
    }
    fn got_first_response_byte(&self) {
        self.note("first byte");
    }
    fn body_end(&self, result: Result<u64, &str>) {
        match result {
            Ok(bytes) => self.note(format!("body {bytes}")),
            Err(why) => self.note(format!("body failed: {why}")),
        }
    }
    fn got_trailers(&self, trailers: &HeaderMap) {
        self.note(format!("trailers {}", trailers.len()));
    }
}

/// Everything that happens, from no connection to the answer's first byte.
const FIRST: [&str; 7] = [
    "get connection for GET /v1/info",
    "connect start",
    "connect ok",
    "got new connection",
    "wrote headers",
    "wrote request ok",
    "first byte",
];
const SECOND: [&str; 5] = [
    "get connection for GET /v1/backup",
    "got used connection",
    "wrote headers",
    "wrote request ok",
    "first byte",
];

async fn watched(
    agent: &Agent,
    change: impl FnOnce(&mut Transfer),
) -> (Vec<String>, Result<Success, Failure>) {
    let place = Place::file();
    let recorder = Arc::new(Recorder::default());
    let mut transfer = transfer_of(&agent.url, &place.store(8), &job("u"), 1);
    transfer.trace = Trace::of(recorder.clone());
    change(&mut transfer);
    let outcome = run(transfer).await;
    (recorder.seen(), outcome)
}

#[tokio::test]
async fn every_step_is_told_in_its_order() {
    let agent = Agent::start(good(b"four")).await;
    let (seen, outcome) = watched(&agent, |_| {}).await;
    let timings = outcome.unwrap().timings;
    let end = ["body 4", "trailers 4"];
    assert_eq!(seen, [&FIRST[..], &SECOND, &end].concat());
    for (name, phase) in [
        ("connect", timings.connect),
        ("wrote request", timings.wrote_request),
        ("first byte", timings.first_byte),
        ("copy", timings.copy),
    ] {
        assert!(phase.is_some(), "{name}: {timings:?}");
    }
    assert_eq!((timings.dns, timings.tls), (None, None));
}

#[tokio::test]
async fn names_and_each_of_their_addresses_are_told() {
    let agent = Agent::start(good(b"four")).await;
    let (seen, outcome) = watched(&agent, |transfer| {
        transfer.agent.base.set_host(Some("localhost")).unwrap();
    })
    .await;
    assert!(outcome.unwrap().timings.dns.is_some());
    assert_eq!(&seen[1..3], ["dns start localhost", "dns ok"]);
    // The agent listens at one of the name's addresses only.
    let got = seen.iter().position(|s| s == "got new connection").unwrap();
    let tries = &seen[3..got];
    assert!(tries.len() % 2 == 0 && !tries.is_empty(), "{seen:?}");
    assert_eq!(tries.last().unwrap(), "connect ok");
    for pair in tries[..tries.len() - 2].chunks(2) {
        assert_eq!(pair, ["connect start", "connect failed"]);
    }
}

#[tokio::test]
async fn tls_is_told() {
    let ca = Ca::new();
    let own = ca.issue(Usage::Server, "127.0.0.1");
    let agent = Agent::with_tls(server(&own, None, &[&TLS13]), good(b"four")).await;
    let (seen, outcome) = watched(&agent, |t| t.agent.tls = Some(ca.trust())).await;
    assert!(outcome.unwrap().timings.tls.is_some());
    assert_eq!(&seen[2..5], ["connect ok", "tls start", "tls ok TLSv1_3"]);

    let (seen, outcome) = watched(&agent, |t| t.agent.tls = Some(Ca::new().trust())).await;
    assert_eq!(outcome.unwrap_err().reason, FailureReason::AgentUnreachable);
    let last = seen.last().unwrap();
    assert!(
        last.starts_with("tls failed: its certificate is from no CA"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn interim_answers_are_told_and_change_nothing() {
    let mut steps = vec![Step::Raw(b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n".to_vec())];
    steps.extend(good(b"four"));
    let agent = Agent::start(steps).await;
    let (seen, outcome) = watched(&agent, |_| {}).await;
    outcome.unwrap();
    assert!(seen.contains(&"interim 100 1".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn how_it_failed_is_told() {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = nowhere.local_addr().unwrap().port();
    drop(nowhere);
    let agent = Agent::start(vec![head(), Step::Chunk(b"half".to_vec()), Step::Close]).await;
    let (seen, outcome) = watched(&agent, |_| {}).await;
    assert_eq!(outcome.unwrap_err().reason, FailureReason::StreamTruncated);
    assert!(
        seen.last().unwrap().starts_with("body failed: "),
        "{seen:?}"
    );

    let (seen, outcome) = watched(&agent, |t| t.agent.base.set_port(Some(port)).unwrap()).await;
    assert_eq!(outcome.unwrap_err().reason, FailureReason::AgentUnreachable);
    assert_eq!(
        seen,
        [
            "get connection for GET /v1/info",
            "connect start",
            "connect failed"
        ]
    );
}

/// Every one of its hooks is broken.
struct Broken;

impl ClientTrace for Broken {
    fn get_connection(&self, _: &Target<'_>) {
        panic!("get connection");
    }
    fn dns_start(&self, _: &str) {
        panic!("dns start");
    }
    fn dns_done(&self, _: Result<&[SocketAddr], &str>) {
        panic!("dns done");
    }
    fn connect_start(&self, _: SocketAddr) {
        panic!("connect start");
    }
    fn connect_done(&self, _: SocketAddr, _: Result<(), &str>) {
        panic!("connect done");
    }
    fn tls_start(&self) {
        panic!("tls start");
    }
    fn tls_done(&self, _: Result<&Agreed<'_>, &str>) {
        panic!("tls done");
    }
    fn got_connection(&self, _: &GotConnection) {
        panic!("got connection");
    }
    fn wrote_headers(&self) {
        panic!("wrote headers");
    }
    fn wrote_request(&self, _: Result<(), &str>) {
        panic!("wrote request");
    }
    fn got_informational(&self, _: StatusCode, _: &HeaderMap) {
        panic!("interim");
    }
    fn got_first_response_byte(&self) {
        panic!("first byte");
    }
    fn body_end(&self, _: Result<u64, &str>) {
        panic!("body end");
    }
    fn got_trailers(&self, _: &HeaderMap) {
        panic!("trailers");
    }
}

#[tokio::test]
async fn a_watcher_that_panics_harms_neither_the_backup_nor_the_other_watchers() {
    let mut steps = vec![Step::Raw(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec())];
    steps.extend(good(b"four"));
    let ca = Ca::new();
    let own = ca.issue(Usage::Server, "localhost");
    let agent = Agent::with_tls(server(&own, None, &[&TLS13]), steps).await;
    let place = Place::file();
    let recorder = Arc::new(Recorder::default());
    let mut transfer = transfer_of(&agent.url, &place.store(8), &job("u"), 1);
    transfer.agent.base.set_host(Some("localhost")).unwrap();
    transfer.agent.tls = Some(ca.trust());
    transfer.trace = Trace::of(Arc::new(Broken)).and(recorder.clone());
    let success = run(transfer).await.unwrap();
    assert_eq!(success.manifest.bytes, 4);
    assert_eq!(recorder.seen().last().unwrap(), "trailers 4");
}

#[tokio::test]
async fn the_waterfall_draws_a_success_and_a_failure() {
    let draw = async |steps: Vec<Step>| {
        let agent = Agent::start(steps).await;
        let place = Place::file();
        let waterfall = Arc::new(Waterfall::default());
        let mut transfer = transfer_of(&agent.url, &place.store(8), &job("u"), 1);
        transfer.trace = Trace::of(waterfall.clone());
        let _ = run(transfer).await;
        waterfall.draw()
    };
    let drawn = draw(good(b"four")).await;
    let phases: Vec<_> = drawn
        .lines()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(
        phases,
        [
            "GET", "connect", "request", "wait", "answer", "GET", "request", "wait", "answer",
            "verdict"
        ],
        "{drawn}"
    );
    assert!(
        drawn.contains("/v1/backup (connection used again, idle for "),
        "{drawn}"
    );
    assert!(
        drawn.contains("4 bytes") && drawn.ends_with("│ complete\n"),
        "{drawn}"
    );

    let mut trailers = good_trailers(b"four");
    trailers[0].1 = "it%20broke".to_owned();
    trailers.push(("X-Streaming-Error-Reason", "ToolFailed".to_owned()));
    let failed = vec![
        Step::Raw(HEAD.into()),
        Step::Chunk(b"four".to_vec()),
        Step::End(trailers),
    ];
    let drawn = draw(failed).await;
    assert!(drawn.ends_with("│ failed: ToolFailed\n"), "{drawn}");
}

//! Versions, limits and problems of the protocol itself.

use crate::harness::{Harness, LIMITS, NO_DRAIN, PATIENCE, Script, raw};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use towline_agent::backup::StartError;
use towline_agent::server::{Auth, Limits};

#[tokio::test]
async fn http_1_0_is_told_to_upgrade() {
    let server = Harness::open().await;
    let answer = server
        .raw("GET /v1/backup HTTP/1.0\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(answer.status(), 505);
    assert_eq!(answer.json()["type"], "urn:towline:problem:http-version");
    assert_eq!(server.fake.starts(), 0);
}

#[tokio::test]
async fn bodies_and_large_heads_are_refused() {
    let server = Harness::open().await;
    for body in [
        "Content-Length: 4\r\n\r\nbody",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let answer = server
            .raw(format!("GET /v1/info HTTP/1.1\r\nHost: a\r\n{body}"))
            .await;
        assert_eq!(answer.status(), 413, "{body}");
    }
    assert_eq!(
        server
            .request("GET /v1/info", "Content-Length: 0\r\n")
            .await
            .status(),
        200
    );
    let large = format!("X-Large: {}\r\n", "x".repeat(64 * 1024));
    assert_eq!(server.request("GET /v1/info", &large).await.status(), 431);
    let many: String = (0..200).map(|n| format!("X-{n}: x\r\n")).collect();
    assert_eq!(server.request("GET /v1/info", &many).await.status(), 431);
}

#[tokio::test]
async fn half_sent_silent_and_idle_connections_are_closed() {
    let limits = Limits {
        header_read: Duration::from_millis(200),
        idle: Duration::from_millis(200),
        ..LIMITS
    };
    let server = Harness::start(Auth::Open, limits, NO_DRAIN).await;
    let cases: [&[u8]; 6] = [
        b"",
        b"G",
        b"GET /v1/info HTTP/1.1\r\nHost: a\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/info HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for request in cases {
        // `raw` fails when the connection stays open for longer than its patience.
        server.raw(request).await;
    }
}

/// Writes a little at a time, as long as it is taken, until the server has closed the connection.
async fn drip(server: &Harness, first: &[u8], more: &[u8]) {
    let (mut reader, mut writer) = server.connect().await.into_split();
    writer.write_all(first).await.unwrap();
    let more = more.to_vec();
    let dripping = tokio::spawn(async move {
        while writer.write_all(&more).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut bytes = Vec::new();
    // A reset is an end as well as any.
    let read = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "still open: {}", first.escape_ascii());
    dripping.abort();
}

#[tokio::test]
async fn a_little_at_a_time_keeps_no_connection_open() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // HEADERS of 16,384 bytes on stream 1, of which some come.
    const HALF_HEADERS: &[u8] = b"\0\x40\0\x01\0\0\0\0\x01";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\x0012345678";
    // HEADERS without END_HEADERS, then CONTINUATION without end.
    const HEADERS: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";
    const CONTINUATION: &[u8] = b"\0\0\x01\x09\0\0\0\0\x01\x86";
    let limits = Limits {
        header_read: Duration::from_millis(200),
        idle: Duration::from_millis(200),
        ..LIMITS
    };
    let server = Harness::start(Auth::Open, limits, NO_DRAIN).await;
    drip(
        &server,
        b"GET /v1/info HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        b"x",
    )
    .await;
    drip(&server, b"", b"\r\n").await;
    drip(&server, PREFACE, PING).await;
    drip(&server, &[PREFACE, HALF_HEADERS].concat(), b"\0").await;
    drip(&server, &[PREFACE, HEADERS].concat(), CONTINUATION).await;
    assert_eq!(server.fake.starts(), 0);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_by_the_kernel() {
    let limits = Limits {
        unacknowledged: Duration::from_secs(1),
        ..LIMITS
    };
    let server = Harness::start(Auth::Open, limits, NO_DRAIN).await;
    server.fake.script(Script::Manual);
    let mut reader = server.connect().await;
    reader
        .write_all(b"GET /v1/backup HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
        .await
        .unwrap();
    crate::harness::eventually("started", || (server.fake.starts() == 1).then_some(())).await;
    let sender = server.fake.take();
    let chunk = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let sending = async { while sender.chunks.send(chunk.clone()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, sending)
        .await
        .expect("the producer learns that its reader is gone");
    drop(reader);
}

#[tokio::test]
async fn large_heads_are_refused_over_http2_too() {
    let server = Harness::open().await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut get = async |bytes: usize| {
        let request = http::Request::get(format!("http://{}/v1/info", server.addr))
            .header("x-large", "x".repeat(bytes))
            .body(Empty::new())
            .unwrap();
        let answer = client.send_request(request).await;
        answer.map(|answer| answer.status().as_u16())
    };
    assert_eq!(get(1024).await.unwrap(), 200);
    assert_eq!(get(64 * 1024).await.unwrap(), 431);
}

#[tokio::test]
async fn a_long_backup_is_not_idle() {
    let limits = Limits {
        header_read: Duration::from_millis(100),
        idle: Duration::from_millis(100),
        ..LIMITS
    };
    let server = Harness::start(Auth::Open, limits, NO_DRAIN).await;
    server.fake.script(Script::Manual);
    let mut reader = server.connect().await;
    reader
        .write_all(
            b"GET /v1/backup HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let mut head = [0; 1];
    reader.read_exact(&mut head).await.unwrap();
    // Another connection that opens and is closed for idleness shows that the limits have passed.
    server.raw("").await;
    let sender = server.fake.take();
    sender.chunks.send("late".into()).await.unwrap();
    drop(sender.chunks);
    sender
        .verdict
        .send(crate::harness::verdict(None, 4))
        .unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.contains("late") && rest.contains("x-streaming-error: \r\n"),
        "{rest}"
    );
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let limits = Limits {
        connections: 1,
        ..LIMITS
    };
    let server = Harness::start(Auth::Open, limits, NO_DRAIN).await;
    let mut first = server.connect().await;
    first
        .write_all(b"GET /v1/info HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0; 1];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = server.connect().await;
    second
        .write_all(b"GET /v1/info HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let early =
        tokio::time::timeout(Duration::from_millis(100), second.read_exact(&mut byte)).await;
    assert!(early.is_err(), "the second one is not served yet");
    drop(first);
    tokio::time::timeout(PATIENCE, second.read_exact(&mut byte))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_the_engine_refuses_is_a_problem() {
    let server = Harness::open().await;
    server.fake.refuse(StartError::Busy {
        id: "b-7".to_owned(),
        retry_after: Duration::from_secs(30),
    });
    let answer = server.request("GET /v1/backup", "").await;
    assert_eq!(answer.status(), 409);
    assert_eq!(answer.header("retry-after").as_deref(), Some("30"));
    assert_eq!(answer.json()["backupId"], "b-7");
    assert_eq!(answer.json()["type"], "urn:towline:problem:busy");
    server.fake.refuse(StartError::Draining);
    let answer = server.request("GET /v1/backup", "").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.json()["type"], "urn:towline:problem:draining");
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_next_request_is_served() {
    let server = Harness::open().await;
    server.fake.script(Script::Panic);
    let answer = server.request("GET /v1/backup", "").await;
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.json()["type"], "urn:towline:problem:internal");
    server.fake.script(Script::complete("archive"));
    assert_eq!(server.request("GET /v1/backup", "").await.status(), 200);
}

#[tokio::test]
async fn info_answers_without_a_database() {
    let server = Harness::open().await;
    let answer = server.request("GET /v1/info", "").await;
    assert_eq!(answer.status(), 200);
    let info = answer.json();
    assert!(
        info["capabilities"]
            .as_array()
            .unwrap()
            .contains(&"max-rate".into())
    );
    assert!(
        info["capabilities"]
            .as_array()
            .unwrap()
            .contains(&"recipient".into())
    );
    assert!(info["databaseError"].as_str().unwrap().contains("nowhere"));
    assert_eq!(info["database"], serde_json::Value::Null);
}

#[tokio::test]
async fn probes_need_no_credentials_and_no_database() {
    let server = Harness::open().await;
    let get = async |path: &str| {
        raw(
            server.admin,
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await
        .status()
    };
    assert_eq!(get("/livez").await, 200);
    assert_eq!(get("/readyz").await, 200);
    assert_eq!(get("/metrics").await, 200);
    assert_eq!(get("/v1/info").await, 404);
}

use crate::harness::{Harness, LIMITS, NO_DRAIN, PATIENCE, Script, eventually, raw, verdict};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use towline_agent::server::{Auth, DrainTimes};

const GET: &[u8] = b"GET /v1/backup HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n";

async fn probe(server: &Harness, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    raw(server.admin, request.as_bytes()).await.status()
}

/// A reader of a manual backup whose head has arrived.
async fn reading(server: &Harness) -> TcpStream {
    server.fake.script(Script::Manual);
    let mut reader = server.connect().await;
    reader.write_all(GET).await.unwrap();
    let mut byte = [0; 1];
    reader.read_exact(&mut byte).await.unwrap();
    reader
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well as any.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the connection ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn idle_and_half_sent_connections_close_while_a_backup_goes_on() {
    let mut server = Harness::open().await;
    let mut reader = reading(&server).await;
    let mut idle = Vec::new();
    for half in [
        &b""[..],
        b"G",
        b"GET /v1/info HTTP/1.1\r\nHost: a\r\nX-Half",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(half).await.unwrap();
        idle.push(stream);
    }
    // A connection kept alive after its first answer.
    let mut kept = server.connect().await;
    kept.write_all(b"GET /v1/none HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    kept.read_exact(&mut answer).await.unwrap();
    idle.push(kept);

    server.signal();
    for stream in &mut idle {
        rest(stream).await;
    }
    assert!(!server.served.is_finished(), "the backup goes on");
    assert!(
        TcpStream::connect(server.addr).await.is_err(),
        "the listener is closed"
    );
    assert_eq!(probe(&server, "/readyz").await, 503);
    assert_eq!(probe(&server, "/livez").await, 200);

    let sender = server.fake.take();
    sender.chunks.send("late data".into()).await.unwrap();
    drop(sender.chunks);
    sender.verdict.send(verdict(None, 9)).unwrap();
    server.fake.idle();
    let text = rest(&mut reader).await;
    assert!(
        text.contains("late data") && text.contains("x-streaming-error: \r\n"),
        "{text}"
    );
    timeout(PATIENCE, server.served)
        .await
        .expect("the server ends")
        .unwrap();
}

#[tokio::test]
async fn during_the_delay_requests_are_answered_and_backups_refused() {
    let drain = DrainTimes {
        delay: PATIENCE,
        timeout: PATIENCE,
    };
    let mut server = Harness::start(Auth::Open, LIMITS, drain).await;
    server.signal();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while probe(&server, "/readyz").await != 503 {
        assert!(tokio::time::Instant::now() < deadline);
    }
    assert_eq!(server.request("GET /v1/info", "").await.status(), 200);
    let answer = server.request("GET /v1/backup", "").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json()["type"], "urn:towline:problem:draining");
    assert!(answer.header("retry-after").is_some());
    server.served.abort();
}

#[tokio::test]
async fn a_backup_that_outlasts_the_drain_ends_in_an_honest_trailer() {
    let drain = DrainTimes {
        delay: Duration::ZERO,
        timeout: Duration::from_millis(50),
    };
    let mut server = Harness::start(Auth::Open, LIMITS, drain).await;
    let mut reader = reading(&server).await;
    server.signal();
    let text = rest(&mut reader).await;
    assert!(
        text.contains("x-streaming-error-reason: Draining"),
        "{text}"
    );
    timeout(PATIENCE, server.served)
        .await
        .expect("the server ends")
        .unwrap();
}

#[tokio::test]
async fn without_anything_to_do_it_ends_at_once() {
    let mut server = Harness::start(Auth::Open, LIMITS, NO_DRAIN).await;
    server.signal();
    timeout(PATIENCE / 2, server.served)
        .await
        .expect("well before the drain timeout")
        .unwrap();
}

#[tokio::test]
async fn a_complete_backup_is_flushed_to_a_slow_reader() {
    let mut server = Harness::open().await;
    server.fake.script(Script::Manual);
    let mut reader = server.connect().await;
    reader.write_all(GET).await.unwrap();
    eventually("started", || (server.fake.starts() == 1).then_some(())).await;
    let sender = server.fake.take();
    let chunk = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    // Until the socket is full: the last bytes then wait in hyper.
    let mut sent = 0;
    while let Ok(Ok(())) = timeout(
        Duration::from_millis(300),
        sender.chunks.send(chunk.clone()),
    )
    .await
    {
        sent += chunk.len() as u64;
    }
    drop(sender.chunks);
    sender.verdict.send(verdict(None, sent)).unwrap();
    server.fake.idle();
    server.signal();
    let listening = async {
        while TcpStream::connect(server.addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, listening)
        .await
        .expect("the listener closes");
    let text = rest(&mut reader).await;
    assert!(text.len() as u64 > sent, "{} of {sent}", text.len());
    assert!(
        text.ends_with("\r\n\r\n") && text[text.len() - 400..].contains("x-streaming-error: \r\n")
    );
    timeout(PATIENCE, server.served)
        .await
        .expect("the server ends")
        .unwrap();
}

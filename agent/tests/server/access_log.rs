use crate::harness::{Harness, STDERR, Script, eventually};
use crate::log::Log;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use towline_agent::protocol::StreamReason;

#[tokio::test]
async fn what_a_line_tells() {
    let (log, _guard) = Log::start();
    let server = Harness::open().await;
    let headers = "TE: trailers\r\nUser-Agent: test/1\r\nX-Request-Id: id-1\r\nAuthorization: Bearer secret\r\n";
    let answer = server.request("GET /v1/backup?level=4", headers).await;
    assert_eq!(answer.header("x-request-id").as_deref(), Some("id-1"));
    let line = log.line().await;
    for (field, value) in [
        ("method", Value::from("GET")),
        ("path", "/v1/backup".into()),
        ("protocol", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("request_bytes", 0.into()),
        ("response_bytes", 7.into()),
        ("user_agent", "test/1".into()),
        ("request_id", "id-1".into()),
        ("peer", "anyone".into()),
        ("end", "trailers".into()),
        ("verdict", "complete".into()),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(line["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(line["elapsed_ms"].is_u64());
    assert!(!log.text().contains("secret"));
    assert_eq!(log.lines().len(), 1);
}

#[tokio::test]
async fn secrets_in_a_query_are_not_logged() {
    let (log, _guard) = Log::start();
    let server = Harness::open().await;
    let answer = server
        .request("GET /v1/info?token=secret", "X-Request-Id: \x7f\r\n")
        .await;
    assert_eq!(answer.status(), 400, "hyper refuses DEL in a header");
    server
        .request("GET /v1/info?token=secret", "X-Request-Id: has blanks\r\n")
        .await;
    let line = log.line().await;
    assert_eq!(line["path"], "/v1/info");
    assert_ne!(line["request_id"], "has blanks");
    assert!(!log.text().contains("secret"));
}

#[tokio::test]
async fn a_panic_and_a_reader_that_leaves_before_the_head_are_logged() {
    let (log, _guard) = Log::start();
    let server = Harness::open().await;
    server.fake.script(Script::Panic);
    server.request("GET /v1/backup", "").await;
    let line = log.line().await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&500.into(), &"complete".into())
    );
    assert_eq!(line["error"], "a handler panicked");

    server.fake.script(Script::Hang);
    let mut client = server.connect().await;
    client
        .write_all(b"GET /v1/backup HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    eventually("started", || (server.fake.starts() == 2).then_some(())).await;
    drop(client);
    let lines = eventually("a second line", || {
        Some(log.lines()).filter(|lines| lines.len() == 2)
    })
    .await;
    assert_eq!(lines[1]["end"], "disconnected");
    assert_eq!(lines[1]["status"], Value::Null);
}

/// How one exchange goes.
#[derive(Clone, Debug)]
struct Exchange {
    chunks: Vec<Bytes>,
    ending: Ending,
    http2: bool,
    te: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Complete,
    Failed(StreamReason),
    Vanishes,
    ReaderLeaves,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let chunk =
        prop_oneof![1..20usize, 1..40_000usize].prop_map(|len| Bytes::from(vec![b'x'; len]));
    let ending = prop_oneof![
        Just(Ending::Complete),
        proptest::sample::select(&StreamReason::ALL[..]).prop_map(Ending::Failed),
        Just(Ending::Vanishes),
        Just(Ending::ReaderLeaves),
    ];
    (
        proptest::collection::vec(chunk, 0..6),
        ending,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(chunks, ending, http2, te)| Exchange {
            chunks,
            ending,
            http2,
            te,
        })
}

/// Plays the exchange as a client; returns the bytes of body received and whether it ended cleanly.
async fn play(server: &Harness, exchange: &Exchange) -> Option<(Vec<u8>, bool)> {
    let leaves = exchange.ending == Ending::ReaderLeaves;
    server.fake.script(match exchange.ending {
        Ending::Complete => Script::Run {
            chunks: exchange.chunks.clone(),
            failed: Some(None),
        },
        Ending::Failed(reason) => Script::Run {
            chunks: exchange.chunks.clone(),
            failed: Some(Some(reason)),
        },
        Ending::Vanishes => Script::Run {
            chunks: exchange.chunks.clone(),
            failed: None,
        },
        Ending::ReaderLeaves => Script::Manual,
    });
    let io = TokioIo::new(TcpStream::connect(server.addr).await.unwrap());
    let mut request = Request::get(format!("http://{}/v1/backup", server.addr)).header("host", "a");
    if exchange.te {
        request = request.header("te", "trailers");
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let (connection, response) = if exchange.http2 {
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        (connection, client.send_request(request).await.unwrap())
    } else {
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        (connection, client.send_request(request).await.unwrap())
    };
    if leaves {
        let sender = server.fake.take();
        let mut body = response.into_body();
        for chunk in &exchange.chunks {
            sender.chunks.send(chunk.clone()).await.unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert!(frame.is_data());
        }
        connection.abort();
        drop(body);
        // The producer learns of it.
        sender.chunks.closed().await;
        return None;
    }
    let mut body = response.into_body();
    let mut received = Vec::new();
    let mut clean = true;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => received.extend(frame.into_data().unwrap_or_default()),
            Err(_) => {
                clean = false;
                break;
            }
        }
    }
    connection.abort();
    Some((received, clean))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Random bodies and endings: one line each, with the right bytes, end and verdict.
    #[test]
    fn one_line_per_request_whatever_ends_it(exchanges in proptest::collection::vec(exchange(), 1..3)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (log, _guard) = Log::start();
        runtime.block_on(async {
            let server = Harness::open().await;
            for (before, exchange) in exchanges.iter().enumerate() {
                let received = play(&server, exchange).await;
                let lines = eventually("a line", || Some(log.lines()).filter(|l| l.len() > before)).await;
                assert_eq!(lines.len(), before + 1, "{exchange:?}");
                let line = &lines[before];
                let total: usize = exchange.chunks.iter().map(Bytes::len).sum();
                assert_eq!(line["response_bytes"], total, "{exchange:?}: {line}");
                assert_eq!(line["status"], 200);
                let can = exchange.http2 || exchange.te;
                let (end, verdict, clean) = match exchange.ending {
                    Ending::Complete => (if can { "trailers" } else { "complete" }, Value::from("complete"), true),
                    // Over HTTP/2, too, a failure is a trailer only for who asked for trailers.
                    Ending::Failed(reason) => (if exchange.te { "trailers" } else { "aborted" }, reason.as_str().into(), exchange.te),
                    Ending::Vanishes => ("aborted", Value::Null, false),
                    Ending::ReaderLeaves => ("disconnected", Value::Null, false),
                };
                assert_eq!((&line["end"], &line["verdict"]), (&end.into(), &verdict), "{exchange:?}: {line}");
                if let Some((received, ended_cleanly)) = received {
                    assert_eq!(ended_cleanly, clean, "{exchange:?}");
                    // A cut may overtake what was sent before it; a clean end never does.
                    assert!(received.len() == total || !clean && received.len() < total, "{exchange:?}");
                }
            }
        });
        // Nothing is written later, either.
        drop(runtime);
        prop_assert_eq!(log.lines().len(), exchanges.len());
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_producer_back() {
    let server = Harness::open().await;
    server.fake.script(Script::Manual);
    let mut reader = server.connect().await;
    reader
        .write_all(
            b"GET /v1/backup HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    eventually("started", || (server.fake.starts() == 1).then_some(())).await;
    let sender = server.fake.take();
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    // Sockets hold some MiB; a wrapper that buffered would take all of this.
    let mut sent = 0u64;
    while sent < 256 {
        match tokio::time::timeout(
            std::time::Duration::from_millis(300),
            sender.chunks.send(chunk.clone()),
        )
        .await
        {
            Ok(sent_one) => sent_one.unwrap(),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!(sent < 64, "{sent} MiB were taken with nobody reading");
    drop(sender.chunks);
    sender
        .verdict
        .send(crate::harness::verdict(Some(StreamReason::ToolFailed), 0))
        .unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() as u64 > sent << 20);
    let tail = String::from_utf8_lossy(&rest[rest.len() - 400..]).into_owned();
    assert!(
        tail.contains("x-streaming-error-reason: ToolFailed"),
        "{tail} {STDERR}"
    );
}

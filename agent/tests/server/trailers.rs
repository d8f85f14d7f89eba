//! Whether the verdict can be delivered, and that a failure is never a clean end.

use crate::harness::{Answer, Harness, PATIENCE, STDERR, Script};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use towline_agent::protocol::{StreamReason, decode_error};
use towline_agent::server::te_has_trailers;

/// `TE` header lines of a request, as they may be met.
const TE_LINES: &[&[&[u8]]] = &[
    &[],
    &[b""],
    &[b"trailers"],
    &[b"Trailers"],
    &[b"TRAILERS"],
    &[b" \ttrailers\t "],
    &[b"gzip, trailers"],
    &[b"trailers, deflate;q=0.5"],
    &[b"gzip,trailers,"],
    &[b"gzip", b"trailers"],
    &[b"\xff", b"trailers"],
    &[b"trailers, \xff"],
    &[b"trailers, \t"],
    &[b"trailers;q=0.5"],
    &[b"trailers;"],
    &[b"trailers ;q=1"],
    &[b"trailer"],
    &[b"xtrailers"],
    &[b"trailersx"],
    &[b"\"trailers\""],
    &[b"gzip;trailers"],
    &[b"gzip trailers"],
    &[b"chunked"],
];

fn request(path: &str, te: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n").into_bytes();
    for line in te {
        bytes.extend_from_slice(b"TE: ");
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// What hyper itself does with a body that always ends in a declared trailer, and what our rule
/// says of the headers that hyper parsed.
async fn hyper_says(te: &[&[u8]]) -> (bool, bool) {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let ours = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = ours.clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        *seen.lock().unwrap() = Some(te_has_trailers(request.headers()));
        async {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", HeaderValue::from_static("here"));
            let frames = [
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"data"))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures::stream::iter(frames));
            let mut response = Response::new(body);
            response
                .headers_mut()
                .insert("trailer", HeaderValue::from_static("X-End"));
            Ok::<_, Infallible>(response)
        }
    });
    let serve =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let read = async {
        client.write_all(&request("/", te)).await.unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let (served, bytes) = tokio::join!(serve, read);
    served.unwrap();
    let hyper = String::from_utf8_lossy(&bytes).contains("x-end: here");
    let ours = ours.lock().unwrap().take().expect("the request was served");
    (hyper, ours)
}

#[tokio::test]
async fn our_rule_for_te_is_hypers() {
    let mut sent = 0;
    for te in TE_LINES {
        let (hyper, ours) = hyper_says(te).await;
        assert_eq!(ours, hyper, "{te:?}");
        sent += usize::from(hyper);
    }
    assert!(
        sent > 5 && sent < TE_LINES.len() - 5,
        "the table has both kinds"
    );
}

/// `TE` lines that are nearly right, and any others that HTTP/1.1 can carry.
fn te_lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let word = prop_oneof![
        4 => proptest::sample::select(vec![
            "trailers", "Trailers", "TRAILERS", "gzip", "trailers;q=0.5", "deflate;q=0.5", "",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        // Field values: visible ASCII, blanks, and bytes that are no ASCII (RFC 9110, 5.5).
        1 => proptest::collection::vec(
            prop_oneof![Just(b'\t'), 0x20..=0x7eu8, 0x80..=0xffu8], 0..6),
    ];
    let glue = proptest::sample::select(vec![",", ", ", " ,\t", ";", " ", ",,"]);
    let line = proptest::collection::vec((word, glue), 0..4).prop_map(|parts| {
        parts
            .iter()
            .flat_map(|(word, glue)| [&word[..], glue.as_bytes()].concat())
            .collect()
    });
    proptest::collection::vec(line, 0..3)
}

proptest! {
    #[test]
    fn our_rule_is_hypers_whatever_is_sent(lines in te_lines(), cut in any::<bool>()) {
        let lines: Vec<&[u8]> = lines
            .iter()
            // Without the last glue as often as with it.
            .map(|line| line.strip_suffix(b",").filter(|_| cut).unwrap_or(line))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (hyper, ours) = runtime.block_on(hyper_says(&lines));
        prop_assert_eq!(ours, hyper);
    }
}

#[tokio::test]
async fn a_failure_is_a_trailer_or_a_cut_whatever_te_says() {
    let server = Harness::open().await;
    server.fake.script(Script::failed("some data"));
    for te in TE_LINES {
        let (can, _) = hyper_says(te).await;
        let answer = server.raw(request("/v1/backup", te)).await;
        assert_eq!(answer.status(), 200, "{te:?}");
        assert_eq!(answer.ended_cleanly(), can, "{te:?}: {}", answer.text());
        assert_eq!(answer.header("trailer").is_some(), can, "{te:?}");
        // Whoever gets no trailers gets what is known early as a header.
        assert_eq!(
            answer.header("server-timing").as_deref(),
            (!can).then_some("precheck;dur=12.0"),
            "{te:?}"
        );
        if can {
            let error = answer.trailer("x-streaming-error").unwrap();
            assert_eq!(decode_error(error.as_bytes()), STDERR);
            assert_eq!(
                answer.trailer("x-streaming-error-reason").as_deref(),
                Some("ToolFailed")
            );
            assert_eq!(answer.trailer("x-backup-bytes").as_deref(), Some("9"));
        }
    }
}

#[tokio::test]
async fn success_and_its_headers() {
    let server = Harness::open().await;
    for (te, can) in [("", false), ("TE: trailers\r\n", true)] {
        let answer = server.request("GET /v1/backup?compression=zstd", te).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.ended_cleanly());
        assert_eq!(
            answer.header("content-type").as_deref(),
            Some("application/zstd")
        );
        assert_eq!(
            answer.header("content-disposition").as_deref(),
            Some("attachment; filename=\"db-1.tar.zst\"")
        );
        assert_eq!(answer.header("x-backup-id").as_deref(), Some("b-1"));
        assert_eq!(
            answer.header("x-backup-estimated-bytes").as_deref(),
            Some("12345")
        );
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(
            answer.trailer("x-streaming-error").as_deref(),
            can.then_some("")
        );
        assert_eq!(answer.trailer("repr-digest").is_some(), can);
    }
}

#[tokio::test]
async fn a_producer_that_vanishes_is_a_cut_in_both_negotiations() {
    let server = Harness::open().await;
    server.fake.script(Script::Run {
        chunks: vec![Bytes::from_static(b"half")],
        failed: None,
    });
    for te in ["", "TE: trailers\r\n"] {
        let answer = server.request("GET /v1/backup", te).await;
        assert_eq!(answer.status(), 200);
        assert!(!answer.ended_cleanly(), "{}", answer.text());
    }
}

/// One request over HTTP/2 with prior knowledge.
async fn h2(server: &Harness, te: Option<&'static str>) -> Response<hyper::body::Incoming> {
    let io = TokioIo::new(TcpStream::connect(server.addr).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::get(format!("http://{}/v1/backup", server.addr));
    if let Some(te) = te {
        request = request.header("te", te);
    }
    let response = client
        .send_request(request.body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    // The connection must outlive the body.
    tokio::spawn(async move {
        client.ready().await.ok();
        tokio::time::sleep(PATIENCE).await;
        drop(client);
    });
    response
}

#[tokio::test]
async fn http2_tells_of_a_failure_by_trailers_who_asks_and_by_a_reset_who_does_not() {
    let server = Harness::open().await;
    for te in [None, Some("trailers")] {
        server.fake.script(Script::failed("some data"));
        let response = h2(&server, te).await;
        assert_eq!(
            response.headers().contains_key("server-timing"),
            te.is_none()
        );
        let ended = response.into_body().collect().await;
        if te.is_some() {
            let trailers = ended.unwrap().trailers().expect("trailers").clone();
            assert_eq!(
                decode_error(trailers["x-streaming-error"].as_bytes()),
                STDERR
            );
            assert_eq!(trailers["x-streaming-error-reason"], "ToolFailed");
        } else {
            // RST_STREAM with INTERNAL_ERROR: NO_ERROR would read as a clean end.
            let error = ended.unwrap_err();
            let cause = std::error::Error::source(&error)
                .expect("a cause")
                .to_string();
            assert!(cause.contains("internal error"), "{cause}");
        }

        server.fake.script(Script::complete("some data"));
        let body = h2(&server, te).await.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().expect("trailers")["x-streaming-error"], "");
    }
}

#[tokio::test]
async fn http2_cuts_with_an_error_code() {
    let server = Harness::open().await;
    server.fake.script(Script::Run {
        chunks: vec![Bytes::from_static(b"half")],
        failed: None,
    });
    let error = h2(&server, None)
        .await
        .into_body()
        .collect()
        .await
        .unwrap_err();
    let shown = format!("{error:?}");
    assert!(shown.contains("INTERNAL_ERROR"), "{shown}");
}

#[tokio::test]
async fn every_reason_reaches_the_trailer() {
    let server = Harness::open().await;
    for reason in StreamReason::ALL {
        server.fake.script(Script::Run {
            chunks: Vec::new(),
            failed: Some(Some(reason)),
        });
        let answer: Answer = server.request("GET /v1/backup", "TE: trailers\r\n").await;
        assert_eq!(
            answer.trailer("x-streaming-error-reason").as_deref(),
            Some(reason.as_str())
        );
    }
}

//! TLS on the listener of /v1: versions, protocols, and the limits of a handshake.

use crate::harness::{Harness, LIMITS, NO_DRAIN, PATIENCE, Script, eventually, verdict};
use crate::log::Log;
use crate::pki::{self, Access, Ca, Client, Mount, failures, metric, rest};
use rustls::HandshakeKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use towline_agent::server::Limits;

const HTTP1: &[&str] = &["http/1.1"];

/// An agent that everybody may call over TLS.
struct Secured {
    ca: Ca,
    server: Harness,
    _mount: Mount,
}

impl Secured {
    async fn start(limits: Limits) -> Self {
        let ca = Ca::new("ca");
        let mount = Mount::of(&ca.server(), &ca);
        let server = pki::start(&mount, Access::Open, limits, NO_DRAIN).await;
        Self {
            ca,
            server,
            _mount: mount,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.ca, None, HTTP1)
    }

    async fn metric(&self, line: &str) -> Option<f64> {
        metric(&self.server, line).await
    }
}

#[tokio::test]
async fn versions_and_protocols() {
    let secured = Secured::start(LIMITS).await;
    let addr = secured.server.addr;
    for version in rustls::ALL_VERSIONS {
        for (offered, agreed) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1", "h2"], Some("h2")),
            (&["h2"], Some("h2")),
            (HTTP1, Some("http/1.1")),
            (&["spdy/3", "http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let client = Client::with_versions(&secured.ca, None, offered, &[*version]);
            let stream = client.connect(addr).await.unwrap();
            let (_, session) = stream.get_ref();
            let alpn = session.alpn_protocol().map(String::from_utf8_lossy);
            assert_eq!(alpn.as_deref(), agreed, "{version:?} {offered:?}");
            assert_eq!(session.protocol_version(), Some(version.version));
            if agreed != Some("h2") {
                let answer = client.request(addr, "GET /v1/backup").await.unwrap();
                assert_eq!(answer.status(), 200);
                assert_eq!(answer.trailer("x-streaming-error").as_deref(), Some(""));
            }
        }
        let client = Client::with_versions(&secured.ca, None, &["spdy/3"], &[*version]);
        assert!(client.connect(addr).await.is_err());
    }
}

#[tokio::test]
async fn every_handshake_is_a_full_one() {
    let secured = Secured::start(LIMITS).await;
    for version in rustls::ALL_VERSIONS {
        let client = Client::with_versions(&secured.ca, None, HTTP1, &[*version]);
        for _ in 0..3 {
            let mut stream = client.connect(secured.server.addr).await.unwrap();
            // A whole exchange: tickets would come behind the handshake.
            let request = pki::request("GET /v1/info");
            stream.write_all(request.as_bytes()).await.unwrap();
            rest(&mut stream).await;
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Full), "{version:?}");
        }
    }
}

#[tokio::test]
async fn plain_http_gets_no_answer() {
    let secured = Secured::start(LIMITS).await;
    for request in [
        pki::request("GET /v1/info"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut stream = secured.server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        // A TLS alert, if anything.
        assert!(answer.len() <= 7, "{}", String::from_utf8_lossy(&answer));
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    assert_eq!(failures(&secured.server, "protocol").await, 2.0);
    assert_eq!(secured.server.fake.starts(), 0);
}

/// The first flight of a real client.
async fn client_hello(client: &Client) -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let client = client.clone();
    let connecting = tokio::spawn(async move { client.connect(addr).await.map(drop) });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut header = [0; 5];
    stream.read_exact(&mut header).await.unwrap();
    let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut hello).await.unwrap();
    connecting.abort();
    [&header[..], &hello].concat()
}

#[tokio::test]
async fn handshakes_that_take_too_long_are_closed() {
    let secured = Secured::start(Limits {
        header_read: Duration::from_millis(500),
        ..LIMITS
    })
    .await;
    let hello = client_hello(&secured.client()).await;
    let mut silent = Vec::new();
    for sent in [&hello[..0], &hello[..1], &hello[..hello.len() / 2], &hello] {
        let mut stream = secured.server.connect().await;
        stream.write_all(sent).await.unwrap();
        silent.push(stream);
    }
    for stream in &mut silent {
        rest(stream).await;
    }
    assert_eq!(failures(&secured.server, "timeout").await, 4.0);
    // One byte at a time is no way around it.
    let stream = secured.server.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let drip = tokio::spawn(async move {
        for byte in hello.iter().cycle() {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    rest(&mut reader).await;
    drip.abort();
    assert_eq!(failures(&secured.server, "timeout").await, 5.0);
}

#[tokio::test]
async fn after_the_handshake_the_limits_are_those_of_plain_http() {
    let secured = Secured::start(Limits {
        header_read: Duration::from_secs(2),
        ..LIMITS
    })
    .await;
    let mut idle = secured.client().connect(secured.server.addr).await.unwrap();
    let mut half = secured.client().connect(secured.server.addr).await.unwrap();
    half.write_all(b"GET /v1/info HT").await.unwrap();
    rest(&mut idle).await;
    rest(&mut half).await;
}

#[tokio::test]
async fn a_handshake_holds_a_connections_place() {
    let secured = Secured::start(Limits {
        connections: 1,
        ..LIMITS
    })
    .await;
    let silent = secured.server.connect().await;
    let open = "towline_agent_http_connections";
    let accepted = async { while secured.metric(open).await != Some(1.0) {} };
    timeout(PATIENCE, accepted).await.expect("it is accepted");
    let client = secured.client();
    let addr = secured.server.addr;
    let second = tokio::spawn(async move { client.connect(addr).await.map(drop) });
    // The second one is in the kernel's queue and stays there.
    for _ in 0..20 {
        assert_eq!(secured.metric(open).await, Some(1.0));
        assert!(!second.is_finished());
    }
    drop(silent);
    let connected = timeout(PATIENCE, second).await.expect("its turn comes");
    connected.unwrap().unwrap();
    assert_eq!(failures(&secured.server, "disconnected").await, 1.0);
}

#[tokio::test]
async fn a_stop_closes_half_made_handshakes_while_a_backup_goes_on() {
    let mut secured = Secured::start(LIMITS).await;
    secured.server.fake.script(Script::Manual);
    let mut reader = secured.client().connect(secured.server.addr).await.unwrap();
    reader
        .write_all(pki::request("GET /v1/backup").as_bytes())
        .await
        .unwrap();
    eventually("started", || {
        (secured.server.fake.starts() == 1).then_some(())
    })
    .await;
    let hello = client_hello(&secured.client()).await;
    let mut half = Vec::new();
    for sent in [&hello[..0], &hello[..hello.len() / 2], &hello] {
        let mut stream = secured.server.connect().await;
        stream.write_all(sent).await.unwrap();
        half.push(stream);
    }
    let mut idle = secured.client().connect(secured.server.addr).await.unwrap();
    let mut kept = secured.client().connect(secured.server.addr).await.unwrap();
    kept.write_all(b"GET /v1/none HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    kept.read_exact(&mut [0; 12]).await.unwrap();
    secured.server.signal();
    for stream in &mut half {
        rest(stream).await;
    }
    rest(&mut idle).await;
    // A client that keeps connections is told of the end as TLS wants it.
    let closed = timeout(PATIENCE, kept.read_to_end(&mut Vec::new())).await;
    closed.expect("it ends").expect("with a close_notify");
    assert!(!secured.server.served.is_finished(), "the backup goes on");
    let sender = secured.server.fake.take();
    sender.chunks.send("late data".into()).await.unwrap();
    drop(sender.chunks);
    sender.verdict.send(verdict(None, 9)).unwrap();
    secured.server.fake.idle();
    let text = String::from_utf8(rest(&mut reader).await).unwrap();
    assert!(
        text.contains("late data") && text.contains("x-streaming-error: \r\n"),
        "{text}"
    );
    timeout(PATIENCE, secured.server.served)
        .await
        .expect("the server ends")
        .unwrap();
    // They did not fail: they were not let finish.
    let lines = secured.server.registry.gather();
    let failed = lines
        .iter()
        .find(|family| family.name() == "towline_agent_tls_handshake_failures_total");
    let failed = failed.unwrap().get_metric().iter();
    assert!(
        failed
            .into_iter()
            .all(|m| m.get_counter().get_value() == 0.0)
    );
}

#[tokio::test]
async fn a_complete_backup_reaches_a_slow_reader_whole_although_the_agent_is_stopped() {
    let mut secured = Secured::start(LIMITS).await;
    secured.server.fake.script(Script::Manual);
    let mut reader = secured.client().connect(secured.server.addr).await.unwrap();
    reader
        .write_all(pki::request("GET /v1/backup").as_bytes())
        .await
        .unwrap();
    eventually("started", || {
        (secured.server.fake.starts() == 1).then_some(())
    })
    .await;
    let sender = secured.server.fake.take();
    let chunk = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    // Until the socket is full: the last bytes then wait in hyper and in TLS.
    let mut sent = 0;
    while let Ok(Ok(())) = timeout(
        Duration::from_millis(300),
        sender.chunks.send(chunk.clone()),
    )
    .await
    {
        sent += chunk.len();
    }
    drop(sender.chunks);
    sender.verdict.send(verdict(None, sent as u64)).unwrap();
    secured.server.fake.idle();
    secured.server.signal();
    let listening = async {
        while TcpStream::connect(secured.server.addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, listening)
        .await
        .expect("the listener closes");
    let mut bytes = Vec::new();
    // An end without a close_notify would be an error here.
    timeout(PATIENCE, reader.read_to_end(&mut bytes))
        .await
        .expect("it ends")
        .expect("it ends as TLS wants it");
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.len() > sent, "{} of {sent}", text.len());
    assert!(text[text.len() - 400..].contains("x-streaming-error: \r\n"));
}

#[tokio::test]
async fn failed_handshakes_do_not_fill_the_log() {
    let (log, _guard) = Log::start();
    let secured = Secured::start(LIMITS).await;
    for _ in 0..50 {
        let mut stream = secured.server.connect().await;
        stream.write_all(&[b'x'; 64]).await.unwrap();
        rest(&mut stream).await;
    }
    assert_eq!(failures(&secured.server, "protocol").await, 50.0);
    let lines = log.text().matches("TLS handshake failed").count();
    assert!((1..10).contains(&lines), "{lines} lines");
}

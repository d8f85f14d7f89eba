//! The agent's certificate: files of no use, expiry, and renewal without a restart.

use crate::harness::{LIMITS, NO_DRAIN, Script, eventually, verdict};
use crate::log::Log;
use crate::pki::{self, Access, Ca, Client, Mount, failures, metric, rest};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt as _;
use towline_agent::metrics::TlsMetrics;
use towline_agent::server::{ClientCertificates, Tls, TlsFlags};

const HTTP1: &[&str] = &["http/1.1"];

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[tokio::test]
async fn a_renewed_certificate_counts_from_the_next_handshake_on() {
    const EXPIRY: &str = "towline_agent_tls_certificate_expiry_timestamp_seconds";
    let ca = Ca::new("ca");
    let until = SystemTime::now() + Duration::from_secs(3600);
    let old = ca.server_until(until);
    let mut mount = Mount::of(&old, &ca);
    let server = pki::start(&mount, Access::Open, LIMITS, NO_DRAIN).await;
    let client = Client::new(&ca, None, HTTP1);
    assert_eq!(metric(&server, EXPIRY).await, Some(unix(until) as f64));
    server.fake.script(Script::Manual);
    let mut running = client.connect(server.addr).await.unwrap();
    running
        .write_all(pki::request("GET /v1/backup").as_bytes())
        .await
        .unwrap();
    eventually("started", || (server.fake.starts() == 1).then_some(())).await;

    let until = SystemTime::now() + Duration::from_secs(7200);
    let new = ca.server_until(until);
    mount.publish(&Mount::files(&new, &ca.pem()));
    // Known before anybody connects.
    assert_eq!(metric(&server, EXPIRY).await, Some(unix(until) as f64));
    let served = async || {
        let stream = client.connect(server.addr).await.unwrap();
        let (_, session) = stream.get_ref();
        session.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(served().await, new.der);

    // What is running goes on.
    let sender = server.fake.take();
    sender.chunks.send("late data".into()).await.unwrap();
    drop(sender.chunks);
    sender.verdict.send(verdict(None, 9)).unwrap();
    server.fake.idle();
    let text = String::from_utf8(rest(&mut running).await).unwrap();
    assert!(
        text.contains("late data") && text.contains("x-streaming-error: \r\n"),
        "{text}"
    );

    // What is of no use leaves the last good pair in force, until it changes again.
    let (log, _guard) = Log::start();
    let other = ca.server();
    for (cert, key) in [
        ("", new.key.as_str()),
        ("no certificate", &new.key),
        (&other.cert, &new.key),
        (&new.cert, &other.key),
        (&new.cert, ""),
    ] {
        mount.publish(&[("tls.crt", cert), ("tls.key", key)]);
        for _ in 0..3 {
            assert_eq!(served().await, new.der);
        }
    }
    mount.publish(&[]);
    assert_eq!(served().await, new.der);
    let complaints = || log.text().matches("not re-read").count();
    assert_eq!(complaints(), 6, "one line for each change: {}", log.text());
    for leaf in [&new, &other] {
        let secret = leaf.key.lines().nth(1).unwrap();
        assert!(!log.text().contains(secret), "{}", log.text());
    }
    mount.publish(&Mount::files(&other, &ca.pem()));
    assert_eq!(served().await, other.der);
    assert_eq!(complaints(), 6);
}

async fn open(mount: &Mount) -> Result<Tls, String> {
    let metrics = TlsMetrics::new(&prometheus::Registry::new()).unwrap();
    let clients =
        ClientCertificates::open(mount.path("ca.crt"), vec!["a".to_owned()], TlsFlags::AGENT);
    let clients = clients.await.map_err(|error| error.to_string())?;
    let (cert, key) = (mount.path("tls.crt"), mount.path("tls.key"));
    let tls = Tls::open(
        cert,
        key,
        Some(std::sync::Arc::new(clients)),
        Some(metrics),
        TlsFlags::AGENT,
    );
    tls.await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn files_of_no_use_are_refused_at_the_start() {
    let ca = Ca::new("ca");
    let (leaf, other) = (ca.server(), ca.server());
    let ca = ca.pem();
    let broken = leaf.cert.replace("-----END", "-----BEGIN");
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let garbled_key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cases: [(&str, &str, &str, &[&str]); 12] = [
        ("", &leaf.key, &ca, &["--tls-cert", "holds no certificate"]),
        (
            &leaf.key,
            &leaf.key,
            &ca,
            &["--tls-cert", "holds no certificate"],
        ),
        (&broken, &leaf.key, &ca, &["--tls-cert", "broken"]),
        (garbled, &leaf.key, &ca, &["--tls-cert", "cannot be parsed"]),
        (&leaf.cert, "", &ca, &["--tls-key", "holds no private key"]),
        (
            &leaf.cert,
            &leaf.cert,
            &ca,
            &["--tls-key", "holds no private key"],
        ),
        (&leaf.cert, garbled_key, &ca, &["--tls-key", "of no use"]),
        (
            &leaf.cert,
            encrypted,
            &ca,
            &["--tls-key", "encrypted", "openssl pkey"],
        ),
        (
            &leaf.cert,
            &other.key,
            &ca,
            &["--tls-key", "--tls-cert", "belongs together"],
        ),
        (
            &leaf.cert,
            &leaf.key,
            "",
            &["--client-ca", "holds no certificate"],
        ),
        (
            &leaf.cert,
            &leaf.key,
            garbled,
            &["--client-ca", "of no use"],
        ),
        (&leaf.cert, &leaf.key, &broken, &["--client-ca", "broken"]),
    ];
    for (cert, key, ca, needles) in cases {
        let mount = Mount::new(&[("tls.crt", cert), ("tls.key", key), ("ca.crt", ca)]);
        let error = open(&mount).await.unwrap_err();
        for needle in needles {
            assert!(error.contains(needle), "{needle:?} is not in {error}");
        }
        assert!(
            !error.contains("c2VjcmV0") && !error.contains("secret"),
            "{error}"
        );
    }
    for missing in ["tls.crt", "tls.key", "ca.crt"] {
        let files = [
            ("tls.crt", leaf.cert.as_str()),
            ("tls.key", &leaf.key),
            ("ca.crt", &ca),
        ];
        let files: Vec<_> = files.into_iter().filter(|file| file.0 != missing).collect();
        let error = open(&Mount::new(&files)).await.unwrap_err();
        assert!(
            error.contains(missing) && error.contains("cannot be read"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_expired_certificate_is_a_warning() {
    let (log, _guard) = Log::start();
    let ca = Ca::new("ca");
    let good = Mount::of(&ca.server(), &ca);
    open(&good).await.unwrap();
    assert!(!log.text().contains("expired"));
    let past = SystemTime::now() - Duration::from_secs(60);
    let expired = Mount::of(&ca.server_until(past), &ca);
    let server = pki::start(&expired, Access::Open, LIMITS, NO_DRAIN).await;
    assert!(log.text().contains("has expired"), "{}", log.text());
    let refused = Client::new(&ca, None, HTTP1).connect(server.addr).await;
    assert!(refused.unwrap_err().to_string().contains("expired"));
    eventually("counted", || {
        log.text().contains("refuses --tls-cert").then_some(())
    })
    .await;
    assert_eq!(failures(&server, "refused").await, 1.0);
}

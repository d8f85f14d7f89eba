//! A real TLS server in front of the fake agent: who is trusted, and what is said of who is not.

use crate::{
    agent::{Agent, Step, good},
    job,
    place::Place,
    run, transfer_of,
};
use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use towline_controller::{
    agent_client::Tls,
    pki::{Authority, Issued, Usage},
    reason::{FailureReason, Retry},
};

const DAY: Duration = Duration::from_secs(86_400);

/// A CA, and what it issues.
pub(crate) struct Ca {
    pub(crate) certificate: String,
    authority: Authority,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let now = Timestamp::now();
        let (certificate, key) = Authority::create(now).unwrap();
        let authority = Authority::read(&certificate, &key, now).unwrap();
        Self {
            certificate,
            authority,
        }
    }

    pub(crate) fn issue(&self, usage: Usage, name: &str) -> Issued {
        self.issue_at(usage, name, Timestamp::now())
    }

    fn issue_at(&self, usage: Usage, name: &str, at: Timestamp) -> Issued {
        let names = [name.to_owned()];
        self.authority.issue(usage, &names, DAY, at).unwrap()
    }

    pub(crate) fn trust(&self) -> Tls {
        Tls::new(Some(self.certificate.as_bytes()), None, None).unwrap()
    }

    pub(crate) fn trust_as(&self, us: &Issued) -> Tls {
        let us = (us.certificate.as_bytes(), us.key.as_bytes());
        Tls::new(Some(self.certificate.as_bytes()), Some(us), None).unwrap()
    }
}

/// A certificate that ended a day ago.
pub(crate) fn expired(ca: &Ca, usage: Usage, name: &str) -> Issued {
    let past = Timestamp::now() - SignedDuration::from_hours(48);
    ca.issue_at(usage, name, past)
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A server with this certificate; with `clients`, only for callers that this CA has issued one for.
pub(crate) fn server(
    own: &Issued,
    clients: Option<&str>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ServerConfig {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
                roots.add(certificate.unwrap()).unwrap();
            }
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap(),
            )
        }
    };
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let mut config = builder
        .with_single_cert(vec![der(&own.certificate)], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// One attempt over TLS, at the agent's address or at another name for it.
pub(crate) async fn attempt(
    agent: &Agent,
    tls: Tls,
    name: Option<&str>,
) -> Result<towline_controller::transfer::Success, towline_controller::transfer::Failure> {
    let place = Place::file();
    let mut t = transfer_of(&agent.url, &place.store(8), &job("u"), 1);
    if let Some(name) = name {
        t.agent.base.set_host(Some(name)).unwrap();
    }
    t.agent.tls = Some(tls);
    run(t).await
}

#[tokio::test]
async fn over_tls_by_address_by_name_and_by_server_name() {
    let ca = Ca::new();
    let by_server_name =
        Tls::new(Some(ca.certificate.as_bytes()), None, Some("agent.shop")).unwrap();
    for (in_certificate, url_host, tls) in [
        ("127.0.0.1", None, ca.trust()),
        ("localhost", Some("localhost"), ca.trust()),
        ("agent.shop", None, by_server_name),
    ] {
        for version in [&TLS12, &TLS13] {
            let own = ca.issue(Usage::Server, in_certificate);
            let config = server(&own, None, &[version]);
            let agent = Agent::with_tls(config, good(b"data")).await;
            let success = attempt(&agent, tls.clone(), url_host).await.unwrap();
            assert_eq!(success.manifest.bytes, 4);
            let timings = success.timings;
            assert!(timings.tls.is_some() && timings.wrote_request.is_some());
        }
    }
}

/// Who is not who we want to talk to gets no request and no token.
#[tokio::test]
async fn what_is_wrong_with_the_agents_certificate_is_said() {
    let (ca, other) = (Ca::new(), Ca::new());
    let future = Timestamp::now() + SignedDuration::from_hours(50);
    let here = "127.0.0.1";
    for (what, own, parts) in [
        (
            "another CA",
            other.issue(Usage::Server, here),
            vec!["no CA that is trusted", "caSecretRef", "--ca-file"],
        ),
        (
            "another name",
            ca.issue(Usage::Server, "db.shop"),
            vec!["is for db.shop, not for 127.0.0.1", "serverName"],
        ),
        (
            "expired",
            expired(&ca, Usage::Server, here),
            vec!["expired at 2", "renew the agent's --tls-cert"],
        ),
        (
            "not yet valid",
            ca.issue_at(Usage::Server, here, future),
            vec!["valid only from", "clocks"],
        ),
        (
            "a client's",
            ca.issue(Usage::Client, here),
            vec!["not one for servers", "serverAuth"],
        ),
    ] {
        let config = server(&own, None, &[&TLS13, &TLS12]);
        let agent = Agent::with_tls(config, good(b"data")).await;
        let failure = attempt(&agent, ca.trust(), None).await.unwrap_err();
        assert_eq!(
            (failure.reason, failure.retry),
            (FailureReason::AgentUnreachable, Retry::Counted),
            "{what}"
        );
        for part in parts {
            assert!(
                failure.message.contains(part),
                "{what}: {}",
                failure.message
            );
        }
        assert!(agent.requests.lock().unwrap().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn what_the_agent_thinks_of_our_certificate_is_said() {
    let (ca, other) = (Ca::new(), Ca::new());
    let ours = |issued: Issued| ca.trust_as(&issued);
    for version in [&TLS12, &TLS13] {
        let own = ca.issue(Usage::Server, "127.0.0.1");
        let config = server(&own, Some(&ca.certificate), &[version]);
        let agent = Agent::with_tls(config, good(b"data")).await;
        let with = ours(ca.issue(Usage::Client, "controller"));
        attempt(&agent, with, None).await.unwrap();
        let asked = agent.requests.lock().unwrap().len();
        for (what, tls, part) in [
            ("none", ca.trust(), "clientCertSecretRef"),
            (
                "of another CA",
                ours(other.issue(Usage::Client, "controller")),
                "client certificate",
            ),
            (
                "expired",
                ours(expired(&ca, Usage::Client, "controller")),
                "client certificate",
            ),
            (
                "for servers",
                ours(ca.issue(Usage::Server, "controller")),
                "client certificate",
            ),
        ] {
            let failure = attempt(&agent, tls, None).await.unwrap_err();
            assert_eq!(
                (failure.reason, failure.retry),
                (FailureReason::AgentUnreachable, Retry::Counted),
                "{what}"
            );
            assert!(
                failure.message.contains(part),
                "{what}: {}",
                failure.message
            );
        }
        assert_eq!(agent.requests.lock().unwrap().len(), asked);
    }
}

#[tokio::test]
async fn plain_text_is_never_taken_for_tls_nor_tls_for_plain_text() {
    let ca = Ca::new();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", plain.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        let (mut socket, _) = plain.accept().await.unwrap();
        let mut hello = [0; 5];
        socket.read_exact(&mut hello).await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(answer).await.unwrap();
        socket
    });
    let place = Place::file();
    let mut t = transfer_of(&url.parse().unwrap(), &place.store(8), &job("u"), 1);
    t.agent.tls = Some(ca.trust());
    let failure = run(t).await.unwrap_err();
    assert_eq!(failure.reason, FailureReason::AgentUnreachable);
    let said = "does not speak TLS";
    assert!(failure.message.contains(said), "{}", failure.message);
    answering.await.unwrap();

    let own = ca.issue(Usage::Server, "127.0.0.1");
    let tls = Agent::with_tls(server(&own, None, &[&TLS13]), good(b"data")).await;
    let http = tls.url.as_str().replace("https://", "http://");
    let t = transfer_of(&http.parse().unwrap(), &place.store(8), &job("u"), 1);
    let failure = run(t).await.unwrap_err();
    assert_eq!(failure.reason, FailureReason::AgentUnreachable);
    assert!(
        failure.message.contains("source.tls"),
        "{}",
        failure.message
    );
    assert!(tls.requests.lock().unwrap().is_empty());
}

/// A connection that is cut without TLS's own goodbye is a cut body.
#[tokio::test]
async fn a_cut_stream_is_cut_over_tls_too() {
    let ca = Ca::new();
    let own = ca.issue(Usage::Server, "127.0.0.1");
    let mut steps = good(&[7; 100_000]);
    steps.truncate(2);
    steps.push(Step::Close);
    let agent = Agent::with_tls(server(&own, None, &[&TLS13]), steps).await;
    let failure = attempt(&agent, ca.trust(), None).await.unwrap_err();
    assert_eq!(
        failure.reason,
        FailureReason::StreamTruncated,
        "{failure:?}"
    );
}

//! Callers' certificates: names, and that they are checked again at every request.

use crate::harness::{LIMITS, NO_DRAIN, PATIENCE, Script, eventually, verdict};
use crate::log::Log;
use crate::pki::{self, Access, CALLER, Ca, Client, Mount};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A connection that is kept open.
enum Open {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

struct Kept {
    sender: Open,
    addr: SocketAddr,
    closed: JoinHandle<()>,
}

impl Kept {
    async fn connect(ca: &Ca, leaf: &pki::Leaf, addr: SocketAddr, http2: bool) -> Self {
        let alpn = if http2 { "h2" } else { "http/1.1" };
        let stream = Client::new(ca, Some(leaf), &[alpn]).connect(addr).await;
        let io = TokioIo::new(stream.unwrap());
        let (sender, closed) = if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            let closed = tokio::spawn(async move { drop(connection.await) });
            (Open::Http2(sender), closed)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            let closed = tokio::spawn(async move { drop(connection.await) });
            (Open::Http1(sender), closed)
        };
        Self {
            sender,
            addr,
            closed,
        }
    }

    async fn send(
        &mut self,
        path: &str,
        token: Option<&str>,
    ) -> Result<http::Response<hyper::body::Incoming>, hyper::Error> {
        let mut request = Request::get(format!("https://{}{path}", self.addr)).header("host", "a");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).unwrap();
        match &mut self.sender {
            Open::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Open::Http2(sender) => sender.send_request(request).await,
        }
    }

    async fn get(&mut self, path: &str, token: Option<&str>) -> (StatusCode, String) {
        let response = self.send(path, token).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Waits until the agent has closed it.
    async fn closed(self) {
        let Self { sender, closed, .. } = self;
        timeout(PATIENCE, closed)
            .await
            .expect("the agent closes the connection")
            .unwrap();
        drop(sender);
    }
}

#[tokio::test]
async fn a_certificate_that_expires_is_refused_on_an_open_connection() {
    let (log, _guard) = Log::start();
    let ca = Ca::new("ca");
    let mount = Mount::of(&ca.server(), &ca);
    let server = pki::start(&mount, Access::Certificates, LIMITS, NO_DRAIN).await;
    let leaf = ca.client_until(&[CALLER], SystemTime::now() + Duration::from_secs(6));
    let mut open = Vec::new();
    for http2 in [false, true] {
        let mut kept = Kept::connect(&ca, &leaf, server.addr, http2).await;
        assert_eq!(kept.get("/v1/info", None).await.0, 200);
        open.push(kept);
    }
    for mut kept in open {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let (status, body) = loop {
            let (status, body) = kept.get("/v1/info", None).await;
            if status != 200 {
                break (status, body);
            }
            assert!(tokio::time::Instant::now() < deadline, "it never expires");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(status, 401, "{body}");
        assert!(
            body.contains("expired") && body.contains("--client-ca"),
            "{body}"
        );
        kept.closed().await;
        let lines = log.lines();
        let refused = lines.iter().rfind(|line| line["status"] == 401).unwrap();
        assert_eq!(refused["peer"], CALLER);
    }
}

#[tokio::test]
async fn a_replaced_ca_counts_from_the_next_request_on() {
    for http2 in [false, true] {
        let (old, new) = (Ca::new("callers"), Ca::new("callers"));
        let (old_caller, new_caller) = (old.client(&[CALLER]), new.client(&[CALLER]));
        let agents = Ca::new("agents");
        let leaf = agents.server();
        let mut mount = Mount::of(&leaf, &old);
        let server = pki::start(&mount, Access::Certificates, LIMITS, NO_DRAIN).await;
        let mut kept = Kept::connect(&agents, &old_caller, server.addr, http2).await;
        assert_eq!(kept.get("/v1/info", None).await.0, 200);

        // Both while callers change over.
        mount.publish(&Mount::files(&leaf, &format!("{}{}", old.pem(), new.pem())));
        assert_eq!(kept.get("/v1/info", None).await.0, 200);
        let mut changed = Kept::connect(&agents, &new_caller, server.addr, http2).await;
        assert_eq!(changed.get("/v1/info", None).await.0, 200);

        // A broken file changes nothing.
        mount.publish(&Mount::files(&leaf, "broken"));
        assert_eq!(kept.get("/v1/info", None).await.0, 200);

        mount.publish(&Mount::files(&leaf, &new.pem()));
        let (status, body) = kept.get("/v1/info", None).await;
        assert_eq!(status, 401, "{body}");
        kept.closed().await;
        assert_eq!(changed.get("/v1/info", None).await.0, 200);
        let client = Client::new(&agents, Some(&old_caller), &["http/1.1"]);
        let refused = client.request(server.addr, "GET /v1/info").await;
        assert!(refused.is_err(), "the old CA's callers get no connection");
    }
}

#[tokio::test]
async fn a_backup_that_runs_is_finished_when_its_connection_is_closed_for_others() {
    let (old, new) = (Ca::new("callers"), Ca::new("callers"));
    let agents = Ca::new("agents");
    let leaf = agents.server();
    let mut mount = Mount::of(&leaf, &old);
    let server = pki::start(&mount, Access::Certificates, LIMITS, NO_DRAIN).await;
    server.fake.script(Script::Manual);
    let mut kept = Kept::connect(&agents, &old.client(&[CALLER]), server.addr, true).await;
    let running = kept.send("/v1/backup", None).await.unwrap();
    assert_eq!(running.status(), 200);
    mount.publish(&Mount::files(&leaf, &new.pem()));
    assert_eq!(kept.get("/v1/info", None).await.0, 401);
    let sender = server.fake.take();
    sender.chunks.send("late data".into()).await.unwrap();
    drop(sender.chunks);
    sender.verdict.send(verdict(None, 9)).unwrap();
    let body = running.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-streaming-error"], "");
    assert_eq!(body.to_bytes(), "late data");
    kept.closed().await;
}

#[tokio::test]
async fn names_count_as_they_are_and_the_common_name_never() {
    let (log, _guard) = Log::start();
    let ca = Ca::new("ca");
    let mount = Mount::of(&ca.server(), &ca);
    let server = pki::start(&mount, Access::Certificates, LIMITS, NO_DRAIN).await;
    let cases: [(&[&str], &str); 6] = [
        (&[], "(none"),
        (&["*.example.org"], "*.example.org"),
        (
            &["sub.controller.example.org"],
            "sub.controller.example.org",
        ),
        (&["CONTROLLER.example.org"], "CONTROLLER.example.org"),
        (
            &["spiffe://example.org/controller/x"],
            "spiffe://example.org/controller/x",
        ),
        (
            &["a.example.org", "b.example.org"],
            "a.example.org, b.example.org",
        ),
    ];
    for (at, (names, shown)) in cases.into_iter().enumerate() {
        let client = Client::new(&ca, Some(&ca.client(names)), &["http/1.1"]);
        let answer = client.request(server.addr, "GET /v1/backup").await.unwrap();
        assert_eq!(answer.status(), 403, "{names:?}");
        let problem = answer.json();
        assert_eq!(problem["type"], "urn:towline:problem:forbidden");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains(shown) && detail.contains("--allowed-client"),
            "{detail}"
        );
        let lines = eventually("a line", || Some(log.lines()).filter(|l| l.len() > at)).await;
        assert!(
            lines[at]["peer"].as_str().unwrap().contains(shown),
            "{}",
            lines[at]
        );
    }
    assert_eq!(server.fake.starts(), 0);
}

#[tokio::test]
async fn the_access_log_names_the_certificate_and_the_token() {
    let ca = Ca::new("ca");
    let mut mount = Mount::of(&ca.server(), &ca);
    for (access, token, status, peer) in [
        (Access::Certificates, None, 200, CALLER.to_owned()),
        (
            Access::Both,
            Some("all-token"),
            200,
            format!("{CALLER} (everything)"),
        ),
        (
            Access::Both,
            Some("c-token"),
            403,
            format!("{CALLER} (token in line 3)"),
        ),
        (Access::Both, Some("x-token"), 401, CALLER.to_owned()),
        (Access::Both, None, 401, CALLER.to_owned()),
    ] {
        let (log, _guard) = Log::start();
        let server = pki::start(&mount, access, LIMITS, NO_DRAIN).await;
        let leaf = ca.client(&["x.example.org", CALLER]);
        let mut kept = Kept::connect(&ca, &leaf, server.addr, false).await;
        assert_eq!(kept.get("/v1/backup", token).await.0, status);
        let line = log.line().await;
        assert_eq!(line["peer"], peer, "{line}");
        assert!(!log.text().contains("-token"), "{}", log.text());
    }
    // A rotated token counts from the next request on, on an open connection too.
    let server = pki::start(&mount, Access::Both, LIMITS, NO_DRAIN).await;
    let leaf = ca.client(&[CALLER]);
    let mut kept = Kept::connect(&ca, &leaf, server.addr, true).await;
    assert_eq!(kept.get("/v1/info", Some("b-token")).await.0, 200);
    let (agent, pem) = (ca.server(), ca.pem());
    let mut files = Mount::files(&agent, &pem);
    files[3] = ("tokens", "new-token backup\n");
    mount.publish(&files);
    assert_eq!(kept.get("/v1/info", Some("b-token")).await.0, 401);
    assert_eq!(kept.get("/v1/info", Some("new-token")).await.0, 200);
}

#[tokio::test]
async fn certificates_may_come_from_a_ca_below_the_one_that_is_trusted() {
    let root = Ca::new("root");
    let issuing = root.intermediate("issuing");
    let mount = Mount::of(&issuing.server().behind(&issuing), &root);
    let server = pki::start(&mount, Access::Certificates, LIMITS, NO_DRAIN).await;
    let caller = issuing.client(&[CALLER]);
    let without = Client::new(&root, Some(&caller), &["http/1.1"]);
    assert!(without.request(server.addr, "GET /v1/info").await.is_err());
    let caller = caller.behind(&issuing);
    let mut kept = Kept::connect(&root, &caller, server.addr, false).await;
    // The second request is checked with the whole chain, too.
    for _ in 0..2 {
        assert_eq!(kept.get("/v1/info", None).await.0, 200);
    }
}

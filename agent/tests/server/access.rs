//! Every endpoint with every kind of credentials, over HTTP/1.1 and HTTP/2.

use crate::harness::{Harness, LIMITS, NO_DRAIN, raw};
use crate::pki::{self, Access, CALLER, Ca, Client, Leaf, Mount};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use towline_agent::server::{Auth, TokenFile};

const ENDPOINTS: [(&str, &str); 11] = [
    ("GET", "/v1/backup"),
    ("HEAD", "/v1/backup"),
    ("POST", "/v1/backup"),
    ("GET", "/v1/info"),
    ("DELETE", "/v1/backup/x"),
    ("GET", "/v1/unknown"),
    ("GET", "/v1/"),
    ("GET", "/"),
    ("GET", "/metrics"),
    ("POST", "/v1/restore"),
    ("GET", "/v1/restore"),
];

/// What comes back from [`ENDPOINTS`].
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// Not even a connection.
    Nothing,
    /// The same everywhere: not even which paths exist is told.
    Always(u16),
    Each([u16; 11]),
}

const EVERYTHING: Expect = Expect::Each([200, 405, 405, 200, 404, 404, 404, 404, 404, 400, 405]);
const BACKUP_ONLY: Expect = Expect::Each([200, 405, 405, 200, 403, 404, 404, 404, 404, 403, 405]);
const CANCEL_ONLY: Expect = Expect::Each([403, 405, 405, 200, 404, 404, 404, 404, 404, 403, 405]);

/// How a caller connects.
#[derive(Clone, Copy)]
enum Link<'a> {
    Plain,
    Tls(&'a Ca, Option<&'a Leaf>),
}

type Answered = (StatusCode, HeaderMap, Bytes);

async fn speak(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    request: Request<Empty<Bytes>>,
) -> Result<Answered, hyper::Error> {
    let io = TokioIo::new(io);
    let response = if http2 {
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(async move { drop(connection.await) });
        client.send_request(request).await?
    } else {
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(async move { drop(connection.await) });
        client.send_request(request).await?
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok((parts.status, parts.headers, body))
}

/// `None` when there is no connection to ask on.
async fn ask(
    server: &Harness,
    link: Link<'_>,
    http2: bool,
    (method, path): (&str, &str),
    token: Option<&str>,
) -> Option<Answered> {
    let scheme = match link {
        Link::Plain => "http",
        Link::Tls(..) => "https",
    };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{scheme}://{}{path}", server.addr))
        .header("host", "a");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::new()).unwrap();
    match link {
        Link::Plain => speak(server.connect().await, http2, request).await.ok(),
        Link::Tls(ca, identity) => {
            let alpn = if http2 { "h2" } else { "http/1.1" };
            let stream = Client::new(ca, identity, &[alpn])
                .connect(server.addr)
                .await;
            speak(stream.ok()?, http2, request).await.ok()
        }
    }
}

type Row<'a> = (&'a str, Link<'a>, Option<&'a str>, Expect);

async fn walk(server: &Harness, rows: &[Row<'_>]) {
    let mut backups = 0;
    for &(who, link, token, expect) in rows {
        for http2 in [false, true] {
            for (at, endpoint) in ENDPOINTS.into_iter().enumerate() {
                let case = format!("{who}, HTTP/2: {http2}, {endpoint:?}");
                let answered = ask(server, link, http2, endpoint, token).await;
                let expected = match expect {
                    Expect::Nothing => None,
                    Expect::Always(status) => Some(status),
                    Expect::Each(statuses) => Some(statuses[at]),
                };
                let status = answered.as_ref().map(|(status, ..)| status.as_u16());
                assert_eq!(status, expected, "{case}");
                let Some((status, headers, body)) = answered else {
                    continue;
                };
                backups += usize::from(endpoint.1 == "/v1/backup" && status == 200);
                if status.is_client_error() {
                    assert_eq!(
                        headers["content-type"], "application/problem+json",
                        "{case}"
                    );
                }
                assert_eq!(body.is_empty(), endpoint.0 == "HEAD", "{case}");
                let body = String::from_utf8_lossy(&body).into_owned();
                assert!(!body.contains("-token"), "{case}: {body}");
                let lacks_a_scope = status == 403 && matches!(expect, Expect::Each(_));
                assert_eq!(
                    headers.contains_key("www-authenticate"),
                    status == 401 || lacks_a_scope,
                    "{case}"
                );
            }
        }
    }
    assert_eq!(
        server.fake.starts(),
        backups,
        "who is refused starts nothing"
    );
    // Probes and metrics need nothing of this.
    for path in ["/livez", "/readyz", "/metrics"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(raw(server.admin, request.as_bytes()).await.status(), 200);
    }
}

fn with_tokens(link: Link<'_>) -> [Row<'_>; 5] {
    [
        ("no token", link, None, Expect::Always(401)),
        ("wrong token", link, Some("x-token"), Expect::Always(401)),
        ("token to cancel", link, Some("c-token"), CANCEL_ONLY),
        ("token to back up", link, Some("b-token"), BACKUP_ONLY),
        ("token for everything", link, Some("all-token"), EVERYTHING),
    ]
}

#[tokio::test]
async fn tokens_over_plain_http() {
    let ca = Ca::new("ca");
    let mount = Mount::of(&ca.server(), &ca);
    let auth = Auth::Tokens(TokenFile::open(mount.path("tokens")).await.unwrap());
    let server = Harness::start(auth, LIMITS, NO_DRAIN).await;
    walk(&server, &with_tokens(Link::Plain)).await;
}

#[tokio::test]
async fn tokens_over_tls() {
    let ca = Ca::new("ca");
    let mount = Mount::of(&ca.server(), &ca);
    let server = pki::start(&mount, Access::Tokens, LIMITS, NO_DRAIN).await;
    let mut rows = with_tokens(Link::Tls(&ca, None)).to_vec();
    rows.push((
        "plain HTTP",
        Link::Plain,
        Some("all-token"),
        Expect::Nothing,
    ));
    walk(&server, &rows).await;
}

/// Callers' certificates, good and bad.
struct Certificates {
    ca: Ca,
    right: Leaf,
    uri: Leaf,
    expired: Leaf,
    other_name: Leaf,
    other_ca: Leaf,
    server: Leaf,
}

impl Certificates {
    fn new() -> Self {
        let ca = Ca::new("ca");
        let past = SystemTime::now() - Duration::from_secs(60);
        Self {
            right: ca.client(&["more.example.org", CALLER]),
            uri: ca.client(&["spiffe://example.org/controller"]),
            expired: ca.client_until(&[CALLER], past),
            other_name: ca.client(&["other.example.org"]),
            other_ca: Ca::new("ca").client(&[CALLER]),
            server: ca.server(),
            ca,
        }
    }

    fn link<'a>(&'a self, leaf: &'a Leaf) -> Link<'a> {
        Link::Tls(&self.ca, Some(leaf))
    }

    fn strangers<'a>(&'a self, token: Option<&'a str>) -> Vec<Row<'a>> {
        let nothing = Expect::Nothing;
        vec![
            ("plain HTTP", Link::Plain, token, nothing),
            ("no certificate", Link::Tls(&self.ca, None), token, nothing),
            ("another CA's", self.link(&self.other_ca), token, nothing),
            ("expired", self.link(&self.expired), token, nothing),
            ("a server's", self.link(&self.server), token, nothing),
            (
                "another name",
                self.link(&self.other_name),
                token,
                Expect::Always(403),
            ),
        ]
    }
}

#[tokio::test]
async fn certificates() {
    let certificates = Certificates::new();
    let mount = Mount::of(&certificates.server, &certificates.ca);
    let server = pki::start(&mount, Access::Certificates, LIMITS, NO_DRAIN).await;
    let mut rows = certificates.strangers(None);
    rows.extend([
        (
            "right",
            certificates.link(&certificates.right),
            None,
            EVERYTHING,
        ),
        (
            "right, a URI",
            certificates.link(&certificates.uri),
            None,
            EVERYTHING,
        ),
    ]);
    walk(&server, &rows).await;
}

#[tokio::test]
async fn certificates_and_tokens_are_both_required() {
    let certificates = Certificates::new();
    let mount = Mount::of(&certificates.server, &certificates.ca);
    let server = pki::start(&mount, Access::Both, LIMITS, NO_DRAIN).await;
    let mut rows = certificates.strangers(Some("all-token"));
    rows.extend(with_tokens(certificates.link(&certificates.right)));
    walk(&server, &rows).await;
}

//! The page over a real socket: who is let in, what every answer has, what names and messages can do.

use super::{Caches, Page, Seen};
use crate::{
    api::BackupJob,
    config::PageConfig,
    context::{Cache, Guard},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::{reflector, watcher};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Client, Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use towline_agent::config::{ClientsConfig, TlsFiles};

const TOKEN: &str = "correct-horse-battery-staple";
/// What would become an element, end an attribute, or run.
const HOSTILE: &str = r#"</td><script>alert(1)</script>"'><img src=x onerror=alert(1)>&amp;"#;
const PATIENCE: Duration = Duration::from_secs(20);

/// A page that is served, and the objects that it shows.
struct Served {
    folder: tempfile::TempDir,
    address: String,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    seen: Seen,
    jobs: reflector::store::Writer<Guard<BackupJob>>,
}

fn guard<K: kube::Resource<DynamicType = ()> + DeserializeOwned>(object: &Value) -> Guard<K> {
    serde_json::from_value(object.clone()).unwrap()
}

fn filled<K>(objects: &[Value]) -> (Cache<K>, reflector::store::Writer<Guard<K>>)
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&watcher::Event::Init);
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::InitApply(guard(object)));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
    (Cache::new(store, watch::channel(true).1), writer)
}

fn object(kind: &str, name: &str, spec: Value, status: Value) -> Value {
    json!({"apiVersion": "towline.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-03-01T00:00:00Z"}, "spec": spec, "status": status})
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-03-01T00:00:00Z"})
}

fn template() -> Value {
    json!({"source": {"podSelector": {"matchLabels": {"app": "db"}}}, "storeRef": {"name": "offsite"}})
}

/// One of each kind, with what an attacker could write into it.
fn hostile() -> Seen {
    let nightly = object(
        "BackupSchedule",
        HOSTILE,
        json!({"schedule": HOSTILE, "timeZone": HOSTILE, "jobTemplate": {"spec": {"source": {"url": "http://x"}, "storeRef": {"name": HOSTILE}}}}),
        json!({"conditions": [condition("Ready", "True", "Scheduled", HOSTILE), condition("Failing", "True", HOSTILE, HOSTILE)], "consecutiveFailures": 1}),
    );
    let mut made = object(
        "BackupJob",
        &format!("made-{HOSTILE}"),
        template(),
        json!({"phase": "Failed", "reason": "NoAgent", "attempt": 1, "method": HOSTILE, "source": {"pod": HOSTILE}, "manifestKey": HOSTILE, "sha256": HOSTILE,
            "attempts": [{"number": 1, "agent": HOSTILE, "start": "2026-03-01T00:00:00Z", "reason": "NoAgent", "message": HOSTILE}],
            "conditions": [condition("Failed", "True", HOSTILE, HOSTILE)]}),
    );
    made["metadata"]["labels"] = json!({"towline.dev/schedule": HOSTILE});
    let running = object(
        "BackupJob",
        HOSTILE,
        template(),
        json!({"phase": "Running", "attempt": 2, "conditions": [condition("Progressing", "True", HOSTILE, HOSTILE)]}),
    );
    let malformed = object(
        "BackupJob",
        &format!("odd-{HOSTILE}"),
        json!({"parallel": HOSTILE}),
        json!({}),
    );
    let drill = object(
        "RestoreJob",
        HOSTILE,
        json!({"from": {"backupJobRef": {"name": "b"}}, "to": {"drill": {"image": "mariadb:10.11"}}}),
        json!({"phase": "Failed", "reason": "CheckFailed", "from": HOSTILE, "to": HOSTILE, "checks": [{"check": HOSTILE, "passed": false, "found": HOSTILE}],
            "progress": {"stage": HOSTILE, "bytes": 1}, "conditions": [condition("Failed", "True", HOSTILE, HOSTILE)]}),
    );
    let store = object(
        "BackupStore",
        HOSTILE,
        json!({"file": {"path": "x"}}),
        json!({"location": HOSTILE, "conditions": [condition("Ready", "False", HOSTILE, HOSTILE)]}),
    );
    let seen = Seen::default();
    seen.add(Caches {
        schedules: filled(&[nightly]).0,
        jobs: filled(&[made, running, malformed]).0,
        stores: filled(&[store]).0,
        restores: filled(&[drill]).0,
    });
    seen
}

impl Served {
    async fn start(seen: Seen, jobs: reflector::store::Writer<Guard<BackupJob>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        fs::write(&tokens, format!("{TOKEN} # on call\n")).unwrap();
        let config = PageConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            tokens: Some(tokens),
            tls: None,
            clients: None,
        };
        Self::with(folder, &config, seen, jobs).await
    }

    async fn with(
        folder: tempfile::TempDir,
        config: &PageConfig,
        seen: Seen,
        jobs: reflector::store::Writer<Guard<BackupJob>>,
    ) -> Self {
        let page = Page::open(config).await.unwrap();
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let (stop, stopped) = watch::channel(false);
        Self {
            folder,
            address: format!("{scheme}://localhost:{port}"),
            stop,
            serving: tokio::spawn(page.serve(listener, seen.clone(), "0.0.0", stopped)),
            seen,
            jobs,
        }
    }

    async fn of(seen: Seen) -> Self {
        Self::start(seen, reflector::store().1).await
    }

    async fn ask(&self, method: Method, path: &str, authorization: &[&str]) -> Response {
        let mut request = Client::new().request(method, self.address.clone() + path);
        for value in authorization {
            request = request.header("authorization", *value);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, &[&format!("Bearer {TOKEN}")])
            .await
    }
}

fn empty() -> (Seen, reflector::store::Writer<Guard<BackupJob>>) {
    let seen = Seen::default();
    let (jobs, writer) = filled(&[]);
    seen.add(Caches {
        schedules: filled(&[]).0,
        jobs,
        stores: filled(&[]).0,
        restores: filled(&[]).0,
    });
    (seen, writer)
}

#[tokio::test]
async fn strangers_learn_nothing() {
    let served = Served::of(hostile()).await;
    let wrong = format!("Bearer {TOKEN}x");
    let password = |p: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("me:{p}")));
    let (wrong_password, twice) = (password("guess"), format!("Bearer {TOKEN}"));
    let refused: [&[&str]; 5] = [
        &[],
        &[&wrong],
        &[&wrong_password],
        &["Basic"],
        &[&twice, &twice],
    ];
    let mut answers = Vec::new();
    for authorization in refused {
        for path in ["/", "/nowhere", "/jobs/shop/x", "/page.css", "/events"] {
            for method in [Method::GET, Method::POST] {
                let answer = served.ask(method, path, authorization).await;
                assert_eq!(
                    answer.status(),
                    StatusCode::UNAUTHORIZED,
                    "{path} {authorization:?}"
                );
                let challenges = answer.headers().get_all("www-authenticate");
                let challenges: Vec<_> = challenges.iter().map(|v| v.to_str().unwrap()).collect();
                assert!(challenges[0].starts_with("Basic realm="), "{challenges:?}");
                assert!(challenges[1].starts_with("Bearer"), "{challenges:?}");
                let text = answer.text().await.unwrap();
                assert!(!text.contains("shop") && !text.contains(TOKEN), "{text}");
                answers.push(text);
            }
        }
    }
    for authorization in [twice, password(TOKEN)] {
        let answer = served.ask(Method::GET, "/", &[&authorization]).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    // A token that was replaced counts no more from the next request on.
    fs::write(
        served.folder.path().join("tokens"),
        "another-token-of-somebody",
    )
    .unwrap();
    assert_eq!(served.get("/").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn every_answer_keeps_to_the_policy_and_only_reads() {
    let served = Served::of(hostile()).await;
    for (method, path, status) in [
        (Method::GET, "/", 200),
        (Method::HEAD, "/", 200),
        (Method::GET, "/page.css", 200),
        (Method::GET, "/page.js", 200),
        (Method::GET, "/icon.svg", 200),
        (Method::GET, "/jobs/shop/none", 404),
        (Method::GET, "/schedules/shop/none", 404),
        (Method::GET, "/restores/shop/none", 404),
        (Method::GET, "/stores/other/none", 404),
        (Method::GET, "/nowhere", 404),
        (Method::POST, "/", 405),
        (Method::DELETE, "/jobs/shop/none", 405),
        (Method::PUT, "/events", 405),
    ] {
        let authorization = format!("Bearer {TOKEN}");
        let answer = served.ask(method.clone(), path, &[&authorization]).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-frame-options"), "DENY");
        assert!(
            answer
                .headers()
                .get("access-control-allow-origin")
                .is_none()
        );
        let text = answer.text().await.unwrap();
        assert_eq!(
            text.is_empty(),
            method == Method::HEAD || status == 405,
            "{method} {path}"
        );
        // What the policy would refuse is not there to begin with.
        assert!(
            !text.contains("style=\"") && !text.contains("onclick"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn names_and_messages_are_text() {
    let served = Served::of(hostile()).await;
    let front = served.get("/").await.text().await.unwrap();
    let links: Vec<&str> = front
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .filter(|link| link.matches('/').count() == 3)
        .collect();
    assert!(links.len() >= 5, "{links:?}");
    let mut pages = vec![("/".to_owned(), front.clone())];
    for link in links {
        let answer = served.get(link).await;
        assert_eq!(answer.status(), StatusCode::OK, "{link}");
        pages.push((link.to_owned(), answer.text().await.unwrap()));
    }
    for (link, text) in pages {
        assert!(
            text.contains("alert(1)"),
            "{link}: nothing hostile is shown"
        );
        for live in ["<script>", "<img src=x", "\"'><", "</td><script"] {
            assert!(!text.contains(live), "{link}: {live} in {text}");
        }
        let elements = text.matches("<script").count();
        assert_eq!(elements, 1, "{link}");
    }
    let missing = served
        .get("/jobs/shop/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
        .await;
    let text = missing.text().await.unwrap();
    assert!(
        text.contains("alert(1)") && !text.contains("<script>alert"),
        "{text}"
    );
}

#[tokio::test]
async fn before_the_first_list_it_says_so() {
    let seen = Seen::default();
    let served = Served::of(seen.clone()).await;
    let answer = served.get("/").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "3");
    assert!(answer.text().await.unwrap().contains("first list"));
    let (fill, is_filled) = watch::channel(false);
    seen.add(Caches {
        schedules: Cache::new(reflector::store().0, is_filled),
        jobs: filled(&[]).0,
        stores: filled(&[]).0,
        restores: filled(&[]).0,
    });
    assert_eq!(
        served.get("/").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    fill.send_replace(true);
    let answer = served.get("/").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(
        answer
            .text()
            .await
            .unwrap()
            .contains("no schedule here yet")
    );
}

#[tokio::test]
async fn changes_are_told_and_a_stop_ends_every_stream() {
    let (seen, jobs) = empty();
    let mut served = Served::start(seen, jobs).await;
    let answer = served.get("/events").await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut events = answer.bytes_stream();
    let mut next = async || {
        let chunk = timeout(PATIENCE, events.next()).await.unwrap();
        chunk.map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap())
    };
    assert!(
        next()
            .await
            .unwrap()
            .contains("event: changed\ndata: again")
    );
    let job = object(
        "BackupJob",
        "by-hand",
        template(),
        json!({"phase": "Running", "attempt": 1,
        "progress": {"bytes": 50, "estimatedBytes": 100, "bytesPerSecond": 10}}),
    );
    assert!(
        !served
            .get("/")
            .await
            .text()
            .await
            .unwrap()
            .contains("by-hand")
    );
    served
        .jobs
        .apply_watcher_event(&watcher::Event::Apply(guard(&job)));
    served.seen.changes.note();
    assert!(
        next()
            .await
            .unwrap()
            .contains("event: changed\ndata: again")
    );
    let text = served.get("/").await.text().await.unwrap();
    assert!(
        text.contains("by-hand") && text.contains("value=\"50\""),
        "{text}"
    );
    // Another reader has only connected, and a third is idle.
    let idle = Client::new();
    let authorization = format!("Bearer {TOKEN}");
    let asked = idle
        .get(&served.address)
        .header("authorization", &authorization);
    asked.send().await.unwrap().text().await.unwrap();
    let address = served.address.trim_start_matches("http://").to_owned();
    let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
    served.stop.send_replace(true);
    assert_eq!(next().await, None);
    timeout(PATIENCE, served.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_schedule_shows_its_history_and_what_to_do() {
    let ago = |hours: i64| (Timestamp::now() - SignedDuration::from_hours(hours)).to_string();
    let schedule = object(
        "BackupSchedule",
        "nightly",
        json!({"schedule": "0 2 * * *", "jobTemplate": {"spec": template()}, "retention": {"keepLast": 3, "keepWithin": "30d"}}),
        json!({"conditions": [condition("Ready", "True", "Scheduled", ""), condition("Failing", "True", "NoAgent", "nightly-2 failed")],
            "consecutiveFailures": 1, "lastSuccessfulTime": ago(26), "backups": 3, "bytes": 3_221_225_472_u64}),
    );
    let job = |name: &str, status: Value| {
        let mut job = object("BackupJob", name, template(), status);
        job["metadata"]["labels"] = json!({"towline.dev/schedule": "nightly"});
        job
    };
    let good = job(
        "nightly-1",
        json!({"phase": "Succeeded", "startTime": ago(27), "completionTime": ago(26), "bytes": 1_073_741_824, "attempt": 1,
            "conditions": [condition("Complete", "True", "Complete", "")], "timings": {"copy": 12.5}}),
    );
    let bad = job(
        "nightly-2",
        json!({"phase": "Failed", "reason": "NoAgent", "startTime": ago(3), "completionTime": ago(2), "attempt": 4,
            "conditions": [condition("Failed", "True", "NoAgent", "no pod matches app=db")]}),
    );
    let seen = Seen::default();
    seen.add(Caches {
        schedules: filled(&[schedule]).0,
        jobs: filled(&[good, bad]).0,
        stores: filled(&[]).0,
        restores: filled(&[]).0,
    });
    let served = Served::of(seen).await;
    let text = served
        .get("/schedules/shop/nightly")
        .await
        .text()
        .await
        .unwrap();
    for part in [
        "Failing",
        "no pod matches app=db",
        "1.00GiB",
        "1h0m",
        "3 · 3.00GiB",
        "keepLast 3, keepWithin 30d",
        "What NoAgent means, and what to do",
        "kubectl -n shop get pods",
        "(1d2h ago)",
        "href=\"/jobs/shop/nightly-1\"",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // The newest first.
    assert!(text.find("run-nightly-2") < text.find("run-nightly-1"));
    let job = served
        .get("/jobs/shop/nightly-1")
        .await
        .text()
        .await
        .unwrap();
    assert!(job.contains("12.500 s") && job.contains("1h0m"), "{job}");
    let front = served.get("/?namespace=other").await.text().await.unwrap();
    assert!(!front.contains("nightly"), "{front}");
}

/// A CA, and what it has signed, as files.
fn pki(folder: &std::path::Path) -> (PageConfig, impl Fn(&str) -> Client + use<>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = |name: &str, text: String| -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, &ca).unwrap();
    let config = PageConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tokens: None,
        tls: Some(TlsFiles {
            cert: file("tls.crt", server.pem()),
            key: file("tls.key", key.serialize_pem()),
        }),
        clients: Some(ClientsConfig {
            ca: file("ca.crt", ca.pem()),
            allowed: vec!["reader".to_owned()],
        }),
    };
    let client = move |name: &str| {
        let root = reqwest::Certificate::from_pem(ca.pem().as_bytes()).unwrap();
        let client = Client::builder().tls_certs_only([root]);
        let client = match name {
            "" => client,
            name => {
                let key = KeyPair::generate().unwrap();
                let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
                let certificate = params.signed_by(&key, &ca).unwrap();
                let pem = certificate.pem() + &key.serialize_pem();
                client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            }
        };
        client.build().unwrap()
    };
    (config, client)
}

#[tokio::test]
async fn with_certificates_only_allowed_names_read() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, client) = pki(folder.path());
    let served = Served::with(folder, &config, empty().0, reflector::store().1).await;
    let status =
        async |client: Client| client.get(&served.address).send().await.map(|a| a.status());
    assert_eq!(status(client("reader")).await.unwrap(), StatusCode::OK);
    assert_eq!(
        status(client("other")).await.unwrap(),
        StatusCode::FORBIDDEN
    );
    assert!(status(client("")).await.is_err());

    // With a token file both are needed.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokens"), TOKEN).unwrap();
    config.tokens = Some(folder.path().join("tokens"));
    let both = Served::with(folder, &config, empty().0, reflector::store().1).await;
    let status = async |client: Client, token: &str| {
        let request = client.get(&both.address).bearer_auth(token);
        request.send().await.map(|answer| answer.status())
    };
    assert_eq!(
        status(client("reader"), TOKEN).await.unwrap(),
        StatusCode::OK
    );
    let without = status(client("reader"), "guess-guess-guess").await;
    assert_eq!(without.unwrap(), StatusCode::UNAUTHORIZED);
    assert!(status(client(""), TOKEN).await.is_err());
}

/// What is logged in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let served = Served::of(empty().0).await;
    assert_eq!(served.get("/").await.status(), StatusCode::OK);
    let wrong = "Bearer wrong-token-of-somebody";
    let refused = served.ask(Method::GET, "/", &[wrong]).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("on call") && text.contains("is not let in"),
        "{text}"
    );
    // The client's own trace of what it sends is not ours.
    let ours: String = text
        .lines()
        .filter(|line| line.contains("towline"))
        .collect();
    for secret in [TOKEN, "wrong-token-of-somebody"] {
        assert!(!ours.contains(secret), "{ours}");
    }
}

//! The agent's own server, with TLS, certificates and tokens: what it says is understood. Only the
//! engine behind it is a stand-in.

use crate::{
    agent::TOKEN,
    job,
    place::Place,
    run,
    tls::{Ca, expired},
    transfer_of,
};
use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use prometheus::Registry;
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use towline_agent::{
    backup::{BackupRequest, StartError, Started},
    body::{BackupBody, Timings, Verdict},
    database::{DatabaseError, ServerInfo},
    metrics::{HttpMetrics, TlsMetrics},
    protocol::{
        StreamReason,
        info::{LastBackup, Running, Tool},
    },
    server::{
        Auth, Backups, ClientCertificates, DrainTimes, Limits, Server, Tls, TlsFlags, TokenFile,
    },
};
use towline_controller::{
    agent_client,
    pki::{Issued, Usage},
    reason::{FailureReason, Retry},
    transfer::{Failure, Success},
};

const CONTROLLER: &str = "towline-controller";
const ARCHIVE: &[u8] = b"an archive";

/// An engine whose only backup is [`ARCHIVE`].
#[derive(Clone)]
struct Engine {
    /// The backup waits before its archive for this to be true.
    go_on: watch::Sender<bool>,
    /// What it says meanwhile.
    running: Arc<Mutex<Option<Running>>>,
}

impl Engine {
    fn new() -> Self {
        Self {
            go_on: watch::Sender::new(true),
            running: Arc::default(),
        }
    }
}

#[async_trait]
impl Backups for Engine {
    async fn start(&self, _: BackupRequest) -> Result<Started, StartError> {
        let (sender, body) = BackupBody::channel(1);
        let mut go_on = self.go_on.subscribe();
        tokio::spawn(async move {
            if go_on.wait_for(|go_on| *go_on).await.is_err() {
                return;
            }
            if sender.chunks.send(ARCHIVE.into()).await.is_err() {
                return;
            }
            drop(sender.chunks);
            let mut sha256 = [0; 32];
            sha256.copy_from_slice(digest(&SHA256, ARCHIVE).as_ref());
            let _ = sender.verdict.send(Verdict::Complete {
                sha256,
                bytes: ARCHIVE.len() as u64,
                timings: Timings::default(),
            });
        });
        Ok(Started {
            id: "b-1".to_owned(),
            file_name: "b-1.tar.zst".to_owned(),
            content_type: "application/zstd",
            estimated_bytes: None,
            precheck: Duration::ZERO,
            body,
        })
    }

    fn running(&self) -> Option<Running> {
        self.running.lock().unwrap().clone()
    }

    fn last_backup(&self) -> Option<LastBackup> {
        None
    }

    fn cancel(&self, _: &str, _: StreamReason) -> bool {
        false
    }

    async fn wait_idle(&self) {}

    fn close(&self) {}

    async fn server_info(&self) -> Result<ServerInfo, DatabaseError> {
        Err(DatabaseError::Timeout {
            address: "nowhere".to_owned(),
            doing: "connecting",
            seconds: 1,
        })
    }

    async fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }
}

/// What a Secret of `towline pki` is in a pod.
fn mount(folder: &Path, ca: &Ca) {
    let own = ca.issue(Usage::Server, "127.0.0.1");
    for (file, text) in [
        ("tls.crt", &own.certificate),
        ("tls.key", &own.key),
        ("ca.crt", &ca.certificate),
    ] {
        fs::write(folder.join(file), text).unwrap();
    }
}

struct Agent {
    url: url::Url,
    _server: JoinSet<()>,
}

/// The agent that reads `folder`; it wants a certificate of [`CONTROLLER`], and [`TOKEN`].
async fn start(folder: &Path) -> Agent {
    start_with(folder, Engine::new()).await
}

async fn start_with(folder: &Path, engine: Engine) -> Agent {
    let file = |name: &str| folder.join(name);
    fs::write(file("tokens"), format!("{TOKEN} backup\n")).unwrap();
    let registry = Registry::new();
    let clients =
        ClientCertificates::open(file("ca.crt"), vec![CONTROLLER.to_owned()], TlsFlags::AGENT);
    let clients = Arc::new(clients.await.unwrap());
    let metrics = TlsMetrics::new(&registry).unwrap();
    let tls = Tls::open(
        file("tls.crt"),
        file("tls.key"),
        Some(Arc::clone(&clients)),
        Some(metrics),
        TlsFlags::AGENT,
    );
    let patience = Duration::from_secs(60);
    let server = Server {
        backups: Arc::new(engine),
        auth: Auth::Both(clients, TokenFile::open(file("tokens")).await.unwrap()),
        tls: Some(tls.await.unwrap()),
        metrics: HttpMetrics::new(&registry).unwrap(),
        registry,
        limits: Limits {
            connections: 8,
            header_read: patience,
            idle: patience,
            unacknowledged: patience,
        },
        drain: DrainTimes {
            delay: Duration::ZERO,
            timeout: patience,
        },
    };
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", api.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(server.run(api, admin, std::future::pending()));
    Agent {
        url: url.parse().unwrap(),
        _server: task,
    }
}

async fn attempt(agent: &Agent, tls: agent_client::Tls, token: &str) -> Result<Success, Failure> {
    let place = Place::file();
    let mut t = transfer_of(&agent.url, &place.store(8), &job("u"), 1);
    t.agent.tls = Some(tls);
    t.agent.token = Some(token.to_owned());
    run(t).await
}

#[tokio::test]
async fn each_refusal_of_the_agent_is_understood() {
    let (ca, other) = (Ca::new(), Ca::new());
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), &ca);
    let agent = start(folder.path()).await;
    let us = |issued: Issued| ca.trust_as(&issued);
    let right = || us(ca.issue(Usage::Client, CONTROLLER));
    let success = attempt(&agent, right(), TOKEN).await.unwrap();
    assert_eq!(success.manifest.bytes, ARCHIVE.len() as u64);
    assert!(success.timings.tls.is_some());

    use FailureReason::{AgentRefused, AgentUnreachable};
    for (what, tls, token, reason, parts) in [
        (
            "no certificate",
            ca.trust(),
            TOKEN,
            AgentUnreachable,
            vec!["clientCertSecretRef"],
        ),
        (
            "of another CA",
            us(other.issue(Usage::Client, CONTROLLER)),
            TOKEN,
            AgentUnreachable,
            vec!["client certificate"],
        ),
        (
            "expired",
            us(expired(&ca, Usage::Client, CONTROLLER)),
            TOKEN,
            AgentUnreachable,
            vec!["client certificate"],
        ),
        (
            "a server's",
            us(ca.issue(Usage::Server, CONTROLLER)),
            TOKEN,
            AgentUnreachable,
            vec!["client certificate"],
        ),
        (
            "another name",
            us(ca.issue(Usage::Client, "somebody")),
            TOKEN,
            AgentRefused,
            vec!["somebody", "--allowed-client"],
        ),
        (
            "another token",
            right(),
            "wrong",
            AgentRefused,
            vec!["tokenSecretRef"],
        ),
    ] {
        let failure = attempt(&agent, tls, token).await.unwrap_err();
        assert_eq!(
            (failure.reason, failure.retry),
            (reason, Retry::Counted),
            "{what}: {}",
            failure.message
        );
        for part in parts {
            assert!(
                failure.message.contains(part),
                "{what}: {}",
                failure.message
            );
        }
    }
}

/// A Secret that was renewed, CA and all, counts from the next connection on.
#[tokio::test]
async fn renewed_files_count_without_a_restart() {
    let (old, new) = (Ca::new(), Ca::new());
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), &old);
    let agent = start(folder.path()).await;
    let us = |ca: &Ca| ca.trust_as(&ca.issue(Usage::Client, CONTROLLER));
    attempt(&agent, us(&old), TOKEN).await.unwrap();
    attempt(&agent, us(&new), TOKEN).await.unwrap_err();
    mount(folder.path(), &new);
    attempt(&agent, us(&new), TOKEN).await.unwrap();
    attempt(&agent, us(&old), TOKEN).await.unwrap_err();
}

/// The stage in `/v1/info` keeps a quiet transfer alive, and names what a stuck one is stuck in.
#[tokio::test]
async fn a_quiet_backup_is_judged_by_its_stage() {
    let ca = Ca::new();
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), &ca);
    let engine = Engine::new();
    let agent = start_with(folder.path(), engine.clone()).await;
    let place = Place::file();
    let timeout = Duration::from_secs(1);
    let quiet = |uid: &str| {
        engine.go_on.send_replace(false);
        let mut t = transfer_of(&agent.url, &place.store(8), &job(uid), 1);
        t.agent.tls = Some(ca.trust_as(&ca.issue(Usage::Client, CONTROLLER)));
        t.agent.token = Some(TOKEN.to_owned());
        t.stall_timeout = timeout;
        tokio::spawn(run(t))
    };
    let say = |stage: &str| {
        *engine.running.lock().unwrap() = Some(Running {
            id: "b-1".to_owned(),
            stage: stage.to_owned(),
            ..Running::default()
        });
    };
    let running = quiet("u");
    for stage in 0..60 {
        say(&format!("stage {stage}"));
        tokio::time::sleep(timeout / 20).await;
    }
    assert!(!running.is_finished(), "{:?}", running.await);
    engine.go_on.send_replace(true);
    running.await.unwrap().unwrap();

    say("FLUSH");
    let failure = quiet("v").await.unwrap().unwrap_err();
    assert_eq!(failure.reason, FailureReason::Stalled);
    assert!(failure.message.contains("FLUSH"), "{}", failure.message);
}

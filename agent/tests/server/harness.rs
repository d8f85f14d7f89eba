//! A server in this process, and clients that see every byte.

use async_trait::async_trait;
use bytes::Bytes;
use prometheus::Registry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use towline_agent::backup::{BackupRequest, StartError, Started};
use towline_agent::body::{BackupBody, BodySender, Timings, Verdict};
use towline_agent::database::{DatabaseError, ServerInfo};
use towline_agent::metrics::HttpMetrics;
use towline_agent::protocol::StreamReason;
use towline_agent::protocol::info::{LastBackup, Running, Tool as ToolInfo};
use towline_agent::server::{Auth, Backups, DrainTimes, Limits, Server, Tls};

/// Longest wait for something that must happen; a test that meets it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How a fake backup ends by itself.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// It does not: the test holds its sender.
    Manual,
    /// Chunks, then a verdict; without one the producer vanishes.
    Run {
        chunks: Vec<Bytes>,
        failed: Option<Option<StreamReason>>,
    },
    /// The engine panics.
    Panic,
    /// The engine never answers.
    Hang,
}

impl Script {
    pub(crate) fn complete(text: &'static str) -> Self {
        Self::Run {
            chunks: vec![Bytes::from_static(text.as_bytes())],
            failed: Some(None),
        }
    }

    pub(crate) fn failed(text: &'static str) -> Self {
        let failed = Some(Some(StreamReason::ToolFailed));
        Self::Run {
            chunks: vec![Bytes::from_static(text.as_bytes())],
            failed,
        }
    }
}

/// What the fake's failures say.
pub(crate) const STDERR: &str = "mariadb-backup: disk on fire\nat line two";

pub(crate) fn verdict(failed: Option<StreamReason>, bytes: u64) -> Verdict {
    let timings = Timings::default();
    match failed {
        None => Verdict::Complete {
            sha256: [7; 32],
            bytes,
            timings,
        },
        Some(reason) => Verdict::Failed {
            reason,
            message: STDERR.to_owned(),
            timings,
        },
    }
}

/// Stands in for the engine: the real one cannot fail, hang and panic when it is told to.
pub(crate) struct Fake {
    script: Mutex<Script>,
    sender: Mutex<Option<BodySender>>,
    refuse: Mutex<Option<StartError>>,
    pub(crate) started: Mutex<Vec<BackupRequest>>,
    busy: watch::Sender<bool>,
    closed: AtomicBool,
}

pub(crate) const ID: &str = "b-1";

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(Script::complete("archive")),
            sender: Mutex::new(None),
            refuse: Mutex::new(None),
            started: Mutex::new(Vec::new()),
            busy: watch::channel(false).0,
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn script(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    pub(crate) fn refuse(&self, error: StartError) {
        *self.refuse.lock().unwrap() = Some(error);
    }

    /// The producing end of a manual backup.
    pub(crate) fn take(&self) -> BodySender {
        self.sender
            .lock()
            .unwrap()
            .take()
            .expect("no manual backup runs")
    }

    pub(crate) fn idle(&self) {
        self.busy.send_replace(false);
    }

    pub(crate) fn starts(&self) -> usize {
        self.started.lock().unwrap().len()
    }
}

#[async_trait]
impl Backups for Fake {
    async fn start(&self, request: BackupRequest) -> Result<Started, StartError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(StartError::Draining);
        }
        if let Some(error) = self.refuse.lock().unwrap().take() {
            return Err(error);
        }
        let script = self.script.lock().unwrap().clone();
        let (sender, body) = BackupBody::channel(1);
        self.started.lock().unwrap().push(request);
        match script {
            Script::Panic => panic!("the engine has a fault"),
            Script::Hang => std::future::pending().await,
            Script::Manual => {
                self.busy.send_replace(true);
                *self.sender.lock().unwrap() = Some(sender);
            }
            Script::Run { chunks, failed } => {
                tokio::spawn(async move {
                    let bytes = chunks.iter().map(|c| c.len() as u64).sum();
                    for chunk in chunks {
                        if sender.chunks.send(chunk).await.is_err() {
                            return;
                        }
                    }
                    drop(sender.chunks);
                    if let Some(failed) = failed {
                        let _ = sender.verdict.send(verdict(failed, bytes));
                    }
                });
            }
        }
        Ok(Started {
            id: ID.to_owned(),
            file_name: "db-1.tar.zst".to_owned(),
            content_type: "application/zstd",
            estimated_bytes: Some(12345),
            precheck: Duration::from_millis(12),
            body,
        })
    }

    fn running(&self) -> Option<Running> {
        self.busy.borrow().then(|| Running {
            id: ID.to_owned(),
            method: "logical".to_owned(),
            stage: "copy".to_owned(),
            bytes: 0,
            start_time: Some(jiff::Timestamp::UNIX_EPOCH),
            job: None,
        })
    }

    fn last_backup(&self) -> Option<LastBackup> {
        None
    }

    fn cancel(&self, id: &str, reason: StreamReason) -> bool {
        let sender = if id == ID {
            self.sender.lock().unwrap().take()
        } else {
            None
        };
        let Some(sender) = sender else { return false };
        drop(sender.chunks);
        let _ = sender.verdict.send(verdict(Some(reason), 0));
        self.idle();
        true
    }

    async fn wait_idle(&self) {
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    async fn server_info(&self) -> Result<ServerInfo, DatabaseError> {
        Err(DatabaseError::Timeout {
            address: "nowhere".to_owned(),
            doing: "connecting",
            seconds: 1,
        })
    }

    async fn tools(&self) -> Vec<ToolInfo> {
        Vec::new()
    }
}

pub(crate) struct Harness {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    pub(crate) registry: Registry,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) served: JoinHandle<()>,
}

pub(crate) const LIMITS: Limits = Limits {
    connections: 64,
    header_read: PATIENCE,
    idle: PATIENCE,
    unacknowledged: PATIENCE,
};
pub(crate) const NO_DRAIN: DrainTimes = DrainTimes {
    delay: Duration::ZERO,
    timeout: PATIENCE,
};

impl Harness {
    pub(crate) async fn open() -> Self {
        Self::start(Auth::Open, LIMITS, NO_DRAIN).await
    }

    pub(crate) async fn start(auth: Auth, limits: Limits, drain: DrainTimes) -> Self {
        Self::serve(Registry::new(), auth, None, limits, drain).await
    }

    pub(crate) async fn serve(
        registry: Registry,
        auth: Auth,
        tls: Option<Tls>,
        limits: Limits,
        drain: DrainTimes,
    ) -> Self {
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, admin_addr) = (api.local_addr().unwrap(), admin.local_addr().unwrap());
        let metrics = HttpMetrics::new(&registry).unwrap();
        let fake = Fake::new();
        let server = Server {
            backups: fake.clone(),
            auth,
            tls,
            metrics,
            registry: registry.clone(),
            limits,
            drain,
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.run(api, admin, async {
            let _ = stopped.await;
        }));
        Self {
            addr,
            admin: admin_addr,
            fake,
            registry,
            stop: Some(stop),
            served,
        }
    }

    /// Sends SIGTERM, so to say.
    pub(crate) fn signal(&mut self) {
        self.stop.take().expect("signalled once").send(()).unwrap();
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends bytes on a connection of their own and returns all that comes back until it closes.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        raw(self.addr, request.as_ref()).await
    }

    /// One request with `Connection: close`.
    pub(crate) async fn request(&self, line: &str, headers: &str) -> Answer {
        self.raw(format!(
            "{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
    }
}

pub(crate) async fn raw(addr: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the server closes the connection");
    Answer(bytes)
}

/// All bytes of an answer, as they came.
pub(crate) struct Answer(pub Vec<u8>);

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    pub(crate) fn status(&self) -> u16 {
        let text = self.text();
        text.split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("no status: {text:?}"))
    }

    fn parts(&self) -> (String, String) {
        let text = self.text();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {text:?}"));
        (head.to_owned(), body.to_owned())
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let (head, _) = self.parts();
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let (_, body) = self.parts();
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body:?}"))
    }

    /// Whether a chunked body has its last chunk: what a client takes for a clean end.
    pub(crate) fn ended_cleanly(&self) -> bool {
        let (_, body) = self.parts();
        body.contains("0\r\n") && body.ends_with("\r\n\r\n")
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<String> {
        let (_, body) = self.parts();
        let trailers = body
            .rsplit_once("\r\n0\r\n")
            .or_else(|| body.split_once("0\r\n"))?
            .1
            .to_owned();
        trailers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }
}

/// Waits until `condition` gives something.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

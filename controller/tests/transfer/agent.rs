//! An agent made of raw bytes: it shows the faults that a real one cannot.

use aws_lc_rs::digest::{SHA256, digest};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use towline_agent::protocol::encode_digest;

pub(crate) const TOKEN: &str = "s3cret-token";

/// What the fake agent sends for a backup, in order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// One chunk of a chunked body.
    Chunk(Vec<u8>),
    /// The end of a chunked body, with trailers.
    End(Vec<(&'static str, String)>),
    /// Waits until the test releases it; ends early when the peer goes away.
    Hold,
    /// Closes the connection.
    Close,
}

pub(crate) const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/zstd\r\ncontent-disposition: attachment; \
    filename=\"x.tar.zst\"\r\nx-backup-id: b-1\r\nx-backup-estimated-bytes: 1000\r\ntrailer: X-Streaming-Error\r\n\
    transfer-encoding: chunked\r\n\r\n";

pub(crate) fn head() -> Step {
    Step::Raw(HEAD.into())
}

/// The trailers of a good backup of `body`.
pub(crate) fn good_trailers(body: &[u8]) -> Vec<(&'static str, String)> {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, body).as_ref());
    vec![
        ("X-Streaming-Error", String::new()),
        ("X-Backup-Bytes", body.len().to_string()),
        ("Repr-Digest", encode_digest(&sum)),
        ("Server-Timing", "copy;dur=5, lock;dur=1500".to_owned()),
    ]
}

/// A good backup of `body`.
pub(crate) fn good(body: &[u8]) -> Vec<Step> {
    let mut steps = vec![head()];
    steps.extend(body.chunks(300_000).map(|c| Step::Chunk(c.to_vec())));
    steps.push(Step::End(good_trailers(body)));
    steps
}

/// An error answer.
pub(crate) fn problem(status: &str, headers: &str, detail: &str) -> Vec<Step> {
    let body = format!(r#"{{"type":"urn:towline:problem:x","title":"No","detail":"{detail}"}}"#);
    vec![Step::Raw(
        format!("HTTP/1.1 {status}\r\n{headers}content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into(),
    )]
}

/// A running fake.
pub(crate) struct Agent {
    pub(crate) url: url::Url,
    /// Heads of the requests for a backup.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    /// Counts up when a `Hold` is reached.
    pub(crate) held: watch::Receiver<u32>,
    info: Arc<Mutex<String>>,
    release: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Agent {
    pub(crate) async fn start(steps: Vec<Step>) -> Self {
        let info = r#"{"capabilities":["method","compression","level","parallel","database","max-rate"],
            "database":{"flavour":"mariadb","version":"10.11.19-MariaDB"}}"#;
        Self::with_info(info, steps).await
    }

    pub(crate) async fn with_info(info: &str, steps: Vec<Step>) -> Self {
        Self::listen(info, steps, None).await
    }

    /// Over TLS.
    pub(crate) async fn with_tls(config: rustls::ServerConfig, steps: Vec<Step>) -> Self {
        let info = r#"{"capabilities":["method"]}"#;
        Self::listen(info, steps, Some(Arc::new(config).into())).await
    }

    async fn listen(info: &str, steps: Vec<Step>, tls: Option<TlsAcceptor>) -> Self {
        let info = Arc::new(Mutex::new(info.to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let release = Arc::new(Notify::new());
        let (hold, held) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let (seen, released) = (Arc::clone(&requests), Arc::clone(&release));
        let told = Arc::clone(&info);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (info, steps) = (Arc::clone(&told), steps.clone());
                let (seen, released) = (Arc::clone(&seen), Arc::clone(&released));
                let (tls, hold) = (tls.clone(), hold.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(socket, info, steps, seen, released, hold).await,
                        Some(tls) => {
                            // A caller who is not let in learns it from the alert.
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, info, steps, seen, released, hold).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            url,
            requests,
            held,
            info,
            release,
            _tasks: tasks,
        }
    }

    /// What it says of itself from now on.
    pub(crate) fn say(&self, info: &str) {
        *self.info.lock().unwrap() = info.to_owned();
    }

    /// Lets one `Hold` go on.
    pub(crate) fn release(&self) {
        self.release.notify_one();
    }

    /// Waits until a `Hold` is reached; a transfer that ends before has failed the test.
    pub(crate) async fn reached_hold<T: std::fmt::Debug>(&self, running: &mut JoinHandle<T>) {
        let mut held = self.held.clone();
        tokio::select! {
            held = held.wait_for(|n| *n > 0) => drop(held.unwrap()),
            ended = running => panic!("{ended:?}"),
        }
    }
}

async fn serve(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    info: Arc<Mutex<String>>,
    steps: Vec<Step>,
    seen: Arc<Mutex<Vec<String>>>,
    release: Arc<Notify>,
    hold: watch::Sender<u32>,
) {
    loop {
        let Some(request) = read_head(&mut socket).await else {
            return;
        };
        if request.starts_with("GET /v1/info ") {
            let info = info.lock().unwrap().clone();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{info}",
                info.len()
            );
            if socket.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        seen.lock().unwrap().push(request);
        for step in steps {
            let bytes = match step {
                Step::Raw(bytes) => bytes,
                Step::Chunk(data) => {
                    [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()
                }
                Step::End(trailers) => {
                    let lines: String = trailers
                        .iter()
                        .map(|(n, v)| format!("{n}: {v}\r\n"))
                        .collect();
                    format!("0\r\n{lines}\r\n").into()
                }
                Step::Hold => {
                    hold.send_modify(|n| *n += 1);
                    let mut byte = [0];
                    tokio::select! {
                        () = release.notified() => continue,
                        _ = socket.read(&mut byte) => return,
                    }
                }
                Step::Close => return,
            };
            if socket.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // Kept open until the peer has what it needs.
        let mut rest = [0; 64];
        while socket.read(&mut rest).await.is_ok_and(|n| n > 0) {}
        return;
    }
}

async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}

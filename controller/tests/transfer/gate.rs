//! A proxy before the S3 server that stops at the n-th request, before or after it is done: every
//! moment at which a process can die between two steps.

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The request never arrives.
    Before,
    /// It is done, but nobody hears of it.
    After,
}

type Matches = fn(&Method, &Uri) -> bool;

/// Whether a request writes a part: of S3 and Google, or a block of Azure.
pub(crate) fn is_part(method: &Method, uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    *method == Method::PUT && (query.contains("partNumber=") || query.contains("comp=block&"))
}

#[derive(Default)]
struct Plan {
    stop_at: Option<(usize, Side)>,
    lose_reply: Option<Matches>,
    /// Of so many parts that come, a byte is changed on the way.
    spoil: usize,
    one_part_at_a_time: bool,
    max_parts: Option<u32>,
    seen: usize,
}

struct State {
    upstream: SocketAddr,
    plan: Mutex<Plan>,
    /// Parts that are under way, and bytes of those that the server has.
    parts: AtomicUsize,
    stored: AtomicU64,
    reached: watch::Sender<Option<String>>,
    /// Peers of the connections that are open.
    open: watch::Sender<HashSet<SocketAddr>>,
    /// Peers of every connection that was ever taken.
    taken: watch::Sender<HashSet<SocketAddr>>,
    /// What was held may go: its connection is closed without a word.
    resume: Notify,
}

pub(crate) struct Gate {
    pub(crate) endpoint: String,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

impl Gate {
    pub(crate) async fn before(endpoint: &str) -> Self {
        let upstream = endpoint.trim_start_matches("http://").parse().unwrap();
        let state = Arc::new(State {
            upstream,
            plan: Mutex::default(),
            parts: AtomicUsize::new(0),
            stored: AtomicU64::new(0),
            reached: watch::Sender::new(None),
            open: watch::Sender::default(),
            taken: watch::Sender::default(),
            resume: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, peer) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                state.open.send_modify(|o| {
                    o.insert(peer);
                });
                state.taken.send_modify(|t| {
                    t.insert(peer);
                });
                connections.spawn(async move {
                    let closing = Arc::clone(&state);
                    let service = service_fn(move |request| handle(Arc::clone(&state), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                    closing.open.send_modify(|o| {
                        o.remove(&peer);
                    });
                });
            }
        });
        Self {
            endpoint,
            state,
            _tasks: tasks,
        }
    }

    /// From now on the `n`-th request, counted from 0, stops.
    pub(crate) fn stop_at(&self, n: usize, side: Side) {
        self.state.reached.send_replace(None);
        *self.state.plan.lock().unwrap() = Plan {
            stop_at: Some((n, side)),
            ..Plan::default()
        };
    }

    /// The reply to the first request that matches is lost, once.
    pub(crate) fn lose_reply(&self, matches: Matches) {
        *self.state.plan.lock().unwrap() = Plan {
            lose_reply: Some(matches),
            ..Plan::default()
        };
    }

    /// From now on a part that comes while another is under way gets a 503, as from a busy store.
    pub(crate) fn one_part_at_a_time(&self) {
        self.state.plan.lock().unwrap().one_part_at_a_time = true;
    }

    /// From now on no part has a higher number than `n`, as in stores that allow fewer.
    pub(crate) fn take_parts_up_to(&self, n: u32) {
        self.state.plan.lock().unwrap().max_parts = Some(n);
    }

    /// A byte of each of the next `n` parts is changed on the way.
    pub(crate) fn spoil(&self, n: usize) {
        self.state.plan.lock().unwrap().spoil = n;
    }

    /// How many of them have not come yet.
    pub(crate) fn to_spoil(&self) -> usize {
        self.state.plan.lock().unwrap().spoil
    }

    /// Bytes of the parts that the server has answered.
    pub(crate) fn bytes_stored(&self) -> u64 {
        self.state.stored.load(Ordering::SeqCst)
    }

    pub(crate) fn reply_was_lost(&self) -> bool {
        self.state.plan.lock().unwrap().lose_reply.is_none()
    }

    /// Which request stopped.
    pub(crate) async fn reached(&self) -> String {
        self.state
            .reached
            .subscribe()
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap()
    }

    /// Waits until nothing of the dead process is under way any more. Its connections must have
    /// been dropped before, with the store that owns them.
    pub(crate) async fn quiet(&self) {
        // Connections are taken in order: once this one is, every earlier one was.
        let last = TcpStream::connect(self.endpoint.trim_start_matches("http://"))
            .await
            .unwrap();
        let me = last.local_addr().unwrap();
        self.state
            .taken
            .subscribe()
            .wait_for(|t| t.contains(&me))
            .await
            .unwrap();
        drop(last);
        self.state.resume.notify_waiters();
        self.state
            .open
            .subscribe()
            .wait_for(HashSet::is_empty)
            .await
            .unwrap();
    }
}

fn part_number(uri: &Uri) -> u32 {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    let number = pairs.find_map(|p| p.strip_prefix("partNumber="));
    number.map_or(0, |n| n.parse().unwrap())
}

/// A part between its first byte and its answer.
struct UnderWay {
    state: Arc<State>,
    others: usize,
}

impl UnderWay {
    fn new(state: Arc<State>) -> Self {
        let others = state.parts.fetch_add(1, Ordering::SeqCst);
        Self { state, others }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.state.parts.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that is passed on runs to its end, whoever still waits for it.
async fn handle(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let part = is_part(&parts.method, &parts.uri);
    let under_way = part.then(|| UnderWay::new(Arc::clone(&state)));
    let mut body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    if under_way.as_ref().is_some_and(|u| u.others > 0)
        && state.plan.lock().unwrap().one_part_at_a_time
    {
        return Ok(Response::builder()
            .status(http::StatusCode::SERVICE_UNAVAILABLE)
            .body(Full::from("<Error><Code>SlowDown</Code></Error>"))
            .unwrap());
    }
    let most = state.plan.lock().unwrap().max_parts;
    if most.is_some_and(|most| part_number(&parts.uri) > most) {
        return Ok(Response::builder()
            .status(http::StatusCode::BAD_REQUEST)
            .body(Full::from("<Error><Code>InvalidArgument</Code></Error>"))
            .unwrap());
    }
    if part {
        let mut plan = state.plan.lock().unwrap();
        if plan.spoil > 0 {
            plan.spoil -= 1;
            let mut bytes = body.to_vec();
            bytes[0] ^= 1;
            body = bytes.into();
        }
    }
    let size = body.len() as u64;
    let (stop, lose) = {
        let mut plan = state.plan.lock().unwrap();
        let n = plan.seen;
        plan.seen += 1;
        let stop = plan
            .stop_at
            .filter(|(at, _)| *at == n)
            .map(|(_, side)| side);
        let lose = plan
            .lose_reply
            .take_if(|m| m(&parts.method, &parts.uri))
            .is_some();
        (stop, lose)
    };
    let line = format!("{} {}", parts.method, parts.uri);
    if stop == Some(Side::Before) {
        return hold(&state, line).await;
    }
    let upstream = state.upstream;
    let passing = tokio::spawn(forward(
        upstream,
        Request::from_parts(parts, Full::new(body)),
    ));
    let answer = passing.await.unwrap();
    if part && answer.as_ref().is_ok_and(|a| a.status().is_success()) {
        state.stored.fetch_add(size, Ordering::SeqCst);
    }
    if stop == Some(Side::After) {
        return hold(&state, line).await;
    }
    if lose {
        return Err(std::io::Error::other("the reply is lost"));
    }
    answer.map_err(std::io::Error::other)
}

/// Says that the moment has come, and answers nothing.
async fn hold(state: &State, line: String) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let resumed = state.resume.notified();
    state.reached.send_replace(Some(line));
    resumed.await;
    Err(std::io::Error::other("held"))
}

/// Fails when the server closes early, as it may with a part of an upload that is gone.
async fn forward(
    upstream: SocketAddr,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Full<Bytes>>> {
    let socket = TcpStream::connect(upstream).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(parts, Full::new(body)))
}

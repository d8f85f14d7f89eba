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
    sync::{Arc, Mutex},
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

#[derive(Default)]
struct Plan {
    stop_at: Option<(usize, Side)>,
    lose_reply: Option<Matches>,
    seen: usize,
}

struct State {
    upstream: SocketAddr,
    plan: Mutex<Plan>,
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

/// A request that is passed on runs to its end, whoever still waits for it.
async fn handle(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
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

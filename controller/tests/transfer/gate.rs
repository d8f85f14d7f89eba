//! A proxy before the S3 server that stops at the n-th request, before or after it is done: every
//! moment at which a process can die between two steps.

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
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
    running: watch::Sender<usize>,
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
            running: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| handle(Arc::clone(&state), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
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

    /// Waits until the server has done with everything that was passed on.
    pub(crate) async fn quiet(&self) {
        self.state
            .running
            .subscribe()
            .wait_for(|n| *n == 0)
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
        state.reached.send_replace(Some(line));
        return std::future::pending().await;
    }
    state.running.send_modify(|n| *n += 1);
    let shared = Arc::clone(&state);
    let passing = tokio::spawn(async move {
        let answer = forward(shared.upstream, Request::from_parts(parts, Full::new(body))).await;
        shared.running.send_modify(|n| *n -= 1);
        answer
    });
    let answer = passing.await.unwrap();
    if stop == Some(Side::After) {
        state.reached.send_replace(Some(line));
        return std::future::pending().await;
    }
    if lose {
        return Err(std::io::Error::other("the reply is lost"));
    }
    Ok(answer.unwrap_or_else(|e: Infallible| match e {}))
}

async fn forward(
    upstream: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let socket = TcpStream::connect(upstream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    driver.abort();
    Ok(Response::from_parts(parts, Full::new(body)))
}

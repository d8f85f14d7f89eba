//! A reverse proxy that breaks what passes through it, on request.
//!
//! It stands between controller and agent, or between controller and store, and shows what no real
//! part can be made to show: a hop that drops trailers, alters bytes and passes the trailers on, or
//! holds a request at exactly the wrong moment.
//!
//! `PUT /` on the control port sets [`Rules`]; `GET /` tells what is held.

use axum::{Json, Router, extract::State, routing::get};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{Request, Response, StatusCode, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::{
    error::Error,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};
use tokio::{net::TcpListener, sync::watch};

type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    /// Where the traffic comes in.
    #[arg(long, default_value = "0.0.0.0:8474")]
    listen: SocketAddr,
    /// Where the rules come in.
    #[arg(long, default_value = "0.0.0.0:9000")]
    control: SocketAddr,
}

/// What to do to the traffic.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Rules {
    /// `host:port` that everything goes to.
    upstream: String,
    /// What happens to the bodies of answers.
    body: BodyFault,
    /// Requests that are held.
    hold: Option<Hold>,
    /// Only answers to this path get the body fault; all, when empty.
    only_path: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum BodyFault {
    #[default]
    None,
    /// The body ends cleanly, without its trailers.
    DropTrailers,
    /// The first data frame is left out; the trailers pass.
    LoseBytes,
    /// One bit of the first data frame is turned; the trailers pass.
    AlterByte,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hold {
    method: String,
    /// End of the path, without the query.
    path_suffix: String,
    /// Whether the upstream has answered already when the request is held.
    #[serde(default)]
    answered: bool,
    /// Let so many bytes of the answer pass, and hold the rest until the rules change; then it goes on.
    #[serde(default)]
    after_bytes: Option<u64>,
}

#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Requests held now.
    held: Vec<String>,
}

struct Proxy {
    rules: watch::Sender<Rules>,
    report: Mutex<Report>,
}

impl Proxy {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until the rules change, then drops the request: the peer sees a broken connection.
    async fn hold(&self, what: &str) -> BoxError {
        let mut rules = self.rules.subscribe();
        rules.mark_unchanged();
        self.report().held.push(what.to_owned());
        let _ = rules.changed().await;
        "held, then dropped".into()
    }

    async fn forward(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, BoxError>>, BoxError> {
        let rules = self.rules.borrow().clone();
        let what = format!("{} {}", request.method(), request.uri());
        let held = rules.hold.as_ref().filter(|hold| {
            request.method().as_str() == hold.method
                && request.uri().path().ends_with(&hold.path_suffix)
        });
        let pause = held.and_then(|hold| hold.after_bytes);
        if held.is_some_and(|hold| !hold.answered) && pause.is_none() {
            return Err(self.hold(&what).await);
        }
        let stream = tokio::net::TcpStream::connect(&rules.upstream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let faulty = rules.only_path.is_empty() || rules.only_path == request.uri().path();
        let fault = if faulty { rules.body } else { BodyFault::None };
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |p| p.as_str())
            .parse()?;
        *request.uri_mut() = path;
        let response = sender.send_request(request).await?;
        if held.is_some() && pause.is_none() {
            let (_, body) = response.into_parts();
            let _ = body.collect().await;
            return Err(self.hold(&what).await);
        }
        let pause = pause.map(|bytes| Pause {
            bytes,
            until: None,
            proxy: Arc::clone(self),
            what,
        });
        Ok(response.map(|body| {
            Faulty {
                body,
                fault,
                hit: false,
                pause,
            }
            .boxed()
        }))
    }
}

/// An answer that is held in its middle.
struct Pause {
    /// What may pass before.
    bytes: u64,
    until: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    proxy: Arc<Proxy>,
    what: String,
}

impl Pause {
    /// Ready when what comes next may pass.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes > 0 {
            return Poll::Ready(());
        }
        let until = self.until.get_or_insert_with(|| {
            let mut rules = self.proxy.rules.subscribe();
            rules.mark_unchanged();
            self.proxy.report().held.push(self.what.clone());
            Box::pin(async move { drop(rules.changed().await) })
        });
        until.as_mut().poll(cx)
    }
}

/// An answer's body with its fault.
struct Faulty {
    body: Incoming,
    fault: BodyFault,
    hit: bool,
    pause: Option<Pause>,
}

impl hyper::body::Body for Faulty {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.poll(cx));
            if pause.bytes == 0 {
                self.pause = None;
            }
        }
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => frame,
            };
            if frame.is_trailers() && self.fault == BodyFault::DropTrailers {
                continue;
            }
            if let (Some(pause), Some(data)) = (&mut self.pause, frame.data_ref()) {
                pause.bytes = pause.bytes.saturating_sub(data.len() as u64);
            }
            let frame = match frame.into_data() {
                Ok(data) if !self.hit && !data.is_empty() => {
                    self.hit = true;
                    match self.fault {
                        BodyFault::LoseBytes => continue,
                        BodyFault::AlterByte => {
                            let mut altered = data.to_vec();
                            altered[0] ^= 1;
                            Frame::data(altered.into())
                        }
                        BodyFault::None | BodyFault::DropTrailers => Frame::data(data),
                    }
                }
                Ok(data) => Frame::data(data),
                Err(frame) => frame,
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        if self.fault == BodyFault::None {
            self.body.size_hint()
        } else {
            hyper::body::SizeHint::new()
        }
    }
}

/// Answers, or breaks the connection for a request that was held, as a dead hop does.
async fn answer(
    proxy: Arc<Proxy>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, BoxError>>, BoxError> {
    match proxy.forward(request).await {
        Err(error) if !error.to_string().starts_with("held") => {
            let body = Full::new(Bytes::from(error.to_string())).map_err(|never| match never {});
            let mut response = Response::new(BoxBody::new(body));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            Ok(response)
        }
        outcome => outcome,
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let proxy = Arc::new(Proxy {
        rules: watch::channel(Rules::default()).0,
        report: Mutex::default(),
    });

    let control = Router::new()
        .route(
            "/",
            get(|State(proxy): State<Arc<Proxy>>| async move { Json(proxy.report().clone()) }).put(
                |State(proxy): State<Arc<Proxy>>, rules: Bytes| async move {
                    // kubectl says nothing of the content's type.
                    let Ok(rules) = serde_json::from_slice(&rules) else {
                        return StatusCode::BAD_REQUEST;
                    };
                    *proxy.report() = Report::default();
                    proxy.rules.send_replace(rules);
                    StatusCode::NO_CONTENT
                },
            ),
        )
        .with_state(proxy.clone());
    let control_listener = TcpListener::bind(args.control).await?;
    tokio::spawn(async move { axum::serve(control_listener, control).await });

    let listener = TcpListener::bind(args.listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let proxy = proxy.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(proxy.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

//! The HTTP server: two listeners, one for `/v1` and one for probes and metrics. What serves their
//! connections, [`serve`], serves the controller's status page, too.

mod access_log;
mod admin;
mod auth;
mod backup;
mod backups;
mod connection;
mod drain;
mod info;
mod negotiate;
mod problem;
mod query;
mod restore;
mod route;
mod tls;
mod watched;

pub use access_log::{CountedBody, End, LoggedBody, Record, TARGET as ACCESS_LOG_TARGET};
pub use auth::{Auth, ClientCertificates, Peer, Refused, Scope, TokenFile};
pub use backups::Backups;
pub use connection::Limits;
pub use drain::DrainTimes;
pub use negotiate::{delivery, te_has_trailers};
pub use problem::{Kind, Problem};
pub use query::{parse as parse_query, parse_restore as parse_restore_query};
pub use tls::{Tls, TlsFlags};
pub use watched::{FileError, Make, Named, Watched};

use crate::error::AgentError;
use crate::metrics::HttpMetrics;
use admin::Admin;
use bytes::Bytes;
use connection::{InFlight, Remote};
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use prometheus::Registry;
use route::Api;
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 256;
/// Longest answer that a peer has to take within the time for a head, in bytes: a slow line takes so much.
const SHORT: u64 = 64 * 1024;
/// Pause after the system refuses to accept, which is mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that answers requests.
pub struct Server {
    /// The engine.
    pub backups: Arc<dyn Backups>,
    /// Who may call `/v1`.
    pub auth: Auth,
    /// TLS for `/v1`; without it, plain HTTP.
    pub tls: Option<Tls>,
    /// What is counted here.
    pub metrics: HttpMetrics,
    /// What `/metrics` shows.
    pub registry: Registry,
    /// What a connection may take.
    pub limits: Limits,
    /// How it stops.
    pub drain: DrainTimes,
}

impl Server {
    /// Serves until `shutdown` resolves, then drains. Returns when every connection is closed.
    pub async fn run(
        self,
        api: TcpListener,
        admin: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) {
        let Self {
            backups,
            auth,
            tls,
            metrics,
            registry,
            limits,
            drain,
        } = self;
        let tls = tls.map(Arc::new);
        let ready = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = watch::channel(false);
        // Probes and scrapers are answered to the end.
        let (_keep, never) = watch::channel(false);
        let v1 = Arc::new(Api {
            backups: backups.clone(),
            auth,
            metrics: metrics.clone(),
        });
        let api = tokio::spawn(accept(
            api,
            limits,
            stopped,
            tls.clone(),
            Some(metrics),
            move |request, remote, in_flight| route::handle(v1.clone(), request, remote, in_flight),
        ));
        let probes = Admin {
            registry,
            ready: ready.clone(),
            tls,
        };
        let mut others = JoinSet::new();
        others.spawn(accept(
            admin,
            limits,
            never,
            None,
            None,
            move |request, _, in_flight| {
                let probes = probes.clone();
                async move {
                    let response = probes.answer(&request).await;
                    drop(in_flight);
                    response
                }
            },
        ));
        shutdown.await;
        drain::drain(backups.as_ref(), drain, &ready, &stop, api).await;
    }
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its address.
    pub address: SocketAddr,
    /// The certificates of its TLS handshake, its own one first; empty without any.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Serves a listener for another program of ours. On `stop` it closes the listener, ends each
/// connection as soon as it carries no answer, and returns when all have ended: an answer that goes on
/// for ever has to end by itself then. Dropping the future cuts them.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    limits: Limits,
    stop: watch::Receiver<bool>,
    tls: Option<Arc<Tls>>,
    handler: H,
) where
    H: Fn(Request<Incoming>, Caller) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    accept(
        listener,
        limits,
        stop,
        tls,
        None,
        move |request, remote, in_flight| {
            let caller = Caller {
                address: remote.address,
                certificates: remote.certificates,
            };
            let answer = handler(request, caller);
            async move {
                let response = answer.await;
                let length = response.body().size_hint().exact();
                if length.is_some_and(|length| length <= SHORT) {
                    in_flight.closer().answers_shortly();
                }
                response.map(|body| Held {
                    body,
                    _in_flight: in_flight,
                })
            }
        },
    )
    .await;
}

pin_project! {
    /// A body, and what says that its connection still carries it.
    struct Held<B> {
        #[pin]
        body: B,
        _in_flight: InFlight,
    }
}

impl<B: Body> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves every connection of a listener; on `stop` it closes the listener and waits for them.
/// Dropping the future cuts them.
async fn accept<H, F, B>(
    listener: TcpListener,
    limits: Limits,
    stop: watch::Receiver<bool>,
    tls: Option<Arc<Tls>>,
    metrics: Option<HttpMetrics>,
    handler: H,
) where
    H: Fn(Request<Incoming>, Remote, InFlight) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut stopping = stop.clone();
    let accepting = async {
        loop {
            while connections.try_join_next().is_some() {}
            // A full house waits in the kernel's queue; closed only when the server is gone.
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = connection::probe(&stream, &limits) {
                tracing::debug!(%error, "socket options refused");
            }
            let open = metrics.as_ref().map(HttpMetrics::connection);
            let handler = handler.clone();
            let stop = stop.clone();
            let tls = tls.clone();
            connections.spawn(async move {
                let handler = move |certificates: &[CertificateDer<'static>]| {
                    let remote = Remote {
                        address,
                        certificates: certificates.into(),
                    };
                    move |request, in_flight| handler(request, remote.clone(), in_flight)
                };
                match tls {
                    None => connection::serve(stream, limits, stop, handler(&[])).await,
                    Some(tls) => {
                        let limit = limits.header_read;
                        if let Some(stream) = tls.accept(stream, address, limit, stop.clone()).await
                        {
                            let certificates = stream.get_ref().1.peer_certificates();
                            let handler = handler(certificates.unwrap_or_default());
                            connection::serve(stream, limits, stop, handler).await;
                        }
                    }
                }
                drop((open, slot));
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// An answer without its content, as RFC 9110, 9.3.2 wants it for HEAD: hyper leaves it out over
/// HTTP/1.1 only.
fn to_head(response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, Full::default())
}

/// Opens a listener. `[::]` takes IPv4 too, and is `0.0.0.0` on a host without IPv6.
///
/// # Errors
/// What the system said, with the flag that chooses another address.
pub fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, AgentError> {
    let open = |address: SocketAddr| -> io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket =
            socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    let opened = match open(address) {
        Err(_) if address.ip() == std::net::Ipv6Addr::UNSPECIFIED && !has_ipv6() => {
            open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        other => other,
    };
    opened.map_err(|source| AgentError::Listen {
        address,
        flag,
        source,
    })
}

fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok()
}

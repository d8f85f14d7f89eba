//! A connection to the very address that was checked, with TLS where it is asked for.

use super::{
    AgentError, Endpoint, resolve,
    timed_io::{TimedIo, WriteClock},
    tls::{self, Trouble},
};
use crate::{
    peer_text::{Keep, clean},
    transfer::Timings,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// The most hyper buffers of what the peer sends before it is taken, bytes.
const READ_BUFFER: usize = 256 << 10;
/// What to do when nothing else is known.
const REMEDY: &str = "is the agent running, its port right, and the network policy open?";

/// One connection to an agent.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// Holds the one task that moves the bytes; it is aborted when this is dropped.
    _driver: JoinSet<()>,
    address: SocketAddr,
    writes: WriteClock,
    timings: Timings,
}

impl Connection {
    /// Resolves, checks and connects.
    pub(super) async fn open(agent: &Endpoint) -> Result<Self, AgentError> {
        resolve::check_url(agent)?;
        let mut timings = Timings::default();
        let started = Instant::now();
        let addresses = resolve::resolve(agent).await?;
        if matches!(agent.base.host(), Some(url::Host::Domain(_))) {
            timings.dns = Some(started.elapsed().as_secs_f64());
        }
        let mut errors = Vec::new();
        let mut remedy = None;
        for address in addresses {
            match Self::connect(agent, address, timings).await {
                Ok(connection) => return Ok(connection),
                Err(Trouble { why, remedy: told }) => {
                    errors.push(format!("{address}: {why}"));
                    remedy = remedy.or(told);
                }
            }
        }
        let errors = if errors.is_empty() {
            "the name has no address".to_owned()
        } else {
            errors.join("; ")
        };
        Err(AgentError::unreachable(format!(
            "no connection to the agent at {}: {errors}; {}",
            agent.base,
            remedy.as_deref().unwrap_or(REMEDY)
        )))
    }

    async fn connect(
        agent: &Endpoint,
        address: SocketAddr,
        mut timings: Timings,
    ) -> Result<Self, Trouble> {
        let started = Instant::now();
        let socket = within(CONNECT_TIMEOUT, TcpStream::connect(address)).await?;
        let socket = socket.map_err(|e| Trouble::of(e.to_string()))?;
        socket
            .set_nodelay(true)
            .map_err(|e| Trouble::of(e.to_string()))?;
        timings.connect = Some(started.elapsed().as_secs_f64());
        // Below TLS: what counts is when the kernel had the bytes.
        let (io, writes) = TimedIo::new(socket);
        let (sender, driver) = match &agent.tls {
            None => speak(io, address).await?,
            Some(tls) => {
                let started = Instant::now();
                let io = within(TLS_TIMEOUT, tls.connect(&agent.base, io)).await??;
                timings.tls = Some(started.elapsed().as_secs_f64());
                speak(io, address).await?
            }
        };
        Ok(Self {
            sender,
            _driver: driver,
            address,
            writes,
            timings,
        })
    }

    /// This connection again, or a new one to the same address when the agent has closed it.
    pub(super) async fn reuse(mut self, agent: &Endpoint) -> Result<Self, AgentError> {
        if self.sender.ready().await.is_ok() {
            return Ok(self);
        }
        Self::connect(agent, self.address, self.timings)
            .await
            .map_err(|trouble| {
                AgentError::unreachable(format!(
                    "no second connection to the agent at {}: {}; {}",
                    agent.base,
                    trouble.why,
                    trouble.remedy.as_deref().unwrap_or(REMEDY)
                ))
            })
    }

    /// Sends a request and waits for the answer's head.
    pub(super) async fn send(
        &mut self,
        agent: &Endpoint,
        request: Request<Empty<Bytes>>,
        head_timeout: Duration,
    ) -> Result<Response<Incoming>, AgentError> {
        let path = request.uri().path().to_owned();
        let started = Instant::now();
        let answer = tokio::time::timeout(head_timeout, self.sender.send_request(request)).await;
        self.timings.wrote_request = self
            .writes
            .last()
            .map(|at| at.saturating_duration_since(started).as_secs_f64());
        self.timings.first_byte = Some(started.elapsed().as_secs_f64());
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let Trouble { why, remedy } = tls::broken(agent.tls.as_ref(), &error);
                Err(AgentError::unreachable(format!(
                    "the agent at {} broke the connection before it answered {path}: {why}; {}",
                    self.address,
                    remedy.as_deref().unwrap_or("see the agent's log")
                )))
            }
            Err(_) => Err(AgentError::unreachable(format!(
                "the agent at {} took {path} and did not answer within {} s; see the agent's log",
                self.address,
                head_timeout.as_secs()
            ))),
        }
    }

    pub(super) fn timings(&self) -> Timings {
        self.timings
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Trouble> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Trouble::of(format!("no answer within {} s", limit.as_secs())))
}

/// HTTP/1.1 over what was connected.
async fn speak<I>(
    io: I,
    address: SocketAddr,
) -> Result<(SendRequest<Empty<Bytes>>, JoinSet<()>), Trouble>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = Builder::new()
        .max_buf_size(READ_BUFFER)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| Trouble::of(clean(&e.to_string(), None, Keep::Start)))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "connection to the agent ended");
        }
    });
    Ok((sender, driver))
}

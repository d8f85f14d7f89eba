//! A connection to the very address that was checked, with TLS where it is asked for.

use super::{
    AgentError, Endpoint, resolve,
    tls::{self, Trouble},
    trace::{Agreed, GotConnection, Target, Trace},
    traced_io::{Exchange, TracedIo},
};
use crate::peer_text::{Keep, clean};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
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

/// The body of a request.
pub(super) type Outgoing = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// One connection to an agent.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Outgoing>,
    /// Holds the one task that moves the bytes; it is aborted when this is dropped.
    _driver: JoinSet<()>,
    address: SocketAddr,
    exchange: Exchange,
    trace: Trace,
    /// Since when it waits for another request; `None` before the first.
    idle_since: Option<Instant>,
}

impl Connection {
    /// Resolves, checks and connects.
    async fn open(agent: &Endpoint, trace: &Trace) -> Result<Self, AgentError> {
        let addresses = resolve::resolve(agent, trace).await?;
        Self::first_of(agent, addresses, trace).await
    }

    /// Connects to the first of the addresses that lets us.
    async fn first_of(
        agent: &Endpoint,
        addresses: Vec<SocketAddr>,
        trace: &Trace,
    ) -> Result<Self, AgentError> {
        let mut errors = Vec::new();
        let mut remedy = None;
        for address in addresses {
            match Self::connect(agent, address, trace).await {
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
        trace: &Trace,
    ) -> Result<Self, Trouble> {
        trace.tell(|t| t.connect_start(address));
        let socket = tcp(address).await;
        let result = socket.as_ref().map(|_| ()).map_err(|e| e.why.as_str());
        trace.tell(|t| t.connect_done(address, result));
        let socket = socket?;
        let exchange = Exchange::new(trace);
        let (sender, driver) = match &agent.tls {
            None => speak(TracedIo::new(socket, exchange.clone()), address).await?,
            Some(tls) => {
                trace.tell(|t| t.tls_start());
                let shaken = within(TLS_TIMEOUT, tls.connect(&agent.base, socket)).await;
                let shaken = shaken.and_then(|shaken| shaken);
                match &shaken {
                    Ok(io) => tell_agreed(trace, io.get_ref().1),
                    Err(trouble) => trace.tell(|t| t.tls_done(Err(&trouble.why))),
                }
                speak(TracedIo::new(shaken?, exchange.clone()), address).await?
            }
        };
        Ok(Self {
            sender,
            _driver: driver,
            address,
            exchange,
            trace: trace.clone(),
            idle_since: None,
        })
    }

    /// A connection for a request: `before`, or a new one to the same address when the agent has
    /// closed that, or a first one.
    pub(super) async fn get(
        agent: &Endpoint,
        before: Option<Self>,
        path: &str,
        trace: &Trace,
    ) -> Result<Self, AgentError> {
        resolve::check_url(agent)?;
        let base = agent.base.as_str().trim_end_matches('/');
        let target = Target {
            method: "GET",
            base,
            path,
        };
        trace.tell(|t| t.get_connection(&target));
        let connection = match before {
            None => Self::open(agent, trace).await?,
            Some(before) => before.again(agent).await?,
        };
        let got = GotConnection {
            address: connection.address,
            idle: connection.idle_since.map(|since| since.elapsed()),
        };
        trace.tell(|t| t.got_connection(&got));
        Ok(connection)
    }

    async fn again(mut self, agent: &Endpoint) -> Result<Self, AgentError> {
        if self.sender.ready().await.is_ok() {
            return Ok(self);
        }
        Self::connect(agent, self.address, &self.trace)
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
        mut request: Request<Outgoing>,
        head_timeout: Duration,
    ) -> Result<Response<Incoming>, AgentError> {
        let path = request.uri().path().to_owned();
        if self.trace.watched() {
            let trace = self.trace.clone();
            hyper::ext::on_informational(&mut request, move |answer| {
                trace.tell(|t| t.got_informational(answer.status(), answer.headers()));
            });
        }
        self.exchange.begin();
        let answer = tokio::time::timeout(head_timeout, self.sender.send_request(request)).await;
        self.idle_since = Some(Instant::now());
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
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, Trouble> {
    let trouble = |error: std::io::Error| Trouble::of(error.to_string());
    let socket = within(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await?
        .map_err(trouble)?;
    socket.set_nodelay(true).map_err(trouble)?;
    Ok(socket)
}

fn tell_agreed(trace: &Trace, session: &rustls::ClientConnection) {
    let version = session.protocol_version().and_then(|v| v.as_str());
    let suite = session
        .negotiated_cipher_suite()
        .and_then(|s| s.suite().as_str());
    let agreed = Agreed {
        version: version.unwrap_or_default(),
        cipher_suite: suite.unwrap_or_default(),
    };
    trace.tell(|t| t.tls_done(Ok(&agreed)));
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
) -> Result<(SendRequest<Outgoing>, JoinSet<()>), Trouble>
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

#[cfg(test)]
mod tests {
    use super::super::trace::ClientTrace;
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::net::TcpListener;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<(SocketAddr, Option<String>)>>);

    impl ClientTrace for Recorder {
        fn connect_start(&self, address: SocketAddr) {
            self.0.lock().unwrap().push((address, None));
        }
        fn connect_done(&self, address: SocketAddr, result: Result<(), &str>) {
            let told = match result {
                Ok(()) => "connected",
                Err(why) => why,
            };
            let told = Some(told.to_owned());
            self.0.lock().unwrap().push((address, told));
        }
    }

    /// An address where nobody listens, and one where somebody does.
    async fn addresses() -> (SocketAddr, TcpListener) {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = closed.local_addr().unwrap();
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        drop(closed);
        (refusing, open)
    }

    fn agent(address: SocketAddr) -> Endpoint {
        Endpoint {
            base: format!("http://{address}").parse().unwrap(),
            token: None,
            tls: None,
            allow_local_addresses: true,
        }
    }

    #[tokio::test]
    async fn each_address_is_told_with_its_error_until_one_takes_us() {
        let (refusing, open) = addresses().await;
        let open_address = open.local_addr().unwrap();
        let recorder = Arc::new(Recorder::default());
        let trace = Trace::of(recorder.clone());
        let agent = agent(open_address);
        let all = vec![refusing, open_address, refusing];
        let connection = Connection::first_of(&agent, all, &trace).await.unwrap();
        assert_eq!(connection.address, open_address);
        let seen = recorder.0.lock().unwrap().clone();
        let [
            (first, None),
            (first_done, Some(why)),
            (second, None),
            (second_done, Some(end)),
        ] = &seen[..]
        else {
            panic!("{seen:?}");
        };
        assert_eq!((first, first_done), (&refusing, &refusing));
        assert!(why.contains("refused"), "{why}");
        assert_eq!((second, second_done), (&open_address, &open_address));
        assert_eq!(end, "connected");
    }

    #[tokio::test]
    async fn when_none_takes_us_the_error_has_what_each_said() {
        let (refusing, open) = addresses().await;
        drop(open);
        let agent = agent(refusing);
        let nobody = Trace::none();
        let tried = Connection::first_of(&agent, vec![refusing, refusing], &nobody);
        let error = tried.await.err().unwrap();
        assert_eq!(error.message.matches("refused").count(), 2, "{error}");
    }
}

//! From an agent's URL to a connection to the very address that was checked.

use super::{
    AgentError, Endpoint,
    timed_io::{TimedIo, WriteClock},
};
use crate::{
    peer_text::{Keep, clean},
    reason::{FailureReason, Retry},
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
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::JoinSet};

const DNS_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most hyper buffers of what the peer sends before it is taken, bytes.
const READ_BUFFER: usize = 256 << 10;

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
        check_url(&agent.base)?;
        let mut timings = Timings::default();
        let started = Instant::now();
        let addresses = resolve(agent).await?;
        if matches!(agent.base.host(), Some(url::Host::Domain(_))) {
            timings.dns = Some(started.elapsed().as_secs_f64());
        }
        let allowed: Vec<SocketAddr> = addresses
            .iter()
            .copied()
            .filter(|a| agent.allow_local_addresses || !is_local(a.ip()))
            .collect();
        if allowed.is_empty() && !addresses.is_empty() {
            return Err(AgentError::new(
                FailureReason::InvalidSpec,
                Retry::Never,
                format!(
                    "{} is at {}, a loopback, link-local, unspecified or multicast address, which is refused as a source: \
                     use the address of a pod or a Service",
                    agent.base,
                    addresses[0].ip()
                ),
            ));
        }
        let mut errors = Vec::new();
        for address in allowed {
            match Self::connect(address, timings).await {
                Ok(connection) => return Ok(connection),
                Err(error) => errors.push(format!("{address}: {error}")),
            }
        }
        let errors = if errors.is_empty() {
            "the name has no address".to_owned()
        } else {
            errors.join("; ")
        };
        Err(AgentError::unreachable(format!(
            "no connection to the agent at {}: {errors}; is the agent running, its port right, and the network policy open?",
            agent.base
        )))
    }

    async fn connect(address: SocketAddr, mut timings: Timings) -> Result<Self, String> {
        let started = Instant::now();
        let socket = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await
        {
            Ok(socket) => socket.map_err(|e| e.to_string())?,
            Err(_) => return Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
        };
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        timings.connect = Some(started.elapsed().as_secs_f64());
        let (io, writes) = TimedIo::new(socket);
        let (sender, connection) = Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| e.to_string())?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to the agent ended");
            }
        });
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
        Self::connect(self.address, self.timings)
            .await
            .map_err(|error| {
                AgentError::unreachable(format!(
                    "no second connection to the agent at {}: {error}",
                    agent.base
                ))
            })
    }

    /// Sends a request and waits for the answer's head.
    pub(super) async fn send(
        &mut self,
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
            Ok(Err(error)) => Err(AgentError::unreachable(format!(
                "the agent at {} broke the connection before it answered {path}: {}; see the agent's log",
                self.address,
                clean(&error.to_string(), None, Keep::Start)
            ))),
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

fn check_url(base: &url::Url) -> Result<(), AgentError> {
    let invalid = |why: String| {
        Err(AgentError::new(
            FailureReason::InvalidSpec,
            Retry::Never,
            why,
        ))
    };
    match base.scheme() {
        "http" => {}
        "https" => {
            return invalid("this version cannot speak TLS to an agent: use an http:// URL inside a network you trust".to_owned());
        }
        other => {
            return invalid(format!(
                "an agent's URL begins with http://, not with {other}://"
            ));
        }
    }
    // A password in a URL would end in logs.
    if !base.username().is_empty() || base.password().is_some() {
        return invalid("an agent's URL carries no credentials: give a token instead".to_owned());
    }
    if !matches!(base.path(), "" | "/") || base.query().is_some() || base.fragment().is_some() {
        return invalid("an agent's URL is http://host:port, without a path or a query".to_owned());
    }
    Ok(())
}

async fn resolve(agent: &Endpoint) -> Result<Vec<SocketAddr>, AgentError> {
    let port = agent.base.port_or_known_default().unwrap_or(80);
    let name = match agent.base.host() {
        Some(url::Host::Ipv4(ip)) => return Ok(vec![(ip, port).into()]),
        Some(url::Host::Ipv6(ip)) => return Ok(vec![(ip, port).into()]),
        Some(url::Host::Domain(name)) => name,
        None => {
            return Err(AgentError::new(
                FailureReason::InvalidSpec,
                Retry::Never,
                "the agent's URL has no host",
            ));
        }
    };
    match tokio::time::timeout(DNS_TIMEOUT, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(AgentError::unreachable(format!(
            "the agent's name {name} cannot be resolved: {}; check the URL and DNS",
            clean(&error.to_string(), None, Keep::Start)
        ))),
        Err(_) => Err(AgentError::unreachable(format!(
            "the agent's name {name} was not resolved within {} s",
            DNS_TIMEOUT.as_secs()
        ))),
    }
}

/// Whether an address leads to this machine, its link or nowhere in particular, in whichever way
/// it is written: behind it may be the controller's own host or a cloud's metadata service.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_local_v4(v4),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || embedded_v4(v6).is_some_and(is_local_v4)
        }
    }
}

fn is_local_v4(ip: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is "this host on this network" (RFC 1122, 3.2.1.3); Linux connects it to itself.
    ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.octets()[0] == 0
}

/// The IPv4 address inside a mapped (RFC 4291, 2.5.5.2), compatible (2.5.5.1), NAT64 (RFC 6052)
/// or 6to4 (RFC 3056) address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            from(high, low)
        }
        [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_in_every_writing() {
        let local = [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
        ];
        for ip in local {
            assert!(is_local(ip.parse().unwrap()), "{ip}");
        }
        let remote = [
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "64:ff9b::808:808",
        ];
        for ip in remote {
            assert!(!is_local(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn urls() {
        let check = |u: &str| check_url(&u.parse().unwrap()).map_err(|e| e.message);
        assert_eq!(check("http://agent:8474"), Ok(()));
        assert_eq!(check("http://[fd00::1]:8474/"), Ok(()));
        assert!(check("https://agent").unwrap_err().contains("TLS"));
        assert!(check("ftp://agent").is_err());
        assert!(check("http://a:b@agent").unwrap_err().contains("token"));
        assert!(check("http://agent/x").is_err());
        assert!(check("http://agent/?a").is_err());
    }

    #[tokio::test]
    async fn a_local_name_is_refused_after_resolution() {
        for base in [
            "http://localhost:1",
            "http://127.0.0.1:1",
            "http://[::ffff:127.0.0.1]:1",
            "http://2130706433:1",
        ] {
            let agent = Endpoint {
                base: base.parse().unwrap(),
                token: None,
                allow_local_addresses: false,
            };
            let error = Connection::open(&agent).await.unwrap_err();
            assert_eq!(error.reason, FailureReason::InvalidSpec, "{base}: {error}");
            let agent = Endpoint {
                allow_local_addresses: true,
                ..agent
            };
            let error = Connection::open(&agent).await.unwrap_err();
            assert_eq!(
                error.reason,
                FailureReason::AgentUnreachable,
                "{base}: {error}"
            );
        }
    }
}

//! From an agent's URL to the addresses that may be asked.

use super::{AgentError, Endpoint, Trace};
use crate::{
    peer_text::{Keep, clean},
    reason::{FailureReason, Retry},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

const DNS_TIMEOUT: Duration = Duration::from_secs(10);

/// What is wrong with an agent's URL is wrong before anything is resolved.
pub(super) fn check_url(agent: &Endpoint) -> Result<(), AgentError> {
    let base = &agent.base;
    let invalid = |why: String| {
        Err(AgentError::new(
            FailureReason::InvalidSpec,
            Retry::Never,
            why,
        ))
    };
    match (base.scheme(), &agent.tls) {
        ("http", None) | ("https", Some(_)) => {}
        ("https", None) => {
            return invalid("an https:// URL of an agent needs source.tls".to_owned());
        }
        ("http", Some(_)) => {
            return invalid(
                "with TLS (source.tls) an agent's URL begins with https://, not with http://"
                    .to_owned(),
            );
        }
        (other, _) => {
            return invalid(format!(
                "an agent's URL begins with https:// or http://, not with {other}://"
            ));
        }
    }
    // A password in a URL would end in logs.
    if !base.username().is_empty() || base.password().is_some() {
        return invalid("an agent's URL carries no credentials: give a token instead".to_owned());
    }
    if !matches!(base.path(), "" | "/") || base.query().is_some() || base.fragment().is_some() {
        return invalid(
            "an agent's URL is https://host:port or http://host:port, without a path or a query"
                .to_owned(),
        );
    }
    Ok(())
}

/// Where the agent may be connected to: every address of its name that may be a source.
pub(super) async fn resolve(
    agent: &Endpoint,
    trace: &Trace,
) -> Result<Vec<SocketAddr>, AgentError> {
    let addresses = look_up(agent, trace).await?;
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
    Ok(allowed)
}

async fn look_up(agent: &Endpoint, trace: &Trace) -> Result<Vec<SocketAddr>, AgentError> {
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
    trace.tell(|t| t.dns_start(name));
    let found = match tokio::time::timeout(DNS_TIMEOUT, tokio::net::lookup_host((name, port))).await
    {
        Ok(Ok(found)) => Ok(found.collect::<Vec<_>>()),
        Ok(Err(error)) => Err(clean(&error.to_string(), None, Keep::Start)),
        Err(_) => Err(format!("no answer within {} s", DNS_TIMEOUT.as_secs())),
    };
    trace.tell(|t| t.dns_done(found.as_deref().map_err(String::as_str)));
    found.map_err(|why| {
        AgentError::unreachable(format!(
            "the agent's name {name} cannot be resolved: {why}; check the URL and DNS"
        ))
    })
}

/// Whether an address leads to this machine, its link, a cloud's metadata service or nowhere in
/// particular, in whichever way it is written.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_local_v4(v4),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6 == METADATA_V6
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
        || METADATA_V4.contains(&ip)
}

/// Metadata services that are not link-local: of Azure's host
/// (<https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>), and of Alibaba.
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
];
/// Of AWS:
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

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
    use super::super::Tls;
    use super::*;

    #[test]
    fn local_addresses_in_every_writing() {
        let local = [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
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
        let ca = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
        let ca = ca.cert.pem();
        let tls = Tls::new(Some(ca.as_bytes()), None, None).unwrap();
        let check = |u: &str, tls: Option<&Tls>| {
            let agent = Endpoint {
                base: u.parse().unwrap(),
                token: None,
                tls: tls.cloned(),
                allow_local_addresses: false,
            };
            check_url(&agent).map_err(|e| e.message)
        };
        assert_eq!(check("http://agent:8474", None), Ok(()));
        assert_eq!(check("http://[fd00::1]:8474/", None), Ok(()));
        assert_eq!(check("https://agent", Some(&tls)), Ok(()));
        for (url, tls, part) in [
            ("https://agent", None, "source.tls"),
            ("http://agent", Some(&tls), "https://"),
            ("ftp://agent", None, "https://"),
            ("http://a:b@agent", None, "token"),
            ("http://agent/x", None, "without a path"),
            ("http://agent/?a", None, "without a path"),
        ] {
            let error = check(url, tls).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
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
                tls: None,
                allow_local_addresses: false,
            };
            let error = resolve(&agent, &Trace::none()).await.unwrap_err();
            assert_eq!(error.reason, FailureReason::InvalidSpec, "{base}: {error}");
            let agent = Endpoint {
                allow_local_addresses: true,
                ..agent
            };
            assert!(
                !resolve(&agent, &Trace::none()).await.unwrap().is_empty(),
                "{base}"
            );
        }
    }
}

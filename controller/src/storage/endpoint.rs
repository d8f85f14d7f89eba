//! Which addresses a store may have.

use super::StoreError;
use crate::{agent_client::is_local, reason::StoreReason};
use std::net::IpAddr;
use url::{Host, Url};

/// An endpoint that is a plain URL, encrypted unless `allow_http`, and no local address.
///
/// # Errors
/// What to write instead. A local address that is written as one is [`StoreReason::NotAllowed`];
/// what a name resolves to is looked at when it is connected to.
pub(super) fn parse(
    endpoint: &str,
    allow_http: bool,
    allow_local: bool,
) -> Result<Url, StoreError> {
    let url = Url::parse(endpoint).map_err(|e| {
        StoreError::config(format!(
            "the endpoint is not a URL such as https://s3.example.com: {e}"
        ))
    })?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        return Err(StoreError::config(
            "the endpoint must be a plain URL: credentials belong into the Secret",
        ));
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            return Err(StoreError::config(
                "the endpoint is plain http, over which everybody can read the backup: use https, or allow it with allowHttp (--allow-http)",
            ));
        }
        other => {
            return Err(StoreError::config(format!(
                "the endpoint's scheme {other:?} is neither https nor http"
            )));
        }
    }
    if url.host().is_none() {
        return Err(StoreError::config("the endpoint has no host"));
    }
    match literal(&url).filter(|a| !allow_local && is_local(*a)) {
        Some(address) => Err(LocalAddress(address.to_string()).into()),
        None => Ok(url),
    }
}

/// The address that a URL names as its host. The URL standard knows decimal, octal, hexadecimal
/// and shortened spellings of IPv4: <https://url.spec.whatwg.org/#concept-ipv4-parser>.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(v4) => Some(v4.into()),
        Host::Ipv6(v6) => Some(v6.into()),
        Host::Domain(_) => None,
    }
}

/// An address on this machine or its link, where metadata services live.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store is at {0}, a loopback, link-local, unspecified or multicast address of the controller: name it by an address that others reach too"
)]
pub(super) struct LocalAddress(pub(super) String);

impl From<LocalAddress> for StoreError {
    fn from(address: LocalAddress) -> Self {
        Self {
            message: address.to_string(),
            reason: StoreReason::NotAllowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (endpoint, allow_http, part) in [
            ("http://s3.example.com", false, "allowHttp"),
            ("https://user:pw@s3.example.com", true, "Secret"),
            ("https://s3.example.com/?x=1", true, "plain URL"),
            ("ftp://s3.example.com", true, "ftp"),
            ("s3.example.com", true, "not a URL"),
        ] {
            let error = parse(endpoint, allow_http, true).unwrap_err();
            assert!(error.message.contains(part), "{endpoint}: {error}");
            assert!(!error.message.contains("pw"), "{error}");
        }
        assert!(parse("http://s3.example.com", true, false).is_ok());
        assert!(parse("https://s3.example.com:9000", false, false).is_ok());
    }

    /// Every way to write a local address that a resolver or a socket would understand.
    #[test]
    fn local_addresses_are_refused_in_every_spelling() {
        for (endpoint, refused) in [
            ("http://127.0.0.1:9000", true),
            ("http://127.1:9000", true),
            ("http://2130706433", true),
            ("http://0x7f000001", true),
            ("http://0x7f.1", true),
            ("http://0177.0.0.1", true),
            ("http://127.0.0.1.", true),
            ("http://%31%32%37.0.0.1", true),
            ("http://１２７.0.0.1", true),
            ("http://[::1]:9000", true),
            ("http://[::ffff:127.0.0.1]:9000", true),
            ("http://[::ffff:a9fe:a9fe]", true),
            ("http://[64:ff9b::169.254.169.254]", true),
            ("http://169.254.169.254", true),
            ("http://2852039166", true),
            ("http://[fe80::1]", true),
            ("http://0.0.0.0", true),
            ("http://0", true),
            ("http://[::]", true),
            ("http://10.0.0.7:9000", false),
            ("https://[2001:db8::1]", false),
        ] {
            let parsed = parse(endpoint, true, false);
            assert_eq!(parsed.is_err(), refused, "{endpoint}");
            if let Err(error) = parsed {
                assert_eq!(error.reason, StoreReason::NotAllowed, "{endpoint}");
            }
            assert!(parse(endpoint, true, true).is_ok(), "{endpoint}");
        }
    }
}

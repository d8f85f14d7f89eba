//! Which agents outside the namespace may be asked.

use super::failure;
use crate::{
    config::AllowedHosts,
    reason::{FailureReason, Retry},
    transfer::Failure,
};

/// Checks `spec.source.url`: its form, and that its host may be asked. Where it leads is checked again
/// when it is resolved.
///
/// # Errors
/// [`Failure`]: `InvalidSpec`, never tried again.
pub(super) fn check(url: &str, tls: bool, allowed: &AllowedHosts) -> Result<String, Failure> {
    let invalid = |message: String| failure(FailureReason::InvalidSpec, Retry::Never, message);
    let parsed = url::Url::parse(url)
        .map_err(|e| invalid(format!("spec.source.url {url:?} is not a URL: {e}")))?;
    let scheme = if tls { "https" } else { "http" };
    if parsed.scheme() != scheme
        || parsed.path() != "/"
        || parsed.query().is_some()
        || !parsed.username().is_empty()
        || parsed.password().is_some()
    {
        let tls = if tls { "with" } else { "without" };
        return Err(invalid(format!(
            "spec.source.url must be {scheme}://host or {scheme}://host:port, {tls} spec.source.tls"
        )));
    }
    let host = parsed.host_str().unwrap_or_default();
    if !allowed.allow(host) {
        return Err(invalid(format!(
            "spec.source.url names {host}, which is not among the hosts that this controller asks: use podSelector, or have the host added to --allowed-source-hosts"
        )));
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_needs_its_host_allowed() {
        let allowed = AllowedHosts::parse(vec!["db.example.org".into()]).unwrap();
        assert!(check("http://db.example.org:8474", false, &allowed).is_ok());
        assert!(check("https://db.example.org:8474", true, &allowed).is_ok());
        for (url, tls, part) in [
            ("http://other.example.org", false, "--allowed-source-hosts"),
            ("https://other.example.org", true, "--allowed-source-hosts"),
            (
                "http://db.example.org@evil.example",
                false,
                "must be http://",
            ),
            ("http://db.example.org/v1", false, "must be http://"),
            ("https://db.example.org", false, "without spec.source.tls"),
            ("http://db.example.org", true, "must be https://"),
            ("db", false, "not a URL"),
        ] {
            let failure = check(url, tls, &allowed).unwrap_err();
            assert_eq!(
                (failure.reason, failure.retry),
                (FailureReason::InvalidSpec, Retry::Never),
                "{url}"
            );
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }
}

//! Why there is no connection over TLS, in words that say what to do.

use super::Tls;
use crate::peer_text::{Keep, clean};
use rustls::{AlertDescription, CertificateError, Error as TlsFault};
use rustls_pki_types::UnixTime;
use std::{error::Error as StdError, io};

/// Why there is no connection.
#[derive(Debug)]
pub(in crate::agent_client) struct Trouble {
    /// Clean and short.
    pub(in crate::agent_client) why: String,
    /// What to do, where it is known.
    pub(in crate::agent_client) remedy: Option<String>,
}

impl Trouble {
    pub(in crate::agent_client) fn of(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            remedy: None,
        }
    }

    pub(super) fn with(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            remedy: Some(remedy.into()),
        }
    }
}

impl Tls {
    /// Why a handshake failed.
    pub(super) fn broken_off(&self, error: &io::Error) -> Trouble {
        match fault(error) {
            Some(fault) => self.explain(fault),
            None => Trouble::with(
                format!("the TLS handshake was broken off: {}", tidy(error)),
                self.hint(),
            ),
        }
    }

    /// What is likely when the agent goes away without a word.
    fn hint(&self) -> &'static str {
        if self.client_certificate {
            "see the agent's log: does it accept our client certificate?"
        } else {
            "see the agent's log: does it want a client certificate (source.tls.clientCertSecretRef, --client-cert)?"
        }
    }

    fn explain(&self, fault: &TlsFault) -> Trouble {
        match fault {
            TlsFault::InvalidCertificate(error) => certificate_trouble(error),
            TlsFault::AlertReceived(alert) => self.alert_trouble(*alert),
            TlsFault::InvalidMessage(_) => Trouble::with(
                "it does not speak TLS",
                "give the agent --tls-cert and --tls-key, or leave source.tls out (--agent http://…)",
            ),
            TlsFault::PeerIncompatible(_) => Trouble::with(
                format!("no common version of TLS: {}", tidy(fault)),
                "is it a Towline agent?",
            ),
            other => Trouble::with(
                format!("TLS failed: {}", tidy(other)),
                "see the agent's log",
            ),
        }
    }

    fn alert_trouble(&self, alert: AlertDescription) -> Trouble {
        use AlertDescription as A;
        let told = format!("the agent refused with the TLS alert {alert:?}");
        match alert {
            A::CertificateRequired | A::NoCertificate => Trouble::with(
                told,
                "it wants a client certificate: name one in source.tls.clientCertSecretRef (--client-cert, --client-key)",
            ),
            A::HandshakeFailure if !self.client_certificate => Trouble::with(told, self.hint()),
            A::CertificateExpired => Trouble::with(
                told,
                "our client certificate has expired: renew the Secret of source.tls.clientCertSecretRef (--client-cert)",
            ),
            A::UnknownCA
            | A::BadCertificate
            | A::CertificateUnknown
            | A::CertificateRevoked
            | A::UnsupportedCertificate
            | A::DecryptError
            | A::AccessDenied
                if self.client_certificate =>
            {
                Trouble::with(
                    told,
                    "it does not accept our client certificate: source.tls.clientCertSecretRef (--client-cert) must be issued by the agent's --client-ca, for clients",
                )
            }
            A::UnrecognisedName => Trouble::with(
                told,
                "it has no certificate for that name: correct source.tls.serverName (--server-name)",
            ),
            A::NoApplicationProtocol => Trouble::with(told, "is it a Towline agent?"),
            _ => Trouble::with(told, "see the agent's log"),
        }
    }
}

/// Why a connection broke before an answer came: with TLS 1.3 the agent looks at our certificate
/// only after we think that the handshake is done (RFC 8446, 4.4.2.4 and appendix D).
pub(in crate::agent_client) fn broken(tls: Option<&Tls>, error: &hyper::Error) -> Trouble {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let (Some(tls), Some(fault)) = (tls, error.downcast_ref().and_then(fault)) {
            return tls.explain(fault);
        }
        cause = error.source();
    }
    let why = tidy(error);
    match tls {
        Some(tls) => Trouble::with(why, tls.hint()),
        None => Trouble::with(
            why,
            "see the agent's log; if it has --tls-cert, set source.tls (--agent https://…)",
        ),
    }
}

fn fault(error: &io::Error) -> Option<&TlsFault> {
    error.get_ref()?.downcast_ref()
}

fn certificate_trouble(error: &CertificateError) -> Trouble {
    use CertificateError as C;
    match error {
        C::UnknownIssuer | C::BadSignature => Trouble::with(
            "its certificate is from no CA that is trusted here",
            "name the CA that issued the agent's --tls-cert in source.tls.caSecretRef (--ca-file)",
        ),
        C::NotValidForNameContext {
            expected,
            presented,
        } => Trouble::with(
            format!(
                "its certificate is for {}, not for {}",
                names(presented),
                tidy(expected.to_str())
            ),
            "set source.tls.serverName (--server-name) to a name that it has, or issue it for this one",
        ),
        C::NotValidForName => Trouble::with(
            "its certificate is for another name",
            "set source.tls.serverName (--server-name) to a name that it has",
        ),
        C::ExpiredContext { not_after, .. } => Trouble::with(
            format!("its certificate expired at {}", time(*not_after)),
            "renew the agent's --tls-cert (run towline pki again, if that made it)",
        ),
        C::NotValidYetContext { not_before, .. } => Trouble::with(
            format!("its certificate is valid only from {}", time(*not_before)),
            "are the clocks right?",
        ),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => Trouble::with(
            "its certificate is not one for servers",
            "issue the agent's --tls-cert with the extended key usage serverAuth",
        ),
        other => Trouble::with(
            format!("its certificate is not valid: {}", tidy(other)),
            "replace the agent's --tls-cert",
        ),
    }
}

/// `DnsName("db")` and `IpAddress(127.0.0.1)` as people write them.
fn names(presented: &[String]) -> String {
    let plain = presented.iter().map(|name| {
        let inner = name.split_once('(').and_then(|(_, n)| n.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    });
    let plain = plain.collect::<Vec<_>>().join(", ");
    if plain.is_empty() {
        "no name at all".to_owned()
    } else {
        tidy(plain)
    }
}

fn time(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "a time out of range".to_owned(), |t| t.to_string())
}

fn tidy(text: impl std::fmt::Display) -> String {
    clean(&text.to_string(), None, Keep::Start)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::pair, *};

    #[test]
    fn alerts_say_what_to_do() {
        use AlertDescription as A;
        let (certificate, key) = pair();
        let (c, k) = (certificate.as_bytes(), key.as_bytes());
        let without = Tls::new(Some(c), None, None).unwrap();
        let with = Tls::new(Some(c), Some((c, k)), None).unwrap();
        for (tls, alert, part) in [
            (&without, A::CertificateRequired, "clientCertSecretRef"),
            (&without, A::HandshakeFailure, "--client-cert"),
            (&without, A::UnknownCA, "agent's log"),
            (&with, A::UnknownCA, "--client-ca"),
            (&with, A::BadCertificate, "--client-ca"),
            (&with, A::CertificateExpired, "expired"),
            (&with, A::UnrecognisedName, "serverName"),
            (&with, A::InternalError, "agent's log"),
        ] {
            let remedy = tls.explain(&TlsFault::AlertReceived(alert)).remedy.unwrap();
            assert!(remedy.contains(part), "{alert:?}: {remedy}");
        }
    }

    #[test]

    fn names_are_written_as_people_write_them() {
        let presented = ["DnsName(\"db\")", "IpAddress(10.0.0.1)"].map(str::to_owned);
        assert_eq!(names(&presented), "db, 10.0.0.1");
        assert_eq!(names(&[]), "no name at all");
    }
}

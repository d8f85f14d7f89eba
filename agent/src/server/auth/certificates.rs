//! Callers with certificates (mutual TLS).

use super::Refused;
use crate::server::problem::{Kind, Problem};
use crate::server::tls::TlsFlags;
use crate::server::watched::{FileError, Named, Watched};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::path::PathBuf;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Most names of a certificate that are shown.
const MAX_NAMES: usize = 8;
/// Longest name that is shown, in characters.
const MAX_NAME: usize = 128;
/// RFC 9110, 15.5.2 wants a challenge with every 401; no registered scheme means certificates.
const CHALLENGE: &str = r#"Certificate realm="towline""#;

/// The CAs that sign callers' certificates, and the names that are let in.
#[derive(Debug)]
pub struct ClientCertificates {
    ca: Watched<Arc<dyn ClientCertVerifier>>,
    allowed: Vec<String>,
    flags: TlsFlags,
}

impl ClientCertificates {
    /// Reads the CAs' certificates for the first time. A caller's certificate must have one of
    /// `allowed` as a subject alternative name: a DNS name, or a URI (what has a colon is one).
    ///
    /// # Errors
    /// A file that cannot be used. Later such files leave the old CAs in force, with a log line.
    pub async fn open(
        ca: PathBuf,
        allowed: Vec<String>,
        flags: TlsFlags,
    ) -> Result<Self, FileError> {
        let file = Named::new(flags.client_ca, ca);
        let ca = Watched::open([file], |[file], [pem]| verifier(file, &pem)).await?;
        Ok(Self { ca, allowed, flags })
    }

    /// Who checks certificates, by the file as it is now.
    pub(in crate::server) async fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.ca.current().await.as_ref().clone()
    }

    /// Finds out who calls, at every request: the handshake may be long ago, and since then the
    /// certificate may have expired or the CA been replaced.
    ///
    /// `chain` is what the peer presented in a handshake in which it proved to have the key.
    ///
    /// # Errors
    /// A 401 without a certificate that counts now, a 403 where none of its names is allowed.
    pub async fn identify(&self, chain: &[CertificateDer<'static>]) -> Result<Arc<str>, Refused> {
        let unauthorized = |peer: Option<String>, detail: String| Refused {
            peer: peer.map(Into::into),
            problem: Problem::new(Kind::UNAUTHORIZED, detail).challenge(CHALLENGE),
            close: true,
        };
        let Some((leaf, intermediates)) = chain.split_first() else {
            let detail = "connect with TLS and a client certificate";
            return Err(unauthorized(None, detail.to_owned()));
        };
        let names = names(leaf);
        let verifier = self.verifier().await;
        if let Err(error) = verifier.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            let detail = format!(
                "the client certificate of this connection is not accepted any more ({error}): connect again with one that is valid and signed by a CA of {}",
                self.flags.client_ca
            );
            // It was accepted in the handshake, so the log may tell whose it was.
            return Err(unauthorized(Some(show(&names)), detail));
        }
        if let Some(name) = names.iter().find(|name| name.is_among(&self.allowed)) {
            return Ok(name.shown().into());
        }
        let shown = show(&names);
        let detail = format!(
            "the client certificate has the names {shown}, and none of them is allowed: add one to {}",
            self.flags.allowed_client
        );
        Err(Refused {
            peer: Some(shown.into()),
            problem: Problem::new(Kind::FORBIDDEN, detail),
            close: false,
        })
    }
}

/// A subject alternative name. The common name is none: RFC 9525, 2.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Dns(String),
    Uri(String),
}

impl Name {
    /// Compared as they are, so a wildcard in a certificate stands for nothing.
    fn is_among(&self, allowed: &[String]) -> bool {
        allowed.iter().any(|allowed| match self {
            Self::Dns(name) => !allowed.contains(':') && allowed == name,
            Self::Uri(uri) => allowed.contains(':') && allowed == uri,
        })
    }

    fn shown(&self) -> String {
        let (Self::Dns(text) | Self::Uri(text)) = self;
        text.chars()
            .filter(|c| !c.is_control())
            .take(MAX_NAME)
            .collect()
    }
}

fn names(certificate: &CertificateDer<'_>) -> Vec<Name> {
    // It was verified before, so it parses; if not, it has no name.
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(Name::Dns((*name).to_owned())),
            GeneralName::URI(uri) => Some(Name::Uri((*uri).to_owned())),
            _ => None,
        })
        .collect()
}

fn show(names: &[Name]) -> String {
    if names.is_empty() {
        return "(none: it has no DNS name or URI as a subject alternative name)".to_owned();
    }
    let mut shown: Vec<String> = names.iter().take(MAX_NAMES).map(Name::shown).collect();
    if names.len() > MAX_NAMES {
        shown.push("...".to_owned());
    }
    shown.join(", ")
}

fn verifier(file: &Named, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|_| file.error("is broken: its PEM cannot be read"))?;
        roots
            .add(certificate)
            .map_err(|error| file.error(format!("holds a certificate of no use: {error}")))?;
    }
    if roots.is_empty() {
        return Err(file.error(
            "holds no certificate: write those of the CAs in PEM, -----BEGIN CERTIFICATE-----",
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| file.error(format!("cannot be used: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn names_match_as_they_are() {
        let dns = |name: &str| Name::Dns(name.to_owned());
        let uri = |name: &str| Name::Uri(name.to_owned());
        let list = allowed(&["a.example.org", "spiffe://example.org/a"]);
        assert!(dns("a.example.org").is_among(&list));
        assert!(uri("spiffe://example.org/a").is_among(&list));
        for other in [
            dns("*.example.org"),
            dns("example.org"),
            dns("a.example.org."),
            dns("x.a.example.org"),
            dns("a.example.org\0.evil.org"),
            // The kind of a name counts, too.
            uri("a.example.org"),
            dns("spiffe://example.org/a"),
            uri("spiffe://example.org/a/"),
            uri("spiffe://example.org/b"),
        ] {
            assert!(!other.is_among(&list), "{other:?}");
        }
    }

    #[test]
    fn subject_alternative_names_only() {
        let mut params = rcgen::CertificateParams::new(vec!["dns.example.org".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "common.example.org");
        let uri = "spiffe://example.org/a".try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        let email = "a@example.org".try_into().unwrap();
        params
            .subject_alt_names
            .push(rcgen::SanType::Rfc822Name(email));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(
            names(certificate.der()),
            [
                Name::Dns("dns.example.org".into()),
                Name::Uri("spiffe://example.org/a".into())
            ]
        );
        let bare = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let bare = bare.self_signed(&key).unwrap();
        assert_eq!(names(bare.der()), []);
        assert!(show(&[]).contains("none"));
    }
}

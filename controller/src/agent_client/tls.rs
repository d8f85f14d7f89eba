//! TLS towards an agent: whom we trust, and who we are.

mod trouble;

pub(super) use trouble::{Trouble, broken};

use rustls::{
    ClientConfig, Error as TlsFault, RootCertStore, client::Resumption, crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use std::{net::IpAddr, sync::Arc};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Whom to trust and who we are. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    client_certificate: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .field("client_certificate", &self.client_certificate)
            .finish_non_exhaustive()
    }
}

/// What cannot be used. It says what is wrong, for whoever knows where it came from to name that;
/// it never carries what was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The certificates of the CA.
    #[error("{0}")]
    Ca(String),
    /// The client certificate.
    #[error("{0}")]
    ClientCertificate(String),
    /// Its key.
    #[error("{0}")]
    ClientKey(String),
    /// The name in the agent's certificate.
    #[error("{0:?} is neither a DNS name nor an address")]
    ServerName(String),
    /// What the system itself brings.
    #[error("{0}")]
    System(String),
}

impl Tls {
    /// Reads PEM texts. With `ca` only the certificates in it are trusted, without it the system's
    /// CAs. `client` is a certificate chain and its private key. `server_name` is looked for in the
    /// agent's certificate instead of the URL's host.
    ///
    /// # Errors
    /// [`TlsError`] names the part that cannot be used.
    pub fn new(
        ca: Option<&[u8]>,
        client: Option<(&[u8], &[u8])>,
        server_name: Option<&str>,
    ) -> Result<Self, TlsError> {
        let server_name = match server_name {
            None => None,
            Some(name) => Some(
                ServerName::try_from(name.to_owned())
                    .map_err(|_| TlsError::ServerName(name.to_owned()))?,
            ),
        };
        let roots = match ca {
            Some(pem) => given_roots(pem)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::System(e.to_string()))?
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).map_err(TlsError::ClientCertificate)?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| TlsError::ClientKey("holds no private key in PEM".to_owned()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| TlsError::ClientKey(unusable_key(&e)))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // An attempt makes a connection or two: each proves anew who is at either end.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            server_name,
            client_certificate: client.is_some(),
        })
    }

    /// Shakes hands over a connection to where `base` leads.
    pub(super) async fn connect<I>(&self, base: &url::Url, io: I) -> Result<TlsStream<I>, Trouble>
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let name = match (&self.server_name, base.host()) {
            (Some(name), _) => name.clone(),
            (None, Some(url::Host::Ipv4(ip))) => IpAddr::from(ip).into(),
            (None, Some(url::Host::Ipv6(ip))) => IpAddr::from(ip).into(),
            (None, host) => {
                let host = host.map(|h| h.to_string()).unwrap_or_default();
                ServerName::try_from(host.clone()).map_err(|_| {
                    Trouble::with(
                        format!("{host:?} cannot stand in a certificate"),
                        "set source.tls.serverName (--server-name) to a name that does",
                    )
                })?
            }
        };
        TlsConnector::from(Arc::clone(&self.config))
            .connect(name, io)
            .await
            .map_err(|error| self.broken_off(&error))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("holds no certificate in PEM".to_owned()),
    }
}

fn given_roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).map_err(TlsError::Ca)? {
        roots
            .add(certificate)
            .map_err(|e| TlsError::Ca(format!("holds a certificate that is not one: {e}")))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Old roots that cannot be read are usual, and no reason to trust nobody.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|e| format!(" ({e})"));
        return Err(TlsError::System(format!(
            "this system has no CA certificates of its own{}: name the agent's CA",
            why.unwrap_or_default()
        )));
    }
    Ok(roots)
}

fn unusable_key(error: &TlsFault) -> String {
    match error {
        TlsFault::InconsistentKeys(_) => "is not the key of that certificate".to_owned(),
        other => format!("cannot be used: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    pub(super) fn pair() -> (String, String) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn what_cannot_be_used_is_told_apart() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        let (certificate, key, other) = (certificate.as_bytes(), key.as_bytes(), other.as_bytes());
        let new = |ca, client, name| Tls::new(Some(ca), client, name);
        assert!(new(certificate, Some((certificate, key)), Some("db.shop")).is_ok());
        assert!(new(certificate, None, Some("10.0.0.1")).is_ok());
        let none = |what: &str| format!("holds no {what} in PEM");
        for (error, ca, client, name) in [
            (TlsError::Ca(none("certificate")), &b"x"[..], None, None),
            (TlsError::Ca(none("certificate")), key, None, None),
            (
                TlsError::ClientCertificate(none("certificate")),
                certificate,
                Some((key, key)),
                None,
            ),
            (
                TlsError::ClientKey(none("private key")),
                certificate,
                Some((certificate, certificate)),
                None,
            ),
            (
                TlsError::ClientKey("is not the key of that certificate".into()),
                certificate,
                Some((certificate, other)),
                None,
            ),
            (
                TlsError::ServerName("a b".into()),
                certificate,
                None,
                Some("a b"),
            ),
        ] {
            assert_eq!(new(ca, client, name).unwrap_err(), error);
        }
    }

    #[test]
    fn nothing_shows_a_key() {
        let (certificate, key) = pair();
        let (c, k) = (certificate.as_bytes(), key.as_bytes());
        let shown = format!("{:?}", Tls::new(Some(c), Some((c, k)), None).unwrap());
        assert_eq!(
            shown,
            "Tls { server_name: None, client_certificate: true, .. }"
        );
    }
}

//! TLS on a listener: the server's certificate, and the handshake.

use super::auth::ClientCertificates;
use super::watched::{FileError, Named, Watched};
use crate::metrics::{HandshakeFailure, TlsMetrics};
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InvalidMessage, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Between two log lines about failed handshakes: anybody can cause any number of those.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// The flags that name the files, for what is said about them.
#[derive(Clone, Copy, Debug)]
pub struct TlsFlags {
    /// The server's certificate.
    pub cert: &'static str,
    /// Its private key.
    pub key: &'static str,
    /// The CAs of callers.
    pub client_ca: &'static str,
    /// The names of callers that are let in.
    pub allowed_client: &'static str,
}

impl TlsFlags {
    /// Those of the agent.
    pub const AGENT: Self = Self {
        cert: "--tls-cert",
        key: "--tls-key",
        client_ca: "--client-ca",
        allowed_client: "--allowed-client",
    };
}

/// The server's certificate and key.
struct Identity {
    key: Arc<SingleCertAndKey>,
    /// Unix time, in seconds.
    not_after: i64,
}

/// What is needed for handshakes. Its files are read at each of them, so a renewed certificate
/// counts from the next one on.
#[derive(Debug)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    identity: Watched<Identity, 2>,
    clients: Option<Arc<ClientCertificates>>,
    metrics: Option<TlsMetrics>,
    flags: TlsFlags,
    /// When a failed handshake was last logged.
    logged: Mutex<Option<Instant>>,
}

impl Tls {
    /// Reads the server's certificate and its key, PEM files. With `clients`, callers must present
    /// certificates.
    ///
    /// # Errors
    /// A file that cannot be used, and why.
    pub async fn open(
        cert: PathBuf,
        key: PathBuf,
        clients: Option<Arc<ClientCertificates>>,
        metrics: Option<TlsMetrics>,
        flags: TlsFlags,
    ) -> Result<Self, FileError> {
        let files = [Named::new(flags.cert, cert), Named::new(flags.key, key)];
        let identity = Watched::open(files, |[cert_file, key_file], [cert, key]| {
            identity(cert_file, key_file, &cert, &key)
        })
        .await?;
        let tls = Self {
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            identity,
            clients,
            metrics,
            flags,
            logged: Mutex::default(),
        };
        tls.refresh().await;
        Ok(tls)
    }

    /// The certificate by the files as they are now; the metric of its expiry follows.
    pub(super) async fn refresh(&self) -> Arc<SingleCertAndKey> {
        let identity = self.identity.current().await;
        if let Some(metrics) = &self.metrics {
            metrics.expiry(identity.not_after);
        }
        identity.key.clone()
    }

    async fn config(&self) -> Result<ServerConfig, Error> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier().await),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(self.refresh().await);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Every handshake is a full one: callers come some times a day, and a resumed session would
        // bring certificates along that nobody has looked at since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Takes at most `limit` for the handshake, and no time once `stop` says so. `None`: it came to
    /// nothing, and the connection is closed.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        limit: Duration,
        mut stop: watch::Receiver<bool>,
    ) -> Option<TlsStream<TcpStream>> {
        let handshake = async {
            let config = self.config().await.map_err(io::Error::other)?;
            TlsAcceptor::from(Arc::new(config)).accept(stream).await
        };
        let result = tokio::select! {
            // An error means that the server is gone, and its connections with it.
            _ = stop.wait_for(|stop| *stop) => return None,
            result = timeout(limit, handshake) => result,
        };
        match result {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => {
                let (kind, hint) = explain(&error, self.flags);
                self.failed(remote, kind, &error.to_string(), hint.as_deref());
            }
            Err(_) => self.failed(remote, HandshakeFailure::Timeout, "it takes too long", None),
        }
        None
    }

    fn failed(&self, remote: SocketAddr, kind: HandshakeFailure, error: &str, hint: Option<&str>) {
        if let Some(metrics) = &self.metrics {
            metrics.failed(kind);
        }
        let reason = kind.as_str();
        // Who only connects is mostly a probe.
        if kind == HandshakeFailure::Disconnected || !self.may_log() {
            tracing::debug!(%remote, reason, error, hint, "TLS handshake failed");
        } else {
            tracing::info!(%remote, reason, error, hint, "TLS handshake failed");
        }
    }

    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let due = logged.is_none_or(|logged| logged.elapsed() >= LOG_PAUSE);
        if due {
            *logged = Some(Instant::now());
        }
        due
    }
}

/// What kind of failure it is, and what to do about it.
fn explain(error: &io::Error, flags: TlsFlags) -> (HandshakeFailure, Option<String>) {
    let (ca, cert) = (flags.client_ca, flags.cert);
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        None => (HandshakeFailure::Disconnected, None),
        Some(Error::InvalidCertificate(_)) => (
            HandshakeFailure::ClientCertificate,
            Some(format!(
                "is the caller's certificate valid, and signed by a CA of {ca}?"
            )),
        ),
        Some(Error::NoCertificatesPresented) => (
            HandshakeFailure::ClientCertificate,
            Some(format!(
                "the caller must present a certificate signed by a CA of {ca}"
            )),
        ),
        Some(Error::AlertReceived(_)) => (
            HandshakeFailure::Refused,
            Some(format!(
                "the caller refuses {cert}: does it trust its CA, and is it called by a name in it?"
            )),
        ),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => (
            HandshakeFailure::Protocol,
            Some("the caller does not speak TLS: its URL must begin with https://".to_owned()),
        ),
        Some(_) => (HandshakeFailure::Protocol, None),
    }
}

fn identity(
    cert_file: &Named,
    key_file: &Named,
    cert: &[u8],
    key: &[u8],
) -> Result<Identity, FileError> {
    let chain = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| cert_file.error("is broken: its PEM cannot be read"))?;
    let Some(leaf) = chain.first() else {
        return Err(cert_file.error(
            "holds no certificate: write the server's in PEM, -----BEGIN CERTIFICATE-----, and those between it and the CA behind it",
        ));
    };
    let validity = match X509Certificate::from_der(leaf) {
        Ok((_, certificate)) => certificate.validity().clone(),
        Err(_) => return Err(cert_file.error("holds a certificate that cannot be parsed")),
    };
    // What is in the file is a secret, so its parser's words are not shown.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        key_file.error(if contains(key, b"ENCRYPTED") {
            "is encrypted, and there is no passphrase: write it with `openssl pkey -in FILE -out FILE`"
        } else {
            "holds no private key: write it in PEM, -----BEGIN PRIVATE KEY-----"
        })
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => key_file.error(format!(
            "is not the key of the certificate in {} {}: give the pair that belongs together",
            cert_file.flag(),
            cert_file.path()
        )),
        Error::InvalidCertificate(_) => {
            cert_file.error(format!("holds a certificate of no use: {error}"))
        }
        // Says nothing about the key itself.
        _ => key_file.error("holds a private key of no use: ECDSA, Ed25519 and RSA are known"),
    })?;
    let not_after = validity.not_after.timestamp();
    let now = UnixTime::now().as_secs();
    if not_after < i64::try_from(now).unwrap_or(i64::MAX) {
        tracing::warn!(
            file = %cert_file.path(),
            flag = cert_file.flag(),
            expired = %validity.not_after,
            "the certificate has expired: callers will refuse it until it is renewed"
        );
    }
    Ok(Identity {
        key: Arc::new(SingleCertAndKey::from(certified)),
        not_after,
    })
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

//! Certificates made for a test, the files that they lie in, and clients that use them.

use crate::harness::{Answer, Harness, PATIENCE, raw};
use prometheus::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use towline_agent::metrics::TlsMetrics;
use towline_agent::server::{
    Auth, ClientCertificates, DrainTimes, Limits, Tls, TlsFlags, TokenFile,
};

/// The agent's name in its certificate.
pub(crate) const AGENT: &str = "agent.example.org";
/// The caller that the tests' agents let in.
pub(crate) const CALLER: &str = "controller.example.org";
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

pub(crate) struct Leaf {
    /// PEM.
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
    /// Sent behind it.
    intermediates: Vec<CertificateDer<'static>>,
    key_der: PrivateKeyDer<'static>,
}

impl Leaf {
    /// With the certificate of the CA that signed it.
    pub(crate) fn behind(mut self, intermediate: &Ca) -> Self {
        self.cert.push_str(&intermediate.pem());
        self.intermediates.push(intermediate.0.der().clone());
        self
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        [std::slice::from_ref(&self.der), &self.intermediates].concat()
    }
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(Self::params(name), key).unwrap())
    }

    /// One that this one has signed.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(Self::params(name), key, &self.0).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn server(&self) -> Leaf {
        self.server_until(SystemTime::now() + DAY)
    }

    pub(crate) fn server_until(&self, not_after: SystemTime) -> Leaf {
        self.leaf(
            ExtendedKeyUsagePurpose::ServerAuth,
            &[AGENT],
            "agent",
            not_after,
        )
    }

    pub(crate) fn client(&self, names: &[&str]) -> Leaf {
        self.client_until(names, SystemTime::now() + DAY)
    }

    pub(crate) fn client_until(&self, names: &[&str], not_after: SystemTime) -> Leaf {
        // The common name is the one that is let in, and must count for nothing.
        self.leaf(
            ExtendedKeyUsagePurpose::ClientAuth,
            names,
            CALLER,
            not_after,
        )
    }

    /// A name with a colon is a URI, the others are DNS names.
    fn leaf(
        &self,
        usage: ExtendedKeyUsagePurpose,
        names: &[&str],
        common_name: &str,
        not_after: SystemTime,
    ) -> Leaf {
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - 10 * DAY).into();
        params.not_after = not_after.into();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        for &name in names {
            let text = name.try_into().unwrap();
            params.subject_alt_names.push(if name.contains(':') {
                SanType::URI(text)
            } else {
                SanType::DnsName(text)
            });
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Leaf {
            cert: cert.pem(),
            key: key.serialize_pem(),
            der: cert.der().clone(),
            intermediates: Vec::new(),
            key_der: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

/// Files as Kubernetes mounts a Secret: links through `..data`, which is exchanged in one step.
pub(crate) struct Mount {
    dir: tempfile::TempDir,
    version: usize,
}

impl Mount {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let mut mount = Self {
            dir: tempfile::tempdir().unwrap(),
            version: 0,
        };
        mount.publish(files);
        for (name, _) in files {
            std::os::unix::fs::symlink(format!("..data/{name}"), mount.path(name)).unwrap();
        }
        mount
    }

    /// An agent's certificate, the CA of its callers, and tokens.
    pub(crate) fn of(server: &Leaf, client_ca: &Ca) -> Self {
        Self::new(&Self::files(server, &client_ca.pem()))
    }

    pub(crate) fn files<'a>(server: &'a Leaf, client_ca: &'a str) -> [(&'a str, &'a str); 4] {
        [
            ("tls.crt", &server.cert),
            ("tls.key", &server.key),
            ("ca.crt", client_ca),
            ("tokens", TOKENS),
        ]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Exchanges all files at once.
    pub(crate) fn publish(&mut self, files: &[(&str, &str)]) {
        let old = self.path(&format!("..{}", self.version));
        self.version += 1;
        let version = format!("..{}", self.version);
        std::fs::create_dir(self.path(&version)).unwrap();
        for (name, text) in files {
            std::fs::write(self.path(&version).join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(&version, self.path("..new")).unwrap();
        std::fs::rename(self.path("..new"), self.path("..data")).unwrap();
        let _ = std::fs::remove_dir_all(old);
    }
}

pub(crate) const TOKENS: &str =
    "all-token backup cancel restore # everything\nb-token backup\nc-token cancel\n";

/// Who may call, beside what the mount holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Open,
    Tokens,
    Certificates,
    Both,
}

pub(crate) const ALLOWED: &[&str] = &[CALLER, "spiffe://example.org/controller"];

pub(crate) async fn start(
    mount: &Mount,
    access: Access,
    limits: Limits,
    drain: DrainTimes,
) -> Harness {
    let registry = Registry::new();
    let tokens = async || TokenFile::open(mount.path("tokens")).await.unwrap();
    let clients = async || {
        let allowed = ALLOWED.iter().map(|&name| name.to_owned()).collect();
        let clients =
            ClientCertificates::open(mount.path("ca.crt"), allowed, TlsFlags::AGENT).await;
        Arc::new(clients.unwrap())
    };
    let (auth, clients) = match access {
        Access::Open => (Auth::Open, None),
        Access::Tokens => (Auth::Tokens(tokens().await), None),
        Access::Certificates => {
            let clients = clients().await;
            (Auth::Certificates(clients.clone()), Some(clients))
        }
        Access::Both => {
            let clients = clients().await;
            (Auth::Both(clients.clone(), tokens().await), Some(clients))
        }
    };
    let metrics = TlsMetrics::new(&registry).unwrap();
    let tls = Tls::open(
        mount.path("tls.crt"),
        mount.path("tls.key"),
        clients,
        Some(metrics),
        TlsFlags::AGENT,
    )
    .await;
    Harness::serve(registry, auth, Some(tls.unwrap()), limits, drain).await
}

/// A TLS client that trusts one CA and may have a certificate.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) Arc<ClientConfig>);

impl Client {
    pub(crate) fn new(trusted: &Ca, identity: Option<&Leaf>, alpn: &[&str]) -> Self {
        Self::with_versions(trusted, identity, alpn, rustls::ALL_VERSIONS)
    }

    pub(crate) fn with_versions(
        trusted: &Ca,
        identity: Option<&Leaf>,
        alpn: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(leaf) => builder
                .with_client_auth_cert(leaf.chain(), leaf.key_der.clone_key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    pub(crate) async fn connect(&self, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(addr).await?;
        let name = ServerName::try_from(AGENT).unwrap();
        TlsConnector::from(self.0.clone())
            .connect(name, stream)
            .await
    }

    /// Sends bytes on a connection of their own and returns all that comes back until it closes.
    pub(crate) async fn raw(&self, addr: SocketAddr, request: &str) -> io::Result<Answer> {
        let mut stream = self.connect(addr).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
            .await
            .expect("the server closes the connection")?;
        Ok(Answer(bytes))
    }

    /// One request with `Connection: close`.
    pub(crate) async fn request(&self, addr: SocketAddr, line: &str) -> io::Result<Answer> {
        self.raw(addr, &request(line)).await
    }
}

pub(crate) fn request(line: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTE: trailers\r\n\r\n")
}

/// A metric by its name with labels.
pub(crate) async fn metric(server: &Harness, name: &str) -> Option<f64> {
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let text = raw(server.admin, request).await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

/// Failed handshakes so far.
pub(crate) async fn failures(server: &Harness, reason: &str) -> f64 {
    let name = format!("towline_agent_tls_handshake_failures_total{{reason=\"{reason}\"}}");
    metric(server, &name).await.expect("the series exists")
}

/// Everything until the connection ends, however it does.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the connection ends");
    bytes
}

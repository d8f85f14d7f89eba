//! Why the flags cannot be used.

use std::net::SocketAddr;

/// Why the flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Unknown or malformed flags; also `--help` and `--version`, which are no failure.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// No way for callers to authenticate.
    #[error(
        "nobody is named who may call, so the agent does not start: add --token-file FILE (lines of TOKEN SCOPE..., see --help), or --client-ca FILE with --allowed-client NAME, or --no-auth on a loopback address"
    )]
    NoAuth,
    /// Everybody, and somebody.
    #[error("--no-auth and {0} exclude each other: leave out one of them")]
    TwoAnswers(&'static str),
    /// Everybody would be let in.
    #[error("--no-auth is for a loopback address only, and --listen {0} is none: use --token-file FILE or --client-ca FILE, or --listen 127.0.0.1:{port}", port = .0.port())]
    OpenToOthers(SocketAddr),
    /// Tokens would go over the network in the clear.
    #[error("--listen {0} is reached by others, who could read tokens and backups on the way: add --tls-cert FILE and --tls-key FILE, or --insecure-http if the network is trusted, or listen on 127.0.0.1:{port}", port = .0.port())]
    PlainHttp(SocketAddr),
    /// TLS, and none.
    #[error(
        "--insecure-http and --tls-cert exclude each other: leave out --insecure-http to serve HTTPS only"
    )]
    TlsAndPlain,
    /// One half of the agent's identity.
    #[error("{given} needs {missing} FILE too: TLS takes a certificate and its private key")]
    HalfTls {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// Nobody could present a certificate.
    #[error("--client-ca needs TLS: add --tls-cert FILE and --tls-key FILE")]
    ClientCaWithoutTls,
    /// Everybody with any certificate of the CA would be let in.
    #[error(
        "--client-ca alone would let in whomever the CA has ever signed: add --allowed-client NAME, a DNS name or URI in the caller's certificate"
    )]
    NobodyAllowed,
    /// A name that nobody vouches for.
    #[error("--allowed-client needs --client-ca FILE, the CA that signs the callers' certificates")]
    AllowedWithoutClientCa,
    /// Both listeners on one port.
    #[error("--listen and --admin-listen are both {0}: give one of them another port")]
    SameAddress(SocketAddr),
    /// A port without a host.
    #[error("--db-port needs --db-host: a socket has no port")]
    PortWithoutHost,
    /// A value that cannot be.
    #[error("{flag} {message}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What is wrong and how it is right.
        message: String,
    },
}

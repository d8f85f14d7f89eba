//! Who may call, and whether others can listen in.

use super::ConfigError;
use super::flags::Flags;
use std::path::PathBuf;

/// The agent's own identity in TLS, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, and those between it and the CA.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// Callers with certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientsConfig {
    /// PEM file of the CAs that sign their certificates.
    pub ca: PathBuf,
    /// Subject alternative names that are let in.
    pub allowed: Vec<String>,
}

/// How callers are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthConfig {
    /// Everybody, on loopback.
    Open,
    /// Whoever has a token of this file.
    Tokens(PathBuf),
    /// Whoever has an allowed certificate.
    Certificates(ClientsConfig),
    /// Whoever has an allowed certificate and a token of the file.
    Both(ClientsConfig, PathBuf),
}

/// Checks the flags that say who may call and how.
pub(super) fn check(flags: &Flags) -> Result<(AuthConfig, Option<TlsFiles>), ConfigError> {
    let listen = flags.listen;
    let tls = match (&flags.tls_cert, &flags.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
        }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(ConfigError::HalfTls {
                given: "--tls-cert",
                missing: "--tls-key",
            });
        }
        (None, Some(_)) => {
            return Err(ConfigError::HalfTls {
                given: "--tls-key",
                missing: "--tls-cert",
            });
        }
    };
    // Not left to clap: TOWLINE_INSECURE_HTTP=false is no conflict, nor is TOWLINE_NO_AUTH=false.
    if tls.is_some() && flags.insecure_http {
        return Err(ConfigError::TlsAndPlain);
    }
    let clients = match &flags.client_ca {
        Some(_) if tls.is_none() => return Err(ConfigError::ClientCaWithoutTls),
        Some(_) if flags.allowed_client.is_empty() => return Err(ConfigError::NobodyAllowed),
        Some(ca) => Some(ClientsConfig {
            ca: ca.clone(),
            allowed: flags.allowed_client.clone(),
        }),
        None if !flags.allowed_client.is_empty() => {
            return Err(ConfigError::AllowedWithoutClientCa);
        }
        None => None,
    };
    for name in &flags.allowed_client {
        check_name(name)?;
    }
    let auth = match (clients, flags.token_file.clone()) {
        (Some(_), _) if flags.no_auth => return Err(ConfigError::TwoAnswers("--client-ca")),
        (_, Some(_)) if flags.no_auth => return Err(ConfigError::TwoAnswers("--token-file")),
        (Some(clients), Some(tokens)) => AuthConfig::Both(clients, tokens),
        (Some(clients), None) => AuthConfig::Certificates(clients),
        (None, Some(tokens)) => AuthConfig::Tokens(tokens),
        (None, None) if !flags.no_auth => return Err(ConfigError::NoAuth),
        (None, None) if !listen.ip().is_loopback() => {
            return Err(ConfigError::OpenToOthers(listen));
        }
        (None, None) => AuthConfig::Open,
    };
    if !listen.ip().is_loopback() && tls.is_none() && !flags.insecure_http {
        return Err(ConfigError::PlainHttp(listen));
    }
    Ok((auth, tls))
}

/// Names are compared as they are, so what could never be equal is a mistake.
fn check_name(name: &str) -> Result<(), ConfigError> {
    let wrong = |message: String| {
        Err(ConfigError::Value {
            flag: "--allowed-client",
            message,
        })
    };
    if name.is_empty() {
        return wrong("is empty: name a DNS name or URI in the caller's certificate".into());
    }
    if name.contains('*') {
        return wrong(format!(
            "{name:?} has a wildcard, which stands for nothing here: name each caller"
        ));
    }
    if !name.bytes().all(|b| b.is_ascii_graphic()) {
        return wrong(format!(
            "{name:?} is no DNS name or URI: write one as in controller.example.org or spiffe://example.org/controller"
        ));
    }
    Ok(())
}

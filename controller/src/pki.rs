//! A small certificate authority for agents and controller: what `towline pki` makes.
//!
//! Keys are ECDSA P-256. Extensions follow RFC 5280: the CA may sign certificates and nothing else
//! and has no further CA below it; a certificate serves or calls, never both.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::time::Duration;

/// How long a new CA lasts.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// Clocks differ: certificates are valid from this long before they are made.
const BACKDATED: Duration = Duration::from_secs(300);

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// No certificate in the CA's file.
    #[error("holds no certificate in PEM")]
    NoCertificate,
    /// A certificate that may not sign others.
    #[error("is not the certificate of a CA (basicConstraints CA:TRUE, keyUsage keyCertSign)")]
    NotCa,
    /// The CA's end has come.
    #[error("expired at {0}")]
    Expired(Timestamp),
    /// No private key in the CA's key file.
    #[error("holds no private key in PEM")]
    NoKey,
    /// The two files do not belong together.
    #[error("is not the key of that certificate")]
    OtherKey,
    /// A name that cannot stand in a certificate.
    #[error("{0:?} is neither a DNS name nor an address nor a URI")]
    Name(String),
    /// The certificate could not be made.
    #[error("no certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// An agent's own.
    Server,
    /// The controller's, for agents that want one.
    Client,
}

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PKCS #8 in PEM.
    pub key: String,
    /// When it ends: as asked for, or with the CA.
    pub not_after: Timestamp,
}

impl Authority {
    /// Makes a new CA: its certificate and its key, both PEM.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn create(now: Timestamp) -> Result<(String, String), PkiError> {
        let key = KeyPair::generate()?;
        let mut params = validity(now, after(now, CA_LIFETIME));
        params.distinguished_name = common_name("Towline CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
    }

    /// Reads a CA. The first certificate of `certificates` is the one that signs.
    ///
    /// # Errors
    /// [`PkiError`] says which of the two cannot be used.
    pub fn read(certificates: &str, key: &str, now: Timestamp) -> Result<Self, PkiError> {
        let der = CertificateDer::from_pem_slice(certificates.as_bytes())
            .map_err(|_| PkiError::NoCertificate)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|_| PkiError::NoCertificate)?;
        let signs = match parsed.key_usage() {
            Ok(Some(usage)) => usage.value.key_cert_sign(),
            Ok(None) => true,
            Err(_) => false,
        };
        if !parsed.is_ca() || !signs {
            return Err(PkiError::NotCa);
        }
        let end = parsed.validity().not_after.timestamp();
        let not_after = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
        if not_after <= now {
            return Err(PkiError::Expired(not_after));
        }
        let key = KeyPair::from_pem(key).map_err(|_| PkiError::NoKey)?;
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(PkiError::OtherKey);
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&der, key)?,
            not_after,
        })
    }

    /// Makes a key and a certificate for it that ends after `lifetime`, or with the CA.
    ///
    /// # Errors
    /// [`PkiError::Name`], [`PkiError::Make`].
    pub fn issue(
        &self,
        usage: Usage,
        names: &[String],
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let not_after = after(now, lifetime).min(self.not_after);
        let mut params = validity(now, not_after);
        params.subject_alt_names = names.iter().map(|n| name(n)).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // For people; only the alternative names count (RFC 9525, 2).
        let (subject, purpose) = match usage {
            Usage::Server => ("towline agent", ExtendedKeyUsagePurpose::ServerAuth),
            Usage::Client => ("towline client", ExtendedKeyUsagePurpose::ClientAuth),
        };
        params.distinguished_name = common_name(subject);
        params.extended_key_usages = vec![purpose];
        Ok(Issued {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
            not_after,
        })
    }
}

/// A certificate's times are whole seconds.
fn after(now: Timestamp, lifetime: Duration) -> Timestamp {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    now.saturating_add(lifetime).unwrap_or(Timestamp::MAX)
}

fn validity(now: Timestamp, not_after: Timestamp) -> CertificateParams {
    let at = |time: Timestamp| {
        let seconds = u64::try_from(time.as_second()).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    let mut params = CertificateParams::default();
    params.not_before = at(now.saturating_sub(BACKDATED).unwrap_or(now));
    params.not_after = at(not_after);
    params
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn name(text: &str) -> Result<SanType, PkiError> {
    let bad = || PkiError::Name(text.to_owned());
    if let Ok(address) = text.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let value = text.try_into().map_err(|_| bad())?;
    if text.contains(':') {
        url::Url::parse(text).map_err(|_| bad())?;
        return Ok(SanType::URI(value));
    }
    // A wildcard stands for the first label alone (RFC 9525, 6.3).
    match ServerName::try_from(text.strip_prefix("*.").unwrap_or(text)) {
        Ok(ServerName::DnsName(_)) => Ok(SanType::DnsName(value)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests;

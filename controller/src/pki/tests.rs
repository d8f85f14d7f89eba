use super::*;
use rustls::{
    CertificateError, Error as TlsFault, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::aws_lc_rs::default_provider,
    server::WebPkiClientVerifier,
};
use rustls_pki_types::UnixTime;
use std::sync::Arc;

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Timestamp {
    "2026-01-02T03:04:05.6Z".parse().unwrap()
}

fn authority() -> (String, Authority) {
    let (certificate, key) = Authority::create(now()).unwrap();
    let authority = Authority::read(&certificate, &key, now()).unwrap();
    (certificate, authority)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// Whether a certificate is good for a server of this name, and for a client.
fn verify(
    ca: &str,
    certificate: &str,
    name: &str,
    at: Timestamp,
) -> (Result<(), TlsFault>, Result<(), TlsFault>) {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(ca)).unwrap();
    let (roots, provider) = (Arc::new(roots), Arc::new(default_provider()));
    let certificate = der(certificate);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second() as u64));
    let name = ServerName::try_from(name).unwrap();
    let server =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .unwrap()
            .verify_server_cert(&certificate, &[], &name, &[], at);
    let client = WebPkiClientVerifier::builder_with_provider(roots, provider)
        .build()
        .unwrap()
        .verify_client_cert(&certificate, &[], at);
    (server.map(drop), client.map(drop))
}

fn invalid_purpose(result: &Result<(), TlsFault>) -> bool {
    matches!(
        result,
        Err(TlsFault::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
        ))
    )
}

#[test]
fn a_certificate_serves_or_calls_and_never_both() {
    let (ca, authority) = authority();
    let issue = |usage| {
        let names = names(&["agent.shop", "10.0.0.1"]);
        authority.issue(usage, &names, DAY, now()).unwrap()
    };
    let (agent, client) = (issue(Usage::Server), issue(Usage::Client));
    for name in ["agent.shop", "10.0.0.1"] {
        let (serves, calls) = verify(&ca, &agent.certificate, name, now());
        assert_eq!(serves, Ok(()));
        assert!(invalid_purpose(&calls), "{calls:?}");
        let (serves, calls) = verify(&ca, &client.certificate, name, now());
        assert!(invalid_purpose(&serves), "{serves:?}");
        assert_eq!(calls, Ok(()));
    }
    let (serves, _) = verify(&ca, &agent.certificate, "other.shop", now());
    assert!(serves.is_err());
}

#[test]
fn it_is_valid_as_long_as_it_says() {
    let (ca, authority) = authority();
    let agent = authority
        .issue(Usage::Server, &names(&["a"]), DAY, now())
        .unwrap();
    assert_eq!(agent.not_after.to_string(), "2026-01-03T03:04:05Z");
    let at = |time: &str| verify(&ca, &agent.certificate, "a", time.parse().unwrap()).0;
    assert_eq!(at("2026-01-02T02:59:06Z"), Ok(()));
    assert_eq!(at("2026-01-03T03:04:05Z"), Ok(()));
    assert!(at("2026-01-02T02:59:04Z").is_err());
    assert!(at("2026-01-03T03:04:06Z").is_err());
}

#[test]
fn nothing_outlives_the_ca_and_an_expired_one_is_refused() {
    let (certificate, key) = Authority::create(now()).unwrap();
    let end: Timestamp = "2035-12-31T03:04:05Z".parse().unwrap();
    let authority = Authority::read(&certificate, &key, end.saturating_sub(DAY).unwrap()).unwrap();
    let late = end.saturating_sub(DAY).unwrap();
    let issued = authority
        .issue(Usage::Server, &names(&["a"]), 2 * DAY, late)
        .unwrap();
    assert_eq!(issued.not_after, end);
    match Authority::read(&certificate, &key, end) {
        Err(PkiError::Expired(at)) => assert_eq!(at, end),
        _ => panic!("an expired CA was taken"),
    }
}

#[test]
fn the_ca_signs_certificates_and_no_further_ca() {
    let (ca, _) = authority();
    let der = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    // Bit 5 is keyCertSign (RFC 5280, 4.2.1.3).
    assert_eq!(usage.value.flags, 1 << 5);
}

#[test]
fn what_is_no_ca_is_not_used_as_one() {
    let (certificate, key) = Authority::create(now()).unwrap();
    let (_, other) = Authority::create(now()).unwrap();
    let authority = Authority::read(&certificate, &key, now()).unwrap();
    let leaf = authority
        .issue(Usage::Server, &names(&["a"]), DAY, now())
        .unwrap();
    let read = |certificate: &str, key: &str| Authority::read(certificate, key, now()).map(drop);
    assert!(matches!(read("", &key), Err(PkiError::NoCertificate)));
    assert!(matches!(read(&certificate, ""), Err(PkiError::NoKey)));
    assert!(matches!(
        read(&certificate, &other),
        Err(PkiError::OtherKey)
    ));
    assert!(matches!(
        read(&leaf.certificate, &leaf.key),
        Err(PkiError::NotCa)
    ));
}

#[test]
fn names_of_each_kind() {
    let (_, authority) = authority();
    let issue = |name: &str| authority.issue(Usage::Client, &names(&[name]), DAY, now());
    for good in [
        "db",
        "*.db.shop.svc",
        "fd00::1",
        "spiffe://cluster/ns/shop/sa/towline",
        "urn:towline:controller",
    ] {
        let issued = issue(good).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let found = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(found.value.general_names.len(), 1, "{good}");
    }
    for bad in ["", "a b", "*.10.0.0.1", "*", "a.*.b", "://"] {
        assert!(matches!(issue(bad), Err(PkiError::Name(_))), "{bad}");
    }
}

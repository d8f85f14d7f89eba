//! What the Secrets that a source names hold. They are read for each attempt, so that a renewed one
//! counts from the next on.

use super::{NotChosen, failure};
use crate::{
    agent_client::{Tls, TlsError},
    api::{
        check_name,
        job::{SourceAuth, SourceTls},
    },
    reason::{FailureReason, Retry},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};

/// Keys of a Secret of type kubernetes.io/tls.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The Secrets of the job's own namespace.
pub(super) struct Secrets<'a> {
    api: Api<Secret>,
    namespace: &'a str,
}

/// Counted, not final: the Secret may come, or be mended, after the job.
fn unusable(message: String) -> NotChosen {
    failure(FailureReason::InvalidSpec, Retry::Counted, message).into()
}

impl<'a> Secrets<'a> {
    pub(super) fn new(client: &Client, namespace: &'a str) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            namespace,
        }
    }

    async fn get(&self, name: &str, remedy: &str) -> Result<Secret, NotChosen> {
        check_name(name).map_err(|why| {
            failure(
                FailureReason::InvalidSpec,
                Retry::Never,
                format!("spec.source: the name of a Secret {why}"),
            )
        })?;
        self.api
            .get_opt(name)
            .await
            .map_err(|e| NotChosen::of(e, FailureReason::InvalidSpec, &format!("Secret {name}")))?
            .ok_or_else(|| {
                unusable(format!(
                    "Secret {name} does not exist in namespace {}: {remedy}",
                    self.namespace
                ))
            })
    }

    /// The bearer token.
    pub(super) async fn token(
        &self,
        auth: Option<&SourceAuth>,
    ) -> Result<Option<String>, NotChosen> {
        let Some(auth) = auth else {
            return Ok(None);
        };
        let (name, key) = (&auth.token_secret_ref.name, &auth.token_secret_ref.key);
        let remedy = format!("create it with the agent's token under the key {key}");
        let secret = self.get(name, &remedy).await?;
        let token = read_token(&secret, self.namespace, key).map_err(unusable)?;
        Ok(Some(token))
    }

    /// Whom to trust, and who we are.
    pub(super) async fn tls(&self, tls: Option<&SourceTls>) -> Result<Option<Tls>, NotChosen> {
        let Some(tls) = tls else {
            return Ok(None);
        };
        let ca = match &tls.ca_secret_ref {
            Some(from) => {
                let remedy = format!(
                    "create it with the certificate of the agent's CA under the key {}",
                    from.key
                );
                Some((self.get(&from.name, &remedy).await?, from.key.as_str()))
            }
            None => None,
        };
        let client = match &tls.client_cert_secret_ref {
            Some(from) => {
                let remedy = format!(
                    "create it, of type kubernetes.io/tls, with our certificate under {CERTIFICATE} and its key under {KEY}"
                );
                Some(self.get(&from.name, &remedy).await?)
            }
            None => None,
        };
        let ca = ca.as_ref().map(|(secret, key)| (secret, *key));
        make_tls(
            ca,
            client.as_ref(),
            tls.server_name.as_deref(),
            self.namespace,
        )
        .map(Some)
    }
}

fn value<'s>(
    secret: &'s Secret,
    namespace: &str,
    key: &str,
    what: &str,
) -> Result<&'s [u8], String> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .map(|value| value.0.as_slice())
        .ok_or_else(|| {
            format!(
                "Secret {} in namespace {namespace} has no key {key}: add {what} under it",
                secret.name_any()
            )
        })
}

fn read_token(secret: &Secret, namespace: &str, key: &str) -> Result<String, String> {
    let value = value(secret, namespace, key, "the agent's token")?;
    let text = std::str::from_utf8(value)
        .map(str::trim)
        .unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "key {key} of Secret {} in namespace {namespace} must hold the agent's token alone, without blanks",
            secret.name_any()
        ));
    }
    Ok(text.to_owned())
}

fn make_tls(
    ca: Option<(&Secret, &str)>,
    client: Option<&Secret>,
    server_name: Option<&str>,
    namespace: &str,
) -> Result<Tls, NotChosen> {
    let ca_pem = match ca {
        Some((secret, key)) => Some(
            value(
                secret,
                namespace,
                key,
                "the certificate of the agent's CA, in PEM,",
            )
            .map_err(unusable)?,
        ),
        None => None,
    };
    let client_pem = match client {
        Some(secret) => {
            let get = |key, what| value(secret, namespace, key, what).map_err(unusable);
            Some((
                get(CERTIFICATE, "our client certificate, in PEM,")?,
                get(KEY, "the key of our client certificate, in PEM,")?,
            ))
        }
        None => None,
    };
    let at = |key: &str, secret: Option<&Secret>| {
        let name = secret.map(ResourceExt::name_any).unwrap_or_default();
        format!("key {key} of Secret {name} in namespace {namespace}")
    };
    Tls::new(ca_pem, client_pem, server_name).map_err(|error| match &error {
        TlsError::Ca(why) => unusable(format!(
            "{} (spec.source.tls.caSecretRef) {why}",
            at(ca.map_or("", |(_, key)| key), ca.map(|(secret, _)| secret))
        )),
        TlsError::ClientCertificate(why) => unusable(format!(
            "{} (spec.source.tls.clientCertSecretRef) {why}",
            at(CERTIFICATE, client)
        )),
        TlsError::ClientKey(why) => unusable(format!(
            "{} (spec.source.tls.clientCertSecretRef) {why}",
            at(KEY, client)
        )),
        TlsError::ServerName(_) => failure(
            FailureReason::InvalidSpec,
            Retry::Never,
            format!("spec.source.tls.serverName: {error}"),
        )
        .into(),
        TlsError::System(_) => unusable(format!("{error} in spec.source.tls.caSecretRef")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use serde_json::json;

    fn secret(name: &str, data: &[(&str, &str)]) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.name = Some(name.to_owned());
        let data = data.iter().map(|(key, value)| {
            let value = k8s_openapi::ByteString(value.as_bytes().to_vec());
            ((*key).to_owned(), value)
        });
        secret.data = Some(data.collect());
        secret
    }

    #[test]
    fn a_token_is_read_or_its_key_is_named() {
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "agent"}, "data": {"token": "c2VjcmV0Cg==", "bad": "YSBi"}})).unwrap();
        assert_eq!(read_token(&secret, "shop", "token").unwrap(), "secret");
        assert!(
            read_token(&secret, "shop", "other")
                .unwrap_err()
                .contains("Secret agent in namespace shop has no key other")
        );
        assert!(
            read_token(&secret, "shop", "bad")
                .unwrap_err()
                .contains("without blanks")
        );
    }

    #[test]
    fn what_is_wrong_with_a_certificate_names_its_secret_and_key() {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let (pem, key) = (cert.pem(), signing_key.serialize_pem());
        let ca = secret("ca", &[("ca.crt", &pem), ("bad", "x")]);
        let good = secret("us", &[(CERTIFICATE, &pem), (KEY, &key)]);
        let no_key = secret("us", &[(CERTIFICATE, &pem)]);
        let swapped = secret("us", &[(CERTIFICATE, &key), (KEY, &pem)]);
        let bad_key = secret("us", &[(CERTIFICATE, &pem), (KEY, "AGE-SECRET")]);
        assert!(make_tls(Some((&ca, "ca.crt")), Some(&good), Some("db"), "shop").is_ok());
        let use_ = |key, client, name| make_tls(Some((&ca, key)), client, name, "shop");
        for (made, retry, parts) in [
            (
                use_("other", None, None),
                Retry::Counted,
                vec!["Secret ca in namespace shop has no key other"],
            ),
            (
                use_("bad", None, None),
                Retry::Counted,
                vec!["key bad of Secret ca", "caSecretRef", "no certificate"],
            ),
            (
                use_("ca.crt", Some(&no_key), None),
                Retry::Counted,
                vec!["Secret us in namespace shop has no key tls.key"],
            ),
            (
                use_("ca.crt", Some(&swapped), None),
                Retry::Counted,
                vec![
                    "key tls.crt of Secret us",
                    "clientCertSecretRef",
                    "no certificate",
                ],
            ),
            (
                use_("ca.crt", Some(&bad_key), None),
                Retry::Counted,
                vec!["key tls.key of Secret us", "no private key"],
            ),
            (
                use_("ca.crt", None, Some("a b")),
                Retry::Never,
                vec!["spec.source.tls.serverName", "a b"],
            ),
        ] {
            let Err(NotChosen::Failed(failure)) = made else {
                panic!("{parts:?} was accepted");
            };
            assert_eq!(
                (failure.reason, failure.retry),
                (FailureReason::InvalidSpec, retry)
            );
            for part in parts {
                assert!(failure.message.contains(part), "{}", failure.message);
            }
            assert!(!failure.message.contains("AGE-SECRET"));
        }
    }
}

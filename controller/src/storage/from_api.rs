//! From a `BackupStore` and its Secret to a [`StoreConfig`], within what the controller's operator allows.

use super::{Location, S3Config, S3Credentials, StoreConfig, StoreError};
use crate::{
    api::{BackupStore, BackupStoreSpec, check_name, store::S3Spec},
    config::Config,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use std::{collections::BTreeMap, net::IpAddr};

/// Keys of the Secret, as the AWS command line names them.
const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

/// Reads the Secret that a store names and makes its configuration.
///
/// # Errors
/// [`StoreError`] that names what is missing or not allowed: `SecretNotFound`, `SecretIncomplete`,
/// `NotAllowed`, `Failed`.
pub async fn resolve(
    client: &Client,
    config: &Config,
    store: &BackupStore,
) -> Result<StoreConfig, StoreError> {
    let namespace = store.namespace().unwrap_or_default();
    let secret = match &store.spec.credentials_secret_ref {
        Some(reference) => Some(read_secret(client, &namespace, &reference.name).await?),
        None => None,
    };
    let resolved = build(config, &namespace, &store.spec, secret.as_ref())?;
    if let Location::S3(S3Config {
        endpoint: Some(endpoint),
        ..
    }) = &resolved.location
    {
        refuse_local(endpoint).await?;
    }
    Ok(resolved)
}

async fn read_secret(client: &Client, namespace: &str, name: &str) -> Result<Secret, StoreError> {
    check_name(name).map_err(|why| {
        problem(
            "NotAllowed",
            format!("spec.credentialsSecretRef.name: {why}"),
        )
    })?;
    match Api::<Secret>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
    {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(problem(
            "SecretNotFound",
            format!(
                "Secret {name} does not exist in namespace {namespace}: create it with the keys {ACCESS_KEY_ID} and {SECRET_ACCESS_KEY}"
            ),
        )),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(problem(
            "SecretNotFound",
            format!(
                "the controller may not read Secret {name} in namespace {namespace}: its role needs get on secrets there"
            ),
        )),
        Err(error) => Err(problem(
            StoreError::FAILED,
            format!("Secret {name} could not be read: {error}"),
        )),
    }
}

/// The configuration of a store: no request is made.
fn build(
    config: &Config,
    namespace: &str,
    spec: &BackupStoreSpec,
    secret: Option<&Secret>,
) -> Result<StoreConfig, StoreError> {
    let location = match (&spec.s3, &spec.file) {
        (Some(s3), None) => Location::S3(s3_config(config, namespace, s3, secret)?),
        (None, Some(file)) => {
            let Some(root) = &config.file_store_root else {
                return Err(problem(
                    "NotAllowed",
                    "this controller takes no file stores: use s3, or have it started with --file-store-root".into(),
                ));
            };
            // The API server has checked this already; a CRD may be older than the controller.
            if file
                .path
                .split('/')
                .any(|name| matches!(name, "" | "." | ".."))
            {
                return Err(problem(
                    "NotAllowed",
                    "spec.file.path must be a relative path without . or ..".into(),
                ));
            }
            Location::File {
                root: root.join(namespace).join(&file.path),
            }
        }
        _ => {
            return Err(problem(
                StoreError::FAILED,
                "set exactly one of spec.s3 and spec.file".into(),
            ));
        }
    };
    Ok(StoreConfig {
        location,
        prefix: spec.prefix.clone().unwrap_or_default(),
        part_size: spec.part_size,
        max_parts: spec.max_parts,
    })
}

fn s3_config(
    config: &Config,
    namespace: &str,
    s3: &S3Spec,
    secret: Option<&Secret>,
) -> Result<S3Config, StoreError> {
    let credentials = match secret {
        Some(secret) => Some(credentials(namespace, secret)?),
        None if config.ambient_credentials_namespaces.contains(namespace) => None,
        None => {
            return Err(problem(
                "NotAllowed",
                format!(
                    "set spec.credentialsSecretRef: namespace {namespace} may not use the controller's own cloud identity (--ambient-credentials-namespaces)"
                ),
            ));
        }
    };
    Ok(S3Config {
        bucket: s3.bucket.clone(),
        region: s3.region.clone(),
        endpoint: s3.endpoint.clone(),
        force_path_style: s3.force_path_style,
        allow_http: s3.allow_http,
        ca_bundle: s3.ca_bundle.clone(),
        credentials,
    })
}

fn credentials(namespace: &str, secret: &Secret) -> Result<S3Credentials, StoreError> {
    let name = secret.name_any();
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let read = |key: &str| -> Result<Option<String>, StoreError> {
        let Some(value) = data.get(key) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&value.0)
            .map(str::trim)
            .unwrap_or_default();
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(problem(
                "SecretIncomplete",
                format!(
                    "key {key} of Secret {name} in namespace {namespace} is empty or not plain text: write the key as the store gave it"
                ),
            ));
        }
        Ok(Some(text.to_owned()))
    };
    let required = |key: &str| {
        read(key)?.ok_or_else(|| {
            problem(
                "SecretIncomplete",
                format!("Secret {name} in namespace {namespace} has no key {key}: add it"),
            )
        })
    };
    Ok(S3Credentials {
        access_key_id: required(ACCESS_KEY_ID)?,
        secret_access_key: required(SECRET_ACCESS_KEY)?,
        session_token: read(SESSION_TOKEN)?,
    })
}

/// Refuses endpoints on the controller's own host and link, where metadata services live. A name
/// that does not resolve is left to the request, whose error says so.
async fn refuse_local(endpoint: &str) -> Result<(), StoreError> {
    let Ok(url) = url::Url::parse(endpoint) else {
        return Err(problem(
            StoreError::FAILED,
            format!(
                "spec.s3.endpoint {endpoint:?} is not a URL: write https://host or https://host:port"
            ),
        ));
    };
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => tokio::net::lookup_host((host.as_str(), port))
            .await
            .map(|found| found.map(|a| a.ip()).collect())
            .unwrap_or_default(),
    };
    match addresses.iter().find(|a| is_local(**a)) {
        Some(address) => Err(problem(
            "NotAllowed",
            format!(
                "spec.s3.endpoint {endpoint} is {address}, a loopback or link-local address of the controller: name the store by an address that others reach too"
            ),
        )),
        None => Ok(()),
    }
}

/// Loopback, link-local and unspecified addresses, also as IPv4 within IPv6.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

fn problem(reason: &'static str, message: String) -> StoreError {
    StoreError { message, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn config(root: Option<&str>, ambient: &[&str]) -> Config {
        Config {
            watch_namespaces: Vec::new(),
            cluster_id: None,
            allowed_source_hosts: crate::config::AllowedHosts::default(),
            file_store_root: root.map(Into::into),
            ambient_credentials_namespaces: ambient.iter().map(|s| (*s).to_owned()).collect(),
            max_transfers: 4,
            lease: crate::leader::LeaseConfig {
                name: "towline-controller".to_owned(),
                namespace: None,
                holder: "test".to_owned(),
                duration: std::time::Duration::from_secs(30),
            },
            admin_listen: ([127, 0, 0, 1], 0).into(),
            log_format: crate::config::LogFormat::Text,
        }
    }

    fn spec(json: serde_json::Value) -> BackupStoreSpec {
        serde_json::from_value(json).unwrap()
    }

    fn s3() -> BackupStoreSpec {
        spec(
            serde_json::json!({"s3": {"bucket": "backups"}, "credentialsSecretRef": {"name": "s3"}}),
        )
    }

    fn secret(data: &[(&str, &str)]) -> Secret {
        Secret {
            metadata: kube::api::ObjectMeta {
                name: Some("s3".into()),
                ..Default::default()
            },
            data: Some(
                data.iter()
                    .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
                    .collect(),
            ),
            ..Default::default()
        }
    }

    #[test]
    fn a_secret_gives_the_credentials() {
        let secret = secret(&[
            (ACCESS_KEY_ID, "id"),
            (SECRET_ACCESS_KEY, "key\n"),
            (SESSION_TOKEN, "token"),
        ]);
        let built = build(&config(None, &[]), "a", &s3(), Some(&secret)).unwrap();
        let Location::S3(s3) = built.location else {
            panic!("not S3")
        };
        let credentials = s3.credentials.unwrap();
        assert_eq!(credentials.access_key_id, "id");
        assert_eq!(credentials.secret_access_key, "key");
        assert_eq!(credentials.session_token.as_deref(), Some("token"));
    }

    #[test]
    fn what_is_missing_or_not_allowed_is_named() {
        let file = || spec(serde_json::json!({"file": {"path": "a"}}));
        let bare = || spec(serde_json::json!({"s3": {"bucket": "backups"}}));
        for (what, config, spec, secret, reason, part) in [
            (
                "no id",
                config(None, &[]),
                s3(),
                Some(secret(&[(SECRET_ACCESS_KEY, "key")])),
                "SecretIncomplete",
                "has no key AWS_ACCESS_KEY_ID",
            ),
            (
                "no key",
                config(None, &[]),
                s3(),
                Some(secret(&[(ACCESS_KEY_ID, "id")])),
                "SecretIncomplete",
                "has no key AWS_SECRET_ACCESS_KEY",
            ),
            (
                "empty",
                config(None, &[]),
                s3(),
                Some(secret(&[(ACCESS_KEY_ID, " ")])),
                "SecretIncomplete",
                "is empty",
            ),
            (
                "no ambient credentials",
                config(None, &["b"]),
                bare(),
                None,
                "NotAllowed",
                "credentialsSecretRef",
            ),
            (
                "no file stores",
                config(None, &[]),
                file(),
                None,
                "NotAllowed",
                "--file-store-root",
            ),
            (
                "a way out",
                config(Some("/r"), &[]),
                spec(serde_json::json!({"file": {"path": "../b"}})),
                None,
                "NotAllowed",
                "spec.file.path",
            ),
        ] {
            let error = build(&config, "a", &spec, secret.as_ref()).unwrap_err();
            assert_eq!(error.reason, reason, "{what}");
            assert!(error.message.contains(part), "{what}: {error}");
            assert!(!error.message.contains("key\n"), "{what}");
        }
        assert!(
            build(&config(None, &["a"]), "a", &bare(), None).is_ok(),
            "its namespace may"
        );
    }

    #[test]
    fn a_file_store_lies_below_its_namespace() {
        let built = build(
            &config(Some("/backups"), &[]),
            "a",
            &spec(serde_json::json!({"file": {"path": "mysql/main"}})),
            None,
        )
        .unwrap();
        let Location::File { root } = built.location else {
            panic!("not a folder")
        };
        assert_eq!(root, std::path::Path::new("/backups/a/mysql/main"));
    }

    #[tokio::test]
    async fn local_endpoints_are_refused() {
        for (endpoint, refused) in [
            ("http://127.0.0.1:9000", true),
            ("http://127.1:9000", true),
            ("http://2130706433", true),
            ("http://localhost:9000", true),
            ("http://[::1]:9000", true),
            ("http://[::ffff:127.0.0.1]:9000", true),
            ("http://169.254.169.254", true),
            ("http://[fe80::1]", true),
            ("http://0.0.0.0", true),
            ("http://10.0.0.7:9000", false),
            ("https://[2001:db8::1]", false),
        ] {
            assert_eq!(refuse_local(endpoint).await.is_err(), refused, "{endpoint}");
        }
    }
}

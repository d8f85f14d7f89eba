//! From a `BackupStore` and its Secret to a [`StoreConfig`], within what the controller's operator allows.

mod secret;

use super::{
    AzureConfig, Capabilities, GcsConfig, Location, S3Config, S3Encryption, StoreConfig, StoreError,
};
use crate::{
    api::{
        BackupStore, BackupStoreSpec, check_name,
        conditions::{self},
        store::{Algorithm, Checksum, READY},
    },
    config::Config,
    reason::StoreReason,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use secret::Values;
use std::collections::BTreeMap;

/// Reads the Secret that a store names and makes its configuration, with what the last probe found.
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
        Some(reference) => {
            let keys = secret::keys(&store.spec);
            Some(read_secret(client, &namespace, &reference.name, keys).await?)
        }
        None => None,
    };
    let mut resolved = build(config, &namespace, &store.spec, secret.as_ref())?;
    resolved.capabilities = found(store);
    Ok(resolved)
}

/// What the last probe of this very spec found out.
fn found(store: &BackupStore) -> Capabilities {
    let Some(status) = &store.status else {
        return Capabilities::default();
    };
    let current = conditions::get(&status.conditions, READY)
        .is_some_and(|ready| ready.observed_generation == store.metadata.generation);
    match &status.capabilities {
        Some(found) if current => Capabilities {
            crc64nvme: found.checksum == Some(Checksum::Crc64Nvme),
            list_uploads: found.list_uploads,
        },
        _ => Capabilities::default(),
    }
}

async fn read_secret(
    client: &Client,
    namespace: &str,
    name: &str,
    keys: &str,
) -> Result<Secret, StoreError> {
    check_name(name).map_err(|why| {
        problem(
            StoreReason::NotAllowed,
            format!("spec.credentialsSecretRef.name: {why}"),
        )
    })?;
    match Api::<Secret>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
    {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(problem(
            StoreReason::SecretNotFound,
            format!("Secret {name} does not exist in namespace {namespace}: create it with {keys}"),
        )),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(problem(
            StoreReason::SecretNotFound,
            format!(
                "the controller may not read Secret {name} in namespace {namespace}: its role needs get on secrets there"
            ),
        )),
        Err(error) => Err(problem(
            StoreReason::Failed,
            format!("Secret {name} could not be read: {error}"),
        )),
    }
}

/// The configuration of a store, of a process that works for this store alone: its Secret's keys, where it
/// has one, are mounted as files. Without one, ambient credentials are used.
///
/// # Errors
/// [`StoreError`] as of [`resolve`]; `NotAllowed` for a file store, which lies with the controller.
pub fn mounted(
    spec: &BackupStoreSpec,
    secret: Option<BTreeMap<String, Vec<u8>>>,
) -> Result<StoreConfig, StoreError> {
    let values = secret.map(|data| {
        let name = spec
            .credentials_secret_ref
            .as_ref()
            .map(|r| r.name.as_str());
        Values::new(format!("Secret {}", name.unwrap_or_default()), data)
    });
    let location = cloud(spec, values.as_ref())?.ok_or_else(|| {
        problem(
            StoreReason::NotAllowed,
            "a file store lies with the controller, where no pod reaches it: restore from it with towline restore".into(),
        )
    })?;
    Ok(StoreConfig {
        // Whose network this is: that of the namespace that restores.
        allow_local_addresses: true,
        ..config_of(spec, location)
    })
}

/// The configuration of a store: no request is made.
fn build(
    config: &Config,
    namespace: &str,
    spec: &BackupStoreSpec,
    secret: Option<&Secret>,
) -> Result<StoreConfig, StoreError> {
    let secret = secret.map(|secret| Values::of(namespace, secret));
    if spec.file.is_none()
        && secret.is_none()
        && !config.ambient_credentials_namespaces.contains(namespace)
    {
        return Err(problem(
            StoreReason::NotAllowed,
            format!(
                "set spec.credentialsSecretRef: namespace {namespace} may not use the controller's own cloud identity (--ambient-credentials-namespaces)"
            ),
        ));
    }
    let location = match cloud(spec, secret.as_ref())? {
        Some(location) => location,
        None => folder(config, namespace, spec)?,
    };
    Ok(config_of(spec, location))
}

fn config_of(spec: &BackupStoreSpec, location: Location) -> StoreConfig {
    StoreConfig {
        prefix: spec.prefix.clone().unwrap_or_default(),
        part_size: spec.part_size,
        max_parts: spec.max_parts,
        ..StoreConfig::new(location)
    }
}

/// Where a store of a cloud is; `None`: it is a folder.
fn cloud(spec: &BackupStoreSpec, secret: Option<&Values>) -> Result<Option<Location>, StoreError> {
    let location = match (&spec.s3, &spec.gcs, &spec.azure, &spec.file) {
        (Some(s3), None, None, None) => Location::S3(S3Config {
            bucket: s3.bucket.clone(),
            region: s3.region.clone(),
            endpoint: s3.endpoint.clone(),
            force_path_style: s3.force_path_style,
            allow_http: s3.allow_http,
            ca_bundle: s3.ca_bundle.clone(),
            encryption: spec
                .server_side_encryption
                .as_ref()
                .map(|sse| match sse.algorithm {
                    Algorithm::Aes256 => S3Encryption::Aes256,
                    Algorithm::Kms => S3Encryption::Kms(sse.kms_key_id.clone()),
                }),
            credentials: secret.map(Values::s3).transpose()?,
        }),
        (None, Some(gcs), None, None) => Location::Gcs(GcsConfig {
            bucket: gcs.bucket.clone(),
            endpoint: gcs.endpoint.clone(),
            allow_http: gcs.allow_http,
            ca_bundle: gcs.ca_bundle.clone(),
            credentials: secret.map(Values::gcs).transpose()?,
        }),
        (None, None, Some(azure), None) => Location::Azure(AzureConfig {
            container: azure.container.clone(),
            account: azure.account.clone(),
            endpoint: azure.endpoint.clone(),
            allow_http: azure.allow_http,
            ca_bundle: azure.ca_bundle.clone(),
            credentials: secret.map(Values::azure).transpose()?,
        }),
        (None, None, None, Some(_)) => return Ok(None),
        _ => {
            return Err(problem(
                StoreReason::Failed,
                "set exactly one of spec.s3, spec.gcs, spec.azure and spec.file".into(),
            ));
        }
    };
    Ok(Some(location))
}

/// Where a store that is a folder is.
fn folder(
    config: &Config,
    namespace: &str,
    spec: &BackupStoreSpec,
) -> Result<Location, StoreError> {
    let path = spec.file.as_ref().map_or("", |file| file.path.as_str());
    let Some(root) = &config.file_store_root else {
        return Err(problem(
            StoreReason::NotAllowed,
            "this controller takes no file stores: use s3, gcs or azure, or have it started with --file-store-root".into(),
        ));
    };
    // The API server has checked this already; a CRD may be older than the controller.
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(problem(
            StoreReason::NotAllowed,
            "spec.file.path must be a relative path without . or ..".into(),
        ));
    }
    Ok(Location::File {
        root: root.join(namespace).join(path),
        confined_to: Some(root.clone()),
    })
}

fn problem(reason: StoreReason, message: String) -> StoreError {
    StoreError { message, reason }
}

#[cfg(test)]
mod tests {
    use super::secret::{
        ACCESS_KEY_ID, CLIENT_ID, CLIENT_SECRET, SAS_TOKEN, SECRET_ACCESS_KEY, SERVICE_ACCOUNT_KEY,
        SESSION_TOKEN, STORAGE_KEY, TENANT_ID,
    };
    use super::*;
    use crate::storage::{AzureCredentials, GcsCredentials};
    use k8s_openapi::ByteString;

    fn config(root: Option<&str>, ambient: &[&str]) -> Config {
        Config {
            watch_namespaces: Vec::new(),
            cluster_id: None,
            allowed_source_hosts: crate::config::AllowedHosts::default(),
            file_store_root: root.map(Into::into),
            ambient_credentials_namespaces: ambient.iter().map(|s| (*s).to_owned()).collect(),
            max_transfers: 4,
            tool_images: std::collections::BTreeMap::default(),
            restore_image: None,
            lease: crate::leader::LeaseConfig {
                name: "towline-controller".to_owned(),
                namespace: None,
                holder: "test".to_owned(),
                duration: std::time::Duration::from_secs(30),
            },
            admin_listen: ([127, 0, 0, 1], 0).into(),
            log_format: crate::config::LogFormat::Text,
            page: None,
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
                StoreReason::SecretIncomplete,
                "has no key AWS_ACCESS_KEY_ID",
            ),
            (
                "no key",
                config(None, &[]),
                s3(),
                Some(secret(&[(ACCESS_KEY_ID, "id")])),
                StoreReason::SecretIncomplete,
                "has no key AWS_SECRET_ACCESS_KEY",
            ),
            (
                "empty",
                config(None, &[]),
                s3(),
                Some(secret(&[(ACCESS_KEY_ID, " ")])),
                StoreReason::SecretIncomplete,
                "is empty",
            ),
            (
                "no ambient credentials",
                config(None, &["b"]),
                bare(),
                None,
                StoreReason::NotAllowed,
                "credentialsSecretRef",
            ),
            (
                "no file stores",
                config(None, &[]),
                file(),
                None,
                StoreReason::NotAllowed,
                "--file-store-root",
            ),
            (
                "a way out",
                config(Some("/r"), &[]),
                spec(serde_json::json!({"file": {"path": "../b"}})),
                None,
                StoreReason::NotAllowed,
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
        let Location::File { root, confined_to } = built.location else {
            panic!("not a folder")
        };
        assert_eq!(root, std::path::Path::new("/backups/a/mysql/main"));
        assert_eq!(
            confined_to.as_deref(),
            Some(std::path::Path::new("/backups"))
        );
    }

    #[test]
    fn each_cloud_has_its_own_keys() {
        let gcs = || {
            spec(
                serde_json::json!({"gcs": {"bucket": "backups"}, "credentialsSecretRef": {"name": "s"}}),
            )
        };
        let azure = || {
            spec(
                serde_json::json!({"azure": {"container": "backups", "account": "acc"},
                "credentialsSecretRef": {"name": "s"}}),
            )
        };
        let built = |spec: BackupStoreSpec, data: &[(&str, &str)]| {
            build(&config(None, &[]), "a", &spec, Some(&secret(data)))
        };
        let location = |spec, data| built(spec, data).unwrap().location;
        assert!(matches!(
            location(
                gcs(),
                &[(SERVICE_ACCOUNT_KEY, "{\"private_key\": \"a\\nb\"}\n")]
            ),
            Location::Gcs(GcsConfig {
                credentials: Some(GcsCredentials::ServiceAccountKey(_)),
                ..
            })
        ));
        assert!(matches!(
            location(azure(), &[(STORAGE_KEY, "a2V5")]),
            Location::Azure(AzureConfig {
                credentials: Some(AzureCredentials::AccountKey(_)),
                ..
            })
        ));
        let sas = location(azure(), &[(SAS_TOKEN, "?sv=1&sig=x")]);
        assert!(matches!(
            sas,
            Location::Azure(AzureConfig { credentials: Some(AzureCredentials::SasToken(token)), .. })
                if token == "sv=1&sig=x"
        ));
        let principal = [(TENANT_ID, "t"), (CLIENT_ID, "c"), (CLIENT_SECRET, "s")];
        assert!(matches!(
            location(azure(), &principal),
            Location::Azure(AzureConfig {
                credentials: Some(AzureCredentials::ClientSecret { .. }),
                ..
            })
        ));
        for (what, spec, data, part) in [
            (
                "gcs",
                gcs(),
                vec![],
                "has no key GOOGLE_SERVICE_ACCOUNT_KEY",
            ),
            (
                "no JSON",
                gcs(),
                vec![(SERVICE_ACCOUNT_KEY, "s3cret")],
                "is not the JSON",
            ),
            (
                "azure",
                azure(),
                vec![],
                "AZURE_STORAGE_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID",
            ),
            (
                "two",
                azure(),
                vec![(STORAGE_KEY, "s3cret"), (SAS_TOKEN, "b")],
                "more than one",
            ),
            (
                "half",
                azure(),
                vec![(CLIENT_ID, "c")],
                "has no key AZURE_TENANT_ID",
            ),
        ] {
            let error = built(spec, &data).unwrap_err();
            assert_eq!(error.reason, StoreReason::SecretIncomplete, "{what}");
            assert!(error.message.contains(part), "{what}: {error}");
            assert!(!error.message.contains("s3cret"), "{what}: {error}");
        }
    }

    /// A pod that works for one store has its Secret as files.
    #[test]
    fn a_mounted_secret_gives_the_credentials() {
        let files = |data: &[(&str, &str)]| {
            let files = data.iter();
            files
                .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()))
                .collect()
        };
        let keys = [(ACCESS_KEY_ID, "id"), (SECRET_ACCESS_KEY, "key\n")];
        let built = mounted(&s3(), Some(files(&keys))).unwrap();
        assert!(built.allow_local_addresses);
        let Location::S3(location) = built.location else {
            panic!("not S3")
        };
        assert_eq!(location.credentials.unwrap().secret_access_key, "key");
        let error = mounted(&s3(), Some(files(&keys[..1]))).unwrap_err();
        assert!(
            error
                .message
                .contains("Secret s3 has no key AWS_SECRET_ACCESS_KEY"),
            "{error}"
        );
        let ambient = spec(serde_json::json!({"s3": {"bucket": "backups"}}));
        let Location::S3(location) = mounted(&ambient, None).unwrap().location else {
            panic!("not S3")
        };
        assert_eq!(location.credentials, None);
        let file = spec(serde_json::json!({"file": {"path": "a"}}));
        let error = mounted(&file, None).unwrap_err();
        assert!(error.message.contains("towline restore"), "{error}");
    }

    /// Ambient credentials are for the namespaces that may have them, whatever the cloud.
    #[test]
    fn ambient_credentials_are_for_some_namespaces() {
        for json in [
            serde_json::json!({"s3": {"bucket": "backups"}}),
            serde_json::json!({"gcs": {"bucket": "backups"}}),
            serde_json::json!({"azure": {"container": "backups", "account": "acc"}}),
        ] {
            let error = build(&config(None, &["b"]), "a", &spec(json.clone()), None).unwrap_err();
            assert_eq!(error.reason, StoreReason::NotAllowed);
            assert!(error.message.contains("credentialsSecretRef"), "{error}");
            assert!(build(&config(None, &["a"]), "a", &spec(json), None).is_ok());
        }
        // An access token of Google or Azure would be given away to whatever the endpoint is.
        for json in [
            serde_json::json!({"gcs": {"bucket": "backups", "endpoint": "https://evil.example"}}),
            serde_json::json!({"azure": {"container": "backups", "account": "acc", "endpoint": "https://evil.example"}}),
        ] {
            let built = build(&config(None, &["a"]), "a", &spec(json), None).unwrap();
            let error = crate::storage::Store::open(built).unwrap_err();
            assert!(error.message.contains("ambient"), "{error}");
        }
    }

    /// What a probe of another spec found is not relied upon.
    #[test]
    fn capabilities_are_those_of_this_spec() {
        for (generation, used) in [(1, true), (2, false)] {
            let store: BackupStore = serde_json::from_value(serde_json::json!({
                "apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore",
                "metadata": {"name": "s", "generation": generation},
                "spec": {"s3": {"bucket": "backups"}},
                "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Probed", "message": "",
                    "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                    "capabilities": {"checksum": "CRC64NVME", "listUploads": true}}
            }))
            .unwrap();
            assert_eq!(found(&store).crc64nvme, used);
        }
    }
}

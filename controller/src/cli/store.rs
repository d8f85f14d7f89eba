//! Which store a command works on.

use super::CliError;
use crate::storage::{
    AzureConfig, AzureCredentials, GcsConfig, GcsCredentials, Location, S3Config, S3Credentials,
    Store, StoreConfig,
};
use clap::Args;
use std::path::PathBuf;

const FORMS: &str =
    "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER";

/// Where the backups lie.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    /// Where the backups lie: s3://BUCKET[/PREFIX], gs://BUCKET[/PREFIX], az://CONTAINER[/PREFIX] or
    /// file:///FOLDER. Credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY;
    /// GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT_KEY or GOOGLE_OAUTH_ACCESS_TOKEN;
    /// AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and
    /// AZURE_CLIENT_SECRET; else this machine's cloud identity is used
    #[arg(long, value_name = "URL", help_heading = "Store")]
    store: Option<String>,

    /// Another server than the cloud's own, e.g. https://s3.example.com:9000; for S3 also in the variable
    /// AWS_ENDPOINT_URL
    #[arg(long, value_name = "URL", help_heading = "Store")]
    endpoint_url: Option<String>,

    /// Region of the bucket
    #[arg(long, env = "AWS_REGION", value_name = "NAME", help_heading = "Store")]
    region: Option<String>,

    /// Storage account of an az:// container
    #[arg(
        long,
        env = "AZURE_STORAGE_ACCOUNT",
        value_name = "NAME",
        help_heading = "Store"
    )]
    account: Option<String>,

    /// Put the bucket into the path (true) or into the host name (false) [default: true with --endpoint-url]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Store")]
    path_style: Option<bool>,

    /// Accept an http:// endpoint, over which everybody can read the backup
    #[arg(long, help_heading = "Store")]
    allow_http: bool,

    /// First folder in the store
    #[arg(short, long, default_value = "default", value_name = "NAME", value_parser = namespace, help_heading = "Store")]
    pub(super) namespace: String,
}

/// A namespace of Kubernetes: a DNS label (RFC 1123).
fn namespace(text: &str) -> Result<String, String> {
    if text.contains('.') || text.len() > 63 {
        return Err("a namespace has at most 63 lower-case letters, digits and dashes".to_owned());
    }
    dns_name(text)
}

/// A name of Kubernetes: a DNS subdomain (RFC 1123), so that it fits into a key as it is.
pub(super) fn dns_name(text: &str) -> Result<String, String> {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let plain = text.bytes().all(|b| edge(b) || b == b'-' || b == b'.');
    let ends = text.bytes().next().is_some_and(edge) && text.bytes().last().is_some_and(edge);
    if !plain || !ends || text.len() > 253 || text.contains("..") {
        return Err("use lower-case letters, digits, dashes and single dots, with a letter or digit at each end".to_owned());
    }
    Ok(text.to_owned())
}

impl StoreArgs {
    /// Whether `--store` says where it is.
    pub(super) fn is_given(&self) -> bool {
        self.store.is_some()
    }

    /// Opens the store. `must_exist`: for reading, a missing folder is an error and is not made.
    pub(super) fn open(&self, must_exist: bool) -> Result<Store, CliError> {
        let Some(url) = &self.store else {
            return Err(CliError::usage(format!(
                "give --store {FORMS}: working through the cluster, without --store, comes in a later version"
            )));
        };
        let (location, prefix) = self.location(url)?;
        if let Location::File { root, .. } = &location
            && must_exist
            && !root.is_dir()
        {
            return Err(CliError::usage(format!(
                "there is no folder {}: correct --store",
                root.display()
            )));
        }
        let config = StoreConfig {
            prefix,
            // Who runs the command may connect anywhere.
            allow_local_addresses: true,
            ..StoreConfig::new(location)
        };
        // What is wrong before the first request is wrong in the arguments.
        Store::open(config).map_err(|e| CliError::usage(e.message))
    }

    /// Opens the store for a transfer, which is sent as the store takes it with the least effort.
    pub(super) async fn open_for_transfer(&self) -> Result<Store, CliError> {
        let store = self.open(false)?;
        let config = StoreConfig {
            capabilities: store.capabilities(&self.namespace).await,
            ..store.config().clone()
        };
        Store::open(config).map_err(|e| CliError::usage(e.message))
    }

    fn location(&self, text: &str) -> Result<(Location, String), CliError> {
        let usage = |why: &str| CliError::usage(format!("--store {text:?}: {why}"));
        if text.starts_with("file:") {
            let url = url::Url::parse(text).map_err(|_| usage("write file:///FOLDER"))?;
            let root: PathBuf = url
                .to_file_path()
                .map_err(|()| usage("write file:///FOLDER, with three slashes"))?;
            let location = Location::File {
                root,
                confined_to: None,
            };
            return Ok((location, String::new()));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(usage(&format!("write {FORMS}")));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(usage(&format!("write {FORMS}")));
        }
        let bucket = bucket.to_owned();
        let location = match scheme {
            "s3" => self.s3(bucket)?,
            "gs" => Location::Gcs(GcsConfig {
                bucket,
                endpoint: self.endpoint_url.clone(),
                allow_http: self.allow_http,
                ca_bundle: None,
                credentials: var("GOOGLE_SERVICE_ACCOUNT_KEY")
                    .map(GcsCredentials::ServiceAccountKey)
                    .or_else(|| var("GOOGLE_OAUTH_ACCESS_TOKEN").map(GcsCredentials::BearerToken)),
            }),
            "az" => Location::Azure(AzureConfig {
                container: bucket,
                account: self.account.clone().ok_or_else(|| {
                    usage(
                        "give --account or AZURE_STORAGE_ACCOUNT, the container's storage account",
                    )
                })?,
                endpoint: self.endpoint_url.clone(),
                allow_http: self.allow_http,
                ca_bundle: None,
                credentials: azure()?,
            }),
            _ => return Err(usage(&format!("write {FORMS}"))),
        };
        Ok((location, prefix.trim_matches('/').to_owned()))
    }

    /// The keys of the environment, taken as they are. Without any, AWS is asked for ambient ones;
    /// another server has none to give.
    fn s3(&self, bucket: String) -> Result<Location, CliError> {
        let endpoint = self
            .endpoint_url
            .clone()
            .or_else(|| var("AWS_ENDPOINT_URL"));
        let credentials = match (var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key_id), Some(secret_access_key)) => Some(S3Credentials {
                access_key_id,
                secret_access_key,
                session_token: var("AWS_SESSION_TOKEN"),
            }),
            (None, None) if endpoint.is_none() => None,
            _ => {
                return Err(CliError::usage(
                    "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
                ));
            }
        };
        Ok(Location::S3(S3Config {
            bucket,
            region: self.region.clone(),
            force_path_style: self.path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            allow_http: self.allow_http,
            ca_bundle: None,
            encryption: None,
            credentials,
        }))
    }
}

/// The variables of Azure's command line and libraries.
fn azure() -> Result<Option<AzureCredentials>, CliError> {
    if let Some(key) = var("AZURE_STORAGE_KEY") {
        return Ok(Some(AzureCredentials::AccountKey(key)));
    }
    if let Some(token) = var("AZURE_STORAGE_SAS_TOKEN") {
        let token = token.trim_start_matches('?').to_owned();
        return Ok(Some(AzureCredentials::SasToken(token)));
    }
    let Some(client_secret) = var("AZURE_CLIENT_SECRET") else {
        return Ok(None);
    };
    match (var("AZURE_TENANT_ID"), var("AZURE_CLIENT_ID")) {
        (Some(tenant_id), Some(client_id)) => Ok(Some(AzureCredentials::ClientSecret {
            tenant_id,
            client_id,
            client_secret,
        })),
        _ => Err(CliError::usage(
            "set AZURE_TENANT_ID and AZURE_CLIENT_ID too, beside AZURE_CLIENT_SECRET",
        )),
    }
}

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["default", "a", "db-0.db.shop", "127.0.0.1"] {
            assert!(dns_name(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a/b", "..", "a..b", "-a", "a-", "a b", "é"] {
            assert!(dns_name(bad).is_err(), "{bad}");
        }
        assert!(namespace("a.b").is_err());
    }
}

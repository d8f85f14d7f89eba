//! Which store a command works on.

use super::CliError;
use crate::storage::{Location, S3Config, S3Credentials, Store, StoreConfig};
use clap::Args;
use std::path::PathBuf;

/// Where the backups lie.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    /// Where the backups lie: s3://BUCKET[/PREFIX] or file:///FOLDER
    #[arg(long, value_name = "URL", help_heading = "Store")]
    store: Option<String>,

    /// S3 server, for anything but AWS, e.g. https://s3.example.com:9000
    #[arg(
        long,
        env = "AWS_ENDPOINT_URL",
        value_name = "URL",
        help_heading = "Store"
    )]
    endpoint_url: Option<String>,

    /// Region of the bucket
    #[arg(long, env = "AWS_REGION", value_name = "NAME", help_heading = "Store")]
    region: Option<String>,

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
    /// Opens the store. `must_exist`: for reading, a missing folder is an error and is not made.
    pub(super) fn open(&self, must_exist: bool) -> Result<Store, CliError> {
        let Some(url) = &self.store else {
            return Err(CliError::usage(
                "give --store s3://BUCKET/PREFIX or file:///FOLDER: working through the cluster, without --store, comes in a \
                 later version",
            ));
        };
        let (location, prefix) = self.location(url)?;
        if let Location::File { root } = &location
            && must_exist
            && !root.is_dir()
        {
            return Err(CliError::usage(format!(
                "there is no folder {}: correct --store",
                root.display()
            )));
        }
        let config = StoreConfig {
            location,
            prefix,
            part_size: StoreConfig::DEFAULT_PART_SIZE,
            max_parts: StoreConfig::DEFAULT_MAX_PARTS,
        };
        // What is wrong before the first request is wrong in the arguments.
        Store::open(config).map_err(|e| CliError::usage(e.message))
    }

    fn location(&self, text: &str) -> Result<(Location, String), CliError> {
        let usage = |why: &str| CliError::usage(format!("--store {text:?}: {why}"));
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(usage("write s3://BUCKET/PREFIX"));
            }
            let location = Location::S3(S3Config {
                bucket: bucket.to_owned(),
                region: self.region.clone(),
                endpoint: self.endpoint_url.clone(),
                force_path_style: self.path_style.unwrap_or(self.endpoint_url.is_some()),
                allow_http: self.allow_http,
                ca_bundle: None,
                credentials: self.credentials()?,
            });
            return Ok((location, prefix.trim_matches('/').to_owned()));
        }
        if text.starts_with("file:") {
            let url = url::Url::parse(text).map_err(|_| usage("write file:///FOLDER"))?;
            let root: PathBuf = url
                .to_file_path()
                .map_err(|()| usage("write file:///FOLDER, with three slashes"))?;
            return Ok((Location::File { root }, String::new()));
        }
        Err(usage("it begins with s3:// or file:///"))
    }

    /// The keys of the environment, taken as they are. Without any, AWS is asked for ambient ones;
    /// another server has none to give.
    fn credentials(&self) -> Result<Option<S3Credentials>, CliError> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        match (var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key_id), Some(secret_access_key)) => Ok(Some(S3Credentials {
                access_key_id,
                secret_access_key,
                session_token: var("AWS_SESSION_TOKEN"),
            })),
            (None, None) if self.endpoint_url.is_none() => Ok(None),
            _ => Err(CliError::usage(
                "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
            )),
        }
    }
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

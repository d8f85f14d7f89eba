//! What the controller is told when it starts.

mod page;

pub use page::{FLAGS as PAGE_FLAGS, PageConfig};

use crate::leader::LeaseConfig;
use clap::{Args, Parser, ValueEnum};
use page::PageArgs;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

/// Flags of `towline-controller run`, each with its variable.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Namespaces to work in; absent: all. With it, Roles in these namespaces are enough
    #[arg(
        long,
        env = "TOWLINE_WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE,…"
    )]
    watch_namespaces: Vec<String>,

    /// Name of this cluster in the bucket; two clusters that share a bucket need two names. Never change it: what lies under another name is not ours. Default: the uid of namespace kube-system
    #[arg(long, env = "TOWLINE_CLUSTER_ID", value_name = "ID")]
    cluster_id: Option<String>,

    /// Hosts that `source.url` of a BackupJob may name: exact names, or `.example.org` for all below it. Default: none
    #[arg(
        long,
        env = "TOWLINE_ALLOWED_SOURCE_HOSTS",
        value_delimiter = ',',
        value_name = "HOST,…"
    )]
    allowed_source_hosts: Vec<String>,

    /// Folder under which `file` stores lie, as `<root>/<namespace>/<path>`. Default: no file stores
    #[arg(long, env = "TOWLINE_FILE_STORE_ROOT", value_name = "DIR")]
    file_store_root: Option<PathBuf>,

    /// Namespaces whose BackupStores may go without a Secret and use this controller's own cloud identity. Default: none
    #[arg(
        long,
        env = "TOWLINE_AMBIENT_CREDENTIALS_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE,…"
    )]
    ambient_credentials_namespaces: Vec<String>,

    /// Transfers at once; the others wait. Each takes about the store's partSize times four, and 16 MiB, of memory
    #[arg(
        long,
        env = "TOWLINE_MAX_TRANSFERS",
        default_value = "4",
        value_name = "N"
    )]
    max_transfers: NonZeroUsize,

    /// Agent images with which backups are restored, by the series of the server: `mariadb-10.11=IMAGE`, `mysql-8.4=IMAGE`, `mysql-9=IMAGE`. A RestoreJob may name another. Default: none
    #[arg(
        long,
        env = "TOWLINE_TOOL_IMAGES",
        value_delimiter = ',',
        value_name = "SERIES=IMAGE,…"
    )]
    tool_images: Vec<String>,

    /// Image of pods that restore through an agent: any that has `towline`, such as the controller's own. Default: none
    #[arg(long, env = "TOWLINE_RESTORE_IMAGE", value_name = "IMAGE")]
    restore_image: Option<String>,

    /// Lease by which replicas agree on one that works; the others stand by
    #[arg(
        long,
        env = "TOWLINE_LEASE_NAME",
        default_value = "towline-controller",
        value_name = "NAME"
    )]
    lease_name: String,

    /// Namespace of the Lease. Default: the controller's own
    #[arg(long, env = "TOWLINE_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Name of this replica in the Lease, which no other may have. One that is started again under the same name goes on at once. Default: the host's name and a random part
    #[arg(long, env = "TOWLINE_LEASE_HOLDER", value_name = "NAME")]
    lease_holder: Option<String>,

    /// Seconds after which another replica takes over from a leader that is not heard of. A leader that does not reach the API server for two thirds of it aborts its transfers
    #[arg(
        long,
        env = "TOWLINE_LEASE_DURATION",
        default_value = "30",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u16).range(6..=3600)
    )]
    lease_duration: u16,

    /// Where /livez, /readyz and /metrics are served
    #[arg(
        long,
        env = "TOWLINE_ADMIN_LISTEN",
        default_value = "[::]:8080",
        value_name = "ADDRESS"
    )]
    admin_listen: SocketAddr,

    /// How log lines look; their level is set by RUST_LOG (default info)
    #[arg(
        long,
        env = "TOWLINE_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    log_format: LogFormat,

    #[command(flatten)]
    page: PageArgs,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// The validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespaces to work in; empty: all.
    pub watch_namespaces: Vec<String>,
    /// Name of this cluster in the bucket; `None`: ask the API server.
    pub cluster_id: Option<String>,
    /// Hosts that `source.url` may name.
    pub allowed_source_hosts: AllowedHosts,
    /// Where `file` stores lie.
    pub file_store_root: Option<PathBuf>,
    /// Namespaces that may use the controller's own cloud identity.
    pub ambient_credentials_namespaces: BTreeSet<String>,
    /// Transfers at once.
    pub max_transfers: usize,
    /// Agent images by what [`crate::restore::series::of`] gives.
    pub tool_images: BTreeMap<String, String>,
    /// Image of pods that restore through an agent.
    pub restore_image: Option<String>,
    /// Which Lease decides who works.
    pub lease: LeaseConfig,
    /// Where the admin endpoints are served.
    pub admin_listen: SocketAddr,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The status page; `None`: there is none.
    pub page: Option<PageConfig>,
}

/// A flag that makes no sense; the message names it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A namespace that cannot be one.
    #[error(
        "--{flag}: {name:?} is not the name of a namespace (lower-case letters, digits and hyphens, at most 63)"
    )]
    Namespace {
        /// The flag.
        flag: &'static str,
        /// What it held.
        name: String,
    },
    /// A cluster id that cannot stand in a key.
    #[error("--cluster-id: {0:?} must have 1 to 128 letters, digits, dots, hyphens or underscores")]
    ClusterId(String),
    /// A relative folder.
    #[error("--file-store-root: {0:?} must be an absolute path")]
    FileStoreRoot(PathBuf),
    /// A series that cannot be one, or no image for it.
    #[error(
        "--tool-images: {0:?} must be SERIES=IMAGE, where SERIES is mariadb-X.Y, mysql-8.0, mysql-8.4 or mysql-9"
    )]
    ToolImage(String),
    /// A host with a scheme, port or path.
    #[error(
        "--allowed-source-hosts: {0:?} must be a host name or address alone, without scheme, port or path; a leading dot allows all names below it"
    )]
    Host(String),
    /// The status page cannot be served so.
    #[error("--{flag} {message}")]
    Page {
        /// The flag.
        flag: &'static str,
        /// What is wrong with it, and the remedy.
        message: String,
    },
}

impl TryFrom<RunArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: RunArgs) -> Result<Self, ConfigError> {
        let mut watch_namespaces = non_empty(args.watch_namespaces);
        watch_namespaces.sort();
        watch_namespaces.dedup();
        check_namespaces("watch-namespaces", &watch_namespaces)?;
        let ambient = non_empty(args.ambient_credentials_namespaces);
        check_namespaces("ambient-credentials-namespaces", &ambient)?;
        let cluster_id = args.cluster_id.filter(|id| !id.is_empty());
        if let Some(id) = &cluster_id
            && (id.len() > 128
                || !id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)))
        {
            return Err(ConfigError::ClusterId(id.clone()));
        }
        let file_store_root = args
            .file_store_root
            .filter(|root| !root.as_os_str().is_empty());
        if let Some(root) = &file_store_root
            && !root.is_absolute()
        {
            return Err(ConfigError::FileStoreRoot(root.clone()));
        }
        Ok(Self {
            watch_namespaces,
            cluster_id,
            allowed_source_hosts: AllowedHosts::parse(non_empty(args.allowed_source_hosts))?,
            file_store_root,
            ambient_credentials_namespaces: ambient.into_iter().collect(),
            max_transfers: args.max_transfers.get(),
            tool_images: tool_images(non_empty(args.tool_images))?,
            restore_image: args.restore_image.filter(|image| !image.is_empty()),
            lease: LeaseConfig {
                name: args.lease_name,
                namespace: args.lease_namespace.filter(|n| !n.is_empty()),
                holder: args
                    .lease_holder
                    .filter(|h| !h.is_empty())
                    .unwrap_or_else(random_holder),
                duration: Duration::from_secs(u64::from(args.lease_duration)),
            },
            admin_listen: args.admin_listen,
            log_format: args.log_format,
            page: args.page.check(args.admin_listen)?,
        })
    }
}

/// As client-go names its candidates.
fn random_holder() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    format!("{host}_{}", uuid::Uuid::new_v4())
}

impl Config {
    /// For somebody who works with rights of their own: their cloud identity may stand in for the
    /// Secret of a store.
    ///
    /// # Errors
    /// When `namespace` is none.
    pub fn of_command_line(namespace: &str) -> Result<Self, ConfigError> {
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            run: RunArgs,
        }
        let ambient = format!("--ambient-credentials-namespaces={namespace}");
        let flags = Flags::try_parse_from(["towline", &ambient]);
        flags
            .map_err(|_| ConfigError::Namespace {
                flag: "namespace",
                name: namespace.to_owned(),
            })?
            .run
            .try_into()
    }
}

fn tool_images(list: Vec<String>) -> Result<BTreeMap<String, String>, ConfigError> {
    let read = |text: String| {
        let parts = text.split_once('=').map(|(series, image)| {
            let (flavour, version) = series.split_once('-').unwrap_or_default();
            let good = matches!(flavour, "mariadb" | "mysql")
                && version.starts_with(|c: char| c.is_ascii_digit())
                && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')
                && !image.trim().is_empty();
            good.then(|| (series.to_owned(), image.trim().to_owned()))
        });
        parts.flatten().ok_or(ConfigError::ToolImage(text))
    };
    list.into_iter().map(read).collect()
}

/// A variable that is set but empty gives one empty element.
fn non_empty(list: Vec<String>) -> Vec<String> {
    list.into_iter()
        .map(|s| s.trim().to_owned())
        .filter(|s| !s.is_empty())
        .collect()
}

fn check_namespaces(flag: &'static str, names: &[String]) -> Result<(), ConfigError> {
    let good = |n: &str| {
        n.len() <= 63
            && n.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !n.starts_with('-')
            && !n.ends_with('-')
    };
    match names.iter().find(|n| !good(n)) {
        Some(name) => Err(ConfigError::Namespace {
            flag,
            name: name.clone(),
        }),
        None => Ok(()),
    }
}

/// Hosts that `source.url` may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// Reads the flag.
    ///
    /// # Errors
    /// When an element is more than a host.
    pub fn parse(hosts: Vec<String>) -> Result<Self, ConfigError> {
        let good = |h: &str| {
            !h.trim_matches('.').is_empty()
                && h.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
                && (!h.contains(':') || h.starts_with('['))
        };
        match hosts.iter().find(|h| !good(h)) {
            Some(host) => Err(ConfigError::Host(host.clone())),
            None => Ok(Self(
                hosts.into_iter().map(|h| h.to_ascii_lowercase()).collect(),
            )),
        }
    }

    /// Whether a URL's host is allowed. Addresses are compared as they are written.
    #[must_use]
    pub fn allow(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        self.0.iter().any(|a| {
            if a.starts_with('.') {
                host.len() > a.len() && host.ends_with(a.as_str())
            } else {
                host == a
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn config(args: &[&str]) -> Result<Config, ConfigError> {
        Cli::parse_from(std::iter::once(&"x").chain(args))
            .run
            .try_into()
    }

    #[test]
    fn the_defaults_allow_nothing_special() {
        let config = config(&[]).unwrap();
        assert_eq!(config.max_transfers, 4);
        assert_eq!(config.admin_listen.to_string(), "[::]:8080");
        assert!(config.file_store_root.is_none() && config.watch_namespaces.is_empty());
        assert!(!config.allowed_source_hosts.allow("db.example.org"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (args, part) in [
            (["--watch-namespaces", "a,B"], "\"B\""),
            (
                ["--ambient-credentials-namespaces", "-a"],
                "--ambient-credentials-namespaces",
            ),
            (["--cluster-id", "a/b"], "--cluster-id"),
            (["--file-store-root", "backups"], "absolute"),
            (["--allowed-source-hosts", "http://db"], "without scheme"),
            (["--allowed-source-hosts", "db:3306"], "without scheme"),
            (["--tool-images", "mariadb-10.11"], "SERIES=IMAGE"),
            (["--tool-images", "oracle-9=x"], "SERIES=IMAGE"),
            (["--tool-images", "mysql-latest=x"], "SERIES=IMAGE"),
            (["--tool-images", "mysql-9="], "SERIES=IMAGE"),
        ] {
            let args = [args[0].to_owned() + "=" + args[1]];
            let error = config(&[&args[0]]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn tool_images_are_found_by_series() {
        let given = "--tool-images=mariadb-10.11=host:5000/agent:1, mysql-9=m@sha256:ab";
        let images = config(&[given]).unwrap().tool_images;
        let image = |series: &str| images.get(series).map(String::as_str);
        assert_eq!(image("mariadb-10.11"), Some("host:5000/agent:1"));
        assert_eq!(image("mysql-9"), Some("m@sha256:ab"));
        assert!(config(&["--tool-images="]).unwrap().tool_images.is_empty());
    }

    #[test]
    fn hosts_are_compared_whole() {
        let hosts = AllowedHosts::parse(vec![
            "db.example.org".into(),
            ".internal".into(),
            "10.0.0.7".into(),
        ])
        .unwrap();
        for (host, allowed) in [
            ("db.example.org", true),
            ("DB.example.org.", true),
            ("evil-db.example.org", false),
            ("db.example.org.evil.net", false),
            ("a.internal", true),
            ("internal", false),
            ("ainternal", false),
            ("10.0.0.7", true),
            ("10.0.0.70", false),
        ] {
            assert_eq!(hosts.allow(host), allowed, "{host}");
        }
    }
}

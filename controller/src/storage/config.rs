//! Where a store is, and with whose rights it is used.

use super::{Capabilities, RequestObserver};
use std::{fmt, path::PathBuf, sync::Arc};

/// One object store and how to write to it.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where it is.
    pub location: Location,
    /// Before every key, without a slash at either end; may be empty.
    pub prefix: String,
    /// Bytes of one part of a multipart upload.
    pub part_size: u64,
    /// Parts of one object; a longer archive continues in a further object.
    pub max_parts: u32,
    /// Whether the store may be at a loopback, link-local or unspecified address: only for the
    /// command line, whose user may go there anyway.
    pub allow_local_addresses: bool,
    /// What a probe found out; by default nothing is relied upon.
    pub capabilities: Capabilities,
    /// Who is told of each request.
    pub observer: Option<Arc<dyn RequestObserver>>,
}

impl StoreConfig {
    /// Part size when nothing else is asked for, bytes.
    pub const DEFAULT_PART_SIZE: u64 = 16 << 20;
    /// Parts of one object when nothing else is asked for.
    pub const DEFAULT_MAX_PARTS: u32 = 8_192;

    /// A store with the defaults and no prefix, at an address that is not this machine's own.
    #[must_use]
    pub fn new(location: Location) -> Self {
        Self {
            location,
            prefix: String::new(),
            part_size: Self::DEFAULT_PART_SIZE,
            max_parts: Self::DEFAULT_MAX_PARTS,
            allow_local_addresses: false,
            capabilities: Capabilities::default(),
            observer: None,
        }
    }
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// S3 or a compatible server.
    S3(S3Config),
    /// Google Cloud Storage.
    Gcs(GcsConfig),
    /// Azure Blob Storage.
    Azure(AzureConfig),
    /// A folder.
    File {
        /// The folder, absolute. Opening the store creates it.
        root: PathBuf,
        /// No name below this folder may be a symbolic link; `None`: the user's own folder, who
        /// may link as he likes.
        confined_to: Option<PathBuf>,
    },
}

impl Location {
    /// What must never be shown.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<&str> = match self {
            Self::S3(S3Config {
                credentials: Some(keys),
                ..
            }) => std::iter::once(keys.secret_access_key.as_str())
                .chain(keys.session_token.as_deref())
                .collect(),
            Self::Gcs(GcsConfig {
                credentials: Some(GcsCredentials::BearerToken(token)),
                ..
            }) => vec![token],
            Self::Azure(AzureConfig {
                credentials: Some(credentials),
                ..
            }) => match credentials {
                AzureCredentials::AccountKey(key) => vec![key],
                // A token may come back in another order and spelling: its signature is the secret.
                AzureCredentials::SasToken(token) => token
                    .split('&')
                    .filter_map(|pair| pair.strip_prefix("sig="))
                    .chain(std::iter::once(token.as_str()))
                    .collect(),
                AzureCredentials::ClientSecret { client_secret, .. } => vec![client_secret],
            },
            _ => Vec::new(),
        };
        // The longest first: what contains another must not be taken apart by it.
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        let decoded = secrets
            .iter()
            .map(|s| percent_encoding::percent_decode_str(s).decode_utf8_lossy());
        let decoded: Vec<String> = decoded.map(|s| s.into_owned()).collect();
        secrets
            .into_iter()
            .map(str::to_owned)
            .chain(decoded)
            .collect()
    }
}

/// How an S3 bucket is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Config {
    /// Bucket name.
    pub bucket: String,
    /// Region; `us-east-1` when a compatible server has none.
    pub region: Option<String>,
    /// URL of a compatible server; `None` is AWS.
    pub endpoint: Option<String>,
    /// `https://endpoint/bucket/key` rather than `https://bucket.endpoint/key`.
    pub force_path_style: bool,
    /// Whether a plain `http://` endpoint is accepted.
    pub allow_http: bool,
    /// Further certificate authorities, PEM.
    pub ca_bundle: Option<String>,
    /// How the store encrypts what it keeps; `None`: as the bucket says.
    pub encryption: Option<S3Encryption>,
    /// `None`: ambient credentials (instance profile, web identity, environment).
    pub credentials: Option<S3Credentials>,
}

/// How S3 encrypts what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Encryption {
    /// With keys of S3 itself (SSE-S3).
    Aes256,
    /// With a key of AWS KMS; `None`: the account's own for S3.
    Kms(Option<String>),
}

/// A key pair. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token of temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// How a bucket of Google Cloud Storage is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcsConfig {
    /// Bucket name.
    pub bucket: String,
    /// URL of the XML API; `None` is Google's own.
    pub endpoint: Option<String>,
    /// Whether a plain `http://` endpoint is accepted.
    pub allow_http: bool,
    /// Further certificate authorities, PEM.
    pub ca_bundle: Option<String>,
    /// `None`: ambient credentials (workload identity, application default credentials).
    pub credentials: Option<GcsCredentials>,
}

/// Who we are to Google. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum GcsCredentials {
    /// The JSON of a service account's key.
    ServiceAccountKey(String),
    /// An access token that somebody else keeps fresh.
    BearerToken(String),
}

impl fmt::Debug for GcsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServiceAccountKey(_) => "ServiceAccountKey",
            Self::BearerToken(_) => "BearerToken",
        })
    }
}

/// How a container of Azure Blob Storage is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureConfig {
    /// Container name.
    pub container: String,
    /// Name of the storage account.
    pub account: String,
    /// URL of the account; `None` is `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: Option<String>,
    /// Whether a plain `http://` endpoint is accepted.
    pub allow_http: bool,
    /// Further certificate authorities, PEM.
    pub ca_bundle: Option<String>,
    /// `None`: ambient credentials (workload or managed identity).
    pub credentials: Option<AzureCredentials>,
}

/// Who we are to Azure. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum AzureCredentials {
    /// A key of the account, Base64.
    AccountKey(String),
    /// A shared access signature, as query of a URL.
    SasToken(String),
    /// A service principal.
    ClientSecret {
        /// Its tenant.
        tenant_id: String,
        /// Its application.
        client_id: String,
        /// Its secret.
        client_secret: String,
    },
}

impl fmt::Debug for AzureCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccountKey(_) => "AccountKey",
            Self::SasToken(_) => "SasToken",
            Self::ClientSecret { .. } => "ClientSecret",
        })
    }
}

/// The clouds' own words, for names and remedies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    Gcs,
    Azure,
    File,
}

impl Location {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::S3(_) => Kind::S3,
            Self::Gcs(_) => Kind::Gcs,
            Self::Azure(_) => Kind::Azure,
            Self::File { .. } => Kind::File,
        }
    }
}

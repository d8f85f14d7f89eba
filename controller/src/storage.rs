//! Object stores: what one is called, how it is opened, probed and written to.

use std::path::PathBuf;

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
}

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Location {
    /// S3 or a compatible server.
    S3(S3Config),
    /// A folder.
    File {
        /// The folder, absolute.
        root: PathBuf,
    },
}

/// How an S3 bucket is reached.
#[derive(Clone, Debug, Default)]
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
    /// `None`: ambient credentials (instance profile, web identity, environment).
    pub credentials: Option<S3Credentials>,
}

/// A key pair. `Debug` shows no secret.
#[derive(Clone)]
pub struct S3Credentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token of temporary credentials.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Why a store cannot be used. The message says what to do next and carries no secret.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// For people; cleaned of control characters.
    pub message: String,
    /// For conditions: `CredentialsRefused`, `BucketNotFound`, `Unreachable`, `CreateOnlyUnsupported`, `Failed`.
    pub reason: &'static str,
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
}

impl Store {
    /// Opens a store; makes no request yet.
    ///
    /// # Errors
    /// When the configuration is not usable.
    pub fn open(_config: StoreConfig) -> Result<Self, StoreError> {
        todo!()
    }

    /// How it was opened.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Proves that a backup could be written, read and deleted here, and that create-only is kept.
    /// `folder` (under the prefix) takes the probe's object. Ends within five seconds or so.
    ///
    /// # Errors
    /// [`StoreError`] that says which right is missing.
    pub async fn probe(&self, _folder: &str) -> Result<(), StoreError> {
        todo!()
    }
}

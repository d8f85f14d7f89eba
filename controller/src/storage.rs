//! Object stores: what one is called, how it is opened, probed and written to.

mod error;
mod file;
pub mod from_api;
mod probe;
mod s3;
mod uploads;

pub use error::StoreError;
pub(crate) use uploads::{PartWriter, Uploads};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, local::LocalFileSystem,
    path::Path,
};
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

impl StoreConfig {
    /// Part size when nothing else is asked for, bytes.
    pub const DEFAULT_PART_SIZE: u64 = 16 << 20;
    /// Parts of one object when nothing else is asked for.
    pub const DEFAULT_MAX_PARTS: u32 = 8_192;
}

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Location {
    /// S3 or a compatible server.
    S3(S3Config),
    /// A folder.
    File {
        /// The folder, absolute. Opening the store creates it.
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
        f.debug_struct("S3Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    backend: Backend,
}

/// The clients of one store.
#[derive(Debug)]
enum Backend {
    S3(s3::Clients),
    File {
        objects: LocalFileSystem,
        uploads: file::FileUploads,
    },
}

/// What a create-only put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object is ours.
    Yes,
    /// There was one already; after a retry inside the client it may be our own.
    AlreadyExists,
}

impl Store {
    /// Opens a store; makes no request yet.
    ///
    /// # Errors
    /// When the configuration is not usable.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        if config.part_size < 5 << 20 && matches!(config.location, Location::S3(_)) {
            return Err(StoreError::config(
                "partSize must be at least 5 MiB: S3 takes no smaller parts",
            ));
        }
        if config.part_size == 0 || config.part_size > 5 << 30 {
            return Err(StoreError::config(
                "partSize must be between 1 byte and 5 GiB",
            ));
        }
        if config.max_parts == 0 || config.max_parts > 10_000 {
            return Err(StoreError::config("maxParts must be between 1 and 10000"));
        }
        let prefix = &config.prefix;
        let parsed = Path::parse(prefix).map_err(|e| {
            StoreError::config(format!("the prefix {prefix:?} cannot be used in keys: {e}"))
        })?;
        if parsed.as_ref() != prefix {
            return Err(StoreError::config(format!(
                "the prefix {prefix:?} must not begin or end with a slash"
            )));
        }
        let backend = match &config.location {
            Location::S3(s3) => Backend::S3(s3::open(s3)?),
            Location::File { root } => {
                let objects = file::open(root)?;
                let uploads = file::FileUploads::new(objects.clone(), config.part_size);
                Backend::File { objects, uploads }
            }
        };
        Ok(Self { config, backend })
    }

    /// How it was opened.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// For people: `s3://bucket/prefix` or `file:///folder/prefix`.
    #[must_use]
    pub fn url(&self) -> String {
        let slash = if self.config.prefix.is_empty() {
            ""
        } else {
            "/"
        };
        match &self.config.location {
            Location::S3(s3) => format!("s3://{}{slash}{}", s3.bucket, self.config.prefix),
            Location::File { root } => {
                format!("file://{}{slash}{}", root.display(), self.config.prefix)
            }
        }
    }

    /// Proves that a backup could be written, read and deleted here, and that create-only is kept.
    /// `folder` (under the prefix) takes the probe's object. Ends within five seconds or so.
    ///
    /// # Errors
    /// [`StoreError`] that says which right is missing.
    pub async fn probe(&self, folder: &str) -> Result<(), StoreError> {
        probe::probe(self, folder).await
    }

    /// Full key of `relative`: the prefix goes before it.
    pub(crate) fn key(&self, relative: &str) -> Result<Path, StoreError> {
        let key = if self.config.prefix.is_empty() {
            relative.to_owned()
        } else {
            format!("{}/{relative}", self.config.prefix)
        };
        Path::parse(&key).map_err(|e| StoreError::config(format!("{key:?} cannot be a key: {e}")))
    }

    /// The multipart interface, without a limit on the time of one request.
    pub(crate) fn uploads(&self) -> Uploads<'_> {
        Uploads::new(self)
    }

    fn objects(&self) -> &dyn ObjectStore {
        match &self.backend {
            Backend::S3(s3) => &s3.control,
            Backend::File { objects, .. } => objects,
        }
    }

    pub(crate) fn error(&self, doing: &str, error: &object_store::Error) -> StoreError {
        error::classify(&self.url(), doing, error)
    }

    /// Writes a small object, replacing what is there.
    pub(crate) async fn put(&self, key: &Path, body: Bytes) -> Result<(), StoreError> {
        self.objects()
            .put(key, PutPayload::from_bytes(body))
            .await
            .map(drop)
            .map_err(|e| self.error(&format!("writing {key}"), &e))
    }

    /// Writes a small object only if there is none.
    pub(crate) async fn create(&self, key: &Path, body: Bytes) -> Result<Created, StoreError> {
        match self
            .objects()
            .put_opts(key, PutPayload::from_bytes(body), PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(Created::Yes),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::AlreadyExists),
            Err(e) => Err(self.error(&format!("creating {key}"), &e)),
        }
    }

    /// Reads a small object; `None` when there is none. A missing bucket is an error.
    pub(crate) async fn get(
        &self,
        key: &Path,
        max_bytes: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let doing = format!("reading {key}");
        let found = match self.objects().get(key).await {
            Ok(found) => found,
            Err(e) if error::is_missing_object(&e) => return Ok(None),
            Err(e) => return Err(self.error(&doing, &e)),
        };
        if found.meta.size > max_bytes {
            return Err(StoreError::failed(format!(
                "{key} in {} has {} bytes, more than the {max_bytes} it may have: something else wrote it",
                self.url(),
                found.meta.size
            )));
        }
        found
            .bytes()
            .await
            .map(Some)
            .map_err(|e| self.error(&doing, &e))
    }

    /// Size of an object; `None` when there is none.
    pub(crate) async fn head(&self, key: &Path) -> Result<Option<u64>, StoreError> {
        match self.objects().head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(e) if error::is_missing_object(&e) => Ok(None),
            Err(e) => Err(self.error(&format!("asking for the size of {key}"), &e)),
        }
    }

    /// Deletes an object; one that is not there counts as deleted.
    pub(crate) async fn delete(&self, key: &Path) -> Result<(), StoreError> {
        match self.objects().delete(key).await {
            Err(e) if !error::is_missing_object(&e) => {
                Err(self.error(&format!("deleting {key}"), &e))
            }
            _ => Ok(()),
        }
    }

    /// Every object under a folder.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let listed: Result<Vec<_>, _> = self.objects().list(Some(folder)).try_collect().await;
        match listed {
            Err(e) if error::is_missing_object(&e) => Ok(Vec::new()),
            other => other.map_err(|e| self.error(&format!("listing {folder}"), &e)),
        }
    }

    /// Reads a large object piece by piece.
    pub(crate) async fn stream(
        &self,
        key: &Path,
    ) -> Result<futures::stream::BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let objects: &dyn ObjectStore = match &self.backend {
            Backend::S3(s3) => &s3.bulk,
            Backend::File { objects, .. } => objects,
        };
        let doing = format!("reading {key}");
        let found = objects.get(key).await.map_err(|e| self.error(&doing, &e))?;
        let url = self.url();
        Ok(found
            .into_stream()
            .map_err(move |e| error::classify(&url, &doing, &e))
            .boxed())
    }

    /// Aborts the uploads under `folder` that no mark names: a crash between opening one and
    /// recording its id leaves such. A store that cannot list uploads has a lifecycle rule for them.
    pub(crate) async fn abort_unrecorded(&self, folder: &Path) -> Result<usize, StoreError> {
        let s3 = match &self.backend {
            Backend::File { uploads, .. } => return uploads.remove_staged(folder),
            Backend::S3(s3) => s3,
        };
        let found = match s3.list_uploads(folder).await {
            Ok(found) => found,
            Err(error) => {
                tracing::info!(store = self.url(), %folder, error, "uploads cannot be listed here");
                return Ok(0);
            }
        };
        let mut aborted = 0;
        for (key, id) in found {
            aborted += usize::from(self.uploads().abort(&key, &id).await?);
        }
        Ok(aborted)
    }

    /// Removes what a crashed write left beside `folder`'s objects; only files can be left so.
    pub(crate) fn remove_staged(&self, folder: &Path) -> Result<usize, StoreError> {
        match &self.backend {
            Backend::S3(_) => Ok(0),
            Backend::File { uploads, .. } => uploads.remove_staged(folder),
        }
    }
}

//! Object stores: what one is called, how it is opened, probed and written to.

mod azure;
mod backend;
mod capabilities;
mod config;
mod endpoint;
mod error;
mod file;
pub mod from_api;
mod gcs;
mod http;
mod probe;
mod s3;
mod uploads;

pub use capabilities::Capabilities;
pub use config::{
    AzureConfig, AzureCredentials, GcsConfig, GcsCredentials, Location, S3Config, S3Credentials,
    S3Encryption, StoreConfig,
};
pub use error::StoreError;
pub use http::{Operation, RequestObserver, RequestResult};
pub use uploads::{PartWriter, Uploads};

use backend::{Backend, Client, Lister};
use bytes::Bytes;
use error::{Place, Right};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, path::Path};
use std::sync::Arc;

/// An open store. `Debug` shows where it is: some clients would show their credentials.
pub struct Store {
    config: StoreConfig,
    place: Arc<Place>,
    backend: Backend,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.place.url).finish()
    }
}

/// What a create-only put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
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
        if config.part_size < 5 << 20
            && matches!(config.location, Location::S3(_) | Location::Gcs(_))
        {
            return Err(StoreError::config(
                "partSize must be at least 5 MiB: S3 and Google Cloud Storage take no smaller parts",
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
        let backend = Backend::open(&config)?;
        let place = Arc::new(Place::new(&config.location, url(&config)));
        Ok(Self {
            config,
            place,
            backend,
        })
    }

    /// How it was opened.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// For people: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or
    /// `file:///folder/prefix`.
    #[must_use]
    pub fn url(&self) -> String {
        self.place.url.clone()
    }

    /// Proves that a backup could be written, read, listed and deleted here, that uploads can be
    /// opened and aborted and have as many parts as `max_parts`, and that create-only is kept.
    /// `folder` (under the prefix) takes the probe's objects. An endpoint that does not answer is
    /// told within five seconds or so.
    ///
    /// # Errors
    /// [`StoreError`] that says which right is missing.
    pub async fn probe(&self, folder: &str) -> Result<Capabilities, StoreError> {
        probe::probe(self, folder).await
    }

    /// Finds out what speeds transfers up; whatever goes wrong means that it is not there.
    pub async fn capabilities(&self, folder: &str) -> Capabilities {
        probe::capabilities(self, folder).await
    }

    /// How often the store has answered that we ask too much: 429 or 503.
    pub fn throttled(&self) -> u64 {
        self.backend.throttled.count()
    }

    /// Full key of `relative`: the prefix goes before it.
    pub fn key(&self, relative: &str) -> Result<Path, StoreError> {
        let key = if self.config.prefix.is_empty() {
            relative.to_owned()
        } else {
            format!("{}/{relative}", self.config.prefix)
        };
        Path::parse(&key).map_err(|e| StoreError::config(format!("{key:?} cannot be a key: {e}")))
    }

    /// The multipart interface, without a limit on the time of one request.
    pub fn uploads(&self) -> Uploads<'_> {
        Uploads::new(self)
    }

    fn client(&self, key: &Path) -> Result<&dyn ObjectStore, StoreError> {
        self.backend.check(key)?;
        Ok(&*self.backend.control.objects)
    }

    fn error(&self, right: Right, doing: &str, error: &object_store::Error) -> StoreError {
        error::classify(&self.place, right, doing, error)
    }

    /// Writes a small object, replacing what is there.
    pub async fn put(&self, key: &Path, body: Bytes) -> Result<(), StoreError> {
        self.client(key)?
            .put(key, PutPayload::from_bytes(body))
            .await
            .map(drop)
            .map_err(|e| self.error(Right::Put, &format!("writing {key}"), &e))
    }

    /// Writes a small object only if there is none.
    pub async fn create(&self, key: &Path, body: Bytes) -> Result<Created, StoreError> {
        match self
            .client(key)?
            .put_opts(key, PutPayload::from_bytes(body), PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(Created::Yes),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::AlreadyExists),
            Err(e) => Err(self.error(Right::Put, &format!("creating {key}"), &e)),
        }
    }

    /// Reads a small object; `None` when there is none. A missing bucket is an error.
    pub async fn get(&self, key: &Path, max_bytes: u64) -> Result<Option<Bytes>, StoreError> {
        let doing = format!("reading {key}");
        let found = match self.client(key)?.get(key).await {
            Ok(found) => found,
            Err(e) if error::is_missing_object(&e) => return Ok(None),
            Err(e) => return Err(self.error(Right::Get, &doing, &e)),
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
            .map_err(|e| self.error(Right::Get, &doing, &e))
    }

    /// Size of an object; `None` when there is none.
    pub async fn head(&self, key: &Path) -> Result<Option<u64>, StoreError> {
        match self.client(key)?.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(e) if error::is_missing_object(&e) => Ok(None),
            Err(e) => {
                let doing = format!("asking for the size of {key}");
                Err(self.error(Right::Get, &doing, &e))
            }
        }
    }

    /// Deletes an object; one that is not there counts as deleted.
    pub async fn delete(&self, key: &Path) -> Result<(), StoreError> {
        match self.client(key)?.delete(key).await {
            Err(e) if !error::is_missing_object(&e) => {
                Err(self.error(Right::Delete, &format!("deleting {key}"), &e))
            }
            _ => Ok(()),
        }
    }

    /// Every object under a folder.
    pub async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let objects = self.client(folder)?;
        let listed: Result<Vec<_>, _> = objects.list(Some(folder)).try_collect().await;
        match listed {
            Err(e) if error::is_missing_object(&e) => Ok(Vec::new()),
            // What lies behind a link in a folder is not the store's.
            Ok(mut found) => {
                found.retain(|o| self.backend.check(&o.location).is_ok());
                Ok(found)
            }
            Err(e) => Err(self.error(Right::List, &format!("listing {folder}"), &e)),
        }
    }

    /// Reads a large object piece by piece.
    pub async fn stream(
        &self,
        key: &Path,
    ) -> Result<futures::stream::BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        self.backend.check(key)?;
        let Client { objects, .. } = &self.backend.bulk;
        let doing = format!("reading {key}");
        let found = objects
            .get(key)
            .await
            .map_err(|e| self.error(Right::Get, &doing, &e))?;
        let place = Arc::clone(&self.place);
        Ok(found
            .into_stream()
            .map_err(move |e| error::classify(&place, Right::Get, &doing, &e))
            .boxed())
    }

    /// Aborts the uploads under `folder` that no mark names: a crash between opening one and
    /// recording its id leaves such. A store that cannot list uploads has a lifecycle rule for them.
    pub async fn abort_unrecorded(&self, folder: &Path) -> Result<usize, StoreError> {
        let found = match &self.backend.lister {
            Lister::File(uploads) => {
                uploads.check(folder)?;
                return uploads.remove_staged(folder);
            }
            Lister::Azure => return Ok(0),
            Lister::S3(lister) => lister.list(folder).await,
            Lister::Gcs(lister) => lister.list(folder).await,
        };
        let found = match found {
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
        match &self.backend.lister {
            Lister::File(uploads) => {
                uploads.check(folder)?;
                uploads.remove_staged(folder)
            }
            Lister::S3(_) | Lister::Gcs(_) | Lister::Azure => Ok(0),
        }
    }
}

fn url(config: &StoreConfig) -> String {
    let place = match &config.location {
        Location::S3(s3) => format!("s3://{}", s3.bucket),
        Location::Gcs(gcs) => format!("gs://{}", gcs.bucket),
        Location::Azure(azure) => format!("az://{}", azure.container),
        Location::File { root, .. } => format!("file://{}", root.display()),
    };
    if config.prefix.is_empty() {
        place
    } else {
        format!("{place}/{}", config.prefix)
    }
}

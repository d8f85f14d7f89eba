//! The clients of one store: for small requests, for parts, and for the probe. Nothing here can be
//! shown: `object_store`'s clients show shared access signatures and tokens.

use super::{
    StoreConfig, StoreError, azure,
    config::Location,
    endpoint, file,
    file::FileUploads,
    gcs,
    http::{Connector, Net, Patience, System, Throttled},
    s3,
};
use object_store::{ObjectStore, local::LocalFileSystem, multipart::MultipartStore, path::Path};
use std::sync::Arc;

/// One client: objects, and the uploads that make large ones.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) uploads: Arc<dyn MultipartStore>,
}

impl Client {
    fn new<T: ObjectStore + MultipartStore + Clone>(store: T) -> Self {
        Self {
            objects: Arc::new(store.clone()),
            uploads: Arc::new(store),
        }
    }
}

/// The clients of one store.
pub(super) struct Backend {
    /// Small requests: bounded in time as a whole.
    pub(super) control: Client,
    /// Parts and completes: a slow line may take as long as it needs, so there is no limit on a
    /// whole request; whoever uploads watches for stalls.
    pub(super) bulk: Client,
    /// Fails within five seconds.
    pub(super) probe: Client,
    /// Sends parts by CRC64NVME and unsigned, as the probe does: intact, and with a flipped bit.
    pub(super) checked: Option<(Client, Client)>,
    pub(super) lister: Lister,
    /// Answers that asked to slow down.
    pub(super) throttled: Arc<Throttled>,
}

/// What can tell of unfinished uploads.
pub(super) enum Lister {
    S3(s3::Lister),
    Gcs(gcs::Lister),
    /// Blocks that were never committed are gone after a week by themselves, and nobody can list
    /// them: <https://learn.microsoft.com/rest/api/storageservices/put-block>.
    Azure,
    File(FileUploads),
}

impl Backend {
    pub(super) fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        match &config.location {
            Location::S3(s3) => {
                let clients = Connectors::new(
                    config,
                    s3.endpoint.as_deref(),
                    (s3.allow_http, s3.ca_bundle.as_ref()),
                    s3.credentials.is_none(),
                )?;
                let ambient = s3::ambient(s3)?;
                let open = |connector: &Connector, patience, payload| {
                    s3::client(s3, ambient.as_ref(), connector, patience, payload)
                };
                let sent = if config.capabilities.crc64nvme {
                    s3::Payload::Checked
                } else {
                    s3::Payload::Signed
                };
                let control = open(&clients.control, Patience::CONTROL, sent.signed())?;
                let probe = &clients.probe;
                let checked = |connector: &Connector| {
                    open(connector, Patience::PROBE, s3::Payload::Checked).map(Client::new)
                };
                Ok(Self {
                    bulk: Client::new(open(&clients.bulk, Patience::BULK, sent)?),
                    probe: Client::new(open(probe, Patience::PROBE, s3::Payload::Signed)?),
                    checked: Some((checked(probe)?, checked(&probe.corrupting())?)),
                    lister: Lister::S3(s3::Lister::new(control.clone(), clients.control.http())),
                    control: Client::new(control),
                    throttled: clients.throttled,
                })
            }
            Location::Gcs(gcs) => {
                let clients = Connectors::new(
                    config,
                    Some(gcs.endpoint.as_deref().unwrap_or(gcs::ENDPOINT)),
                    (gcs.allow_http, gcs.ca_bundle.as_ref()),
                    gcs.credentials.is_none(),
                )?;
                let ambient = gcs::ambient(gcs)?;
                let open = |connector: &Connector, patience| {
                    gcs::client(gcs, ambient.as_ref(), connector, patience)
                };
                let control = open(&clients.control, Patience::CONTROL)?;
                Ok(Self {
                    bulk: Client::new(open(&clients.bulk, Patience::BULK)?),
                    probe: Client::new(open(&clients.probe, Patience::PROBE)?),
                    checked: None,
                    lister: Lister::Gcs(gcs::Lister::new(gcs, &control, clients.control.http())),
                    control: Client::new(control),
                    throttled: clients.throttled,
                })
            }
            Location::Azure(azure) => {
                let endpoint = azure::endpoint(azure)?;
                let clients = Connectors::new(
                    config,
                    Some(&endpoint),
                    (azure.allow_http, azure.ca_bundle.as_ref()),
                    azure.credentials.is_none()
                        || matches!(
                            azure.credentials,
                            Some(super::AzureCredentials::ClientSecret { .. })
                        ),
                )?;
                let ambient = azure::ambient(azure)?;
                let open = |connector: &Connector, patience| {
                    azure::client(azure, &endpoint, ambient.as_ref(), connector, patience)
                        .map(Client::new)
                };
                Ok(Self {
                    control: open(&clients.control, Patience::CONTROL)?,
                    bulk: open(&clients.bulk, Patience::BULK)?,
                    probe: open(&clients.probe, Patience::PROBE)?,
                    checked: None,
                    lister: Lister::Azure,
                    throttled: clients.throttled,
                })
            }
            Location::File { root, confined_to } => {
                let objects: LocalFileSystem = file::open(root, confined_to.as_deref())?;
                let uploads =
                    FileUploads::new(objects.clone(), config.part_size, confined_to.clone());
                let client = Client {
                    objects: Arc::new(objects),
                    uploads: Arc::new(uploads.clone()),
                };
                Ok(Self {
                    control: client.clone(),
                    bulk: client.clone(),
                    probe: client,
                    checked: None,
                    lister: Lister::File(uploads),
                    throttled: Arc::default(),
                })
            }
        }
    }

    /// Refuses a key behind a symbolic link; only folders have such.
    pub(super) fn check(&self, key: &Path) -> Result<(), StoreError> {
        match &self.lister {
            Lister::File(uploads) => uploads.check(key),
            _ => Ok(()),
        }
    }
}

struct Connectors {
    control: Connector,
    bulk: Connector,
    probe: Connector,
    throttled: Arc<Throttled>,
}

impl Connectors {
    /// `endpoint`: `None` is AWS, whose hosts are many. `needs_roots`: https is spoken even when
    /// the endpoint is plain http.
    fn new(
        config: &StoreConfig,
        endpoint: Option<&str>,
        (allow_http, ca_bundle): (bool, Option<&String>),
        needs_roots: bool,
    ) -> Result<Self, StoreError> {
        let url = endpoint
            .map(|e| endpoint::parse(e, allow_http, config.allow_local_addresses))
            .transpose()?;
        let net = Net {
            allow_http,
            allow_local: config.allow_local_addresses,
            ca_bundle: ca_bundle.cloned(),
            system_roots: needs_roots || url.as_ref().is_none_or(|u| u.scheme() == "https"),
            observer: config.observer.clone(),
            throttled: Arc::default(),
            host: url.and_then(|u| u.host_str().map(str::to_owned)),
            resolver: Arc::new(System),
        };
        Ok(Self {
            control: net.connector(Patience::CONTROL)?,
            bulk: net.connector(Patience::BULK)?,
            probe: net.connector(Patience::PROBE)?,
            throttled: net.throttled,
        })
    }
}

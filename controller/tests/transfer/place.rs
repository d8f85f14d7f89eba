//! The stores that tests run against: a folder, and real servers where they can be had.

use crate::servers::{Server, http_client};
use futures::TryStreamExt as _;
use object_store::{
    ObjectStore, ObjectStoreExt as _,
    aws::{AmazonS3, AmazonS3Builder},
    azure::{MicrosoftAzure, MicrosoftAzureBuilder},
    client::{HttpRequest, HttpRequestBody},
    signer::{SignedUrlOptions, Signer as _},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use towline_controller::storage::{
    AzureConfig, AzureCredentials, GcsConfig, GcsCredentials, Location, S3Config, S3Credentials,
    Store, StoreConfig,
};

pub(crate) const PART: u64 = 5 << 20;
pub(crate) const KEY: (&str, &str) = ("test", "testsecret");
/// Somebody whose rights the bucket's policy says.
pub(crate) const LIMITED: (&str, &str) = ("limited", "limitedsecret");
/// Azurite's own, which everybody knows:
/// <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>.
pub(crate) const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub(crate) const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Where a test's backups go.
pub(crate) enum Place {
    File(tempfile::TempDir),
    S3 {
        endpoint: String,
    },
    /// A stand-in that speaks Google's XML API.
    Gcs {
        endpoint: String,
    },
    Azure {
        endpoint: String,
    },
}

/// A folder, and S3 where it can be had.
pub(crate) async fn places() -> (Vec<Place>, Option<Server>) {
    let server = Server::versitygw().await;
    let mut places = vec![Place::file()];
    places.extend(server.as_ref().map(Server::place));
    (places, server)
}

pub(crate) fn s3_config(endpoint: &str) -> S3Config {
    S3Config {
        bucket: "bkt".into(),
        endpoint: Some(endpoint.to_owned()),
        force_path_style: true,
        allow_http: true,
        credentials: Some(S3Credentials {
            access_key_id: KEY.0.into(),
            secret_access_key: KEY.1.into(),
            session_token: None,
        }),
        ..S3Config::default()
    }
}

impl Place {
    pub(crate) fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    pub(crate) fn config(&self, max_parts: u32) -> StoreConfig {
        let location = match self {
            Self::File(dir) => Location::File {
                root: dir.path().to_owned(),
                confined_to: None,
            },
            Self::S3 { endpoint } => Location::S3(s3_config(endpoint)),
            Self::Gcs { endpoint } => Location::Gcs(GcsConfig {
                bucket: "bkt".into(),
                endpoint: Some(endpoint.clone()),
                allow_http: true,
                credentials: Some(GcsCredentials::BearerToken("a-token".into())),
                ..GcsConfig::default()
            }),
            Self::Azure { endpoint } => Location::Azure(azure_config(endpoint)),
        };
        StoreConfig {
            prefix: "pre".into(),
            part_size: PART,
            max_parts,
            allow_local_addresses: true,
            ..StoreConfig::new(location)
        }
    }

    pub(crate) fn store(&self, max_parts: u32) -> Arc<Store> {
        Arc::new(Store::open(self.config(max_parts)).unwrap())
    }

    /// The same store, reached through another endpoint.
    pub(crate) fn through(&self, endpoint: &str) -> Self {
        let endpoint = endpoint.to_owned();
        match self {
            Self::File(_) => panic!("a folder has no endpoint"),
            Self::S3 { .. } => Self::S3 { endpoint },
            Self::Gcs { .. } => Self::Gcs { endpoint },
            Self::Azure { .. } => Self::Azure { endpoint },
        }
    }

    /// Everything there is: keys of objects, and unfinished uploads. Of a folder: every file.
    pub(crate) async fn remains(&self) -> Vec<String> {
        let mut found = match self {
            Self::File(dir) => files(dir.path())
                .iter()
                .map(|f| f.strip_prefix(dir.path()).unwrap().display().to_string())
                .collect(),
            Self::S3 { endpoint } | Self::Gcs { endpoint } => {
                let s3 = client(endpoint);
                let mut found = keys(&s3).await;
                found.extend(uploads(&s3).await);
                found
            }
            Self::Azure { endpoint } => keys(&azure_client(endpoint)).await,
        };
        found.sort();
        found
    }

    pub(crate) async fn read(&self, key: &str) -> Vec<u8> {
        match self {
            Self::File(dir) => std::fs::read(dir.path().join(key)).unwrap(),
            Self::S3 { endpoint } | Self::Gcs { endpoint } => get(&client(endpoint), key).await,
            Self::Azure { endpoint } => get(&azure_client(endpoint), key).await,
        }
    }
}

pub(crate) fn azure_config(endpoint: &str) -> AzureConfig {
    AzureConfig {
        container: "bkt".into(),
        account: AZURE_ACCOUNT.into(),
        endpoint: Some(format!("{endpoint}/{AZURE_ACCOUNT}")),
        allow_http: true,
        credentials: Some(AzureCredentials::AccountKey(AZURE_KEY.into())),
        ..AzureConfig::default()
    }
}

async fn keys(store: &dyn ObjectStore) -> Vec<String> {
    store
        .list(None)
        .map_ok(|m| m.location.to_string())
        .try_collect()
        .await
        .unwrap()
}

async fn get(store: &dyn ObjectStore, key: &str) -> Vec<u8> {
    let got = store
        .get(&object_store::path::Path::parse(key).unwrap())
        .await;
    got.unwrap().bytes().await.unwrap().to_vec()
}

pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

fn client(endpoint: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_bucket_name("bkt")
        .with_access_key_id(KEY.0)
        .with_secret_access_key(KEY.1)
        .build()
        .unwrap()
}

fn azure_client(endpoint: &str) -> MicrosoftAzure {
    MicrosoftAzureBuilder::new()
        .with_endpoint(format!("{endpoint}/{AZURE_ACCOUNT}"))
        .with_allow_http(true)
        .with_account(AZURE_ACCOUNT)
        .with_access_key(AZURE_KEY)
        .with_container_name("bkt")
        .build()
        .unwrap()
}

async fn uploads(s3: &AmazonS3) -> Vec<String> {
    let query = SignedUrlOptions::default().with_query([("uploads", "")]);
    let root = object_store::path::Path::default();
    let url = s3
        .signed_url_opts(http::Method::GET, &root, Duration::from_secs(60), &query)
        .await
        .unwrap();
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = url.as_str().parse().unwrap();
    let answer = http_client().execute(request).await.unwrap();
    assert!(answer.status().is_success());
    let xml = String::from_utf8(answer.into_body().bytes().await.unwrap().to_vec()).unwrap();
    let of = |upload: &str| {
        upload
            .split("<Key>")
            .nth(1)
            .unwrap()
            .split('<')
            .next()
            .unwrap()
            .to_owned()
    };
    xml.split("<Upload>")
        .skip(1)
        .map(|u| format!("upload of {}", of(u)))
        .collect()
}

//! The stores that every test runs against: a folder, and a real S3 server when there is one.

use futures::TryStreamExt as _;
use object_store::{
    ObjectStore as _,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector},
    signer::{SignedUrlOptions, Signer as _},
};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use towline_controller::storage::{Location, S3Config, S3Credentials, Store, StoreConfig};

pub(crate) const PART: u64 = 5 << 20;
const KEY: (&str, &str) = ("test", "testsecret");

/// A versitygw with one bucket, `bkt`; it dies with its owner.
pub(crate) struct Gateway {
    pub(crate) endpoint: String,
    _data: tempfile::TempDir,
    process: Child,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    /// `None`, with the reason on stderr, when the machine has none.
    pub(crate) async fn start() -> Option<Self> {
        let on_path = || {
            std::env::split_paths(&std::env::var_os("PATH")?)
                .map(|d| d.join("versitygw"))
                .find(|p| p.is_file())
        };
        let Some(program) = std::env::var_os("TOWLINE_VERSITYGW")
            .map(PathBuf::from)
            .or_else(on_path)
        else {
            eprintln!(
                "SKIPPED on S3: no versitygw: name it in TOWLINE_VERSITYGW or put it on PATH"
            );
            return None;
        };
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(data.path().join("data/bkt")).unwrap();
        std::fs::create_dir_all(data.path().join("iam")).unwrap();
        // Somebody may take the port between our look and the server's start: then try another.
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut process = Command::new(&program)
                .env("ROOT_ACCESS_KEY_ID", KEY.0)
                .env("ROOT_SECRET_ACCESS_KEY", KEY.1)
                .args(["--port", &format!("127.0.0.1:{port}"), "--iam-dir"])
                .arg(data.path().join("iam"))
                .arg("posix")
                .arg(data.path().join("data"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            loop {
                if tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .is_ok()
                {
                    return Some(Self {
                        endpoint: format!("http://127.0.0.1:{port}"),
                        _data: data,
                        process,
                    });
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("versitygw does not start");
    }

    pub(crate) fn place(&self) -> Place {
        Place::S3 {
            endpoint: self.endpoint.clone(),
        }
    }
}

/// Where a test's backups go.
pub(crate) enum Place {
    File(tempfile::TempDir),
    S3 { endpoint: String },
}

/// A folder, and S3 where it can be had.
pub(crate) async fn places() -> (Vec<Place>, Option<Gateway>) {
    let gateway = Gateway::start().await;
    let mut places = vec![Place::file()];
    places.extend(gateway.as_ref().map(Gateway::place));
    (places, gateway)
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

    pub(crate) fn store(&self, max_parts: u32) -> Arc<Store> {
        let location = match self {
            Self::File(dir) => Location::File {
                root: dir.path().to_owned(),
            },
            Self::S3 { endpoint } => Location::S3(s3_config(endpoint)),
        };
        Arc::new(
            Store::open(StoreConfig {
                location,
                prefix: "pre".into(),
                part_size: PART,
                max_parts,
            })
            .unwrap(),
        )
    }

    /// Everything there is: keys of objects, and unfinished uploads. Of a folder: every file.
    pub(crate) async fn remains(&self) -> Vec<String> {
        let mut found = match self {
            Self::File(dir) => files(dir.path())
                .iter()
                .map(|f| f.strip_prefix(dir.path()).unwrap().display().to_string())
                .collect(),
            Self::S3 { endpoint } => {
                let s3 = client(endpoint);
                let mut found: Vec<String> = s3
                    .list(None)
                    .map_ok(|m| m.location.to_string())
                    .try_collect()
                    .await
                    .unwrap();
                found.extend(uploads(&s3).await);
                found
            }
        };
        found.sort();
        found
    }

    pub(crate) async fn read(&self, key: &str) -> Vec<u8> {
        match self {
            Self::File(dir) => std::fs::read(dir.path().join(key)).unwrap(),
            Self::S3 { endpoint } => {
                let got = object_store::ObjectStoreExt::get(
                    &client(endpoint),
                    &object_store::path::Path::parse(key).unwrap(),
                )
                .await;
                got.unwrap().bytes().await.unwrap().to_vec()
            }
        }
    }
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

async fn uploads(s3: &AmazonS3) -> Vec<String> {
    let query = SignedUrlOptions::default().with_query([("uploads", "")]);
    let root = object_store::path::Path::default();
    let url = s3
        .signed_url_opts(http::Method::GET, &root, Duration::from_secs(60), &query)
        .await
        .unwrap();
    let http = ReqwestConnector::default()
        .connect(&object_store::ClientOptions::new().with_allow_http(true))
        .unwrap();
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = url.as_str().parse().unwrap();
    let answer = http.execute(request).await.unwrap();
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

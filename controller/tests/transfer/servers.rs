//! Real store servers, each a process of its own on a free port that ends with its owner.

use crate::place::{AZURE_ACCOUNT, AZURE_KEY, KEY, LIMITED, Place};
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::{HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector},
};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A server with one bucket, `bkt`.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    /// Keeps what the server writes.
    _data: tempfile::TempDir,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a variable names, else a program on the path; `None`, with the reason on stderr.
fn find(variable: &str, program: &str, what: &str) -> Option<PathBuf> {
    let on_path = || {
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|d| d.join(program))
            .find(|p| p.is_file())
    };
    let found = std::env::var_os(variable)
        .map(PathBuf::from)
        .or_else(on_path)
        .filter(|p| p.is_file());
    if found.is_none() {
        eprintln!(
            "SKIPPED on {what}: no {program}: name it in {variable} or put it on PATH (`tests/cluster/cluster programs` brings it)"
        );
    }
    found
}

impl Server {
    /// versitygw: S3 on a folder. It checks signatures, rights and checksums.
    pub(crate) async fn versitygw() -> Option<Self> {
        Self::versitygw_with(None).await
    }

    /// The same over TLS, as `localhost`; certificate and key in PEM.
    pub(crate) async fn versitygw_with(tls: Option<(&str, &str)>) -> Option<Self> {
        let program = find("TOWLINE_VERSITYGW", "versitygw", "S3")?;
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(data.path().join("data/bkt")).unwrap();
        std::fs::create_dir_all(data.path().join("iam")).unwrap();
        let iam = data.path().join("iam");
        // Somebody who may do only what the bucket's policy says.
        let account = format!(
            r#"{{"accessAccounts":{{"{0}":{{"access":"{0}","secret":"{1}","role":"user","userID":0,"groupID":0}}}}}}"#,
            LIMITED.0, LIMITED.1
        );
        std::fs::write(iam.join("users.json"), account).unwrap();
        let root = data.path().join("data");
        let pem = tls.map(|(certificate, key)| {
            let files = [data.path().join("tls.crt"), data.path().join("tls.key")];
            std::fs::write(&files[0], certificate).unwrap();
            std::fs::write(&files[1], key).unwrap();
            files
        });
        Some(
            Self::start(data, |port| {
                let mut command = Command::new(&program);
                command
                    .env("ROOT_ACCESS_KEY_ID", KEY.0)
                    .env("ROOT_SECRET_ACCESS_KEY", KEY.1)
                    .args(["--port", &format!("127.0.0.1:{port}"), "--iam-dir"])
                    .arg(&iam);
                if let Some([certificate, key]) = &pem {
                    command.arg("--cert").arg(certificate).arg("--key").arg(key);
                }
                command.arg("posix").arg(&root);
                command
            })
            .await,
        )
    }

    /// moto: S3, and Google's XML API, which is S3's in all that we use.
    pub(crate) async fn moto() -> Option<Self> {
        let program = find("TOWLINE_MOTO", "moto_server", "moto")?;
        let server = Self::start(tempfile::tempdir().unwrap(), |port| {
            let mut command = Command::new(&program);
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        })
        .await;
        server.put("/bkt", "", |_| {}).await;
        Some(server)
    }

    /// Azurite: Azure's own stand-in.
    pub(crate) async fn azurite() -> Option<Self> {
        let script = find("TOWLINE_AZURITE", "azurite-blob", "Azure")?;
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().to_owned();
        let server = Self::start(data, |port| {
            let mut command = Command::new("node");
            command
                .arg(&script)
                .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
                .args(["--inMemoryPersistence", "--skipApiVersionCheck", "--silent"])
                .arg("--disableTelemetry")
                .current_dir(&folder);
            command
        })
        .await;
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURE_KEY).unwrap());
        server
            .put(
                &format!("/{AZURE_ACCOUNT}/bkt?restype=container"),
                "",
                |request| {
                    AzureAuthorizer::new(&credential, AZURE_ACCOUNT)
                        .try_authorize(request)
                        .unwrap();
                },
            )
            .await;
        Some(server)
    }

    /// Somebody may take the port between our look and the server's start: then another is tried.
    async fn start(data: tempfile::TempDir, command: impl Fn(u16) -> Command) -> Self {
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut process = command(port)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            loop {
                if tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .is_ok()
                {
                    return Self {
                        endpoint: format!("http://127.0.0.1:{port}"),
                        _data: data,
                        process,
                    };
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("the server does not start");
    }

    /// On versitygw: what `LIMITED` may do.
    pub(crate) async fn allow(&self, actions: &[&str]) {
        let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"AWS": [LIMITED.0]}, "Action": actions,
            "Resource": ["arn:aws:s3:::bkt", "arn:aws:s3:::bkt/*"]}]});
        let credential = AwsCredential {
            key_id: KEY.0.into(),
            secret_key: KEY.1.into(),
            token: None,
        };
        self.put("/bkt?policy=", &policy.to_string(), |request| {
            AwsAuthorizer::new(&credential, "s3", "us-east-1")
                .try_authorize(request, None)
                .unwrap();
        })
        .await;
    }

    /// A PUT; an empty one makes buckets and containers.
    async fn put(&self, path: &str, body: &str, authorize: impl Fn(&mut HttpRequest)) {
        let mut request = HttpRequest::new(HttpRequestBody::from(body.to_owned()));
        *request.method_mut() = http::Method::PUT;
        *request.uri_mut() = format!("{}{path}", self.endpoint).parse().unwrap();
        request
            .headers_mut()
            .insert("content-length", body.len().into());
        authorize(&mut request);
        let answer = http_client().execute(request).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// As S3.
    pub(crate) fn place(&self) -> Place {
        Place::S3 {
            endpoint: self.endpoint.clone(),
        }
    }
}

pub(crate) fn http_client() -> HttpClient {
    let options = object_store::ClientOptions::new()
        .with_allow_http(true)
        .with_no_system_certificates(true);
    ReqwestConnector::default().connect(&options).unwrap()
}

//! What a probe finds: on a folder, on a real server, and on servers that are none.

use crate::{
    agent::{Agent, good},
    body,
    command::{archive, told, towline},
    gate::Gate,
    job,
    place::{AZURE_ACCOUNT, AZURE_KEY, LIMITED, PART, Place, azure_config, places, s3_config},
    run,
    servers::{Server, http_client},
    tls::Ca,
    transfer_of,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use object_store::client::{HttpRequest, HttpRequestBody};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;
use towline_controller::pki::Usage;
use towline_controller::{
    catalog,
    reason::{FailureReason, StoreReason},
    storage::{
        AzureCredentials, Capabilities, GcsConfig, GcsCredentials, Location, Operation,
        RequestObserver, RequestResult, S3Config, S3Credentials, S3Encryption, Store, StoreConfig,
    },
};

fn open(config: S3Config) -> Arc<Store> {
    open_at(Location::S3(config))
}

fn open_at(location: Location) -> Arc<Store> {
    Arc::new(
        Store::open(StoreConfig {
            part_size: PART,
            max_parts: 8,
            allow_local_addresses: true,
            ..StoreConfig::new(location)
        })
        .unwrap(),
    )
}

/// What a probe finds, on a folder and on a real server.
#[tokio::test(flavor = "multi_thread")]
async fn probes() {
    let (places, gateway) = places().await;
    for place in &places {
        place.store(8).probe("ns").await.unwrap();
        assert_eq!(place.remains().await, Vec::<String>::new());
    }
    let error = open(s3_config("http://127.0.0.1:1"))
        .probe("ns")
        .await
        .unwrap_err();
    assert_eq!(error.reason, StoreReason::Unreachable, "{error}");
    let Some(gateway) = gateway else { return };
    let mut config = s3_config(&gateway.endpoint);
    config.bucket = "nope".into();
    let error = open(config.clone()).probe("ns").await.unwrap_err();
    assert_eq!(error.reason, StoreReason::BucketNotFound, "{error}");
    let error = catalog::read_decision(&open(config.clone()), &job("u"))
        .await
        .unwrap_err();
    assert_eq!(error.reason, StoreReason::BucketNotFound, "{error}");
    config.bucket = "bkt".into();
    for (key, secret) in [("test", "wrong-secret"), ("nobody", "testsecret")] {
        config.credentials = Some(S3Credentials {
            access_key_id: key.into(),
            secret_access_key: secret.into(),
            session_token: None,
        });
        let error = open(config.clone()).probe("ns").await.unwrap_err();
        assert_eq!(error.reason, StoreReason::CredentialsRefused, "{error}");
        assert!(!error.message.contains(secret), "{error}");
    }
}

/// A server that says yes to everything keeps no create-only.
#[tokio::test]
async fn a_server_that_ignores_create_only_is_refused() {
    async fn yes(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        Ok(Response::builder()
            .header("etag", "x")
            .body(Full::default())
            .unwrap())
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service_fn(yes)),
            );
        }
    });
    let error = open(s3_config(&endpoint)).probe("ns").await.unwrap_err();
    assert_eq!(error.reason, StoreReason::CreateOnlyUnsupported, "{error}");
    server.abort();
}

/// A server that takes connections and never answers does not hold a probe up for ever.
#[tokio::test]
async fn a_server_that_is_silent_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let error = open(s3_config(&endpoint)).probe("ns").await.unwrap_err();
    assert_eq!(error.reason, StoreReason::Unreachable, "{error}");
}

const ALL: [&str; 6] = [
    "s3:PutObject",
    "s3:GetObject",
    "s3:ListBucket",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListBucketMultipartUploads",
];

/// Each right in turn is taken away, and named.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named() {
    let Some(server) = Server::versitygw().await else {
        return;
    };
    let mut config = s3_config(&server.endpoint);
    config.credentials = Some(S3Credentials {
        access_key_id: LIMITED.0.into(),
        secret_access_key: LIMITED.1.into(),
        session_token: None,
    });
    server.allow(&ALL).await;
    let found = open(config.clone()).probe("ns").await.unwrap();
    assert!(found.list_uploads);
    for missing in ALL {
        let rest: Vec<&str> = ALL.into_iter().filter(|a| *a != missing).collect();
        server.allow(&rest).await;
        let probed = open(config.clone()).probe("ns").await;
        if missing == "s3:ListBucketMultipartUploads" {
            // A backup can do without: the condition asks for a lifecycle rule.
            assert!(!probed.unwrap().list_uploads);
            continue;
        }
        let error = probed.unwrap_err();
        assert_eq!(error.reason, StoreReason::PermissionDenied, "{error}");
        assert!(error.message.contains(missing), "{missing}: {error}");
    }
}

/// A store that takes fewer parts than the object may have.
#[tokio::test(flavor = "multi_thread")]
async fn max_parts_that_are_too_many_are_told() {
    let Some(server) = Server::versitygw().await else {
        return;
    };
    let gate = Gate::before(&server.endpoint).await;
    gate.take_parts_up_to(1_000);
    let open = |max_parts| {
        Store::open(StoreConfig {
            max_parts,
            ..server.place().through(&gate.endpoint).config(1)
        })
        .unwrap()
    };
    let error = open(1_001).probe("ns").await.unwrap_err();
    assert_eq!(error.reason, StoreReason::MaxPartsRefused, "{error}");
    assert!(error.message.contains("lower spec.maxParts"), "{error}");
    open(1_000).probe("ns").await.unwrap();
    assert_eq!(server.place().remains().await, Vec::<String>::new());
}

/// What is changed on its way is refused by the store; once is made up for, always is a failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_part_is_refused_and_sent_again() {
    let Some(server) = Server::versitygw().await else {
        return;
    };
    let gate = Gate::before(&server.endpoint).await;
    let data = body((11 << 20) + 7);
    let agent = Agent::start(good(&data)).await;
    let place = server.place();
    for crc64nvme in [true, false] {
        let store = Arc::new(
            Store::open(StoreConfig {
                capabilities: Capabilities {
                    crc64nvme,
                    list_uploads: true,
                },
                ..place.through(&gate.endpoint).config(8)
            })
            .unwrap(),
        );
        gate.spoil(2);
        let once = job(&format!("once-{crc64nvme}"));
        let success = run(transfer_of(&agent.url, &store, &once, 1))
            .await
            .unwrap();
        assert_eq!(gate.to_spoil(), 0);
        let mut stored = Vec::new();
        for object in &success.manifest.objects {
            stored.extend(place.read(&object.key).await);
        }
        assert!(stored == data, "what is stored is what was sent");

        gate.spoil(usize::MAX);
        let always = job(&format!("always-{crc64nvme}"));
        let failure = run(transfer_of(&agent.url, &store, &always, 1))
            .await
            .unwrap_err();
        assert_eq!(failure.reason, FailureReason::StoreError);
        assert!(
            failure.message.contains("not what was sent"),
            "{}",
            failure.message
        );
        let left = place.remains().await;
        assert!(!left.iter().any(|k| k.contains("always")), "{left:?}");
        gate.spoil(0);
    }
}

/// Whatever a store answers, and whatever is wrong with the keys, none of it is shown.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told() {
    let sas =
        "sv=2022-11-02&sr=c&sp=rwdlc&se=2099-01-01T00%3A00%3A00Z&sig=c2lnbmF0dXJlLW9mLW91cnM%3D";
    let mut places = vec![];
    let azurite = Server::azurite().await;
    let moto = Server::moto().await;
    // A server that echoes what it was asked, and one that is not there.
    let echo = Echo::start().await;
    let nowhere = "http://127.0.0.1:1".to_owned();
    for endpoint in azurite
        .iter()
        .chain(&moto)
        .map(|s| &s.endpoint)
        .chain([&echo.0, &nowhere])
    {
        for credentials in [
            AzureCredentials::SasToken(sas.into()),
            AzureCredentials::AccountKey("d3Jvbmcta2V5".into()),
        ] {
            let mut config = azure_config(endpoint);
            config.credentials = Some(credentials);
            places.push(Location::Azure(config));
        }
        places.push(Location::Gcs(GcsConfig {
            bucket: "nope".into(),
            endpoint: Some(endpoint.clone()),
            allow_http: true,
            credentials: Some(GcsCredentials::BearerToken("ya29.our-token".into())),
            ..GcsConfig::default()
        }));
        let mut config = s3_config(endpoint);
        config.bucket = "nope".into();
        config.credentials = Some(S3Credentials {
            access_key_id: "id".into(),
            secret_access_key: "our-secret-key".into(),
            session_token: Some("our-session-token".into()),
        });
        places.push(Location::S3(config));
    }
    // Side by side: some are tried again for a while.
    let told = futures::future::join_all(places.into_iter().map(|location| async move {
        let debug = format!("{location:?}");
        let nowhere = debug.contains("127.0.0.1:1\"") || debug.contains("127.0.0.1:1/");
        let store = open_at(location);
        let mut told = vec![debug, format!("{store:?}")];
        told.push(store.probe("ns").await.unwrap_err().to_string());
        if !nowhere {
            let read = catalog::read_decision(&store, &job("u")).await;
            told.extend(read.err().map(|e| e.to_string()));
            let listed = catalog::list(&store, "ns").await;
            told.extend(listed.err().map(|e| e.to_string()));
        }
        told
    }))
    .await;
    assert!(told.len() >= 8, "at least the servers that are ours");
    for told in told {
        for text in told {
            for secret in ["sig=", "c2lnbm", "d3Jvbm", "our-", AZURE_KEY] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
}

/// Answers 400 with the whole request.
struct Echo(String, tokio::task::JoinHandle<()>);

impl Drop for Echo {
    fn drop(&mut self) {
        self.1.abort();
    }
}

impl Echo {
    async fn start() -> Self {
        async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
            let text = format!(
                "<Error><Code>X\u{1b}[31m</Code><Message>{:?} http://x{}</Message></Error>",
                request.headers(),
                request.uri()
            );
            Ok(Response::builder()
                .status(400)
                .body(Full::from(text))
                .unwrap())
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service_fn(echo)),
                );
            }
        });
        Self(endpoint, serving)
    }
}

/// A tenant's store that leads to the controller's own host is refused before anything is sent.
#[tokio::test]
async fn a_local_store_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = |location: Location| {
        Store::open(StoreConfig {
            part_size: PART,
            ..StoreConfig::new(location)
        })
    };
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
    ] {
        let endpoint = format!("http://{host}:{port}");
        for location in [
            Location::S3(s3_config(&endpoint)),
            Location::Azure(azure_config(&endpoint)),
            Place::Gcs { endpoint }.config(8).location,
        ] {
            let error = open(location).unwrap_err();
            assert_eq!(error.reason, StoreReason::NotAllowed, "{host}: {error}");
        }
    }
    // A name is looked at when it is connected to.
    let store = open(Location::S3(s3_config(&format!("http://localhost:{port}")))).unwrap();
    let error = store.probe("ns").await.unwrap_err();
    assert_eq!(error.reason, StoreReason::NotAllowed, "{error}");
    let met = tokio::select! {
        biased;
        _ = listener.accept() => true,
        () = std::future::ready(()) => false,
    };
    assert!(!met);
}

/// A certificate authority of one's own is trusted where it is named, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_when_named() {
    let ca = Ca::new();
    let own = ca.issue(Usage::Server, "localhost");
    let Some(server) = Server::versitygw_with(Some((&own.certificate, &own.key))).await else {
        return;
    };
    let port = server.endpoint.rsplit_once(':').unwrap().1;
    let mut config = s3_config(&format!("https://localhost:{port}"));
    config.allow_http = false;
    for (bundle, reason) in [
        (Some(ca.certificate.clone()), None),
        (None, Some(StoreReason::Unreachable)),
        (Some(Ca::new().certificate), Some(StoreReason::Unreachable)),
    ] {
        config.ca_bundle = bundle;
        let probed = open(config.clone()).probe("ns").await;
        assert_eq!(
            probed.as_ref().err().map(|e| e.reason),
            reason,
            "{probed:?}"
        );
    }
    for bundle in [
        "",
        "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
    ] {
        config.ca_bundle = Some(bundle.into());
        let location = Location::S3(config.clone());
        let error = Store::open(StoreConfig::new(location)).unwrap_err();
        assert!(error.message.contains("caBundle"), "{error}");
    }
}

/// What the store was asked for is what it keeps the objects by, small and large.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_told_how_to_encrypt() {
    let Some(server) = Server::moto().await else {
        return;
    };
    let key = "arn:aws:kms:us-east-1:111122223333:key/k";
    for (encryption, algorithm, key) in [
        (S3Encryption::Aes256, "AES256", None),
        (S3Encryption::Kms(None), "aws:kms", None),
        (S3Encryption::Kms(Some(key.into())), "aws:kms", Some(key)),
    ] {
        let mut config = s3_config(&server.endpoint);
        config.encryption = Some(encryption);
        let store = open(config);
        let (small, large) = (store.key("small").unwrap(), store.key("large").unwrap());
        store.put(&small, "x".into()).await.unwrap();
        let id = store.uploads().open(&large).await.unwrap();
        let part = store.uploads().parts(&large, &id).put(0, "x".into()).await;
        let parts = vec![part.unwrap()];
        store.uploads().complete(&large, &id, parts).await.unwrap();
        for object in ["small", "large"] {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.method_mut() = http::Method::HEAD;
            *request.uri_mut() = format!("{}/bkt/{object}", server.endpoint).parse().unwrap();
            let signed_by_nobody = http::HeaderValue::from_static(
                "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x",
            );
            request
                .headers_mut()
                .insert("authorization", signed_by_nobody);
            let answer = http_client().execute(request).await.unwrap();
            let header = |name| {
                answer
                    .headers()
                    .get(name)
                    .map(|v| v.to_str().unwrap().to_owned())
            };
            let told = header("x-amz-server-side-encryption");
            assert_eq!(told.as_deref(), Some(algorithm), "{object}");
            if key.is_some() {
                let told = header("x-amz-server-side-encryption-aws-kms-key-id");
                assert_eq!(told.as_deref(), key, "{object}");
            }
        }
    }
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(Operation, RequestResult)>>);

impl RequestObserver for Seen {
    fn request(&self, operation: Operation, result: RequestResult, _: Duration) {
        self.0.lock().unwrap().push((operation, result));
    }
}

/// Each request is told once, by what it was for and how it ended.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted() {
    let (moto, azurite) = (Server::moto().await, Server::azurite().await);
    let mut places = Vec::new();
    if let Some(server) = &moto {
        let endpoint = server.endpoint.clone();
        places.extend([server.place(), Place::Gcs { endpoint }]);
    }
    if let Some(server) = &azurite {
        let endpoint = server.endpoint.clone();
        places.push(Place::Azure { endpoint });
    }
    for place in places {
        let seen = Arc::new(Seen::default());
        let store = Store::open(StoreConfig {
            observer: Some(seen.clone()),
            ..place.config(8)
        })
        .unwrap();
        let key = store.key("ns/k").unwrap();
        assert_eq!(store.get(&key, 10).await.unwrap(), None);
        store.put(&key, "x".into()).await.unwrap();
        store.head(&key).await.unwrap();
        store.list(&store.key("ns").unwrap()).await.unwrap();
        let large = store.key("ns/large").unwrap();
        let id = store.uploads().open(&large).await.unwrap();
        let writer = store.uploads().parts(&large, &id);
        let parts = vec![writer.put(0, "x".into()).await.unwrap()];
        store.uploads().complete(&large, &id, parts).await.unwrap();
        store.delete(&key).await.unwrap();
        let mut expected = vec![
            (Operation::Get, RequestResult::NotFound),
            (Operation::Put, RequestResult::Success),
            (Operation::Head, RequestResult::Success),
            (Operation::List, RequestResult::Success),
            (Operation::CreateUpload, RequestResult::Success),
            (Operation::PutPart, RequestResult::Success),
            (Operation::CompleteUpload, RequestResult::Success),
            (Operation::Delete, RequestResult::Success),
        ];
        if matches!(place, Place::Azure { .. }) {
            // Its uploads are opened by their first block.
            expected.retain(|(operation, _)| *operation != Operation::CreateUpload);
        }
        assert_eq!(*seen.0.lock().unwrap(), expected);
    }
}

/// `towline` on Google's and Azure's stand-ins, with the variables of their own command lines.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_knows_every_cloud() {
    let (moto, azurite) = (Server::moto().await, Server::azurite().await);
    let mut stores = Vec::new();
    if let Some(server) = &moto {
        stores.push((
            "gs://bkt/pre",
            server.endpoint.clone(),
            [("GOOGLE_OAUTH_ACCESS_TOKEN", "t"), ("X", "")],
        ));
    }
    if let Some(server) = &azurite {
        stores.push((
            "az://bkt/pre",
            format!("{}/{AZURE_ACCOUNT}", server.endpoint),
            [
                ("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT),
                ("AZURE_STORAGE_KEY", AZURE_KEY),
            ],
        ));
    }
    let data = archive(&body(20 << 20));
    let agent = Agent::start(good(&data)).await;
    for (url, endpoint, variables) in stores {
        let at = ["--store", url, "--endpoint-url", &endpoint, "--allow-http"];
        let run = async |args: &[&str]| {
            let mut command = towline(&[args, &at[..]].concat());
            // Of another cloud: it is not for this one.
            command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
            told(&command.envs(variables).output().await.unwrap())
        };
        let backup = ["backup", "--agent", agent.url.as_str(), "--name", "db-0"];
        let (code, out, err) = run(&backup).await;
        assert_eq!(code, 0, "{url}: {err}");
        let key = out.split(' ').next().unwrap().to_owned();
        let (_, out, err) = run(&["ls"]).await;
        assert!(out.contains(&key), "{url}: {out} {err}");
        let (code, _, err) = run(&["verify", "--latest"]).await;
        assert_eq!(code, 0, "{url}: {err}");
    }
    for (args, part) in [
        (["--store", "az://bkt"], "AZURE_STORAGE_ACCOUNT"),
        (["--store", "ftp://bkt"], "gs://BUCKET"),
        (["--store", "gs://"], "gs://BUCKET"),
    ] {
        let mut command = towline(&[&["ls"][..], &args[..]].concat());
        command.env_remove("AZURE_STORAGE_ACCOUNT");
        let (code, _, err) = told(&command.output().await.unwrap());
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(part), "{err}");
    }
}

/// With keys of its own a store never makes us ask a metadata service, whatever the environment says
/// and however the keys are wrong.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_its_own_ask_no_metadata_service() {
    let metadata = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = metadata.local_addr().unwrap().to_string();
    let url = format!("http://{address}");
    let (moto, azurite) = (Server::moto().await, Server::azurite().await);
    let mut stores = Vec::new();
    if let Some(server) = &moto {
        stores.push(("s3://nope", server.endpoint.clone(), ("X", "")));
        stores.push((
            "gs://nope",
            server.endpoint.clone(),
            ("GOOGLE_OAUTH_ACCESS_TOKEN", "t"),
        ));
    }
    if let Some(server) = &azurite {
        stores.push((
            "az://nope",
            format!("{}/{AZURE_ACCOUNT}", server.endpoint),
            ("AZURE_STORAGE_KEY", "d3Jvbmc="),
        ));
    }
    for (store, endpoint, (name, value)) in stores {
        let at = [
            "ls",
            "--store",
            store,
            "--endpoint-url",
            &endpoint,
            "--allow-http",
        ];
        let mut command = towline(&at);
        for variable in ["AWS_METADATA_ENDPOINT", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"] {
            command.env(variable, &url);
        }
        for variable in ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_ENDPOINT_URL_STS"] {
            command.env(variable, &url);
        }
        for variable in ["GCE_METADATA_HOST", "METADATA_HOST", "GCE_METADATA_ROOT"] {
            command.env(variable, &address);
        }
        command
            .env("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT)
            .env(name, value);
        let (code, _, err) = told(&command.output().await.unwrap());
        assert_ne!(code, 0, "{store}: {err}");
        assert!(!err.contains("d3Jvbmc"), "{err}");
    }
    let met = tokio::select! {
        biased;
        _ = metadata.accept() => true,
        () = std::future::ready(()) => false,
    };
    assert!(!met);
}

/// A shared access signature of the container, as the manual has it, is enough for all that we do:
/// <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_access_signature_is_enough() {
    let Some(server) = Server::azurite().await else {
        return;
    };
    for (permissions, missing) in [
        ("rcwdl", None),
        ("rcwd", Some("the right to list")),
        ("rcwl", Some("the right to delete")),
        ("rdl", Some("the right to write")),
        ("cwdl", Some("the right to read")),
    ] {
        let mut config = azure_config(&server.endpoint);
        let token = container_sas(permissions);
        config.credentials = Some(AzureCredentials::SasToken(token));
        let probed = open_at(Location::Azure(config)).probe("ns").await;
        match (missing, probed) {
            (None, probed) => drop(probed.unwrap()),
            (Some(right), probed) => {
                let error = probed.unwrap_err();
                assert_eq!(error.reason, StoreReason::PermissionDenied, "{error}");
                assert!(error.message.contains(right), "{permissions}: {error}");
                assert!(!error.message.contains("sig="), "{error}");
            }
        }
    }
}

fn container_sas(permissions: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let (expiry, version) = ("2099-01-01T00:00:00Z", "2020-12-06");
    let resource = format!("/blob/{AZURE_ACCOUNT}/bkt");
    // permissions, start, expiry, resource, identifier, addresses, protocol, version, kind, snapshot,
    // encryption scope, and five headers of the answer.
    let signed = [
        permissions,
        "",
        expiry,
        &resource,
        "",
        "",
        "",
        version,
        "c",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
    ]
    .join("\n");
    let key = BASE64_STANDARD.decode(AZURE_KEY).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let signature = BASE64_STANDARD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("sp", permissions),
            ("se", expiry),
            ("sv", version),
            ("sr", "c"),
            ("sig", &signature),
        ])
        .finish()
}

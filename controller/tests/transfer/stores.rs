//! What a probe finds: on a folder, on a real server, and on servers that are none.

use crate::{
    job,
    place::{PART, places, s3_config},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, sync::Arc};
use tokio::net::TcpListener;
use towline_controller::{
    catalog,
    storage::{Location, S3Config, S3Credentials, Store, StoreConfig, StoreError},
};

fn open(config: S3Config) -> Arc<Store> {
    let location = Location::S3(config);
    Arc::new(
        Store::open(StoreConfig {
            location,
            prefix: String::new(),
            part_size: PART,
            max_parts: 8,
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
    assert_eq!(error.reason, "Unreachable", "{error}");
    let Some(gateway) = gateway else { return };
    let mut config = s3_config(&gateway.endpoint);
    config.bucket = "nope".into();
    let error = open(config.clone()).probe("ns").await.unwrap_err();
    assert_eq!(error.reason, "BucketNotFound", "{error}");
    let error = catalog::read_decision(&open(config.clone()), &job("u"))
        .await
        .unwrap_err();
    assert_eq!(error.reason, "BucketNotFound", "{error}");
    config.bucket = "bkt".into();
    for (key, secret) in [("test", "wrong-secret"), ("nobody", "testsecret")] {
        config.credentials = Some(S3Credentials {
            access_key_id: key.into(),
            secret_access_key: secret.into(),
            session_token: None,
        });
        let error = open(config.clone()).probe("ns").await.unwrap_err();
        assert_eq!(error.reason, "CredentialsRefused", "{error}");
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
    assert_eq!(error.reason, StoreError::CREATE_ONLY_UNSUPPORTED, "{error}");
    server.abort();
}

/// A server that takes connections and never answers does not hold a probe up for ever.
#[tokio::test]
async fn a_server_that_is_silent_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let error = open(s3_config(&endpoint)).probe("ns").await.unwrap_err();
    assert_eq!(error.reason, StoreError::UNREACHABLE, "{error}");
}

//! S3 and compatible servers.

use super::{
    S3Config, StoreError,
    config::S3Encryption,
    endpoint,
    http::{Connector, Patience},
    uploads::parse_uploads,
};
use object_store::{
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider, Checksum},
    client::{HttpClient, HttpRequest, HttpRequestBody},
    path::Path,
    signer::{SignedUrlOptions, Signer as _},
};
use std::time::Duration;
use url::Url;

/// How what is sent is protected on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// By a SHA-256 in the signature.
    Signed,
    /// By a CRC64NVME, which the store compares; the signature covers that and not the payload.
    Checked,
    /// By both.
    SignedAndChecked,
}

impl Payload {
    /// For small objects both cost nothing.
    pub(super) fn signed(self) -> Self {
        match self {
            Self::Checked => Self::SignedAndChecked,
            other => other,
        }
    }
}

/// The controller's own identity, where nothing else is given. It is asked for by a client of its
/// own: what a store's endpoint leads to must never be the metadata service.
pub(super) fn ambient(config: &S3Config) -> Result<Option<AwsCredentialProvider>, StoreError> {
    if config.credentials.is_some() {
        return Ok(None);
    }
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(&config.bucket);
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let client = builder
        .build()
        .map_err(|e| StoreError::config(format!("no ambient credentials of AWS: {e}")))?;
    Ok(Some(client.credentials().clone()))
}

pub(super) fn client(
    config: &S3Config,
    ambient: Option<&AwsCredentialProvider>,
    connector: &Connector,
    patience: Patience,
    payload: Payload,
) -> Result<AmazonS3, StoreError> {
    if config.bucket.is_empty() || config.bucket.contains(['/', '?', '#']) {
        return Err(StoreError::config(format!(
            "{:?} cannot be the name of a bucket",
            config.bucket
        )));
    }
    // Never from the environment: it must not mix with what the store says.
    let mut builder = AmazonS3Builder::new();
    if let Some(provider) = ambient {
        builder = builder.with_credentials(provider.clone());
    }
    if let Some(keys) = &config.credentials {
        builder = builder
            .with_access_key_id(&keys.access_key_id)
            .with_secret_access_key(&keys.secret_access_key);
        if let Some(token) = &keys.session_token {
            builder = builder.with_token(token);
        }
    }
    if let Some(endpoint) = &config.endpoint {
        let url = endpoint_url(endpoint, config)?;
        builder = builder.with_endpoint(url.as_str().trim_end_matches('/'));
    }
    let region = config.region.clone().or_else(|| {
        let region =
            || std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION"));
        region().ok().filter(|_| ambient.is_some())
    });
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    builder = match &config.encryption {
        None => builder,
        Some(S3Encryption::Kms(Some(key))) => builder.with_sse_kms_encryption(key),
        Some(S3Encryption::Kms(None)) => encrypted(builder, "aws:kms")?,
        Some(S3Encryption::Aes256) => encrypted(builder, "AES256")?,
    };
    if payload != Payload::Signed {
        builder = builder.with_checksum_algorithm(Checksum::CRC64NVME);
    }
    builder
        .with_bucket_name(&config.bucket)
        .with_virtual_hosted_style_request(!config.force_path_style)
        .with_allow_http(config.allow_http)
        .with_unsigned_payload(payload == Payload::Checked)
        // One DELETE per key: bulk deletion is what compatible servers most often lack.
        .with_disable_bulk_delete(true)
        .with_retry(patience.retry())
        .with_http_connector(connector.clone())
        .build()
        .map_err(|e| {
            StoreError::config(format!(
                "the store s3://{} cannot be opened: {e}",
                config.bucket
            ))
        })
}

fn encrypted(builder: AmazonS3Builder, kind: &str) -> Result<AmazonS3Builder, StoreError> {
    let key: AmazonS3ConfigKey = "aws_server_side_encryption"
        .parse()
        .map_err(|e| StoreError::config(format!("serverSideEncryption cannot be set: {e}")))?;
    Ok(builder.with_config(key, kind))
}

/// The endpoint with the bucket in its host, unless the style is by path.
fn endpoint_url(endpoint: &str, config: &S3Config) -> Result<Url, StoreError> {
    // Whether it may be connected to was asked before.
    let mut url = endpoint::parse(endpoint, config.allow_http, true)?;
    if !config.force_path_style {
        let with_bucket = format!("{}.{}", config.bucket, url.host_str().unwrap_or_default());
        url.set_host(Some(&with_bucket)).map_err(|e| {
            StoreError::config(format!(
                "the bucket cannot go into the endpoint's host name ({e}): set forcePathStyle"
            ))
        })?;
    }
    Ok(url)
}

/// Lists unfinished uploads.
pub(super) struct Lister {
    s3: AmazonS3,
    http: HttpClient,
}

impl Lister {
    pub(super) fn new(s3: AmazonS3, http: HttpClient) -> Self {
        Self { s3, http }
    }

    /// The unfinished uploads under a folder, by a signed
    /// [ListMultipartUploads](https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html).
    /// One answer has up to a thousand; an attempt never opens so many.
    pub(super) async fn list(&self, folder: &Path) -> Result<Vec<(Path, String)>, String> {
        let query =
            SignedUrlOptions::default().with_query([("uploads", ""), ("prefix", folder.as_ref())]);
        let minute = Duration::from_secs(60);
        let url = self
            .s3
            .signed_url_opts(http::Method::GET, &Path::default(), minute, &query)
            .await;
        let url = url.map_err(|e| e.to_string())?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|_| "the signed address is no URI".to_owned())?;
        super::uploads::ask(&self.http, request)
            .await
            .map(|xml| parse_uploads(&xml, folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_goes_into_the_host_unless_the_style_is_by_path() {
        let ok = |endpoint: &str, path_style| {
            let config = S3Config {
                bucket: "b".into(),
                force_path_style: path_style,
                allow_http: true,
                ..S3Config::default()
            };
            endpoint_url(endpoint, &config)
                .map(String::from)
                .map_err(|e| e.message)
        };
        assert_eq!(
            ok("https://s3.example.com", true).unwrap(),
            "https://s3.example.com/"
        );
        assert_eq!(
            ok("https://s3.example.com:9000", false).unwrap(),
            "https://b.s3.example.com:9000/"
        );
        assert!(
            ok("http://127.0.0.1:1", false)
                .unwrap_err()
                .contains("forcePathStyle")
        );
    }
}

//! S3 and compatible servers.

use super::{S3Config, StoreError};
use object_store::{
    BackoffConfig, Certificate, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector},
    path::Path,
    signer::{SignedUrlOptions, Signer as _},
};
use std::time::Duration;
use url::Url;

/// How patient one client is.
struct Patience {
    connect: Duration,
    /// `None`: a request may take as long as bytes move; whoever waits watches for stalls.
    request: Option<Duration>,
    retries: usize,
    retry_for: Duration,
}

const CONTROL: Patience = Patience {
    connect: Duration::from_secs(5),
    request: Some(Duration::from_secs(20)),
    retries: 6,
    retry_for: Duration::from_secs(30),
};

const BULK: Patience = Patience {
    connect: Duration::from_secs(5),
    request: None,
    retries: 10,
    retry_for: Duration::from_secs(180),
};

/// Measured: an endpoint that refuses, black-holes or never answers is told within five seconds.
const PROBE: Patience = Patience {
    connect: Duration::from_secs(1),
    request: Some(Duration::from_millis(1500)),
    retries: 3,
    retry_for: Duration::from_secs(4),
};

/// The clients of one bucket.
#[derive(Debug)]
pub(super) struct Clients {
    /// Small requests: bounded in time as a whole.
    pub(super) control: AmazonS3,
    /// Parts and completes: a slow line may take as long as it needs, so there is no limit on a
    /// whole request; whoever uploads watches for stalls.
    pub(super) bulk: AmazonS3,
    /// Fails within five seconds.
    pub(super) probe: AmazonS3,
    /// For the one request that `object_store` has no call for.
    http: HttpClient,
}

pub(super) fn open(config: &S3Config) -> Result<Clients, StoreError> {
    let (control, options) = client(config, &CONTROL)?;
    let http = ReqwestConnector::default()
        .connect(&options)
        .map_err(|e| StoreError::config(format!("the HTTP client cannot be made: {e}")))?;
    Ok(Clients {
        control,
        bulk: client(config, &BULK)?.0,
        probe: client(config, &PROBE)?.0,
        http,
    })
}

impl Clients {
    /// The unfinished uploads under a folder, by a signed
    /// [ListMultipartUploads](https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html).
    /// One answer has up to a thousand; an attempt never opens so many.
    pub(super) async fn list_uploads(&self, folder: &Path) -> Result<Vec<(Path, String)>, String> {
        let query =
            SignedUrlOptions::default().with_query([("uploads", ""), ("prefix", folder.as_ref())]);
        let minute = Duration::from_secs(60);
        let url = self
            .control
            .signed_url_opts(http::Method::GET, &Path::default(), minute, &query)
            .await;
        let url = url.map_err(|e| e.to_string())?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|_| "the signed address is no URI".to_owned())?;
        // The error's text may hold the signed address: it is not shown.
        let answer = self
            .http
            .execute(request)
            .await
            .map_err(|e| format!("{:?}", e.kind()))?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string());
        }
        let body = answer
            .into_body()
            .bytes()
            .await
            .map_err(|e| format!("{:?}", e.kind()))?;
        Ok(parse_uploads(&String::from_utf8_lossy(&body), folder))
    }
}

/// Key and id of each `<Upload>` under `folder`. What is escaped is not ours: our keys and the ids
/// that stores make need no escaping.
fn parse_uploads(xml: &str, folder: &Path) -> Vec<(Path, String)> {
    let element = super::error::element;
    xml.split("<Upload>")
        .skip(1)
        .filter_map(|upload| {
            let key = Path::parse(element(upload, "Key")?).ok()?;
            (key.prefix_matches(folder)).then_some((key, element(upload, "UploadId")?.to_owned()))
        })
        .collect()
}

fn client(config: &S3Config, patience: &Patience) -> Result<(AmazonS3, ClientOptions), StoreError> {
    if config.bucket.is_empty() || config.bucket.contains(['/', '?', '#']) {
        return Err(StoreError::config(format!(
            "{:?} cannot be the name of a bucket",
            config.bucket
        )));
    }
    let mut options = ClientOptions::new()
        .with_connect_timeout(patience.connect)
        .with_allow_http(config.allow_http);
    options = match patience.request {
        Some(limit) => options.with_timeout(limit),
        None => options.with_timeout_disabled(),
    };
    // Ambient credentials may come from the environment (web identity, container, keys); explicit
    // ones must not be mixed with whatever the environment says.
    let mut builder = match &config.credentials {
        None => AmazonS3Builder::from_env(),
        Some(keys) => {
            let b = AmazonS3Builder::new()
                .with_access_key_id(&keys.access_key_id)
                .with_secret_access_key(&keys.secret_access_key);
            match &keys.session_token {
                Some(token) => b.with_token(token),
                None => b,
            }
        }
    };
    if let Some(endpoint) = &config.endpoint {
        let url = endpoint_url(endpoint, config)?;
        if url.scheme() == "http" {
            // Without system roots the client could not be built, though it needs none here.
            options = options.with_no_system_certificates(true);
        }
        builder = builder.with_endpoint(url.as_str().trim_end_matches('/'));
    }
    if let Some(bundle) = &config.ca_bundle {
        let roots = Certificate::from_pem_bundle(bundle.as_bytes()).map_err(|e| {
            StoreError::config(format!("caBundle is not a list of PEM certificates: {e}"))
        })?;
        for root in roots {
            options = options.with_root_certificate(root);
        }
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let client = builder
        .with_bucket_name(&config.bucket)
        .with_virtual_hosted_style_request(!config.force_path_style)
        .with_client_options(options.clone())
        // One DELETE per key: bulk deletion is what compatible servers most often lack.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                max_backoff: patience.retry_for / 3,
                ..BackoffConfig::default()
            },
            max_retries: patience.retries,
            retry_timeout: patience.retry_for,
        })
        .build()
        .map_err(|e| {
            StoreError::config(format!(
                "the store s3://{} cannot be opened: {e}",
                config.bucket
            ))
        })?;
    Ok((client, options))
}

/// The endpoint with the bucket in its host, unless the style is by path.
fn endpoint_url(endpoint: &str, config: &S3Config) -> Result<Url, StoreError> {
    let mut url = Url::parse(endpoint).map_err(|e| {
        StoreError::config(format!(
            "the endpoint is not a URL such as https://s3.example.com: {e}"
        ))
    })?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        return Err(StoreError::config(
            "the endpoint must be a plain URL: credentials belong into the Secret",
        ));
    }
    match url.scheme() {
        "https" => {}
        "http" if config.allow_http => {}
        "http" => {
            return Err(StoreError::config(
                "the endpoint is plain http, over which everybody can read the backup: use https, or allow it with allowHttp (--allow-http)",
            ));
        }
        other => {
            return Err(StoreError::config(format!(
                "the endpoint's scheme {other:?} is neither https nor http"
            )));
        }
    }
    let Some(host) = url.host_str().map(str::to_owned) else {
        return Err(StoreError::config("the endpoint has no host"));
    };
    if !config.force_path_style {
        let with_bucket = format!("{}.{host}", config.bucket);
        url.set_host(Some(&with_bucket)).map_err(|e| {
            StoreError::config(format!(
                "the bucket cannot go into the endpoint's host name ({e}): set forcePathStyle"
            ))
        })?;
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str, path_style: bool, allow_http: bool) -> S3Config {
        S3Config {
            bucket: "b".into(),
            endpoint: Some(endpoint.into()),
            force_path_style: path_style,
            allow_http,
            ..S3Config::default()
        }
    }

    #[test]
    fn uploads_of_another_folder_are_not_ours() {
        let xml = "<R><Upload><Key>p/a/1/x</Key><UploadId>i1</UploadId></Upload>\
                   <Upload><Key>p/a/10/x</Key><UploadId>i2</UploadId></Upload><Upload><Key>p/a/1/y</Key></Upload></R>";
        assert_eq!(
            parse_uploads(xml, &Path::from("p/a/1")),
            [(Path::from("p/a/1/x"), "i1".to_owned())]
        );
        assert!(parse_uploads("<garbage", &Path::from("p")).is_empty());
    }

    #[test]
    fn endpoints() {
        let ok = |e: &str, p, h| {
            endpoint_url(e, &config(e, p, h))
                .map(String::from)
                .map_err(|e| e.message)
        };
        assert_eq!(
            ok("https://s3.example.com", true, false).unwrap(),
            "https://s3.example.com/"
        );
        assert_eq!(
            ok("https://s3.example.com:9000", false, false).unwrap(),
            "https://b.s3.example.com:9000/"
        );
        assert!(
            ok("http://s3.example.com", true, false)
                .unwrap_err()
                .contains("allowHttp")
        );
        assert!(ok("http://s3.example.com", true, true).is_ok());
        assert!(
            ok("http://127.0.0.1:1", false, true).is_ok_and(|u| u.contains("b.127.0.0.1"))
                || ok("http://127.0.0.1:1", false, true)
                    .unwrap_err()
                    .contains("forcePathStyle")
        );
        assert!(
            ok("https://user:pw@s3.example.com", true, false)
                .unwrap_err()
                .contains("Secret")
        );
        assert!(
            ok("ftp://s3.example.com", true, true)
                .unwrap_err()
                .contains("ftp")
        );
    }
}

//! The HTTP client under every cloud store: it connects only where it may, follows no redirect, and
//! says what it asked for.

use super::{
    StoreError,
    endpoint::{self, LocalAddress},
};
use crate::agent_client::is_local;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt as _;
use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpService,
    },
};
use std::{
    error::Error,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How patient one client is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    connect: Duration,
    /// `None`: a request may take as long as bytes move; whoever waits watches for stalls.
    request: Option<Duration>,
    retries: usize,
    retry_for: Duration,
}

impl Patience {
    /// Small requests: bounded in time as a whole.
    pub(super) const CONTROL: Self = Self {
        connect: Duration::from_secs(5),
        request: Some(Duration::from_secs(20)),
        retries: 6,
        retry_for: Duration::from_secs(30),
    };
    /// Parts and completes: a slow line may take as long as it needs.
    pub(super) const BULK: Self = Self {
        connect: Duration::from_secs(5),
        request: None,
        retries: 10,
        retry_for: Duration::from_secs(180),
    };
    /// Measured: an endpoint that refuses, black-holes or never answers is told within five seconds.
    pub(super) const PROBE: Self = Self {
        connect: Duration::from_secs(1),
        request: Some(Duration::from_millis(1500)),
        retries: 3,
        retry_for: Duration::from_secs(4),
    };

    pub(super) fn retry(self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                max_backoff: self.retry_for / 3,
                ..BackoffConfig::default()
            },
            max_retries: self.retries,
            retry_timeout: self.retry_for,
        }
    }
}

/// What a request to a store is for; labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writing a small object.
    Put,
    /// Reading an object.
    Get,
    /// Asking for an object's size.
    Head,
    /// Listing objects.
    List,
    /// Deleting an object.
    Delete,
    /// Opening a multipart upload.
    CreateUpload,
    /// Writing a part of one.
    PutPart,
    /// Making the object of its parts.
    CompleteUpload,
    /// Throwing one away.
    AbortUpload,
    /// Listing those that are open.
    ListUploads,
    /// Getting an access token.
    Token,
}

impl Operation {
    /// As a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::CreateUpload => "create_upload",
            Self::PutPart => "put_part",
            Self::CompleteUpload => "complete_upload",
            Self::AbortUpload => "abort_upload",
            Self::ListUploads => "list_uploads",
            Self::Token => "token",
        }
    }

    /// By method and query, which tell it for S3, the XML API of Google and Azure alike. Another
    /// host than the store's is asked for tokens only.
    fn of(method: &Method, uri: &Uri, store_host: Option<&str>) -> Self {
        // The bucket may stand before the store's host.
        let is_store = |host: &str| {
            let bucket = uri.host().and_then(|asked| asked.strip_suffix(host));
            bucket.is_some_and(|b| b.is_empty() || b.ends_with('.'))
        };
        if !store_host.is_none_or(is_store) {
            return Self::Token;
        }
        let has = |name: &str| {
            uri.query()
                .unwrap_or_default()
                .split('&')
                .any(|pair| pair.split_once('=').map_or(pair, |(n, _)| n) == name || pair == name)
        };
        match *method {
            Method::PUT if has("partNumber") || has("comp=block") => Self::PutPart,
            Method::PUT if has("comp=blocklist") => Self::CompleteUpload,
            Method::PUT => Self::Put,
            Method::POST if has("uploads") => Self::CreateUpload,
            Method::POST if has("uploadId") => Self::CompleteUpload,
            // Azure deletes by batches: `comp=batch`.
            Method::POST | Method::DELETE if !has("uploadId") => Self::Delete,
            Method::DELETE => Self::AbortUpload,
            Method::HEAD => Self::Head,
            _ if has("uploads") => Self::ListUploads,
            _ if has("list-type") || has("comp=list") => Self::List,
            _ => Self::Get,
        }
    }
}

/// How a request to a store ended; labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestResult {
    /// 2xx or 304.
    Success,
    /// 404.
    NotFound,
    /// 409 and 412: what was to be created is there already.
    Conflict,
    /// 401 and 403.
    Refused,
    /// 429 and 503: slow down.
    Throttled,
    /// Any other answer.
    Failed,
    /// No answer.
    Unreachable,
}

impl RequestResult {
    /// As a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
        }
    }

    fn of(answer: &Result<HttpResponse, HttpError>) -> Self {
        match answer.as_ref().map(HttpResponse::status) {
            Err(_) => Self::Unreachable,
            Ok(s) if s.is_success() || s == StatusCode::NOT_MODIFIED => Self::Success,
            Ok(StatusCode::NOT_FOUND) => Self::NotFound,
            Ok(StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED) => Self::Conflict,
            Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Self::Refused,
            Ok(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => Self::Throttled,
            Ok(_) => Self::Failed,
        }
    }
}

/// Who is told of each request to a store, retries too.
pub trait RequestObserver: fmt::Debug + Send + Sync {
    /// A request was answered, or failed; `took` is the time to the head of the answer.
    fn request(&self, operation: Operation, result: RequestResult, took: Duration);
}

/// How often a store has asked to slow down.
#[derive(Debug, Default)]
pub(super) struct Throttled(AtomicU64);

impl Throttled {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What all clients of one store share.
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// Whether `http://` is spoken.
    pub(super) allow_http: bool,
    pub(super) allow_local: bool,
    /// Further certificate authorities, PEM.
    pub(super) ca_bundle: Option<String>,
    /// Whether the machine's certificate authorities are needed.
    pub(super) system_roots: bool,
    pub(super) observer: Option<Arc<dyn RequestObserver>>,
    pub(super) throttled: Arc<Throttled>,
    /// Host of the store itself; other hosts give tokens.
    pub(super) host: Option<String>,
    pub(super) resolver: Arc<dyn Resolver>,
}

/// Asks for the addresses of a name.
#[async_trait]
pub(super) trait Resolver: fmt::Debug + Send + Sync {
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The machine's own resolver.
#[derive(Debug)]
pub(super) struct System;

#[async_trait]
impl Resolver for System {
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0))
            .await?
            .map(|a| a.ip())
            .collect())
    }
}

/// Hands out only addresses that may be connected to. It is asked for every new connection, and
/// what it answers is what is connected to: a name that means something else the next time gains
/// nothing.
struct Guard {
    resolver: Arc<dyn Resolver>,
    allow_local: bool,
}

impl reqwest::dns::Resolve for Guard {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (resolver, allow_local) = (Arc::clone(&self.resolver), self.allow_local);
        Box::pin(async move {
            let found = resolver.resolve(name.as_str()).await?;
            let usable: Vec<IpAddr> = found
                .iter()
                .copied()
                .filter(|a| allow_local || !is_local(*a))
                .collect();
            match (usable.is_empty(), found.first()) {
                (true, Some(local)) => {
                    Err(LocalAddress(format!("{} ({local})", name.as_str())).into())
                }
                _ => Ok(Box::new(usable.into_iter().map(|a| SocketAddr::new(a, 0)))
                    as reqwest::dns::Addrs),
            }
        })
    }
}

impl Net {
    /// The client of one patience, to be given to a builder of `object_store`.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub(super) fn connector(&self, patience: Patience) -> Result<Connector, StoreError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("towline/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            .https_only(!self.allow_http)
            // Whoever answers must not say whom to ask next: credentials would go there too.
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .dns_resolver(Arc::new(Guard {
                resolver: Arc::clone(&self.resolver),
                allow_local: self.allow_local,
            }));
        if let Some(limit) = patience.request {
            builder = builder.timeout(limit);
        }
        let roots = match &self.ca_bundle {
            Some(bundle) => {
                let roots =
                    reqwest::Certificate::from_pem_bundle(bundle.as_bytes()).map_err(|e| {
                        StoreError::config(format!(
                            "caBundle is not a list of PEM certificates: {e}"
                        ))
                    })?;
                if roots.is_empty() {
                    return Err(StoreError::config(
                        "caBundle has no PEM certificate: write -----BEGIN CERTIFICATE----- and so on",
                    ));
                }
                roots
            }
            None => Vec::new(),
        };
        // Without system roots the client could not be built, though plain HTTP needs none.
        builder = if self.system_roots {
            builder.tls_certs_merge(roots)
        } else {
            builder.tls_certs_only(roots)
        };
        let client = builder
            .build()
            .map_err(|e| StoreError::config(format!("the HTTP client cannot be made: {e}")))?;
        Ok(Connector {
            client,
            net: Arc::new(self.clone()),
            corrupt: false,
        })
    }
}

/// Makes the HTTP clients of `object_store`. They all share one pool of connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    client: reqwest::Client,
    net: Arc<Net>,
    corrupt: bool,
}

impl Connector {
    /// The same, but what it sends arrives with a flipped bit: a store that checks refuses it.
    pub(super) fn corrupting(&self) -> Self {
        Self {
            corrupt: true,
            ..self.clone()
        }
    }

    /// For requests that `object_store` has no call for.
    pub(super) fn http(&self) -> HttpClient {
        HttpClient::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.http())
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if !self.net.allow_local {
            // The resolver never sees an address that is written as one.
            let url = url::Url::parse(&request.uri().to_string());
            if let Some(local) = url
                .ok()
                .and_then(|u| endpoint::literal(&u))
                .filter(|a| is_local(*a))
            {
                return Err(refused(local.to_string()));
            }
        }
        if self.corrupt {
            flip(&mut request).await?;
        }
        let operation = Operation::of(request.method(), request.uri(), self.net.host.as_deref());
        let start = Instant::now();
        let answer = HttpService::call(&self.client, request)
            .await
            .map_err(told_apart);
        let result = RequestResult::of(&answer);
        if result == RequestResult::Throttled {
            self.net.throttled.0.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(observer) = &self.net.observer {
            observer.request(operation, result, start.elapsed());
        }
        answer
    }
}

/// Not of the kind that is tried again.
fn refused(address: String) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, LocalAddress(address))
}

/// The resolver's refusal comes back as an error of the connection.
fn told_apart(error: HttpError) -> HttpError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(e) = cause {
        if let Some(local) = e.downcast_ref::<LocalAddress>() {
            return refused(local.0.clone());
        }
        cause = e.source();
    }
    error
}

async fn flip(request: &mut HttpRequest) -> Result<(), HttpError> {
    let body = std::mem::replace(request.body_mut(), HttpRequestBody::empty());
    let mut bytes = body.collect().await?.to_bytes().to_vec();
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
    *request.body_mut() = Bytes::from(bytes).into();
    Ok(())
}

#[cfg(test)]
mod tests;

//! Google Cloud Storage, by its XML API.

use super::{
    GcsConfig, GcsCredentials, StoreError,
    http::{Connector, Patience},
    uploads::parse_uploads,
};
use http::HeaderValue;
use object_store::{
    client::{HttpClient, HttpRequest, HttpRequestBody},
    gcp::{GcpCredentialProvider, GoogleCloudStorage, GoogleCloudStorageBuilder},
    path::Path,
};

/// Google's own.
pub(super) const ENDPOINT: &str = "https://storage.googleapis.com";

/// The controller's own identity, where nothing else is given, asked for by a client of its own.
pub(super) fn ambient(config: &GcsConfig) -> Result<Option<GcpCredentialProvider>, StoreError> {
    if config.credentials.is_some() {
        return Ok(None);
    }
    if config.endpoint.is_some() {
        // An access token is good everywhere: it would be given away.
        return Err(StoreError::config(
            "a store of Google Cloud Storage with an endpoint needs credentials of its own: the ambient ones go to Google only",
        ));
    }
    let client = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&config.bucket)
        .build()
        .map_err(|e| StoreError::config(format!("no ambient credentials of Google Cloud: {e}")))?;
    Ok(Some(client.credentials().clone()))
}

pub(super) fn client(
    config: &GcsConfig,
    ambient: Option<&GcpCredentialProvider>,
    connector: &Connector,
    patience: Patience,
) -> Result<GoogleCloudStorage, StoreError> {
    if config.bucket.is_empty() || config.bucket.contains(['/', '?', '#']) {
        return Err(StoreError::config(format!(
            "{:?} cannot be the name of a bucket",
            config.bucket
        )));
    }
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&config.bucket)
        // A service account's key may name another address: the store's counts.
        .with_base_url(
            config
                .endpoint
                .as_deref()
                .unwrap_or(ENDPOINT)
                .trim_end_matches('/'),
        )
        .with_retry(patience.retry())
        .with_http_connector(connector.clone());
    if let Some(provider) = ambient {
        builder = builder.with_credentials(provider.clone());
    }
    builder = match &config.credentials {
        Some(GcsCredentials::ServiceAccountKey(json)) => builder.with_service_account_key(json),
        Some(GcsCredentials::BearerToken(token)) => builder.with_bearer_token(token),
        None => builder,
    };
    // The error may quote the key.
    builder.build().map_err(|_| {
        StoreError::config(format!(
            "the store gs://{} cannot be opened: the service account's key is not the JSON file that Google gave out",
            config.bucket
        ))
    })
}

/// Lists unfinished uploads.
pub(super) struct Lister {
    bucket_url: String,
    credentials: GcpCredentialProvider,
    http: HttpClient,
}

impl Lister {
    pub(super) fn new(config: &GcsConfig, client: &GoogleCloudStorage, http: HttpClient) -> Self {
        let base = config.endpoint.as_deref().unwrap_or(ENDPOINT);
        Self {
            bucket_url: format!("{}/{}", base.trim_end_matches('/'), config.bucket),
            credentials: client.credentials().clone(),
            http,
        }
    }

    /// The unfinished uploads under a folder:
    /// <https://cloud.google.com/storage/docs/xml-api/get-bucket-uploads>.
    pub(super) async fn list(&self, folder: &Path) -> Result<Vec<(Path, String)>, String> {
        let token = self
            .credentials
            .get_credential()
            .await
            .map_err(|_| "no access token could be had".to_owned())?;
        let prefix = percent_encoding::utf8_percent_encode(
            folder.as_ref(),
            percent_encoding::NON_ALPHANUMERIC,
        );
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = format!("{}?uploads&prefix={prefix}", self.bucket_url)
            .parse()
            .map_err(|_| "the address is no URI".to_owned())?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.bearer))
            .map_err(|_| "the access token is no header".to_owned())?;
        value.set_sensitive(true);
        request
            .headers_mut()
            .insert(http::header::AUTHORIZATION, value);
        super::uploads::ask(&self.http, request)
            .await
            .map(|xml| parse_uploads(&xml, folder))
    }
}

//! Azure Blob Storage.

use super::{
    AzureConfig, AzureCredentials, StoreError,
    http::{Connector, Patience},
};
use object_store::azure::{
    AzureCredentialProvider, MicrosoftAzure, MicrosoftAzureBuilder, split_sas,
};

/// The account's URL.
pub(super) fn endpoint(config: &AzureConfig) -> Result<String, StoreError> {
    let plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !plain(&config.account) {
        return Err(StoreError::config(format!(
            "{:?} cannot be the name of a storage account",
            config.account
        )));
    }
    if !plain(config.container.trim_start_matches('$')) {
        return Err(StoreError::config(format!(
            "{:?} cannot be the name of a container",
            config.container
        )));
    }
    Ok(match &config.endpoint {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => format!("https://{}.blob.core.windows.net", config.account),
    })
}

/// The controller's own identity, where nothing else is given, asked for by a client of its own.
pub(super) fn ambient(config: &AzureConfig) -> Result<Option<AzureCredentialProvider>, StoreError> {
    if config.credentials.is_some() {
        return Ok(None);
    }
    if config.endpoint.is_some() {
        // An access token is good for every account: it would be given away.
        return Err(StoreError::config(
            "a store of Azure with an endpoint needs credentials of its own: the ambient ones go to Azure only",
        ));
    }
    let client = MicrosoftAzureBuilder::from_env()
        .with_account(&config.account)
        .with_container_name(&config.container)
        .build()
        .map_err(|e| StoreError::config(format!("no ambient credentials of Azure: {e}")))?;
    Ok(Some(client.credentials().clone()))
}

pub(super) fn client(
    config: &AzureConfig,
    endpoint: &str,
    ambient: Option<&AzureCredentialProvider>,
    connector: &Connector,
    patience: Patience,
) -> Result<MicrosoftAzure, StoreError> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&config.account)
        .with_container_name(&config.container)
        .with_endpoint(endpoint.to_owned())
        .with_allow_http(config.allow_http)
        .with_retry(patience.retry())
        .with_http_connector(connector.clone());
    if let Some(provider) = ambient {
        builder = builder.with_credentials(provider.clone());
    }
    // Named outright: an identity of this machine must not stand in.
    builder = match &config.credentials {
        None => builder,
        Some(AzureCredentials::AccountKey(key)) => builder
            .with_access_key(key)
            .with_credential_type("access_key"),
        Some(AzureCredentials::SasToken(token)) => {
            let pairs = split_sas(token).map_err(|_| {
                StoreError::config(
                    "the shared access signature is not a query such as sv=…&sp=…&sig=…",
                )
            })?;
            builder
                .with_sas_authorization(pairs)
                .with_credential_type("sas_token")
        }
        Some(AzureCredentials::ClientSecret {
            tenant_id,
            client_id,
            client_secret,
        }) => builder
            .with_client_secret_authorization(client_id, client_secret, tenant_id)
            .with_credential_type("client_secret"),
    };
    // The error may quote the key.
    builder.build().map_err(|_| {
        StoreError::config(format!(
            "the store az://{} cannot be opened: the account's key is not the Base64 that Azure gave out",
            config.container
        ))
    })
}

//! Which keys a store's Secret has: the names that each cloud's own command line reads from the
//! environment.

use super::problem;
use crate::{
    api::BackupStoreSpec,
    reason::StoreReason,
    storage::{AzureCredentials, GcsCredentials, S3Credentials, StoreError},
};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use std::collections::BTreeMap;

pub(super) const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
pub(super) const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
pub(super) const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
pub(super) const SERVICE_ACCOUNT_KEY: &str = "GOOGLE_SERVICE_ACCOUNT_KEY";
pub(super) const STORAGE_KEY: &str = "AZURE_STORAGE_KEY";
pub(super) const SAS_TOKEN: &str = "AZURE_STORAGE_SAS_TOKEN";
pub(super) const TENANT_ID: &str = "AZURE_TENANT_ID";
pub(super) const CLIENT_ID: &str = "AZURE_CLIENT_ID";
pub(super) const CLIENT_SECRET: &str = "AZURE_CLIENT_SECRET";

/// What the Secret of a store must have, for people.
pub(super) fn keys(spec: &BackupStoreSpec) -> &'static str {
    if spec.gcs.is_some() {
        "the key GOOGLE_SERVICE_ACCOUNT_KEY, the JSON of a service account's key"
    } else if spec.azure.is_some() {
        "the key AZURE_STORAGE_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
    } else {
        "the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    }
}

/// The values of a Secret, with errors that name key, Secret and namespace and show no value.
pub(super) struct Values {
    /// For people: which Secret it is.
    whose: String,
    data: BTreeMap<String, Vec<u8>>,
}

impl Values {
    pub(super) fn new(whose: String, data: BTreeMap<String, Vec<u8>>) -> Self {
        Self { whose, data }
    }

    pub(super) fn of(namespace: &str, secret: &Secret) -> Self {
        let whose = format!("Secret {} in namespace {namespace}", secret.name_any());
        let data = secret.data.iter().flatten();
        Self::new(
            whose,
            data.map(|(key, value)| (key.clone(), value.0.clone()))
                .collect(),
        )
    }

    fn incomplete(&self, why: &str) -> StoreError {
        problem(
            StoreReason::SecretIncomplete,
            format!("{} {why}", self.whose),
        )
    }

    fn read(&self, key: &str) -> Result<Option<String>, StoreError> {
        let Some(value) = self.data.get(key) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value)
            .map(str::trim)
            .unwrap_or_default();
        // A JSON file has lines; a key has none.
        let plain = key == SERVICE_ACCOUNT_KEY || !text.chars().any(char::is_control);
        if text.is_empty() || !plain {
            return Err(problem(
                StoreReason::SecretIncomplete,
                format!(
                    "key {key} of {} is empty or not plain text: write the key as the store gave it",
                    self.whose
                ),
            ));
        }
        Ok(Some(text.to_owned()))
    }

    fn required(&self, key: &str) -> Result<String, StoreError> {
        self.read(key)?
            .ok_or_else(|| self.incomplete(&format!("has no key {key}: add it")))
    }

    pub(super) fn s3(&self) -> Result<S3Credentials, StoreError> {
        Ok(S3Credentials {
            access_key_id: self.required(ACCESS_KEY_ID)?,
            secret_access_key: self.required(SECRET_ACCESS_KEY)?,
            session_token: self.read(SESSION_TOKEN)?,
        })
    }

    pub(super) fn gcs(&self) -> Result<GcsCredentials, StoreError> {
        let json = self.required(SERVICE_ACCOUNT_KEY)?;
        let parsed: Option<serde_json::Value> = serde_json::from_str(&json).ok();
        if parsed.is_none_or(|v| v.get("private_key").is_none()) {
            return Err(problem(
                StoreReason::SecretIncomplete,
                format!(
                    "key {SERVICE_ACCOUNT_KEY} of {} is not the JSON file of a service account's key: write that file's content",
                    self.whose
                ),
            ));
        }
        Ok(GcsCredentials::ServiceAccountKey(json))
    }

    pub(super) fn azure(&self) -> Result<AzureCredentials, StoreError> {
        let key = self.read(STORAGE_KEY)?;
        let sas = self.read(SAS_TOKEN)?;
        let client = self.read(CLIENT_SECRET)?.or(self.read(CLIENT_ID)?);
        match (key, sas, client) {
            (Some(key), None, None) => Ok(AzureCredentials::AccountKey(key)),
            (None, Some(token), None) => Ok(AzureCredentials::SasToken(
                token.trim_start_matches('?').to_owned(),
            )),
            (None, None, Some(_)) => Ok(AzureCredentials::ClientSecret {
                tenant_id: self.required(TENANT_ID)?,
                client_id: self.required(CLIENT_ID)?,
                client_secret: self.required(CLIENT_SECRET)?,
            }),
            (None, None, None) => Err(self.incomplete(&format!(
                "has no credentials of Azure: add {STORAGE_KEY}, or {SAS_TOKEN}, or {TENANT_ID}, {CLIENT_ID} and {CLIENT_SECRET}"
            ))),
            _ => Err(self.incomplete(&format!(
                "has more than one kind of credentials: keep {STORAGE_KEY}, or {SAS_TOKEN}, or {TENANT_ID}, {CLIENT_ID} and {CLIENT_SECRET}"
            ))),
        }
    }
}

//! The cluster that kubeconfig names, with the rights of who calls.

use super::{super::Exit, CliError};
use crate::{
    api::BackupStore,
    config::Config,
    storage::{Store, from_api},
};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace};
use kube::{Api, Client, Resource, ResourceExt};

/// One namespace of a cluster.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    pub(super) async fn connect(namespace: &str) -> Result<Self, CliError> {
        let client = Client::try_default().await.map_err(|e| CliError {
            exit: Exit::Unreachable,
            message: format!("no cluster: {e}; set KUBECONFIG to a file that names one"),
        })?;
        Ok(Self {
            client,
            namespace: namespace.to_owned(),
        })
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) async fn store(&self, name: &str) -> Result<BackupStore, CliError> {
        let what = format!("BackupStore {name}");
        let found = self.api::<BackupStore>().get(name).await;
        found.map_err(|e| self.error(&what, "get", e))
    }

    /// Opens a store as the controller would.
    pub(super) async fn open(&self, store: &BackupStore) -> Result<Store, CliError> {
        if store.spec.file.is_some() {
            return Err(CliError::usage(format!(
                "BackupStore {} is a folder that the controller sees: say where it is from here with --store file:///FOLDER",
                store.name_any()
            )));
        }
        let config =
            Config::of_command_line(&self.namespace).map_err(|e| CliError::usage(e.to_string()))?;
        let mut config = from_api::resolve(&self.client, &config, store).await?;
        // Who calls may ask whom they like from here.
        config.allow_local_addresses = true;
        Ok(Store::open(config)?)
    }

    /// The cluster's id, as the controller takes it unless it was told another.
    pub(super) async fn id(&self) -> Result<String, CliError> {
        let namespace = Api::<Namespace>::all(self.client.clone())
            .get("kube-system")
            .await
            .map_err(|e| {
                let CliError { exit, message } = self.error("namespace kube-system", "get", e);
                let message = format!("{message}; or give --cluster-id");
                CliError { exit, message }
            })?;
        namespace
            .uid()
            .ok_or_else(|| CliError::failed("namespace kube-system has no uid"))
    }

    /// One line that says what to do.
    pub(super) fn error(&self, what: &str, verb: &str, error: kube::Error) -> CliError {
        let namespace = &self.namespace;
        match error {
            kube::Error::Api(status) if status.code == 404 => {
                let kind_is_known = status.details.as_ref().is_some_and(|d| !d.name.is_empty());
                CliError::failed(if kind_is_known {
                    format!("there is no {what} in namespace {namespace}: correct the name, or -n")
                } else {
                    "this cluster has no BackupStores, BackupSchedules and BackupJobs: install the chart first".into()
                })
            }
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                CliError::failed(format!(
                    "you may not {verb} {what} in namespace {namespace}: {}",
                    status.message
                ))
            }
            kube::Error::Api(status) => {
                CliError::failed(format!("{verb} {what}: {}", status.message))
            }
            other => CliError {
                exit: Exit::Unreachable,
                message: format!("the cluster does not answer: {other}"),
            },
        }
    }
}

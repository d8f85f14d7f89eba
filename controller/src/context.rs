//! What every reconciler has.

use crate::{
    api::{BackupJob, BackupStore},
    config::Config,
    job::transfers::{Transfers, Wake},
    metrics::Metrics,
    report::Report,
};
use kube::{
    Client,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store as Cache},
};
use std::{sync::Arc, time::Duration};

/// An object that may not be what its type says: then it alone is left out.
pub type Guard<K> = DeserializeGuard<K>;

/// What every reconciler has. One for each scope that is watched: all namespaces, or one.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// How the controller was started.
    pub config: Arc<Config>,
    /// Name of this cluster in the bucket.
    pub cluster_id: Arc<str>,
    /// Events.
    pub report: Report,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The transfers of this process.
    pub transfers: Transfers,
    /// Reconciles a job of this scope.
    pub wake: Wake,
    /// The jobs of this scope, as last seen.
    pub jobs: Cache<Guard<BackupJob>>,
    /// The stores of this scope, as last seen.
    pub stores: Cache<Guard<BackupStore>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("config", &self.config)
            .field("cluster_id", &self.cluster_id)
            .finish_non_exhaustive()
    }
}

/// How long a reconcile may wait for an object store.
pub const STORE_PATIENCE: Duration = Duration::from_secs(60);

impl Context {
    /// A store as it was last seen; the outer error is that it is malformed.
    #[must_use]
    pub fn store(&self, namespace: &str, name: &str) -> Option<Result<Arc<BackupStore>, String>> {
        let found = self.stores.get(&ObjectRef::new(name).within(namespace))?;
        Some(match &found.0 {
            Ok(store) => Ok(Arc::new(store.clone())),
            Err(invalid) => Err(invalid.error.clone()),
        })
    }
}

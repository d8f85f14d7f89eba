//! What every reconciler has.

mod owned_jobs;

pub use owned_jobs::OwnedJobs;

use crate::{
    api::{BackupJob, BackupSchedule, BackupStore, RestoreJob},
    config::Config,
    job::transfers::{Transfers, Wake},
    leader::Leading,
    metrics::Metrics,
    open_stores::OpenStores,
    report::Report,
    upkeep::Upkeep,
};
use kube::{
    Client, Resource,
    core::DeserializeGuard,
    runtime::reflector::{self, ObjectRef},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// An object that may not be what its type says: then it alone is left out.
pub type Guard<K> = DeserializeGuard<K>;

/// The objects of a kind, as last seen.
#[derive(Clone)]
pub struct Cache<K: Resource<DynamicType = ()> + 'static> {
    objects: reflector::Store<Guard<K>>,
    filled: watch::Receiver<bool>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Cache<K> {
    /// `filled` turns true when the first list is in `objects`. The store's own
    /// `wait_until_ready` will not do: kube 5.0 wakes only the last of several that wait.
    #[must_use]
    pub fn new(objects: reflector::Store<Guard<K>>, filled: watch::Receiver<bool>) -> Self {
        Self { objects, filled }
    }

    /// Waits until the cache was filled once.
    pub async fn filled(&self) {
        // An error means that the watch has ended: so has the process, soon.
        drop(self.filled.clone().wait_for(|filled| *filled).await);
    }

    /// Whether the cache was filled once.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Guard<K>>> {
        self.objects.get(&ObjectRef::new(name).within(namespace))
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Guard<K>>> {
        self.objects.state()
    }

    /// For the reconciler of this kind.
    #[must_use]
    pub fn objects(&self) -> reflector::Store<Guard<K>> {
        self.objects.clone()
    }
}

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
    /// The stores that are open.
    pub open_stores: OpenStores,
    /// Whether this replica leads: only then may anything be written.
    pub leading: Leading,
    /// Reconciles a job of this scope.
    pub wake: Wake,
    /// The jobs of this scope, as last seen.
    pub jobs: Cache<BackupJob>,
    /// Which schedule owns which of them.
    pub owned_jobs: OwnedJobs,
    /// The stores of this scope, as last seen.
    pub stores: Cache<BackupStore>,
    /// The schedules of this scope, as last seen.
    pub schedules: Cache<BackupSchedule>,
    /// The restores of this scope, as last seen.
    pub restores: Cache<RestoreJob>,
    /// Retention and sweep of this scope's stores.
    pub upkeep: Upkeep,
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
        let found = self.stores.get(namespace, name)?;
        Some(match &found.0 {
            Ok(store) => Ok(Arc::new(store.clone())),
            Err(invalid) => Err(invalid.error.clone()),
        })
    }
}

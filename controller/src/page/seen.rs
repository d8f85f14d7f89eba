//! What the page shows: the objects as the watches of this process have them.

use super::Changes;
use crate::{
    api::{BackupJob, BackupSchedule, BackupStore, RestoreJob},
    context::{Cache, Guard},
    fleet::{Malformed, Objects},
};
use kube::{Resource, ResourceExt};
use std::sync::{Arc, PoisonError, RwLock};

/// The caches of one scope: all namespaces, or one.
#[derive(Clone)]
pub struct Caches {
    /// Schedules.
    pub schedules: Cache<BackupSchedule>,
    /// Jobs.
    pub jobs: Cache<BackupJob>,
    /// Stores.
    pub stores: Cache<BackupStore>,
    /// Restores.
    pub restores: Cache<RestoreJob>,
}

/// All that was seen.
#[derive(Clone, Default)]
pub struct Seen {
    scopes: Arc<RwLock<Vec<Caches>>>,
    /// Noted at every event of a watch.
    pub changes: Changes,
}

impl Seen {
    /// Another scope is watched.
    pub fn add(&self, caches: Caches) {
        let mut scopes = self.scopes.write().unwrap_or_else(PoisonError::into_inner);
        scopes.push(caches);
    }

    /// All objects; none before every first list was there.
    pub(super) fn held(&self) -> Option<Held> {
        let scopes = self.scopes.read().unwrap_or_else(PoisonError::into_inner);
        let filled = |s: &Caches| {
            s.schedules.is_filled()
                && s.jobs.is_filled()
                && s.stores.is_filled()
                && s.restores.is_filled()
        };
        if scopes.is_empty() || !scopes.iter().all(filled) {
            return None;
        }
        Some(Held {
            schedules: scopes.iter().flat_map(|s| s.schedules.all()).collect(),
            jobs: scopes.iter().flat_map(|s| s.jobs.all()).collect(),
            stores: scopes.iter().flat_map(|s| s.stores.all()).collect(),
            restores: scopes.iter().flat_map(|s| s.restores.all()).collect(),
        })
    }
}

/// The objects at one time.
#[derive(Default)]
pub(super) struct Held {
    pub(super) schedules: Vec<Arc<Guard<BackupSchedule>>>,
    pub(super) jobs: Vec<Arc<Guard<BackupJob>>>,
    pub(super) stores: Vec<Arc<Guard<BackupStore>>>,
    pub(super) restores: Vec<Arc<Guard<RestoreJob>>>,
}

impl Held {
    /// Those of a namespace, or all.
    pub(super) fn objects(&self, namespace: Option<&str>) -> Objects<'_> {
        let mut malformed = Vec::new();
        Objects {
            schedules: good(&self.schedules, namespace, &mut malformed),
            jobs: good(&self.jobs, namespace, &mut malformed),
            stores: good(&self.stores, namespace, &mut malformed),
            restores: good(&self.restores, namespace, &mut malformed),
            malformed,
        }
    }

    /// The namespaces in which there is anything, sorted.
    pub(super) fn namespaces(&self) -> Vec<String> {
        fn of<K: Resource<DynamicType = ()>>(all: &[Arc<Guard<K>>]) -> Vec<String> {
            all.iter().filter_map(|object| object.namespace()).collect()
        }
        let mut names = of(&self.schedules);
        names.extend(of(&self.jobs));
        names.extend(of(&self.stores));
        names.extend(of(&self.restores));
        names.sort();
        names.dedup();
        names
    }
}

/// One object by its name; none where its type cannot hold it.
pub(super) fn find<'a, K: Resource<DynamicType = ()>>(
    all: &'a [Arc<Guard<K>>],
    namespace: &str,
    name: &str,
) -> Option<&'a K> {
    let found = all.iter().find(|object| {
        object.namespace().as_deref() == Some(namespace) && object.name_any() == name
    })?;
    found.0.as_ref().ok()
}

fn good<'a, K: Resource<DynamicType = ()>>(
    all: &'a [Arc<Guard<K>>],
    namespace: Option<&str>,
    malformed: &mut Vec<Malformed>,
) -> Vec<&'a K> {
    let mut good = Vec::new();
    for object in all {
        let of = object.namespace().unwrap_or_default();
        if namespace.is_some_and(|wanted| wanted != of) {
            continue;
        }
        match &object.0 {
            Ok(object) => good.push(object),
            Err(invalid) => malformed.push(Malformed {
                kind: kind::<K>(),
                namespace: of,
                name: object.name_any(),
                error: invalid.error.clone(),
            }),
        }
    }
    good
}

/// Its kind. Ours are known when the program is compiled, which `Cow` does not say.
fn kind<K: Resource<DynamicType = ()>>() -> &'static str {
    match &*K::kind(&()) {
        "BackupSchedule" => "BackupSchedule",
        "BackupJob" => "BackupJob",
        "BackupStore" => "BackupStore",
        _ => "RestoreJob",
    }
}

//! Keeps stores in order, beside the other reconcilers, which no slow store may hold up: deletes what
//! retention does not keep, sweeps up what dead attempts left, counts what is there.
//!
//! One listing of a namespace's folder serves all three. A pass follows each backup, each change of
//! a policy and each start, and comes every hour. It may die anywhere: the next one finds the same.

pub mod retain;
pub mod sweep;

use crate::{
    api::{BackupStore, conditions, store::READY},
    catalog::{self, Folder, Known, Outcome, Verdict},
    context::{Context, Guard},
    error::Error,
    job::record::human_bytes,
    retention::Backup,
    storage::{Store, StoreError},
};
use futures::channel::mpsc::UnboundedSender;
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{controller::Action, reflector::ObjectRef},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Stores in work at once.
pub const AT_ONCE: u16 = 4;
/// Between passes when nothing happens.
const INTERVAL: Duration = Duration::from_secs(3600);
/// After one that failed.
const RETRY: Duration = Duration::from_secs(300);
/// Many jobs may end together: one pass will do for them.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one pass may take. What it has done stays done.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A store as the watches name it.
type StoreRef = ObjectRef<Guard<BackupStore>>;

/// When which store is looked after next. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Upkeep {
    stores: Arc<Mutex<HashMap<StoreRef, State>>>,
    look: UnboundedSender<StoreRef>,
}

#[derive(Debug)]
struct State {
    due: Instant,
    last: Option<Instant>,
    known: Known,
}

impl Upkeep {
    /// `look` gets the stores that may be due; [`reconcile`] is to be run for them.
    #[must_use]
    pub fn new(look: UnboundedSender<StoreRef>) -> Self {
        Self {
            stores: Arc::default(),
            look,
        }
    }

    fn stores(&self) -> MutexGuard<'_, HashMap<StoreRef, State>> {
        // A panic under this lock leaves nothing half-done.
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has changed that a pass may have to do with: one comes soon.
    pub fn wake(&self, namespace: &str, store: &str) {
        let store = ObjectRef::new(store).within(namespace);
        if let Some(state) = self.stores().get_mut(&store) {
            state.due = Instant::now();
        }
        self.send(store);
    }

    /// A store is there and Ready.
    pub fn ready(&self, namespace: &str, store: &str) {
        let store = ObjectRef::new(store).within(namespace);
        let due = |s: &State| s.due <= Instant::now();
        if self.stores().get(&store).is_none_or(due) {
            self.send(store);
        }
    }

    /// A store is gone.
    pub fn forget(&self, namespace: &str, store: &str) {
        self.stores()
            .remove(&ObjectRef::new(store).within(namespace));
    }

    fn send(&self, store: StoreRef) {
        // The receiver lives as long as the process.
        drop(self.look.unbounded_send(store));
    }

    /// Begins a pass, unless it is too early: then gives how long to wait.
    fn begin(&self, store: &StoreRef, now: Instant) -> Result<Known, Duration> {
        let mut stores = self.stores();
        let state = stores.entry(store.clone()).or_insert_with(|| State {
            due: now,
            last: None,
            known: Known::default(),
        });
        let earliest = state.last.map_or(now, |last| last + PAUSE);
        let due = state.due.max(earliest);
        if due > now {
            return Err(due - now);
        }
        state.due = now + INTERVAL;
        Ok(std::mem::take(&mut state.known))
    }

    /// A pass has ended; gives how long to wait for the next.
    fn end(&self, store: &StoreRef, known: Known, good: bool, now: Instant) -> Duration {
        let mut stores = self.stores();
        let Some(state) = stores.get_mut(store) else {
            return INTERVAL;
        };
        state.last = Some(now);
        state.known = known;
        // Somebody may have called meanwhile.
        let next = now + if good { INTERVAL } else { RETRY };
        state.due = if state.due <= now { state.due } else { next };
        state.due.max(now + PAUSE) - now
    }
}

/// Makes a pass over one store when it is time to.
///
/// # Errors
/// When the API server does not let us; what was done in the store stays done.
pub async fn reconcile(store: Arc<BackupStore>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = store.namespace().ok_or(Error::Malformed("namespace"))?;
    let name = store.name_any();
    let status = store.status.as_ref();
    let ready = status.is_some_and(|s| conditions::is_true(&s.conditions, READY));
    if store.metadata.deletion_timestamp.is_some() || !ready {
        // Its own reconciler calls when it is Ready.
        return Ok(Action::await_change());
    }
    let reference = ObjectRef::new(&name).within(&namespace);
    let mut known = match context.upkeep.begin(&reference, Instant::now()) {
        Ok(known) => known,
        Err(wait) => return Ok(Action::requeue(wait)),
    };
    context.jobs.filled().await;
    context.schedules.filled().await;
    context.restores.filled().await;
    let pass = Pass {
        context: &context,
        namespace: &namespace,
        store: &store,
        now: Timestamp::now(),
    };
    let done = match tokio::time::timeout(PATIENCE, pass.make(&mut known)).await {
        Ok(done) => done,
        Err(_) => {
            tracing::warn!(
                namespace,
                name,
                "a pass took too long; the next one goes on"
            );
            Ok(false)
        }
    };
    let good = matches!(done, Ok(true));
    let wait = context.upkeep.end(&reference, known, good, Instant::now());
    done.map(|_| Action::requeue(wait))
}

/// One pass over one store.
struct Pass<'a> {
    context: &'a Context,
    namespace: &'a str,
    store: &'a BackupStore,
    now: Timestamp,
}

impl Pass<'_> {
    /// Whether all of it was done.
    async fn make(&self, known: &mut Known) -> Result<bool, Error> {
        let (store, folders) = match self.survey(known).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(namespace = self.namespace, store = self.store.name_any(), %error, "the store cannot be looked through");
                retain::failed(self, &error.message).await?;
                return Ok(false);
            }
        };
        let mut backups = self.backups(&store, &folders);
        let retained = retain::all(self, &store, &folders, &mut backups).await?;
        self.count(&backups).await?;
        let swept = sweep::sweep(self, &store, &folders).await;
        Ok(retained && swept)
    }

    async fn survey(&self, known: &mut Known) -> Result<(Arc<Store>, Vec<Folder>), StoreError> {
        let store = crate::store::open(self.context, self.store).await?;
        let folders = catalog::survey(&store, self.namespace, known).await?;
        Ok((store, folders))
    }

    /// What is stored of this namespace and cluster.
    fn backups(&self, store: &Store, folders: &[Folder]) -> Vec<Backup> {
        let open: BTreeSet<String> = self
            .context
            .jobs
            .all()
            .iter()
            .filter_map(|guard| guard.0.as_ref().ok())
            .filter(|job| {
                job.namespace().as_deref() == Some(self.namespace)
                    && !job.status.as_ref().is_some_and(|s| s.phase.is_final())
            })
            .filter_map(ResourceExt::uid)
            .collect();
        let read = self.read_by_restores();
        let manifests = folders
            .iter()
            .filter_map(|folder| Some((folder.manifest.as_ref()?.as_ref().ok()?, folder.verdict)));
        manifests
            .filter(|(m, _)| {
                m.outcome == Outcome::Complete && *m.identity.cluster_id == *self.context.cluster_id
            })
            .filter_map(|(m, verdict)| {
                Some(Backup {
                    key: m.key(store).ok()?,
                    cluster_id: m.identity.cluster_id.clone(),
                    schedule_uid: m.identity.schedule_uid.clone(),
                    time: m.identity.created,
                    bytes: m.bytes,
                    good: verdict != Some(Verdict::Failed),
                    in_use: open.contains(&m.identity.job_uid)
                        || read.contains(&m.identity.folder()),
                })
            })
            .collect()
    }

    /// Folders of the backups that restores and drills read which have not ended.
    fn read_by_restores(&self) -> BTreeSet<String> {
        let restores = self.context.restores.all();
        restores
            .iter()
            .filter_map(|guard| guard.0.as_ref().ok())
            .filter(|restore| restore.namespace().as_deref() == Some(self.namespace))
            .filter_map(|restore| restore.status.as_ref())
            .filter(|status| !status.phase.is_final())
            .filter_map(|status| status.backup.as_ref().map(|b| b.key.clone()))
            .collect()
    }

    /// Writes how much there is into the store's status.
    async fn count(&self, backups: &[Backup]) -> Result<(), Error> {
        let bytes: u64 = backups.iter().map(|b| b.bytes).sum();
        let count = backups.len() as u64;
        let status = self.store.status.as_ref();
        if status.and_then(|s| s.backups) == Some(count)
            && status.and_then(|s| s.bytes) == Some(bytes)
        {
            return Ok(());
        }
        let size = human_bytes(bytes);
        // The uid makes it this very store, or a conflict.
        let patch = serde_json::json!({
            "metadata": {"uid": self.store.uid()},
            "status": {"backups": count, "bytes": bytes, "size": size},
        });
        match Api::<BackupStore>::namespaced(self.context.client.clone(), self.namespace)
            .patch_status(
                &self.store.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::mpsc;

    #[test]
    fn passes_come_soon_after_a_call_and_hourly_without_one() {
        let (look, mut looked) = mpsc::unbounded();
        let upkeep = Upkeep::new(look);
        let store = ObjectRef::new("main").within("ns");
        let start = Instant::now();
        upkeep.ready("ns", "main");
        assert!(
            looked.try_recv().is_ok(),
            "a store that nobody has looked at is due"
        );
        let known = upkeep.begin(&store, start).unwrap();
        assert!(upkeep.begin(&store, start).is_err(), "one at a time");
        assert_eq!(upkeep.end(&store, known, true, start), INTERVAL);
        upkeep.ready("ns", "main");
        assert!(looked.try_recv().is_err(), "it is not due");

        upkeep.wake("ns", "main");
        assert!(looked.try_recv().is_ok());
        let wait = upkeep.begin(&store, start).unwrap_err();
        assert_eq!(wait, PAUSE, "jobs that end together have one pass");
        let later = Instant::now() + PAUSE;
        let known = upkeep.begin(&store, later).unwrap();
        // A job ends while the pass runs, which may not have seen it.
        upkeep.wake("ns", "main");
        assert_eq!(upkeep.end(&store, known, true, later), PAUSE);

        let later = later + PAUSE;
        let known = upkeep.begin(&store, later).unwrap();
        assert_eq!(upkeep.end(&store, known, false, later), RETRY);
        upkeep.forget("ns", "main");
        assert!(
            upkeep.begin(&store, later).is_ok(),
            "another store of that name"
        );
    }
}

//! Which jobs each schedule owns, so that a schedule looks at its own jobs only.

use super::{Cache, Guard};
use crate::{api::BackupJob, job::schedule_of};
use kube::{ResourceExt, runtime::watcher::Event};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

/// Namespace and name.
type Key = (String, String);
/// By uid of the schedule.
type ByOwner = HashMap<String, HashSet<Key>>;

/// The jobs of a scope by the schedule that owns them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OwnedJobs(Arc<RwLock<Index>>);

#[derive(Debug, Default)]
struct Index {
    current: ByOwner,
    /// What a list that is under way has brought; it takes the place of all that was known before.
    listed: ByOwner,
}

impl OwnedJobs {
    /// Follows the watch, behind the cache.
    pub fn apply(&self, event: &Event<Guard<BackupJob>>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .apply(event);
    }

    /// The jobs that the schedule of this uid owns, of those in the cache. Each holds a job that could
    /// be read.
    #[must_use]
    pub fn of(&self, schedule_uid: &str, jobs: &Cache<BackupJob>) -> Vec<Arc<Guard<BackupJob>>> {
        let index = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let keys = index.current.get(schedule_uid).into_iter().flatten();
        keys.filter_map(|(namespace, name)| jobs.get(namespace, name))
            // Another job may have taken the name.
            .filter(|job| owner(job).is_some_and(|uid| uid == schedule_uid))
            .collect()
    }
}

impl Index {
    fn apply(&mut self, event: &Event<Guard<BackupJob>>) {
        match event {
            Event::Apply(job) => add(&mut self.current, job),
            Event::Delete(job) => remove(&mut self.current, job),
            Event::Init => self.listed = ByOwner::default(),
            Event::InitApply(job) => add(&mut self.listed, job),
            Event::InitDone => self.current = std::mem::take(&mut self.listed),
        }
    }
}

fn owner(job: &Guard<BackupJob>) -> Option<&str> {
    let owner = schedule_of(job.0.as_ref().ok()?)?;
    Some(&owner.uid)
}

fn key(job: &Guard<BackupJob>) -> Key {
    (job.namespace().unwrap_or_default(), job.name_any())
}

fn add(to: &mut ByOwner, job: &Guard<BackupJob>) {
    if let Some(uid) = owner(job) {
        to.entry(uid.to_owned()).or_default().insert(key(job));
    }
}

fn remove(from: &mut ByOwner, job: &Guard<BackupJob>) {
    let Some(uid) = owner(job) else {
        return;
    };
    if let Some(keys) = from.get_mut(uid) {
        keys.remove(&key(job));
        if keys.is_empty() {
            from.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::reflector;
    use serde_json::json;
    use tokio::sync::watch;

    /// A job of the schedule with this uid.
    fn job(name: &str, schedule: Option<&str>) -> Guard<BackupJob> {
        let owners = schedule.map(|uid| {
            json!([{"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "name": "nightly", "uid": uid, "controller": true}])
        });
        let job = json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob",
            "metadata": {"namespace": "shop", "name": name, "uid": name, "ownerReferences": owners},
            "spec": {"source": {"url": "http://db"}, "storeRef": {"name": "store"}},
        });
        Guard {
            0: Ok(serde_json::from_value(job).unwrap()),
        }
    }

    /// What a schedule owns after some events, as the cache and the index follow them.
    struct Watched {
        writer: reflector::store::Writer<Guard<BackupJob>>,
        jobs: Cache<BackupJob>,
        owned: OwnedJobs,
    }

    impl Watched {
        fn new() -> Self {
            let (objects, writer) = reflector::store();
            Self {
                writer,
                jobs: Cache::new(objects, watch::channel(true).1),
                owned: OwnedJobs::default(),
            }
        }

        fn see(&mut self, events: impl IntoIterator<Item = Event<Guard<BackupJob>>>) {
            for event in events {
                self.writer.apply_watcher_event(&event);
                self.owned.apply(&event);
            }
        }

        fn of(&self, uid: &str) -> Vec<String> {
            let jobs = self.owned.of(uid, &self.jobs);
            let mut names: Vec<_> = jobs.iter().map(|job| job.name_any()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn a_schedule_has_its_own_jobs_and_no_others() {
        let mut watched = Watched::new();
        watched.see([
            Event::Init,
            Event::InitApply(job("a-1", Some("A"))),
            Event::InitApply(job("a-2", Some("A"))),
            Event::InitApply(job("b-1", Some("B"))),
            Event::InitApply(job("alone", None)),
        ]);
        assert!(watched.of("A").is_empty(), "the list is not complete yet");
        watched.see([Event::InitDone]);
        assert_eq!(watched.of("A"), ["a-1", "a-2"]);
        assert_eq!(watched.of("B"), ["b-1"]);
        assert!(watched.of("C").is_empty());

        watched.see([
            Event::Apply(job("a-3", Some("A"))),
            Event::Apply(job("a-3", Some("A"))),
            Event::Delete(job("a-1", Some("A"))),
            Event::Delete(job("b-1", Some("B"))),
        ]);
        assert_eq!(watched.of("A"), ["a-2", "a-3"]);
        assert!(watched.of("B").is_empty());
    }

    #[test]
    fn a_new_list_replaces_what_was_known() {
        let mut watched = Watched::new();
        watched.see([
            Event::Init,
            Event::InitApply(job("a-1", Some("A"))),
            Event::InitDone,
            Event::Init,
            Event::InitApply(job("a-2", Some("A"))),
        ]);
        assert_eq!(watched.of("A"), ["a-1"]);
        watched.see([Event::InitDone]);
        assert_eq!(watched.of("A"), ["a-2"]);
        assert_eq!(watched.owned.0.read().unwrap().listed.len(), 0);
    }

    #[test]
    fn a_name_that_another_job_has_taken_is_not_the_old_owners() {
        let mut watched = Watched::new();
        // The watch may have missed what lay between.
        watched.see([
            Event::Init,
            Event::InitDone,
            Event::Apply(job("a-1", Some("A"))),
            Event::Apply(job("a-1", Some("B"))),
        ]);
        assert!(watched.of("A").is_empty());
        assert_eq!(watched.of("B"), ["a-1"]);
    }
}

//! Deletion of a BackupJob. Under `deletionPolicy: Delete` a finalizer holds the object back until its
//! backup is deleted; it holds nothing for ever. What the controller deletes by itself, and what goes
//! with its schedule, its namespace or the CRD, keeps its backup.

use super::{Subject, schedule_of};
use crate::{
    api::{
        BackupJob, BackupSchedule, BackupStore,
        job::{DeletionPolicy, Phase},
    },
    catalog::{self, JobIdentity, Manifest, Outcome},
    context::STORE_PATIENCE,
    error::Error,
    reason::StoreReason,
    storage::{Store, StoreError},
};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::controller::Action,
};
use std::{sync::Arc, time::Duration};

/// Holds back a BackupJob whose deletion deletes its backup.
pub const FINALIZER: &str = "towline.dev/delete-backup";

/// After so much time of failed tries the backup is left where it is.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// Between tries.
const RETRY: Duration = Duration::from_secs(15);
/// Bytes of keys in the event that lists them.
const KEYS: usize = 700;

/// Why a backup could not be deleted.
#[derive(Debug)]
enum NotDeleted {
    /// It may go better next time.
    Failed(String),
    /// It never will.
    Never(String),
}

impl From<StoreError> for NotDeleted {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.message)
    }
}

/// Whether the finalizer is there.
#[must_use]
pub fn is_held(job: &BackupJob) -> bool {
    job.finalizers().iter().any(|f| f == FINALIZER)
}

/// Whether the finalizer is to be there.
#[must_use]
pub fn is_to_be_held(job: &BackupJob) -> bool {
    job.spec.deletion_policy == DeletionPolicy::Delete
}

/// Whether a deletion that was asked for at `since` has been tried for long enough.
#[must_use]
pub fn gives_up(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) >= PATIENCE
}

/// The finalizers of a job with ours, or without.
fn finalizers(job: &BackupJob, held: bool) -> Vec<String> {
    let mut finalizers = without_finalizer(job.finalizers());
    finalizers.extend(held.then(|| FINALIZER.to_owned()));
    finalizers
}

/// All finalizers but ours.
pub(crate) fn without_finalizer(finalizers: &[String]) -> Vec<String> {
    let others = finalizers.iter().filter(|f| *f != FINALIZER);
    others.cloned().collect()
}

/// Deletes the record of a job and keeps its backup, whatever its policy says. Whether it was done:
/// nothing is when the job has changed since it was read.
///
/// # Errors
/// When the API server does not let us.
pub async fn delete_record(client: &Client, job: &BackupJob) -> Result<bool, Error> {
    let namespace = job.namespace().ok_or(Error::Malformed("namespace"))?;
    let api = Api::<BackupJob>::namespaced(client.clone(), &namespace);
    let name = job.name_any();
    let mut version = job.resource_version();
    if is_held(job) || is_to_be_held(job) {
        // The policy too, lest the finalizer comes back before the object is gone.
        let keep = serde_json::json!({
            "metadata": {"uid": job.uid(), "resourceVersion": version, "finalizers": finalizers(job, false)},
            "spec": {"deletionPolicy": DeletionPolicy::Retain},
        });
        match api
            .patch(&name, &PatchParams::default(), &Patch::Merge(&keep))
            .await
        {
            Ok(patched) => version = patched.resource_version(),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    let only_this = DeleteParams {
        preconditions: Some(Preconditions {
            uid: job.uid(),
            resource_version: version,
        }),
        ..DeleteParams::background()
    };
    match api.delete(&name, &only_this).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Subject<'_> {
    /// Sets or removes the finalizer, as the policy is.
    pub(super) async fn hold(&mut self, held: bool) -> Result<(), Error> {
        let change = serde_json::json!({"metadata": {
            "uid": self.uid,
            "resourceVersion": self.job.resource_version(),
            "finalizers": finalizers(&self.job, held),
        }});
        self.job = self
            .api
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(&change))
            .await?;
        Ok(())
    }

    /// Somebody has deleted a job that the finalizer holds back: its backup goes, then the object.
    pub(super) async fn finalize(&mut self) -> Result<Action, Error> {
        match self.api.get_opt(&self.name).await? {
            Some(live) if live.uid().as_deref() == Some(&self.uid) && is_held(&live) => {
                self.job = live;
            }
            _ => return Ok(Action::await_change()),
        }
        if !is_to_be_held(&self.job) {
            self.hold(false).await?;
            return Ok(Action::await_change());
        }
        if let Some(why) = self.kept_because().await? {
            let note = format!("the backup is kept, though deletionPolicy is Delete: {why}");
            self.context
                .report
                .normal(&self.object(), "BackupKept", "Delete", &note)
                .await;
            self.hold(false).await?;
            return Ok(Action::await_change());
        }
        let deleted = match tokio::time::timeout(STORE_PATIENCE, self.delete_backup()).await {
            Ok(deleted) => deleted,
            Err(_) => Err(NotDeleted::Failed(format!(
                "it was not done within {} s",
                STORE_PATIENCE.as_secs()
            ))),
        };
        let since = self.job.metadata.deletion_timestamp.as_ref();
        let over = since.is_none_or(|since| gives_up(since.0, self.now));
        let problem = match deleted {
            Ok(what) => {
                tracing::info!(
                    namespace = self.namespace,
                    name = self.name,
                    what,
                    "backup deleted with its job"
                );
                self.context
                    .report
                    .normal(&self.object(), "BackupDeleted", "Delete", &what)
                    .await;
                let store = self.job.spec.store_name();
                self.context.upkeep.wake(&self.namespace, store);
                self.hold(false).await?;
                return Ok(Action::await_change());
            }
            Err(NotDeleted::Failed(problem)) if !over => {
                let note = format!(
                    "the backup could not be deleted yet: {problem}. It is tried for {} min; set deletionPolicy to Retain to let the object go",
                    PATIENCE.as_mins()
                );
                self.context
                    .report
                    .warning(&self.object(), "DeletionPending", "Delete", &note)
                    .await;
                return Ok(Action::requeue(RETRY));
            }
            Err(NotDeleted::Failed(problem) | NotDeleted::Never(problem)) => problem,
        };
        let note = format!(
            "the backup was not deleted: {problem}. Left in BackupStore {}: {}",
            self.job.spec.store_name(),
            keys_left(&self.job)
        );
        tracing::warn!(namespace = self.namespace, name = self.name, note);
        self.context
            .report
            .warning(&self.object(), "BackupLeft", "Delete", &note)
            .await;
        self.hold(false).await?;
        Ok(Action::await_change())
    }

    /// Why the backup stays although its job goes.
    async fn kept_because(&self) -> Result<Option<&'static str>, Error> {
        if let Some(owner) = schedule_of(&self.job) {
            let schedule =
                Api::<BackupSchedule>::namespaced(self.context.client.clone(), &self.namespace)
                    .get_opt(&owner.name)
                    .await?;
            let stands = schedule.is_some_and(|s| {
                s.uid().as_ref() == Some(&owner.uid) && s.metadata.deletion_timestamp.is_none()
            });
            if !stands {
                return Ok(Some("its schedule was deleted, and the job with it"));
            }
        }
        self.ground_is_going().await
    }

    /// Whether the namespace or the CRD is being deleted, and the job with it. A dry run of a create
    /// tells, which needs no right to read either: in both cases the API server lets nothing new in.
    async fn ground_is_going(&self) -> Result<Option<&'static str>, Error> {
        let mut probe = BackupJob::new("", self.job.spec.clone());
        probe.metadata.name = None;
        probe.metadata.generate_name = Some("towline-asks-".into());
        let dry_run = PostParams {
            dry_run: true,
            ..Default::default()
        };
        match self.api.create(&dry_run, &probe).await {
            Err(kube::Error::Api(status)) => {
                let causes = status.details.iter().flat_map(|d| &d.causes);
                if causes.clone().any(|c| c.reason == "NamespaceTerminating") {
                    Ok(Some("its namespace is being deleted"))
                } else if status.code == 405 {
                    Ok(Some("the custom resource definition is being deleted"))
                } else if status.code >= 500 || status.code == 429 {
                    Err(kube::Error::Api(status).into())
                } else {
                    // A quota or a policy of the cluster: that says nothing about the ground.
                    Ok(None)
                }
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(None),
        }
    }

    /// Deletes what the job has in the store; says what that was.
    async fn delete_backup(&self) -> Result<String, NotDeleted> {
        let (store, store_uid) = self.open_live_store().await?;
        let failed = |error: Error| NotDeleted::Failed(error.to_string());
        let identity = self.identity(store_uid).map_err(failed)?;
        if let Some(import) = &self.job.spec.import {
            return match catalog::read_manifest(&store, &import.key).await? {
                Some(manifest) => self.delete_manifest(&store, &manifest).await,
                None => Ok("it was gone already".into()),
            };
        }
        let status = self.status();
        // Where the job says that it lies: its owner, which gave the folder its name, may have let it go.
        let recorded = status.manifest_key.as_deref().and_then(|key| {
            let prefix = &store.config().prefix;
            let key = key.strip_prefix(prefix.as_str())?.trim_start_matches('/');
            key.strip_suffix("/manifest.json")
        });
        let manifest = match recorded {
            Some(folder) => catalog::read_manifest(&store, folder).await?,
            None => catalog::read_decision(&store, &identity).await?,
        };
        if let Some(manifest) = manifest.filter(|m| m.outcome == Outcome::Complete) {
            return self.delete_manifest(&store, &manifest).await;
        }
        if !status.attempts.iter().any(|a| a.agent.is_some()) {
            return Ok("it had none".into());
        }
        if !status.phase.is_final() {
            // Its transfer was stopped, but may have got through.
            let stands = catalog::abandon(&store, &identity, status.attempt, self.now).await?;
            if stands.outcome == Outcome::Complete {
                return self.delete_manifest(&store, &stands).await;
            }
        }
        self.clean_all(&store, &identity, None, STORE_PATIENCE)
            .await
            .map_err(NotDeleted::Failed)?;
        Ok(match status.phase {
            Phase::Succeeded => "it was gone already".into(),
            _ => "it had none; what its attempts had left was taken away".into(),
        })
    }

    /// Deletes one backup, if it is this job's or was imported, and this cluster's.
    async fn delete_manifest(
        &self,
        store: &Store,
        manifest: &Manifest,
    ) -> Result<String, NotDeleted> {
        let JobIdentity {
            cluster_id,
            namespace,
            job_uid,
            ..
        } = &manifest.identity;
        if *cluster_id != *self.context.cluster_id || *namespace != self.namespace {
            return Err(NotDeleted::Never(format!(
                "it was made in namespace {namespace} of cluster {cluster_id} and is not this one's to delete"
            )));
        }
        if self.job.spec.import.is_none() && *job_uid != self.uid {
            return Err(NotDeleted::Never(format!(
                "it is that of another job, {job_uid}"
            )));
        }
        catalog::delete_backup(store, cluster_id, manifest, self.now).await?;
        let size = super::record::human_bytes(manifest.bytes);
        Ok(format!("deleted {size}: {}", manifest.identity.folder()))
    }

    /// The store as it is now: a cache that lags must not make us give up.
    async fn open_live_store(&self) -> Result<(Arc<Store>, Option<String>), NotDeleted> {
        let name = self.job.spec.store_name();
        let context = self.context;
        let found = Api::<BackupStore>::namespaced(context.client.clone(), &self.namespace)
            .get_opt(name)
            .await
            .map_err(|e| NotDeleted::Failed(format!("BackupStore {name} cannot be read: {e}")))?;
        let Some(found) = found else {
            return Err(NotDeleted::Never(format!("BackupStore {name} is gone")));
        };
        match crate::store::open(context, &found).await {
            Ok(store) => Ok((store, found.uid())),
            Err(error) if error.reason == StoreReason::SecretNotFound => {
                Err(NotDeleted::Never(error.message))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The keys that a job knows of, as many as an event takes.
fn keys_left(job: &BackupJob) -> String {
    let status = job.status.as_ref();
    let objects = status
        .iter()
        .flat_map(|s| &s.objects)
        .map(|o| o.key.as_str());
    let keys: Vec<&str> = status
        .and_then(|s| s.manifest_key.as_deref())
        .into_iter()
        .chain(objects)
        .collect();
    if keys.is_empty() {
        return "whatever its attempts had written".into();
    }
    let mut text = String::new();
    for (n, key) in keys.iter().enumerate() {
        if n > 0 && text.len() + key.len() > KEYS {
            text.push_str(&format!(" and {} more", keys.len() - n));
            break;
        }
        text.push_str(if n == 0 { "" } else { ", " });
        text.push_str(key);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(json: serde_json::Value) -> BackupJob {
        let mut job = serde_json::json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob",
            "metadata": {"name": "job", "finalizers": ["example.com/theirs"]},
            "spec": {"source": {"url": "http://db"}, "storeRef": {"name": "main"}},
        });
        job.as_object_mut()
            .unwrap()
            .extend(json.as_object().unwrap().clone());
        serde_json::from_value(job).unwrap()
    }

    #[test]
    fn others_finalizers_stay() {
        let mut held = job(serde_json::json!({}));
        assert!(!is_held(&held) && !is_to_be_held(&held));
        assert_eq!(finalizers(&held, true), ["example.com/theirs", FINALIZER]);
        held.metadata.finalizers = Some(finalizers(&held, true));
        assert!(is_held(&held));
        assert_eq!(
            finalizers(&held, true),
            ["example.com/theirs", FINALIZER],
            "once"
        );
        assert_eq!(finalizers(&held, false), ["example.com/theirs"]);
    }

    #[test]
    fn ten_minutes_are_enough() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (now, over) in [
            ("2026-01-01T00:09:59Z", false),
            ("2026-01-01T00:10:00Z", true),
            ("2025-12-31T00:00:00Z", false),
        ] {
            assert_eq!(gives_up(since, now.parse().unwrap()), over, "{now}");
        }
    }

    #[test]
    fn the_keys_left_fit_into_an_event() {
        assert_eq!(
            keys_left(&job(serde_json::json!({}))),
            "whatever its attempts had written"
        );
        let objects: Vec<_> = (0..100)
            .map(|n| serde_json::json!({"key": format!("p/ns/job/t-u/1/backup.tar.zst.{n:04}"), "bytes": 1}))
            .collect();
        let many = job(
            serde_json::json!({"status": {"manifestKey": "p/ns/job/t-u/manifest.json", "objects": objects}}),
        );
        let text = keys_left(&many);
        assert!(
            text.starts_with("p/ns/job/t-u/manifest.json, p/ns"),
            "{text}"
        );
        assert!(text.len() < 800 && text.ends_with("more"), "{text}");
    }
}

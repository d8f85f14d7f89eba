//! The sweep: what dead attempts left in a store goes, and deletions that died half-way are finished.
//! Nothing without a mark that names us is touched, and nothing of a job that has not ended.

use super::Pass;
use crate::{
    api::BackupJob,
    catalog::{self, Folder, JobIdentity, Mark, Outcome, ZOMBIE_PATIENCE},
    storage::{Store, StoreError},
};
use jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use std::collections::BTreeSet;

/// How long a manifest that says that there is no backup bars the way of zombies.
const ABANDONED_STAYS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One thing to do in the folder of a job that has ended or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Abort the uploads of this attempt, and delete its objects if a decision or a deletion that was
    /// begun allows it.
    Clean(u32),
    /// Put the decision that there is no backup, then delete the attempt's objects.
    Abandon(u32),
    /// Delete the manifest, which says that there is no backup.
    Forget,
}

/// The attempts of a folder whose marks have to be read.
#[must_use]
pub fn suspects(folder: &Folder) -> BTreeSet<u32> {
    let winner = match &folder.manifest {
        // Nobody knows which attempt won.
        Some(Err(_)) => return BTreeSet::new(),
        Some(Ok(manifest)) => (manifest.outcome == Outcome::Complete).then_some(manifest.attempt),
        None => None,
    };
    let left = folder.attempts.iter().filter(|(_, left)| left.marked);
    left.map(|(number, _)| *number)
        .filter(|number| Some(*number) != winner)
        .collect()
}

/// Whether the folder's manifest has done its work.
#[must_use]
pub fn forgettable(folder: &Folder, now: Timestamp) -> bool {
    let Some(Ok(manifest)) = &folder.manifest else {
        return false;
    };
    manifest.outcome == Outcome::Abandoned
        && folder.attempts.is_empty()
        && now.duration_since(manifest.time) >= ABANDONED_STAYS
}

/// Plans for the folder of a job that has ended or is gone; `ours` are the attempts whose marks name us.
#[must_use]
pub fn plan(folder: &Folder, ours: &BTreeSet<u32>, now: Timestamp) -> Vec<Step> {
    let suspects = suspects(folder);
    let mut steps = Vec::new();
    for attempt in suspects.intersection(ours) {
        let newest = folder.attempts.get(attempt).map(|left| left.newest);
        let old = newest.is_some_and(|t| now.duration_since(t) >= ZOMBIE_PATIENCE);
        steps.push(if folder.manifest.is_none() && old {
            Step::Abandon(*attempt)
        } else {
            Step::Clean(*attempt)
        });
    }
    if forgettable(folder, now) {
        steps.push(Step::Forget);
    }
    steps
}

/// Sweeps every folder; whether all of them could be.
pub(super) async fn sweep(pass: &Pass<'_>, store: &Store, folders: &[Folder]) -> bool {
    let us = Us {
        cluster_id: &pass.context.cluster_id,
        namespace: pass.namespace,
    };
    let mut good = true;
    for folder in folders {
        let live = async |job: &JobIdentity| is_live(pass, job).await.map_err(|e| e.to_string());
        match sweep_folder(store, folder, &us, live, pass.now).await {
            Ok(aborted) => pass.context.metrics.swept_uploads.inc_by(aborted as u64),
            Err(error) => {
                tracing::warn!(namespace = pass.namespace, folder = %folder.key, error, "the folder could not be swept");
                good = false;
            }
        }
    }
    good
}

/// Whose folders are swept.
#[derive(Clone, Copy, Debug)]
pub struct Us<'a> {
    /// Name of this cluster in the bucket.
    pub cluster_id: &'a str,
    /// The namespace.
    pub namespace: &'a str,
}

impl Us<'_> {
    fn are(&self, job: &JobIdentity) -> bool {
        job.cluster_id == self.cluster_id && job.namespace == self.namespace
    }
}

/// Sweeps the folder of one job, unless `live` says that it has not ended; gives how many uploads
/// were aborted.
///
/// # Errors
/// When the store does not answer, or `live` cannot say.
pub async fn sweep_folder(
    store: &Store,
    folder: &Folder,
    us: &Us<'_>,
    live: impl AsyncFnOnce(&JobIdentity) -> Result<bool, String>,
    now: Timestamp,
) -> Result<usize, String> {
    if suspects(folder).is_empty() && !forgettable(folder, now) {
        return Ok(0);
    }
    let say = |error: StoreError| error.message;
    let marks = ours(store, folder, us).await.map_err(say)?;
    let Some(job) = whose(folder, &marks, us) else {
        return Ok(0);
    };
    let ours = marks.iter().map(|mark| mark.attempt).collect();
    let steps = plan(folder, &ours, now);
    if steps.is_empty() || live(job).await? {
        return Ok(0);
    }
    let mut aborted = 0;
    for step in steps {
        tracing::info!(folder = %folder.key, ?step, "sweeping");
        aborted += act(store, folder, &marks, job, step, now)
            .await
            .map_err(say)?;
    }
    Ok(aborted)
}

/// The marks of the suspects that name us and this very folder.
async fn ours(store: &Store, folder: &Folder, us: &Us<'_>) -> Result<Vec<Mark>, StoreError> {
    let mut ours = Vec::new();
    for attempt in suspects(folder) {
        let Some(mark) = Mark::read_in(store, &folder.key, attempt).await? else {
            continue;
        };
        if mark.attempt == attempt
            && us.are(&mark.identity)
            && store.key(&mark.identity.folder())? == folder.key
        {
            ours.push(mark);
        }
    }
    Ok(ours)
}

/// Whose folder it is; `None`: not ours.
fn whose<'a>(folder: &'a Folder, marks: &'a [Mark], us: &Us<'_>) -> Option<&'a JobIdentity> {
    let manifest = folder.manifest.as_ref().and_then(|m| m.as_ref().ok());
    let identity = match manifest {
        Some(manifest) => &manifest.identity,
        None => &marks.first()?.identity,
    };
    us.are(identity).then_some(identity)
}

/// Whether the job may still do something about its folder. The API server is asked: the cache may
/// not know it yet.
async fn is_live(pass: &Pass<'_>, job: &JobIdentity) -> Result<bool, kube::Error> {
    let found = Api::<BackupJob>::namespaced(pass.context.client.clone(), pass.namespace)
        .get_opt(&job.job_name)
        .await?;
    Ok(found.is_some_and(|found| {
        found.uid().as_deref() == Some(&job.job_uid)
            && !found.status.as_ref().is_some_and(|s| s.phase.is_final())
    }))
}

/// Takes a step; gives how many uploads were aborted.
async fn act(
    store: &Store,
    folder: &Folder,
    marks: &[Mark],
    job: &JobIdentity,
    step: Step,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let attempt = match step {
        Step::Forget => {
            if let Some(Ok(manifest)) = &folder.manifest {
                catalog::forget_abandoned(store, manifest).await?;
            }
            return Ok(0);
        }
        Step::Clean(attempt) | Step::Abandon(attempt) => attempt,
    };
    let deleting = marks.iter().any(|m| m.attempt == attempt && m.deleting);
    if deleting && folder.manifest.is_none() {
        catalog::delete_proofs(store, job).await?;
    }
    let cleaned = catalog::clean_attempt(store, job, attempt).await?;
    let mut aborted = cleaned.aborted_uploads;
    if matches!(step, Step::Abandon(_)) && !cleaned.completed_objects.is_empty() {
        let stands = catalog::abandon(store, job, attempt, now).await?;
        if stands.outcome == Outcome::Abandoned {
            aborted += catalog::clean_attempt(store, job, attempt)
                .await?
                .aborted_uploads;
        }
    }
    Ok(aborted)
}

#[cfg(test)]
mod tests;

//! How a backup is deleted: its manifest first, so that it is never half there; its marks last, so
//! that the sweep finishes a deletion that died.

use super::{JobIdentity, Manifest, Mark, Outcome, abandoned, clean_attempt, to_json};
use crate::storage::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// Completed objects of an attempt that no manifest names stay this long: as long as a zombie of that
/// attempt is given to put its manifest.
pub const ZOMBIE_PATIENCE: SignedDuration = SignedDuration::from_hours(24);

/// Deletes a backup of this cluster, and everything else that its job left. Idempotent; what is
/// deleted half-way, the sweep finishes.
///
/// # Errors
/// When it is another cluster's, or the store does not do it.
pub async fn delete_backup(
    store: &Store,
    cluster_id: &str,
    manifest: &Manifest,
    now: Timestamp,
) -> Result<(), StoreError> {
    let job = &manifest.identity;
    if job.cluster_id != cluster_id {
        return Err(StoreError::failed(format!(
            "{} was made by the cluster {:?} and is not this one's to delete",
            job.folder(),
            job.cluster_id
        )));
    }
    let ours = doom_attempts(store, manifest).await?;
    let key = job.manifest_key(store)?;
    // Of several attempts one may be a zombie's: it must not find the place of the manifest free.
    let zombies = ours.len() > 1 || manifest.attempt > 1;
    if zombies && now.duration_since(manifest.time) < ZOMBIE_PATIENCE {
        let decided = abandoned(job, manifest.attempt, now);
        store.put(&key, to_json(&decided)?).await?;
    } else {
        store.delete(&key).await?;
    }
    delete_proofs(store, job).await?;
    for attempt in ours {
        clean_attempt(store, job, attempt).await?;
    }
    Ok(())
}

/// Writes into the marks of a job that its objects are being deleted; gives the attempts that are the
/// job's own.
async fn doom_attempts(store: &Store, manifest: &Manifest) -> Result<BTreeSet<u32>, StoreError> {
    let job = &manifest.identity;
    let folder = store.key(&job.folder())?;
    let depth = folder.parts().count();
    let mut found: BTreeSet<u32> = store
        .list(&folder)
        .await?
        .iter()
        .filter_map(|meta| meta.location.parts().nth(depth)?.as_ref().parse().ok())
        .collect();
    if manifest.outcome == Outcome::Complete {
        found.insert(manifest.attempt);
    }
    let mut ours = BTreeSet::new();
    for attempt in found {
        let mark = match Mark::read(store, job, attempt).await? {
            Some(mark) => {
                Some(mark).filter(|m| m.identity.is_same_job(job) && m.attempt == attempt)
            }
            // The manifest says that it is ours.
            None if attempt == manifest.attempt => {
                Some(Mark::new(job.clone(), attempt, manifest.start_time))
            }
            None => None,
        };
        let Some(mut mark) = mark else { continue };
        mark.deleting = true;
        mark.write(store).await?;
        ours.insert(attempt);
    }
    Ok(ours)
}

/// Deletes what drills have written beside a manifest that is gone.
pub(crate) async fn delete_proofs(store: &Store, job: &JobIdentity) -> Result<(), StoreError> {
    let folder = store.key(&format!("{}/verified", job.folder()))?;
    for proof in store.list(&folder).await? {
        store.delete(&proof.location).await?;
    }
    Ok(())
}

/// Deletes a manifest that says that there is no backup.
///
/// # Errors
/// When the store does not do it.
pub async fn forget_abandoned(store: &Store, manifest: &Manifest) -> Result<(), StoreError> {
    if manifest.outcome == Outcome::Complete {
        return Ok(());
    }
    delete_proofs(store, &manifest.identity).await?;
    store.delete(&manifest.identity.manifest_key(store)?).await
}

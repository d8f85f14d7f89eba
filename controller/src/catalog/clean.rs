//! What a dead attempt left, and how it goes.

use super::{JobIdentity, Mark, Outcome, read_decision};
use crate::storage::{Store, StoreError};
use object_store::path::Path;

/// What is left of a dead attempt.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Unfinished uploads that were aborted.
    pub aborted_uploads: usize,
    /// Objects that a complete had made, or may have; they stay until the manifest decides against them.
    pub completed_objects: Vec<String>,
}

/// Cleans up after attempts that died: aborts the uploads that their marks name. Completed objects
/// are deleted (then the mark) only when the job's manifest names another attempt or is Abandoned, or
/// when it is gone and the mark says that the backup is being deleted.
/// Marks that do not name `job` are left alone. Idempotent.
///
/// # Errors
/// When the store does not answer.
pub async fn clean_attempt(
    store: &Store,
    job: &JobIdentity,
    attempt: u32,
) -> Result<Cleaned, StoreError> {
    let folder = job.attempt_folder(store, attempt)?;
    let Some(mark) = Mark::read(store, job, attempt).await? else {
        // No upload is opened before the mark is there; only a mark half-written may be.
        store.remove_staged(&folder)?;
        return Ok(Cleaned::default());
    };
    if !mark.identity.is_same_job(job) || mark.attempt != attempt {
        tracing::warn!(%folder, "the ownership mark names another job: left alone");
        return Ok(Cleaned::default());
    }
    // Read before anything is taken away: the winner's objects are its backup.
    let decision = read_decision(store, job).await?;
    if decision
        .as_ref()
        .is_some_and(|d| d.outcome == Outcome::Complete && d.attempt == attempt)
    {
        return Ok(Cleaned::default());
    }

    let mut cleaned = Cleaned::default();
    for upload in &mark.uploads {
        // The mark is ours, yet what it names is checked: nothing outside the folder is touched.
        match Path::parse(&upload.key) {
            Ok(key) if key.prefix_matches(&folder) => {
                cleaned.aborted_uploads +=
                    usize::from(store.uploads().abort(&key, &upload.upload_id).await?);
            }
            _ => {
                tracing::warn!(%folder, key = upload.key, "the mark names an upload outside its folder: left alone")
            }
        }
    }
    cleaned.aborted_uploads += store.abort_unrecorded(&folder).await?;

    let mark_key = Mark::key(store, job, attempt)?;
    let completed: Vec<Path> = store
        .list(&folder)
        .await?
        .into_iter()
        .map(|m| m.location)
        .filter(|k| *k != mark_key)
        .collect();
    if decision.is_none() && !mark.deleting && !completed.is_empty() {
        cleaned.completed_objects = completed.into_iter().map(String::from).collect();
        return Ok(cleaned);
    }
    for key in &completed {
        store.delete(key).await?;
    }
    // Last, so that a deletion that dies half-way is found again.
    store.delete(&mark_key).await?;
    Ok(cleaned)
}

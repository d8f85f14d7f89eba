//! The backups of a store, read from their manifests.

use super::{MAX_BYTES, Manifest};
use crate::storage::{Store, StoreError};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;

/// One manifest of a store.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its key, prefix included.
    pub key: String,
    /// What it says, or why it cannot be read: one bad manifest hides no other.
    pub manifest: Result<Manifest, StoreError>,
}

/// Manifests read at once.
const AT_ONCE: usize = 8;

/// Every decision under a namespace, the oldest first. Abandoned ones are included.
///
/// # Errors
/// When the store cannot be listed.
pub async fn list(store: &Store, namespace: &str) -> Result<Vec<Listed>, StoreError> {
    let folder = store.key(namespace)?;
    let depth = folder.parts().count();
    let is_manifest =
        |key: &Path| key.parts().count() == depth + 3 && key.filename() == Some("manifest.json");
    let keys: Vec<Path> = store
        .list(&folder)
        .await?
        .into_iter()
        .map(|m| m.location)
        .filter(is_manifest)
        .collect();
    let mut listed: Vec<Listed> =
        futures::stream::iter(keys)
            .map(|key| async move {
                // Deleted between listing and reading: gone, not broken.
                Ok::<_, StoreError>(store.get(&key, MAX_BYTES).await.transpose().map(|body| {
                    Listed {
                        manifest: body.and_then(|b| Manifest::parse(store, &key, &b)),
                        key: key.into(),
                    }
                }))
            })
            .buffered(AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
    listed.sort_by_key(|l| {
        (
            l.manifest.as_ref().ok().map(|m| m.identity.created),
            l.key.clone(),
        )
    });
    Ok(listed)
}

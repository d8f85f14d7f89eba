//! Everything under a namespace of a store, sorted by job: one listing, and the manifests read.

use super::{MAX_BYTES, Manifest, Proof, Verdict};
use crate::storage::{Store, StoreError};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use object_store::{ObjectMeta, path::Path};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Manifests read at once.
const AT_ONCE: usize = 8;

/// One manifest of a store.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its key, prefix included.
    pub key: String,
    /// What it says, or why it cannot be read: one bad manifest hides no other.
    pub manifest: Result<Manifest, StoreError>,
}

/// The folder of one job.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Its key, prefix included.
    pub key: Path,
    /// What the job's manifest says, or why it cannot be read; `None`: there is none.
    pub manifest: Option<Result<Arc<Manifest>, StoreError>>,
    /// The attempts that have left anything, by number.
    pub attempts: BTreeMap<u32, Attempt>,
    /// What the newest drill said of the backup; `None`: there was none, or its proof cannot be read.
    pub verdict: Option<Verdict>,
}

/// What one attempt has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whether the ownership mark is there.
    pub marked: bool,
    /// When anything in it was last written.
    pub newest: Timestamp,
}

/// Manifests and proofs that were read before. They never change, so a listing tells whether one is still
/// the same.
#[derive(Debug, Default)]
pub struct Known {
    manifests: HashMap<Path, (Version, Arc<Manifest>)>,
    verdicts: HashMap<Path, (Version, Verdict)>,
}

/// Time, size and tag of an object.
type Version = (i64, u64, Option<String>);

fn version(meta: &ObjectMeta) -> Version {
    let time = meta.last_modified.timestamp_millis();
    (time, meta.size, meta.e_tag.clone())
}

/// Every decision under a namespace, the oldest first. Abandoned ones are included.
///
/// # Errors
/// When the store cannot be listed.
pub async fn list(store: &Store, namespace: &str) -> Result<Vec<Listed>, StoreError> {
    let folders = survey(store, namespace, &mut Known::default()).await?;
    let mut listed: Vec<Listed> = folders
        .into_iter()
        .filter_map(|folder| {
            Some(Listed {
                key: folder.key.join("manifest.json").into(),
                manifest: folder.manifest?.map(Arc::unwrap_or_clone),
            })
        })
        .collect();
    listed.sort_by_key(|l| {
        (
            l.manifest.as_ref().ok().map(|m| m.identity.created),
            l.key.clone(),
        )
    });
    Ok(listed)
}

/// Every job's folder under a namespace, by key. What does not lie as ours do is left out.
///
/// # Errors
/// When the store cannot be listed.
pub async fn survey(
    store: &Store,
    namespace: &str,
    known: &mut Known,
) -> Result<Vec<Folder>, StoreError> {
    let root = store.key(namespace)?;
    let Sorted {
        mut folders,
        manifests,
        proofs,
    } = sort(&root, store.list(&root).await?);
    let mut seen = HashMap::with_capacity(manifests.len());
    let mut unread = Vec::new();
    for meta in manifests {
        match known.manifests.remove(&meta.location) {
            Some((of, manifest)) if of == version(&meta) => {
                seen.insert(meta.location, (of, manifest));
            }
            _ => unread.push(meta),
        }
    }
    let read: Vec<(ObjectMeta, Option<Result<Manifest, StoreError>>)> = stream::iter(unread)
        .map(|meta| async move {
            let body = store.get(&meta.location, MAX_BYTES).await.transpose();
            let manifest =
                body.map(|body| body.and_then(|b| Manifest::parse(store, &meta.location, &b)));
            (meta, manifest)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    for (meta, manifest) in read {
        let Some(folder) = meta.location.parts().count().checked_sub(1) else {
            continue;
        };
        let folder: Path = meta.location.parts().take(folder).collect();
        match manifest {
            Some(Ok(manifest)) => {
                seen.insert(meta.location.clone(), (version(&meta), Arc::new(manifest)));
            }
            Some(Err(error)) => {
                if let Some(found) = folders.get_mut(&folder) {
                    found.manifest = Some(Err(error));
                }
            }
            // Deleted between listing and reading: this folder is somebody's business just now.
            None => drop(folders.remove(&folder)),
        }
    }
    for folder in folders.values_mut() {
        if let Some((_, manifest)) = seen.get(&folder.key.clone().join("manifest.json")) {
            folder.manifest = Some(Ok(Arc::clone(manifest)));
        }
    }
    known.manifests = seen;
    let verdicts = read_verdicts(store, proofs, &mut known.verdicts).await;
    for (folder, verdict) in verdicts {
        if let Some(folder) = folders.get_mut(&folder) {
            folder.verdict = Some(verdict);
        }
    }
    Ok(folders.into_values().collect())
}

/// Reads the newest proof of each folder. One that cannot be read hides nothing else: it is as if it were
/// not there.
async fn read_verdicts(
    store: &Store,
    proofs: BTreeMap<Path, ObjectMeta>,
    known: &mut HashMap<Path, (Version, Verdict)>,
) -> Vec<(Path, Verdict)> {
    let before = std::mem::take(known);
    let read: Vec<_> = stream::iter(proofs)
        .map(|(folder, meta)| {
            let of = version(&meta);
            let seen = before.get(&meta.location).filter(|(known, _)| *known == of);
            let seen = seen.map(|(_, verdict)| *verdict);
            async move {
                let verdict = match seen {
                    Some(verdict) => Some(verdict),
                    None => match Proof::read(store, &meta.location).await {
                        Ok(proof) => proof.map(|proof| proof.result),
                        Err(error) => {
                            tracing::warn!(key = %meta.location, %error, "a drill's proof cannot be read");
                            None
                        }
                    },
                };
                Some((folder, meta.location, of, verdict?))
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut verdicts = Vec::new();
    for (folder, key, of, verdict) in read.into_iter().flatten() {
        known.insert(key, (of, verdict));
        verdicts.push((folder, verdict));
    }
    verdicts
}

/// A listing, sorted by job.
struct Sorted {
    folders: BTreeMap<Path, Folder>,
    manifests: Vec<ObjectMeta>,
    /// The newest of each folder: their names are times.
    proofs: BTreeMap<Path, ObjectMeta>,
}

fn sort(root: &Path, listed: Vec<ObjectMeta>) -> Sorted {
    let depth = root.parts().count();
    let mut folders: BTreeMap<Path, Folder> = BTreeMap::new();
    let mut manifests = Vec::new();
    let mut proofs: BTreeMap<Path, ObjectMeta> = BTreeMap::new();
    for meta in listed {
        let inside: Vec<String> = meta
            .location
            .parts()
            .skip(depth + 2)
            .map(|part| part.as_ref().to_owned())
            .collect();
        let key: Path = meta.location.parts().take(depth + 2).collect();
        let folder = || Folder {
            key: key.clone(),
            manifest: None,
            attempts: BTreeMap::new(),
            verdict: None,
        };
        match inside.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["manifest.json"] => {
                folders.entry(key.clone()).or_insert_with(folder);
                manifests.push(meta);
            }
            ["verified", _] => {
                let newest = proofs.entry(key.clone()).or_insert_with(|| meta.clone());
                if newest.location < meta.location {
                    *newest = meta;
                }
            }
            [number, name] => {
                // As we write it: `01` is nobody's attempt.
                let Some(number) = number
                    .parse()
                    .ok()
                    .filter(|n: &u32| n.to_string() == number)
                else {
                    continue;
                };
                let written = Timestamp::from_millisecond(meta.last_modified.timestamp_millis())
                    .unwrap_or(Timestamp::MAX);
                let folder = folders.entry(key.clone()).or_insert_with(folder);
                let attempt = folder.attempts.entry(number).or_insert(Attempt {
                    marked: false,
                    newest: written,
                });
                attempt.marked |= name == "upload.json";
                attempt.newest = attempt.newest.max(written);
            }
            _ => {}
        }
    }
    Sorted {
        folders,
        manifests,
        proofs,
    }
}

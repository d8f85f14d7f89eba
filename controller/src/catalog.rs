//! What lies in a bucket: keys, the ownership mark of an attempt, and `manifest.json`, the one
//! decision about a job.

mod choose;
mod clean;
mod delete;
mod mark;
mod proof;
mod survey;

pub use choose::{NoBackup, Which, choose};
pub use clean::{Cleaned, clean_attempt};
pub(crate) use delete::delete_proofs;
pub use delete::{ZOMBIE_PATIENCE, delete_backup, forget_abandoned};
pub(crate) use mark::{Mark, UploadRef};
pub use proof::{Proof, Verdict};
pub use survey::{Attempt, Folder, Known, Listed, list, survey};

use crate::storage::{Created, Store, StoreError};
use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

/// Version of `manifest.json` and `upload.json` that this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Longest manifest or mark that is read, in bytes: thousands of objects fit.
const MAX_BYTES: u64 = 4 << 20;

/// Whose backup it is; fixes every key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobIdentity {
    /// `--cluster-id`, else the uid of namespace kube-system; of the command line: `cli`.
    pub cluster_id: String,
    /// Namespace of the job.
    pub namespace: String,
    /// Name of the `BackupJob`.
    pub job_name: String,
    /// Its uid.
    pub job_uid: String,
    /// Name of the schedule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_name: Option<String>,
    /// Its uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_uid: Option<String>,
    /// Uid of the `BackupStore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_uid: Option<String>,
    /// `metadata.creationTimestamp` of the job.
    pub created: jiff::Timestamp,
}

impl JobIdentity {
    /// `<namespace>/<schedule or job>/<created as 20060102T150405Z>-<job uid>`, without the store's prefix.
    #[must_use]
    pub fn folder(&self) -> String {
        let name = self.schedule_name.as_ref().unwrap_or(&self.job_name);
        let created = self.created.strftime("%Y%m%dT%H%M%SZ");
        format!("{}/{name}/{created}-{}", self.namespace, self.job_uid)
    }

    fn manifest_key(&self, store: &Store) -> Result<Path, StoreError> {
        store.key(&format!("{}/manifest.json", self.folder()))
    }

    /// Folder of one attempt.
    pub(crate) fn attempt_folder(&self, store: &Store, attempt: u32) -> Result<Path, StoreError> {
        store.key(&format!("{}/{attempt}", self.folder()))
    }

    /// Whether something that was found belongs to this very job.
    fn is_same_job(&self, other: &Self) -> bool {
        self.cluster_id == other.cluster_id
            && self.namespace == other.namespace
            && self.job_uid == other.job_uid
    }
}

/// How a job ended, as its manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The objects are a backup.
    Complete,
    /// There is no backup, and there never will be one under this job.
    Abandoned,
}

/// One object of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Full key in the bucket, prefix included.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// `manifest.json`: create-only, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this format: 1.
    pub format_version: u32,
    /// How the job ended.
    pub outcome: Outcome,
    /// Whose it is.
    #[serde(flatten)]
    pub identity: JobIdentity,
    /// The attempt that won; of an abandoned job the last.
    pub attempt: u32,
    /// When this was decided.
    pub time: jiff::Timestamp,
    /// The archive, in order. Empty when abandoned.
    #[serde(default)]
    pub objects: Vec<ObjectRef>,
    /// Bytes of all objects.
    #[serde(default)]
    pub bytes: u64,
    /// SHA-256 of all objects one after the other, lower-case hex.
    #[serde(default)]
    pub sha256: String,
    /// Id that the agent gave the backup.
    #[serde(default)]
    pub backup_id: String,
    /// `physical` or `logical`.
    #[serde(default)]
    pub method: String,
    /// Server flavour, e.g. `mariadb`.
    #[serde(default)]
    pub server_flavour: String,
    /// Server version.
    #[serde(default)]
    pub server_version: String,
    /// Binary log position, GTID and LSN, where they are known.
    #[serde(default)]
    pub position: towline_agent::archive::Position,
    /// When the attempt began.
    pub start_time: jiff::Timestamp,
}

impl Manifest {
    /// Whether only somebody with an identity can open the archive.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        let first = self.objects.first();
        first.is_some_and(|object| object.key.ends_with(".age"))
    }

    /// What the stored bytes have to be.
    #[must_use]
    pub fn expected(&self) -> towline_agent::restore::Expected {
        towline_agent::restore::Expected {
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        }
    }

    /// Key of this manifest in the bucket, prefix included.
    ///
    /// # Errors
    /// When its names cannot be part of a key.
    pub fn key(&self, store: &Store) -> Result<String, StoreError> {
        self.identity.manifest_key(store).map(String::from)
    }

    /// Reads a manifest and refuses one that is not consistent in itself: every object must lie in
    /// the folder of the job and the sizes must add up.
    fn parse(store: &Store, key: &Path, body: &[u8]) -> Result<Self, StoreError> {
        let bad = |why: String| StoreError::failed(format!("store {}: {key} {why}", store.url()));
        let version = format_version(body).map_err(bad)?;
        if version > FORMAT_VERSION {
            return Err(bad(format!(
                "has format version {version}, this program reads up to {FORMAT_VERSION}: use a newer one"
            )));
        }
        let manifest: Self =
            serde_json::from_slice(body).map_err(|e| bad(format!("is not a manifest: {e}")))?;
        let folder = store.key(&manifest.identity.folder())?;
        if *key != manifest.identity.manifest_key(store)? {
            return Err(bad(
                "belongs to another folder: it was copied or altered".to_owned()
            ));
        }
        let inside = |o: &ObjectRef| {
            Path::parse(&o.key).is_ok_and(|k| k.prefix_matches(&folder) && k != folder)
        };
        if !manifest.objects.iter().all(inside) {
            return Err(bad("names objects outside its folder".to_owned()));
        }
        let sum = manifest
            .objects
            .iter()
            .try_fold(0u64, |sum, o| sum.checked_add(o.bytes));
        if sum != Some(manifest.bytes)
            || (manifest.outcome == Outcome::Complete) == manifest.objects.is_empty()
        {
            return Err(bad(
                "contradicts itself: objects and bytes do not fit".to_owned()
            ));
        }
        Ok(manifest)
    }
}

/// The version is read first and alone, for a newer format may have other fields.
fn format_version(body: &[u8]) -> Result<u32, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        format_version: u32,
    }
    serde_json::from_slice::<Version>(body)
        .map(|v| v.format_version)
        .map_err(|e| format!("is not readable: {e}"))
}

fn to_json(value: &impl Serialize) -> Result<Bytes, StoreError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| StoreError::failed(format!("cannot be written as JSON: {e}")))?;
    text.push(b'\n');
    Ok(text.into())
}

/// Reads the decision about a job; `None` when there is none yet.
///
/// # Errors
/// When the store does not answer, or the manifest is not readable.
pub async fn read_decision(
    store: &Store,
    job: &JobIdentity,
) -> Result<Option<Manifest>, StoreError> {
    read_manifest(store, &job.folder()).await
}

/// Decides that a job has no backup, before it ends Failed or Cancelled. Whoever decided first
/// wins: the answer is the manifest that stands, which may be Complete.
///
/// # Errors
/// When the store does not answer.
pub async fn abandon(
    store: &Store,
    job: &JobIdentity,
    attempt: u32,
    now: jiff::Timestamp,
) -> Result<Manifest, StoreError> {
    decide(store, &abandoned(job, attempt, now)).await
}

fn abandoned(job: &JobIdentity, attempt: u32, now: jiff::Timestamp) -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        outcome: Outcome::Abandoned,
        identity: job.clone(),
        attempt,
        time: now,
        objects: Vec::new(),
        bytes: 0,
        sha256: String::new(),
        backup_id: String::new(),
        method: String::new(),
        server_flavour: String::new(),
        server_version: String::new(),
        position: towline_agent::archive::Position::default(),
        start_time: now,
    }
}

/// Reads the manifest that lies in `folder` (without the store's prefix); `None` when there is none.
///
/// # Errors
/// When the store does not answer, or the manifest is not readable.
pub async fn read_manifest(store: &Store, folder: &str) -> Result<Option<Manifest>, StoreError> {
    let key = store.key(&format!("{folder}/manifest.json"))?;
    match store.get(&key, MAX_BYTES).await? {
        None => Ok(None),
        Some(body) => Manifest::parse(store, &key, &body).map(Some),
    }
}

/// Writes a decision, unless there is one: the answer is the one that stands.
///
/// # Errors
/// When the store does not answer. The decision may stand nevertheless: read it again.
pub(crate) async fn decide(store: &Store, manifest: &Manifest) -> Result<Manifest, StoreError> {
    let key = manifest.identity.manifest_key(store)?;
    match store.create(&key, to_json(manifest)?).await {
        Ok(Created::Yes) => Ok(manifest.clone()),
        Ok(Created::AlreadyExists) => {
            read_decision(store, &manifest.identity)
                .await?
                .ok_or_else(|| {
                    StoreError::failed(format!(
                        "store {}: {key} exists but cannot be read: is somebody deleting it?",
                        store.url()
                    ))
                })
        }
        // The reply may have been lost after the write was done.
        Err(e) => match read_decision(store, &manifest.identity).await {
            Ok(Some(standing)) => Ok(standing),
            _ => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Location, StoreConfig};

    pub(crate) fn identity() -> JobIdentity {
        JobIdentity {
            cluster_id: "c".into(),
            namespace: "ns".into(),
            job_name: "nightly-1".into(),
            job_uid: "u-1".into(),
            schedule_name: Some("nightly".into()),
            schedule_uid: Some("s-1".into()),
            store_uid: None,
            created: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        }
    }

    pub(crate) fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig {
            prefix: "p/q".into(),
            part_size: 1 << 20,
            max_parts: 10,
            ..StoreConfig::new(Location::File {
                root: dir.path().to_owned(),
                confined_to: None,
            })
        })
        .unwrap();
        (dir, store)
    }

    pub(crate) fn complete(store: &Store) -> Manifest {
        let job = identity();
        let key = format!("{}/backup.tar.zst", job.attempt_folder(store, 1).unwrap());
        Manifest {
            format_version: 1,
            outcome: Outcome::Complete,
            identity: job.clone(),
            attempt: 1,
            time: job.created,
            objects: vec![ObjectRef { key, bytes: 3 }],
            bytes: 3,
            sha256: "00".repeat(32),
            backup_id: "b".into(),
            method: "physical".into(),
            server_flavour: "mariadb".into(),
            server_version: "10.11".into(),
            position: towline_agent::archive::Position::default(),
            start_time: job.created,
        }
    }

    #[test]
    fn folders() {
        let mut job = identity();
        assert_eq!(job.folder(), "ns/nightly/20260102T030405Z-u-1");
        job.schedule_name = None;
        assert_eq!(job.folder(), "ns/nightly-1/20260102T030405Z-u-1");
    }

    #[tokio::test]
    async fn the_first_decision_stands() {
        let (_dir, store) = store();
        let job = identity();
        assert_eq!(read_decision(&store, &job).await.unwrap(), None);
        let won = complete(&store);
        assert_eq!(decide(&store, &won).await.unwrap(), won);
        assert_eq!(abandon(&store, &job, 2, job.created).await.unwrap(), won);
        assert_eq!(read_decision(&store, &job).await.unwrap(), Some(won));
    }

    #[test]
    fn inconsistent_manifests_are_refused() {
        let (_dir, store) = store();
        let good = complete(&store);
        let key = identity().manifest_key(&store).unwrap();
        let parse = |m: &Manifest| Manifest::parse(&store, &key, &to_json(m).unwrap());
        assert_eq!(parse(&good).unwrap(), good);
        type Alter = fn(&mut Manifest);
        let altered: [(&str, Alter); 6] = [
            ("newer", |m| m.format_version = 2),
            ("another folder", |m| m.identity.job_uid = "u-2".into()),
            ("outside", |m| {
                m.objects[0].key = "p/q/ns/nightly/other/1/x".into()
            }),
            ("outside", |m| {
                m.objects[0].key = "p/q/ns/nightly/20260102T030405Z-u-1/../x".into()
            }),
            ("contradicts", |m| m.bytes = 4),
            ("contradicts", |m| m.objects.clear()),
        ];
        for (why, alter) in altered {
            let mut bad = good.clone();
            alter(&mut bad);
            let e = parse(&bad).unwrap_err();
            assert!(e.message.contains(why), "{why}: {e}");
        }
    }
}

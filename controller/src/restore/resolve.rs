//! Which backup is restored, and whether it fits where it is to go.

use super::{Kind, Refusal, Subject};
use crate::{
    api::{
        BackupJob, BackupStore, RestoreJobSpec, check_name, conditions,
        job::Phase,
        restore::{FromLatest, RestoredBackup},
        store::READY,
    },
    catalog::{self, Listed, Manifest, Outcome},
    context::STORE_PATIENCE,
    error::Error,
    reason::RestoreReason,
    storage::{Store, StoreError},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};
use std::sync::Arc;

/// What came of looking for a backup.
pub(super) enum Found {
    /// This one.
    Backup(Box<RestoredBackup>),
    /// The store cannot be asked now.
    Later(RestoreReason, String),
    /// It cannot be restored.
    Refused(Refusal),
}

impl From<Refusal> for Found {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Where a backup lies.
struct Place {
    store: String,
    /// Its folder, or the schedule of which it is the newest.
    what: What,
}

enum What {
    Folder(String),
    /// As its BackupJob has it: with the store's prefix and the manifest's name.
    ManifestKey(String),
    Latest(FromLatest),
}

impl Subject<'_> {
    /// Finds the backup and judges it as far as its manifest tells.
    pub(super) async fn find(&self) -> Result<Found, Error> {
        let place = match self.place().await? {
            Ok(place) => place,
            Err(refusal) => return Ok(refusal.into()),
        };
        let object = match self.store_object(&place.store).await {
            Ok(object) => object,
            Err(found) => return Ok(found),
        };
        let store = match crate::store::open(self.context, &object).await {
            Ok(store) => store,
            Err(error) => {
                let message = format!("BackupStore {}: {error}", place.store);
                return Ok(Found::Later(RestoreReason::StoreNotReady, message));
            }
        };
        let read = tokio::time::timeout(STORE_PATIENCE, self.read(&store, &place.what)).await;
        let manifest = match read {
            Ok(Ok(Ok(manifest))) => manifest,
            Ok(Ok(Err(refusal))) => return Ok(refusal.into()),
            Ok(Err(error)) => return Ok(Found::Later(RestoreReason::StoreError, error.message)),
            Err(_) => {
                let message = format!("{} does not answer", store.url());
                return Ok(Found::Later(RestoreReason::StoreError, message));
            }
        };
        let mut backup = describe(&place.store, &manifest);
        // The record of an imported backup may have another name than the job that made it.
        if let Some(reference) = &self.job.spec.from.backup_job_ref {
            backup.backup_job.clone_from(&reference.name);
        }
        Ok(match check(&self.job.spec, &backup) {
            Ok(()) => Found::Backup(Box::new(backup)),
            Err(refusal) => refusal.into(),
        })
    }

    async fn place(&self) -> Result<Result<Place, Refusal>, Error> {
        let from = &self.job.spec.from;
        Ok(if let Some(reference) = &from.backup_job_ref {
            let name = &reference.name;
            if let Err(why) = check_name(name) {
                return Ok(Err(Refusal::spec(format!("spec.from.backupJobRef: {why}"))));
            }
            let jobs = Api::<BackupJob>::namespaced(self.context.client.clone(), &self.namespace);
            of_job(jobs.get_opt(name).await?.as_ref(), name, &self.namespace)
        } else if let Some(store) = &from.store {
            of_key(&store.key, &self.namespace).map(|()| Place {
                store: store.store_ref.name.clone(),
                what: What::Folder(store.key.clone()),
            })
        } else if let Some(latest) = &from.latest {
            Ok(Place {
                store: latest.store_ref.name.clone(),
                what: What::Latest(latest.clone()),
            })
        } else {
            Err(Refusal::spec(
                "set exactly one of spec.from.backupJobRef, store and latest",
            ))
        })
    }

    /// The store's object, if a restore's pod can use it.
    async fn store_object(&self, name: &str) -> Result<Arc<BackupStore>, Found> {
        self.context.stores.filled().await;
        let later = |message| Found::Later(RestoreReason::StoreNotReady, message);
        let store = match self.context.store(&self.namespace, name) {
            None => {
                return Err(later(format!(
                    "BackupStore {name} does not exist in namespace {}: create it",
                    self.namespace
                )));
            }
            Some(Err(error)) => {
                return Err(later(format!("BackupStore {name} is malformed: {error}")));
            }
            Some(Ok(store)) => store,
        };
        if store.spec.file.is_some() {
            return Err(Refusal::spec(format!(
                "BackupStore {name} is a folder of the controller's, which no pod can reach: restore with `towline restore --store file://…` where the folder is, or copy the backup into an object store"
            ))
            .into());
        }
        let conditions = store.status.as_ref().map(|s| s.conditions.as_slice());
        let ready = conditions.and_then(|all| conditions::get(all, READY));
        match ready {
            Some(ready) if ready.status == "True" => Ok(store),
            Some(ready) => Err(later(format!(
                "BackupStore {name} is not Ready: {}: {}",
                ready.reason, ready.message
            ))),
            None => Err(later(format!(
                "BackupStore {name} is not Ready: it has not been probed yet"
            ))),
        }
    }

    async fn read(
        &self,
        store: &Store,
        what: &What,
    ) -> Result<Result<Manifest, Refusal>, StoreError> {
        let folder = match what {
            What::Latest(latest) => {
                let listed = catalog::list(store, &self.namespace).await?;
                return Ok(newest(listed, latest, self.now));
            }
            What::Folder(folder) => folder.clone(),
            What::ManifestKey(key) => match folder_of(key, &store.config().prefix) {
                Some(folder) => folder,
                None => {
                    return Ok(Err(Refusal::not_found(format!(
                        "status.manifestKey of the BackupJob ({key}) is not a key of store {}: was the store changed?",
                        store.url()
                    ))));
                }
            },
        };
        Ok(match catalog::read_manifest(store, &folder).await? {
            Some(manifest) if manifest.outcome == Outcome::Complete => Ok(manifest),
            Some(manifest) => Err(Refusal::not_found(format!(
                "{folder} holds no backup: it was given up at {}; towline ls prints those that there are",
                manifest.time
            ))),
            None => Err(Refusal::not_found(format!(
                "there is no backup {folder} in {}: was it deleted? towline ls prints those that there are",
                store.url()
            ))),
        })
    }
}

fn of_job(job: Option<&BackupJob>, name: &str, namespace: &str) -> Result<Place, Refusal> {
    let Some(job) = job else {
        return Err(Refusal::not_found(format!(
            "BackupJob {name} does not exist in namespace {namespace}: the backup may still be there, by spec.from.store or spec.from.latest"
        )));
    };
    let status = job.status.as_ref();
    let phase = status.map_or(Phase::Pending, |s| s.phase);
    let key = status.and_then(|s| s.manifest_key.clone());
    match (phase, key) {
        (Phase::Succeeded, Some(key)) => Ok(Place {
            store: job.spec.store_name().to_owned(),
            what: What::ManifestKey(key),
        }),
        (phase, _) => Err(Refusal::not_found(format!(
            "BackupJob {} has no backup: its phase is {}; name one that Succeeded",
            job.name_any(),
            phase.as_str()
        ))),
    }
}

/// What of a key is wrong, when it lies under another namespace.
fn of_key(key: &str, namespace: &str) -> Result<(), Refusal> {
    let first = key.split('/').next().unwrap_or_default();
    if first == namespace && !key.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Ok(());
    }
    Err(Refusal::spec(format!(
        "spec.from.store.key {key:?} does not lie under namespace {namespace}: a RestoreJob restores backups of its own namespace only"
    )))
}

/// `a/ns/nightly/20260102T030405Z-u/manifest.json` with the prefix `a` is `ns/nightly/20260102T030405Z-u`.
fn folder_of(manifest_key: &str, prefix: &str) -> Option<String> {
    let folder = manifest_key.strip_suffix("/manifest.json")?;
    let prefix = prefix.trim_matches('/');
    let folder = match prefix {
        "" => folder,
        prefix => folder.strip_prefix(prefix)?.strip_prefix('/')?,
    };
    Some(folder.to_owned())
}

/// The newest backup that was complete in time.
fn newest(listed: Vec<Listed>, latest: &FromLatest, now: Timestamp) -> Result<Manifest, Refusal> {
    let before = latest.before.as_ref().map_or(now, |t| t.0);
    let (mut of_schedule, mut unreadable) = (0, 0);
    let mut found: Option<Manifest> = None;
    let folder = |key: &str| key.rsplit('/').nth(2).map(str::to_owned);
    for listed in listed {
        let manifest = match listed.manifest {
            Ok(manifest) => manifest,
            Err(_) => {
                let wanted = latest.schedule.is_none() || folder(&listed.key) == latest.schedule;
                unreadable += usize::from(wanted);
                continue;
            }
        };
        let ours = manifest.outcome == Outcome::Complete
            && (latest.schedule.is_none() || manifest.identity.schedule_name == latest.schedule);
        if !ours {
            continue;
        }
        of_schedule += 1;
        let newer = found
            .as_ref()
            .is_none_or(|found| found.identity.created < manifest.identity.created);
        if manifest.time <= before && newer {
            found = Some(manifest);
        }
    }
    found.ok_or_else(|| {
        let bad = match unreadable {
            0 => String::new(),
            n => format!("; {n} cannot be read"),
        };
        let whose = match &latest.schedule {
            Some(schedule) => format!("of schedule {schedule}"),
            None => "of this namespace".to_owned(),
        };
        let what = match of_schedule {
            0 => format!("there is no backup {whose}"),
            n => format!("none of the {n} backups {whose} was complete by {before}"),
        };
        Refusal::not_found(format!(
            "{what}{bad}: towline ls prints those that there are"
        ))
    })
}

fn describe(store: &str, manifest: &Manifest) -> RestoredBackup {
    RestoredBackup {
        store: store.to_owned(),
        key: manifest.identity.folder(),
        backup_job: manifest.identity.job_name.clone(),
        method: manifest.method.clone(),
        bytes: manifest.bytes,
        sha256: manifest.sha256.clone(),
        encrypted: manifest.objects.iter().any(|o| is_encrypted(&o.key)),
        server_flavour: manifest.server_flavour.clone(),
        server_version: conditions::cut(&manifest.server_version, 256).to_owned(),
        backup_id: conditions::cut(&manifest.backup_id, 128).to_owned(),
        time: Some(Time(manifest.time)),
    }
}

/// `…/backup.tar.zst.age`, and `….age.0001` of one that continues.
fn is_encrypted(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    name.split('.').any(|part| part == "age")
}

/// Whether the backup can go where it is to go, and be opened.
fn check(spec: &RestoreJobSpec, backup: &RestoredBackup) -> Result<(), Refusal> {
    let method = backup.method.as_str();
    let wanted = match Kind::of(spec) {
        Kind::Volume => Some("physical"),
        Kind::Agent => Some("logical"),
        Kind::Drill => None,
    };
    match wanted {
        Some("physical") if method != "physical" => {
            return Err(Refusal {
                reason: RestoreReason::Incompatible,
                message: format!(
                    "a {method} backup is SQL, which goes into a running server: set spec.to.agent in the place of persistentVolumeClaim"
                ),
            });
        }
        Some("logical") if method != "logical" => {
            return Err(Refusal {
                reason: RestoreReason::Incompatible,
                message: format!(
                    "a {method} backup is a server's files, which go into a volume: set spec.to.persistentVolumeClaim in the place of agent"
                ),
            });
        }
        _ => {}
    }
    if backup.encrypted && spec.decryption.is_none() {
        return Err(Refusal {
            reason: RestoreReason::NotDecryptable,
            message: "the backup is encrypted: set spec.decryption.identitySecretRef to a Secret with an age identity (AGE-SECRET-KEY-1…) of one of its recipients".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

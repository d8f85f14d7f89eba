//! What a restore's pod does, from its plan to its report.

use super::{
    IDENTITY_DIR, Plan, Report, SCRATCH_DIR, STORE_SECRET_DIR, Task, agent, drill, report, volume,
};
use crate::{
    catalog::{self, Outcome},
    logical_restore::Backup,
    reason::RestoreReason,
    storage::{Store, StoreError, from_api},
    stored_archive::{self, StoredArchive, StoredError},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};
use towline_agent::{
    archive::Identities,
    restore::{Progress, RestoreError, Source, Stage},
};

/// Resolves when the pod has to end, with who wants it.
pub type Stop<'a> = Pin<&'a mut (dyn Future<Output = String> + Send)>;

/// The pod as this process sees it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Every path of the contract lies below; `/`, but for tests.
    pub root: PathBuf,
}

impl Pod {
    /// A path of the contract.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Why it ended without what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) reason: RestoreReason,
    pub(super) message: String,
}

impl Failed {
    pub(super) fn new(reason: RestoreReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    pub(super) fn interrupted(why: String) -> Self {
        Self::new(RestoreReason::Interrupted, why)
    }
}

impl From<RestoreError> for Failed {
    fn from(error: RestoreError) -> Self {
        Self::new(RestoreReason::of(&error), error.to_string())
    }
}

impl From<StoredError> for Failed {
    fn from(error: StoredError) -> Self {
        let reason = match &error {
            StoredError::Store(_) => RestoreReason::StoreError,
            StoredError::Damaged(_) => RestoreReason::BackupDamaged,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::new(RestoreReason::StoreError, error.message)
    }
}

/// Carries a plan out. The report says how it went, whatever happened.
pub async fn run(
    pod: &Pod,
    plan: &Plan,
    progress: &Progress,
    stop: impl Future<Output = String> + Send,
) -> Report {
    let stop = std::pin::pin!(stop);
    let mut report = Report::default();
    let outcome = execute(pod, plan, progress, stop, &mut report).await;
    progress.enter(Stage::Ended, 0);
    report::fit(ended(report, outcome))
}

/// The report with how it ended.
pub(super) fn ended(mut report: Report, outcome: Result<(), Failed>) -> Report {
    if let Err(Failed { reason, message }) = outcome {
        report.reason = Some(reason);
        report.message = message;
    }
    report
}

async fn execute(
    pod: &Pod,
    plan: &Plan,
    progress: &Progress,
    stop: Stop<'_>,
    report: &mut Report,
) -> Result<(), Failed> {
    match &plan.task {
        Task::Volume { use_memory } => {
            volume::restore(pod, plan, *use_memory, progress, stop, report).await
        }
        Task::Agent {
            url,
            server_name,
            options,
        } => {
            let to = (url.as_str(), server_name.as_deref(), options);
            agent::restore(pod, plan, to, progress, stop, report).await
        }
        Task::DrillPrepare { use_memory } => {
            drill::prepare(pod, plan, *use_memory, progress, stop, report).await
        }
        Task::DrillCheck { checks } => {
            drill::check(
                pod,
                drill::Reader::Plan(plan),
                checks,
                progress,
                stop,
                report,
            )
            .await
        }
    }
}

/// Finds the backup of a plan, and that it is what it was when the restore was admitted.
pub(super) async fn find(pod: &Pod, plan: &Plan, stop: &mut Stop<'_>) -> Result<Backup, Failed> {
    tokio::select! {
        why = stop => Err(Failed::interrupted(why)),
        found = look(pod, plan) => found,
    }
}

async fn look(pod: &Pod, plan: &Plan) -> Result<Backup, Failed> {
    let secret = match &plan.store.credentials_secret_ref {
        Some(_) => Some(files(&pod.path(STORE_SECRET_DIR))?),
        None => None,
    };
    let config = from_api::mounted(&plan.store, secret)?;
    let store = Store::open(config)?;
    let manifest = catalog::read_manifest(&store, &plan.folder).await?;
    let manifest = manifest
        .filter(|m| m.outcome == Outcome::Complete)
        .ok_or_else(|| {
            let text = format!("there is no backup {} in {}", plan.folder, store.url());
            Failed::new(RestoreReason::BackupNotFound, text)
        })?;
    if manifest.expected() != plan.expected {
        return Err(Failed::new(
            RestoreReason::BackupDamaged,
            format!(
                "the manifest of {} is not what it was when the restore was admitted: somebody changed it; restore another backup",
                plan.folder
            ),
        ));
    }
    stored_archive::check_sizes(&store, &manifest).await?;
    let identities = identities(pod)?;
    if manifest.is_encrypted() && identities.is_empty() {
        return Err(Failed::new(
            RestoreReason::NotDecryptable,
            "the backup is encrypted: set spec.decryption.identitySecretRef to a Secret with the identity of one of its recipients",
        ));
    }
    Ok(Backup {
        store: Arc::new(store),
        manifest,
        identities: Arc::new(identities),
    })
}

/// Who opens the backup: none where no Secret is mounted.
fn identities(pod: &Pod) -> Result<Identities, Failed> {
    let mut identities = Identities::default();
    let file = match fs::File::open(pod.path(IDENTITY_DIR).join("identity")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(identities),
        Err(error) => {
            let text = format!("the identity cannot be read: {error}");
            return Err(Failed::new(RestoreReason::PodFailed, text));
        }
    };
    identities.add(file).map_err(|error| {
        let text = format!("the Secret of spec.decryption.identitySecretRef: {error}");
        Failed::new(RestoreReason::NotDecryptable, text)
    })?;
    Ok(identities)
}

/// A reader of a backup, from its beginning.
pub(super) fn source(backup: &Backup) -> Source<StoredArchive> {
    Source {
        archive: StoredArchive::open(Arc::clone(&backup.store), &backup.manifest),
        identities: Arc::clone(&backup.identities),
        expected: backup.manifest.expected(),
        backup_id: backup.manifest.backup_id.clone(),
    }
}

/// Folder for what tools write for a moment.
pub(super) fn scratch(pod: &Pod) -> PathBuf {
    let folder = pod.path(SCRATCH_DIR);
    if folder.is_dir() {
        folder
    } else {
        std::env::temp_dir()
    }
}

/// The keys of a mounted Secret. Kubelet's own links begin with two dots.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, Failed> {
    let unreadable = |error: io::Error| {
        let text = format!("the store's Secret cannot be read: {error}");
        Failed::new(RestoreReason::PodFailed, text)
    };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && entry.path().is_file() {
            files.insert(name, fs::read(entry.path()).map_err(unreadable)?);
        }
    }
    Ok(files)
}

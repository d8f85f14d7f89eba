//! Which backup a command works on, and who opens it.

use super::{CliError, Exit};
use crate::{
    catalog::{self, Manifest, NoBackup, Which},
    storage::Store,
    stored_archive::{self, StoredError},
};
use clap::Args;
use jiff::Timestamp;
use std::{fs::File, path::PathBuf};
use towline_agent::archive::Identities;

/// Which backup.
#[derive(Args, Debug)]
pub(super) struct WhichArgs {
    /// Which backup, as `towline ls` prints it
    #[arg(conflicts_with = "latest")]
    key: Option<String>,

    /// The newest backup of the namespace
    #[arg(long)]
    latest: bool,

    /// With --latest: of this schedule alone
    #[arg(long, value_name = "NAME", requires = "latest")]
    schedule: Option<String>,

    /// With --latest: that was complete before this time, as in 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", requires = "latest")]
    before: Option<Timestamp>,
}

/// Who opens an encrypted backup.
#[derive(Args, Debug)]
pub(super) struct IdentityArgs {
    /// File with a secret key of age, to open encrypted backups; repeatable
    #[arg(short, long = "identity", value_name = "FILE")]
    identities: Vec<PathBuf>,
}

impl WhichArgs {
    /// What was asked for.
    ///
    /// # Errors
    /// When neither a key nor `--latest` was given.
    pub(super) fn which(&self) -> Result<Which, CliError> {
        match &self.key {
            Some(key) => Ok(Which::Key(key.clone())),
            None if self.latest => Ok(Which::Latest {
                schedule: self.schedule.clone(),
                before: self.before,
            }),
            None => Err(CliError::usage(
                "say which backup: its key, as towline ls prints it, or --latest",
            )),
        }
    }
}

/// Finds a backup, and compares the sizes of its objects with its manifest.
pub(super) async fn find(
    store: &Store,
    namespace: &str,
    which: &Which,
) -> Result<Manifest, CliError> {
    let listed = catalog::list(store, namespace).await?;
    let manifest = catalog::choose(listed, namespace, which)?;
    stored_archive::check_sizes(store, &manifest).await?;
    Ok(manifest)
}

impl IdentityArgs {
    /// Reads the files.
    pub(super) fn open(&self) -> Result<Identities, CliError> {
        let mut identities = Identities::default();
        for path in &self.identities {
            File::open(path)
                .and_then(|file| identities.add(file))
                .map_err(|e| CliError::usage(format!("--identity {}: {e}", path.display())))?;
        }
        Ok(identities)
    }
}

impl From<NoBackup> for CliError {
    fn from(error: NoBackup) -> Self {
        match error {
            NoBackup::NotFound(message) => Self::failed(message),
            NoBackup::Unreadable(error) => error.into(),
        }
    }
}

impl From<StoredError> for CliError {
    fn from(error: StoredError) -> Self {
        match error {
            StoredError::Store(error) => error.into(),
            StoredError::Damaged(message) => Self {
                exit: Exit::Failed,
                message,
            },
        }
    }
}

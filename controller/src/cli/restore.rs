//! `towline restore`: a backup becomes a server's data again.

mod directory;
mod show;

use super::{
    CliError, Exit,
    store::StoreArgs,
    which::{self, IdentityArgs, WhichArgs},
};
use crate::{catalog::Manifest, storage::Store, stored_archive::StoredError};
use clap::Args;
use std::{path::PathBuf, sync::Arc};
use towline_agent::{
    archive::{ArchiveError, Identities},
    config::parse_bytes,
    restore::RestoreError,
};

/// What to restore, and where to.
#[derive(Args, Debug)]
#[command(after_help = "\
A directory has to be empty. Nothing in it is usable before the whole backup was read and matched its \
manifest and its own sums, and was prepared: the file towline-restore.json in it says whether it is. \
A restore that was interrupted is not gone on with: empty the directory and begin anew.

The last line on standard output is for scripts:
  KEY bytes=N tables=N duration=SECONDSs")]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    which: WhichArgs,

    #[command(flatten)]
    identities: IdentityArgs,

    #[command(flatten)]
    target: TargetArgs,

    /// Memory that the backup tool may use to prepare, as in 2GiB [default: the tool's]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, requires = "to_dir", help_heading = "Target")]
    use_memory: Option<u64>,

    /// Folder for what the backup tool writes for a moment [default: the system's for such]
    #[arg(long, value_name = "DIR", requires = "to_dir", help_heading = "Target")]
    scratch: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,
}

/// Where it goes: exactly one.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct TargetArgs {
    /// Into this empty directory, which becomes a server's data directory: physical backups. The tools of
    /// the server's release series have to be here: mariadb-backup and mbstream, or xtrabackup and xbstream
    #[arg(long, value_name = "DIR", help_heading = "Target")]
    to_dir: Option<PathBuf>,
}

/// A backup that was found, and what it is opened with.
struct Found {
    store: Arc<Store>,
    manifest: Manifest,
    identities: Identities,
}

impl RestoreArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let which = self.which.which()?;
        let identities = self.identities.open()?;
        let store = Arc::new(self.store.open(true)?);
        let manifest = which::find(&store, &self.store.namespace, &which).await?;
        if manifest.is_encrypted() && identities.is_empty() {
            return Err(CliError::usage(format!(
                "{} is encrypted: give --identity FILE, with the secret key of one of its recipients",
                manifest.identity.folder()
            )));
        }
        let found = Found {
            store,
            manifest,
            identities,
        };
        match self.target {
            TargetArgs {
                to_dir: Some(directory),
            } => directory::restore(found, directory, self.scratch, self.use_memory).await,
            TargetArgs { to_dir: None } => Err(CliError::usage("give --to-dir DIR")),
        }
    }
}

impl From<RestoreError> for CliError {
    fn from(error: RestoreError) -> Self {
        let exit = match &error {
            RestoreError::Archive(ArchiveError::Read(read)) => match StoredError::of(read) {
                Some(stored) => return stored.clone().into(),
                None => Exit::Failed,
            },
            RestoreError::Invalid(_) => Exit::Usage,
            RestoreError::Database(_) => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Self {
            exit,
            message: error.to_string(),
        }
    }
}

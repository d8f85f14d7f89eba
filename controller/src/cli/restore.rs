//! `towline restore`: a backup becomes a server's data again.

mod directory;
mod server;
mod show;

pub(super) use show::Shown;

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
    database::Address,
    restore::RestoreError,
};

/// What to restore, and where to.
#[derive(Args, Debug)]
#[command(after_help = "\
A directory has to be empty. Nothing in it is usable before the whole backup was read and matched its \
manifest and its own sums, and was prepared: the file towline-restore.json in it says whether it is. \
A restore that was interrupted is not gone on with: empty the directory and begin anew.

Into a running server goes a logical backup. The whole backup is read and proven before the first write, \
and proven again while it is loaded. Each database has to be absent or empty; the table \
_towline_restore_unfinished in it tells of a restore that did not come to its end: then drop the database \
and begin anew.

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
    server: server::ServerArgs,

    #[command(flatten)]
    options: server::OptionArgs,

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

    /// Into the running server of this agent, https://HOST:PORT, or http://HOST:PORT in plain text: logical
    /// backups. The agent needs --allow-restore
    #[arg(long, value_name = "URL", help_heading = "Target")]
    to_agent: Option<url::Url>,

    /// Into the running server with this socket: logical backups. Its client has to be here: mariadb, or mysql
    #[arg(long, value_name = "PATH", help_heading = "Target")]
    to_socket: Option<PathBuf>,

    /// Into the running server there: logical backups, as with --to-socket
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Target")]
    to_host: Option<String>,
}

/// Where it goes.
enum Target {
    Directory(PathBuf),
    Agent(url::Url),
    Server(Address),
}

impl TargetArgs {
    fn target(self) -> Result<Target, CliError> {
        if let Some(directory) = self.to_dir {
            return Ok(Target::Directory(directory));
        }
        if let Some(url) = self.to_agent {
            return Ok(Target::Agent(url));
        }
        if let Some(socket) = self.to_socket {
            // The client runs in a folder of its own.
            let socket = std::path::absolute(&socket).unwrap_or(socket);
            return Ok(Target::Server(Address::Socket(socket)));
        }
        match self.to_host {
            Some(host) => server::host(&host).map(Target::Server),
            None => Err(CliError::usage(
                "give --to-dir DIR, --to-agent URL, --to-socket PATH or --to-host HOST",
            )),
        }
    }
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
        let target = self.target.target()?;
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
        match target {
            Target::Directory(directory) => {
                directory::restore(found, directory, self.scratch, self.use_memory).await
            }
            Target::Agent(url) => {
                server::restore_through(found, url, self.server, self.options).await
            }
            Target::Server(address) => {
                server::restore_into(found, address, self.server, self.options).await
            }
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

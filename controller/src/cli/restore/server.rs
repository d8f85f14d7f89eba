//! Into a running server: a logical backup, by ourselves or through the server's agent.

use super::{Found, show};
use crate::{
    agent_client::{Endpoint, RestoreFailure},
    cli::{CliError, Exit, human, position, stop_signal, tls::TlsArgs, token},
    logical_restore::{self, Backup},
    reason::RestoreReason,
};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, sync::Arc, time::Duration, time::Instant};
use towline_agent::{
    database::{Address, Connection},
    restore::{self, LogicalOptions, Progress, Restored},
};

/// Longest wait for a connection to a server, and for each of its answers.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Port of MySQL and MariaDB.
const PORT: u16 = 3306;

/// How a server, or its agent, lets us in.
#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    /// User at the server; it needs what deploy/grants/*-restore.sql grant
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to_dir", "to_agent"], help_heading = "Server")]
    user: Option<String>,

    /// File with the user's password
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to_dir", "to_agent"], help_heading = "Server")]
    password_file: Option<PathBuf>,

    /// File whose first word is the agent's token, of scope restore; else the variable TOWLINE_TOKEN is
    /// taken
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "to_dir",
        help_heading = "Agent"
    )]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    tls: TlsArgs,
}

/// What of a logical backup is restored, and how.
#[derive(Args, Debug)]
pub(super) struct OptionArgs {
    /// Database to restore, repeatable [default: all of the backup]. It must not be there, or be empty
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "to_dir",
        help_heading = "Logical backups"
    )]
    database: Vec<String>,

    /// Accounts and grants too. An account that exists keeps its password
    #[arg(long, conflicts_with = "to_dir", help_heading = "Logical backups")]
    include_users: bool,

    /// Tell the server that it has the backup's transactions, so that it can become a replica from there:
    /// MySQL's gtid_purged, MariaDB's gtid_slave_pos
    #[arg(long, conflicts_with = "to_dir", help_heading = "Logical backups")]
    set_gtid: bool,

    /// Do not write what is restored into the binary log: replicas do not get it
    #[arg(long, conflicts_with = "to_dir", help_heading = "Logical backups")]
    no_binary_log: bool,

    /// Leave stored procedures and functions out
    #[arg(long, conflicts_with = "to_dir", help_heading = "Logical backups")]
    skip_routines: bool,

    /// Leave triggers out
    #[arg(long, conflicts_with = "to_dir", help_heading = "Logical backups")]
    skip_triggers: bool,

    /// Scheduled events
    #[arg(long, value_enum, default_value_t = Events::Disabled, help_heading = "Logical backups")]
    events: Events,

    /// Whose rights views, routines, triggers and events have
    #[arg(long, value_enum, default_value_t = Definers::Keep, help_heading = "Logical backups")]
    definers: Definers,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Events {
    /// Create them; none runs before somebody enables it
    Disabled,
    /// Create them as they were
    AsBackedUp,
    /// Leave them out
    Skip,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Definers {
    /// Their old definer's
    Keep,
    /// The user's that restores
    CurrentUser,
}

impl OptionArgs {
    fn options(self) -> LogicalOptions {
        LogicalOptions {
            databases: self.database,
            include_users: self.include_users,
            gtid_purged: self.set_gtid,
            binary_log: !self.no_binary_log,
            routines: !self.skip_routines,
            triggers: !self.skip_triggers,
            events: match self.events {
                Events::Disabled => restore::Events::Disabled,
                Events::AsBackedUp => restore::Events::AsBackedUp,
                Events::Skip => restore::Events::Skip,
            },
            definers: match self.definers {
                Definers::Keep => restore::Definers::Keep,
                Definers::CurrentUser => restore::Definers::CurrentUser,
            },
        }
    }
}

/// `HOST:PORT`, `[IPv6]:PORT`, or a host alone.
pub(super) fn host(text: &str) -> Result<Address, CliError> {
    let usage = || CliError::usage(format!("--to-host {text:?}: write HOST or HOST:PORT"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().map_err(|_| usage())?)
        }
        _ => (text, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || port == 0 {
        return Err(usage());
    }
    Ok(Address::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn backup(found: Found) -> Backup {
    Backup {
        store: found.store,
        manifest: found.manifest,
        identities: Arc::new(found.identities),
    }
}

/// Into a server that is reached from here.
pub(super) async fn restore_into(
    found: Found,
    address: Address,
    server: ServerArgs,
    options: OptionArgs,
) -> Result<(), CliError> {
    let Some(user) = server.user else {
        return Err(CliError::usage("give --user, the user at the server"));
    };
    let connection = Connection {
        address,
        user,
        password_file: server.password_file,
        timeout: TIMEOUT,
    };
    let backup = backup(found);
    let started = Instant::now();
    let progress = Progress::default();
    let shown = show::Shown::start(progress.clone());
    let options = options.options();
    let restored =
        logical_restore::into_server(&backup, &connection, &options, &progress, stop_signal())
            .await;
    shown.end().await;
    let place = connection.address.to_string();
    tell(&backup, &restored.map_err(CliError::from)?, &place, started);
    Ok(())
}

/// Through the server's agent.
pub(super) async fn restore_through(
    found: Found,
    base: url::Url,
    server: ServerArgs,
    options: OptionArgs,
) -> Result<(), CliError> {
    let agent = Endpoint {
        tls: server.tls.open(&base)?,
        token: token(server.token_file.as_deref())?,
        base,
        allow_local_addresses: true,
    };
    let backup = backup(found);
    let started = Instant::now();
    let progress = Progress::default();
    let shown = show::Shown::start(progress.clone());
    let options = options.options();
    let restored =
        logical_restore::through_agent(&backup, &agent, &options, &progress, stop_signal()).await;
    shown.end().await;
    let place = agent.base.to_string();
    tell(&backup, &restored?, &place, started);
    Ok(())
}

fn tell(backup: &Backup, restored: &Restored, place: &str, started: Instant) {
    let manifest = &backup.manifest;
    let folder = manifest.identity.folder();
    let metadata = &restored.metadata;
    let lines = [
        format!("{place}: restored and verified"),
        format!("  backup     {folder}, {}", human(manifest.bytes)),
        format!(
            "  of server  {} {}",
            metadata.server_flavour, metadata.server_version
        ),
        format!("  databases  {}", restored.databases.join(", ")),
        format!("  position   {}", position(&restored.summary.position)),
        format!(
            "{folder} bytes={} tables={} duration={:.1}s",
            manifest.bytes,
            restored.tables,
            started.elapsed().as_secs_f64()
        ),
    ];
    for line in lines {
        // What an archive says of itself is a peer's text too.
        let plain: String = line.chars().filter(|c| !c.is_control()).collect();
        println!("{plain}");
    }
}

impl From<RestoreFailure> for CliError {
    fn from(failure: RestoreFailure) -> Self {
        let exit = match failure.reason {
            RestoreReason::TargetUnreachable => Exit::Unreachable,
            RestoreReason::InvalidSpec => Exit::Usage,
            _ => Exit::Failed,
        };
        Self {
            exit,
            message: failure.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let shown = |text| host(text).map(|a| a.to_string()).map_err(|e| e.message);
        assert_eq!(shown("db"), Ok("db:3306".to_owned()));
        assert_eq!(shown("db:3307"), Ok("db:3307".to_owned()));
        assert_eq!(shown("[fd00::1]:3307"), Ok("fd00::1:3307".to_owned()));
        assert_eq!(shown("fd00::1"), Ok("fd00::1:3306".to_owned()));
        for bad in ["", ":1", "db:", "db:0", "db:x", "[]:1"] {
            assert!(shown(bad).unwrap_err().contains("--to-host"), "{bad}");
        }
    }
}

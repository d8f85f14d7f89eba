//! The command line `towline`: the transfer of the controller, without a cluster.

mod backup;
mod catalog;
mod ls;
mod pki;
mod restore;
mod restore_pod;
mod store;
mod tls;
mod verify;
mod which;

use crate::{reason::StoreReason, storage::StoreError};
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use towline_agent::archive::Position;

const EXAMPLES: &str = "\
Examples:
  Back a server up to a folder:
    towline backup --agent http://127.0.0.1:8474 --token-file token --store file:///srv/backups

  Over TLS, encrypted, so that only who has the secret key can open it:
    towline backup --agent https://db.example.com:8474 --ca-file ca.crt --token-file token \\
        --recipient age1... --store file:///srv/backups

  Make certificates for the agents of a namespace, and for the controller:
    towline pki --dir pki --namespace shop --agent-name agent.shop --client-name towline-controller | kubectl apply -f -

  To an S3 bucket, two schemas as SQL:
    export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...
    towline backup --agent http://db:8474 --token-file token --store s3://backups/prod \\
        --method logical --database shop --database billing

  Read the newest backup back and check every sum in it:
    towline verify --store s3://backups/prod --latest

  Restore the newest backup of a schedule into an empty data directory:
    towline restore --store s3://backups/prod --namespace shop --latest --schedule nightly \\
        --identity key.txt --to-dir /var/lib/mysql

  One schema of a logical backup into a running server, through its agent:
    towline restore --store s3://backups/prod --latest --database shop \\
        --to-agent https://db.example.com:8474 --ca-file ca.crt --token-file token

  Restore it into a folder that is thrown away, start a server on it, and ask that:
    towline verify --store s3://backups/prod --latest --deep --check 'SELECT COUNT(*) > 0 FROM shop.orders => 1'

  Make BackupJobs of the backups in a BackupStore, after the cluster was lost:
    towline catalog import offsite --namespace shop

Exit codes: 0 good, 1 the backup or restore failed or the backup is damaged, 2 wrong usage, 3 agent, store
or server unreachable.";

/// Backs up MySQL and MariaDB servers that have a towline-agent beside them.
///
/// The agent streams the backup while it is made; towline puts the stream into a bucket or a
/// folder and makes it visible only after the agent has said that it is complete and every byte
/// has arrived.
#[derive(Debug, Parser)]
#[command(name = "towline", version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pull one backup from an agent into a store
    Backup(Box<backup::BackupArgs>),
    /// List the backups of a store
    Ls(ls::LsArgs),
    /// Read a backup back and check every sum, or restore it for proof
    Verify(verify::VerifyArgs),
    /// Restore a backup, without a cluster
    Restore(Box<restore::RestoreArgs>),
    /// What a restore's Job runs
    #[command(hide = true)]
    RestorePod(restore_pod::RestorePodArgs),
    /// Make a cluster know of backups that it has forgotten
    Catalog(catalog::CatalogArgs),
    /// Make certificates for agents and controller, as Secrets; run again, it renews them
    Pki(pki::PkiArgs),
}

impl Cli {
    /// Runs the command to its end and says how it went.
    pub async fn run(self) -> ExitCode {
        init_logs();
        let outcome = match self.command {
            Command::Backup(args) => args.run().await,
            Command::Ls(args) => args.run().await,
            Command::Verify(args) => args.run().await,
            Command::Restore(args) => args.run().await,
            Command::RestorePod(args) => args.run().await,
            Command::Catalog(args) => args.run().await,
            Command::Pki(args) => args.run(),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("towline: {}", error.message);
                ExitCode::from(error.exit as u8)
            }
        }
    }
}

/// What a script sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
}

/// Why a command ended badly.
#[derive(Debug)]
struct CliError {
    exit: Exit,
    message: String,
}

impl CliError {
    fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            message: message.into(),
        }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let exit = if error.reason == StoreReason::Unreachable {
            Exit::Unreachable
        } else {
            Exit::Failed
        };
        Self {
            exit,
            message: error.message,
        }
    }
}

/// `RUST_LOG` shows more; the answers of a command do not come from the log.
fn init_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    // Fails only when there is a subscriber already, as in tests.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

/// The first word of a token file, or of the variable for it.
fn token(file: Option<&std::path::Path>) -> Result<Option<String>, CliError> {
    let Some(file) = file else {
        return Ok(std::env::var("TOWLINE_TOKEN")
            .ok()
            .filter(|t| !t.is_empty()));
    };
    let text = std::fs::read_to_string(file).map_err(|e| {
        CliError::usage(format!(
            "the token file {} cannot be read: {e}",
            file.display()
        ))
    })?;
    // The agent's own file, with scopes and comments, does too.
    let token = text
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty() && !l.starts_with('#'));
    match token.and_then(|l| l.split_whitespace().next()) {
        Some(token) => Ok(Some(token.to_owned())),
        None => Err(CliError::usage(format!(
            "the token file {} holds no token",
            file.display()
        ))),
    }
}

/// Bytes for people.
fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Where in a server's history something stands, for people.
fn position(p: &Position) -> String {
    let mut parts = Vec::new();
    match (&p.binlog_file, p.binlog_position) {
        (Some(file), Some(at)) => parts.push(format!("binlog {file}:{at}")),
        (Some(file), None) => parts.push(format!("binlog {file}")),
        _ => {}
    }
    parts.extend(p.gtid.as_ref().map(|g| format!("GTID {g}")));
    parts.extend(p.lsn.map(|l| format!("LSN {l}")));
    if parts.is_empty() {
        "not known".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Resolves when somebody asks for the end, with who did.
async fn stop_signal() -> String {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT (Ctrl-C)",
        _ = terminate.recv() => "SIGTERM",
    };
    format!("the restore was ended by {name}")
}

//! `kubectl towline`: the fleet from the command line. It is the program `towline` under another name: kubectl
//! starts what is called `kubectl-towline` on the PATH.
//!
//! It talks to the API server alone, with the rights of who calls.

mod backup;
mod cancel;
mod complete;
mod error;
mod explain;
mod kind;
mod logs;
mod ls;
mod order;
mod output;
mod restore;
mod session;
mod status;
mod text;
mod verify;
mod watch;
mod which;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use error::Failure;
use session::Connection;
use std::{ffi::OsString, path::Path, process::ExitCode};

/// File name of the program by which kubectl finds it.
const PROGRAM: &str = "kubectl-towline";
/// File name by which kubectl asks it for completions.
const COMPLETER: &str = "kubectl_complete-towline";

const HELP: &str = "\
Examples:
  Is everything backed up? What is late, what failed?
    kubectl towline status -A

  Why is this job in this state, and what can be done about it?
    kubectl towline explain nightly-29735220

  Follow what runs to its end:
    kubectl towline watch

  Which backups are there of a schedule?
    kubectl towline ls --schedule nightly

Exit codes:
  0  good
  1  what was waited for failed, or the cluster refused it
  2  wrong usage
  3  there is no such object
  4  you may not: a right is missing, or the cluster does not know you
  5  no cluster, or Towline's CRDs are not installed
Colour is used on a terminal only, and not when NO_COLOR is set.";

/// Backups of MySQL and MariaDB, as the controller of this cluster makes them.
///
/// It shows and changes Towline's objects with your own rights, and needs nothing but the API server.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-towline",
    bin_name = "kubectl towline",
    version,
    after_help = HELP,
    after_long_help = HELP,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The fleet on one screen: what is late, what failed, what runs
    Status(status::StatusArgs),
    /// List backups, schedules, jobs, restores or stores
    Ls(ls::LsArgs),
    /// Why something is in the state that it is in, and what to do
    Explain(explain::ExplainArgs),
    /// Follow a job or all that runs to the end
    Watch(watch::WatchArgs),
    /// What happened to a job: events, attempts, and the lines of controller, agent and restore's pod, by time
    Logs(logs::LogsArgs),
    /// Make a backup now
    Backup(backup::BackupArgs),
    /// Restore a backup into a server that is thrown away, for proof
    Verify(verify::VerifyArgs),
    /// Restore a backup into a volume or into a running server
    Restore(Box<restore::RestoreArgs>),
    /// End a backup or a restore that has not ended
    Cancel(cancel::CancelArgs),
    /// Write a shell's completion script
    Completion(complete::CompletionArgs),
    /// What kubectl asks for completions
    #[command(name = "__complete", hide = true)]
    Complete(complete::CompleteArgs),
}

/// Whether the program was started under the plugin's name, or under that which kubectl asks for completions.
#[must_use]
pub fn is_called(program: Option<&OsString>) -> bool {
    matches!(name(program), Some(PROGRAM | COMPLETER))
}

fn name(program: Option<&OsString>) -> Option<&str> {
    Path::new(program?).file_name()?.to_str()
}

/// Runs the plugin to its end and says how it went. Usage errors end the process, with exit code 2.
pub async fn run(arguments: Vec<OsString>, version: &'static str) -> ExitCode {
    let mut words = arguments.into_iter();
    let program = words.next();
    let asked = name(program.as_ref()) == Some(COMPLETER);
    let head = [OsString::from(PROGRAM)];
    let ask = asked.then(|| OsString::from("__complete"));
    let matches = Cli::command()
        .version(version)
        .get_matches_from(head.into_iter().chain(ask).chain(words));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match Box::pin(cli.run()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("kubectl towline: {}", failure.message);
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

impl Cli {
    async fn run(self) -> Result<(), Failure> {
        let connection = self.connection;
        match self.command {
            Command::Status(args) => args.run(&connection).await,
            Command::Ls(args) => args.run(&connection).await,
            Command::Explain(args) => args.run(&connection).await,
            Command::Watch(args) => args.run(&connection).await,
            Command::Logs(args) => args.run(&connection).await,
            Command::Backup(args) => args.run(&connection).await,
            Command::Verify(args) => args.run(&connection).await,
            Command::Restore(args) => Box::pin(args.run(&connection)).await,
            Command::Cancel(args) => Box::pin(args.run(&connection)).await,
            Command::Completion(args) => args.run(),
            Command::Complete(args) => args.run().await,
        }
    }
}

//! `towline-controller`: runs the controller, or writes the CRDs.

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};
use towline_controller::{api, config::RunArgs};

/// Backs up MySQL and MariaDB on Kubernetes: BackupSchedules make BackupJobs, BackupJobs pull a
/// stream from the agent beside the database into object storage.
#[derive(Parser)]
#[command(name = "towline-controller", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller
    Run(Box<RunArgs>),
    /// Write the custom resource definitions, to standard output or one file each
    Crds {
        /// Folder for `<plural>.towline.dev.yaml`; it must exist
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Crds { dir } => crds(dir),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline-controller: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(_args: RunArgs) -> Result<(), Box<dyn std::error::Error>> {
    Err("not built yet".into())
}

fn crds(dir: Option<PathBuf>) -> Result<(), Box<dyn std::error::Error>> {
    for (name, yaml) in api::crd_files()? {
        match &dir {
            Some(dir) => {
                let path = dir.join(name);
                std::fs::write(&path, yaml).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            None => print!("---\n{yaml}"),
        }
    }
    Ok(())
}

//! `towline-controller`: runs the controller, writes the CRDs, and what Helm runs: a check of what is
//! installed, and what has to be done before it goes.

use clap::{Parser, Subcommand};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::LazyLock,
};
use tokio::signal::unix::{SignalKind, signal};
use towline_agent::build::Build;
use towline_controller::{
    api,
    config::{Config, LogFormat, RunArgs},
    install_check::{self, CheckArgs},
    uninstall::{self, RemoveFinalizersArgs},
};
use tracing_subscriber::EnvFilter;

const BUILD: Build = Build::new(option_env!("TOWLINE_COMMIT"));
static VERSION: LazyLock<String> = LazyLock::new(|| BUILD.to_string());

/// Backs up MySQL and MariaDB on Kubernetes: BackupSchedules make BackupJobs, BackupJobs pull a
/// stream from the agent beside the database into object storage.
#[derive(Parser)]
#[command(name = "towline-controller", version = VERSION.as_str())]
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
    /// Check that an installed controller works: it is ready, a replica leads, the custom resources are served
    Check(CheckArgs),
    /// Stop the controller and take its finalizer off every BackupJob, before it is uninstalled; no backup is deleted
    RemoveFinalizers(RemoveFinalizersArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Crds { dir } => crds(dir.as_deref()),
        Command::Check(args) => once(install_check::run(args)),
        Command::RemoveFinalizers(args) => once(uninstall::run(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline-controller: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::try_from(args)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new("info,kube_runtime=warn,kube_client=warn,object_store=warn")
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        towline_controller::run::run(BUILD, config, stop).await?;
        Ok(())
    });
    // Whoever lost its Lease waits for nothing that hangs.
    runtime.shutdown_background();
    result
}

fn once<E: std::error::Error + 'static>(
    work: impl Future<Output = Result<(), E>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work)?)
}

fn crds(dir: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    for (name, yaml) in api::crd_files()? {
        match dir {
            Some(dir) => {
                let path = dir.join(name);
                std::fs::write(&path, yaml).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            None => print!("---\n{yaml}"),
        }
    }
    Ok(())
}

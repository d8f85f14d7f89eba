//! `towline`: backups from the command line, with no Kubernetes.

use clap::Parser as _;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // Usage errors end here, with exit code 2.
    let cli = towline_controller::cli::Cli::parse();
    cli.run().await
}

//! `towline`: backups from the command line, with no Kubernetes.

use clap::{CommandFactory as _, FromArgMatches as _};
use std::process::ExitCode;
use std::sync::LazyLock;
use towline_agent::build::Build;
use towline_controller::cli::Cli;

static VERSION: LazyLock<String> =
    LazyLock::new(|| Build::new(option_env!("TOWLINE_COMMIT")).to_string());

#[tokio::main]
async fn main() -> ExitCode {
    // Usage errors end here, with exit code 2.
    let matches = Cli::command().version(VERSION.as_str()).get_matches();
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli.run().await,
        Err(error) => error.exit(),
    }
}

//! `towline`: backups from the command line, with no Kubernetes; called `kubectl-towline`, `kubectl towline`.

use clap::{CommandFactory as _, FromArgMatches as _};
use std::process::ExitCode;
use std::sync::LazyLock;
use towline_agent::build::Build;
use towline_controller::{cli::Cli, kubectl};

static VERSION: LazyLock<String> =
    LazyLock::new(|| Build::new(option_env!("TOWLINE_COMMIT")).to_string());

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if kubectl::is_called(arguments.first()) {
        return Box::pin(kubectl::run(arguments, VERSION.as_str())).await;
    }
    // Usage errors end here, with exit code 2.
    let matches = Cli::command().version(VERSION.as_str()).get_matches();
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli.run().await,
        Err(error) => error.exit(),
    }
}

//! The command lines in the chart are such as the controller takes.

use super::*;
use clap::Parser;
use towline_controller::{
    config::{Config, RunArgs},
    install_check::CheckArgs,
    uninstall::RemoveFinalizersArgs,
};

/// As `towline-controller` has them.
#[derive(Parser)]
enum Cli {
    Run(Box<RunArgs>),
    Check(CheckArgs),
    RemoveFinalizers(RemoveFinalizersArgs),
}

#[test]
fn the_controller_takes_its_arguments() {
    if programs().is_none() {
        return;
    }
    for (name, values) in cases() {
        let mut seen = Vec::new();
        for object in objects(&render(&values)) {
            let pod = match object["kind"].as_str().unwrap() {
                "Pod" => &object["spec"],
                "Deployment" | "Job" => &object["spec"]["template"]["spec"],
                _ => continue,
            };
            let args = pod["containers"][0]["args"].as_array().unwrap();
            let line = args.iter().map(|arg| arg.as_str().unwrap());
            let cli = Cli::try_parse_from(std::iter::once("towline-controller").chain(line));
            seen.push(
                match cli.unwrap_or_else(|error| panic!("{name}: {error}")) {
                    Cli::Run(args) => {
                        Config::try_from(*args).unwrap_or_else(|error| panic!("{name}: {error}"));
                        "run"
                    }
                    Cli::Check(_) => "check",
                    Cli::RemoveFinalizers(_) => "remove-finalizers",
                },
            );
        }
        seen.sort_unstable();
        assert_eq!(seen, ["check", "remove-finalizers", "run"], "{name}");
    }
}

//! `towline restore-pod`: what runs in a restore's Job. Not for people, so it is hidden.

use super::{CliError, restore::Shown, stop_signal};
use crate::restore_pod::{PLAN_VARIABLE, PROGRESS_PORT, Plan, Pod, TERMINATION_LOG, progress, run};
use clap::Args;
use std::{net::SocketAddr, path::PathBuf};
use towline_agent::restore::Progress;

/// Paths of the contract with the controller are below `--root`.
#[derive(Args, Debug)]
pub(super) struct RestorePodArgs {
    /// For tests: what stands for the root of the pod's file system
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// Where GET /progress is answered
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0; 4], PROGRESS_PORT)))]
    listen: SocketAddr,
}

impl RestorePodArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let unusable = |why: String| CliError::usage(format!("{PLAN_VARIABLE}: {why}"));
        let plan = std::env::var(PLAN_VARIABLE).map_err(|_| {
            unusable("not set: the controller starts this, in a restore's pod".into())
        })?;
        let plan: Plan = serde_json::from_str(&plan).map_err(|e| unusable(e.to_string()))?;
        let pod = Pod { root: self.root };
        let progress = Progress::default();
        let _server = progress::serve(self.listen, progress.clone()).await;
        eprintln!("towline: restoring {}", plan.folder);
        let shown = Shown::start(progress.clone());
        let report = run(&pod, &plan, &progress, stop_signal()).await;
        shown.end().await;
        let path = pod.path(TERMINATION_LOG);
        let json = serde_json::to_vec(&report).map_err(|e| CliError::failed(e.to_string()))?;
        std::fs::write(&path, json).map_err(|e| {
            CliError::failed(format!(
                "the report cannot be written to {}: {e}",
                path.display()
            ))
        })?;
        match report.reason {
            None => {
                eprintln!("towline: done, {} tables", report.tables);
                Ok(())
            }
            Some(reason) => Err(CliError::failed(format!("{reason}: {}", report.message))),
        }
    }
}

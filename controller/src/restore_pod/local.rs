//! A drill without a pod: the same two steps, for a backup that was found already.

use super::{
    Check, Report,
    drill::{self, Reader},
    run::{Pod, Stop, ended},
};
use crate::logical_restore::Backup;
use towline_agent::restore::Progress;

/// Restores a physical backup into [`super::DATA_DIR`], or proves a logical one.
pub async fn prepare(pod: &Pod, backup: &Backup, progress: &Progress, stop: Stop<'_>) -> Report {
    let mut report = Report::default();
    let outcome = drill::restore(pod, backup, None, progress, stop, &mut report).await;
    ended(report, outcome)
}

/// Asks the server that runs on it, and stops it.
pub async fn check(
    pod: &Pod,
    backup: &Backup,
    checks: &[Check],
    progress: &Progress,
    stop: Stop<'_>,
) -> Report {
    let mut report = Report::default();
    let reader = Reader::Found(backup);
    let outcome = drill::check(pod, reader, checks, progress, stop, &mut report).await;
    ended(report, outcome)
}

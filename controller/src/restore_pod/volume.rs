//! A physical backup into the mounted claim.

use super::{
    DATA_DIR, Plan, Report,
    run::{Failed, Pod, Stop, find, scratch, source},
};
use crate::logical_restore::Backup;
use std::path::Path;
use towline_agent::restore::{
    Progress, Restored,
    marker::Marker,
    physical::{PhysicalTarget, physical},
};

pub(super) async fn restore(
    pod: &Pod,
    plan: &Plan,
    use_memory: Option<u64>,
    progress: &Progress,
    mut stop: Stop<'_>,
    report: &mut Report,
) -> Result<(), Failed> {
    let backup = find(pod, plan, &mut stop).await?;
    into_directory(pod, &backup, use_memory, progress, stop, report).await?;
    Ok(())
}

/// Restores into [`DATA_DIR`], and tells in the report what was done.
pub(super) async fn into_directory(
    pod: &Pod,
    backup: &Backup,
    use_memory: Option<u64>,
    progress: &Progress,
    stop: Stop<'_>,
    report: &mut Report,
) -> Result<Restored, Failed> {
    let target = PhysicalTarget {
        directory: pod.path(DATA_DIR),
        scratch: scratch(pod),
        use_memory,
    };
    // One of an earlier restore is none of ours.
    let before = has_marker(&target.directory);
    let restored = physical(source(backup), &target, progress, stop).await;
    report.target_written = !before && has_marker(&target.directory);
    match restored {
        Ok(restored) => {
            report.bytes = backup.manifest.bytes;
            report.tables = restored.tables;
            report.position = restored.summary.position.clone();
            Ok(restored)
        }
        Err(error) => {
            let mut failed = Failed::from(error);
            if report.target_written {
                failed
                    .message
                    .push_str("; the volume is not usable: empty it before another restore");
            }
            Err(failed)
        }
    }
}

fn has_marker(directory: &Path) -> bool {
    // One that cannot be read is one.
    Marker::read(directory).map_or(true, |marker| marker.is_some())
}

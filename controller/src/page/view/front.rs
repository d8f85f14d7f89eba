//! The fleet at a glance.

use super::{
    super::parts::{Badge, Shell},
    Alarm, plural,
};
use crate::fleet::{Fleet, Gravity, JobRow, RestoreRow, ScheduleRow};
use askama::Template;
use std::cmp::Reverse;

/// Rows of a table. More of them nobody reads, and each reader has them sent with every change.
const MOST_ROWS: usize = 500;
/// Rows of jobs and of restores: the latest.
const LATEST: usize = 30;

/// The fleet at a glance.
#[derive(Template)]
#[template(path = "page/front.html")]
pub(in crate::page) struct Front {
    shell: Shell,
    summary: String,
    /// Which of the namespaces is shown; empty: all.
    namespace: String,
    namespaces: Vec<String>,
    alarms: Vec<Alarm>,
    fleet: Fleet,
    /// What is left out of each table.
    more_schedules: usize,
    more_jobs: usize,
    more_restores: usize,
    more_stores: usize,
}

impl Front {
    pub(in crate::page) fn new(
        version: &'static str,
        mut fleet: Fleet,
        namespaces: Vec<String>,
        namespace: Option<&str>,
    ) -> Self {
        let summary = summary(&fleet);
        let alarms = fleet.attention.iter().take(MOST_ROWS);
        let alarms = alarms.map(|a| Alarm::new(a, fleet.time, true)).collect();
        // What runs first, then the latest.
        fleet
            .jobs
            .sort_by_key(|job| (job.running.is_none(), Reverse(job.created)));
        fleet
            .restores
            .sort_by_key(|r| (r.running.is_none(), Reverse(r.created)));
        let cut = |len: usize, most: usize| len.saturating_sub(most);
        let (more_schedules, more_stores) = (
            cut(fleet.schedules.len(), MOST_ROWS),
            cut(fleet.stores.len(), MOST_ROWS),
        );
        let (more_jobs, more_restores) = (
            cut(fleet.jobs.len(), LATEST),
            cut(fleet.restores.len(), LATEST),
        );
        fleet.schedules.truncate(MOST_ROWS);
        fleet.stores.truncate(MOST_ROWS);
        fleet.jobs.truncate(LATEST);
        fleet.restores.truncate(LATEST);
        Self {
            shell: Shell {
                title: "Backups".into(),
                version,
                now: fleet.time,
            },
            summary,
            namespace: namespace.unwrap_or_default().to_owned(),
            namespaces,
            alarms,
            fleet,
            more_schedules,
            more_jobs,
            more_restores,
            more_stores,
        }
    }

    fn state(row: &ScheduleRow) -> Badge {
        Badge::of_schedule(row.state)
    }

    fn verified(verified: &Option<bool>) -> Badge {
        Badge::of_verified(*verified)
    }

    fn ready(ready: &Option<bool>) -> Badge {
        Badge::of_ready(*ready)
    }

    fn job_phase(row: &JobRow) -> Badge {
        Badge::of_phase(row.phase.as_str())
    }

    fn restore_phase(row: &RestoreRow) -> Badge {
        Badge::of_phase(row.phase.as_str())
    }
}

/// One sentence, which a screen reader is told again when it changes.
fn summary(fleet: &Fleet) -> String {
    let count = |gravity| {
        fleet
            .attention
            .iter()
            .filter(|a| a.gravity == gravity)
            .count()
    };
    let parts: Vec<String> = [
        (Gravity::Critical, "critical", "critical"),
        (Gravity::Warning, "warning", "warnings"),
        (Gravity::Notice, "notice", "notices"),
    ]
    .into_iter()
    .filter_map(|(gravity, one, many)| {
        let count = count(gravity);
        (count > 0).then(|| plural(count, one, many))
    })
    .collect();
    let schedules = plural(fleet.schedules.len(), "schedule", "schedules");
    if fleet.schedules.is_empty() && parts.is_empty() {
        return "There is no schedule here yet.".into();
    }
    if parts.is_empty() {
        return format!("All is well: {schedules}, nothing needs attention.");
    }
    format!("{schedules}; needs attention: {}.", parts.join(", "))
}

//! `kubectl towline backup now`: a schedule's backup, made now.

use super::{
    error::Failure,
    kind::{Kind, Target},
    order::OrderArgs,
    session::{Connection, Session},
};
use crate::{
    api::{BackupJob, BackupSchedule, schedule::ConcurrencyPolicy},
    schedule::made,
};
use clap::{Args, Subcommand};
use kube::ResourceExt;

/// Which backup.
#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Make a schedule's backup now
    Now(NowArgs),
}

/// Which schedule, and how.
#[derive(Args, Debug)]
#[command(after_help = "\
The BackupJob is made of the schedule's template, as the schedule makes its own, also while it is
suspended. It is the schedule's: it counts for its retention, history and consecutive failures, and a run
that is due meanwhile follows concurrencyPolicy.

Examples:
  Before an upgrade, waiting for the end:
    kubectl towline backup now nightly --wait && helm upgrade shop ./shop

  What would be made?
    kubectl towline backup now nightly --dry-run client -o yaml")]
struct NowArgs {
    /// BackupSchedule
    #[arg(value_name = "SCHEDULE", add = super::complete::names("BackupSchedule"))]
    schedule: Target,

    #[command(flatten)]
    order: OrderArgs,
}

impl BackupArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let BackupCommand::Now(args) = self.command;
        args.order.check()?;
        if args
            .schedule
            .kind
            .is_some_and(|kind| kind != Kind::Schedule)
        {
            return Err(Failure::usage(format!(
                "{} makes no backups: name a BackupSchedule",
                args.schedule
            )));
        }
        let session = Session::connect(connection).await?;
        let schedule: BackupSchedule = session.get(&args.schedule.name).await?;
        let job = job_now(&schedule)
            .ok_or_else(|| Failure::failed("the API server gave a schedule without uid"))?;
        args.order.make(&session, job, &notes(&schedule)).await
    }
}

/// The job, to be named by the API server, so that two who ask at once get two.
fn job_now(schedule: &BackupSchedule) -> Option<BackupJob> {
    let mut job = made::job(schedule)?;
    job.metadata.generate_name = Some(format!("{}-now-", schedule.name_any()));
    Some(job)
}

/// What somebody who does not know may wonder about.
fn notes(schedule: &BackupSchedule) -> Vec<String> {
    let name = schedule.name_any();
    let mut notes = Vec::new();
    if schedule.spec.suspend {
        notes.push(format!(
            "Note: {name} is suspended; this backup is made all the same."
        ));
    }
    let active = schedule.status.iter().flat_map(|s| &s.active);
    let active: Vec<&str> = active.map(|job| job.name.as_str()).collect();
    if !active.is_empty() {
        notes.push(format!(
            "Note: {} has not ended. An agent makes one backup at a time: of the same agent, this one waits for it.",
            active.join(", ")
        ));
    }
    if schedule.spec.concurrency_policy == ConcurrencyPolicy::Replace {
        notes.push(format!(
            "Note: concurrencyPolicy of {name} is Replace: if this backup still runs when the next is due, it is cancelled for it."
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::schedule_of;
    use serde_json::json;

    fn schedule(spec: &serde_json::Value, status: &serde_json::Value) -> BackupSchedule {
        let mut object = json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule",
            "metadata": {"name": "nightly", "namespace": "shop", "uid": "u"},
            "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"source": {"url": "http://db"}, "storeRef": {"name": "s"}}}},
            "status": status,
        });
        object["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_name_is_no_scheduled_runs() {
        let schedule = schedule(&json!({}), &json!({}));
        let job = job_now(&schedule).unwrap();
        assert_eq!(job.metadata.name, None);
        assert_eq!(job.metadata.generate_name.as_deref(), Some("nightly-now-"));
        assert_eq!(schedule_of(&job).map(|o| o.name.as_str()), Some("nightly"));
        // Whatever the API server puts behind it.
        for random in ["12345", "x7k2p"] {
            let name = format!("nightly-now-{random}");
            assert_eq!(crate::schedule::plan::due_of("nightly", &name), None);
        }
        // It adds five characters, and cuts what comes before to 58.
        assert!("x".repeat(52).len() + "-now-".len() <= 58);
    }

    #[test]
    fn what_one_may_wonder_about_is_said() {
        assert!(notes(&schedule(&json!({}), &json!({}))).is_empty());
        let active = json!({"active": [{"name": "nightly-1", "uid": "j"}]});
        let all = json!({"suspend": true, "concurrencyPolicy": "Replace"});
        let notes = notes(&schedule(&all, &active));
        let words = ["suspended", "nightly-1 has not ended", "Replace"];
        assert_eq!(notes.len(), words.len());
        for (note, word) in notes.iter().zip(words) {
            assert!(note.contains(word), "{note}");
        }
    }
}

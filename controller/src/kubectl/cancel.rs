//! `kubectl towline cancel`: ends a backup or a restore that has not ended.

use super::{
    error::{Exit, Failure},
    kind::{Kind, Target},
    order::{FIELD_MANAGER, agreed, until},
    output::{note, out},
    session::{Connection, Session},
};
use crate::api::{BackupJob, RestoreJob, job::Phase, restore::RestorePhase};
use clap::Args;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

/// What to cancel.
#[derive(Args, Debug)]
#[command(after_help = "\
A BackupJob is told to end by spec.cancel, and stays as a record; a backup that stands already stays. A
RestoreJob has no such field: it is deleted, and its pod with it. What it has written stays where it is, and
is marked as unfinished (docs/restore.md); that is why it asks first.")]
pub(super) struct CancelArgs {
    /// BackupJob or RestoreJob
    #[arg(value_name = "JOB|RESTORE", add = super::complete::names(""))]
    target: Target,

    /// Wait until it has ended
    #[arg(long)]
    wait: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl CancelArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let session = Session::connect(connection).await?;
        let name = &self.target.name;
        let (job, restore) = match self.target.kind {
            Some(Kind::Job) => (Some(session.get::<BackupJob>(name).await?), None),
            Some(Kind::Restore) => (None, Some(session.get::<RestoreJob>(name).await?)),
            Some(Kind::Schedule) => {
                return Err(Failure::usage(format!(
                    "{} cannot be cancelled: name one of its jobs (kubectl towline ls jobs --schedule {name}), or suspend it: kubectl patch bksched {name} --type merge -p '{{\"spec\":{{\"suspend\":true}}}}'",
                    self.target
                )));
            }
            Some(Kind::Store) => {
                return Err(Failure::usage(format!(
                    "{} cannot be cancelled: name a BackupJob or a RestoreJob",
                    self.target
                )));
            }
            None => (
                session.find::<BackupJob>(name).await?,
                session.find::<RestoreJob>(name).await?,
            ),
        };
        match (job, restore) {
            (Some(_), Some(_)) => Err(Failure::usage(format!(
                "{name} is a BackupJob and a RestoreJob: write job/{name} or restore/{name}"
            ))),
            (Some(job), None) => self.backup(&session, job).await,
            (None, Some(restore)) => self.restore(&session, restore).await,
            (None, None) => Err(Failure::new(
                Exit::NotFound,
                format!(
                    "there is no BackupJob and no RestoreJob {name} in namespace {}: kubectl towline status shows what runs",
                    session.namespace
                ),
            )),
        }
    }

    async fn backup(&self, session: &Session, job: BackupJob) -> Result<(), Failure> {
        let name = job.name_any();
        let phase = phase_of(&job);
        if phase.is_final() {
            return Err(over("BackupJob", &name, phase.as_str()));
        }
        // The uid makes it this very job, or a conflict.
        let cancel = json!({"metadata": {"uid": job.uid()}, "spec": {"cancel": true}});
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = session.api::<BackupJob>();
        api.patch(&name, &params, &Patch::Merge(&cancel))
            .await
            .map_err(|error| session.failed::<BackupJob>("patch", Some(&name), &error))?;
        out(&format!("backupjob.towline.dev/{name} is told to end"));
        if !self.wait {
            return Ok(());
        }
        let ended = until(session, &name, |job: Option<&BackupJob>| {
            job.is_none_or(|job| phase_of(job).is_final())
        });
        match ended.await?.as_ref().map(phase_of) {
            // Deleted meanwhile: it is over, too.
            None | Some(Phase::Cancelled) => Ok(()),
            Some(phase) => Err(over("BackupJob", &name, phase.as_str())),
        }
    }

    async fn restore(&self, session: &Session, restore: RestoreJob) -> Result<(), Failure> {
        let name = restore.name_any();
        let phase = restore
            .status
            .as_ref()
            .map_or(RestorePhase::Pending, |s| s.phase);
        if phase.is_final() {
            return Err(over("RestoreJob", &name, phase.as_str()));
        }
        note(&warning(&restore));
        agreed(self.yes)?;
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: restore.uid(),
                resource_version: None,
            }),
            // It is gone when its Job and pod are.
            ..DeleteParams::foreground()
        };
        let api = session.api::<RestoreJob>();
        api.delete(&name, &params)
            .await
            .map_err(|error| session.failed::<RestoreJob>("delete", Some(&name), &error))?;
        out(&format!("restorejob.towline.dev/{name} is deleted"));
        if self.wait {
            // Another of this name may be there by then.
            let (name, uid) = (&name, restore.uid());
            until(session, name, |found: Option<&RestoreJob>| {
                found.is_none_or(|found| found.uid() != uid)
            })
            .await?;
        }
        Ok(())
    }
}

fn phase_of(job: &BackupJob) -> Phase {
    job.status.as_ref().map_or(Phase::Pending, |s| s.phase)
}

fn over(kind: &str, name: &str, phase: &str) -> Failure {
    Failure::failed(format!(
        "{kind} {name} has ended already, as {phase}: there is nothing to cancel"
    ))
}

/// What becomes of the target.
fn warning(restore: &RestoreJob) -> String {
    let name = restore.name_any();
    let left = match &restore.spec.to {
        to if to.drill.is_some() => "It is a drill: what it has restored is thrown away.".to_owned(),
        to if to.persistent_volume_claim.is_some() => {
            let claim = to.persistent_volume_claim.iter().map(|t| t.claim_name.as_str());
            format!(
                "Claim {} keeps what was written, marked as unfinished: empty it before the next restore.",
                claim.collect::<String>()
            )
        }
        _ => "The server keeps what was restored; databases that were begun have the table _towline_restore_unfinished: drop them before the next restore.".to_owned(),
    };
    format!("RestoreJob {name} is cancelled by deleting it. {left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_left_where() {
        for (to, words) in [
            (json!({"drill": {"image": "i"}}), "thrown away"),
            (
                json!({"persistentVolumeClaim": {"claimName": "data"}}),
                "Claim data keeps",
            ),
            (
                json!({"agent": {"url": "http://db"}}),
                "_towline_restore_unfinished",
            ),
        ] {
            let restore = serde_json::from_value(json!({
                "apiVersion": "towline.dev/v1alpha1", "kind": "RestoreJob", "metadata": {"name": "r"},
                "spec": {"from": {"backupJobRef": {"name": "b"}}, "to": to},
            }));
            let text = warning(&restore.unwrap());
            assert!(text.contains(words), "{text}");
        }
    }
}

//! What a drill has proven goes into the bucket and onto the BackupJob, before the drill becomes final.

use super::{Kind, Subject, outcome::Outcome, plan};
use crate::{
    api::{
        BackupJob, RestoreJobStatus,
        conditions::{self, Status},
        job::VERIFIED,
        restore::{RestorePhase, RestoredBackup},
    },
    catalog::{Proof, Verdict},
    context::STORE_PATIENCE,
    error::Error,
    job::schedule_of,
    reason::RestoreReason,
};
use kube::{Api, Resource, ResourceExt, api::PostParams, runtime::controller::Action};
use std::time::Duration;

/// When a store that did not take a proof is asked again.
const STORE_DELAY: Duration = Duration::from_secs(15);
/// How often a status is written anew when somebody else has changed the object.
const TRIES: usize = 5;

/// What an outcome says of the backup; `None`: nothing.
fn verdict(outcome: &Outcome) -> Option<Verdict> {
    match outcome.reason {
        None => Some(Verdict::Passed),
        Some(reason) if reason.blames_backup() => Some(Verdict::Failed),
        Some(_) => None,
    }
}

/// The word of `towline_drills_total`.
fn result(status: &RestoreJobStatus) -> &'static str {
    match (status.phase, status.reason) {
        (RestorePhase::Succeeded, _) => "Passed",
        (_, Some(reason)) if reason.blames_backup() => "Failed",
        _ => "Error",
    }
}

impl Subject<'_> {
    /// Writes a drill's proof. `Err`: not yet, it is tried again.
    pub(super) async fn prove(
        &mut self,
        outcome: Outcome,
    ) -> Result<Result<Outcome, Action>, Error> {
        if self.kind() != Kind::Drill {
            return Ok(Ok(outcome));
        }
        let (Some(verdict), Some(backup)) = (verdict(&outcome), self.status().backup) else {
            return Ok(Ok(outcome));
        };
        if let Err(problem) = self.write_proof(verdict, &outcome, &backup).await {
            let message = format!("the result cannot be written into the bucket: {problem}");
            if !plan::is_over(&self.job.spec, &self.status(), self.now) {
                self.change(|record| record.wait(RestoreReason::StoreError, &message))
                    .await?;
                return Ok(Err(Action::requeue(STORE_DELAY)));
            }
            let found = match verdict {
                Verdict::Passed => "the backup restores".to_owned(),
                Verdict::Failed => format!("the backup is at fault ({})", outcome.message),
            };
            return Ok(Ok(Outcome {
                reason: Some(RestoreReason::StoreError),
                message: format!("{found}, but {message}"),
                ..outcome
            }));
        }
        self.mark_backup(verdict, &outcome, &backup).await?;
        self.context.upkeep.wake(&self.namespace, &backup.store);
        Ok(Ok(outcome))
    }

    async fn write_proof(
        &self,
        verdict: Verdict,
        outcome: &Outcome,
        backup: &RestoredBackup,
    ) -> Result<(), String> {
        let store = match self.context.store(&self.namespace, &backup.store) {
            Some(Ok(store)) => store,
            _ => return Err(format!("BackupStore {} is gone or malformed", backup.store)),
        };
        let store = crate::store::open(self.context, &store)
            .await
            .map_err(|e| e.message)?;
        let image = self.job.spec.to.drill.as_ref().map(|d| d.image.clone());
        let proof = Proof {
            reason: outcome.reason,
            message: outcome.message.clone(),
            checks: outcome.report.checks.clone(),
            tables: outcome.report.tables,
            rows: outcome.report.rows,
            position: outcome.report.position.clone(),
            image: image.unwrap_or_default(),
            ..Proof::new(
                &self.context.cluster_id,
                &backup.backup_id,
                outcome.at.unwrap_or(self.now),
                verdict,
            )
        };
        match tokio::time::timeout(STORE_PATIENCE, proof.write(&store, &backup.key)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.message),
            Err(_) => Err(format!("{} does not answer", store.url())),
        }
    }

    /// Sets `Verified` on the BackupJob that made the backup, if that is still there.
    async fn mark_backup(
        &self,
        verdict: Verdict,
        outcome: &Outcome,
        backup: &RestoredBackup,
    ) -> Result<(), Error> {
        let jobs = Api::<BackupJob>::namespaced(self.context.client.clone(), &self.namespace);
        let tail = format!("{}/manifest.json", backup.key);
        let (status, reason, message) = told(verdict, outcome, &self.name);
        for _ in 0..TRIES {
            let Some(mut job) = jobs.get_opt(&backup.backup_job).await? else {
                return Ok(());
            };
            let Some(job_status) = &mut job.status else {
                return Ok(());
            };
            let key = job_status.manifest_key.as_deref().unwrap_or_default();
            // Another job may have taken the name.
            if !key.ends_with(&tail) {
                return Ok(());
            }
            let before = job_status.conditions.clone();
            let generation = job.metadata.generation;
            conditions::set(
                &mut job_status.conditions,
                VERIFIED,
                status,
                reason,
                &message,
                generation,
                self.now,
            );
            if job_status.conditions == before {
                return Ok(());
            }
            let name = job.name_any();
            match jobs
                .replace_status(&name, &PostParams::default(), &job)
                .await
            {
                Ok(_) => {
                    let about = job.object_ref(&());
                    let report = &self.context.report;
                    match verdict {
                        Verdict::Passed => {
                            report.normal(&about, "Verified", "Verify", &message).await;
                        }
                        Verdict::Failed => report.warning(&about, reason, "Verify", &message).await,
                    }
                    return Ok(());
                }
                Err(kube::Error::Api(refused)) if refused.code == 409 => {}
                Err(kube::Error::Api(refused)) if refused.code == 404 => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Conflict)
    }

    /// Counts a drill that has just become final.
    pub(super) fn count_drill(&self, status: &RestoreJobStatus) {
        if self.kind() == Kind::Drill {
            let schedule = schedule_of(&self.job).map(|o| o.name.as_str());
            self.context
                .metrics
                .drill_ended(&self.namespace, schedule, result(status));
        }
    }
}

/// Status, reason and message of `Verified`.
fn told(verdict: Verdict, outcome: &Outcome, drill: &str) -> (Status, &'static str, String) {
    let report = &outcome.report;
    match (verdict, outcome.reason) {
        (Verdict::Failed, Some(reason)) => (
            Status::False,
            reason.as_str(),
            format!("drill {drill}: {}", outcome.message),
        ),
        _ => {
            let rows = report.rows.map(|rows| format!(", {rows} rows"));
            (
                Status::True,
                "Restored",
                format!(
                    "drill {drill}: {} tables{}, {} checks",
                    report.tables,
                    rows.unwrap_or_default(),
                    report.checks.len()
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proven_fault_of_the_backup_fails_a_drill() {
        let outcome = |reason| Outcome {
            reason,
            ..Outcome::default()
        };
        assert_eq!(verdict(&outcome(None)), Some(Verdict::Passed));
        for reason in RestoreReason::ALL {
            let blamed = matches!(
                reason,
                RestoreReason::BackupDamaged | RestoreReason::CheckFailed
            );
            let expected = blamed.then_some(Verdict::Failed);
            assert_eq!(verdict(&outcome(Some(reason))), expected, "{reason}");
            let status = RestoreJobStatus {
                phase: RestorePhase::Failed,
                reason: Some(reason),
                ..RestoreJobStatus::default()
            };
            assert_eq!(result(&status), if blamed { "Failed" } else { "Error" });
        }
    }

    #[test]
    fn what_the_backup_job_says() {
        let mut outcome = Outcome::default();
        outcome.report.tables = 14;
        outcome.report.rows = Some(7);
        let (status, reason, message) = told(Verdict::Passed, &outcome, "d");
        assert_eq!((status, reason), (Status::True, "Restored"));
        assert_eq!(message, "drill d: 14 tables, 7 rows, 0 checks");
        outcome.reason = Some(RestoreReason::CheckFailed);
        outcome.message = "shop.orders is missing".into();
        let (status, reason, message) = told(Verdict::Failed, &outcome, "d");
        assert_eq!((status, reason), (Status::False, "CheckFailed"));
        assert_eq!(message, "drill d: shop.orders is missing");
    }
}

//! The `BackupJob` reconciler: observe, plan, act. A transfer never runs in here: it is started,
//! observed and cancelled.

mod act;
mod decide;
pub mod deletion;
mod import;
pub mod plan;
mod queue;
pub mod record;
pub mod source;
pub mod transfers;

use crate::{
    api::{BackupJob, BackupJobStatus, job::Phase},
    catalog::JobIdentity,
    context::Context,
    error::Error,
    reason::FailureReason,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt, api::PostParams, runtime::controller::Action};
use plan::{Observed, Step};
use record::Record;
use std::{sync::Arc, time::Duration};
use transfers::JobRef;

/// How often a running job is looked at.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// One job, as one reconcile sees it.
struct Subject<'a> {
    context: &'a Context,
    api: Api<BackupJob>,
    namespace: String,
    name: String,
    uid: String,
    reference: JobRef,
    job: BackupJob,
    /// Taken up, and not written yet: whatever is written next says so.
    taken_up: bool,
    now: Timestamp,
}

/// Brings one job one step further.
///
/// # Errors
/// When the API server does not let us; nothing is lost, the step is planned again.
pub async fn reconcile(job: Arc<BackupJob>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = job.namespace().ok_or(Error::Malformed("namespace"))?;
    let name = job.name_any();
    let uid = job.uid().ok_or(Error::Malformed("uid"))?;
    let reference = JobRef::new(&name).within(&namespace);
    context.transfers.forget_others(&reference, Some(&uid));
    let going = job.metadata.deletion_timestamp.is_some();
    if going {
        context.transfers.forget(&uid);
        if !deletion::is_held(&job) {
            return Ok(Action::await_change());
        }
    }

    let status = job.status.clone().unwrap_or_default();
    match context.transfers.attempt(&uid) {
        // Our own claim has not come back yet.
        Some(ours) if status.attempt < ours => {
            return Ok(Action::requeue(Duration::from_millis(500)));
        }
        Some(ours) if status.attempt > ours => {
            tracing::warn!(
                namespace,
                name,
                ours,
                claimed = status.attempt,
                "another process claimed the job: ours is stopped"
            );
            context.transfers.forget(&uid);
        }
        _ => {}
    }
    let mut subject = Subject {
        api: Api::namespaced(context.client.clone(), &namespace),
        context: &context,
        namespace,
        name,
        uid,
        reference,
        job: BackupJob::clone(&job),
        taken_up: false,
        now: Timestamp::now(),
    };
    if going {
        return subject.finalize().await;
    }
    let held = deletion::is_to_be_held(&subject.job);
    if held != deletion::is_held(&subject.job) {
        subject.hold(held).await?;
    }
    let step = subject.plan();
    if step != Step::Start {
        // Whatever comes next, it is no transfer: a job that waited for one waits no more.
        subject.context.transfers.leave(&subject.uid);
    }
    match step {
        // Nothing is done outside before a status was written, and that fails when the cache lags.
        Step::Rest | Step::Wait(_) | Step::Stop(_) | Step::Report | Step::TakeUp | Step::Start => {
            subject.act(step).await
        }
        // These have effects outside: they are planned again on the object as it is now.
        _ => match subject.api.get_opt(&subject.name).await? {
            Some(live) if live.uid().as_deref() == Some(&subject.uid) => {
                subject.job = live;
                let step = subject.plan();
                if step != Step::Start {
                    subject.context.transfers.leave(&subject.uid);
                }
                subject.act(step).await
            }
            _ => {
                subject.context.transfers.leave(&subject.uid);
                Ok(Action::await_change())
            }
        },
    }
}

impl Subject<'_> {
    fn status(&self) -> BackupJobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn plan(&self) -> Step {
        plan::plan(&Observed {
            spec: &self.job.spec,
            status: &self.status(),
            local: self.context.transfers.local(&self.uid),
            now: self.now,
        })
    }

    async fn act(&mut self, step: Step) -> Result<Action, Error> {
        match step {
            Step::Rest => Ok(Action::await_change()),
            Step::Wait(until) => Ok(self.at(until)),
            Step::Report => self.report().await,
            Step::Stop(reason) => {
                self.context.transfers.cancel(&self.uid, reason);
                Ok(Action::await_change())
            }
            Step::Delete => self.delete().await,
            Step::TakeUp => {
                let mut status = self.status();
                self.record(&mut status).take_up();
                self.job.status = Some(status);
                self.taken_up = true;
                let next = self.plan();
                Box::pin(self.act(next)).await
            }
            Step::Start => self.start().await,
            Step::Import(import) => self.import(&import).await,
            Step::Record => self.record_ended().await,
            Step::Recover => self.recover().await,
            Step::Conclude { reason, message } => self.conclude(reason, &message).await,
        }
    }

    /// Looks again at `until`.
    fn at(&self, until: Timestamp) -> Action {
        Action::requeue(
            Duration::try_from(until.duration_since(self.now))
                .unwrap_or_default()
                .max(Duration::from_millis(10)),
        )
    }

    /// Changes the status and writes it, if that changes anything. A conflict means that somebody
    /// else has changed the object: nothing may follow from what we read.
    async fn change<R>(&mut self, change: impl FnOnce(&mut Record<'_>) -> R) -> Result<R, Error> {
        let mut status = self.status();
        let result = change(&mut self.record(&mut status));
        if self.taken_up || self.job.status.as_ref() != Some(&status) {
            let mut job = self.job.clone();
            job.status = Some(status);
            self.job = self
                .api
                .replace_status(&self.name, &PostParams::default(), &job)
                .await?;
            self.taken_up = false;
        }
        Ok(result)
    }

    fn record<'a>(&'a self, status: &'a mut BackupJobStatus) -> Record<'a> {
        Record {
            spec: &self.job.spec,
            uid: &self.uid,
            generation: self.job.metadata.generation,
            status,
            now: self.now,
        }
    }

    async fn report(&mut self) -> Result<Action, Error> {
        if let Some((progress, rate)) = self.context.transfers.progress(&self.uid, self.now) {
            self.change(|record| record.report(&progress, Some(rate)))
                .await?;
        }
        let status = self.status();
        let deadline = plan::deadline(&self.job.spec, &status)
            .and_then(|end| Duration::try_from(end.duration_since(self.now)).ok())
            .unwrap_or(REPORT_EVERY);
        Ok(Action::requeue(
            deadline.clamp(Duration::from_millis(10), REPORT_EVERY),
        ))
    }

    /// Its time to live is over. What it stored stays.
    async fn delete(&self) -> Result<Action, Error> {
        if deletion::delete_record(&self.context.client, &self.job).await? {
            tracing::info!(
                namespace = self.namespace,
                name = self.name,
                "deleted after ttlSecondsAfterFinished"
            );
        }
        Ok(Action::await_change())
    }

    /// Whose backup it is: fixes its keys.
    fn identity(&self, store_uid: Option<String>) -> Result<JobIdentity, Error> {
        let schedule = schedule_of(&self.job);
        Ok(JobIdentity {
            cluster_id: self.context.cluster_id.to_string(),
            namespace: self.namespace.clone(),
            job_name: self.name.clone(),
            job_uid: self.uid.clone(),
            schedule_name: schedule.map(|o| o.name.clone()),
            schedule_uid: schedule.map(|o| o.uid.clone()),
            store_uid,
            created: self
                .job
                .metadata
                .creation_timestamp
                .as_ref()
                .ok_or(Error::Malformed("creationTimestamp"))?
                .0,
        })
    }

    /// Counts a job that has just ended.
    fn count_end(&self) {
        let status = self.status();
        let reason = status.reason.filter(|_| status.phase != Phase::Succeeded);
        let schedule = schedule_of(&self.job).map(|o| o.name.as_str());
        self.context
            .metrics
            .job_ended(&self.namespace, schedule, status.phase, reason);
    }

    /// Counts an attempt that has just ended.
    fn count_attempt(&self, reason: Option<FailureReason>) {
        let schedule = schedule_of(&self.job).map(|o| o.name.as_str());
        self.context
            .metrics
            .attempt_ended(&self.namespace, schedule, reason);
    }

    fn object(&self) -> k8s_openapi::api::core::v1::ObjectReference {
        self.job.object_ref(&())
    }
}

/// The schedule that made a job.
#[must_use]
pub fn schedule_of(job: &impl ResourceExt) -> Option<&OwnerReference> {
    job.owner_references().iter().find(|o| {
        o.kind == "BackupSchedule"
            && o.api_version.starts_with("towline.dev/")
            && o.controller == Some(true)
    })
}

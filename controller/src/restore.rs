//! The `RestoreJob` reconciler: observe, plan, act. The data moves in a Job of its own, which has no
//! rights here: it is made once, looked at, and its report is believed.

mod create;
mod outcome;
pub mod plan;
pub mod pod;
mod progress;
mod proof;
mod record;
mod resolve;
pub mod series;
mod target;
mod tidy;

use crate::{
    api::{
        RestoreJob, RestoreJobSpec, RestoreJobStatus, conditions,
        restore::{FAILED, PROGRESSING, RestorePhase},
    },
    context::Context,
    error::Error,
    reason::RestoreReason,
};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, PostParams},
    runtime::controller::Action,
};
use outcome::{Observed, Outcome, Seen, Wait};
use plan::Step;
use record::Record;
use resolve::Found;
use std::{sync::Arc, time::Duration};

/// How often a restore that runs is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// When a store that cannot be used is looked at again.
const STORE_POLL: Duration = Duration::from_secs(5);

/// Where a restore goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Into a volume.
    Volume,
    /// Into a running server, through its agent.
    Agent,
    /// Into a server that is thrown away.
    Drill,
}

impl Kind {
    /// Of a spec.
    #[must_use]
    pub fn of(spec: &RestoreJobSpec) -> Self {
        if spec.to.drill.is_some() {
            Self::Drill
        } else if spec.to.agent.is_some() {
            Self::Agent
        } else {
            Self::Volume
        }
    }

    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Agent => "agent",
            Self::Drill => "drill",
        }
    }
}

/// Why a restore is not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    reason: RestoreReason,
    message: String,
}

impl Refusal {
    fn new(reason: RestoreReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    fn spec(message: impl Into<String>) -> Self {
        Self::new(RestoreReason::InvalidSpec, message)
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(RestoreReason::BackupNotFound, message)
    }
}

/// One restore, as one reconcile sees it.
struct Subject<'a> {
    context: &'a Context,
    api: Api<RestoreJob>,
    namespace: String,
    name: String,
    uid: String,
    job: RestoreJob,
    now: Timestamp,
}

/// Brings one restore one step further.
///
/// # Errors
/// When the API server does not let us; nothing is lost, the step is planned again.
pub async fn reconcile(job: Arc<RestoreJob>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = job.namespace().ok_or(Error::Malformed("namespace"))?;
    // What belongs to it goes with it.
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut subject = Subject {
        api: Api::namespaced(context.client.clone(), &namespace),
        context: &context,
        namespace,
        name: job.name_any(),
        uid: job.uid().ok_or(Error::Malformed("uid"))?,
        job: RestoreJob::clone(&job),
        now: Timestamp::now(),
    };
    match subject.plan() {
        Step::Rest => return Ok(Action::await_change()),
        Step::Wait(until) => return Ok(subject.at(until)),
        _ => {}
    }
    // All else has effects outside: it is planned again on the object as it is now.
    match subject.api.get_opt(&subject.name).await? {
        Some(live)
            if live.uid().as_deref() == Some(&subject.uid)
                && live.metadata.deletion_timestamp.is_none() =>
        {
            subject.job = live;
            let step = subject.plan();
            Box::pin(subject.act(step)).await
        }
        _ => Ok(Action::await_change()),
    }
}

impl Subject<'_> {
    fn status(&self) -> RestoreJobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn kind(&self) -> Kind {
        Kind::of(&self.job.spec)
    }

    fn plan(&self) -> Step {
        plan::plan(&self.job.spec, &self.status(), self.now)
    }

    async fn act(&mut self, step: Step) -> Result<Action, Error> {
        match step {
            Step::Rest => Ok(Action::await_change()),
            Step::Wait(until) => Ok(self.at(until)),
            Step::Tidy => self.tidy().await,
            Step::Delete => self.delete().await,
            Step::TakeUp => {
                self.change(|record| record.take_up()).await?;
                let next = self.plan();
                Box::pin(self.act(next)).await
            }
            Step::Resolve => self.resolve().await,
            Step::Admit => self.admit().await,
            Step::Create => Box::pin(self.create()).await,
            Step::Watch => Box::pin(self.watch()).await,
            Step::Conclude { reason, message } => self.refuse(&Refusal { reason, message }).await,
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
    async fn change(&mut self, change: impl FnOnce(&mut Record<'_>)) -> Result<(), Error> {
        let mut status = self.status();
        change(&mut Record {
            spec: &self.job.spec,
            generation: self.job.metadata.generation,
            status: &mut status,
            now: self.now,
        });
        if self.job.status.as_ref() != Some(&status) {
            let mut job = self.job.clone();
            job.status = Some(status);
            self.job = self
                .api
                .replace_status(&self.name, &PostParams::default(), &job)
                .await?;
        }
        Ok(())
    }

    async fn resolve(&mut self) -> Result<Action, Error> {
        match self.find().await? {
            Found::Backup(backup) => {
                let note = format!(
                    "restores {} of {} {}",
                    backup.key, backup.server_flavour, backup.server_version
                );
                self.change(|record| record.resolved(*backup)).await?;
                self.tell("Resolved", "Resolve", &note).await;
                let next = self.plan();
                Box::pin(self.act(next)).await
            }
            Found::Later(reason, message) => {
                let told = self.status().reason == Some(reason);
                self.change(|record| record.wait(reason, &message)).await?;
                if !told {
                    self.warn(reason.as_str(), "Wait", &message).await;
                }
                Ok(Action::requeue(STORE_POLL))
            }
            Found::Refused(refusal) => self.refuse(&refusal).await,
        }
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    async fn watch(&mut self) -> Result<Action, Error> {
        let status = self.status();
        if let Some(wait) = too_early(&status, self.now) {
            return Ok(Action::requeue(wait));
        }
        let name = status.job.clone().unwrap_or_default();
        let job = self.jobs().get_opt(&name).await?;
        let job = job.filter(|job| job.uid() == status.job_uid);
        let pod = self.pod(status.job_uid.as_deref()).await?;
        let seen = outcome::look(&Observed {
            kind: self.kind(),
            job: job.as_ref(),
            pod: pod.as_ref(),
            had_pod: status.pod.is_some(),
            waiting: status.waiting_since.as_ref().and_then(|since| {
                let progressing = conditions::get(&status.conditions, PROGRESSING)?;
                Some((Wait::of(&progressing.reason)?, since.0))
            }),
            over: plan::is_over(&self.job.spec, &self.status(), self.now),
            now: self.now,
        });
        let pod_name = pod.as_ref().map(ResourceExt::name_any);
        match seen {
            Seen::Waiting(wait, why) => {
                self.change(|record| record.waiting(pod_name.as_deref(), wait, &why))
                    .await?;
                Ok(Action::requeue(LOOK_EVERY))
            }
            Seen::Running => {
                let look = match &pod {
                    Some(pod) => progress::ask(pod).await,
                    None => None,
                };
                let pod = pod_name.unwrap_or_default();
                self.change(|record| record.running(&pod, look)).await?;
                Ok(Action::requeue(LOOK_EVERY))
            }
            Seen::Ended(outcome) => self.end(*outcome).await,
        }
    }

    /// The pod of our Job.
    async fn pod(&self, job_uid: Option<&str>) -> Result<Option<Pod>, Error> {
        let label = format!("{}={}", pod::LABEL_UID, self.uid);
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &self.namespace)
            .list(&ListParams::default().labels(&label))
            .await?;
        let ours = pods.items.into_iter().filter(|pod| {
            let owners = pod.owner_references();
            owners
                .iter()
                .any(|o| Some(o.uid.as_str()) == job_uid && o.controller == Some(true))
        });
        // There is only one, unless somebody meddles.
        Ok(ours.max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0)))
    }

    /// Nothing was begun.
    async fn refuse(&mut self, refusal: &Refusal) -> Result<Action, Error> {
        let Refusal { reason, message } = refusal;
        self.change(|record| record.conclude(*reason, message))
            .await?;
        self.ended().await
    }

    /// The pod has ended. What a drill has proven is written down before the restore becomes final.
    async fn end(&mut self, outcome: Outcome) -> Result<Action, Error> {
        let outcome = match self.prove(outcome).await? {
            Ok(outcome) => outcome,
            Err(wait) => return Ok(wait),
        };
        self.change(|record| record.end(&outcome)).await?;
        self.ended().await
    }

    /// Counts and tells a restore that has just become final.
    async fn ended(&mut self) -> Result<Action, Error> {
        let status = self.status();
        self.context.metrics.restore_ended(
            &self.namespace,
            self.kind(),
            status.phase,
            status.reason,
        );
        self.count_drill(&status);
        if status.phase == RestorePhase::Succeeded {
            let note = record::success(&status);
            tracing::info!(
                namespace = self.namespace,
                name = self.name,
                note,
                "restore succeeded"
            );
            self.tell("Succeeded", "Complete", &note).await;
        } else {
            let failed = conditions::get(&status.conditions, FAILED);
            let (reason, message) = failed.map_or(("Failed", ""), |c| (&c.reason, &c.message));
            tracing::warn!(
                namespace = self.namespace,
                name = self.name,
                reason,
                detail = message,
                "restore failed"
            );
            self.warn(reason, "Complete", message).await;
        }
        self.tidy().await
    }

    async fn tell(&self, reason: &str, action: &str, note: &str) {
        let about = self.job.object_ref(&());
        self.context
            .report
            .normal(&about, reason, action, note)
            .await;
    }

    async fn warn(&self, reason: &str, action: &str, note: &str) {
        let about = self.job.object_ref(&());
        self.context
            .report
            .warning(&about, reason, action, note)
            .await;
    }
}

/// How long not to look: what was just written calls here again at once.
fn too_early(status: &RestoreJobStatus, now: Timestamp) -> Option<Duration> {
    let last = status.progress.as_ref()?.last_progress_time.as_ref()?.0;
    let since = Duration::try_from(now.duration_since(last)).ok()?;
    LOOK_EVERY.checked_sub(since).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::restore::RestoreProgress;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn looks_have_their_distance() {
        let t = |milliseconds: i64| Timestamp::from_millisecond(1_000_000 + milliseconds).unwrap();
        let mut status = RestoreJobStatus::default();
        assert_eq!(too_early(&status, t(0)), None);
        status.progress = Some(RestoreProgress {
            last_progress_time: Some(Time(t(0))),
            ..RestoreProgress::default()
        });
        let wait = |now| too_early(&status, t(now));
        assert_eq!(wait(500), Some(Duration::from_millis(2500)));
        assert_eq!((wait(3000), wait(9000)), (None, None));
        assert_eq!(wait(-5000), None, "the clock was set back");
    }
}

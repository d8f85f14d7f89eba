//! What is left after a restore: its record, and of one that was no drill its pod's log.

use super::{Kind, Subject, outcome, plan::Step};
use crate::error::Error;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerStatus, Pod},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::controller::Action,
};

impl Subject<'_> {
    /// A Job whose pod has ended stays for its log, until its RestoreJob goes; but what may still run is
    /// ended, and of a drill nothing stays.
    pub(super) async fn tidy(&mut self) -> Result<Action, Error> {
        let status = self.status();
        if let Some(name) = &status.job {
            let job = self.jobs().get_opt(name).await?;
            let ours = job.filter(|job| {
                let owners = job.owner_references();
                owners.iter().any(|o| o.uid == self.uid)
            });
            if let Some(job) = ours
                && (self.kind() == Kind::Drill || self.may_run(&job).await?)
            {
                // The uid makes it this very Job, or a conflict; its pod goes with it.
                let delete = DeleteParams::background().preconditions(Preconditions {
                    uid: job.uid(),
                    resource_version: None,
                });
                gone(self.jobs().delete(name, &delete).await)?;
            }
            if self.kind() == Kind::Drill {
                let policies =
                    Api::<NetworkPolicy>::namespaced(self.context.client.clone(), &self.namespace);
                let ours = policies.get_opt(name).await?.filter(|policy| {
                    let owners = policy.owner_references();
                    owners.iter().any(|o| o.uid == self.uid)
                });
                if ours.is_some() {
                    gone(policies.delete(name, &DeleteParams::default()).await)?;
                }
            }
        }
        self.change(|record| record.tidied()).await?;
        let next = self.plan();
        match next {
            Step::Wait(until) => Ok(self.at(until)),
            Step::Delete => self.delete().await,
            _ => Ok(Action::await_change()),
        }
    }

    /// Whether something of a Job may still run. The kubelet tells of a pod's end before the Job's own
    /// controller does.
    async fn may_run(&self, job: &Job) -> Result<bool, Error> {
        if outcome::has_ended(job) {
            return Ok(false);
        }
        let pod = Box::pin(self.pod(job.uid().as_deref())).await?;
        Ok(!pod.is_some_and(|pod| is_over(&pod)))
    }

    /// Its time to live is over. What it restored stays.
    pub(super) async fn delete(&self) -> Result<Action, Error> {
        let delete = DeleteParams::background().preconditions(Preconditions {
            uid: Some(self.uid.clone()),
            resource_version: None,
        });
        gone(self.api.delete(&self.name, &delete).await)?;
        tracing::info!(
            namespace = self.namespace,
            name = self.name,
            "deleted after ttlSecondsAfterFinished"
        );
        Ok(Action::await_change())
    }
}

/// Whether every container of a pod, none of which is started again, has ended.
fn is_over(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.container_statuses.as_ref());
    containers.is_some_and(|all| {
        let ended = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.terminated.is_some());
        !all.is_empty() && all.iter().all(ended)
    })
}

/// What is gone already, or is another by now, is as good as deleted.
fn gone<T>(deleted: kube::Result<T>) -> Result<(), Error> {
    match deleted {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_over_when_all_of_it_is() {
        let ended = json!({"terminated": {"exitCode": 0}});
        let runs = json!({"running": {}});
        for (states, over) in [
            (vec![&ended], true),
            (vec![&ended, &runs], false),
            (vec![&runs], false),
            (vec![], false),
        ] {
            let statuses: Vec<_> = states
                .iter()
                .map(|state| json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}))
                .collect();
            let pod = json!({"status": {"containerStatuses": statuses}});
            assert_eq!(
                is_over(&serde_json::from_value(pod).unwrap()),
                over,
                "{states:?}"
            );
        }
        assert!(!is_over(&Pod::default()));
    }
}

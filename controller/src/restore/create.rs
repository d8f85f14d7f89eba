//! The Job of a restore is made once: its name is written first, its uid after.

use super::{Refusal, Subject, pod, target::Prepared};
use crate::{error::Error, reason::RestoreReason};
use k8s_openapi::api::{batch::v1::Job, networking::v1::NetworkPolicy};
use kube::{Api, ResourceExt, api::PostParams, runtime::controller::Action};
use std::time::Duration;

/// When to look again whether what goes with another object is gone.
const GOING: Duration = Duration::from_secs(2);

impl Subject<'_> {
    /// The name of the Job is written before anything is made.
    pub(super) async fn admit(&mut self) -> Result<Action, Error> {
        match self.prepare(&pod::job_name(&self.name)).await? {
            Prepared::Ready(_) => {
                let job = pod::job_name(&self.name);
                self.change(|record| record.admitted(&job)).await?;
                Box::pin(self.create()).await
            }
            Prepared::Refused(refusal) => self.refuse(&refusal).await,
        }
    }

    /// Creates the Job, or finds that an earlier try has.
    pub(super) async fn create(&mut self) -> Result<Action, Error> {
        let Some(name) = self.status().job else {
            return Err(Error::Malformed("status.job"));
        };
        let jobs = self.jobs();
        if let Some(found) = jobs.get_opt(&name).await? {
            return self.created(&name, &found).await;
        }
        let prepared = match self.prepare(&name).await? {
            Prepared::Ready(prepared) => prepared,
            Prepared::Refused(refusal) => return self.refuse(&refusal).await,
        };
        if let Some(policy) = &prepared.policy
            && !self.isolate(policy).await?
        {
            return Ok(Action::requeue(GOING));
        }
        match jobs.create(&PostParams::default(), &prepared.job).await {
            Ok(created) => self.created(&name, &created).await,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Action::requeue(Duration::from_millis(100)))
            }
            // The field is named by the API server.
            Err(kube::Error::Api(status)) if status.code == 422 => {
                let message = format!("its Job was refused: {}", status.message);
                self.refuse(&Refusal::spec(message)).await
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let message = format!("its Job may not be created: {}", status.message);
                self.refuse(&Refusal::new(RestoreReason::PodFailed, message))
                    .await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn created(&mut self, name: &str, found: &Job) -> Result<Action, Error> {
        let ours = found
            .owner_references()
            .iter()
            .any(|o| o.uid == self.uid && o.controller == Some(true));
        // It goes with an earlier restore of our name, which somebody has deleted.
        let going = found.metadata.deletion_timestamp.is_some()
            || found
                .owner_references()
                .iter()
                .any(|o| o.kind == "RestoreJob" && o.name == self.name);
        if !ours && going {
            return Ok(Action::requeue(GOING));
        }
        if !ours {
            let message = format!(
                "Job {name} exists and is not this restore's: delete or rename it, and create another RestoreJob"
            );
            return self.refuse(&Refusal::spec(message)).await;
        }
        let uid = found.uid().ok_or(Error::Malformed("uid"))?;
        self.change(|record| record.created(&uid)).await?;
        tracing::info!(
            namespace = self.namespace,
            name = self.name,
            job = name,
            "restore started"
        );
        self.tell("Started", "Create", &format!("created Job {name}"))
            .await;
        Ok(Action::requeue(Duration::from_secs(1)))
    }

    /// Whether the policy stands; that of an earlier restore of our name does not.
    async fn isolate(&self, policy: &NetworkPolicy) -> Result<bool, Error> {
        let policies =
            Api::<NetworkPolicy>::namespaced(self.context.client.clone(), &self.namespace);
        match policies.create(&PostParams::default(), policy).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = policies.get_opt(&policy.name_any()).await?;
                Ok(found.is_some_and(|found| {
                    let owners = found.owner_references();
                    owners.iter().any(|o| o.uid == self.uid)
                }))
            }
            Err(error) => Err(error.into()),
        }
    }
}

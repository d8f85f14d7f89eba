//! Whether the target can take the backup, asked when a restore is admitted and again right before its
//! Job is created; and the Job.

use super::{
    Kind, Refusal, Subject, plan,
    pod::{self, Order, Target},
    series,
};
use crate::{
    agent_client,
    api::{check_name, restore::RestoredBackup},
    error::Error,
    job::source::{self, NotChosen},
    reason::{FailureReason, RestoreReason},
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod, Secret},
    networking::v1::NetworkPolicy,
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use std::{collections::BTreeMap, time::Duration};
use towline_agent::protocol::{CAPABILITY_RESTORE, info::Info};

/// How long the agent has to say what its server is.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What came of it.
pub(super) enum Prepared {
    /// This can be created.
    Ready(Box<Made>),
    /// The target does not take it.
    Refused(Refusal),
}

/// What is created.
pub(super) struct Made {
    pub(super) job: Job,
    /// Around a drill.
    pub(super) policy: Option<NetworkPolicy>,
}

impl Subject<'_> {
    /// Asks the target, and makes the Job.
    pub(super) async fn prepare(&self, job: &str) -> Result<Prepared, Error> {
        match self.try_prepare(job).await {
            Ok(made) => Ok(Prepared::Ready(Box::new(made))),
            Err(No::Refused(refusal)) => Ok(Prepared::Refused(refusal)),
            Err(No::Error(error)) => Err(error),
        }
    }

    async fn try_prepare(&self, job: &str) -> Result<Made, No> {
        let status = self.status();
        let spec = &self.job.spec;
        let backup = status
            .backup
            .as_ref()
            .ok_or(Error::Malformed("status.backup"))?;
        let store = match self.context.store(&self.namespace, &backup.store) {
            Some(Ok(store)) => store,
            _ => {
                let message = format!(
                    "BackupStore {} is gone or malformed: the backup lies in it",
                    backup.store
                );
                return Err(Refusal::new(RestoreReason::StoreNotReady, message).into());
            }
        };
        if backup.encrypted {
            self.check_identity().await?;
        }
        let mut url = None;
        match self.kind() {
            Kind::Volume => self.check_claim().await?,
            Kind::Agent => url = Some(self.check_agent(backup).await?),
            Kind::Drill => {}
        }
        let target = match (self.kind(), &url) {
            (Kind::Volume, _) => Target::Volume,
            (Kind::Drill, _) => Target::Drill,
            (Kind::Agent, url) => Target::Agent {
                url: url.as_deref().unwrap_or_default(),
            },
        };
        let order = Order {
            namespace: &self.namespace,
            uid: &self.uid,
            owner: self
                .job
                .controller_owner_ref(&())
                .ok_or(Error::Malformed("uid"))?,
            job,
            spec,
            backup,
            store: &store.spec,
            target,
            image: self.image(backup)?,
            seconds: plan::seconds_left(spec, &status, self.now),
        };
        let policy = (self.kind() == Kind::Drill).then(|| pod::network_policy(&order));
        Ok(Made {
            policy: policy.transpose().map_err(Refusal::spec)?,
            job: order.job().map_err(Refusal::spec)?,
        })
    }

    /// The image that restores.
    fn image(&self, backup: &RestoredBackup) -> Result<&str, Refusal> {
        let to = &self.job.spec.to;
        let config = &self.context.config;
        let (field, named) = match self.kind() {
            Kind::Agent => {
                return config.restore_image.as_deref().ok_or_else(|| {
                    Refusal::spec("this controller cannot restore through agents: have it started with --restore-image")
                });
            }
            Kind::Volume => (
                "persistentVolumeClaim",
                to.persistent_volume_claim
                    .as_ref()
                    .and_then(|v| v.tool_image.as_deref()),
            ),
            Kind::Drill => (
                "drill",
                to.drill.as_ref().and_then(|d| d.tool_image.as_deref()),
            ),
        };
        match named {
            Some(image) => Ok(image),
            None => tool_image(&config.tool_images, backup, field),
        }
    }

    /// Whether the Secret with the identity is there. It is not read: only the restore's pod may.
    async fn check_identity(&self) -> Result<(), No> {
        let Some(decryption) = &self.job.spec.decryption else {
            return Ok(());
        };
        let name = &decryption.identity_secret_ref.name;
        check_name(name)
            .map_err(|why| Refusal::spec(format!("spec.decryption.identitySecretRef: {why}")))?;
        let secrets = Api::<Secret>::namespaced(self.context.client.clone(), &self.namespace);
        if secrets.get_metadata_opt(name).await?.is_some() {
            return Ok(());
        }
        let message = format!(
            "Secret {name} (spec.decryption.identitySecretRef) does not exist in namespace {}: create it with the age identity under the key {}",
            self.namespace, decryption.identity_secret_ref.key
        );
        Err(Refusal::new(RestoreReason::NotDecryptable, message).into())
    }

    /// Whether the claim is there and nobody's.
    async fn check_claim(&self) -> Result<(), No> {
        let Some(volume) = &self.job.spec.to.persistent_volume_claim else {
            return Ok(());
        };
        let name = volume.claim_name.as_str();
        let field = "spec.to.persistentVolumeClaim.claimName";
        check_name(name).map_err(|why| Refusal::spec(format!("{field}: {why}")))?;
        let claims =
            Api::<PersistentVolumeClaim>::namespaced(self.context.client.clone(), &self.namespace);
        let claim = claims.get_opt(name).await?;
        claim_is_good(claim.as_ref(), name, &self.namespace)?;
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &self.namespace)
            .list(&ListParams::default())
            .await?;
        let users = users(&pods.items, name);
        if users.is_empty() {
            return Ok(());
        }
        let (some, s) = (
            source::some_of(&users),
            if users.len() == 1 { "s" } else { "" },
        );
        let message = format!(
            "pod {some} use{s} claim {name}: scale the workload down (kubectl scale … --replicas=0), wait until its pods are gone, and create another RestoreJob"
        );
        Err(Refusal::new(RestoreReason::TargetInUse, message).into())
    }

    /// The URL of an agent that takes restores into a server of the backup's flavour.
    async fn check_agent(&self, backup: &RestoredBackup) -> Result<String, No> {
        let agent = self.job.spec.to.agent.as_ref();
        let chosen = source::choose(self.context, &self.namespace, &self.uid, agent).await;
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(NotChosen::Error(error)) => return Err(error.into()),
            Err(NotChosen::Failed(failure)) => {
                // The field has another name here.
                let message = failure.message.replace("spec.source", "spec.to.agent");
                return Err(Refusal::new(of_agent(failure.reason), message).into());
            }
        };
        let info = agent_client::info(&chosen.endpoint, ASK_TIMEOUT).await;
        let info = info.map_err(|error| Refusal::new(of_agent(error.reason), error.message))?;
        let who = chosen
            .pod
            .as_deref()
            .unwrap_or(chosen.endpoint.base.as_str());
        takes(&info, who, backup)?;
        Ok(chosen
            .endpoint
            .base
            .as_str()
            .trim_end_matches('/')
            .to_owned())
    }
}

/// Why a target was not prepared.
enum No {
    Refused(Refusal),
    Error(Error),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for No {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<kube::Error> for No {
    fn from(error: kube::Error) -> Self {
        Self::Error(error.into())
    }
}

fn tool_image<'a>(
    images: &'a BTreeMap<String, String>,
    backup: &RestoredBackup,
    field: &str,
) -> Result<&'a str, Refusal> {
    let series = series::of(&backup.server_flavour, &backup.server_version);
    let found = series.as_ref().and_then(|series| images.get(series));
    found.map(String::as_str).ok_or_else(|| {
        let server = format!("{} {}", backup.server_flavour, backup.server_version);
        let flag = series.map_or(String::new(), |series| {
            format!(", or have the controller started with --tool-images={series}=IMAGE")
        });
        Refusal::spec(format!(
            "no image is known with the tools for a backup of {server}: set spec.to.{field}.toolImage to an agent image of that series{flag}"
        ))
    })
}

fn claim_is_good(
    claim: Option<&PersistentVolumeClaim>,
    name: &str,
    namespace: &str,
) -> Result<(), Refusal> {
    let Some(claim) = claim else {
        return Err(Refusal::spec(format!(
            "PersistentVolumeClaim {name} (spec.to.persistentVolumeClaim.claimName) does not exist in namespace {namespace}: create it"
        )));
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Refusal::spec(format!(
            "PersistentVolumeClaim {name} is being deleted: create it anew"
        )));
    }
    let mode = claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
    if mode == Some("Block") {
        return Err(Refusal::spec(format!(
            "PersistentVolumeClaim {name} is a raw block device (volumeMode: Block): a data directory needs a file system"
        )));
    }
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    if phase == Some("Lost") {
        return Err(Refusal::spec(format!(
            "PersistentVolumeClaim {name} has lost its volume: create another"
        )));
    }
    Ok(())
}

/// The pods that reference a claim and have not ended. Our own is none of them: its Job is not made yet.
fn users(pods: &[Pod], claim: &str) -> Vec<String> {
    let uses = |pod: &&Pod| {
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        volumes.into_iter().any(|volume| {
            let by_name = volume
                .persistent_volume_claim
                .as_ref()
                .is_some_and(|c| c.claim_name == claim);
            // The claim of an ephemeral volume is named after pod and volume.
            let own = volume.ephemeral.is_some()
                && format!("{}-{}", pod.name_any(), volume.name) == claim;
            by_name || own
        })
    };
    let ended = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let mut names: Vec<_> = pods
        .iter()
        .filter(|pod| uses(pod) && !ended(pod))
        .map(ResourceExt::name_any)
        .collect();
    names.sort();
    names
}

fn of_agent(reason: FailureReason) -> RestoreReason {
    match reason {
        FailureReason::InvalidSpec => RestoreReason::InvalidSpec,
        FailureReason::AgentRefused | FailureReason::AgentBusy => RestoreReason::TargetRefused,
        _ => RestoreReason::TargetUnreachable,
    }
}

/// Whether an agent takes this backup, as far as it tells of itself.
fn takes(info: &Info, who: &str, backup: &RestoredBackup) -> Result<(), Refusal> {
    if !info.can(CAPABILITY_RESTORE) {
        return Err(Refusal::new(
            RestoreReason::TargetRefused,
            format!(
                "the agent {who} takes no restores: start it with --allow-restore, and give our token the scope restore"
            ),
        ));
    }
    let Some(server) = &info.database else {
        let why = info.database_error.as_deref().unwrap_or("nobody says why");
        let message = format!("the server of agent {who} does not answer: {why}");
        return Err(Refusal::new(RestoreReason::TargetUnreachable, message));
    };
    if server.flavour != backup.server_flavour {
        let message = format!(
            "the backup is of {} {}, and agent {who} has a {} server: a dump is loaded by the client of its own flavour",
            backup.server_flavour, backup.server_version, server.flavour
        );
        return Err(Refusal::new(RestoreReason::Incompatible, message));
    }
    if server.role == "replica" {
        let message = format!(
            "the server of agent {who} is a replica, which gets its data from its primary: set spec.to.agent.prefer: Primary"
        );
        return Err(Refusal::new(RestoreReason::TargetRefused, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

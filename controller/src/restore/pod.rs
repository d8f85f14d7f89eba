//! The Job of a restore and what belongs to it: pure functions, so that what a pod may do and see is
//! tested without one.

mod drill;
mod volumes;

pub use drill::network_policy;

use super::Kind;
use crate::{
    api::{
        BackupStoreSpec, RestoreJobSpec,
        restore::{Resources, RestoredBackup, bytes_of},
    },
    restore_pod::{
        AGENT_SECRET_DIR, Check, DATA_DIR, PLAN_VARIABLE, PROGRESS_PORT, Plan, SCRATCH_DIR, Task,
    },
};
use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::OwnerReference};
use serde_json::{Value, json};
use towline_agent::restore::Expected;

/// Container that restores; of a drill the first.
pub const RESTORE: &str = "restore";
/// Container of a drill's server.
pub const SERVER: &str = "server";
/// Container of a drill that asks the server.
pub const CHECK: &str = "check";
/// Exit status of a drill's server that could not make an empty data directory.
pub const NOT_INITIALISED: i32 = 70;
/// Label of everything that belongs to a restore: the name of its RestoreJob; of one that is too long for
/// a label, the name of its Job.
pub const LABEL: &str = "towline.dev/restore";
/// The same, by which it is found: the uid of its RestoreJob.
pub const LABEL_UID: &str = "towline.dev/restore-job-uid";

/// User and group of the images of MariaDB and MySQL.
const SERVER_ID: i64 = 999;
/// Longest plan, bytes: Linux takes variables of up to 128 KiB.
const MAX_PLAN_BYTES: usize = 120 << 10;
const MIB: u64 = 1 << 20;
/// Memory of a restore beside that of the tool's prepare.
const MEMORY: u64 = 768 * MIB;
/// Memory of a container that holds no data.
const SMALL_MEMORY: u64 = 256 * MIB;

/// Where a restore goes, with what was found out about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Target<'a> {
    /// The claim of the spec.
    Volume,
    /// The agent that was chosen.
    Agent {
        /// `https://host:port` or `http://host:port`.
        url: &'a str,
    },
    /// A throwaway server.
    Drill,
}

/// All that a Job is made from.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// Namespace of the restore, and of the backup.
    pub namespace: &'a str,
    /// Uid of the RestoreJob.
    pub uid: &'a str,
    /// The RestoreJob: what belongs to it goes with it.
    pub owner: OwnerReference,
    /// Name of the Job.
    pub job: &'a str,
    /// What is wanted.
    pub spec: &'a RestoreJobSpec,
    /// The backup.
    pub backup: &'a RestoredBackup,
    /// The store that it lies in.
    pub store: &'a BackupStoreSpec,
    /// Where it goes.
    pub target: Target<'a>,
    /// Image with `towline` and, but for an agent, the tools of the series.
    pub image: &'a str,
    /// Seconds that are left of the deadline.
    pub seconds: i64,
}

/// Name of a restore's Job. Names of Jobs become labels, which hold 63 characters.
#[must_use]
pub fn job_name(restore: &str) -> String {
    const SUFFIX: &str = "-restore";
    const MAX: usize = 63;
    let plain = restore.replace('.', "-");
    if plain == restore && restore.len() + SUFFIX.len() <= MAX {
        return format!("{restore}{SUFFIX}");
    }
    let hash = hex::encode(&digest(&SHA256, restore.as_bytes()).as_ref()[..4]);
    let room = MAX - SUFFIX.len() - hash.len() - 1;
    let start = plain[..room.min(plain.len())].trim_end_matches('-');
    format!("{start}-{hash}{SUFFIX}")
}

impl Order<'_> {
    /// The Job.
    ///
    /// # Errors
    /// What of the spec cannot be carried out.
    pub fn job(&self) -> Result<Job, String> {
        let kind = self.kind();
        let mut pod = self.pod()?;
        match kind {
            Kind::Volume | Kind::Agent => {
                pod["containers"] = json!([self.restore_container()?]);
            }
            Kind::Drill => {
                pod["initContainers"] = json!([self.restore_container()?]);
                pod["containers"] = json!([self.server_container()?, self.check_container()?]);
            }
        }
        let labels = self.labels();
        let job = json!({
            "metadata": {
                "name": self.job,
                "namespace": self.namespace,
                "labels": labels,
                "ownerReferences": [self.owner],
            },
            "spec": {
                // A restore writes once: whatever happens to its pod, there is no second one.
                "backoffLimit": 0,
                "completions": 1,
                "parallelism": 1,
                "podReplacementPolicy": "Failed",
                "activeDeadlineSeconds": self.seconds,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        });
        serde_json::from_value(job).map_err(|e| format!("the Job cannot be made: {e}"))
    }

    fn kind(&self) -> Kind {
        match self.target {
            Target::Volume => Kind::Volume,
            Target::Agent { .. } => Kind::Agent,
            Target::Drill => Kind::Drill,
        }
    }

    fn labels(&self) -> Value {
        json!({
            "app.kubernetes.io/name": "towline-restore",
            "app.kubernetes.io/managed-by": "towline",
            LABEL: if self.owner.name.len() > 63 { self.job } else { &self.owner.name },
            LABEL_UID: self.uid,
        })
    }

    /// The pod without its containers.
    fn pod(&self) -> Result<Value, String> {
        let context = self
            .spec
            .to
            .persistent_volume_claim
            .as_ref()
            .and_then(|volume| volume.security_context)
            .unwrap_or_default();
        let mut pod = json!({
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": context.run_as_user.unwrap_or(SERVER_ID),
                "runAsGroup": context.run_as_group.unwrap_or(SERVER_ID),
                "fsGroup": context.fs_group.unwrap_or(SERVER_ID),
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": self.volumes()?,
        });
        if let Some(account) = &self.spec.service_account_name {
            pod["serviceAccountName"] = json!(account);
        }
        Ok(pod)
    }

    fn restore_container(&self) -> Result<Value, String> {
        let volume = self.spec.to.persistent_volume_claim.as_ref();
        let use_memory = volume.and_then(|volume| volume.use_memory.as_deref());
        let use_memory = use_memory.and_then(bytes_of);
        let (task, resources) = match &self.target {
            Target::Volume => (
                Task::Volume { use_memory },
                resources(
                    volume.and_then(|v| v.resources.as_ref()),
                    MEMORY + use_memory.unwrap_or(0),
                ),
            ),
            Target::Agent { url } => {
                let tls = self.spec.to.agent.as_ref().and_then(|a| a.tls.as_ref());
                let task = Task::Agent {
                    url: (*url).to_owned(),
                    server_name: tls.and_then(|tls| tls.server_name.clone()),
                    options: self.spec.logical_options(),
                };
                (task, resources(None, SMALL_MEMORY))
            }
            Target::Drill => (
                Task::DrillPrepare { use_memory: None },
                self.drill_resources(),
            ),
        };
        let mut mounts = self.reader_mounts();
        match self.target {
            Target::Volume => {
                let mut data = json!({"name": "data", "mountPath": DATA_DIR});
                if let Some(path) = volume.and_then(|v| v.sub_path.as_deref()) {
                    data["subPath"] = json!(path);
                }
                mounts.push(data);
            }
            Target::Agent { .. } if !self.agent_secrets().is_empty() => mounts
                .push(json!({"name": "agent", "mountPath": AGENT_SECRET_DIR, "readOnly": true})),
            Target::Agent { .. } => {}
            Target::Drill => mounts.extend(drill::mounts()),
        }
        self.towline(RESTORE, task, &resources, &mounts)
    }

    /// A container that runs `towline restore-pod`.
    fn towline(
        &self,
        name: &str,
        task: Task,
        resources: &Value,
        mounts: &[Value],
    ) -> Result<Value, String> {
        let plan = Plan {
            store: self.store.clone(),
            namespace: self.namespace.to_owned(),
            folder: self.backup.key.clone(),
            expected: Expected {
                bytes: self.backup.bytes,
                sha256: self.backup.sha256.clone(),
            },
            task,
        };
        let plan = serde_json::to_string(&plan).map_err(|e| format!("no plan can be made: {e}"))?;
        if plan.len() > MAX_PLAN_BYTES {
            return Err(format!(
                "spec.checks and the store's caBundle are {} bytes together, of which a pod can be given {MAX_PLAN_BYTES}: write less",
                plan.len()
            ));
        }
        Ok(json!({
            "name": name,
            "image": self.image,
            "command": ["towline", "restore-pod"],
            "env": [
                {"name": PLAN_VARIABLE, "value": plan.replace('$', "$$")},
                {"name": "TMPDIR", "value": SCRATCH_DIR},
            ],
            "ports": [{"name": "progress", "containerPort": PROGRESS_PORT}],
            "resources": resources,
            "securityContext": locked_down(),
            "volumeMounts": mounts,
        }))
    }
}

fn locked_down() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// What the spec wants, and where it wants nothing, `memory` bytes and a tenth of a CPU.
fn resources(wanted: Option<&Resources>, memory: u64) -> Value {
    if let Some(wanted) = wanted {
        return json!({"requests": wanted.requests, "limits": wanted.limits});
    }
    let memory = format!("{}Mi", memory.div_ceil(MIB));
    json!({"requests": {"cpu": "100m", "memory": memory}, "limits": {"memory": memory}})
}

fn checks(spec: &RestoreJobSpec) -> Vec<Check> {
    let checks = spec.checks.iter();
    checks
        .map(|check| Check {
            query: check.query.clone(),
            expect: check.expect.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests;

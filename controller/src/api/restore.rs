//! `RestoreJob`: one backup restored, once.

mod status;
mod target;

pub use status::*;
pub use target::*;

use super::LocalReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towline_agent::restore::{Definers, Events, LogicalOptions};

/// One backup restored, once.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "towline.dev",
    version = "v1alpha1",
    kind = "RestoreJob",
    namespaced,
    status = "RestoreJobStatus",
    shortname = "rjob",
    category = "towline",
    derive = "PartialEq",
    doc = "One restore. It runs once: into a volume, into a running server, or as a drill into a server that is thrown away. Succeeded says that all of the backup was proven and is in its place.",
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable, for a restore runs once: create another RestoreJob").field_path(".spec"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "From", type_ = "string", json_path = ".status.from"),
    printcolumn(name = "To", type_ = "string", json_path = ".status.to"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress.summary"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Method", type_ = "string", json_path = ".status.backup.method", priority = 1),
    printcolumn(name = "Tables", type_ = "integer", json_path = ".status.tables", priority = 1),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.pod", priority = 1),
    printcolumn(name = "Key", type_ = "string", json_path = ".status.backup.key", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.checks) || has(self.to.drill)").message("checks are asked of a drill's server: remove them, or restore to a drill").field_path(".checks"),
    validation = Rule::new("has(self.to.agent) || !(has(self.databases) || has(self.includeUsers) || has(self.gtidPurged) || has(self.binaryLog) || has(self.routines) || has(self.triggers) || has(self.events) || has(self.definers))").message("databases, includeUsers, gtidPurged, binaryLog, routines, triggers, events and definers are for a logical backup into a running server (to.agent): remove them")
)]
pub struct RestoreJobSpec {
    /// Which backup.
    pub from: RestoreFrom,
    /// Where it goes.
    pub to: RestoreTo,
    /// What a drill asks its server, after the checks that every drill makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 20))]
    pub checks: Vec<Check>,
    /// Of an encrypted backup: who can open it. It is mounted into the restore's pod and goes nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decryption: Option<Decryption>,
    /// Databases to restore, with to.agent. Absent: all that are in the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 64)))]
    pub databases: Option<Vec<String>>,
    /// Restore accounts and grants too, where the backup has them. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_users: Option<bool>,
    /// Tell the server that it has the backup's transactions: MySQL's `gtid_purged`, MariaDB's
    /// `gtid_slave_pos`. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid_purged: Option<bool>,
    /// Write what is restored into the server's binary log, so that its replicas get it. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_log: Option<bool>,
    /// Restore stored procedures and functions. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routines: Option<bool>,
    /// Restore triggers. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggers: Option<bool>,
    /// What becomes of scheduled events. Absent: Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventPolicy>,
    /// Whose rights views, routines, triggers and events have. Absent: Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definers: Option<DefinerPolicy>,
    /// ServiceAccount of the restore's pod, say for its imagePullSecrets or a workload identity that
    /// may read the bucket. No token is mounted. Absent: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::api::name_rule())]
    pub service_account_name: Option<String>,
    /// The restore fails with DeadlineExceeded this long after its start, waiting included.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: u32,
    /// The RestoreJob is deleted this long after its end. What was restored stays. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<u32>,
}

impl RestoreJobSpec {
    /// With all else as it is by default.
    #[must_use]
    pub fn new(from: RestoreFrom, to: RestoreTo) -> Self {
        Self {
            from,
            to,
            checks: Vec::new(),
            decryption: None,
            databases: None,
            include_users: None,
            gtid_purged: None,
            binary_log: None,
            routines: None,
            triggers: None,
            events: None,
            definers: None,
            service_account_name: None,
            active_deadline_seconds: default_deadline(),
            ttl_seconds_after_finished: None,
        }
    }

    /// What of a logical backup is restored, and how.
    #[must_use]
    pub fn logical_options(&self) -> LogicalOptions {
        let default = LogicalOptions::default();
        LogicalOptions {
            databases: self.databases.clone().unwrap_or_default(),
            include_users: self.include_users.unwrap_or(default.include_users),
            gtid_purged: self.gtid_purged.unwrap_or(default.gtid_purged),
            binary_log: self.binary_log.unwrap_or(default.binary_log),
            routines: self.routines.unwrap_or(default.routines),
            triggers: self.triggers.unwrap_or(default.triggers),
            events: self.events.map_or(default.events, Events::from),
            definers: self.definers.map_or(default.definers, Definers::from),
        }
    }
}

fn default_deadline() -> u32 {
    86_400
}

/// Which backup: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.backupJobRef), has(self.store), has(self.latest)].filter(x, x).size() == 1").message("set exactly one of backupJobRef, store and latest"))]
pub struct RestoreFrom {
    /// The backup of this BackupJob, which has Succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_job_ref: Option<LocalReference>,
    /// A backup by its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<FromStore>,
    /// The newest backup, of a schedule or of this namespace. Neither the schedule nor a BackupJob needs to
    /// exist any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<FromLatest>,
}

/// A backup by its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FromStore {
    /// The BackupStore in which it lies.
    pub store_ref: LocalReference,
    /// Its key as `towline ls` prints it, without the store's prefix. It lies under this namespace.
    #[schemars(length(min = 1, max = 640))]
    #[x_kube(validation = crate::api::key_rule())]
    pub key: String,
}

/// The newest backup, of a schedule or of this namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FromLatest {
    /// The BackupStore in which it lies.
    pub store_ref: LocalReference,
    /// Name of the BackupSchedule that made it. Absent: whichever made it, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::api::name_rule())]
    pub schedule: Option<String>,
    /// Only backups that were complete by then. Absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Time>,
}

/// A query whose answer tells whether the data is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// One SQL statement that gives one value. Name the database of each table.
    #[schemars(length(min = 1, max = 2048))]
    pub query: String,
    /// The value as text. Absent: any, as long as the query succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub expect: Option<String>,
}

/// Who can open an encrypted backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decryption {
    /// Secret of this namespace with an age identity: the file that `age-keygen` writes
    /// (`AGE-SECRET-KEY-1…`).
    pub identity_secret_ref: IdentitySecretReference,
}

/// One key of a Secret in the same namespace, with an age identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentitySecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::api::name_rule())]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "default_identity_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_identity_key() -> String {
    "identity".into()
}

/// What becomes of scheduled events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EventPolicy {
    /// They are created, and do not run before somebody enables them.
    Disabled,
    /// They are created as they were.
    AsBackedUp,
    /// They are left out.
    Skip,
}

impl From<EventPolicy> for Events {
    fn from(policy: EventPolicy) -> Self {
        match policy {
            EventPolicy::Disabled => Self::Disabled,
            EventPolicy::AsBackedUp => Self::AsBackedUp,
            EventPolicy::Skip => Self::Skip,
        }
    }
}

/// Whose rights views, routines, triggers and events have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DefinerPolicy {
    /// Their old definer's; its account has to be there when they are used.
    Keep,
    /// The account's that restores.
    CurrentUser,
}

impl From<DefinerPolicy> for Definers {
    fn from(policy: DefinerPolicy) -> Self {
        match policy {
            DefinerPolicy::Keep => Self::Keep,
            DefinerPolicy::CurrentUser => Self::CurrentUser,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_what_changes_nothing_beyond_the_databases() {
        let spec = |more: serde_json::Value| {
            let mut spec = serde_json::json!({"from": {"backupJobRef": {"name": "b"}}, "to": {"agent": {"url": "http://db"}}});
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            serde_json::from_value::<RestoreJobSpec>(spec).unwrap()
        };
        let bare = spec(serde_json::json!({}));
        assert_eq!(bare.logical_options(), LogicalOptions::default());
        assert_eq!(bare.active_deadline_seconds, 86_400);
        let all = spec(serde_json::json!({
            "databases": ["shop"], "includeUsers": true, "gtidPurged": true, "binaryLog": false, "routines": false,
            "triggers": false, "events": "Skip", "definers": "CurrentUser"
        }));
        let wanted = LogicalOptions {
            databases: vec!["shop".into()],
            include_users: true,
            gtid_purged: true,
            binary_log: false,
            routines: false,
            triggers: false,
            events: Events::Skip,
            definers: Definers::CurrentUser,
        };
        assert_eq!(all.logical_options(), wanted);
    }
}

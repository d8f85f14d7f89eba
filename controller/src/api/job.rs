//! `BackupJob`: one backup, made once.

mod source;
mod status;

pub use source::*;
pub use status::*;

use super::LocalReference;
use kube::{CustomResource, KubeSchema, core::Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One backup, made once.
// Immutability stands here, on the root: the spec is also a schedule's template, which may change.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "towline.dev",
    version = "v1alpha1",
    kind = "BackupJob",
    namespaced,
    status = "BackupJobStatus",
    shortname = "bkjob",
    category = "towline",
    derive = "PartialEq",
    doc = "One backup. It is made once; its status says Succeeded only when the agent's verdict was read and everything it names is in the store.",
    validation = crate::api::job::immutable_optional("source"),
    validation = crate::api::job::immutable_optional("storeRef"),
    validation = crate::api::job::immutable_optional("import"),
    validation = crate::api::job::immutable_optional("method"),
    validation = crate::api::job::immutable_optional("databases"),
    validation = crate::api::job::immutable_optional("compression"),
    validation = crate::api::job::immutable_optional("encryption"),
    validation = crate::api::job::immutable_optional("parallel"),
    validation = crate::api::job::immutable_optional("maxBytesPerSecond"),
    validation = crate::api::job::immutable("activeDeadlineSeconds"),
    validation = crate::api::job::immutable("stallTimeoutSeconds"),
    validation = crate::api::job::immutable("backoffLimit"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Method", type_ = "string", json_path = ".status.method"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress.summary"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.conditions[?(@.type==\"Verified\")].status"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt", priority = 1),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source.pod", priority = 1),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.storeRef.name", priority = 1),
    printcolumn(name = "Key", type_ = "string", json_path = ".status.manifestKey", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.__import__) || (has(self.source) && has(self.storeRef))").message("set source and storeRef, or import for a record of a backup that exists already"),
    validation = Rule::new("!has(self.__import__) || !(has(self.source) || has(self.storeRef) || has(self.method) || has(self.databases) || has(self.compression) || has(self.encryption) || has(self.parallel) || has(self.maxBytesPerSecond))").message("with import nothing is run: remove source, storeRef, method, databases, compression, encryption, parallel and maxBytesPerSecond").field_path(".import"),
    validation = Rule::new("!has(self.databases) || (has(self.method) && self.method == 'logical')").message("databases needs method: logical; a physical backup is of the whole server").field_path(".databases")
)]
pub struct BackupJobSpec {
    /// Whose data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The BackupStore that takes the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_ref: Option<LocalReference>,
    /// Makes this the record of a backup that exists already, instead of source and storeRef. It is
    /// never run. `towline catalog import` makes such records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Import>,
    /// `physical` copies the server's files, `logical` dumps SQL. Absent: what the agent prefers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Schemas to back up, with method logical. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 64)))]
    pub databases: Option<Vec<String>>,
    /// How the archive is compressed. Absent: zstd, level 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// To whom the archive is encrypted, by the agent. Absent: to the agent's own recipients, where it
    /// has some, else not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Threads of the backup tool. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub parallel: Option<u16>,
    /// How fast the agent may read, bytes a second. It is lifted while the server is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024))]
    pub max_bytes_per_second: Option<u64>,
    /// The job fails with DeadlineExceeded this long after its start, waiting included.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: u32,
    /// An attempt fails with Stalled when no bytes came, and its stage did not change, for this long.
    #[serde(default = "default_stall")]
    #[schemars(range(min = 1, max = 86_400))]
    pub stall_timeout_seconds: u32,
    /// How many further attempts there may be. Interruptions and waiting for a busy agent do not count.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: u32,
    /// What becomes of the backup when somebody deletes this BackupJob. May be changed at any time.
    /// What the controller deletes by itself (ttlSecondsAfterFinished, history limits) and what goes
    /// with its schedule, its namespace or the CRD keeps its backup under either.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The BackupJob is deleted this long after its end. What is in the bucket stays. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<u32>,
    /// Stops the job. A backup that stands already stays.
    #[serde(default)]
    pub cancel: bool,
}

impl BackupJobSpec {
    /// Name of the BackupStore, of a record that of the backup's.
    #[must_use]
    pub fn store_name(&self) -> &str {
        let reference = self
            .store_ref
            .as_ref()
            .or(self.import.as_ref().map(|import| &import.store_ref));
        // The API server lets no job in that has neither.
        reference.map_or("", |r| r.name.as_str())
    }
}

/// A backup that exists already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// The BackupStore in which it lies.
    pub store_ref: LocalReference,
    /// Its key as `towline ls` prints it, without the store's prefix. It lies under this namespace.
    #[schemars(length(min = 1, max = 640))]
    #[x_kube(validation = crate::api::key_rule())]
    pub key: String,
}

/// What becomes of the backup when its BackupJob is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays in the store.
    #[default]
    Retain,
    /// It is deleted from the store, and the BackupJob goes when that is done.
    Delete,
}

fn default_deadline() -> u32 {
    86_400
}

fn default_stall() -> u32 {
    300
}

fn default_backoff_limit() -> u32 {
    3
}

/// A field of the spec that is always there and must not change.
fn immutable(field: &str) -> Rule {
    Rule::new(format!("self.spec.{field} == oldSelf.spec.{field}"))
        .message(format!("{field} is immutable: create another BackupJob").as_str())
        .field_path(format!(".spec.{field}"))
}

/// A field of the spec that may be absent and must not change.
fn immutable_optional(field: &str) -> Rule {
    // `import` is a word of CEL: as the name of a field it is escaped.
    let name = match field {
        "import" => "__import__",
        other => other,
    };
    Rule::new(format!(
        "has(self.spec.{name}) == has(oldSelf.spec.{name}) && (!has(self.spec.{name}) || self.spec.{name} == oldSelf.spec.{name})"
    ))
    .message(format!("{field} is immutable: create another BackupJob").as_str())
    .field_path(format!(".spec.{field}"))
}

/// What kind of backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The server's files.
    Physical,
    /// SQL.
    Logical,
}

impl Method {
    /// The word of the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }
}

/// How the archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == 'zstd' || !has(self.level)").message("level belongs to type: zstd").field_path(".level"))]
pub struct Compression {
    /// Algorithm.
    #[serde(rename = "type", default)]
    pub type_: CompressionType,
    /// 1 (fast) to 19 (small). Absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 19))]
    pub level: Option<u8>,
}

/// Algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionType {
    /// Zstandard.
    #[default]
    Zstd,
    /// A plain tar.
    None,
}

impl CompressionType {
    /// The word of the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::None => "none",
        }
    }
}

/// To whom the archive is encrypted, with [age](https://age-encryption.org).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.recipients.all(r, r.matches('^age1[02-9ac-hj-np-z]{58}$'))").message("recipients are public keys (age1..., which age-keygen prints); a secret key (AGE-SECRET-KEY-...) does not belong here").field_path(".recipients"))]
pub struct Encryption {
    /// Public keys, `age1…`. Whoever has the secret key of any of them can open the archive.
    #[schemars(length(min = 1, max = 20), inner(length(max = 62)))]
    pub recipients: Vec<String>,
}

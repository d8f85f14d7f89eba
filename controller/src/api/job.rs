//! `BackupJob`: one backup, made once.

use super::{LocalReference, SecretKeyReference};
use crate::reason::FailureReason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, core::Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Port of an agent unless the spec has another.
pub const DEFAULT_AGENT_PORT: u16 = 8474;

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
    validation = crate::api::job::immutable("source"),
    validation = crate::api::job::immutable("storeRef"),
    validation = crate::api::job::immutable_optional("method"),
    validation = crate::api::job::immutable_optional("databases"),
    validation = crate::api::job::immutable_optional("compression"),
    validation = crate::api::job::immutable_optional("parallel"),
    validation = crate::api::job::immutable_optional("maxBytesPerSecond"),
    validation = crate::api::job::immutable("activeDeadlineSeconds"),
    validation = crate::api::job::immutable("stallTimeoutSeconds"),
    validation = crate::api::job::immutable("backoffLimit"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Method", type_ = "string", json_path = ".status.method"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt", priority = 1),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source.pod", priority = 1),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.storeRef.name", priority = 1),
    printcolumn(name = "Key", type_ = "string", json_path = ".status.manifestKey", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.databases) || (has(self.method) && self.method == 'logical')").message("databases needs method: logical; a physical backup is of the whole server").field_path(".databases")
)]
pub struct BackupJobSpec {
    /// Whose data.
    pub source: Source,
    /// The BackupStore that takes the backup.
    pub store_ref: LocalReference,
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
    /// An attempt fails with Stalled when nothing came for this long.
    #[serde(default = "default_stall")]
    #[schemars(range(min = 1, max = 86_400))]
    pub stall_timeout_seconds: u32,
    /// How many further attempts there may be. Interruptions and waiting for a busy agent do not count.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: u32,
    /// The BackupJob is deleted this long after its end. What is in the bucket stays. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<u32>,
    /// Stops the job. A backup that stands already stays.
    #[serde(default)]
    pub cancel: bool,
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
    Rule::new(format!(
        "has(self.spec.{field}) == has(oldSelf.spec.{field}) && (!has(self.spec.{field}) || self.spec.{field} == oldSelf.spec.{field})"
    ))
    .message(format!("{field} is immutable: create another BackupJob").as_str())
    .field_path(format!(".spec.{field}"))
}

/// Whose data: pods of this namespace that run an agent, or an agent's URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.podSelector) != has(self.url)").message("set exactly one of podSelector and url"),
    validation = Rule::new("!has(self.url) || !has(self.port)").message("port belongs to podSelector: write it into url").field_path(".port")
)]
pub struct Source {
    /// Pods with an agent, in the job's own namespace. One that is ready is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<PodSelector>,
    /// Port of the agent in those pods. Absent: 8474.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// An agent elsewhere. Its host must be in the controller's `--allowed-source-hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^http://[^/@?#[:space:]]+/?$')").message("write http://host or http://host:port, without user, path or query"))]
    pub url: Option<String>,
    /// How the agent knows us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<SourceAuth>,
}

/// How the agent knows us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceAuth {
    /// Bearer token that the agent's token file lists with the scope `backup`.
    pub token_secret_ref: SecretKeyReference,
}

/// A label selector, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("an empty selector would match every pod: write matchLabels or matchExpressions"))]
pub struct PodSelector {
    /// Labels that a pod must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)").message("In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct SelectorRequirement {
    /// Label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label is compared.
    pub operator: SelectorOperator,
    /// With In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// Its value is one of these.
    In,
    /// It has none of these values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
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

/// Where a job is. The conditions say the same with reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// No attempt runs; one will.
    #[default]
    Pending,
    /// An attempt runs.
    Running,
    /// The backup stands.
    Succeeded,
    /// There is no backup.
    Failed,
    /// Somebody cancelled the job; there is no backup.
    Cancelled,
}

impl Phase {
    /// The word in status and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What became of the job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupJobStatus {
    /// Where the job is.
    #[serde(default)]
    pub phase: Phase,
    /// `Complete`, `Failed`, `Progressing`, and `FailureTarget` between the decision to fail and its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// Why the job failed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// When the controller took the job up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Number of the latest attempt; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// The last ten attempts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub attempts: Vec<Attempt>,
    /// Attempts that failed and count against `backoffLimit`.
    #[serde(default)]
    pub failures: u32,
    /// No attempt starts before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,
    /// An attempt may have completed an object: the store is asked for the decision before the job fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete_tried: bool,
    /// Where the data comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// How far the running attempt is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What kind of backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub method: Option<String>,
    /// The archive's objects, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub objects: Vec<Object>,
    /// Key of the manifest, which names them too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub manifest_key: Option<String>,
    /// Size of the archive, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The same for people; of a running job, what has come so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
    /// From start to end, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub duration: Option<String>,
    /// SHA-256 of the archive, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sha256: Option<String>,
    /// Where in the server's history the backup stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Where the time of the attempt that succeeded went, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// URL of the agent; absent when none was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub agent: Option<String>,
    /// When it was claimed.
    pub start: Time,
    /// When it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// Why it failed; absent while it runs and when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// Bytes received.
    #[serde(default)]
    pub bytes: u64,
}

/// Where the data comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// Version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub server_version: Option<String>,
}

/// How far the running attempt is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Bytes received.
    pub bytes: u64,
    /// What the agent guessed, before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_bytes: Option<u64>,
    /// Of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// When bytes last came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,
}

/// One object of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Its key in the bucket.
    #[schemars(length(max = 2048))]
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// Where in the server's history the backup stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// GTID set (MySQL) or position (MariaDB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub gtid: Option<String>,
    /// Binary log file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub binlog_file: Option<String>,
    /// Offset in the binary log file, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binlog_position: Option<u64>,
    /// InnoDB log sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
}

/// Seconds of each phase, where it was gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// Name resolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<f64>,
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<f64>,
    /// TLS handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<f64>,
    /// Until the request was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrote_request: Option<f64>,
    /// Until the response's head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<f64>,
    /// Head to end of body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<f64>,
    /// Locks held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<f64>,
    /// Verdict to manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalize: Option<f64>,
}

/// The backup stands.
pub const COMPLETE: &str = "Complete";
/// There is no backup.
pub const FAILED: &str = "Failed";
/// The job will fail; what is left in the store is seen to first. As batch/v1 Job has it.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// Something still happens or will.
pub const PROGRESSING: &str = "Progressing";

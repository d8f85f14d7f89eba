//! `BackupStore`: where backups go.

use super::LocalReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where backups go.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "towline.dev",
    version = "v1alpha1",
    kind = "BackupStore",
    namespaced,
    status = "BackupStoreStatus",
    shortname = "bkstore",
    category = "towline",
    derive = "PartialEq",
    doc = "Object storage that backups go to. It is probed with a real write, read and delete; see the condition Ready.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.s3.bucket"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.s3.endpoint"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Path",
        type_ = "string",
        json_path = ".spec.file.path",
        priority = 1
    ),
    printcolumn(
        name = "Prefix",
        type_ = "string",
        json_path = ".spec.prefix",
        priority = 1
    ),
    printcolumn(
        name = "Probed",
        type_ = "date",
        json_path = ".status.lastProbeTime",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.s3) != has(self.file)").message("set exactly one of spec.s3 and spec.file"),
    validation = Rule::new("has(self.s3) == has(oldSelf.s3)").message("s3 and file are immutable: create another BackupStore"),
    validation = Rule::new("(has(self.prefix) ? self.prefix : '') == (has(oldSelf.prefix) ? oldSelf.prefix : '')").message("prefix is immutable: create another BackupStore").field_path(".prefix"),
    validation = Rule::new("!has(self.file) || !has(self.credentialsSecretRef)").message("a file store has no credentials: remove credentialsSecretRef").field_path(".credentialsSecretRef")
)]
pub struct BackupStoreSpec {
    /// An S3 bucket, of AWS or of a compatible server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
    /// A folder that the controller sees. Needs the controller's `--file-store-root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSpec>,
    /// Before every key: names joined by `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*$') && !self.matches('(^|/)[.][.]?(/|$)')").message("write names of letters, digits and . _ = - joined by /, without a slash at either end and without . or .. as a name"))]
    pub prefix: Option<String>,
    /// Secret with the keys `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if there is one,
    /// `AWS_SESSION_TOKEN`. Absent: the controller's own cloud identity, where its operator allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<LocalReference>,
    /// Bytes of one part of a multipart upload. Bounds the controller's memory and, times `maxParts`,
    /// the size of one object; a longer archive continues in a further object.
    #[serde(default = "default_part_size")]
    #[schemars(range(min = 5_242_880, max = 536_870_912))]
    pub part_size: u64,
    /// Parts of one object. Lower it for stores that allow fewer than 10,000.
    #[serde(default = "default_max_parts")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_parts: u32,
}

fn default_part_size() -> u64 {
    16 * 1024 * 1024
}

fn default_max_parts() -> u32 {
    8192
}

/// An S3 bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.endpoint) ? self.endpoint : '') == (has(oldSelf.endpoint) ? oldSelf.endpoint : '')").message("endpoint is immutable: create another BackupStore").field_path(".endpoint"),
    validation = Rule::new("!has(self.endpoint) || !self.endpoint.startsWith('http://') || self.allowHttp").message("this endpoint is not encrypted: write an https:// URL, or set allowHttp: true").field_path(".endpoint")
)]
pub struct S3Spec {
    /// Name of the bucket. It must exist.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$')").message("write the bucket's name alone: lower-case letters, digits, dots and hyphens"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("bucket is immutable: create another BackupStore"))]
    pub bucket: String,
    /// Region. Compatible servers without regions need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// URL of a compatible server; absent: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/@?#[:space:]]+/?$')").message("write https://host or https://host:port, without user, path or query"))]
    pub endpoint: Option<String>,
    /// Ask `https://endpoint/bucket/key` rather than `https://bucket.endpoint/key`, as most
    /// compatible servers want it.
    #[serde(default)]
    pub force_path_style: bool,
    /// Accept an `http://` endpoint.
    #[serde(default)]
    pub allow_http: bool,
    /// Further certificate authorities of the endpoint, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub ca_bundle: Option<String>,
}

/// A folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileSpec {
    /// Path below `<file-store-root>/<namespace>`.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*$') && !self.matches('(^|/)[.][.]?(/|$)')").message("write a relative path of letters, digits and . _ = -, without . or .. as a name; it lies below the controller's file store root and the namespace"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("path is immutable: create another BackupStore"))]
    pub path: String,
}

/// What was found out about the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreStatus {
    /// `Ready`: a backup could be written, read and deleted here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// When the store was last probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
}

/// The condition of a store.
pub const READY: &str = "Ready";

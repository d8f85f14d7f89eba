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
    doc = "Object storage that backups go to. It is probed by using it: objects are written, read, listed and deleted, uploads opened and aborted; see the condition Ready.",
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
    printcolumn(name = "Location", type_ = "string", json_path = ".status.location"),
    printcolumn(name = "Backups", type_ = "integer", json_path = ".status.backups"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        json_path = ".spec.s3.endpoint",
        priority = 1
    ),
    printcolumn(
        name = "Secret",
        type_ = "string",
        json_path = ".spec.credentialsSecretRef.name",
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
    validation = Rule::new("[has(self.s3), has(self.gcs), has(self.azure), has(self.file)].filter(x, x).size() == 1").message("set exactly one of spec.s3, spec.gcs, spec.azure and spec.file"),
    validation = Rule::new("has(self.s3) == has(oldSelf.s3) && has(self.gcs) == has(oldSelf.gcs) && has(self.azure) == has(oldSelf.azure)").message("the kind of a store is immutable: create another BackupStore"),
    validation = Rule::new("(has(self.prefix) ? self.prefix : '') == (has(oldSelf.prefix) ? oldSelf.prefix : '')").message("prefix is immutable: create another BackupStore").field_path(".prefix"),
    validation = Rule::new("!has(self.file) || !has(self.credentialsSecretRef)").message("a file store has no credentials: remove credentialsSecretRef").field_path(".credentialsSecretRef"),
    validation = Rule::new("!has(self.serverSideEncryption) || has(self.s3)").message("only S3 is told how to encrypt, and Google and Azure always do: remove serverSideEncryption").field_path(".serverSideEncryption"),
    validation = Rule::new("has(self.credentialsSecretRef) || !(has(self.gcs) && has(self.gcs.endpoint) || has(self.azure) && has(self.azure.endpoint))").message("an endpoint needs credentials of its own: the controller's identity goes to Google and Azure only").field_path(".credentialsSecretRef")
)]
pub struct BackupStoreSpec {
    /// An S3 bucket, of AWS or of a compatible server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
    /// A bucket of Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsSpec>,
    /// A container of Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureSpec>,
    /// A folder that the controller sees. Needs the controller's `--file-store-root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSpec>,
    /// Before every key: names joined by `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*$') && !self.matches('(^|/)[.][.]?(/|$)')").message("write names of letters, digits and . _ = - joined by /, without a slash at either end and without . or .. as a name"))]
    pub prefix: Option<String>,
    /// Secret with, for S3, the keys `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if there is
    /// one, `AWS_SESSION_TOKEN`; for Google, `GOOGLE_SERVICE_ACCOUNT_KEY` (the JSON file of a service
    /// account's key); for Azure, `AZURE_STORAGE_KEY`, or `AZURE_STORAGE_SAS_TOKEN`, or
    /// `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET`. Absent: the controller's own
    /// cloud identity, where its operator allows it.
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
    /// How S3 encrypts what it keeps; absent: as the bucket says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<ServerSideEncryption>,
}

/// How S3 encrypts what it keeps. It protects the store's disks; whoever may read the bucket reads
/// the backup: against him, give the jobs `encryption.recipients`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.kmsKeyId) || self.algorithm == 'aws:kms'").message("a KMS key is used with algorithm aws:kms only").field_path(".kmsKeyId")
)]
pub struct ServerSideEncryption {
    /// `AES256`: with keys of S3 itself. `aws:kms`: with a key of AWS KMS.
    pub algorithm: Algorithm,
    /// The KMS key's id or ARN; absent: the account's own key for S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9:/_-]+$')").message("write the key's id, alias or ARN"))]
    pub kms_key_id: Option<String>,
}

/// Who has the keys of S3's encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// S3 itself (SSE-S3).
    #[serde(rename = "AES256")]
    Aes256,
    /// AWS KMS (SSE-KMS).
    #[serde(rename = "aws:kms")]
    Kms,
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

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.endpoint) ? self.endpoint : '') == (has(oldSelf.endpoint) ? oldSelf.endpoint : '')").message("endpoint is immutable: create another BackupStore").field_path(".endpoint"),
    validation = Rule::new("!has(self.endpoint) || !self.endpoint.startsWith('http://') || self.allowHttp").message("this endpoint is not encrypted: write an https:// URL, or set allowHttp: true").field_path(".endpoint")
)]
pub struct GcsSpec {
    /// Name of the bucket. It must exist.
    #[schemars(length(min = 3, max = 222))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9._-]*[a-z0-9]$')").message("write the bucket's name alone: lower-case letters, digits, dots, hyphens and underscores"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("bucket is immutable: create another BackupStore"))]
    pub bucket: String,
    /// URL of a private endpoint or of a compatible server; absent: Google's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^@?#[:space:]]+$')").message("write https://host or https://host:port, without user or query"))]
    pub endpoint: Option<String>,
    /// Accept an `http://` endpoint.
    #[serde(default)]
    pub allow_http: bool,
    /// Further certificate authorities of the endpoint, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub ca_bundle: Option<String>,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.endpoint) ? self.endpoint : '') == (has(oldSelf.endpoint) ? oldSelf.endpoint : '')").message("endpoint is immutable: create another BackupStore").field_path(".endpoint"),
    validation = Rule::new("!has(self.endpoint) || !self.endpoint.startsWith('http://') || self.allowHttp").message("this endpoint is not encrypted: write an https:// URL, or set allowHttp: true").field_path(".endpoint")
)]
pub struct AzureSpec {
    /// Name of the container. It must exist.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9-]*[a-z0-9]$')").message("write the container's name alone: lower-case letters, digits and hyphens"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("container is immutable: create another BackupStore"))]
    pub container: String,
    /// Name of the storage account.
    #[schemars(length(min = 3, max = 24))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]+$')").message("write the storage account's name alone: lower-case letters and digits"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("account is immutable: create another BackupStore"))]
    pub account: String,
    /// URL of a private endpoint or of a compatible server; absent: `https://ACCOUNT.blob.core.windows.net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^@?#[:space:]]+$')").message("write https://host or https://host:port, without user or query"))]
    pub endpoint: Option<String>,
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
    /// `Ready`: a backup could be written, read, listed and deleted here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// When the store was last probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// Where the backups lie, as `towline --store` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub location: Option<String>,
    /// What the last probe that succeeded found the store able to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Backups of this namespace and cluster in it, when they were last counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<u64>,
    /// Size of these backups, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Size of these backups, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
}

/// What a probe found a store able to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Checksum that the store compares; parts are sent by it, and their payload is not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// Unfinished uploads can be listed, so those that a crash leaves are found.
    #[serde(default)]
    pub list_uploads: bool,
}

/// A checksum of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Checksum {
    /// CRC-64/NVME.
    #[serde(rename = "CRC64NVME")]
    Crc64Nvme,
}

/// The condition of a store.
pub const READY: &str = "Ready";

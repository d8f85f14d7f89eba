//! Which agent is asked, and how it is reached.

use crate::api::{LocalReference, SecretKeyReference};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Port of an agent unless the spec has another.
pub const DEFAULT_AGENT_PORT: u16 = 8474;

/// Whose data: pods of this namespace that run an agent, or an agent's URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.podSelector) != has(self.url)").message("set exactly one of podSelector and url"),
    validation = Rule::new("!has(self.url) || !has(self.port)").message("port belongs to podSelector: write it into url").field_path(".port"),
    validation = Rule::new("!has(self.url) || self.prefer == 'Any'").message("prefer belongs to podSelector: behind a url there is one server").field_path(".prefer"),
    validation = Rule::new("!has(self.maxReplicaLagSeconds) || self.prefer in ['Replica', 'PreferReplica']").message("maxReplicaLagSeconds needs prefer: Replica or PreferReplica").field_path(".maxReplicaLagSeconds"),
    validation = Rule::new("!has(self.url) || self.url.startsWith('https://') == has(self.tls)").message("write an https:// url together with tls (tls: {} trusts the CAs of the controller's system), or an http:// url without it").field_path(".url"),
    validation = Rule::new("!has(self.podSelector) || !has(self.tls) || has(self.tls.serverName)").message("with podSelector write serverName: a DNS name that the agents' certificate has").field_path(".tls")
)]
pub struct Source {
    /// Pods with an agent, in the job's own namespace. One that is ready is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<PodSelector>,
    /// Port of the agent in those pods. Absent: 8474.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// Which of those pods: the role of the database server in them counts.
    #[serde(default)]
    pub prefer: Prefer,
    /// A replica further behind its source is passed over. Absent: any lag will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub max_replica_lag_seconds: Option<u32>,
    /// An agent elsewhere. Its host must be in the controller's `--allowed-source-hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/@?#[:space:]]+/?$')").message("write https://host or https://host:port, without user, path or query; http:// sends token and backup in plain text"))]
    pub url: Option<String>,
    /// How the agent knows us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<SourceAuth>,
    /// Present: the agent is spoken to over TLS. Absent: in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SourceTls>,
}

/// Which of several servers is backed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Prefer {
    /// The first that is ready, by name; none is asked for its role.
    #[default]
    Any,
    /// One that replicates from no other.
    Primary,
    /// One that replicates.
    Replica,
    /// One that replicates; without one, a primary.
    PreferReplica,
}

/// How the agent knows us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceAuth {
    /// Bearer token that the agent's token file lists with the scope `backup`.
    pub token_secret_ref: SecretKeyReference,
}

/// Whom to trust, and who we are. The Secrets are read for each attempt: a renewed one counts from
/// the next attempt on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceTls {
    /// CA certificates in PEM: nobody else is trusted. Absent: the CAs of the controller's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretReference>,
    /// Secret of type kubernetes.io/tls with our certificate (`tls.crt`) and its key (`tls.key`), for
    /// agents that want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<LocalReference>,
    /// Name that the agent's certificate must have. Absent: the url's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$') || self.matches('^[0-9A-Fa-f:.]+$')").message("write a DNS name or an address, as the agent's certificate has it, without port"))]
    pub server_name: Option<String>,
}

/// One key of a Secret in the same namespace, with CA certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaSecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::api::name_rule())]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "default_ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_ca_key() -> String {
    "ca.crt".into()
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
    /// Name of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label is compared.
    pub operator: SelectorOperator,
    /// Values, with In and NotIn.
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

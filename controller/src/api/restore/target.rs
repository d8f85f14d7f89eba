//! Where a restore goes.

use crate::api::job::Source;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a restore goes: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.agent), has(self.persistentVolumeClaim), has(self.drill)].filter(x, x).size() == 1").message("set exactly one of agent, persistentVolumeClaim and drill"))]
pub struct RestoreTo {
    /// A logical backup, into a running server through the agent beside it, which was started with
    /// --allow-restore and whose token has the scope `restore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Source>,
    /// A physical backup, into an empty volume that no pod uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<VolumeTarget>,
    /// Any backup, into a server of its own that is asked whether it is whole and thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillTarget>,
}

/// An empty volume, which becomes a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeTarget {
    /// Name of the PersistentVolumeClaim. It is empty, and no pod references it.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::api::name_rule())]
    pub claim_name: String,
    /// Folder of the volume that is the data directory. Absent: the volume's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*$') && !self.matches('(^|/)[.][.]?(/|$)')").message("write a relative path of letters, digits and . _ = -, without . or .. as a name"))]
    pub sub_path: Option<String>,
    /// Agent image with the backup tool that prepares the files: of the series that made the backup.
    /// Absent: the controller's for that series (--tool-images).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub tool_image: Option<String>,
    /// Of the restore's container. Absent: 100m CPU, and memory of 768Mi and useMemory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Memory with which the backup tool makes the files consistent: more is faster after a backup
    /// during many writes. Absent: the tool's default, some 100 MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        regex(pattern = "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    )]
    pub use_memory: Option<String>,
    /// Who writes the files: has to be who the server runs as. Absent: user, group and fsGroup 999, which
    /// the images of MariaDB and MySQL use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<RestoreSecurityContext>,
    /// Limit of the tools' temporary files. Absent: 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        regex(pattern = "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    )]
    pub scratch: Option<String>,
}

/// A server of its own, which is asked whether it is whole and thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillTarget {
    /// Image of the database server: the one that runs the database, so that the drill proves that this
    /// very server takes the backup. It has /bin/sh.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Agent image with the tools of the series that made the backup. Absent: the controller's for that
    /// series (--tool-images).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub tool_image: Option<String>,
    /// Of the container that restores, and of the server after it. Absent: 100m CPU, 1Gi memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where the restored data lies. Absent: on the node, ten times the size of the backup and 2Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<DrillStorage>,
}

/// Where a drill's data lies until it is thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.storageClassName) || has(self.size)").message("write size too: so large a volume is made").field_path(".size"))]
pub struct DrillStorage {
    /// How much there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        regex(pattern = "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    )]
    pub size: Option<String>,
    /// A volume of this class is made and deleted with the drill. Absent: the node's own storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::api::name_rule())]
    pub storage_class_name: Option<String>,
}

/// CPU, memory and the like of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What it is sure to have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = {"type": "string", "maxLength": 32}))]
    pub requests: BTreeMap<String, String>,
    /// What it cannot exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = {"type": "string", "maxLength": 32}))]
    pub limits: BTreeMap<String, String>,
}

/// Who writes the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSecurityContext {
    /// User. Absent: 999.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_294_u32))]
    pub run_as_user: Option<i64>,
    /// Group. Absent: 999.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_294_u32))]
    pub run_as_group: Option<i64>,
    /// Group that the volume is given to. Absent: 999.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_294_u32))]
    pub fs_group: Option<i64>,
}

/// Bytes of a quantity as the fields here have it: digits, and a suffix of Kubernetes or none. `None` for
/// anything else, and for what is more than a `u64` holds.
#[must_use]
pub fn bytes_of(quantity: &str) -> Option<u64> {
    let digits = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &quantity[digits.len()..] {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u64.pow(2),
        "G" => 1000_u64.pow(3),
        "T" => 1000_u64.pow(4),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, bytes) in [
            ("5", Some(5)),
            ("2Gi", Some(2 << 30)),
            ("3k", Some(3000)),
            ("1M", Some(1_000_000)),
            ("", None),
            ("Gi", None),
            ("1.5Gi", None),
            ("-1", None),
            ("1g", None),
            ("99999999999Ti", None),
        ] {
            assert_eq!(bytes_of(text), bytes, "{text}");
        }
    }
}

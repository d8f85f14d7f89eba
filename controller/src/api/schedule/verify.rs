//! Drills of a schedule's backups.

use crate::api::restore::{Check, Decryption, DrillStorage, DrillTarget, Resources};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// When the newest backup is restored into a server that is thrown away, and what that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// Five cron fields or a macro, as in spec.schedule, and in the same time zone.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = crate::api::cron::schedule_rule())]
    pub schedule: String,
    /// No new drills while this is set, and those that are due meanwhile are not made up for. While
    /// spec.suspend is set there are drills, of the backups that there are.
    #[serde(default)]
    pub suspend: bool,
    /// Image of the database server: the one that runs the database, so that a drill proves that this very
    /// server takes the backup. It has /bin/sh.
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
    /// What the server is asked, after the checks that every drill makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 20))]
    pub checks: Vec<Check>,
    /// Of encrypted backups: who can open them. It is mounted into the drills' pods and goes nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decryption: Option<Decryption>,
}

impl Verify {
    /// Where the drills restore to.
    #[must_use]
    pub fn target(&self) -> DrillTarget {
        DrillTarget {
            image: self.image.clone(),
            tool_image: self.tool_image.clone(),
            resources: self.resources.clone(),
            storage: self.storage.clone(),
        }
    }
}

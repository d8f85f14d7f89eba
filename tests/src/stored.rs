//! Backups as they lie in a bucket, written by hand: what is there when every object of the cluster is
//! gone.

use crate::{Namespace, store::Bucket};
use serde_json::{Value, json};

/// One backup.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Name of its job; folder and uid follow from it.
    pub job: &'a str,
    /// When that was created, RFC 3339.
    pub created: &'a str,
    /// Name and uid of its schedule.
    pub schedule: Option<(&'a str, &'a str)>,
    /// Whose it is.
    pub cluster_id: &'a str,
}

impl Stored<'_> {
    /// Key as `towline ls` prints it.
    pub fn key(&self, ns: &Namespace) -> String {
        let created: jiff::Timestamp = self.created.parse().unwrap();
        let name = self.schedule.map_or(self.job, |s| s.0);
        let created = created.strftime("%Y%m%dT%H%M%SZ");
        format!("{}/{name}/{created}-uid-{}", ns.name, self.job)
    }

    fn identity(&self, ns: &Namespace) -> Value {
        json!({
            "formatVersion": 1, "clusterId": self.cluster_id, "namespace": ns.name, "jobName": self.job,
            "jobUid": format!("uid-{}", self.job), "created": self.created, "attempt": 1, "startTime": self.created,
            "scheduleName": self.schedule.map(|s| s.0), "scheduleUid": self.schedule.map(|s| s.1),
        })
    }

    /// Writes the object and the mark; with a `change` to the mark.
    pub async fn write_objects(&self, ns: &Namespace, bucket: &Bucket, change: Value) {
        let folder = format!("backups/{}", self.key(ns));
        let mut mark = self.identity(ns);
        crate::objects::merge(&mut mark, &change);
        bucket
            .write(&format!("{folder}/1/upload.json"), mark.to_string())
            .await;
        bucket
            .write(&format!("{folder}/1/backup.tar.zst"), "a backup")
            .await;
    }

    /// Writes all of it.
    pub async fn write(&self, ns: &Namespace, bucket: &Bucket) {
        self.write_objects(ns, bucket, json!({})).await;
        let folder = format!("backups/{}", self.key(ns));
        let mut manifest = self.identity(ns);
        let more = json!({
            "outcome": "Complete", "time": self.created, "bytes": 8, "method": "physical", "serverFlavour": "mariadb",
            "serverVersion": "10.11.19-MariaDB", "objects": [{"key": format!("{folder}/1/backup.tar.zst"), "bytes": 8}],
            "sha256": "00".repeat(32), "position": {"gtid": "0-1-7"},
        });
        crate::objects::merge(&mut manifest, &more);
        bucket
            .write(&format!("{folder}/manifest.json"), manifest.to_string())
            .await;
    }
}

/// The keys under a backup's folder.
pub async fn keys_of(ns: &Namespace, bucket: &Bucket, backup: &Stored<'_>) -> Vec<String> {
    let folder = format!("backups/{}/", backup.key(ns));
    let mut keys = bucket.keys().await;
    keys.retain(|key| key.starts_with(&folder));
    keys
}

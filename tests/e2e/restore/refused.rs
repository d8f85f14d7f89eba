//! What is cut or altered, and what does not fit: no target is called usable.

use super::{alter, backed_up, first_object};
use e2e::{Namespace, database::Database, run_ok, store::Bucket};
use serde_json::{Value, json};

/// The volume was begun, is marked unusable, and is refused as a target until it is emptied.
async fn is_marked(ns: &Namespace, claim: &str, restore: &str) {
    let marker = ns.marker(claim).await;
    assert_eq!(marker["state"], "Unfinished", "{marker}");
    let status = ns.get("rjob", restore).await.unwrap()["status"].clone();
    assert_eq!(status["targetWritten"], true, "{status}");
    let again = format!("{restore}-again");
    ns.restore_into(&again, "backup", claim, &json!({})).await;
    let message = ns.restore_fails(&again, "TargetNotEmpty").await;
    assert!(message.contains("unfinished"), "{message}");
}

#[tokio::test]
async fn a_cut_or_altered_backup_leaves_a_marked_volume() {
    let ns = Namespace::create("restore-altered").await;
    let (_db, bucket, job) = backed_up(&ns, &json!({"method": "physical"})).await;
    let key = first_object(&job);
    let good = bucket.read(&key).await;

    alter(&bucket, &key).await;
    ns.claim("altered").await;
    ns.restore_into("altered", "backup", "altered", &json!({}))
        .await;
    ns.restore_fails("altered", "BackupDamaged").await;
    is_marked(&ns, "altered", "altered").await;

    // Shorter than the manifest says: that is seen before anything is written.
    bucket.write(&key, good[..good.len() / 2].to_vec()).await;
    ns.claim("cut").await;
    ns.restore_into("cut", "backup", "cut", &json!({})).await;
    let message = ns.restore_fails("cut", "BackupDamaged").await;
    assert!(message.contains("bytes"), "{message}");
    let status = ns.get("rjob", "cut").await.unwrap()["status"].clone();
    assert_ne!(status["targetWritten"], true, "{status}");
    let there = ns
        .in_claim("cut", "ls -A /claim | grep -v lost+found || true")
        .await;
    assert_eq!(there, "");

    // A manifest that agrees with the cut does not help: the archive itself has no end.
    let manifest = job["status"]["manifestKey"].as_str().unwrap();
    let half = good[..good.len() / 2].to_vec();
    lie(&bucket, manifest, &half).await;
    ns.restore(
        "lied",
        &json!({"latest": {"storeRef": {"name": "store"}}}),
        &json!({"persistentVolumeClaim": {"claimName": "cut"}}),
        &json!({}),
    )
    .await;
    ns.restore_fails("lied", "BackupDamaged").await;
    let marker = ns.marker("cut").await;
    assert_eq!(marker["state"], "Unfinished", "{marker}");
    ns.delete().await;
}

/// Has a manifest say that `archive` is the backup.
async fn lie(bucket: &Bucket, manifest: &str, archive: &[u8]) {
    let mut says: Value = serde_json::from_slice(&bucket.read(manifest).await).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, archive);
    says["sha256"] = hex::encode(digest).into();
    says["bytes"] = archive.len().into();
    says["objects"][0]["bytes"] = archive.len().into();
    bucket.write(manifest, says.to_string()).await;
}

/// A small tmpfs is the volume.
#[tokio::test]
async fn a_full_volume_says_so() {
    let ns = Namespace::create("restore-nospace").await;
    if ns.cluster.external {
        println!(
            "a_full_volume_says_so skipped: it mounts a tmpfs on the node, and that of TOWLINE_TEST_KUBECONFIG is not this machine"
        );
        return ns.delete().await;
    }
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "source").await;
    db.load_bulk().await;
    ns.ready_store().await;
    ns.job("backup", db.app(), json!({"method": "physical"}))
        .await;
    ns.job_ends("backup", "Succeeded").await;
    let volume = Tmpfs::mount("40m").await;
    // A volume belongs to no namespace, so that an earlier run's may still be there.
    let name = format!("{}-{}", ns.name, std::process::id());
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "labels": {"towline.dev/e2e": "true"}},
         "spec": {"capacity": {"storage": "40Mi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                  "storageClassName": "", "hostPath": {"path": volume.path()}}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "small"},
         "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name, "resources": {"requests": {"storage": "40Mi"}}}},
    ]});
    ns.apply(&objects.to_string()).await;
    ns.restore_into("restore", "backup", "small", &json!({}))
        .await;
    let message = ns.restore_fails("restore", "NoSpace").await;
    assert!(message.contains("larger"), "{message}");
    let marker = std::fs::read_to_string(format!("{}/towline-restore.json", volume.path()));
    let marker: Value = serde_json::from_str(&marker.unwrap()).unwrap();
    assert_eq!(marker["state"], "Unfinished", "{marker}");
    ns.kubectl_ok(&["delete", "pvc", "small", "--wait=false"])
        .await;
    ns.kubectl_ok(&["delete", "pv", &name, "--wait=false"])
        .await;
    ns.delete().await;
}

/// A tmpfs on this machine.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    async fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0777");
        run_ok(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &options,
                "tmpfs",
                folder.path().to_str().unwrap(),
            ],
            b"",
        )
        .await;
        Self(folder)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A pod may still hold it; the mount goes when that does.
        drop(
            std::process::Command::new("umount")
                .args(["-l", self.path()])
                .output(),
        );
    }
}

/// A backup of MySQL does not go into MariaDB, nor a server's own agent take what it is not told to.
#[tokio::test]
async fn another_flavour_and_an_agent_that_may_not_are_refused() {
    let ns = Namespace::create("restore-flavour").await;
    let (db, _bucket, _job) = backed_up(&ns, &json!({"method": "logical"})).await;
    let mysql = Database::for_restore(&ns, "mysql", "mysql", &[]).await;
    let to = |app: &str| json!({"agent": {"podSelector": {"matchLabels": {"app": app}}, "auth": {"tokenSecretRef": {"name": "agent-token"}}}});
    let from = json!({"backupJobRef": {"name": "backup"}});
    ns.restore("flavour", &from, &to(mysql.app()), &json!({}))
        .await;
    let message = ns.restore_fails("flavour", "Incompatible").await;
    assert!(
        message.contains("mariadb") && message.contains("mysql"),
        "{message}"
    );
    ns.restore("not-allowed", &from, &to(db.app()), &json!({}))
        .await;
    let message = ns.restore_fails("not-allowed", "TargetRefused").await;
    assert!(message.contains("--allow-restore"), "{message}");
    assert_eq!(mysql.query("SHOW DATABASES LIKE 'shop'").await, "");
    ns.delete().await;
}

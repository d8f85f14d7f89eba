//! Who deletes a BackupJob, and what becomes of its backup.

use e2e::{
    Namespace,
    database::Database,
    eventually,
    objects::merge,
    stored::{Stored, keys_of},
};
use serde_json::{Value, json};

const FINALIZER: &str = "towline.dev/delete-backup";

fn stored(job: &str) -> Stored<'_> {
    Stored {
        job,
        created: "2026-01-01T03:00:00Z",
        schedule: None,
        cluster_id: "e2e",
    }
}

/// A record of a backup, whose deletion deletes that.
async fn record(ns: &Namespace, backup: &Stored<'_>, more: &Value) {
    let mut job = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "metadata": {"name": backup.job},
        "spec": {"import": {"storeRef": {"name": "store"}, "key": backup.key(ns)}, "deletionPolicy": "Delete"}});
    merge(&mut job, more);
    ns.apply(&job.to_string()).await;
}

async fn gone(ns: &Namespace, name: &str) {
    eventually(&format!("job {name} is gone"), || async {
        match ns.get("backupjob", name).await {
            None => Ok(()),
            Some(job) => Err(job["metadata"].to_string()),
        }
    })
    .await;
}

async fn told(ns: &Namespace, name: &str, start: &str) -> String {
    eventually(&format!("an event about {name}: {start}"), || async {
        let events = ns.events(name).await;
        let found = events.iter().find(|event| event.starts_with(start));
        found.cloned().ok_or_else(|| format!("{events:?}"))
    })
    .await
}

async fn set_policy(ns: &Namespace, name: &str, policy: &str) {
    let patch = json!({"spec": {"deletionPolicy": policy}}).to_string();
    ns.kubectl_ok(&["patch", "backupjob", name, "--type=merge", "-p", &patch])
        .await;
}

#[tokio::test]
async fn a_job_takes_its_backup_with_it_when_it_is_told_to() {
    let ns = Namespace::create("delete").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    let bucket = ns.ready_store().await;
    ns.job(
        "goes",
        db.app(),
        json!({"method": "physical", "deletionPolicy": "Delete"}),
    )
    .await;
    ns.job("stays", db.app(), json!({"method": "physical"}))
        .await;
    let goes = ns.job_ends("goes", "Succeeded").await;
    assert_eq!(goes["metadata"]["finalizers"], json!([FINALIZER]));
    let stays = ns.job_ends("stays", "Succeeded").await;
    assert!(
        stays["metadata"]["finalizers"].is_null(),
        "{}",
        stays["metadata"]
    );
    bucket.assert_one_backup(&goes).await;
    ns.kubectl_ok(&["delete", "backupjob", "goes"]).await;
    let uid = goes["metadata"]["uid"].as_str().unwrap();
    let left = bucket.keys().await;
    assert!(left.iter().all(|key| !key.contains(uid)), "{left:?}");
    bucket.assert_one_backup(&stays).await;
    told(&ns, "goes", "BackupDeleted").await;

    // The policy may change its mind, and the finalizer follows.
    for (policy, finalizers) in [("Delete", json!([FINALIZER])), ("Retain", Value::Null)] {
        set_policy(&ns, "stays", policy).await;
        eventually(&format!("the finalizer under {policy}"), || async {
            let job = ns.get("backupjob", "stays").await.ok_or("none")?;
            if job["metadata"]["finalizers"] == finalizers {
                Ok(())
            } else {
                Err(job["metadata"].to_string())
            }
        })
        .await;
    }
    ns.kubectl_ok(&["delete", "backupjob", "stays"]).await;
    bucket.assert_one_backup(&stays).await;
    ns.delete().await;
}

#[tokio::test]
async fn what_the_controller_deletes_keeps_its_backup() {
    let ns = Namespace::create("delete-own").await;
    ns.install_controller(&[]).await;
    let bucket = ns.ready_store().await;
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "nightly"},
        "spec": {"schedule": "0 3 * * *", "suspend": true, "successfulJobsHistoryLimit": 1,
                 "jobTemplate": {"spec": Namespace::job_spec("nobody", &json!({}))}}});
    ns.apply(&schedule.to_string()).await;
    let schedule = ns.get("backupschedule", "nightly").await.unwrap();
    let owned = json!({"metadata": {"ownerReferences": [{
        "apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "name": "nightly", "controller": true,
        "uid": schedule["metadata"]["uid"],
    }]}});
    let (ttl, older, newer) = (
        stored("ttl"),
        stored("older"),
        Stored {
            created: "2026-01-02T03:00:00Z",
            ..stored("newer")
        },
    );
    for backup in [&ttl, &older, &newer] {
        backup.write(&ns, &bucket).await;
    }
    record(&ns, &ttl, &json!({"spec": {"ttlSecondsAfterFinished": 0}})).await;
    gone(&ns, "ttl").await;
    record(&ns, &older, &owned).await;
    record(&ns, &newer, &owned).await;
    gone(&ns, "older").await;
    // With the schedule goes its record, and the backup stays.
    let newest = ns.job_ends("newer", "Succeeded").await;
    assert_eq!(newest["metadata"]["finalizers"], json!([FINALIZER]));
    ns.kubectl_ok(&["delete", "backupschedule", "nightly"])
        .await;
    gone(&ns, "newer").await;
    told(&ns, "newer", "BackupKept").await;
    for backup in [&ttl, &older, &newer] {
        assert_eq!(
            keys_of(&ns, &bucket, backup).await.len(),
            3,
            "{}",
            backup.job
        );
    }
    ns.delete().await;
}

#[tokio::test]
async fn a_deletion_hangs_for_nothing() {
    let ns = Namespace::create("delete-hang").await;
    ns.install_controller(&[]).await;
    let bucket = ns.ready_store().await;
    let (no_secret, no_store) = (stored("no-secret"), stored("no-store"));
    let strange = Stored {
        cluster_id: "another",
        ..stored("strange")
    };
    let fine = stored("fine");
    for backup in [&no_secret, &no_store, &strange, &fine] {
        backup.write(&ns, &bucket).await;
        record(&ns, backup, &json!({})).await;
        ns.job_ends(backup.job, "Succeeded").await;
    }
    ns.kubectl_ok(&["delete", "backupjob", "fine"]).await;
    assert!(
        keys_of(&ns, &bucket, &fine).await.is_empty(),
        "an imported backup of ours goes"
    );
    ns.kubectl_ok(&["delete", "backupjob", "strange"]).await;
    let event = told(&ns, "strange", "BackupLeft").await;
    assert!(event.contains("cluster another"), "{event}");
    ns.kubectl_ok(&["delete", "secret", "s3"]).await;
    ns.kubectl_ok(&["delete", "backupjob", "no-secret"]).await;
    let event = told(&ns, "no-secret", "BackupLeft").await;
    assert!(event.contains("Secret s3"), "{event}");
    ns.kubectl_ok(&["delete", "backupstore", "store"]).await;
    ns.kubectl_ok(&["delete", "backupjob", "no-store"]).await;
    let event = told(&ns, "no-store", "BackupLeft").await;
    let key = format!("backups/{}/manifest.json", no_store.key(&ns));
    assert!(
        event.contains("BackupStore store is gone") && event.contains(&key),
        "{event}"
    );
    for backup in [&no_secret, &no_store, &strange] {
        assert_eq!(
            keys_of(&ns, &bucket, backup).await.len(),
            3,
            "{}",
            backup.job
        );
    }
    ns.delete().await;
}

#[tokio::test]
async fn a_namespace_that_is_deleted_keeps_its_backups_and_goes() {
    // With Roles, the controller's rights would go with the namespace, and before the finalizer.
    let ns = Namespace::create_alone("delete-ground").await;
    let doomed = ns.neighbour("delete-ground-doomed").await;
    ns.install_chart(&["crds.install=false", "clusterId=e2e"])
        .await;
    let bucket = doomed.ready_store().await;
    let backup = stored("kept");
    backup.write(&doomed, &bucket).await;
    record(&doomed, &backup, &json!({})).await;
    let job = doomed.job_ends("kept", "Succeeded").await;
    assert_eq!(job["metadata"]["finalizers"], json!([FINALIZER]));
    let keys = bucket.keys().await;
    doomed
        .kubectl_ok(&["delete", "namespace", &doomed.name, "--timeout=200s"])
        .await;
    assert_eq!(bucket.keys().await, keys);
    ns.delete().await;
}

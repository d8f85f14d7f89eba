//! Drills: a backup is proven by restoring it, and one that does not restore is found out.

use super::{backed_up, first_object};
use e2e::{
    Namespace, database::Database, eventually, eventually_for, namespace::condition, store::Bucket,
};
use serde_json::{Value, json};
use std::{io::Write as _, time::Duration};
use towline_agent::archive::{ArchiveWriter, Summary, verify};

fn drill(ns: &Namespace, flavour: &str) -> Value {
    let image = match flavour {
        "mysql" => format!("{}:9", ns.cluster.image("mysql")),
        _ => format!("{}:10.11", ns.cluster.image("mariadb")),
    };
    json!({"drill": {"image": image}})
}

fn of(backup: &str) -> Value {
    json!({"backupJobRef": {"name": backup}})
}

/// Nothing of a drill is left but its record.
async fn nothing_runs(ns: &Namespace) {
    eventually("what the drill made is gone", || async {
        let mut left = Vec::new();
        for kind in ["jobs", "pods", "networkpolicies", "pvc"] {
            left.extend(
                ns.list(kind, "towline.dev/restore-job-uid")
                    .await
                    .iter()
                    .map(|o| o["metadata"]["name"].to_string()),
            );
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

/// What drills wrote into the bucket, oldest first.
async fn proofs(bucket: &Bucket) -> Vec<Value> {
    let mut proofs = Vec::new();
    for key in bucket.keys().await {
        if key.contains("/verified/") {
            proofs.push(serde_json::from_slice(&bucket.read(&key).await).unwrap());
        }
    }
    proofs
}

async fn verified(ns: &Namespace, kind: &str, name: &str, status: &str) -> Value {
    eventually(&format!("{kind} {name} is Verified={status}"), || async {
        let object = ns.get(kind, name).await.ok_or("no such object")?;
        match condition(&object, "Verified") {
            Some(c) if c["status"] == status => Ok(c.clone()),
            _ => Err(object["status"].to_string()),
        }
    })
    .await
}

async fn a_good_backup_passes(flavour: &'static str, method: &str) {
    let ns = Namespace::create(&format!("drill-{flavour}-{method}")).await;
    ns.install_controller(&[]).await;
    let db = match flavour {
        "mysql" => Database::mysql(&ns, "source").await,
        _ => Database::mariadb(&ns, "source").await,
    };
    db.load_shop().await;
    let bucket = ns.ready_store().await;
    ns.job("backup", db.app(), json!({"method": method})).await;
    ns.job_ends("backup", "Succeeded").await;
    let checks = json!({"checks": [
        {"query": "SELECT COUNT(*) FROM shop.orders", "expect": "10000"},
        {"query": "SELECT MAX(id) FROM shop.orders"},
    ]});
    ns.restore("drill", &of("backup"), &drill(&ns, flavour), &checks)
        .await;
    let restore = ns.restore_ends("drill", "Succeeded").await;
    let status = &restore["status"];
    assert!(status["tables"].as_u64() >= Some(2), "{status}");
    assert!(status["rows"].as_u64() >= Some(10_100), "{status}");
    let checked = status["checks"].as_array().unwrap();
    assert!(
        checked.iter().all(|c| c["passed"] == true) && checked.len() >= 2,
        "{status}"
    );
    assert!(checked.iter().any(|c| c["found"] == "10000"), "{status}");
    verified(&ns, "bkjob", "backup", "True").await;
    let proofs = proofs(&bucket).await;
    assert_eq!(proofs.len(), 1, "{proofs:?}");
    assert_eq!(proofs[0]["result"], "Passed", "{}", proofs[0]);
    let events = ns.events("backup").await;
    assert!(
        events.iter().any(|e| e.starts_with("Verified")),
        "{events:?}"
    );
    nothing_runs(&ns).await;

    // The data is not what the user says it must be.
    let wrong =
        json!({"checks": [{"query": "SELECT COUNT(*) FROM shop.orders", "expect": "10001"}]});
    ns.restore("wrong", &of("backup"), &drill(&ns, flavour), &wrong)
        .await;
    let message = ns.restore_fails("wrong", "CheckFailed").await;
    assert!(
        message.contains("10001") && message.contains("10000"),
        "{message}"
    );
    verified(&ns, "bkjob", "backup", "False").await;

    // A query with a fault of its own says nothing about the backup.
    let before = self::proofs(&bucket).await.len();
    let no_sql = json!({"checks": [{"query": "SELECT FORM shop.orders WHERE"}]});
    ns.restore("no-sql", &of("backup"), &drill(&ns, flavour), &no_sql)
        .await;
    let message = ns.restore_fails("no-sql", "InvalidSpec").await;
    assert!(message.contains("FORM"), "{message}");
    assert_eq!(self::proofs(&bucket).await.len(), before);
    nothing_runs(&ns).await;
    ns.delete().await;
}

#[tokio::test]
async fn a_physical_backup_of_mariadb_passes_its_drill() {
    a_good_backup_passes("mariadb", "physical").await;
}

#[tokio::test]
async fn a_logical_backup_of_mariadb_passes_its_drill() {
    a_good_backup_passes("mariadb", "logical").await;
}

#[tokio::test]
async fn a_logical_backup_of_mysql_passes_its_drill() {
    a_good_backup_passes("mysql", "logical").await;
}

/// Writes another archive with the same data in the place of a backup, and has the manifest say so.
async fn replace_summary(bucket: &Bucket, job: &Value, change: impl FnOnce(&mut Summary)) {
    let archive = bucket.archive(job).await;
    let mut data = Vec::new();
    let read = verify(archive.as_slice(), &mut data).unwrap();
    let mut summary = read.summary.clone();
    change(&mut summary);
    let mut writer = ArchiveWriter::new(Vec::new(), &read.metadata, "xbs", Some(3)).unwrap();
    writer.write_all(&data).unwrap();
    let archive = writer.finish(summary).unwrap();
    let manifest = job["status"]["manifestKey"].as_str().unwrap();
    let mut says: Value = serde_json::from_slice(&bucket.read(manifest).await).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &archive);
    says["sha256"] = hex::encode(digest).into();
    says["bytes"] = archive.len().into();
    says["objects"][0]["bytes"] = archive.len().into();
    bucket.write(manifest, says.to_string()).await;
    bucket.write(&first_object(job), archive).await;
}

#[tokio::test]
async fn what_a_drill_finds_out() {
    let ns = Namespace::create("drill-bad").await;
    let (db, bucket, job) = backed_up(&ns, &json!({"method": "physical"})).await;
    let key = first_object(&job);
    let good = bucket.read(&key).await;
    let manifest = job["status"]["manifestKey"].as_str().unwrap().to_owned();
    let good_manifest = bucket.read(&manifest).await;

    // Altered in the bucket after it had succeeded.
    super::alter(&bucket, &key).await;
    ns.restore("altered", &of("backup"), &drill(&ns, "mariadb"), &json!({}))
        .await;
    ns.restore_fails("altered", "BackupDamaged").await;
    let condition = verified(&ns, "bkjob", "backup", "False").await;
    assert_eq!(condition["reason"], "BackupDamaged", "{condition}");
    bucket.write(&key, good.clone()).await;

    // It names a table that is not in it.
    replace_summary(&bucket, &job, |summary| {
        summary
            .schemas
            .get_mut("shop")
            .unwrap()
            .push("ghosts".into());
    })
    .await;
    let latest = json!({"latest": {"storeRef": {"name": "store"}}});
    ns.restore("lacks", &latest, &drill(&ns, "mariadb"), &json!({}))
        .await;
    let message = ns.restore_fails("lacks", "CheckFailed").await;
    assert!(message.contains("shop.ghosts"), "{message}");
    bucket.write(&key, good).await;
    bucket.write(&manifest, good_manifest).await;

    // A drill that cannot run says nothing about the backup.
    ns.restore("sound", &of("backup"), &drill(&ns, "mariadb"), &json!({}))
        .await;
    ns.restore_ends("sound", "Succeeded").await;
    verified(&ns, "bkjob", "backup", "True").await;
    let before = proofs(&bucket).await.len();
    let no_image = json!({"drill": {"image": "localhost/no-such-image:1"}});
    ns.restore("no-image", &of("backup"), &no_image, &json!({}))
        .await;
    let message = ns.restore_fails("no-image", "PodFailed").await;
    assert!(message.contains("no-such-image"), "{message}");
    verified(&ns, "bkjob", "backup", "True").await;
    assert_eq!(proofs(&bucket).await.len(), before);

    // A backup of a server that holds nothing.
    db.query("DROP DATABASE shop").await;
    ns.job("empty", db.app(), json!({"method": "physical"}))
        .await;
    ns.job_ends("empty", "Succeeded").await;
    ns.restore("empty", &of("empty"), &drill(&ns, "mariadb"), &json!({}))
        .await;
    let message = ns.restore_fails("empty", "CheckFailed").await;
    assert!(message.contains("no table"), "{message}");
    verified(&ns, "bkjob", "empty", "False").await;
    nothing_runs(&ns).await;
    ns.delete().await;
}

/// On its own schedule; the controller is killed in the middle of one, and nothing is left behind. A backup
/// that fails it is no longer counted as a good one.
#[tokio::test]
async fn a_schedule_has_its_backups_drilled() {
    let ns = Namespace::create("drill-schedule").await;
    if !ns.may_kill("a_schedule_has_its_backups_drilled") {
        return ns.delete().await;
    }
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "source").await;
    db.load_shop().await;
    let bucket = ns.ready_store().await;
    let image = format!("{}:10.11", ns.cluster.image("mariadb"));
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "minutely"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": Namespace::job_spec(db.app(), &json!({"method": "physical"}))}}});
    ns.apply(&schedule.to_string()).await;
    eventually_for(
        Duration::from_secs(300),
        "a backup has succeeded",
        || async {
            let schedule = ns.get("bksched", "minutely").await.ok_or("none")?;
            if schedule["status"]["lastSuccessfulTime"].is_string() {
                Ok(())
            } else {
                Err(schedule["status"].to_string())
            }
        },
    )
    .await;
    let patch = |spec: Value| json!({"spec": spec}).to_string();
    let set = async |spec: Value| {
        ns.kubectl_ok(&[
            "patch",
            "bksched",
            "minutely",
            "--type=merge",
            "-p",
            &patch(spec),
        ])
        .await;
    };
    set(json!({"suspend": true})).await;
    eventually("no job runs", || async {
        let schedule = ns.get("bksched", "minutely").await.ok_or("none")?;
        if schedule["status"]["active"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            Ok(())
        } else {
            Err(schedule["status"].to_string())
        }
    })
    .await;
    set(json!({"verify": {"schedule": "* * * * *", "image": image, "checks": [{"query": "SELECT COUNT(*) FROM shop.orders", "expect": "10000"}]}})).await;
    // The controller dies while the first drill's pod is there.
    eventually_for(Duration::from_secs(300), "a drill's pod", || async {
        let pods = ns.list("pods", "towline.dev/restore-job-uid").await;
        if pods.is_empty() {
            Err("none".into())
        } else {
            Ok(())
        }
    })
    .await;
    ns.kill_controller().await;
    eventually_for(
        Duration::from_secs(400),
        "the schedule is Verified",
        || async {
            let schedule = ns.get("bksched", "minutely").await.ok_or("none")?;
            match condition(&schedule, "Verified") {
                Some(c)
                    if c["status"] == "True"
                        && schedule["status"]["lastVerifiedTime"].is_string() =>
                {
                    Ok(())
                }
                _ => Err(schedule["status"].to_string()),
            }
        },
    )
    .await;
    // The newest backup goes bad in the bucket; the next drill finds it out.
    let jobs = ns.list("bkjob", "towline.dev/schedule=minutely").await;
    let newest = jobs
        .iter()
        .filter(|job| job["status"]["phase"] == "Succeeded")
        .max_by_key(|job| {
            job["metadata"]["creationTimestamp"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .unwrap();
    super::alter(&bucket, &first_object(newest)).await;
    let bad = eventually_for(
        Duration::from_secs(400),
        "the schedule is not Verified",
        || async {
            let schedule = ns.get("bksched", "minutely").await.ok_or("none")?;
            match condition(&schedule, "Verified") {
                Some(c) if c["status"] == "False" => Ok(c.clone()),
                _ => Err(schedule["status"].to_string()),
            }
        },
    )
    .await;
    assert_eq!(bad["reason"], "BackupDamaged", "{bad}");
    let name = newest["metadata"]["name"].as_str().unwrap();
    verified(&ns, "bkjob", name, "False").await;
    let events = ns.events("minutely").await;
    assert!(
        events.iter().any(|e| e.contains("BackupDamaged")),
        "{events:?}"
    );
    set(json!({"verify": null})).await;

    // Another backup, and retention of one: were the bad one good, it would be the newest one's elder only.
    set(json!({"suspend": false})).await;
    eventually_for(Duration::from_secs(300), "two backups", || async {
        let found = ns.list("bkjob", "towline.dev/schedule=minutely").await;
        let good = found
            .iter()
            .filter(|job| job["status"]["phase"] == "Succeeded")
            .count();
        if good > jobs.len() {
            Ok(())
        } else {
            Err(format!("{good}"))
        }
    })
    .await;
    set(json!({"suspend": true, "retention": {"keepLast": 1}})).await;
    let uid = newest["metadata"]["uid"].as_str().unwrap();
    eventually("retention has deleted the bad one", || async {
        let keys = bucket.keys().await;
        if keys.iter().any(|key| key.contains(uid)) {
            Err(format!("{keys:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    nothing_runs(&ns).await;
    ns.delete().await;
}

//! Retention, the sweep and the catalog, on buckets whose database and BackupJobs are gone.

use e2e::{
    Namespace, Output,
    command::run_command,
    eventually,
    namespace::condition,
    objects::merge,
    store::Bucket,
    stored::{Stored, keys_of},
};
use serde_json::{Value, json};
use tokio::process::Command;

/// A schedule that makes no backups of a database that is not there.
async fn idle_schedule(ns: &Namespace, name: &str, more: &Value) -> String {
    let mut schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": name},
        "spec": {"schedule": "0 3 * * *", "suspend": true,
                 "jobTemplate": {"spec": Namespace::job_spec("nobody", &json!({}))}}});
    merge(&mut schedule["spec"], more);
    ns.apply(&schedule.to_string()).await;
    let schedule = ns.get("backupschedule", name).await.unwrap();
    schedule["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn patch(ns: &Namespace, kind: &str, name: &str, patch: &Value) {
    let patch = patch.to_string();
    ns.kubectl_ok(&["patch", kind, name, "--type=merge", "-p", &patch])
        .await;
}

/// Waits for a pass that has followed the schedule as it is now.
async fn retained(ns: &Namespace, name: &str, reason: &str) -> Value {
    eventually(&format!("a pass ends with {reason}"), || async {
        let schedule = ns.get("backupschedule", name).await.ok_or("none")?;
        let told = condition(&schedule, "Retained")
            .cloned()
            .unwrap_or_default();
        if told["reason"] == reason
            && told["observedGeneration"] == schedule["metadata"]["generation"]
        {
            Ok(schedule)
        } else {
            Err(schedule["status"].to_string())
        }
    })
    .await
}

#[tokio::test]
async fn the_surplus_goes_and_nothing_else() {
    let ns = Namespace::create("retention").await;
    ns.install_controller(&[]).await;
    let bucket = ns.ready_store().await;
    let uid = idle_schedule(&ns, "nightly", &json!({})).await;
    let ours = |job, created| Stored {
        job,
        created,
        schedule: Some(("nightly", &uid)),
        cluster_id: "e2e",
    };
    let mine = [
        ours("nightly-1", "2026-01-01T03:00:00Z"),
        ours("nightly-2", "2026-01-02T03:00:00Z"),
        ours("nightly-3", "2026-01-03T03:00:00Z"),
        ours("nightly-4", "2026-01-04T03:00:00Z"),
    ];
    let another_clusters = Stored {
        cluster_id: "another",
        ..ours("nightly-0", "2025-12-31T03:00:00Z")
    };
    let another_schedules = Stored {
        schedule: Some(("weekly", "another")),
        ..ours("weekly-1", "2025-12-31T03:00:00Z")
    };
    for backup in mine.iter().chain([&another_clusters, &another_schedules]) {
        backup.write(&ns, &bucket).await;
    }
    // A deletion that died after the manifest, and an upload of a controller that was killed.
    let half = ours("nightly-half", "2025-12-30T03:00:00Z");
    half.write_objects(&ns, &bucket, json!({"deleting": true}))
        .await;
    let dead = ours("nightly-dead", "2025-12-29T03:00:00Z");
    let key = format!("backups/{}/1/backup.tar.zst.0001", dead.key(&ns));
    let upload = bucket.open_upload(&key).await;
    let recorded = json!({"uploads": [{"key": key, "uploadId": upload}]});
    dead.write_objects(&ns, &bucket, recorded).await;

    let before = bucket.keys().await;
    let dry = json!({"spec": {"retention": {"keepLast": 2, "dryRun": true}}});
    patch(&ns, "backupschedule", "nightly", &dry).await;
    let schedule = retained(&ns, "nightly", "DryRun").await;
    let message = condition(&schedule, "Retained").unwrap()["message"].to_string();
    assert!(
        message.contains("would delete 2 backups (16B): nightly-1, nightly-2"),
        "{message}"
    );
    assert_eq!(schedule["status"]["backups"], 4, "{}", schedule["status"]);
    let after = bucket.keys().await;
    let kept = |key: &&String| !key.contains("nightly-half");
    assert_eq!(
        after.iter().filter(kept).collect::<Vec<_>>(),
        before.iter().filter(kept).collect::<Vec<_>>(),
        "a dry run deletes nothing"
    );

    patch(
        &ns,
        "backupschedule",
        "nightly",
        &json!({"spec": {"retention": {"dryRun": false}}}),
    )
    .await;
    let schedule = retained(&ns, "nightly", "Retained").await;
    let status = &schedule["status"];
    assert_eq!(
        (&status["backups"], &status["bytes"]),
        (&json!(2), &json!(16)),
        "{status}"
    );
    for (backup, left) in [
        (&mine[0], 0),
        (&mine[1], 0),
        (&mine[2], 3),
        (&mine[3], 3),
        (&another_clusters, 3),
        (&another_schedules, 3),
    ] {
        let keys = keys_of(&ns, &bucket, backup).await;
        assert_eq!(keys.len(), left, "{}: {keys:?}", backup.job);
    }
    let events = ns.events("nightly").await;
    assert!(
        events
            .iter()
            .any(|e| e.starts_with("Deleted deleted 2 backups (16B): nightly-1, nightly-2")),
        "{events:?}"
    );
    assert!(events.iter().any(|e| e.starts_with("DryRun")), "{events:?}");
    // The store counts what is ours; the sweep follows.
    eventually("the pass is over", || async {
        let store = ns.get("backupstore", "store").await.ok_or("none")?;
        let half = keys_of(&ns, &bucket, &half).await;
        let uploads = bucket.uploads().await;
        if store["status"]["backups"] == 3 && half.is_empty() && uploads.is_empty() {
            Ok(())
        } else {
            Err(format!("{} {half:?} {uploads:?}", store["status"]))
        }
    })
    .await;
    assert_eq!(
        keys_of(&ns, &bucket, &dead).await.len(),
        2,
        "completed objects wait a day"
    );
    let table = ns.kubectl_ok(&["get", "bksched,bkstore"]).await;
    assert!(
        table.contains("BACKUPS") && table.contains("16B"),
        "{table}"
    );

    // Nothing is left to do, whatever the pass; the last good one stays under any rule.
    let within = json!({"spec": {"retention": {"keepLast": null, "keepWithin": "1h"}}});
    patch(&ns, "backupschedule", "nightly", &within).await;
    let schedule = retained(&ns, "nightly", "Retained").await;
    assert_eq!(schedule["status"]["backups"], 1, "{}", schedule["status"]);
    assert_eq!(keys_of(&ns, &bucket, &mine[3]).await.len(), 3);
    ns.delete().await;
}

#[tokio::test]
async fn a_policy_that_makes_no_sense_is_refused() {
    let ns = Namespace::create("retention-refused").await;
    for (retention, part) in [
        (json!({}), "at least one of keepLast"),
        (json!({"dryRun": true}), "at least one of keepLast"),
        (json!({"keepLast": 0}), "keepLast"),
        (json!({"keepWithin": "5m"}), "36h"),
        (json!({"keepWithin": "1h2d"}), "36h"),
        (json!({"keepWithin": "0d"}), "36h"),
        (
            json!({"keepLast": 1, "keepYearly": 1_000_000}),
            "keepYearly",
        ),
    ] {
        let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "s"},
            "spec": {"schedule": "0 3 * * *", "retention": retention,
                     "jobTemplate": {"spec": Namespace::job_spec("nobody", &json!({}))}}});
        let output = ns
            .kubectl(&["create", "-f", "-"], &schedule.to_string())
            .await;
        assert!(
            output.code != 0 && output.stderr.contains(part),
            "{retention}: {}",
            output.stderr
        );
    }
    for (template, part) in [
        (json!({"deletionPolicy": "Delete"}), "spec.retention"),
        (
            json!({"source": null, "storeRef": null, "import": {"storeRef": {"name": "s"}, "key": "a/b/20260101T000000Z-u"}}),
            "a schedule makes backups",
        ),
    ] {
        let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "s"},
            "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": Namespace::job_spec("nobody", &template)}}});
        let output = ns
            .kubectl(&["create", "-f", "-"], &schedule.to_string())
            .await;
        assert!(
            output.code != 0 && output.stderr.contains(part),
            "{template}: {}",
            output.stderr
        );
    }
    for (spec, part) in [
        (json!({}), "set source and storeRef, or import"),
        (
            json!({"storeRef": {"name": "s"}}),
            "set source and storeRef, or import",
        ),
        (
            json!({"import": {"storeRef": {"name": "s"}, "key": "backups/a/b/20260101T000000Z-u/manifest.json"}}),
            "as towline ls prints it",
        ),
        (
            json!({"import": {"storeRef": {"name": "s"}, "key": "a/b/20260101T000000Z-u"}, "method": "logical"}),
            "nothing is run",
        ),
    ] {
        let job = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "metadata": {"name": "j"}, "spec": spec});
        let output = ns.kubectl(&["create", "-f", "-"], &job.to_string()).await;
        assert!(
            output.code != 0 && output.stderr.contains(part),
            "{spec}: {}",
            output.stderr
        );
    }
    ns.delete().await;
}

/// Runs `towline catalog` as a person would who sees the S3 server by another address.
async fn catalog(ns: &Namespace, bucket: &Bucket, args: &[&str]) -> Output {
    let towline = std::env::var("TOWLINE_E2E_TOWLINE")
        .expect("TOWLINE_E2E_TOWLINE is the path of the program `towline`");
    let (id, secret) = &ns.cluster.s3_key;
    let store = format!("s3://{}/backups", bucket.name);
    let mut command = Command::new(towline);
    command
        .env("KUBECONFIG", &ns.cluster.kubeconfig)
        .env("AWS_ACCESS_KEY_ID", id)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .arg("catalog")
        .args(args)
        .args(["-n", &ns.name, "--store", &store, "--allow-http"])
        .args(["--endpoint-url", &ns.cluster.s3_endpoint_here]);
    run_command(command, b"").await
}

async fn catalog_ok(ns: &Namespace, bucket: &Bucket, args: &[&str]) -> String {
    let output = catalog(ns, bucket, args).await;
    assert_eq!(
        output.code, 0,
        "{args:?}: {}{}",
        output.stdout, output.stderr
    );
    output.stdout
}

#[tokio::test]
async fn a_cluster_that_has_forgotten_everything_is_told() {
    let ns = Namespace::create("catalog").await;
    ns.install_controller(&[]).await;
    let bucket = ns.ready_store().await;
    let old = |job, created| Stored {
        job,
        created,
        schedule: Some(("nightly", "before")),
        cluster_id: "e2e",
    };
    let all = [
        old("nightly-1", "2026-01-01T03:00:00Z"),
        old("nightly-2", "2026-01-02T03:00:00Z"),
        Stored {
            cluster_id: "lost",
            schedule: None,
            ..old("by-hand", "2026-01-03T03:00:00Z")
        },
        Stored {
            cluster_id: "lost",
            ..old("nightly-3", "2026-01-03T03:00:00Z")
        },
    ];
    for backup in &all {
        backup.write(&ns, &bucket).await;
    }
    let said = catalog_ok(&ns, &bucket, &["import", "store", "--dry-run"]).await;
    assert!(
        said.contains("4 made") && ns.list("backupjobs", "").await.is_empty(),
        "{said}"
    );
    let said = catalog_ok(&ns, &bucket, &["import", "store"]).await;
    assert!(said.contains("4 made, 0 there already"), "{said}");
    let said = catalog_ok(&ns, &bucket, &["import", "store"]).await;
    assert!(said.contains("0 made, 4 there already"), "{said}");

    let records = eventually("every record has what the manifest says", || async {
        let jobs = ns.list("backupjobs", "towline.dev/imported=true").await;
        let good = |j: &Value| j["status"]["phase"] == "Succeeded" && j["status"]["bytes"] == 8;
        if jobs.len() == 4 && jobs.iter().all(good) {
            Ok(jobs)
        } else {
            Err(format!("{jobs:?}"))
        }
    })
    .await;
    let record = |backup: &Stored<'_>| {
        let key = backup.key(&ns);
        let found = records.iter().find(|j| j["spec"]["import"]["key"] == *key);
        found.unwrap_or_else(|| panic!("{key}")).clone()
    };
    let first = record(&all[0]);
    let status = &first["status"];
    assert_eq!(
        status["manifestKey"],
        format!("backups/{}/manifest.json", all[0].key(&ns))
    );
    assert_eq!(status["completionTime"], "2026-01-01T03:00:00Z");
    assert_eq!(status["position"]["gtid"], "0-1-7");
    assert_eq!(
        first["metadata"]["labels"]["towline.dev/schedule"],
        "nightly"
    );

    // They survive a restart, as they are.
    ns.kubectl_ok(&["delete", "pods", "-l", "app.kubernetes.io/name=towline"])
        .await;
    ns.controller_ready().await;
    // The controller has been through its objects once it takes up a new one.
    let wrong = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "metadata": {"name": "wrong"},
        "spec": {"import": {"storeRef": {"name": "store"}, "key": "kube-system/nightly/20260101T030000Z-u"}}});
    ns.apply(&wrong.to_string()).await;
    let wrong = ns.job_ends("wrong", "Failed").await;
    let (reason, message) = e2e::objects::failure(&wrong);
    assert!(
        reason == "InvalidSpec" && message.contains("kube-system"),
        "{reason} {message}"
    );
    for before in &records {
        let after = ns
            .get("backupjob", before["metadata"]["name"].as_str().unwrap())
            .await
            .unwrap();
        assert_eq!(after["status"], before["status"]);
    }
    // A record that goes takes nothing with it.
    let keys = bucket.keys().await;
    ns.kubectl_ok(&["delete", "backupjobs", "-l", "towline.dev/imported=true"])
        .await;
    assert_eq!(bucket.keys().await, keys);

    // A schedule that is made again owns nothing of the one before, until it adopts it.
    idle_schedule(&ns, "nightly", &json!({"retention": {"keepLast": 1}})).await;
    let schedule = retained(&ns, "nightly", "Retained").await;
    assert_eq!(schedule["status"]["backups"], 0, "{}", schedule["status"]);
    let adopted = catalog(&ns, &bucket, &["adopt", "nightly", "--cluster-id", "e2e"]).await;
    assert!(
        adopted.code == 0
            && adopted
                .stdout
                .contains("1 earlier schedules with 2 backups adopted"),
        "{adopted:?}"
    );
    assert!(adopted.stderr.contains("--cluster-id lost"), "{adopted:?}");
    let schedule = retained(&ns, "nightly", "Retained").await;
    assert_eq!(schedule["spec"]["retention"]["adopt"], json!(["before"]));
    assert_eq!(schedule["status"]["backups"], 1, "{}", schedule["status"]);
    for (backup, left) in [(&all[0], 0), (&all[1], 3), (&all[2], 3), (&all[3], 3)] {
        assert_eq!(
            keys_of(&ns, &bucket, backup).await.len(),
            left,
            "{}",
            backup.job
        );
    }
    // What is wrong is said in one line.
    let none = catalog(&ns, &bucket, &["import", "nowhere"]).await;
    assert!(
        none.code == 1 && none.stderr.contains("there is no BackupStore nowhere"),
        "{none:?}"
    );
    ns.delete().await;
}

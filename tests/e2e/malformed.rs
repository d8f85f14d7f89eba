//! Objects that the controller cannot read, as a newer release's definitions would let in.

use e2e::{Namespace, PortForward, database::Database, eventually, namespace::condition, run};
use serde_json::{Value, json};

#[tokio::test]
async fn a_malformed_object_says_so_and_stops_no_other() {
    // The definitions are everybody's.
    let ns = Namespace::create_alone("malformed").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    let bucket = ns.ready_store().await;
    for (kind, path) in [
        ("backupjobs", "method"),
        ("backupschedules", "concurrencyPolicy"),
        ("backupstores", "partSize"),
    ] {
        loosen(&ns, kind, path).await;
    }
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "towline.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let objects = [
        (
            object(
                "BackupJob",
                "newer",
                Namespace::job_spec(db.app(), &json!({"method": "snapshot"})),
            ),
            "Progressing",
            ["spec.method", "snapshot"],
        ),
        (
            object(
                "BackupSchedule",
                "newer",
                json!({"schedule": "0 3 * * *", "concurrencyPolicy": "Sometimes",
                "jobTemplate": {"spec": Namespace::job_spec(db.app(), &json!({}))}}),
            ),
            "Ready",
            ["spec.concurrencyPolicy", "Sometimes"],
        ),
        (
            object(
                "BackupStore",
                "newer",
                json!({"s3": {"bucket": "backups", "region": "us-east-1"}, "partSize": "much"}),
            ),
            "Ready",
            ["spec.partSize", "much"],
        ),
    ];
    for (object, type_, parts) in &objects {
        eventually("the API server takes it", || async {
            let output = ns.kubectl(&["apply", "-f", "-"], &object.to_string()).await;
            if output.code == 0 {
                Ok(())
            } else {
                Err(output.stderr)
            }
        })
        .await;
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let told = eventually(&format!("{kind} says that it is malformed"), || async {
            let object = ns.get(&kind, "newer").await.ok_or("none")?;
            condition(&object, type_)
                .filter(|c| c["reason"] == "InvalidSpec" && c["status"] == "False")
                .cloned()
                .ok_or_else(|| object["status"].to_string())
        })
        .await;
        for part in parts {
            assert!(told["message"].as_str().unwrap().contains(part), "{told}");
        }
        assert_eq!(told["observedGeneration"], 1, "{told}");
    }
    // The others are none the worse for it.
    ns.job("good", db.app(), json!({"method": "physical"}))
        .await;
    let job = ns.job_ends("good", "Succeeded").await;
    bucket.assert_one_backup(&job).await;
    let pod = ns.controller_ready().await;
    let forward = PortForward::start(&ns, &pod, 8080).await;
    let url = format!("http://{}/metrics", forward.address());
    let metrics = run("curl", &["-sf", &url], b"").await.stdout;
    for kind in ["BackupJob", "BackupSchedule", "BackupStore"] {
        let line = format!("towline_malformed_objects{{kind=\"{kind}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    // A schedule whose job is one goes on.
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "minutely"}, "spec": {
        "schedule": "* * * * *", "jobTemplate": {"spec": Namespace::job_spec(db.app(), &json!({"method": "physical", "maxBytesPerSecond": 20_000}))}}});
    ns.apply(&schedule.to_string()).await;
    let jobs = async |at_least: usize| {
        eventually(&format!("{at_least} jobs of the schedule"), || async {
            let jobs = ns.list("backupjobs", "towline.dev/schedule=minutely").await;
            if jobs.len() >= at_least {
                Ok(jobs)
            } else {
                Err(jobs.len().to_string())
            }
        })
        .await
    };
    let first = jobs(1).await[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    ns.job_until(&first, "runs", |s| s["phase"] == "Running")
        .await;
    let newer = r#"{"spec":{"method":"snapshot"}}"#;
    ns.kubectl_ok(&["patch", "backupjob", &first, "--type=merge", "-p", newer])
        .await;
    jobs(2).await;
    ns.kubectl_ok(&[
        "delete",
        "backupschedule",
        "minutely",
        "--cascade=background",
    ])
    .await;

    // Corrected, it runs; deleted, it is forgotten.
    ns.kubectl_ok(&[
        "patch",
        "backupjob",
        "newer",
        "--type=merge",
        "-p",
        r#"{"spec":{"method":"physical"}}"#,
    ])
    .await;
    ns.job_ends("newer", "Succeeded").await;
    ns.kubectl_ok(&["delete", "backupschedule,backupstore", "newer"])
        .await;
    eventually("no object is malformed any more", || async {
        let metrics = run("curl", &["-sf", &url], b"").await.stdout;
        let left: Vec<_> = metrics
            .lines()
            .filter(|line| line.starts_with("towline_malformed_objects{") && !line.ends_with(" 0"))
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    ns.apply_definitions().await;
    ns.delete().await;
}

/// The API server takes anything in a field of the spec. A test that fails meanwhile leaves this to
/// the next run, which begins with the chart's definitions.
async fn loosen(ns: &Namespace, kind: &str, field: &str) {
    let name = format!("{kind}.towline.dev");
    let mut definition = ns.get("crd", &name).await.unwrap();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"][field] =
        json!({"x-kubernetes-preserve-unknown-fields": true});
    // Rules that know the field by its type, immutability among them.
    drop_rules(schema);
    definition["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    let output = ns
        .kubectl(&["replace", "-f", "-"], &definition.to_string())
        .await;
    assert_eq!(output.code, 0, "{}", output.stderr);
}

fn drop_rules(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("x-kubernetes-validations");
            members.values_mut().for_each(drop_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_rules),
        _ => {}
    }
}

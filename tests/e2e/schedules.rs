//! Schedules on a real cluster: no run is doubled, and what happens to the one before.

use e2e::{Namespace, database::Database, eventually_for, objects::failure};
use serde_json::{Value, json};
use std::time::Duration;

/// Due times come by the minute.
const TWO_RUNS: Duration = Duration::from_secs(300);

async fn schedule(ns: &Namespace, app: &str, spec: Value, job: Value) {
    let mut object = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "minutely"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": Namespace::job_spec(app, &job)}}});
    e2e::objects::merge(&mut object["spec"], &spec);
    ns.apply(&object.to_string()).await;
}

async fn patch(ns: &Namespace, kind: &str, name: &str, patch: &Value) {
    ns.kubectl_ok(&[
        "patch",
        kind,
        name,
        "--type=merge",
        "-p",
        &patch.to_string(),
    ])
    .await;
}

/// The schedule's jobs, by due time.
async fn jobs(ns: &Namespace) -> Vec<Value> {
    let mut jobs = ns.list("backupjobs", "towline.dev/schedule=minutely").await;
    jobs.sort_by_key(|job| job["metadata"]["name"].as_str().map(str::to_owned));
    jobs
}

/// Whether the controller may write what its schedules did.
async fn let_write_status(ns: &Namespace, may: bool) {
    let name = "towline";
    let mut role = ns.get("role", name).await.expect("the controller's role");
    for rule in role["rules"].as_array_mut().unwrap() {
        let resources = rule["resources"].as_array_mut().unwrap();
        if resources.contains(&json!("backupjobs/status")) {
            resources.retain(|r| r != "backupschedules/status");
            if may {
                resources.push(json!("backupschedules/status"));
            }
        }
    }
    patch(ns, "role", name, &json!({"rules": role["rules"]})).await;
}

#[tokio::test]
async fn a_kill_between_create_and_status_doubles_nothing() {
    let ns = Namespace::create("kill-schedule").await;
    if !ns.may_kill("a_kill_between_create_and_status_doubles_nothing") {
        return ns.delete().await;
    }
    ns.install_controller(&[]).await;
    ns.ready_store().await;
    // The controller may create jobs, but not write that it did.
    let_write_status(&ns, false).await;
    schedule(&ns, "nobody", json!({}), json!({})).await;
    let first = eventually_for(TWO_RUNS, "a job was created", || async {
        jobs(&ns)
            .await
            .first()
            .cloned()
            .ok_or_else(|| "none".into())
    })
    .await;
    let untold = ns.get("backupschedule", "minutely").await.unwrap();
    assert!(
        untold["status"]["lastScheduleTime"].is_null(),
        "{}",
        untold["status"]
    );
    ns.kill_controller().await;
    patch(
        &ns,
        "backupschedule",
        "minutely",
        &json!({"spec": {"suspend": true}}),
    )
    .await;
    let_write_status(&ns, true).await;
    let told = eventually_for(TWO_RUNS, "the successor knows of the run", || async {
        let schedule = ns.get("backupschedule", "minutely").await.ok_or("none")?;
        let status = &schedule["status"];
        if status["lastScheduleTime"].is_string() {
            Ok(status.clone())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    let name = first["metadata"]["name"].as_str().unwrap();
    let minutes = told["lastScheduleTime"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap()
        .as_second()
        / 60;
    let all: Vec<_> = jobs(&ns)
        .await
        .iter()
        .map(|job| job["metadata"]["name"].clone())
        .collect();
    assert_eq!(all, [json!(name)], "one run, one job: {told}");
    assert_eq!(name, format!("minutely-{minutes}"));
    assert_eq!(told["active"][0]["name"], json!(name), "{told}");
    ns.delete().await;
}

#[tokio::test]
async fn a_run_that_is_due_replaces_the_one_before() {
    let ns = Namespace::create("replace").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    let slow =
        json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 50_000});
    schedule(&ns, db.app(), json!({"concurrencyPolicy": "Replace"}), slow).await;
    let (old, new) = eventually_for(TWO_RUNS, "the second run streams", || async {
        let jobs = jobs(&ns).await;
        match &jobs[..] {
            [old, new, ..] if new["status"]["phase"] == "Running" => Ok((old.clone(), new.clone())),
            _ => Err(format!("{jobs:?}")),
        }
    })
    .await;
    assert_eq!(old["status"]["phase"], "Cancelled", "{}", old["status"]);
    assert_eq!(failure(&old).0, "Cancelled");
    let events = ns.events("minutely").await;
    assert!(
        events.iter().any(|event| event.starts_with("Replaced")),
        "{events:?}"
    );

    // Allow: the next one does not wait for that to end.
    patch(
        &ns,
        "backupschedule",
        "minutely",
        &json!({"spec": {"concurrencyPolicy": "Allow"}}),
    )
    .await;
    eventually_for(TWO_RUNS, "two runs at once", || async {
        let jobs = jobs(&ns).await;
        let open = jobs
            .iter()
            .filter(|job| job["status"]["completionTime"].is_null())
            .count();
        if open > 1 {
            Ok(())
        } else {
            Err(format!("{jobs:?}"))
        }
    })
    .await;
    patch(
        &ns,
        "backupschedule",
        "minutely",
        &json!({"spec": {"suspend": true}}),
    )
    .await;
    for job in jobs(&ns).await {
        let name = job["metadata"]["name"].as_str().unwrap();
        if job["status"]["completionTime"].is_null() {
            patch(&ns, "backupjob", name, &json!({"spec": {"cancel": true}})).await;
            ns.job_ends(name, "Cancelled").await;
        }
    }
    assert_ne!(old["metadata"]["uid"], new["metadata"]["uid"]);
    assert!(
        bucket.uploads().await.is_empty(),
        "what was cancelled left nothing"
    );
    ns.delete().await;
}

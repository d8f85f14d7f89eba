//! Two controllers, one of which leads: whatever becomes of it, each run is made once.

use e2e::{
    Namespace, database::Database, eventually, objects::attempt_reasons, proxy::FaultProxy,
    store::Bucket,
};
use serde_json::{Value, json};

/// Two replicas whose Lease lasts for this many seconds.
async fn two_controllers(ns: &Namespace, lease_seconds: u32) {
    let lease = format!("leaderElection.leaseDurationSeconds={lease_seconds}");
    ns.install_controller(&["replicas=2", &lease]).await;
    eventually("both replicas are ready", || async {
        let ready = pods(ns).await.iter().filter(|pod| is_ready(pod)).count();
        if ready == 2 {
            Ok(())
        } else {
            Err(ready.to_string())
        }
    })
    .await;
}

async fn pods(ns: &Namespace) -> Vec<Value> {
    ns.list("pods", "app.kubernetes.io/name=towline").await
}

fn is_ready(pod: &Value) -> bool {
    e2e::namespace::condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
}

/// Name of the pod that the Lease names.
async fn leader(ns: &Namespace) -> String {
    eventually("somebody leads", || async {
        let lease = ns.get("lease", "towline").await.ok_or("no Lease")?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        match holder.split_once('_') {
            Some((pod, _)) => Ok(pod.to_owned()),
            None => Err(lease["spec"].to_string()),
        }
    })
    .await
}

async fn another_leads(ns: &Namespace, old: &str) -> String {
    eventually("another leads", || async {
        let now = leader(ns).await;
        if now == old { Err(now) } else { Ok(now) }
    })
    .await
}

/// The process that was in this pod has ended, and another has taken its place.
async fn was_restarted(ns: &Namespace, pod: &str) {
    eventually("the old leader's process has ended", || async {
        let pod = ns.get("pod", pod).await.ok_or("no pod")?;
        let status = &pod["status"]["containerStatuses"][0];
        if status["restartCount"].as_u64() > Some(0) && status["ready"] == true {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
}

/// A job of 60 MiB that takes a while.
async fn slow_job(ns: &Namespace, db: &Database<'_>) {
    ns.job("job", db.app(), json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 2_000_000})).await;
}

async fn has_upload(bucket: &Bucket) -> String {
    eventually("an upload is open", || async {
        let uploads = bucket.uploads().await;
        uploads
            .first()
            .map(|(_, id)| id.clone())
            .ok_or_else(|| "none".into())
    })
    .await
}

/// One run, whoever made it: one backup in the bucket and nothing beside it.
async fn assert_one_run(ns: &Namespace, bucket: &Bucket) -> Value {
    let job = ns.job_ends("job", "Succeeded").await;
    bucket.assert_one_backup(&job).await;
    assert!(
        bucket.uploads().await.is_empty(),
        "{:?}",
        bucket.uploads().await
    );
    let marks = bucket
        .keys()
        .await
        .into_iter()
        .filter(|key| key.ends_with("/upload.json"));
    assert_eq!(marks.count(), 1, "{:?}", bucket.keys().await);
    job
}

#[tokio::test]
async fn a_leader_that_is_killed_in_mid_transfer() {
    let ns = Namespace::create("leader-killed").await;
    if !ns.may_kill("a_leader_that_is_killed_in_mid_transfer") {
        return ns.delete().await;
    }
    two_controllers(&ns, 12).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    slow_job(&ns, &db).await;
    has_upload(&bucket).await;
    ns.signal_controller(&leader(&ns).await, "-KILL").await;
    let job = assert_one_run(&ns, &bucket).await;
    assert_eq!(attempt_reasons(&job)[0], "Interrupted", "{}", job["status"]);
    ns.delete().await;
}

#[tokio::test]
async fn a_leader_that_is_frozen_in_mid_transfer_and_goes_on_later() {
    let ns = Namespace::create("leader-frozen").await;
    if !ns.may_kill("a_leader_that_is_frozen_in_mid_transfer_and_goes_on_later") {
        return ns.delete().await;
    }
    two_controllers(&ns, 12).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    slow_job(&ns, &db).await;
    let old_upload = has_upload(&bucket).await;
    let frozen = leader(&ns).await;
    ns.signal_controller(&frozen, "-STOP").await;
    another_leads(&ns, &frozen).await;
    // The agent gives its slot to the second attempt, though the first one's reader still has its connection.
    ns.job_until("job", "the second attempt streams", |s| {
        s["attempt"] == 2 && s["progress"]["bytes"].as_u64() > Some(0)
    })
    .await;
    ns.signal_controller(&frozen, "-CONT").await;
    was_restarted(&ns, &frozen).await;
    let job = assert_one_run(&ns, &bucket).await;
    assert_eq!(
        attempt_reasons(&job),
        ["Interrupted", ""],
        "{}",
        job["status"]
    );
    let uploads = bucket.uploads().await;
    assert!(
        uploads.iter().all(|(_, id)| *id != old_upload),
        "{uploads:?}"
    );
    assert_ne!(leader(&ns).await, frozen);
    ns.delete().await;
}

#[tokio::test]
async fn a_leader_that_is_frozen_before_its_manifest_meets_its_successors() {
    let ns = Namespace::create("leader-late").await;
    if !ns.may_kill("a_leader_that_is_frozen_before_its_manifest_meets_its_successors") {
        return ns.delete().await;
    }
    two_controllers(&ns, 12).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    let (proxy, bucket, upstream) = FaultProxy::before_store(&ns).await;
    let hold = json!({"method": "PUT", "pathSuffix": "/manifest.json", "answered": false});
    proxy
        .rules(&json!({"upstream": upstream, "hold": hold}))
        .await;
    ns.job("job", db.app(), json!({"method": "physical"})).await;
    eventually("the manifest is on its way", || async {
        if proxy.held().await.is_empty() {
            Err("nothing held".into())
        } else {
            Ok(())
        }
    })
    .await;
    let frozen = leader(&ns).await;
    ns.signal_controller(&frozen, "-STOP").await;
    another_leads(&ns, &frozen).await;
    proxy.rules(&json!({"upstream": upstream})).await;
    let job = ns.job_ends("job", "Succeeded").await;
    assert_eq!(job["status"]["attempt"], 2, "{}", job["status"]);
    let decided = bucket
        .read(job["status"]["manifestKey"].as_str().unwrap())
        .await;
    // Now it goes on where it was: at a PUT whose answer it never got.
    ns.signal_controller(&frozen, "-CONT").await;
    was_restarted(&ns, &frozen).await;
    let after = assert_one_run(&ns, &bucket).await;
    assert_eq!(after["status"], job["status"]);
    let manifest = bucket
        .read(job["status"]["manifestKey"].as_str().unwrap())
        .await;
    assert_eq!(manifest, decided, "a manifest is never written twice");
    ns.delete().await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_from_the_api_server_in_mid_transfer() {
    let ns = Namespace::create("leader-cut-off").await;
    if !ns.may_kill("a_leader_that_is_cut_off_from_the_api_server_in_mid_transfer") {
        return ns.delete().await;
    }
    two_controllers(&ns, 12).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    slow_job(&ns, &db).await;
    has_upload(&bucket).await;
    let alone = leader(&ns).await;
    let cut = ns.cut_off(&alone).await;
    // It cannot know whether another leads: it ends, and with it its transfer.
    another_leads(&ns, &alone).await;
    eventually("the old leader has ended itself", || async {
        let pod = ns.get("pod", &alone).await.ok_or("no pod")?;
        let status = &pod["status"]["containerStatuses"][0];
        let ended = [&status["state"], &status["lastState"]]
            .iter()
            .any(|state| state["terminated"]["exitCode"] == 1);
        if ended {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    cut.join().await;
    let job = assert_one_run(&ns, &bucket).await;
    assert_eq!(
        attempt_reasons(&job),
        ["Interrupted", ""],
        "{}",
        job["status"]
    );
    ns.delete().await;
}

/// The Lease would last for an hour: who goes gives it back.
#[tokio::test]
async fn a_leader_that_is_told_to_go_hands_over() {
    let ns = Namespace::create("leader-goes").await;
    two_controllers(&ns, 3600).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    slow_job(&ns, &db).await;
    has_upload(&bucket).await;
    let old = leader(&ns).await;
    ns.kubectl_ok(&["delete", "pod", &old, "--wait=false"])
        .await;
    another_leads(&ns, &old).await;
    let job = assert_one_run(&ns, &bucket).await;
    assert_eq!(
        attempt_reasons(&job),
        ["Interrupted", ""],
        "{}",
        job["status"]
    );
    ns.delete().await;
}

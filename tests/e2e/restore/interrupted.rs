//! Whoever dies while something is restored: the state is clear, and nothing half-done is called usable.

use e2e::{Namespace, database::Database, eventually, objects::merge, proxy::FaultProxy};
use serde_json::{Value, json};

/// A backup of 60 MiB behind a proxy that stops its download in the middle; the rules that let it go on.
async fn slow_download<'a>(
    ns: &'a Namespace,
    method: &str,
    target: Option<&str>,
) -> (Database<'a>, FaultProxy<'a>, Value) {
    ns.install_controller(&[]).await;
    let db = Database::mariadb(ns, "source").await;
    db.load_bulk().await;
    let (proxy, _bucket, upstream) = FaultProxy::before_store(ns).await;
    ns.job("backup", db.app(), json!({"method": method})).await;
    ns.job_ends("backup", "Succeeded").await;
    let go = json!({"upstream": upstream});
    if target.is_none() {
        hold(&proxy, &go).await;
    }
    (db, proxy, go)
}

/// From now on a download stops after 30 MiB.
async fn hold(proxy: &FaultProxy<'_>, go: &Value) {
    let mut rules = go.clone();
    let hold =
        json!({"hold": {"method": "GET", "pathSuffix": "/backup.tar.zst", "afterBytes": 30 << 20}});
    merge(&mut rules, &hold);
    proxy.rules(&rules).await;
}

async fn stands_still(proxy: &FaultProxy<'_>) {
    eventually("the download stands still", || async {
        if proxy.held().await.is_empty() {
            Err("nothing is held".into())
        } else {
            Ok(())
        }
    })
    .await;
}

/// Name of the pod of a restore.
async fn pod_of(ns: &Namespace, restore: &str) -> String {
    let restore = ns.get("rjob", restore).await.unwrap();
    let uid = restore["metadata"]["uid"].as_str().unwrap();
    let label = format!("towline.dev/restore-job-uid={uid}");
    let pods = ns.list("pods", &label).await;
    assert_eq!(pods.len(), 1, "{pods:?}");
    pods[0]["metadata"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_restores_pod_is_killed_while_it_extracts() {
    let ns = Namespace::create("restore-pod-killed").await;
    let (_db, proxy, go) = slow_download(&ns, "physical", None).await;
    ns.claim("data").await;
    ns.restore_into("restore", "backup", "data", &json!({}))
        .await;
    stands_still(&proxy).await;
    let running = ns
        .restore_until("restore", "shows how far it is", |s| {
            s["progress"]["bytes"].as_u64() > Some(0)
        })
        .await;
    assert_eq!(
        running["status"]["progress"]["stage"], "Extracting",
        "{}",
        running["status"]
    );
    let pod = pod_of(&ns, "restore").await;
    ns.kubectl_ok(&["delete", "pod", &pod, "--grace-period=0", "--force"])
        .await;
    ns.restore_fails("restore", "Interrupted").await;
    proxy.rules(&go).await;
    let marker = ns.marker("data").await;
    assert_eq!(marker["state"], "Unfinished", "{marker}");
    // It is never tried again by itself.
    let jobs = ns.list("jobs", "").await;
    assert!(
        jobs.iter()
            .all(|job| job["status"]["active"].as_u64().unwrap_or(0) == 0),
        "{jobs:?}"
    );
    ns.restore_into("again", "backup", "data", &json!({})).await;
    let message = ns.restore_fails("again", "TargetNotEmpty").await;
    assert!(message.contains("unfinished"), "{message}");
    ns.in_claim("data", "find /claim -mindepth 1 -delete").await;
    ns.restore_into("third", "backup", "data", &json!({})).await;
    ns.restore_ends("third", "Succeeded").await;
    ns.delete().await;
}

#[tokio::test]
async fn the_controller_is_killed_while_something_is_restored() {
    let ns = Namespace::create("restore-kill").await;
    if !ns.may_kill("the_controller_is_killed_while_something_is_restored") {
        return ns.delete().await;
    }
    let (db, proxy, go) = slow_download(&ns, "physical", None).await;
    ns.claim("data").await;
    ns.restore_into("restore", "backup", "data", &json!({}))
        .await;
    stands_still(&proxy).await;
    let pod = pod_of(&ns, "restore").await;
    ns.kill_controller().await;
    proxy.rules(&go).await;
    ns.restore_ends("restore", "Succeeded").await;
    // The same pod: a restore is not begun twice.
    assert_eq!(pod_of(&ns, "restore").await, pod);
    let restored = Database::mariadb_on_claim(&ns, "restored", "data", &[]).await;
    let sum = "CHECKSUM TABLE bulk.t";
    assert_eq!(restored.query(sum).await, db.query(sum).await);
    ns.delete().await;
}

/// The agent, in the second pass: the databases that it had begun carry the mark.
#[tokio::test]
async fn the_agent_is_killed_while_it_restores() {
    let ns = Namespace::create("restore-agent-killed").await;
    let (_db, proxy, go) = slow_download(&ns, "logical", Some("target")).await;
    let target = Database::for_restore(&ns, "target", "mariadb", &[]).await;
    let to = json!({"agent": {"podSelector": {"matchLabels": {"app": target.app()}}, "auth": {"tokenSecretRef": {"name": "agent-token"}}}});
    hold(&proxy, &go).await;
    ns.restore(
        "restore",
        &json!({"backupJobRef": {"name": "backup"}}),
        &to,
        &json!({}),
    )
    .await;
    stands_still(&proxy).await;
    // The pass that proves: nothing is written yet.
    assert_eq!(target.query("SHOW DATABASES LIKE 'bulk'").await, "");
    // It goes on, and the second pass stops at the same place.
    hold(&proxy, &go).await;
    let mark = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME = '_towline_restore_unfinished'";
    eventually("the restore has begun to write", || async {
        match target.query(mark).await.trim() {
            "1" => Ok(()),
            count => Err(count.to_owned()),
        }
    })
    .await;
    stands_still(&proxy).await;
    ns.kubectl_ok(&["delete", "pod", target.pod(), "--grace-period=0", "--force"])
        .await;
    proxy.rules(&go).await;
    let restore = ns.restore_ends("restore", "Failed").await;
    let reason = restore["status"]["reason"].as_str().unwrap();
    assert!(
        matches!(reason, "Interrupted" | "TargetUnreachable"),
        "{}",
        restore["status"]
    );
    assert_eq!(
        restore["status"]["targetWritten"], true,
        "{}",
        restore["status"]
    );
    ns.ready(target.pod()).await;
    assert_eq!(target.query(mark).await.trim(), "1");
    ns.restore(
        "again",
        &json!({"backupJobRef": {"name": "backup"}}),
        &to,
        &json!({}),
    )
    .await;
    let message = ns.restore_fails("again", "TargetNotEmpty").await;
    assert!(
        message.contains("unfinished") && message.contains("bulk"),
        "{message}"
    );
    target.query("DROP DATABASE bulk").await;
    ns.restore(
        "third",
        &json!({"backupJobRef": {"name": "backup"}}),
        &to,
        &json!({}),
    )
    .await;
    ns.restore_ends("third", "Succeeded").await;
    assert_eq!(target.query(mark).await.trim(), "0");
    ns.delete().await;
}

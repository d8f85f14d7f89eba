//! The controller dies at the worst moments. Its successor finishes what was begun, once.

use e2e::{
    Namespace, database::Database, eventually, objects::attempt_reasons, proxy::FaultProxy,
    store::Bucket,
};
use serde_json::json;

#[tokio::test]
async fn in_mid_transfer() {
    let ns = Namespace::create("kill-transfer").await;
    if !ns.may_kill("in_mid_transfer") {
        return ns.delete().await;
    }
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    ns.job("job", db.app(), json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 3_000_000})).await;
    eventually("an upload is open", || async {
        if bucket.uploads().await.is_empty() {
            Err("none".into())
        } else {
            Ok(())
        }
    })
    .await;
    let (_, old_upload) = bucket.uploads().await.remove(0);
    ns.kill_controller().await;
    let job = ns.job_ends("job", "Succeeded").await;
    assert_eq!(attempt_reasons(&job)[0], "Interrupted", "{}", job["status"]);
    bucket.assert_one_backup(&job).await;
    let uploads = bucket.uploads().await;
    assert!(
        uploads.iter().all(|(_, id)| *id != old_upload),
        "{uploads:?}"
    );
    ns.delete().await;
}

#[tokio::test]
async fn a_polite_stop_in_mid_transfer() {
    let ns = Namespace::create("stop-transfer").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    ns.job("job", db.app(), json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 3_000_000})).await;
    ns.job_streams("job").await;
    ns.kubectl_ok(&[
        "delete",
        "pods",
        "-l",
        "app.kubernetes.io/name=towline",
        "--wait=false",
    ])
    .await;
    let job = ns.job_ends("job", "Succeeded").await;
    assert_eq!(attempt_reasons(&job)[0], "Interrupted", "{}", job["status"]);
    bucket.assert_one_backup(&job).await;
    assert!(bucket.uploads().await.is_empty());
    ns.delete().await;
}

/// Kills the controller while `PUT …/manifest.json` is on its way, with the answer still to come.
async fn at_the_manifest(answered: bool) -> Option<(Namespace, Bucket, serde_json::Value)> {
    let ns = Namespace::create(if answered {
        "kill-status"
    } else {
        "kill-manifest"
    })
    .await;
    if !ns.may_kill("at_the_manifest") {
        ns.delete().await;
        return None;
    }
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    let (proxy, bucket, upstream) = FaultProxy::before_store(&ns).await;
    let hold = json!({"method": "PUT", "pathSuffix": "/manifest.json", "answered": answered});
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
    ns.kill_controller().await;
    proxy.rules(&json!({"upstream": upstream})).await;
    let job = ns.job_ends("job", "Succeeded").await;
    bucket.assert_one_backup(&job).await;
    assert!(bucket.uploads().await.is_empty());
    Some((ns, bucket, job))
}

#[tokio::test]
async fn between_complete_and_manifest() {
    let Some((ns, _bucket, job)) = at_the_manifest(false).await else {
        return;
    };
    assert_eq!(attempt_reasons(&job)[0], "Interrupted", "{}", job["status"]);
    ns.delete().await;
}

#[tokio::test]
async fn between_manifest_and_status() {
    let Some((ns, _bucket, job)) = at_the_manifest(true).await else {
        return;
    };
    // No second transfer: the manifest that stands is attempt 1's.
    assert_eq!(job["status"]["attempt"], 1, "{}", job["status"]);
    ns.delete().await;
}

//! The chart as most people install it: for all namespaces, with its own custom resources.

use e2e::{Namespace, database::Database};
use serde_json::json;

#[tokio::test]
async fn for_the_whole_cluster_and_gone_again() {
    let ns = Namespace::create_alone("install").await;
    ns.install_chart(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    let bucket = ns.ready_store().await;
    ns.job("job", db.app(), json!({"method": "physical"})).await;
    let job = ns.job_ends("job", "Succeeded").await;
    bucket.assert_one_backup(&job).await;
    // Without `clusterId` it is the uid of namespace kube-system.
    let manifest = bucket
        .read(job["status"]["manifestKey"].as_str().unwrap())
        .await;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let kube_system = ns.get("namespace", "kube-system").await.unwrap();
    assert_eq!(manifest["clusterId"], kube_system["metadata"]["uid"]);
    // Least rights: it may read a Secret that is named, and list none.
    let account = format!("system:serviceaccount:{}:towline", ns.name);
    for (verb, what, may) in [
        ("get", "secrets", "yes"),
        ("list", "secrets", "no"),
        ("create", "pods", "no"),
        ("delete", "persistentvolumeclaims", "no"),
    ] {
        let answer = ns
            .kubectl(&["auth", "can-i", verb, what, "--as", &account], "")
            .await;
        assert_eq!(answer.stdout.trim(), may, "{verb} {what}");
    }

    ns.helm(&["uninstall", "towline", "--wait"]).await;
    // Custom resources, objects and backups stay.
    assert_eq!(
        ns.get("backupjob", "job").await.unwrap()["status"],
        job["status"]
    );
    bucket.assert_one_backup(&job).await;
    ns.delete().await;
}

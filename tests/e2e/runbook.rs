//! docs/restore.md, followed word for word: its commands run as they stand there.

use e2e::{
    Namespace,
    database::{Database, LocalServer},
    reader::Reader,
};
use serde_json::json;

/// `towline` does not take plain HTTP unless it is told to: the tests' S3 server has no certificate.
fn plain_http(script: String) -> String {
    script.replace("--store $URL", "--store $URL --allow-http")
}

#[tokio::test]
async fn a_lost_data_directory_and_what_follows() {
    let ns = Namespace::create("runbook-volume").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "db").await;
    db.load_shop().await;
    let bucket = ns.ready_store().await;
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "nightly"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": Namespace::job_spec(db.app(), &json!({"method": "physical"}))}}});
    ns.apply(&schedule.to_string()).await;
    e2e::eventually_for(std::time::Duration::from_secs(300), "a backup", || async {
        let schedule = ns.get("bksched", "nightly").await.ok_or("none")?;
        if schedule["status"]["lastSuccessfulTime"].is_string() {
            Ok(())
        } else {
            Err(schedule["status"].to_string())
        }
    })
    .await;
    let claims = ns
        .kubectl_ok(&["get", "pvc", "-o", "jsonpath={.items[0].metadata.name}"])
        .await;
    let set = db.pod().trim_end_matches("-0");
    let before = jiff::Timestamp::now().to_string();
    let url = format!("s3://{}/backups", bucket.name);
    let mut reader = Reader::of(
        "restore.md",
        &ns.cluster,
        &[
            ("NS", &ns.name),
            ("DB", set),
            ("CLAIM", &claims),
            ("SCHEDULE", "nightly"),
            ("STORE", "store"),
            ("BEFORE", &before),
            ("URL", &url),
        ],
    );
    reader.follow("first").await;
    // Whoever reads it waits until nothing runs any more.
    e2e::eventually("no job runs", || async {
        let schedule = ns.get("bksched", "nightly").await.ok_or("none")?;
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
    db.query("DROP TABLE shop.orders").await;
    reader.follow("a").await;
    ns.ready(db.pod()).await;
    assert_eq!(
        db.query("SELECT COUNT(*) FROM shop.orders").await.trim(),
        "10000"
    );
    // The agent beside it backs up what was restored.
    ns.job("after", db.app(), json!({"method": "physical"}))
        .await;
    ns.job_ends("after", "Succeeded").await;
    reader.follow("first").await;

    let seen = reader.follow_changed("c", plain_http).await;
    assert!(seen.contains("nightly"), "{seen}");
    let empty = reader.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    reader.set("EMPTY", &empty.display().to_string());
    reader.follow_changed("without", plain_http).await;
    assert!(empty.join("shop/orders.ibd").exists());

    // By hand, with a client of the store's and stock tools.
    let job = ns.get("bkjob", "after").await.unwrap();
    for object in job["status"]["objects"].as_array().unwrap() {
        let key = object["key"].as_str().unwrap();
        let name = key.rsplit('/').next().unwrap();
        std::fs::write(reader.folder.path().join(name), bucket.read(key).await).unwrap();
    }
    reader.follow("d").await;
    let local = LocalServer::on(reader.folder.path(), "restored", &["--skip-grant-tables"]).await;
    assert_eq!(
        local.query("SELECT COUNT(*) FROM shop.orders").await.trim(),
        "10000"
    );
    local.stop().await;
    ns.delete().await;
}

#[tokio::test]
async fn lost_rows_on_a_running_server() {
    let ns = Namespace::create("runbook-server").await;
    ns.install_controller(&[]).await;
    let db = Database::for_restore(&ns, "db", "mariadb", &[]).await;
    db.load_shop().await;
    let bucket = ns.ready_store().await;
    ns.job("before", db.app(), json!({"method": "logical"}))
        .await;
    let job = ns.job_ends("before", "Succeeded").await;
    let sums = db.query(SUMS).await;
    db.query("DROP DATABASE shop").await;
    let mut reader = Reader::of(
        "restore.md",
        &ns.cluster,
        &[
            ("NS", &ns.name),
            ("BACKUP", "before"),
            ("APP", db.app()),
            ("DATABASE", "shop"),
        ],
    );
    reader.follow("b").await;
    assert_eq!(db.query(SUMS).await, sums);

    for object in job["status"]["objects"].as_array().unwrap() {
        let key = object["key"].as_str().unwrap();
        let name = key.rsplit('/').next().unwrap();
        std::fs::write(reader.folder.path().join(name), bucket.read(key).await).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let local = LocalServer::fresh(folder.path()).await;
    reader.set("SOCKET", &local.socket().display().to_string());
    reader.follow("d-logical").await;
    assert_eq!(local.query(SUMS).await, sums);
    local.stop().await;
    ns.delete().await;
}

const SUMS: &str = "CHECKSUM TABLE shop.orders, shop.customers";

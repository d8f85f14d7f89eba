//! A physical backup becomes a data directory in a claim.

use super::{SUMS, age_identity, backed_up};
use e2e::{
    Namespace,
    database::Database,
    eventually,
    objects::{TOKEN, failure},
    store::Bucket,
};
use serde_json::{Value, json};

/// Encrypted, in several objects, taken under writes: the restored server has everything up to the
/// backup's position and nothing else, for a replica that begins there becomes equal to its source.
#[tokio::test]
async fn what_a_claim_gets_is_the_server_at_the_backups_position() {
    let ns = Namespace::create("restore-volume").await;
    ns.install_controller(&[]).await;
    let options = ["--log-bin", "--server-id=1", "--event-scheduler=ON"];
    let db = Database::mariadb_with(&ns, "source", &options).await;
    db.load_shop().await;
    db.load_bulk().await;
    db.query(
        "CREATE TABLE shop.ticks (id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6));
         CREATE USER clerk@'%' IDENTIFIED BY 'clerks password'; GRANT SELECT ON shop.* TO clerk@'%';
         CREATE EVENT shop.writer ON SCHEDULE EVERY 1 SECOND DO INSERT INTO shop.ticks (at) VALUES (NOW(6))",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let recipient = age_identity(&ns, &folder.path().join("key.txt")).await;
    let bucket = Bucket::create(&ns).await;
    ns.store(&bucket.name, &ns.cluster.s3_endpoint).await;
    // 60 MiB do not fit into one object of 20.
    ns.kubectl_ok(&[
        "patch",
        "bkstore",
        "store",
        "--type=merge",
        "-p",
        r#"{"spec":{"partSize":5242880,"maxParts":4}}"#,
    ])
    .await;
    let spec = json!({"method": "physical", "encryption": {"recipients": [recipient]}});
    ns.job("backup", db.app(), spec).await;
    let job = ns.job_ends("backup", "Succeeded").await;
    let objects = job["status"]["objects"].as_array().unwrap();
    assert!(objects.len() > 2, "{objects:?}");
    assert!(
        objects[1]["key"]
            .as_str()
            .unwrap()
            .ends_with(".tar.zst.age.0001")
    );

    // Without the identity it is refused before anything is made.
    ns.claim("data").await;
    ns.restore_into("no-identity", "backup", "data", &json!({}))
        .await;
    let message = ns.restore_fails("no-identity", "NotDecryptable").await;
    assert!(
        message.contains("decryption.identitySecretRef"),
        "{message}"
    );

    let identity = json!({"decryption": {"identitySecretRef": {"name": "identity"}}});
    ns.restore_into("restore", "backup", "data", &identity)
        .await;
    let restore = ns.restore_ends("restore", "Succeeded").await;
    assert_eq!(
        restore["status"]["bytes"], job["status"]["bytes"],
        "{}",
        restore["status"]
    );
    let gtid = restore["status"]["position"]["gtid"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(restore["status"]["position"], job["status"]["position"]);
    let table = ns.kubectl_ok(&["get", "rjob"]).await;
    assert!(table.contains("Succeeded"), "{table}");
    let events = ns.events("restore").await;
    assert!(
        events.iter().any(|e| e.starts_with("Succeeded")),
        "{events:?}"
    );
    let marker = ns.marker("data").await;
    assert_eq!(marker["state"], "Usable", "{marker}");
    assert_eq!(marker["position"]["gtid"], gtid.as_str(), "{marker}");

    let restored = Database::mariadb_on_claim(&ns, "restored", "data", &["--server-id=2"]).await;
    let count = |sql: String| sql.trim().parse::<u64>().unwrap();
    let source = count(db.query("SELECT COUNT(*) FROM shop.ticks").await);
    let here = count(restored.query("SELECT COUNT(*) FROM shop.ticks").await);
    assert!(
        here < source,
        "{here} rows were there of {source} at the end"
    );
    assert_eq!(restored.query(SUMS).await, db.query(SUMS).await);
    let bulk = "CHECKSUM TABLE bulk.t";
    assert_eq!(restored.query(bulk).await, db.query(bulk).await);
    let grants = "SHOW GRANTS FOR clerk@'%'";
    assert_eq!(restored.query(grants).await, db.query(grants).await);

    db.query("DROP EVENT shop.writer").await;
    db.query("CREATE USER replica@'%' IDENTIFIED BY 'replica'; GRANT REPLICATION SLAVE ON *.* TO replica@'%'")
        .await;
    let source = ns.pod_ip(db.pod()).await;
    restored
        .query(&format!(
            "SET GLOBAL gtid_slave_pos = '{gtid}';
             CHANGE MASTER TO MASTER_HOST = '{source}', MASTER_USER = 'replica', MASTER_PASSWORD = 'replica', MASTER_USE_GTID = slave_pos;
             START SLAVE"
        ))
        .await;
    let end = db.query("SELECT @@gtid_binlog_pos").await;
    eventually("the replica has what came after the backup", || async {
        let at = restored.query("SELECT @@gtid_slave_pos").await;
        if at == end {
            Ok(())
        } else {
            Err(format!(
                "{at} of {end}: {}",
                restored.query("SHOW SLAVE STATUS").await
            ))
        }
    })
    .await;
    let ticks = "CHECKSUM TABLE shop.ticks";
    assert_eq!(restored.query(ticks).await, db.query(ticks).await);
    ns.delete().await;
}

/// The claim of a server that runs, one that holds something, one that is not there.
#[tokio::test]
async fn a_claim_in_use_or_not_empty_is_refused_untouched() {
    let ns = Namespace::create("restore-refused").await;
    let (db, bucket, job) = backed_up(&ns, &json!({"method": "physical"})).await;
    ns.restore_into(
        "in-use",
        "backup",
        "source-data-source-mariadb-0",
        &json!({}),
    )
    .await;
    let claims = ns.kubectl_ok(&["get", "pvc", "-o", "name"]).await;
    let used = claims.trim().rsplit('/').next().unwrap().to_owned();
    ns.restore_into("used", "backup", &used, &json!({})).await;
    let message = ns.restore_fails("used", "TargetInUse").await;
    assert!(message.contains(db.pod()), "{message}");
    let message = ns.restore_fails("in-use", "InvalidSpec").await;
    assert!(message.contains("claimName"), "{message}");
    assert_eq!(
        db.query("SELECT COUNT(*) FROM shop.orders").await.trim(),
        "10000"
    );

    ns.claim("full").await;
    ns.in_claim("full", "echo precious > /claim/file").await;
    ns.restore_into("full", "backup", "full", &json!({})).await;
    let message = ns.restore_fails("full", "TargetNotEmpty").await;
    assert!(message.contains("file"), "{message}");
    let there = ns.in_claim("full", "ls -A /claim; cat /claim/file").await;
    assert_eq!(there, "file\nprecious\n");
    // A folder of it that is not there yet is empty.
    let folder = json!({"to": {"persistentVolumeClaim": {"subPath": "new"}}});
    ns.restore_into("folder", "backup", "full", &folder).await;
    ns.restore_ends("folder", "Succeeded").await;
    let there = ns
        .in_claim("full", "ls /claim; ls -d /claim/new/shop")
        .await;
    assert_eq!(there, "file\nnew\n/claim/new/shop\n");

    // What is no backup: one that failed, one that is not there.
    ns.restore_into("nothing", "no-such-job", "full", &json!({}))
        .await;
    let message = ns.restore_fails("nothing", "BackupNotFound").await;
    assert!(message.contains("no-such-job"), "{message}");
    // The newest, by the bucket alone.
    ns.kubectl_ok(&["delete", "bkjob", "backup"]).await;
    ns.claim("latest").await;
    ns.restore(
        "latest",
        &json!({"latest": {"storeRef": {"name": "store"}}}),
        &json!({"persistentVolumeClaim": {"claimName": "latest"}}),
        &json!({}),
    )
    .await;
    let restore = ns.restore_ends("latest", "Succeeded").await;
    let key = restore["status"]["backup"]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        job["status"]["manifestKey"]
            .as_str()
            .unwrap()
            .contains(&key),
        "{key}"
    );
    ns.restore(
        "too-early",
        &json!({"latest": {"storeRef": {"name": "store"}, "before": "2020-01-01T00:00:00Z"}}),
        &json!({"persistentVolumeClaim": {"claimName": "latest"}}),
        &json!({}),
    )
    .await;
    ns.restore_fails("too-early", "BackupNotFound").await;
    ns.claim("key").await;
    ns.restore(
        "key",
        &json!({"store": {"storeRef": {"name": "store"}, "key": key}}),
        &json!({"persistentVolumeClaim": {"claimName": "key"}}),
        &json!({}),
    )
    .await;
    ns.restore_ends("key", "Succeeded").await;
    assert!(!bucket.keys().await.is_empty());
    ns.delete().await;
}

/// A server that replicates is backed up: what is restored is set up as no replica.
#[tokio::test]
async fn a_restored_replica_does_not_replicate() {
    let ns = Namespace::create("restore-replica").await;
    ns.install_controller(&[]).await;
    let (primary, replica) = tokio::join!(
        Database::mariadb_with(&ns, "primary", &["--log-bin", "--server-id=1"]),
        Database::mariadb_with(
            &ns,
            "replica",
            &["--log-bin", "--server-id=2", "--log-slave-updates"]
        )
    );
    let source = ns.pod_ip(primary.pod()).await;
    replica
        .query(&format!(
            "CHANGE MASTER TO MASTER_HOST = '{source}', MASTER_USER = 'root', MASTER_PASSWORD = '{TOKEN}', MASTER_USE_GTID = slave_pos; START SLAVE"
        ))
        .await;
    primary.load_shop().await;
    eventually("the replica has the shop", || async {
        let found = replica.query("SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_NAME = 'orders_total'").await;
        if found.trim() == "1" { Ok(()) } else { Err(replica.query("SHOW SLAVE STATUS").await) }
    })
    .await;
    ns.ready_store().await;
    ns.job("backup", replica.app(), json!({"method": "physical"}))
        .await;
    ns.job_ends("backup", "Succeeded").await;
    ns.claim("data").await;
    ns.restore_into("restore", "backup", "data", &json!({}))
        .await;
    ns.restore_ends("restore", "Succeeded").await;
    let restored = Database::mariadb_on_claim(&ns, "restored", "data", &["--server-id=3"]).await;
    assert_eq!(restored.query("SHOW ALL SLAVES STATUS").await, "");
    assert_eq!(restored.query(SUMS).await, primary.query(SUMS).await);
    // The primary's next row stays there.
    primary
        .query("INSERT INTO shop.orders (id, customer) VALUES (77777, 1)")
        .await;
    eventually("the old replica has the new row", || async {
        let rows = replica
            .query("SELECT COUNT(*) FROM shop.orders WHERE id = 77777")
            .await;
        if rows.trim() == "1" {
            Ok(())
        } else {
            Err(rows)
        }
    })
    .await;
    assert_eq!(
        restored
            .query("SELECT COUNT(*) FROM shop.orders WHERE id = 77777")
            .await
            .trim(),
        "0"
    );
    ns.delete().await;
}

/// Specs that say what cannot be are refused by the API server, or by a condition.
#[tokio::test]
async fn what_cannot_be_meant() {
    let ns = Namespace::create("restore-specs").await;
    let (_db, _bucket, _job) = backed_up(&ns, &json!({"method": "logical"})).await;
    let restore = |name: &str, spec: Value| {
        json!({"apiVersion": "towline.dev/v1alpha1", "kind": "RestoreJob", "metadata": {"name": name}, "spec": spec}).to_string()
    };
    let from = json!({"backupJobRef": {"name": "backup"}});
    let volume = json!({"persistentVolumeClaim": {"claimName": "c"}});
    for (spec, words) in [
        (json!({"from": {}, "to": volume}), "exactly one of"),
        (json!({"from": from, "to": {}}), "exactly one of"),
        (
            json!({"from": from, "to": volume, "includeUsers": true}),
            "agent",
        ),
        (
            json!({"from": from, "to": volume, "checks": [{"query": "SELECT 1"}]}),
            "drill",
        ),
        (
            json!({"from": from, "to": {"persistentVolumeClaim": {"claimName": "c", "subPath": "../x"}}}),
            "subPath",
        ),
        (
            json!({"from": from, "to": {"persistentVolumeClaim": {"claimName": "../c"}}}),
            "name",
        ),
    ] {
        let output = ns
            .kubectl(
                &["apply", "--server-side", "-f", "-"],
                &restore("bad", spec.clone()),
            )
            .await;
        assert!(
            output.code != 0 && output.stderr.contains(words),
            "{spec}: {}",
            output.stderr
        );
    }
    // A logical backup does not become a data directory.
    ns.claim("data").await;
    ns.restore_into("wrong-method", "backup", "data", &json!({}))
        .await;
    let message = ns.restore_fails("wrong-method", "Incompatible").await;
    assert!(message.contains("logical"), "{message}");
    // It runs once: a spec cannot change.
    let output = ns
        .kubectl(
            &[
                "patch",
                "rjob",
                "wrong-method",
                "--type=merge",
                "-p",
                r#"{"spec":{"to":{"persistentVolumeClaim":{"claimName":"other"}}}}"#,
            ],
            "",
        )
        .await;
    assert!(
        output.code != 0 && output.stderr.contains("immutable"),
        "{}",
        output.stderr
    );
    let (reason, _) = failure(&ns.get("rjob", "wrong-method").await.unwrap());
    assert_eq!(reason, "Incompatible");
    ns.delete().await;
}

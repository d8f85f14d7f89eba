//! A logical backup goes through the agent into a server that runs.

use super::{SUMS, age_identity, alter, first_object};
use e2e::{Namespace, database::Database};
use serde_json::{Value, json};

/// Into the pods labelled `app`.
fn agent(app: &str) -> Value {
    json!({"agent": {"podSelector": {"matchLabels": {"app": app}}, "auth": {"tokenSecretRef": {"name": "agent-token"}}}})
}

fn of(backup: &str) -> Value {
    json!({"backupJobRef": {"name": backup}})
}

async fn a_logical_backup_goes_into_a_server(flavour: &'static str) {
    let ns = Namespace::create(&format!("restore-{flavour}")).await;
    ns.install_controller(&[]).await;
    let (db, target) = tokio::join!(
        async {
            match flavour {
                "mariadb" => {
                    Database::mariadb_with(&ns, "source", &["--log-bin", "--server-id=1"]).await
                }
                _ => Database::mysql(&ns, "source").await,
            }
        },
        Database::for_restore(
            &ns,
            "target",
            flavour,
            &["--log-bin", "--server-id=2", "--event-scheduler=ON"]
        )
    );
    db.load_shop().await;
    db.query(
        "CREATE USER clerk@'%' IDENTIFIED BY 'clerks password'; GRANT SELECT, EXECUTE ON shop.* TO clerk@'%';
         CREATE DATABASE billing; CREATE TABLE billing.bills (id INT PRIMARY KEY, text VARCHAR(50));
         INSERT INTO billing.bills VALUES (1, 'one'), (2, 'two');
         CREATE VIEW shop.large AS SELECT * FROM shop.orders WHERE amount > 2",
    )
    .await;
    let bucket = ns.ready_store().await;
    let folder = tempfile::tempdir().unwrap();
    let recipient = age_identity(&ns, &folder.path().join("key.txt")).await;
    ns.job(
        "backup",
        db.app(),
        json!({"method": "logical", "encryption": {"recipients": [recipient]}}),
    )
    .await;
    let job = ns.job_ends("backup", "Succeeded").await;
    let identity = json!({"decryption": {"identitySecretRef": {"name": "identity"}}});
    let with = |more: Value| {
        let mut spec = identity.clone();
        e2e::objects::merge(&mut spec, &more);
        spec
    };

    // Altered, the live server is not touched; then it is as it was.
    let key = first_object(&job);
    let good = bucket.read(&key).await;
    alter(&bucket, &key).await;
    ns.restore("altered", &of("backup"), &agent(target.app()), &identity)
        .await;
    ns.restore_fails("altered", "BackupDamaged").await;
    let databases = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('shop', 'billing')";
    assert_eq!(target.query(databases).await, "");
    bucket.write(&key, good).await;

    // What the backup lacks is said before anything is written.
    ns.restore(
        "lacks",
        &of("backup"),
        &agent(target.app()),
        &with(json!({"databases": ["shop", "nowhere"]})),
    )
    .await;
    let message = ns.restore_fails("lacks", "InvalidSpec").await;
    assert!(message.contains("nowhere"), "{message}");
    assert_eq!(target.query(databases).await, "");

    // One database of it, and its accounts: nobody can grant what he does not have.
    let anybody = if flavour == "mariadb" {
        "''@'%'"
    } else {
        "''@''"
    };
    target
        .query(&format!(
            "GRANT ALL PRIVILEGES ON *.* TO 'towline'@'localhost' WITH GRANT OPTION;
             GRANT PROXY ON {anybody} TO 'towline'@'localhost' WITH GRANT OPTION"
        ))
        .await;
    ns.restore(
        "shop",
        &of("backup"),
        &agent(target.app()),
        &with(json!({"databases": ["shop"], "includeUsers": true})),
    )
    .await;
    let restore = ns.restore_ends("shop", "Succeeded").await;
    assert!(
        restore["status"]["tables"].as_u64() >= Some(2),
        "{}",
        restore["status"]
    );
    assert_eq!(target.query(databases).await.trim(), "shop");
    assert_eq!(target.query(SUMS).await, db.query(SUMS).await);
    let tables = "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'shop' ORDER BY 1";
    assert_eq!(target.query(tables).await, db.query(tables).await);
    assert_eq!(target.query("SELECT shop.twice(21)").await.trim(), "42");
    let grants = "SHOW GRANTS FOR clerk@'%'";
    assert_eq!(target.query(grants).await, db.query(grants).await);
    let triggers =
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'shop'";
    assert_eq!(target.query(triggers).await.trim(), "orders_total");
    let events =
        "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'shop'";
    assert_eq!(target.query(events).await.trim(), "tidy\tDISABLED");

    // A database that has tables is refused, untouched; the one that has none is taken.
    target
        .query("DELETE FROM shop.orders WHERE id >= 9000")
        .await;
    ns.restore("all", &of("backup"), &agent(target.app()), &identity)
        .await;
    let message = ns.restore_fails("all", "TargetNotEmpty").await;
    assert!(message.contains("shop"), "{message}");
    assert_eq!(
        target
            .query("SELECT COUNT(*) FROM shop.orders")
            .await
            .trim(),
        "9000"
    );
    assert_eq!(target.query(databases).await.trim(), "shop");
    target.query("CREATE DATABASE billing").await;
    ns.restore(
        "billing",
        &of("backup"),
        &agent(target.app()),
        &with(json!({"databases": ["billing"]})),
    )
    .await;
    ns.restore_ends("billing", "Succeeded").await;
    let sum = "CHECKSUM TABLE billing.bills";
    assert_eq!(target.query(sum).await, db.query(sum).await);
    ns.delete().await;
}

#[tokio::test]
async fn a_logical_backup_goes_into_a_running_mariadb() {
    a_logical_backup_goes_into_a_server("mariadb").await;
}

#[tokio::test]
async fn a_logical_backup_goes_into_a_running_mysql() {
    a_logical_backup_goes_into_a_server("mysql").await;
}

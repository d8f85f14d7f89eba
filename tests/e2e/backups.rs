//! The main job: a schedule fires, and what it stored restores with stock tools.

use e2e::{
    Namespace,
    command::run_command,
    database::{Database, LocalServer},
    eventually_for, run_ok,
    store::Bucket,
};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use tokio::process::Command;

/// Unpacks an archive with `zstd -d`, `tar` and `sha256sum -c`.
async fn unpack(archive: &[u8], folder: &Path) {
    let packed = folder.join("backup.tar.zst");
    fs::write(&packed, archive).unwrap();
    let mut command = Command::new("sh");
    command
        .arg("-euc")
        .arg("zstd -qdc backup.tar.zst | tar -x; sha256sum -c --quiet SHA256SUMS")
        .current_dir(folder);
    let output = run_command(command, b"").await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    for name in ["towline/metadata.json", "towline/summary.json"] {
        assert!(folder.join(name).exists(), "{name} is missing");
    }
}

/// What the members of SQL in a folder hold.
fn sql(folder: &Path, part: &str) -> Vec<u8> {
    let mut members: Vec<_> = fs::read_dir(folder.join(part))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    members.sort();
    assert!(
        members
            .iter()
            .all(|member| member.extension().unwrap() == "sql")
    );
    members
        .iter()
        .flat_map(|member| fs::read(member).unwrap())
        .collect()
}

#[tokio::test]
async fn a_schedule_fires_and_its_physical_backup_restores() {
    let ns = Namespace::create("physical").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_shop().await;
    let bucket = ns.ready_store().await;
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "minutely"},
        "spec": {"schedule": "* * * * *", "timeZone": "Europe/Zurich",
                 "jobTemplate": {"spec": Namespace::job_spec(db.app(), &json!({"method": "physical"}))}}});
    ns.apply(&schedule.to_string()).await;
    let job = eventually_for(
        Duration::from_secs(300),
        "a scheduled job has Succeeded",
        || async {
            let jobs = ns.list("backupjobs", "").await;
            jobs.iter()
                .find(|job| job["status"]["phase"] == "Succeeded")
                .cloned()
                .ok_or_else(|| format!("{jobs:?}"))
        },
    )
    .await;
    // No further run from here on.
    ns.kubectl_ok(&[
        "patch",
        "backupschedule",
        "minutely",
        "--type=merge",
        "-p",
        r#"{"spec":{"suspend":true}}"#,
    ])
    .await;
    let name = job["metadata"]["name"].as_str().unwrap();
    let minutes: u64 = name.strip_prefix("minutely-").unwrap().parse().unwrap();
    assert_eq!(
        job["metadata"]["ownerReferences"][0]["kind"],
        "BackupSchedule"
    );
    let status = &job["status"];
    assert!(
        status["startTime"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_second() as u64
            >= minutes * 60
    );
    assert!(status["position"]["lsn"].as_u64().is_some(), "{status}");
    assert!(
        status["source"]["serverVersion"]
            .as_str()
            .unwrap()
            .contains("10.11"),
        "{status}"
    );
    bucket.assert_one_backup(&job).await;
    let events = ns.events(name).await;
    assert!(
        events.iter().any(|event| event.starts_with("Succeeded")),
        "{events:?}"
    );
    let table = ns.kubectl_ok(&["get", "bksched,bkjob"]).await;
    assert!(table.contains("Succeeded"), "{table}");
    let schedule = eventually_for(
        Duration::from_secs(60),
        "the schedule knows of its success",
        || async {
            let schedule = ns.get("backupschedule", "minutely").await.ok_or("none")?;
            if schedule["status"]["lastSuccessfulTime"].is_string() {
                Ok(schedule)
            } else {
                Err(schedule["status"].to_string())
            }
        },
    )
    .await;
    assert!(schedule["status"]["lastScheduleTime"].is_string());

    let folder = tempfile::tempdir().unwrap();
    unpack(&bucket.archive(&job).await, folder.path()).await;
    let restored = LocalServer::from_physical(folder.path()).await;
    assert_eq!(
        restored
            .query("CHECKSUM TABLE shop.orders, shop.customers")
            .await,
        db.query("CHECKSUM TABLE shop.orders, shop.customers").await
    );
    assert_eq!(
        restored
            .query("SELECT COUNT(*) FROM shop.orders")
            .await
            .trim(),
        "10000"
    );
    restored.stop().await;
    the_command_line_reads_it_too(&ns, &bucket).await;
    ns.delete().await;
}

/// `towline ls` and `towline verify` in the controller's image, against the same bucket.
async fn the_command_line_reads_it_too(ns: &Namespace, bucket: &Bucket) {
    let towline = std::env::var("TOWLINE_E2E_TOWLINE")
        .expect("TOWLINE_E2E_TOWLINE is the path of the program `towline`");
    let store = format!("s3://{}/backups", bucket.name);
    let (key, secret) = &ns.cluster.s3_key;
    let envs = [
        format!("AWS_ACCESS_KEY_ID={key}"),
        format!("AWS_SECRET_ACCESS_KEY={secret}"),
    ];
    let at = [
        "--store",
        &store,
        "--endpoint-url",
        &ns.cluster.s3_endpoint_here,
        "--allow-http",
        "--namespace",
        &ns.name,
    ];
    let list = run_ok(
        "env",
        &[
            &[&*envs[0], &*envs[1], &*towline, "ls", "-o", "json"][..],
            &at,
        ]
        .concat(),
        b"",
    )
    .await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert!(!list.as_array().unwrap().is_empty());
    run_ok(
        "env",
        &[
            &[&*envs[0], &*envs[1], &*towline, "verify", "--latest"][..],
            &at,
        ]
        .concat(),
        b"",
    )
    .await;
}

async fn a_logical_backup_restores(flavour: &str) {
    let ns = Namespace::create(&format!("logical-{flavour}")).await;
    ns.install_controller(&[]).await;
    let (db, empty) = match flavour {
        "mariadb" => tokio::join!(
            Database::mariadb(&ns, "source"),
            Database::mariadb(&ns, "empty")
        ),
        _ => tokio::join!(
            Database::mysql(&ns, "source"),
            Database::mysql(&ns, "empty")
        ),
    };
    db.load_shop().await;
    let to = if flavour == "mysql" { "TO" } else { "FOR" };
    db.query(&format!(
        "CREATE ROLE clerk; GRANT SELECT, EXECUTE ON shop.* TO clerk;
         CREATE USER 'o''brien `1'@'%' IDENTIFIED BY 'an old password'; GRANT clerk TO 'o''brien `1'@'%';
         SET DEFAULT ROLE clerk {to} 'o''brien `1'@'%'; GRANT UPDATE (note) ON shop.orders TO 'o''brien `1'@'%'"
    ))
    .await;
    let bucket = ns.ready_store().await;
    ns.job("job", db.app(), json!({"method": "logical"})).await;
    let job = ns.job_ends("job", "Succeeded").await;
    bucket.assert_one_backup(&job).await;
    let folder = tempfile::tempdir().unwrap();
    unpack(&bucket.archive(&job).await, folder.path()).await;
    empty.load(&sql(folder.path(), "data")).await;
    empty.load(&sql(folder.path(), "users")).await;
    // A hash of MySQL's may hold any byte.
    let hex = if flavour == "mysql" {
        "SET SESSION print_identified_with_as_hex = 1;"
    } else {
        ""
    };
    let account = format!(
        "{hex} SHOW CREATE USER 'o''brien `1'@'%'; SHOW GRANTS FOR 'o''brien `1'@'%'; SHOW GRANTS FOR clerk"
    );
    assert_eq!(empty.query(&account).await, db.query(&account).await);
    let sum = "CHECKSUM TABLE shop.orders, shop.customers";
    assert_eq!(empty.query(sum).await, db.query(sum).await);
    assert_eq!(
        empty.query("SELECT COUNT(*) FROM shop.orders").await.trim(),
        "10000"
    );
    assert_eq!(empty.query("SELECT shop.twice(21)").await.trim(), "42");
    let triggers =
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'shop'";
    assert_eq!(empty.query(triggers).await.trim(), "orders_total");
    let events = "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'shop'";
    assert_eq!(empty.query(events).await.trim(), "tidy");
    let summary: Value =
        serde_json::from_slice(&fs::read(folder.path().join("towline/summary.json")).unwrap())
            .unwrap();
    assert_eq!(summary["schemas"]["shop"], json!(["customers", "orders"]));

    // One schema alone, named like an option: a name all the same.
    db.query("CREATE DATABASE `--all-databases`; CREATE TABLE `--all-databases`.t (i INT PRIMARY KEY); INSERT INTO `--all-databases`.t VALUES (7)").await;
    ns.job(
        "one",
        db.app(),
        json!({"method": "logical", "databases": ["--all-databases"]}),
    )
    .await;
    let job = ns.job_ends("one", "Succeeded").await;
    let folder = tempfile::tempdir().unwrap();
    unpack(&bucket.archive(&job).await, folder.path()).await;
    assert!(!folder.path().join("users").exists());
    let dump = String::from_utf8_lossy(&sql(folder.path(), "data")).into_owned();
    assert!(
        dump.contains("`--all-databases`") && !dump.contains("`shop`"),
        "{dump}"
    );
    ns.delete().await;
}

#[tokio::test]
async fn a_logical_backup_of_mariadb_restores() {
    a_logical_backup_restores("mariadb").await;
}

#[tokio::test]
async fn a_logical_backup_of_mysql_restores() {
    a_logical_backup_restores("mysql").await;
}

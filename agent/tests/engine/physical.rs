use crate::rig::{Rig, request};
use crate::server::{Server, feed, program, run};
use towline_agent::backup::{BackupRequest, Compression, Method};

/// The documented privileges are enough; what comes out is a server with the same rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_complete_backup_becomes_a_server() {
    let server = Server::with_user("physical");
    server.fill("orders", "InnoDB", 20);
    server.fill("legacy", "MyISAM", 1);
    server.sql("CREATE VIEW shop.v AS SELECT id FROM shop.orders");
    let rig = Rig::new(&server);
    let request = BackupRequest {
        compression: Compression::Zstd { level: 3 },
        parallel: 2,
        ..request(Method::Physical)
    };
    let reader = rig.start(request).await;
    // InnoDB's statistics are late, MyISAM's are exact.
    assert!(reader.estimated_bytes >= Some(1 << 20));
    assert!(
        reader.file_name.ends_with(".tar.zst"),
        "{}",
        reader.file_name
    );
    let end = reader.end().await;
    rig.is_clean(Some(&server)).await;

    let (verified, data) = end.complete();
    let (metadata, summary) = (&verified.metadata, &verified.summary);
    assert_eq!(metadata.method, "physical");
    assert_eq!(metadata.server_flavour, "mariadb");
    assert!(metadata.tool_version.contains("MariaDB"), "{metadata:?}");
    assert_eq!(
        metadata.server_version,
        server.sql("SELECT VERSION()").trim()
    );
    assert_eq!(summary.schemas["shop"], ["legacy", "orders", "v"]);
    assert_eq!(summary.data_bytes, data.len() as u64);

    let position = &summary.position;
    let status = server.sql("SHOW MASTER STATUS");
    let status: Vec<&str> = status.split_whitespace().collect();
    assert_eq!(position.binlog_file.as_deref(), Some(status[0]));
    assert_eq!(position.binlog_position.unwrap().to_string(), status[1]);
    let gtid = server.sql("SELECT @@gtid_binlog_pos");
    assert_eq!(position.gtid.as_deref(), Some(gtid.trim()));
    assert!(position.lsn.unwrap() > 0);
    let last = rig.engine.last_backup().unwrap();
    assert_eq!((&last.id, &last.position), (&end.id, position));
    assert_eq!(
        (&*last.method, last.end_time),
        ("physical", Some(summary.end_time))
    );

    let dir = tempfile::tempdir().unwrap();
    let restored = dir.path().join("data");
    std::fs::create_dir(&restored).unwrap();
    feed(program("mbstream").args(["-x", "-C"]).arg(&restored), &data);
    run(program("mariadb-backup")
        .args(["--no-defaults", "--prepare"])
        .arg(format!("--target-dir={}", restored.display())));
    let restored = Server::on(dir);
    let sums = "CHECKSUM TABLE shop.orders, shop.legacy, shop.v EXTENDED";
    assert_eq!(restored.sql(sums), server.sql(sums));
}

/// Without a binary log there is no position in it, and a backup is as good.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_binary_log() {
    for method in [Method::Physical, Method::Logical] {
        let mut server = Server::with_user(method.as_str());
        server.restart(&[]);
        server.fill("orders", "InnoDB", 1);
        let rig = Rig::new(&server);
        let (verified, _) = rig.start(request(method)).await.end().await.complete();
        let position = verified.summary.position;
        assert_eq!(
            (position.binlog_file, position.binlog_position),
            (None, None)
        );
        assert_eq!(position.lsn.is_some(), method == Method::Physical);
        assert_eq!(verified.summary.schemas["shop"], ["orders"]);
        rig.is_clean(Some(&server)).await;
    }
}

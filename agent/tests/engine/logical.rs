use crate::rig::{Rig, request};
use crate::server::Server;
use towline_agent::backup::{BackupRequest, Compression, Method};
use towline_agent::protocol::StreamReason;

/// Everything that a schema can hold, and what could be taken for something else.
const OBJECTS: &str = "
    CREATE DATABASE `--all-databases`;
    CREATE TABLE `--all-databases`.`a``b c` (x INT PRIMARY KEY);
    INSERT INTO `--all-databases`.`a``b c` VALUES (1), (2);
    CREATE DATABASE hidden;
    CREATE TABLE hidden.t (x INT);
    USE shop;
    CREATE TABLE big (id INT PRIMARY KEY, note LONGBLOB);
    INSERT INTO big VALUES (1, REPEAT(RANDOM_BYTES(1024), 61440));
    CREATE TABLE text (line TEXT);
    INSERT INTO text VALUES ('\n-- Dump completed\nCREATE TABLE `evil` (\n');
    CREATE VIEW v AS SELECT id, LENGTH(note) AS n FROM big;
    CREATE SEQUENCE s START WITH 5;
    CREATE TABLE audit (id INT);
    CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM audit;
    DELIMITER $$
    CREATE TRIGGER tr AFTER INSERT ON text FOR EACH ROW
    BEGIN
      INSERT INTO audit VALUES (1);
    END $$
    CREATE PROCEDURE p()
    BEGIN
-- CHANGE MASTER TO MASTER_LOG_FILE='evil.000001', MASTER_LOG_POS=7;
-- SET GLOBAL gtid_slave_pos='6-6-6';
/*
DELIMITER ;
-- CHANGE MASTER TO MASTER_LOG_FILE='evil.000001', MASTER_LOG_POS=7;
-- SET GLOBAL gtid_slave_pos='6-6-6';
CREATE TABLE `evil` (
*/
      SELECT 'p says hello';
    END $$
    DELIMITER ;
    USE hidden;
    CREATE VIEW outside AS SELECT * FROM shop.v;
";

fn dump(databases: &[&str]) -> BackupRequest {
    BackupRequest {
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
        ..request(Method::Logical)
    }
}

/// The documented privileges are enough; what comes out loads into an empty server.
#[tokio::test(flavor = "multi_thread")]
async fn a_complete_dump_loads_elsewhere() {
    let server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 2);
    server.sql(OBJECTS);
    let rig = Rig::new(&server);
    let end = rig
        .start(BackupRequest {
            compression: Compression::Zstd { level: 1 },
            ..dump(&["shop", "--all-databases"])
        })
        .await
        .end()
        .await;
    rig.is_clean(Some(&server)).await;

    let (verified, sql) = end.complete();
    let summary = &verified.summary;
    assert_eq!(verified.metadata.method, "logical");
    assert_eq!(summary.schemas.len(), 2);
    assert_eq!(summary.schemas["--all-databases"], ["a`b c"]);
    let shop = ["audit", "big", "orders", "s", "text", "v"];
    assert_eq!(summary.schemas["shop"], shop);
    let status = server.sql("SHOW MASTER STATUS");
    let status: Vec<&str> = status.split_whitespace().collect();
    let position = &summary.position;
    assert_eq!(position.binlog_file.as_deref(), Some(status[0]));
    assert_eq!(position.binlog_position.unwrap().to_string(), status[1]);
    let gtid = server.sql("SELECT @@gtid_binlog_pos");
    assert_eq!(position.gtid.as_deref(), Some(gtid.trim()));
    let last = rig.engine.last_backup().unwrap();
    assert_eq!((&last.id, &last.position), (&end.id, position));

    let other = Server::start();
    other.load(&sql);
    for question in [
        "CHECKSUM TABLE shop.orders, shop.big, shop.text, `--all-databases`.`a``b c` EXTENDED",
        "SELECT * FROM shop.v",
        "CALL shop.p()",
        "SELECT NEXT VALUE FOR shop.s",
        "SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = 'shop'",
        "SELECT event_name FROM information_schema.events",
    ] {
        let (was, is) = (server.sql(question), other.sql(question));
        assert!(!was.is_empty());
        assert_eq!(was, is, "{question}");
    }
    assert_eq!(other.sql("SHOW DATABASES LIKE 'hidden'"), "");
}

/// Without a binary log there is no position, whatever a routine claims.
#[tokio::test(flavor = "multi_thread")]
async fn a_routine_cannot_give_a_position() {
    let mut server = Server::with_user("logical");
    server.sql("CREATE DATABASE shop");
    server.sql(OBJECTS);
    server.restart(&[]);
    let rig = Rig::new(&server);
    let (verified, sql) = rig.start(dump(&["shop"])).await.end().await.complete();
    // The routines come last.
    let text = String::from_utf8_lossy(&sql[sql.len() - (8 << 10)..]);
    assert!(text.contains("\n-- SET GLOBAL gtid_slave_pos='6-6-6';\n"));
    assert_eq!(verified.summary.position, Default::default());
}

/// Of a schema that it has not come to, a dump tool passes over what is gone, and ends with success.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_tables_meanwhile_is_named() {
    let server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 24);
    server.sql("CREATE DATABASE zoo; CREATE TABLE zoo.a (x INT)");
    let rig = Rig::new(&server);
    let (failed, incomplete) = (StreamReason::ToolFailed, StreamReason::ToolIncomplete);
    for (table, meanwhile, named, expected) in [
        ("zoo.z", "DROP TABLE zoo.z", "zoo.z", incomplete),
        ("zoo.z", "RENAME TABLE zoo.z TO zoo.y", "zoo.z", incomplete),
        (
            "shop.z",
            "CREATE TABLE shop.new (x INT)",
            "shop.new",
            incomplete,
        ),
        // Every name is there before and after, and in the dump; the rows of one table are not.
        (
            "zoo.z",
            "RENAME TABLE zoo.a TO zoo.t, zoo.z TO zoo.a, zoo.t TO zoo.z",
            "zoo/a (now zoo/z)",
            incomplete,
        ),
        // What the tool itself stumbles over: its list of tables has one that is gone, or one that
        // its snapshot has not.
        ("shop.y", "DROP TABLE shop.y", "shop.y", failed),
        ("zoo.z", "CREATE TABLE zoo.new (x INT)", "`new`", failed),
    ] {
        server.sql(&format!("CREATE TABLE {table} (x INT)"));
        let mut reader = rig.start(dump(&["shop", "zoo"])).await;
        reader.flows().await;
        server.sql(meanwhile);
        let (reason, message) = reader.end().await.failed();
        assert_eq!(reason, expected, "{message}");
        assert!(message.contains(named), "{meanwhile}: {message}");
        assert!(rig.engine.last_backup().is_none());
        rig.is_clean(Some(&server)).await;
        server.sql("DROP TABLE IF EXISTS zoo.z, zoo.y, zoo.new, shop.new");
    }
}

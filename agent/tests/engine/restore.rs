//! A logical backup into a running MariaDB, by the engine: what arrives, what is left out, and what a
//! restore that fails leaves behind.

use crate::rig::{Rig, connection, request};
use crate::server::{Server, password_file};
use std::collections::BTreeMap;
use std::future::pending;
use std::io::Cursor;
use towline_agent::archive::Identities;
use towline_agent::backup::{BackupRequest, Compression, Method};
use towline_agent::restore::logical::{self, Input, Proven, UNFINISHED};
use towline_agent::restore::{
    Definers, Events, Expected, LogicalOptions, Measured, Progress, RestoreError, Restored, Stage,
};

/// Everything that a schema can hold, and what could be taken for something else.
pub(crate) const OBJECTS: &str = r"
    CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
    CREATE DATABASE `od``d é ; x`;
    CREATE TABLE `od``d é ; x`.`--all` (`a``b` INT PRIMARY KEY COMMENT 'it''s; \'DELIMITER ;;\'');
    INSERT INTO `od``d é ; x`.`--all` VALUES (1), (2);
    CREATE DATABASE hidden;
    CREATE TABLE hidden.t (x INT);
    USE shop;
    CREATE TABLE big (id INT PRIMARY KEY, note LONGBLOB);
    INSERT INTO big VALUES (1, REPEAT(RANDOM_BYTES(1024), 2048)), (2, '\0\n\r\Z\'\\');
    CREATE TABLE text (line TEXT, more VARBINARY(9), bits BIT(5), twice INT AS (LENGTH(line)) VIRTUAL);
    INSERT INTO text (line, more, bits) VALUES
      ('\n-- Current Database: `hidden`\nUSE `hidden`;\nDELIMITER ;;\n/*!50003 CREATE*/ /* ', '\0\'\\', b'10101'),
      ('a\0b\\', NULL, NULL), ('*/ DEFINER=`x`@`y` ENABLE', '', b'0');
    CREATE TABLE child (id INT, FOREIGN KEY (id) REFERENCES big (id));
    INSERT INTO child VALUES (1);
    CREATE VIEW v AS SELECT id, LENGTH(note) AS n, 'DEFINER=`a`@`b` ' AS q FROM big;
    CREATE SEQUENCE s START WITH 5;
    CREATE TABLE audit (id INT);
    CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' ON COMPLETION PRESERVE ENABLE
      COMMENT 'ON COMPLETION PRESERVE ENABLE DO' DO DELETE FROM audit WHERE id = ' ENABLE ';
    CREATE USER other@localhost;
    DELIMITER $$
    CREATE DEFINER=other@localhost TRIGGER tr AFTER INSERT ON text FOR EACH ROW
    BEGIN
      INSERT INTO audit VALUES (1);
    END $$
    CREATE PROCEDURE p() COMMENT 'DEFINER=`a`@`b`'
    BEGIN
-- Current Database: `hidden`
USE_IT: BEGIN END;
/*
DELIMITER ;
USE `hidden`;
CREATE DATABASE `evil`;
*/
      SELECT 'p says ;; hello
DELIMITER ;
USE `hidden`;
';
    END $$
    SET sql_mode = 'NO_BACKSLASH_ESCAPES' $$
    CREATE FUNCTION f() RETURNS TEXT DETERMINISTIC RETURN 'ends with a backslash \' $$
    DELIMITER ;
    USE hidden;
    CREATE VIEW outside AS SELECT * FROM shop.v;
";

/// What is asked of both servers, and has to be the same.
const QUESTIONS: [&str; 11] = [
    "CHECKSUM TABLE shop.big, shop.text, shop.child, shop.audit, `od``d é ; x`.`--all` EXTENDED",
    "SELECT * FROM shop.v",
    "CALL shop.p()",
    "SELECT shop.f()",
    "SELECT NEXT VALUE FOR shop.s",
    "SHOW CREATE DATABASE shop",
    "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema IN ('shop', 'od`d é ; x') ORDER BY 1, 2",
    "SELECT trigger_name, definer, action_statement FROM information_schema.triggers WHERE trigger_schema = 'shop'",
    "SELECT routine_name, definer, routine_definition, sql_mode, routine_comment FROM information_schema.routines WHERE routine_schema = 'shop'",
    "SELECT event_name, definer, event_definition, event_comment, on_completion FROM information_schema.events",
    "SELECT column_name, column_comment FROM information_schema.columns WHERE table_schema = 'od`d é ; x'",
];

/// A backup of a server that has all this.
pub(crate) struct Backup {
    source: Server,
    bytes: Vec<u8>,
}

impl Backup {
    async fn of(databases: &[&str]) -> Self {
        let source = Server::with_user("logical");
        source.sql(OBJECTS);
        Self::of_server(source, databases).await
    }

    pub(crate) async fn of_server(source: Server, databases: &[&str]) -> Self {
        let rig = Rig::new(&source);
        let end = rig
            .start(BackupRequest {
                compression: Compression::Zstd { level: 1 },
                databases: databases.iter().map(|name| (*name).to_owned()).collect(),
                ..request(Method::Logical)
            })
            .await
            .end()
            .await;
        end.succeeded();
        Self {
            source,
            bytes: end.bytes,
        }
    }

    fn expected(&self) -> Expected {
        expected(&self.bytes)
    }

    fn prove(&self, options: &LogicalOptions) -> Result<Proven, RestoreError> {
        logical::prove(
            &self.bytes[..],
            &Identities::default(),
            &self.expected(),
            options,
            &Progress::default(),
        )
    }

    /// Both passes.
    pub(crate) async fn restore(
        &self,
        target: &Server,
        options: &LogicalOptions,
    ) -> Result<Restored, RestoreError> {
        let proven = self.prove(options)?;
        load(
            target,
            self.bytes.clone(),
            &self.expected(),
            &proven,
            options,
        )
        .await
    }
}

fn expected(bytes: &[u8]) -> Expected {
    Measured::new(bytes, None).finish().unwrap()
}

async fn load(
    target: &Server,
    bytes: Vec<u8>,
    expected: &Expected,
    proven: &Proven,
    options: &LogicalOptions,
) -> Result<Restored, RestoreError> {
    let password = password_file();
    let progress = Progress::default();
    let restored = logical::load(
        Input {
            archive: Cursor::new(bytes),
            identities: Default::default(),
            expected: expected.clone(),
        },
        proven,
        &connection(target, &password),
        options,
        &progress,
        pending(),
    )
    .await;
    assert!([Stage::Starting, Stage::Ended].contains(&progress.look().stage));
    assert_eq!(target.sessions(), 0, "the client's session is gone");
    restored
}

/// An empty server whose user may restore.
fn target() -> Server {
    let server = Server::with_user("logical");
    server.grant("restore");
    server
}

fn some(databases: &[&str]) -> LogicalOptions {
    LogicalOptions {
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
        ..LogicalOptions::default()
    }
}

fn databases(server: &Server) -> String {
    let names = server.sql("SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1");
    names.lines().collect::<Vec<_>>().join(" ")
}

fn answers(server: &Server) -> BTreeMap<&'static str, String> {
    QUESTIONS.iter().map(|q| (*q, server.sql(q))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_is_there_again() {
    let backup = Backup::of(&["shop", "od`d é ; x"]).await;
    let target = target();
    // An empty one gets the backup's character set.
    target.sql("CREATE DATABASE shop CHARACTER SET latin1");
    let restored = backup.restore(&target, &some(&[])).await.unwrap();
    assert_eq!(restored.databases, ["od`d é ; x", "shop"]);
    assert_eq!(restored.tables, 7);
    assert_eq!(databases(&target), "od`d é ; x shop");
    let (was, is) = (answers(&backup.source), answers(&target));
    for (question, was) in was {
        assert!(!was.is_empty(), "{question}");
        assert_eq!(was, is[question], "{question}");
    }
    let status = "SELECT status FROM information_schema.events";
    assert_eq!(target.sql(status).trim(), "DISABLED");
    assert_eq!(backup.source.sql(status).trim(), "ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for() {
    let backup = Backup::of(&[]).await;
    let target = target();
    let options = LogicalOptions {
        routines: false,
        triggers: false,
        events: Events::Skip,
        ..some(&["shop"])
    };
    backup.restore(&target, &options).await.unwrap();
    assert_eq!(databases(&target), "shop");
    for kind in [
        "routines WHERE routine",
        "triggers WHERE trigger",
        "events WHERE event",
    ] {
        let count = format!("SELECT COUNT(*) FROM information_schema.{kind}_schema = 'shop'");
        assert_eq!(target.sql(&count).trim(), "0");
        assert_ne!(backup.source.sql(&count).trim(), "0");
    }
    let checksum = "CHECKSUM TABLE shop.big, shop.text EXTENDED";
    assert_eq!(target.sql(checksum), backup.source.sql(checksum));

    target.sql("DROP DATABASE shop");
    let options = LogicalOptions {
        events: Events::AsBackedUp,
        definers: Definers::CurrentUser,
        binary_log: false,
        ..some(&["shop"])
    };
    let position = || target.sql("SELECT @@gtid_binlog_pos");
    let before = position();
    backup.restore(&target, &options).await.unwrap();
    assert_eq!(position(), before, "nothing is in the binary log");
    for (what, kind) in [
        (
            "security_type = 'DEFINER' AND definer",
            "views WHERE table_schema = 'shop'",
        ),
        ("definer", "routines WHERE routine_schema = 'shop'"),
        ("definer", "triggers WHERE trigger_schema = 'shop'"),
        (
            "status = 'ENABLED' AND definer",
            "events WHERE event_schema = 'shop'",
        ),
    ] {
        let query = format!(
            "SELECT COUNT(*) > 0 AND MIN({what} = 'towline@localhost') FROM information_schema.{kind}"
        );
        assert_eq!(target.sql(&query).trim(), "1", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_when_asked_for() {
    let source = Server::with_user("logical");
    source.sql(OBJECTS);
    source.sql(
        "CREATE ROLE reader; GRANT SELECT ON shop.* TO reader;
         CREATE USER app@localhost IDENTIFIED BY 'it''s'; GRANT reader TO app@localhost;
         GRANT SELECT (id), INSERT ON shop.big TO app@localhost;
         GRANT SELECT ON hidden.t TO app@localhost;
         GRANT EXECUTE ON PROCEDURE shop.p TO app@localhost;
         GRANT SELECT ON `hidd%`.* TO app@localhost",
    );
    let backup = Backup::of_server(source, &[]).await;
    let target = target();
    let options = LogicalOptions {
        include_users: true,
        ..some(&["shop"])
    };
    let error = backup.restore(&target, &options).await.unwrap_err();
    assert!(matches!(error, RestoreError::Refused(_)), "{error}");
    assert!(error.to_string().contains("CREATE USER"), "{error}");
    assert_eq!(databases(&target), "");
    target.sql(
        "GRANT ALL PRIVILEGES ON *.* TO towline@localhost WITH GRANT OPTION;
         GRANT PROXY ON ''@'%' TO towline@localhost WITH GRANT OPTION",
    );
    backup.restore(&target, &options).await.unwrap();
    let grants =
        |server: &Server| server.sql("SHOW GRANTS FOR app@localhost; SHOW GRANTS FOR reader");
    // A grant on a table that is not restored cannot be granted.
    let expected = grants(&backup.source)
        .lines()
        .filter(|line| !line.contains("`hidden`.`t`"))
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    assert_ne!(expected, grants(&backup.source));
    assert_eq!(grants(&target), expected);

    let some_databases = Backup::of(&["shop"]).await;
    let error = some_databases.prove(&options).unwrap_err();
    assert!(matches!(error, RestoreError::Invalid(_)), "{error}");
    assert!(error.to_string().contains("accounts"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_over() {
    let backup = Backup::of(&["shop", "hidden"]).await;
    let target = target();
    target.sql("CREATE DATABASE shop; CREATE TABLE shop.mine (x INT); CREATE DATABASE hidden");
    let before = target.sql("SELECT @@gtid_binlog_pos");
    for (occupied, options) in [("shop", some(&[])), ("shop", some(&["shop"]))] {
        let error = backup.restore(&target, &options).await.unwrap_err();
        assert!(matches!(error, RestoreError::TargetNotEmpty(_)), "{error}");
        assert!(error.to_string().contains(occupied), "{error}");
    }
    for object in [
        "EVENT hidden.e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        "PROCEDURE hidden.p() SELECT 1",
    ] {
        target.sql(&format!("CREATE {object}"));
        let error = backup
            .restore(&target, &some(&["hidden"]))
            .await
            .unwrap_err();
        assert!(matches!(error, RestoreError::TargetNotEmpty(_)), "{error}");
        target.sql("DROP DATABASE hidden; CREATE DATABASE hidden");
    }
    let tables =
        "SELECT table_name FROM information_schema.tables WHERE table_schema IN ('shop', 'hidden')";
    assert_eq!(target.sql(tables).trim(), "mine");
    assert_ne!(before, "");
    // The others can be restored beside it; one that the backup lacks is named.
    let error = backup
        .restore(&target, &some(&["nowhere"]))
        .await
        .unwrap_err();
    assert!(matches!(error, RestoreError::Invalid(_)), "{error}");
    assert!(error.to_string().contains("hidden, shop"), "{error}");
}

/// In pass one everything is refused, and the target is as it was; in pass two the mark stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_never_called_restored() {
    let backup = Backup::of(&["shop"]).await;
    let target = target();
    let options = some(&[]);
    let whole = &backup.bytes;
    let proven = backup.prove(&options).unwrap();
    let middle = whole.len() / 2;
    let mut altered = whole.clone();
    altered[middle] ^= 1;
    let cut = whole[..whole.len() - 1].to_vec();
    let mut longer = whole.clone();
    longer.push(0);
    for damaged in [&altered, &cut, &longer] {
        // What its manifest says, and, for an archive that was exchanged with its manifest, its own sums.
        for expected in [backup.expected(), expected(damaged)] {
            let progress = Progress::default();
            let proven = logical::prove(
                &damaged[..],
                &Identities::default(),
                &expected,
                &options,
                &progress,
            );
            let error = proven.unwrap_err();
            assert!(
                matches!(
                    error,
                    RestoreError::Archive(_) | RestoreError::NotAsStored(_)
                ),
                "{error}"
            );
        }
    }
    assert_eq!(databases(&target), "");

    for damaged in [altered, cut, longer] {
        let error = load(&target, damaged, &backup.expected(), &proven, &options)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                RestoreError::Archive(_) | RestoreError::NotAsStored(_)
            ),
            "{error}"
        );
        let mark = format!("SELECT backup FROM shop.{UNFINISHED}");
        assert_eq!(target.sql(&mark).trim(), proven.verified.metadata.backup_id);
        // Nobody restores over it.
        let again = backup.restore(&target, &options).await.unwrap_err();
        assert!(matches!(again, RestoreError::TargetNotEmpty(_)), "{again}");
        assert!(again.to_string().contains(UNFINISHED), "{again}");
        target.sql("DROP DATABASE shop");
    }
    backup.restore(&target, &options).await.unwrap();
}

/// What the server refuses in the middle ends the restore with the client's words.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told() {
    let backup = Backup::of(&["hidden"]).await;
    let target = target();
    // Its view is of a table that is not there.
    let error = backup.restore(&target, &some(&[])).await.unwrap_err();
    assert!(matches!(error, RestoreError::Tool { .. }), "{error}");
    assert!(error.to_string().contains("shop.v"), "{error}");
    let mark = format!("SELECT COUNT(*) FROM hidden.{UNFINISHED}");
    assert_eq!(target.sql(&mark).trim(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_stopped_leaves_its_mark() {
    let backup = Backup::of(&["shop"]).await;
    let target = target();
    let proven = backup.prove(&some(&[])).unwrap();
    // Somebody holds the database up in the middle.
    let (read, mut write) = std::io::pipe().unwrap();
    let half = backup.bytes[..backup.bytes.len() - 100].to_vec();
    let writing = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut write, &half);
        write
    });
    let password = password_file();
    let database = connection(&target, &password);
    let begun = async {
        let look = format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop' AND table_name = '{UNFINISHED}'"
        );
        while target.sql(&look).trim() != "1" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        "the agent is being stopped".to_owned()
    };
    let error = logical::load(
        Input {
            archive: read,
            identities: Default::default(),
            expected: backup.expected(),
        },
        &proven,
        &database,
        &some(&[]),
        &Progress::default(),
        begun,
    )
    .await
    .unwrap_err();
    assert!(matches!(error, RestoreError::Interrupted(_)), "{error}");
    assert_eq!(target.sessions(), 0);
    let mark = format!("SELECT COUNT(*) FROM shop.{UNFINISHED}");
    assert_eq!(target.sql(&mark).trim(), "1");
    drop(writing.join());
}

/// As a drill's server runs: whoever comes may do everything, and there is no event scheduler.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_accounts() {
    let backup = Backup::of(&["shop"]).await;
    let mut target = target();
    target.restart(&["--skip-grant-tables"]);
    let options = LogicalOptions {
        events: Events::Skip,
        ..some(&[])
    };
    backup.restore(&target, &options).await.unwrap();
    let checksum = "CHECKSUM TABLE shop.big, shop.text EXTENDED";
    assert_eq!(target.sql(checksum), backup.source.sql(checksum));
    let error = backup.restore(&target, &options).await.unwrap_err();
    assert!(matches!(error, RestoreError::TargetNotEmpty(_)), "{error}");
}

/// Which servers are refused, and the words that say why.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_not_fit() {
    let backup = Backup::of(&["shop"]).await;
    let target = target();
    let refused = async |options: &LogicalOptions, words: &str| {
        let error = backup.restore(&target, options).await.unwrap_err();
        assert!(matches!(error, RestoreError::Refused(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(databases(&target), "");
    };
    target.sql("SET GLOBAL read_only = 1");
    refused(&some(&[]), "read_only").await;
    target
        .sql("SET GLOBAL read_only = 0; CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_USER='x'");
    refused(&some(&[]), "replicates").await;
    target.sql("RESET SLAVE ALL");
    target.sql("REVOKE SET USER, SUPER, EVENT ON *.* FROM towline@localhost");
    refused(&some(&[]), "SET USER").await;
    refused(&some(&[]), "EVENT ON `shop`.*").await;
    let purge = LogicalOptions {
        gtid_purged: true,
        ..some(&[])
    };
    target.sql("GRANT SET USER, SUPER, EVENT ON *.* TO towline@localhost");
    let proven = backup.prove(&some(&[])).unwrap();
    let gtid = proven.verified.summary.position.gtid.unwrap();
    target.sql(&format!(
        "RESET MASTER; SET GLOBAL gtid_slave_pos = '{gtid}'"
    ));
    refused(&purge, "history of its own").await;
    target.sql("SET GLOBAL gtid_slave_pos = ''");
    let options = LogicalOptions {
        binary_log: false,
        ..purge
    };
    backup.restore(&target, &options).await.unwrap();
    assert_eq!(target.sql("SELECT @@gtid_slave_pos").trim(), gtid);
}

use super::*;
use proptest::prelude::*;

/// Statements as `mariadb-dump` 10.11 writes them.
const MARIADB: &str = include_str!("../../../tests/fixtures/mariadb-dump-10.11.sql");
/// As `mysqldump` 9.7 writes them, with GTIDs on.
const MYSQL: &str = include_str!("../../../tests/fixtures/mysqldump-9.sql");

fn some(databases: &[&str]) -> LogicalOptions {
    LogicalOptions {
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
        events: Events::AsBackedUp,
        ..LogicalOptions::default()
    }
}

/// What goes to the server of a dump that comes in pieces of these sizes.
fn pieces(options: &LogicalOptions, sql: &[u8], sizes: &[usize]) -> Result<String, FilterError> {
    let existing = ["old".to_owned()].into();
    let mut filter = Filter::new(options, "b-1", existing);
    let mut out = Vec::new();
    let mut left = sql;
    for size in sizes.iter().cycle() {
        let (now, later) = left.split_at(left.len().min(*size));
        filter.push(now, &mut out)?;
        left = later;
        if left.is_empty() {
            break;
        }
    }
    filter.finish(&mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn filtered(options: &LogicalOptions, sql: &str) -> String {
    pieces(options, sql.as_bytes(), &[sql.len().max(1)]).unwrap()
}

fn has(text: &str, parts: &[&str], lacks: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    for part in lacks {
        assert!(!text.contains(part), "{part:?} is in\n{text}");
    }
}

#[test]
fn one_database_of_a_dump() {
    for (sql, flavour) in [(MARIADB, "mariadb"), (MYSQL, "mysql")] {
        let text = filtered(&some(&["other"]), sql);
        has(
            &text,
            &[
                "SQL_MODE='NO_AUTO_VALUE_ON_ZERO'",
                "USE `other`;\n",
                "INSERT INTO `elsewhere`",
                "CREATE TABLE `other`.`_towline_restore_unfinished`",
                "INSERT INTO `other`.`_towline_restore_unfinished` VALUES ('b-1');\n",
                "SET SQL_MODE=@OLD_SQL_MODE",
            ],
            &[
                "`shop`",
                "PROCEDURE",
                "TRIGGER",
                "EVENT",
                "GTID_PURGED",
                "SQL_LOG_BIN",
                "sandbox",
            ],
        );
        // The mark is made before anything else in the database.
        let mark = text.find("_towline_restore_unfinished").unwrap();
        assert!(text.find("`elsewhere`").unwrap() > mark, "{flavour}");
    }
}

#[test]
fn all_of_a_dump() {
    for sql in [MARIADB, MYSQL] {
        let text = filtered(&some(&[]), sql);
        has(
            &text,
            &[
                "USE `shop`",
                "USE `other`",
                " PROCEDURE `p`",
                " TRIGGER ",
                " EVENT `e`",
                "VIEW `v`",
                "DEFINER=`root`@`localhost`",
                "PRESERVE ENABLE",
            ],
            &["GTID_PURGED", "SQL_LOG_BIN", "-- Host", "CHANGE "],
        );
        // The bodies are as they were.
        let body = "BEGIN\n-- Current Database: `other`\n/*\nDELIMITER ;\nUSE `other`;\n*/\n  SELECT 'DEFINER=`x`@`y` ;; ENABLE';\nEND";
        has(&text, &[body], &[]);
        // Whole statements only.
        let again = filtered(&some(&[]), &text);
        assert_eq!(
            again.matches("INSERT INTO").count(),
            text.matches("INSERT INTO").count() + 2
        );
    }
}

#[test]
fn what_is_left_out() {
    for sql in [MARIADB, MYSQL] {
        let options = LogicalOptions {
            routines: false,
            triggers: false,
            events: Events::Skip,
            ..some(&["shop"])
        };
        has(
            &filtered(&options, sql),
            &["CREATE TABLE `t`", "VIEW `v`"],
            &["PROCEDURE", "FUNCTION", "TRIGGER", "EVENT"],
        );
    }
}

#[test]
fn definers_and_events() {
    for sql in [MARIADB, MYSQL] {
        let options = LogicalOptions {
            definers: Definers::CurrentUser,
            events: Events::Disabled,
            ..some(&[])
        };
        let text = filtered(&options, sql);
        has(
            &text,
            &[
                "SELECT 'DEFINER=`x`@`y` ;; ENABLE'",
                "SQL SECURITY DEFINER",
                "ON COMPLETION NOT PRESERVE DISABLE COMMENT 'ON COMPLETION PRESERVE ENABLE'",
                "PRESERVE DISABLE ON ",
            ],
            &["DEFINER=`root`", "PRESERVE ENABLE DO"],
        );
    }
}

#[test]
fn a_database_that_exists_gets_the_backups_character_set() {
    let sql = "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `old` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;\n\
        CREATE DATABASE `new` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;\n";
    let text = filtered(&some(&[]), sql);
    has(
        &text,
        &["ALTER DATABASE `old` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;\n"],
        &["ALTER DATABASE `new`"],
    );
}

#[test]
fn servers_own_schemas_are_never_restored() {
    for name in ["mysql", "sys", "SYS", "performance_schema"] {
        let sql = format!("CREATE DATABASE `{name}`;\nUSE `{name}`;\nDROP TABLE `user`;\n");
        for options in [some(&[]), some(&[name])] {
            assert_eq!(filtered(&options, &sql), "");
        }
    }
}

#[test]
fn an_event_in_an_unknown_form_is_no_enabled_one() {
    let options = LogicalOptions {
        events: Events::Disabled,
        ..some(&[])
    };
    for event in [
        "CREATE EVENT `e` ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        "CREATE EVENT `e` ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DO SELECT 1",
        "CREATE EVENT `ON` COMPLETION",
        "CREATE EVENT",
    ] {
        let sql = format!("USE `a`;\n{event};\n");
        let error = pieces(&options, sql.as_bytes(), &[99]).unwrap_err();
        assert!(matches!(error, FilterError::Event { .. }), "{event}");
        assert!(pieces(&some(&[]), sql.as_bytes(), &[99]).is_ok());
    }
}

#[test]
fn where_a_dump_cannot_end() {
    for sql in [
        "SELECT 1",
        "USE `a`;\nINSERT INTO `t` VALUES ('a;\n",
        "/* open",
        "DELIMITER \n",
        "DELIMITER ;;;;;;;;;;;;;;;;;;;;;;;\n",
        "DELIMITER '\n",
    ] {
        assert!(pieces(&some(&[]), sql.as_bytes(), &[99]).is_err(), "{sql}");
    }
    assert!(pieces(&some(&[]), b"-- Dump completed", &[99]).is_ok());
    assert_eq!(
        filtered(&some(&[]), "DELIMITER ;;\n"),
        "DELIMITER ;;\nDELIMITER ;\n"
    );
}

/// A body that was made with `NO_BACKSLASH_ESCAPES` has strings that end with a backslash.
#[test]
fn the_sql_mode_decides_on_backslashes() {
    let sql = "USE `a`;\n/*!50003 SET @saved_sql_mode       = @@sql_mode */ ;\n\
        /*!50003 SET sql_mode              = 'ANSI,NO_BACKSLASH_ESCAPES' */ ;\nDELIMITER ;;\n\
        CREATE FUNCTION f() RETURNS TEXT RETURN '\\';;\nDELIMITER ;\n\
        /*!50003 SET sql_mode              = @saved_sql_mode */ ;\nINSERT INTO t VALUES ('\\'; USE `b`; ');\nUSE `b`;\nDROP TABLE x;\n";
    let text = filtered(&some(&["a"]), sql);
    has(
        &text,
        &["RETURN '\\';;\n", "VALUES ('\\'; USE `b`; ');\n"],
        &["DROP TABLE x"],
    );
}

#[test]
fn grants_on_what_is_not_restored_are_left_out() {
    let mut filter = Filter::new(&some(&["shop"]), "b", BTreeSet::new());
    let mut out = Vec::new();
    filter
        .push(b"USE `shop`;\nUSE `other`;\n", &mut out)
        .unwrap();
    filter.begin_users(&mut out).unwrap();
    out.clear();
    let kept = "SET NAMES utf8mb4;\n\
        CREATE USER IF NOT EXISTS `a`@`%` IDENTIFIED BY PASSWORD 'x; ON `other`.`t`';\n\
        GRANT USAGE ON *.* TO `a`@`%`;\n\
        GRANT SELECT ON `other`.* TO `a`@`%`;\n\
        GRANT SELECT (`x ON`), INSERT ON `shop`.`t` TO `a`@`%` WITH GRANT OPTION;\n\
        GRANT SELECT ON `mysql`.`user` TO `a`@`%`;\n\
        GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `a`@`%`;\n\
        GRANT PROXY ON `b`@`%` TO `a`@`%`;\n\
        GRANT `role` TO `a`@`%`;\n\
        SET DEFAULT ROLE `role` FOR `a`@`%`;\n";
    let dropped = "GRANT SELECT (`x`) ON `other`.`t` TO `a`@`%`;\n\
        GRANT EXECUTE ON FUNCTION `other`.`f` TO `a`@`%`;\n\
        SET GLOBAL super_read_only = 1;\nSET PASSWORD = 'x';\n";
    filter.push(kept.as_bytes(), &mut out).unwrap();
    filter.push(dropped.as_bytes(), &mut out).unwrap();
    filter.finish(&mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), kept);
}

/// A value as dump tools write it.
fn value(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{}'", text.replace('\n', "\\n").replace('\r', "\\r"))
}

const LIES: &str = "(\n|;|;;|-- x|USE `evil`;|DELIMITER ;;|DELIMITER ;\n|CREATE DATABASE `evil`;|/\\*|\\*/|'|\"|`|#|\\\\|[ -~é])";

proptest! {
    /// However a dump is cut into pieces, the same goes to the server; and no bytes make it panic.
    #[test]
    fn pieces_change_nothing(
        parts in proptest::collection::vec(
            prop_oneof![
                LIES.prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..200),
                "(DELIMITER |CREATE EVENT |USE `a`|SET sql_mode = |CREATE DEFINER=)[ -~]{0,40}".prop_map(String::into_bytes),
                Just(MARIADB.as_bytes().to_vec()),
                Just(MYSQL.as_bytes().to_vec()),
            ],
            0..12,
        ),
        sizes in proptest::collection::vec(1_usize..3000, 1..5),
        disabled in any::<bool>(),
    ) {
        let sql = parts.concat();
        // Text, for what goes out is compared as such.
        let sql = String::from_utf8_lossy(&sql).into_owned();
        let options = LogicalOptions {
            events: if disabled { Events::Disabled } else { Events::AsBackedUp },
            definers: Definers::CurrentUser,
            ..some(&[])
        };
        let whole = pieces(&options, sql.as_bytes(), &[sql.len().max(1)]);
        prop_assert_eq!(pieces(&options, sql.as_bytes(), &sizes), whole);
    }

    /// Nothing in a row begins a database, ends one, or is lost.
    #[test]
    fn rows_cannot_lie(lies in proptest::collection::vec(LIES, 0..30), sizes in proptest::collection::vec(1_usize..99, 1..4)) {
        let row = format!("INSERT INTO `t` VALUES ({},1)", value(&lies.concat()));
        let sql = format!("USE `a`;\n{row};\nUSE `b`;\n{row};\n");
        let text = pieces(&some(&["a"]), sql.as_bytes(), &sizes).unwrap();
        prop_assert_eq!(text.matches(&row).count(), 1);
        prop_assert!(text.ends_with(&format!("{row};\n")), "{}", text);
        prop_assert!(!text.contains("USE `b`;\n"));
    }

    /// Nothing in the comments and strings of a body does.
    #[test]
    fn bodies_cannot_lie(lies in proptest::collection::vec(LIES, 0..30), sizes in proptest::collection::vec(1_usize..99, 1..4)) {
        let lies = lies.concat();
        let comment = lies.replace("*/", "").replace("/*", "").replace(['*', '/'], "");
        let body = format!("BEGIN\n/* {comment}\n*/\nSELECT {};\n-- {}\nEND", value(&lies), lies.replace('\n', " "));
        let sql = format!("USE `a`;\nDELIMITER ;;\nCREATE PROCEDURE `p`() {body} ;;\nDELIMITER ;\nUSE `b`;\nDROP TABLE `x`;\n");
        let text = pieces(&some(&["a"]), sql.as_bytes(), &sizes).unwrap();
        let expected = format!("DELIMITER ;;\nCREATE PROCEDURE `p`() {body} ;;\nDELIMITER ;\n");
        prop_assert!(text.ends_with(&expected), "{}", text);
        let without = LogicalOptions { routines: false, ..some(&["a"]) };
        let text = pieces(&without, sql.as_bytes(), &sizes).unwrap();
        prop_assert!(!text.contains("PROCEDURE"));
        prop_assert!(text.ends_with("DELIMITER ;;\nDELIMITER ;\n"), "{}", text);
    }
}

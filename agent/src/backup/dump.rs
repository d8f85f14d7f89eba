//! Watches a dump go by: is it complete, which tables are in it, where does it stand.

use crate::archive::Position;
use crate::database::Tables;

/// Bytes of a line that are looked at: the longest name is 64 characters, quoted twice over.
const LINE: usize = 1024;
/// Bytes at the end of a line, for the delimiter that ends a body.
const TAIL: usize = 64;

/// Looks at the SQL of a dump tool. Rows cannot imitate what it looks for: the tools write line
/// breaks in values as `\n`. Bodies of routines, triggers and events could, for they are written as
/// they are; they stand between two `DELIMITER` lines and are passed over. The second one counts only
/// after a line that ends a statement, which a comment in a body can still imitate. So a position counts
/// only where the tool was asked for it: then its own
/// is the first (binary log, before any schema) or the last (MariaDB's GTID, after all of them).
/// Tables are compared with the server's in any case.
#[derive(Debug)]
pub(super) struct Dump {
    asked: Asked,
    line: Vec<u8>,
    /// The end of the line.
    tail: Vec<u8>,
    delimiter: String,
    /// Whether the last line with anything on it ends with the delimiter.
    ended: bool,
    schema: String,
    tables: Tables,
    position: Position,
    completed: bool,
    /// Inside the body of a routine, trigger or event.
    in_body: bool,
    /// Inside a GTID set, which goes over several lines.
    in_gtid: bool,
}

/// Which positions the tool was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) binlog: bool,
    pub(super) gtid: bool,
}

impl Dump {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            line: Vec::new(),
            tail: Vec::new(),
            delimiter: ";".to_owned(),
            ended: true,
            schema: String::new(),
            tables: Tables::new(),
            position: Position::default(),
            completed: false,
            in_body: false,
            in_gtid: false,
        }
    }

    /// Takes the next bytes.
    pub(super) fn data(&mut self, mut data: &[u8]) {
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            self.keep(&data[..end]);
            self.end_line();
            data = &data[end + 1..];
        }
        self.keep(data);
    }

    /// What was seen, at the end of the data.
    pub(super) fn finish(mut self) -> (bool, Tables, Position) {
        self.end_line();
        (self.completed, self.tables, self.position)
    }

    fn keep(&mut self, data: &[u8]) {
        let room = LINE - self.line.len();
        self.line.extend_from_slice(&data[..data.len().min(room)]);
        let last = &data[data.len().saturating_sub(TAIL)..];
        self.tail.extend_from_slice(last);
        let more = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..more);
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        self.look(&text);
        self.line = line;
        self.line.clear();
        let tail = self.tail.trim_ascii_end();
        if !tail.is_empty() {
            self.ended = tail.ends_with(self.delimiter.as_bytes());
        }
        self.tail.clear();
    }

    fn look(&mut self, line: &str) {
        if !line.is_empty() {
            self.completed = line.starts_with("-- Dump completed");
        }
        if let Some(delimiter) = line.strip_prefix("DELIMITER ")
            && (self.ended || !self.in_body)
        {
            self.delimiter = delimiter.trim().to_owned();
            self.in_body = self.delimiter != ";";
            return;
        }
        if self.in_body {
            return;
        }
        if self.asked.gtid {
            self.look_for_gtid(line);
        }
        if let Some(schema) = line.strip_prefix("USE ").and_then(name) {
            self.tables.entry(schema.clone()).or_default();
            self.schema = schema;
        }
        const OBJECTS: [&str; 4] = [
            "CREATE TABLE ",
            "CREATE SEQUENCE ",
            "/*!50001 CREATE VIEW ",
            "/*!50001 CREATE TABLE ",
        ];
        if let Some(table) = OBJECTS
            .iter()
            .find_map(|start| line.strip_prefix(start))
            .and_then(name)
        {
            self.tables
                .entry(self.schema.clone())
                .or_default()
                .insert(table);
        }
        // -- CHANGE MASTER TO MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=2662;
        // -- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000002', SOURCE_LOG_POS=158;
        if self.asked.binlog
            && line.starts_with("-- CHANGE ")
            && self.position.binlog_file.is_none()
            && let Some((_, rest)) = line.split_once("_LOG_FILE='")
            && let Some((file, rest)) = rest.split_once('\'')
            && let Some((_, at)) = rest.split_once("_LOG_POS=")
        {
            self.position.binlog_file = Some(file.to_owned());
            self.position.binlog_position = at.trim_end_matches(';').parse().ok();
        }
    }

    fn look_for_gtid(&mut self, line: &str) {
        // MariaDB: -- SET GLOBAL gtid_slave_pos='0-1-10';
        if let Some(rest) = line.strip_prefix("-- SET GLOBAL gtid_slave_pos='") {
            let set = rest.split('\'').next().filter(|set| !set.is_empty());
            self.position.gtid = set.map(str::to_owned);
        }
        // MySQL: /* SET @@GLOBAL.GTID_PURGED='+uuid:1-5,
        // uuid:1-7';*/
        let mut rest = line;
        if let Some((_, value)) = line.split_once("SET @@GLOBAL.GTID_PURGED=")
            && self.position.gtid.is_none()
        {
            // An optional version comment stands before the set: /*!80000 '+'*/ 'uuid:1-5'.
            let value = value.split_once("*/ '").map_or(value, |(_, set)| set);
            rest = value.trim_start_matches(['\'', '+']);
            self.position.gtid = Some(String::new());
            self.in_gtid = true;
        }
        if self.in_gtid
            && let Some(gtid) = &mut self.position.gtid
        {
            let (set, end) = rest
                .split_once('\'')
                .map_or((rest, false), |(set, _)| (set, true));
            gtid.push_str(set.trim());
            self.in_gtid = !end;
        }
    }
}

/// The name in backticks that a text starts with.
fn name(text: &str) -> Option<String> {
    let mut rest = text.strip_prefix('`')?;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('`')?;
        name.push_str(part);
        match after.strip_prefix('`') {
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => return Some(name),
        }
    }
}

/// What of `expected` is not in `found`, as `schema.table`, at most a few of them.
pub(super) fn missing(expected: &Tables, found: &Tables) -> Vec<String> {
    let lacks =
        |schema: &String, table: &String| !found.get(schema).is_some_and(|t| t.contains(table));
    expected
        .iter()
        .flat_map(|(schema, tables)| tables.iter().map(move |table| (schema, table)))
        .filter(|(schema, table)| lacks(schema, table))
        .map(|(schema, table)| format!("{schema}.{table}"))
        .take(10)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKED: Asked = Asked {
        binlog: true,
        gtid: true,
    };

    const SQL: &str = "-- CHANGE MASTER TO MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=2662;\n\
        -- SET GLOBAL gtid_slave_pos='0-1-10';\n\
        CREATE DATABASE `app`;\nUSE `app`;\nCREATE TABLE `a``b` (\n  `x` int\n);\n\
        INSERT INTO `a``b` VALUES ('CREATE TABLE `evil` (\\n');\n\
        CREATE SEQUENCE `s` start with 1;\n\
        /*!50001 CREATE VIEW `v` AS SELECT\n 1 AS `x`*/;\n\n-- Dump completed on 2026-11-21\n";

    fn tables(names: &[&str]) -> Tables {
        [(
            "app".to_owned(),
            names.iter().map(|n| (*n).to_owned()).collect(),
        )]
        .into()
    }

    #[test]
    fn what_is_in_a_dump_however_it_is_cut() {
        for size in [1, 7, 4096] {
            let mut dump = Dump::new(ASKED);
            SQL.as_bytes()
                .chunks(size)
                .for_each(|chunk| dump.data(chunk));
            let (completed, found, position) = dump.finish();
            assert!(completed);
            assert_eq!(found, tables(&["a`b", "s", "v"]));
            assert_eq!(position.binlog_file.as_deref(), Some("bin.000001"));
            assert_eq!(position.binlog_position, Some(2662));
            assert_eq!(position.gtid.as_deref(), Some("0-1-10"));
        }
    }

    #[test]
    fn the_body_of_a_routine_cannot_lie() {
        let sql = "USE `app`;\nDELIMITER ;;\nCREATE PROCEDURE `p`()\nBEGIN\n\
            -- CHANGE MASTER TO MASTER_LOG_FILE='evil', MASTER_LOG_POS=1;\n\
            CREATE TABLE `hidden` (\nEND ;;\nDELIMITER ;\n-- Dump completed\n";
        let mut dump = Dump::new(ASKED);
        dump.data(sql.as_bytes());
        let (completed, found, position) = dump.finish();
        assert!(completed);
        assert_eq!((found, position), (tables(&[]), Position::default()));
    }

    /// A comment in a body may hold a whole dump: the tables after it are still found.
    #[test]
    fn a_delimiter_in_a_comment_ends_no_body() {
        for size in [1, 7, 4096] {
            for sql in [
                include_str!("../../tests/fixtures/mariadb-dump-10.11.sql"),
                include_str!("../../tests/fixtures/mysqldump-9.sql"),
            ] {
                let body = "BEGIN\n-- Current Database: `other`\n";
                assert!(sql.contains(body));
                let sql = sql.replace(
                    body,
                    "BEGIN\n/*\nDELIMITER ;\nUSE `other`;\nCREATE TABLE `evil` (\n*/\n",
                );
                let sql = sql.replace(
                    "-- Final view structure",
                    "CREATE TABLE `last` (\n-- Final view structure",
                );
                let mut dump = Dump::new(ASKED);
                sql.as_bytes()
                    .chunks(size)
                    .for_each(|chunk| dump.data(chunk));
                let (completed, found, _) = dump.finish();
                assert!(completed);
                assert!(
                    found["shop"].contains("t") && found["shop"].contains("last"),
                    "{found:?}"
                );
                assert_eq!(found["other"], ["elsewhere".to_owned()].into(), "{found:?}");
            }
        }
    }

    #[test]
    fn a_gtid_set_of_mysql_goes_over_lines() {
        for sql in [
            "/* SET @@GLOBAL.GTID_PURGED='+a-b:1-5,\nc-d:1-7';*/\n",
            "SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'a-b:1-5,\nc-d:1-7';\n",
        ] {
            let mut dump = Dump::new(ASKED);
            dump.data(sql.as_bytes());
            assert_eq!(
                dump.finish().2.gtid.as_deref(),
                Some("a-b:1-5,c-d:1-7"),
                "{sql}"
            );
        }
    }

    #[test]
    fn a_cut_dump_is_not_complete() {
        let end = SQL.find("-- Dump completed").unwrap();
        let mut dump = Dump::new(ASKED);
        dump.data(&SQL.as_bytes()[..end]);
        assert!(!dump.finish().0);
    }

    #[test]
    fn a_table_that_is_not_there_is_named() {
        assert_eq!(missing(&tables(&["a", "b"]), &tables(&["b"])), ["app.a"]);
        assert!(missing(&tables(&["b"]), &tables(&["a", "b"])).is_empty());
        assert_eq!(missing(&tables(&["b"]), &Tables::new()), ["app.b"]);
    }

    fn seen(sql: &[u8], sizes: &[usize]) -> (bool, Tables, Position) {
        let mut dump = Dump::new(ASKED);
        let mut left = sql;
        for size in sizes.iter().cycle() {
            let (now, later) = left.split_at(left.len().min(*size));
            dump.data(now);
            left = later;
            if left.is_empty() {
                break;
            }
        }
        dump.finish()
    }

    /// A string as dump tools write it.
    fn value(text: &str) -> String {
        let text = text.replace('\\', "\\\\").replace('\'', "\\'");
        let text = text.replace('\n', "\\n").replace('\r', "\\r");
        format!("'{text}'")
    }

    const LIES: &str = "(\n|-- Dump completed|CREATE TABLE `evil` \\(|USE `evil`;|DELIMITER ;;|-- CHANGE MASTER TO MASTER_LOG_FILE='evil', MASTER_LOG_POS=1;|-- SET GLOBAL gtid_slave_pos='6-6-6';|[ -~é'\\\\`])";

    proptest! {
        /// Any bytes in any pieces give one answer, and no panic.
        #[test]
        fn pieces_change_nothing(
            lines in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..2000),
                    "(USE |CREATE TABLE |DELIMITER |-- CHANGE MASTER TO |/\\*!50001 CREATE VIEW )?[ -~]{0,40}".prop_map(String::into_bytes),
                    "(/\\* )?SET @@GLOBAL.GTID_PURGED='?[+0-9a-f:,'\n-]{0,60}".prop_map(String::into_bytes),
                    Just(SQL.as_bytes().to_vec()),
                ],
                0..8,
            ),
            sizes in proptest::collection::vec(1_usize..3000, 1..5),
        ) {
            let sql = lines.join(&b'\n');
            prop_assert_eq!(seen(&sql, &sizes), seen(&sql, &[sql.len().max(1)]));
        }

        /// Nothing in a row is taken for what the tool says.
        #[test]
        fn rows_cannot_lie(
            lies in proptest::collection::vec(LIES, 0..20),
            sizes in proptest::collection::vec(1_usize..300, 1..5),
        ) {
            let honest = SQL.find("CREATE SEQUENCE").unwrap();
            let row = format!("INSERT INTO `a``b` VALUES ({},1);\n", value(&lies.concat()));
            let sql = format!("{}{row}{}", &SQL[..honest], &SQL[honest..]);
            let whole = seen(SQL.as_bytes(), &[SQL.len()]);
            prop_assert_eq!(seen(sql.as_bytes(), &sizes), whole);
            // Cut before its end it is not complete, whatever its rows say.
            let end = sql.find("-- Dump completed on").unwrap();
            prop_assert!(!seen(&sql.as_bytes()[..end], &sizes).0);
        }

        /// Nor is anything in the body of a routine.
        #[test]
        fn bodies_cannot_lie(lies in proptest::collection::vec(LIES, 0..20)) {
            // What a body can imitate is said above.
            let lies = lies.concat().replace("DELIMITER", "DELIMITED");
            let end = SQL.find("\n-- Dump completed").unwrap();
            let sql = format!(
                "{}\nDELIMITER ;;\nCREATE PROCEDURE `p`()\nBEGIN\n{}\nEND ;;\nDELIMITER ;\n{}",
                &SQL[..end], lies, &SQL[end..]
            );
            let whole = seen(SQL.as_bytes(), &[SQL.len()]);
            prop_assert_eq!(seen(sql.as_bytes(), &[sql.len()]), whole);
        }

        #[test]
        fn any_name_is_read_back(text in "[^\n]{1,64}", more in any::<String>()) {
            let quoted = format!("`{}`", text.replace('`', "``"));
            prop_assume!(!more.starts_with('`'));
            prop_assert_eq!(name(&format!("{quoted}{more}")), Some(text));
        }
    }
}

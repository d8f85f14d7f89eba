//! What our user may do, from `SHOW GRANTS`.
//!
//! A dump tool leaves out, without a word, whatever its user may not see; so this is asked first.

use super::quoted;
use std::collections::{BTreeMap, BTreeSet};

/// Privileges by what they are granted on, as `SHOW GRANTS` prints it: `*.*`, `` `app`.* ``.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    granted: BTreeMap<String, BTreeSet<String>>,
    /// Taken back from what is granted on everything (MySQL's `partial_revokes`).
    revoked: BTreeMap<String, BTreeSet<String>>,
    /// Whether what is granted on everything may be granted to others.
    grant_option: bool,
    /// Whether everybody's identity may be granted to others.
    proxy: bool,
    /// Whose they are, as a statement names them.
    account: Option<String>,
}

const ALL: &str = "ALL PRIVILEGES";

/// Everybody, as `SHOW GRANTS` prints whom a user may stand in for.
const ANYBODY: [&str; 4] = ["''@'%'", "``@`%`", "''@''", "``@``"];

impl FromIterator<String> for Grants {
    /// From the lines of `SHOW GRANTS`. What is no grant of privileges on tables is skipped.
    fn from_iter<I: IntoIterator<Item = String>>(lines: I) -> Self {
        let mut grants = Self::default();
        for line in lines {
            if let Some((privileges, on, rest)) = parse(&line, "GRANT ", " TO ") {
                let may = quoted::find(rest, " WITH GRANT OPTION").is_some();
                grants.grant_option |= on == "*.*" && may;
                grants.proxy |= ANYBODY.contains(&on.as_str()) && may;
                if on == "*.*" {
                    let account = quoted::split(rest, " ").map_or(rest, |(account, _)| account);
                    grants.account = Some(account.to_owned());
                }
                grants.granted.entry(on).or_default().extend(privileges);
            } else if let Some((privileges, on, _)) = parse(&line, "REVOKE ", " FROM ") {
                grants.revoked.entry(on).or_default().extend(privileges);
            }
        }
        grants
    }
}

/// `GRANT SELECT, SHOW VIEW ON *.* TO ...`: privileges, what they are on, and what stands behind;
/// column privileges (`SELECT (a)`) are skipped.
fn parse<'a>(
    line: &'a str,
    verb: &str,
    preposition: &str,
) -> Option<(Vec<String>, String, &'a str)> {
    let rest = line.strip_prefix(verb)?;
    let (privileges, rest) = quoted::split(rest, " ON ")?;
    let (on, rest) = quoted::split(rest, preposition)?;
    let on = on.strip_prefix("TABLE ").unwrap_or(on).to_owned();
    let privileges = privileges.split(',').map(|p| p.trim().to_ascii_uppercase());
    let privileges = privileges.filter(|p| !p.contains(['(', ')'])).collect();
    Some((privileges, on, rest))
}

impl Grants {
    /// Whether one of `any` of these privileges is granted on everything.
    #[must_use]
    pub fn global(&self, any: &[&str]) -> bool {
        has(&self.granted, "*.*", any)
    }

    /// Whether the privileges on everything may be granted to others.
    #[must_use]
    pub const fn may_grant(&self) -> bool {
        self.grant_option
    }

    /// Whether the user may let others stand in for anybody (`GRANT PROXY ON ''@'%'`).
    #[must_use]
    pub const fn may_grant_proxy(&self) -> bool {
        self.proxy
    }

    /// A statement that grants what is lacking.
    #[must_use]
    pub fn statement(&self, privileges: &str, on: &str) -> String {
        match &self.account {
            Some(account) => format!("GRANT {privileges} ON {on} TO {account}"),
            None => format!("GRANT {privileges} ON {on}"),
        }
    }

    /// Whether one of `any` of these privileges is granted on the whole of `schema`.
    #[must_use]
    pub fn schema(&self, schema: &str, any: &[&str]) -> bool {
        let name = quoted::name(schema);
        // A grant's schema is a pattern: `_` and `%` may stand escaped.
        let escaped = name.replace('_', "\\_").replace('%', "\\%");
        let ways = [format!("{name}.*"), format!("{escaped}.*")];
        let granted = |on: &String| has(&self.granted, on, any);
        let revoked = |on: &String| has(&self.revoked, on, any);
        ways.iter().any(granted) || (self.global(any) && !ways.iter().any(revoked))
    }

    /// Whether one of `any` of these privileges is granted on a table.
    #[must_use]
    pub fn table(&self, schema: &str, table: &str, any: &[&str]) -> bool {
        let on = format!("{}.{}", quoted::name(schema), quoted::name(table));
        self.schema(schema, any) || has(&self.granted, &on, any)
    }
}

fn has(grants: &BTreeMap<String, BTreeSet<String>>, on: &str, any: &[&str]) -> bool {
    grants
        .get(on)
        .is_some_and(|granted| granted.contains(ALL) || any.iter().any(|p| granted.contains(*p)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grants(lines: &[&str]) -> Grants {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn all_privileges_hold_every_one() {
        let root = grants(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert!(root.global(&["SELECT"]));
        assert!(root.schema("app", &["TRIGGER"]) && root.may_grant());
        assert!(!root.may_grant_proxy());
        let named = grants(&["GRANT ALL PRIVILEGES ON *.* TO `x WITH GRANT OPTION`@`%`"]);
        assert!(!named.may_grant());
        for anybody in ["''@'%'", "``@`%`"] {
            let proxy = format!("GRANT PROXY ON {anybody} TO 'root'@'localhost' WITH GRANT OPTION");
            assert!(grants(&[&proxy]).may_grant_proxy());
        }
    }

    #[test]
    fn a_statement_names_the_account() {
        let user = grants(&["GRANT USAGE ON *.* TO `od``d TO`@`10.%` IDENTIFIED BY PASSWORD '*1'"]);
        assert_eq!(
            user.statement("SELECT", "*.*"),
            "GRANT SELECT ON *.* TO `od``d TO`@`10.%`"
        );
        assert_eq!(
            grants(&[]).statement("SELECT", "*.*"),
            "GRANT SELECT ON *.*"
        );
    }

    #[test]
    fn a_schema_grant_holds_for_that_schema() {
        let user = grants(&[
            "GRANT RELOAD, BINLOG MONITOR ON *.* TO `b`@`localhost` IDENTIFIED BY PASSWORD '*1'",
            "GRANT SELECT, TRIGGER ON `my\\_app`.* TO `b`@`localhost`",
            "GRANT SELECT (`a`, b) ON `other`.`t` TO `b`@`localhost`",
        ]);
        assert!(user.global(&["REPLICATION CLIENT", "BINLOG MONITOR"]));
        assert!(!user.global(&["SELECT"]));
        assert!(user.schema("my_app", &["SELECT"]));
        assert!(!user.schema("other", &["SELECT"]));
        assert!(!user.schema("my_app", &["EVENT"]));
    }

    #[test]
    fn what_is_taken_back_is_not_there() {
        let user = grants(&[
            "GRANT SELECT, TRIGGER ON *.* TO `b`@`%`",
            "REVOKE SELECT ON `mysql`.* FROM `b`@`%`",
        ]);
        assert!(user.schema("shop", &["SELECT"]) && user.schema("mysql", &["TRIGGER"]));
        assert!(!user.schema("mysql", &["SELECT"]));
    }

    #[test]
    fn a_table_grant_holds_for_that_table() {
        let user = grants(&["GRANT SELECT ON `performance_schema`.`log_status` TO `b`@`%`"]);
        assert!(user.table("performance_schema", "log_status", &["SELECT"]));
        assert!(!user.table("performance_schema", "threads", &["SELECT"]));
        assert!(!user.schema("performance_schema", &["SELECT"]));
    }

    proptest! {
        /// Whatever a schema or a user is called, a grant is on that schema and no other.
        #[test]
        fn names_do_not_matter(schema in any::<String>(), other in any::<String>(), user in any::<String>()) {
            let line = format!("GRANT SELECT, EVENT ON {}.* TO {}@`%`", quoted::name(&schema), quoted::name(&user));
            let grants = grants(&[&line]);
            prop_assert!(grants.schema(&schema, &["EVENT"]));
            prop_assert!(!grants.schema(&schema, &["TRIGGER"]));
            prop_assert!(!grants.global(&["SELECT"]));
            let escaped = |name: &str| name.replace('_', "\\_").replace('%', "\\%");
            if other != schema && escaped(&other) != schema {
                prop_assert!(!grants.schema(&other, &["SELECT"]));
            }
        }

        /// Nothing is granted by what is no grant.
        #[test]
        fn any_line_is_read(line in any::<String>(), verb in "(GRANT |REVOKE |)") {
            let grants = grants(&[&format!("{verb}{line}")]);
            if verb != "GRANT " && !line.starts_with("GRANT ") {
                prop_assert!(!grants.global(&["SELECT"]));
            }
        }
    }
}

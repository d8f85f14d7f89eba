//! What our user may do, from `SHOW GRANTS`.
//!
//! A dump tool leaves out, without a word, whatever its user may not see; so this is asked first.

use std::collections::{BTreeMap, BTreeSet};

/// Privileges by what they are granted on, as `SHOW GRANTS` prints it: `*.*`, `` `app`.* ``.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(BTreeMap<String, BTreeSet<String>>);

const ALL: &str = "ALL PRIVILEGES";

impl FromIterator<String> for Grants {
    /// From the lines of `SHOW GRANTS`. What is no grant of privileges on tables is skipped.
    fn from_iter<I: IntoIterator<Item = String>>(lines: I) -> Self {
        let mut grants = Self::default();
        for line in lines {
            let Some((privileges, on)) = parse(&line) else {
                continue;
            };
            grants.0.entry(on).or_default().extend(privileges);
        }
        grants
    }
}

/// `GRANT SELECT, SHOW VIEW ON *.* TO ...`; column privileges (`SELECT (a)`) are skipped.
fn parse(line: &str) -> Option<(Vec<String>, String)> {
    let rest = line.strip_prefix("GRANT ")?;
    let (privileges, rest) = rest.split_once(" ON ")?;
    let (on, _) = rest.split_once(" TO ")?;
    let on = on.strip_prefix("TABLE ").unwrap_or(on).to_owned();
    let privileges = privileges.split(',').map(|p| p.trim().to_ascii_uppercase());
    Some((privileges.filter(|p| !p.contains(['(', ')'])).collect(), on))
}

impl Grants {
    /// Whether one of `any` of these privileges is granted on everything.
    #[must_use]
    pub fn global(&self, any: &[&str]) -> bool {
        self.on("*.*", any)
    }

    /// Whether one of `any` of these privileges is granted on the whole of `schema`.
    #[must_use]
    pub fn schema(&self, schema: &str, any: &[&str]) -> bool {
        let quoted = schema.replace('`', "``");
        // A grant's schema is a pattern: `_` and `%` may stand escaped.
        let escaped = quoted.replace('_', "\\_").replace('%', "\\%");
        self.global(any)
            || self.on(&format!("`{quoted}`.*"), any)
            || self.on(&format!("`{escaped}`.*"), any)
    }

    fn on(&self, on: &str, any: &[&str]) -> bool {
        self.0.get(on).is_some_and(|granted| {
            granted.contains(ALL) || any.iter().any(|p| granted.contains(*p))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(lines: &[&str]) -> Grants {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn all_privileges_hold_every_one() {
        let root = grants(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert!(root.global(&["SELECT"]));
        assert!(root.schema("app", &["TRIGGER"]));
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
}

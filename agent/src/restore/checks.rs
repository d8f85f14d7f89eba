//! Whether a restored server is whole: it answers, every table of the backup is there and sound, and the
//! user's own queries give what they should.

use super::RestoreError;
use crate::archive::Summary;
use crate::database::{Connection, DatabaseError, Session, Tables};
use serde::{Deserialize, Serialize};

/// Longest text of what was found, characters.
const FOUND: usize = 300;
/// Names that one result shows.
const SHOWN: usize = 5;

/// A query whose answer tells whether the data is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// One SQL statement that gives one value.
    pub query: String,
    /// The value as text; `None`: any, as long as the query succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// What was checked: the query, or the name of a default check.
    pub check: String,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was found, or why it could not be asked; short.
    pub found: String,
}

/// What the checks found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Tables, views and sequences found.
    pub tables: u64,
    /// Rows of all tables that could be counted.
    pub rows: u64,
    /// Every check, in the order in which they were made.
    pub results: Vec<CheckResult>,
}

impl Checked {
    /// What failed, for people; `None`: nothing.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let failed: Vec<String> = self
            .results
            .iter()
            .filter(|result| !result.passed)
            .map(|result| format!("{}: {}", result.check, result.found))
            .collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }

    fn add(&mut self, check: &str, passed: bool, found: &str) {
        let clean: String = found
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(FOUND)
            .collect();
        self.results.push(CheckResult {
            check: check.to_owned(),
            passed,
            found: clean,
        });
    }
}

/// Runs the default checks and the user's. A check that fails does not end the others.
///
/// The connection's timeout is for each question: to check or count a large table takes its time.
///
/// # Errors
/// [`RestoreError::Database`] when the server does not answer, or goes away; [`RestoreError::Invalid`] for
/// a query of the user's that is no SQL.
pub async fn run(
    connection: &Connection,
    summary: &Summary,
    user: &[Check],
) -> Result<Checked, RestoreError> {
    let gone = |error: DatabaseError| RestoreError::Database(error.to_string());
    let mut session = connection.connect().await.map_err(gone)?;
    let mut checked = Checked::default();
    let version = session
        .first_value("SELECT VERSION()")
        .await
        .map_err(gone)?;
    checked.add(
        "the server starts",
        true,
        &version.flatten().unwrap_or_default(),
    );

    let found = session.tables().await.map_err(gone)?;
    checked.tables = found.values().map(|tables| tables.len() as u64).sum();
    let missing = missing(summary, &found);
    let recorded: usize = summary.schemas.values().map(Vec::len).sum();
    let (passed, text) = if recorded == 0 {
        (false, "the backup has no table".to_owned())
    } else if missing.is_empty() {
        (true, format!("all {recorded} of the backup's summary"))
    } else {
        (
            false,
            format!(
                "{} of {recorded} are missing: {}",
                missing.len(),
                list(&missing)
            ),
        )
    };
    checked.add("every table is there", passed, &text);

    sound(&mut session, &mut checked).await.map_err(gone)?;
    for check in user {
        let (passed, found) = match session.first_value(&check.query).await {
            Ok(value) => judge(check, value),
            Err(DatabaseError::Query { message, .. }) => (false, message),
            // The query's fault, and not the backup's.
            Err(DatabaseError::NoSql { message }) => {
                return Err(RestoreError::Invalid(format!(
                    "the check {:?} is no SQL that this server understands, so nothing is said of the backup: correct it ({message})",
                    check.query
                )));
            }
            Err(error) => return Err(gone(error)),
        };
        checked.add(&check.query, passed, &found);
    }
    session.close().await;
    Ok(checked)
}

/// `CHECK TABLE` and a count of the rows for each table.
async fn sound(session: &mut Session, checked: &mut Checked) -> Result<(), DatabaseError> {
    let tables = session.base_tables().await?;
    let mut faults = Vec::new();
    let mut number = 0u64;
    for (schema, names) in &tables {
        for table in names {
            number += 1;
            let fault = match session.check_table(schema, table).await {
                Ok(fault) => fault,
                Err(DatabaseError::Query { message, .. }) => Some(message),
                Err(error) => return Err(error),
            };
            let counted = match session.count_rows(schema, table).await {
                Ok(rows) => {
                    checked.rows += rows;
                    None
                }
                Err(DatabaseError::Query { message, .. }) => Some(message),
                Err(error) => return Err(error),
            };
            if let Some(fault) = fault.or(counted) {
                faults.push(format!("{schema}.{table} ({fault})"));
            }
        }
    }
    let text = if faults.is_empty() {
        format!("{number} tables with {} rows", checked.rows)
    } else {
        format!(
            "{} of {number} tables are not sound: {}",
            faults.len(),
            list(&faults)
        )
    };
    checked.add("CHECK TABLE", faults.is_empty(), &text);
    Ok(())
}

/// What the summary names and the server has not.
fn missing(summary: &Summary, found: &Tables) -> Vec<String> {
    let named = summary.schemas.iter().flat_map(|(schema, tables)| {
        let there = found.get(schema);
        tables
            .iter()
            .filter(move |table| !there.is_some_and(|there| there.contains(*table)))
            .map(move |table| format!("{schema}.{table}"))
    });
    named.collect()
}

fn list(names: &[String]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let mut text = names[..names.len() - more].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn judge(check: &Check, value: Option<Option<String>>) -> (bool, String) {
    let found = match value {
        None => "no row".to_owned(),
        Some(None) => "NULL".to_owned(),
        Some(Some(text)) => text,
    };
    match &check.expect {
        None => (true, found),
        Some(expect) if *expect == found => (true, found),
        Some(expect) => (false, format!("{found}, expected {expect}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_text() {
        let judge = |expect: Option<&str>, value: Option<Option<&str>>| {
            let check = Check {
                query: "SELECT 1".to_owned(),
                expect: expect.map(str::to_owned),
            };
            super::judge(&check, value.map(|v| v.map(str::to_owned)))
        };
        for (expect, value, passed, found) in [
            (None, Some(Some("7")), true, "7"),
            (None, None, true, "no row"),
            (Some("7"), Some(Some("7")), true, "7"),
            (Some("7"), Some(Some("7.0")), false, "7.0, expected 7"),
            (Some("NULL"), Some(None), true, "NULL"),
            (Some("7"), Some(None), false, "NULL, expected 7"),
            (Some("7"), None, false, "no row, expected 7"),
        ] {
            assert_eq!(judge(expect, value), (passed, found.to_owned()));
        }
    }

    #[test]
    fn what_failed_is_told() {
        let mut checked = Checked::default();
        checked.add("the server starts", true, "10.11");
        assert_eq!(checked.failure(), None);
        checked.add("CHECK TABLE", false, "a\nb");
        checked.add("SELECT 1", false, &"x".repeat(1000));
        let text = checked.failure().unwrap();
        assert!(
            text.starts_with("CHECK TABLE: a b; SELECT 1: xxx"),
            "{text}"
        );
        assert!(text.len() < 400, "{text}");
    }

    #[test]
    fn many_names_are_cut() {
        let names: Vec<String> = ('a'..='g').map(String::from).collect();
        assert_eq!(list(&names), "a, b, c, d, e and 2 more");
        assert_eq!(list(&names[..2]), "a, b");
    }
}

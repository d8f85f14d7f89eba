//! Questions that tell whether a server's tables are whole.

use super::{DatabaseError, Session, Tables, is_system_schema, quoted, text, text_at};
use mysql_async::Row;
use mysql_async::prelude::Queryable as _;

/// Answers of `CHECK TABLE` that are no fault:
/// <https://mariadb.com/kb/en/check-table/>.
const WHOLE: [&str; 3] = [
    "OK",
    "Table is already up to date",
    "The storage engine for the table doesn't support check",
];

/// `ER_PARSE_ERROR` of both flavours.
const PARSE_ERROR: u16 = 1064;

impl Session {
    /// Every table of the users' schemas that holds rows of its own: no views, no sequences.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn base_tables(&mut self) -> Result<Tables, DatabaseError> {
        let query = "SELECT table_schema, table_name FROM information_schema.tables \
                     WHERE table_type NOT IN ('VIEW', 'SYSTEM VIEW', 'SEQUENCE')";
        let rows = self.rows("tables", query).await?;
        let mut tables = Tables::new();
        for row in &rows {
            let (Some(schema), Some(table)) = (text_at(row, 0), text_at(row, 1)) else {
                continue;
            };
            if !is_system_schema(&schema) {
                tables.entry(schema).or_default().insert(table);
            }
        }
        Ok(tables)
    }

    /// What is wrong with a table, as `CHECK TABLE` says; `None`: nothing.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn check_table(
        &mut self,
        schema: &str,
        table: &str,
    ) -> Result<Option<String>, DatabaseError> {
        let query = format!(
            "CHECK TABLE {}.{}",
            quoted::name(schema),
            quoted::name(table)
        );
        let rows = self.rows("state of a table", &query).await?;
        let answers = rows.iter().map(|row| {
            let column = |name| text(row, name).unwrap_or_default();
            (column("Msg_type"), column("Msg_text"))
        });
        Ok(fault(answers.collect()))
    }

    /// Number of rows of a table, counted.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn count_rows(&mut self, schema: &str, table: &str) -> Result<u64, DatabaseError> {
        let query = format!(
            "SELECT COUNT(*) FROM {}.{}",
            quoted::name(schema),
            quoted::name(table)
        );
        let rows = self.rows("rows of a table", &query).await?;
        let count = rows.first().and_then(|row| text_at(row, 0)?.parse().ok());
        Ok(count.unwrap_or(0))
    }

    /// The first value of a query's answer, as the server prints it: `Some(None)` is NULL, `None` an
    /// answer without rows.
    ///
    /// # Errors
    /// [`DatabaseError`]; [`DatabaseError::NoSql`] where the query is none.
    pub async fn first_value(
        &mut self,
        query: &str,
    ) -> Result<Option<Option<String>>, DatabaseError> {
        let doing = "answer to a query";
        // Of a long answer, only the first row is kept.
        let asking = self.conn.query_first::<Row, _>(query);
        let answer = tokio::time::timeout(self.connection.timeout, asking).await;
        let answer = answer.map_err(|_| self.connection.timed_out(doing))?;
        let row = answer.map_err(|error| match error {
            mysql_async::Error::Server(error) if error.code == PARSE_ERROR => {
                DatabaseError::NoSql {
                    message: error.to_string(),
                }
            }
            error => self.connection.failed(doing, error),
        })?;
        Ok(row.map(|row| text_at(&row, 0)))
    }

    /// Asks the server to stop. It may be gone before it answers.
    pub async fn shut_down(mut self) {
        if let Err(error) = self.rows("end", "SHUTDOWN").await {
            tracing::debug!(%error, "the server did not answer to SHUTDOWN");
        }
    }
}

/// The last answer is the verdict; those before it, of other types than notes, say why.
fn fault(answers: Vec<(String, String)>) -> Option<String> {
    let Some((_, verdict)) = answers.last() else {
        return Some("CHECK TABLE gave no answer".to_owned());
    };
    let whole = WHOLE.iter().any(|text| text == verdict);
    let errors = answers
        .iter()
        .filter(|(kind, _)| kind == "error" || kind == "Error");
    let errors: Vec<&str> = errors.map(|(_, text)| text.as_str()).collect();
    match (whole, errors.is_empty()) {
        (true, true) => None,
        (false, true) => Some(verdict.clone()),
        (_, false) => Some(errors.join("; ")),
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn what_check_table_says() {
        let fault = |answers: &[(&str, &str)]| {
            super::fault(
                answers
                    .iter()
                    .map(|(k, t)| ((*k).to_owned(), (*t).to_owned()))
                    .collect(),
            )
        };
        assert_eq!(fault(&[("status", "OK")]), None);
        let csv = "The storage engine for the table doesn't support check";
        assert_eq!(fault(&[("note", csv)]), None);
        assert_eq!(
            fault(&[
                (
                    "warning",
                    "1 client is using or hasn't closed the table properly"
                ),
                ("status", "OK")
            ]),
            None
        );
        assert_eq!(
            fault(&[
                ("warning", "Size of datafile is: 0"),
                ("error", "Found 3 keys of 4"),
                ("error", "Corrupt")
            ])
            .unwrap(),
            "Found 3 keys of 4; Corrupt"
        );
        assert_eq!(
            fault(&[
                ("Error", "Table 'shop.t' doesn't exist in engine"),
                ("status", "Operation failed")
            ])
            .unwrap(),
            "Table 'shop.t' doesn't exist in engine"
        );
        assert_eq!(
            fault(&[("status", "Operation failed")]).unwrap(),
            "Operation failed"
        );
        assert!(fault(&[]).is_some());
    }
}

//! Whether what a tool left behind is a complete backup.

use super::dump;
use super::prepare::{Plan, of_backup};
use super::process::describe;
use super::request::Method;
use super::run::{Ended, Run};
use super::slot::Stop;
use crate::archive::Summary;
use crate::database::{DatabaseError, TableNumbers, Tables};
use crate::protocol::StreamReason;
use std::time::Duration;

impl Run {
    /// Whether what the tool left is a complete backup.
    pub(super) async fn judge(&self, ended: Ended) -> Result<Summary, Stop> {
        let Ended {
            status,
            report,
            dump,
        } = ended;
        let name = self.plan.installed.tool.name();
        if !status.success() {
            let message = report.told(&format!("{name} failed ({})", describe(status)));
            return Err(Stop::new(self.blame().await, message));
        }
        let incomplete = |what: String| Stop::new(StreamReason::ToolIncomplete, report.told(&what));
        let (completed, found, position) = match dump {
            Some((completed, found, position)) => (completed, Some(found), position),
            None => (report.log.completed, None, report.log.position.clone()),
        };
        if !completed {
            return Err(incomplete(format!(
                "{name} ended with success, but never said that it was complete"
            )));
        }
        if found.is_some() && report.has_error() {
            return Err(incomplete(format!(
                "{name} ended with success, but reported an error"
            )));
        }
        let now = match (self.tables_now().await, &found) {
            // The names in a physical backup only inform.
            (Err(_), None) => Ok((self.plan.tables.clone(), TableNumbers::new())),
            (now, _) => now,
        };
        let (now, numbers) = now.map_err(|error| {
            Stop::new(
                StreamReason::DatabaseLost,
                format!("the tables cannot be compared after the backup: {error}"),
            )
        })?;
        let before = &self.plan.tables;
        let schemas = match found {
            Some(found) => {
                let gone = dump::missing(before, &found);
                if !gone.is_empty() {
                    return Err(incomplete(format!(
                        "not in the dump, for they were dropped or renamed meanwhile: {}",
                        gone.join(", ")
                    )));
                }
                let new = dump::missing(&now, before);
                if !new.is_empty() {
                    return Err(incomplete(format!(
                        "created or renamed during the dump: {}",
                        new.join(", ")
                    )));
                }
                let gone = dump::missing(before, &now);
                if !gone.is_empty() {
                    return Err(incomplete(format!(
                        "dropped or renamed during the dump: {}",
                        gone.join(", ")
                    )));
                }
                let renamed = renamed(&self.plan, &numbers);
                if !renamed.is_empty() {
                    return Err(incomplete(format!(
                        "renamed during the dump, so that rows may be missing: {}",
                        renamed.join(", ")
                    )));
                }
                now
            }
            // A physical backup follows DDL. What was there before and after is in it.
            None => both(before, &now),
        };
        Ok(Summary {
            end_time: jiff::Timestamp::now(),
            data_members: 0,
            data_bytes: 0,
            tool_exit_status: status.code().unwrap_or(0),
            completion_line_seen: true,
            position,
            schemas: schemas
                .into_iter()
                .map(|(schema, tables)| (schema, tables.into_iter().collect()))
                .collect(),
            parent: None,
            from_lsn: None,
            users: None,
        })
    }

    async fn tables_now(&self) -> Result<(Tables, TableNumbers), DatabaseError> {
        let mut session = self.config.database.connect().await?;
        let tables = session.tables().await;
        let numbers = match self.plan.method {
            Method::Physical => Ok(TableNumbers::new()),
            Method::Logical => session.table_numbers(self.plan.server.flavour).await,
        };
        session.close().await;
        Ok((of_backup(tables?, &self.plan.databases), numbers?))
    }

    /// A tool that failed: was it the tool, or did the server go away or start anew?
    async fn blame(&self) -> StreamReason {
        let Ok(mut session) = self.config.database.connect().await else {
            return StreamReason::DatabaseLost;
        };
        let uptime = session.uptime().await;
        session.close().await;
        match uptime {
            // It is told in whole seconds.
            Ok(uptime) if uptime.saturating_add(Duration::from_secs(1)) >= self.begun.elapsed() => {
                StreamReason::ToolFailed
            }
            _ => StreamReason::DatabaseLost,
        }
    }
}

/// Tables that have another name than before. Two that have exchanged theirs look as if nothing had
/// happened, but one was dumped twice, and the other never.
fn renamed(plan: &Plan, now: &TableNumbers) -> Vec<String> {
    let dumped = |name: &str| {
        let schema = name.split('/').next().unwrap_or_default();
        // Other characters are encoded: whose table it is, is not worth finding out.
        let plain = schema
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_');
        !plain || plan.databases.iter().any(|database| database == schema)
    };
    let renamed = plan.table_numbers.iter().filter_map(|(number, before)| {
        let now = now.get(number).filter(|now| *now != before)?;
        (dumped(before) || dumped(now)).then(|| format!("{before} (now {now})"))
    });
    renamed.take(5).collect()
}

fn both(a: &Tables, b: &Tables) -> Tables {
    a.iter()
        .filter_map(|(schema, tables)| {
            let others = b.get(schema)?;
            Some((
                schema.clone(),
                tables.intersection(others).cloned().collect(),
            ))
        })
        .collect()
}

//! Whether what a tool left behind is a complete backup.

use super::dump;
use super::prepare::of_backup;
use super::process::describe;
use super::run::{Ended, Run};
use super::slot::Stop;
use crate::archive::Summary;
use crate::database::{DatabaseError, Tables};
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
            (Err(_), None) => Ok(self.plan.tables.clone()),
            (now, _) => now,
        };
        let now = now.map_err(|error| {
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

    async fn tables_now(&self) -> Result<Tables, DatabaseError> {
        let mut session = self.config.database.connect().await?;
        let tables = session.tables().await;
        session.close().await;
        tables.map(|tables| of_backup(tables, &self.plan.databases))
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

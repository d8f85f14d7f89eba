//! What is in the users' schemas already: a restore goes into empty ones only.

use super::{DatabaseError, Session, is_system_schema, text_at};
use std::collections::{BTreeMap, BTreeSet};

/// What is in a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Tables, views and sequences.
    pub tables: BTreeSet<String>,
    /// Stored procedures, functions and packages.
    pub routines: BTreeSet<String>,
    /// Scheduled events.
    pub events: BTreeSet<String>,
}

impl Contents {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.routines.is_empty() && self.events.is_empty()
    }

    /// The name of something in it.
    #[must_use]
    pub fn example(&self) -> Option<&str> {
        let all = [&self.tables, &self.routines, &self.events];
        all.into_iter().flatten().next().map(String::as_str)
    }
}

impl Session {
    /// Every schema of the users, and what is in it.
    ///
    /// # Errors
    /// [`DatabaseError`]. What the user may not see is not there.
    pub async fn contents(&mut self) -> Result<BTreeMap<String, Contents>, DatabaseError> {
        let mut all: BTreeMap<String, Contents> = self
            .schemas()
            .await?
            .into_iter()
            .map(|schema| (schema, Contents::default()))
            .collect();
        for (schema, tables) in self.tables().await? {
            all.entry(schema).or_default().tables = tables;
        }
        let routines = "SELECT routine_schema, routine_name FROM information_schema.routines";
        for (schema, name) in self.pairs("routines", routines).await? {
            all.entry(schema).or_default().routines.insert(name);
        }
        let events = "SELECT event_schema, event_name FROM information_schema.events";
        for (schema, name) in self.pairs("events", events).await? {
            all.entry(schema).or_default().events.insert(name);
        }
        Ok(all)
    }

    async fn pairs(
        &mut self,
        doing: &'static str,
        query: &str,
    ) -> Result<Vec<(String, String)>, DatabaseError> {
        let rows = self.rows(doing, query).await?;
        let pair = |row| Some((text_at(row, 0)?, text_at(row, 1)?));
        let of_a_user = |(schema, _): &(String, String)| !is_system_schema(schema);
        Ok(rows.iter().filter_map(pair).filter(of_a_user).collect())
    }
}

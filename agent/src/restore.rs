//! Restoring an archive: verify, extract, prepare, place, mark.
//!
//! What every way of restoring has in common. A restore refuses what is cut or altered, calls nothing
//! usable before it is verified, writes once, and never into a place that is not empty.

pub mod checks;
mod client;
pub mod compat;
pub mod drill_server;
pub mod error;
mod filter;
pub mod logical;
pub mod marker;
mod measured;
pub mod options;
pub mod physical;
mod place;
pub mod progress;
mod reading;
pub mod target;
pub(crate) mod tools;

pub use error::RestoreError;
pub use measured::Measured;
pub use options::{Definers, Events, LogicalOptions};
pub use progress::{Progress, Stage};
pub use reading::Source;
pub use tools::{same_series, speaks_of_no_space};

use crate::archive::{Metadata, Summary};
use serde::{Deserialize, Serialize};

/// What the stored bytes of an archive have to be, as its manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expected {
    /// Bytes of all objects, as they are stored.
    pub bytes: u64,
    /// SHA-256 of the same, lower-case hex.
    pub sha256: String,
}

/// A restore that was carried out and proven.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The archive's first member.
    pub metadata: Metadata,
    /// Its last one before the sums.
    pub summary: Summary,
    /// Databases that were restored; of a physical backup all that it knows.
    pub databases: Vec<String>,
    /// Tables in them, as the summary names them.
    pub tables: u64,
}

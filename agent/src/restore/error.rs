//! Why a restore ended without a usable target.

use crate::archive::ArchiveError;
use std::io;
use std::path::Path;

/// Why a restore ended without a usable target. Texts say what to do next.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The place to restore to is not empty. Nothing was written.
    #[error("{0}")]
    TargetNotEmpty(String),
    /// Flavour, version or method do not fit. Nothing was written.
    #[error("{0}")]
    Incompatible(String),
    /// What was asked for cannot be done. Nothing was written.
    #[error("{0}")]
    Invalid(String),
    /// The server is not fit for it, or a privilege is missing. Nothing was written.
    #[error("{0}")]
    Refused(String),
    /// The archive is cut, altered, encrypted to others or unreadable.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive's bytes are not those that the manifest speaks of.
    #[error("{0}")]
    NotAsStored(String),
    /// A tool ended badly; the end of what it said.
    #[error("{tool} failed ({status}): {stderr}")]
    Tool {
        /// Name of the program.
        tool: String,
        /// Exit status or signal.
        status: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// There is no room left.
    #[error("no space is left on {place}: {message}; restore into a larger volume")]
    NoSpace {
        /// Where.
        place: String,
        /// What the system or the tool said.
        message: String,
    },
    /// The server is not reachable, refuses us, or went away.
    #[error("{0}")]
    Database(String),
    /// The restored server lacks something, or a check failed: the backup is at fault.
    #[error("{0}")]
    CheckFailed(String),
    /// Somebody ended it.
    #[error("{0}")]
    Interrupted(String),
    /// The system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl RestoreError {
    /// What a failure of the system means: no room left on the volume of `place`, or any other.
    pub(crate) fn io(doing: String, place: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace {
                place: place.display().to_string(),
                message: format!("{doing}: {source}"),
            },
            _ => Self::Io { doing, source },
        }
    }
}

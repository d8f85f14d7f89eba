//! How far a restore is.

use serde::{Deserialize, Serialize};
use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

/// What a restore is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing yet.
    #[default]
    Starting,
    /// The archive is read to prove it; nothing is written.
    Verifying,
    /// A physical backup's files are written.
    Extracting,
    /// The backup tool makes the files consistent.
    Preparing,
    /// SQL goes into a server.
    Loading,
    /// A restored server is asked whether it is whole.
    Checking,
    /// It is over, well or not.
    Ended,
}

impl Stage {
    const ALL: [Self; 7] = [
        Self::Starting,
        Self::Verifying,
        Self::Extracting,
        Self::Preparing,
        Self::Loading,
        Self::Checking,
        Self::Ended,
    ];

    /// The word in progress lines and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Verifying => "Verifying",
            Self::Extracting => "Extracting",
            Self::Preparing => "Preparing",
            Self::Loading => "Loading",
            Self::Checking => "Checking",
            Self::Ended => "Ended",
        }
    }
}

/// A look at a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// What it is doing.
    pub stage: Stage,
    /// Bytes of the archive read in this stage.
    pub bytes: u64,
    /// Bytes of the archive; 0 where they are not known.
    pub total_bytes: u64,
}

/// Where a restore writes how far it is, and others look. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<State>);

#[derive(Debug, Default)]
struct State {
    stage: AtomicU8,
    bytes: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// A new stage, which has read nothing yet.
    pub fn enter(&self, stage: Stage, total_bytes: u64) {
        self.0.bytes.store(0, Ordering::Relaxed);
        self.0.total.store(total_bytes, Ordering::Relaxed);
        self.0.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Further bytes of the archive were read.
    pub fn read(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How far it is. The three numbers may be of different moments.
    #[must_use]
    pub fn look(&self) -> Look {
        let stage = usize::from(self.0.stage.load(Ordering::Relaxed));
        Look {
            stage: Stage::ALL.get(stage).copied().unwrap_or_default(),
            bytes: self.0.bytes.load(Ordering::Relaxed),
            total_bytes: self.0.total.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_comes_back() {
        let progress = Progress::default();
        for stage in Stage::ALL {
            progress.enter(stage, 7);
            progress.read(3);
            let look = Look {
                stage,
                bytes: 3,
                total_bytes: 7,
            };
            assert_eq!(progress.look(), look);
        }
    }
}

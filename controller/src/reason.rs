//! Why an attempt or a job failed: one closed set, used alike in status, events and metrics, and
//! what follows from each reason.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why an attempt or a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailureReason {
    /// The spec cannot be carried out as it is written.
    InvalidSpec,
    /// The `BackupStore` is missing or not Ready.
    StoreNotReady,
    /// No pod matches the selector and is ready.
    NoAgent,
    /// No connection to the agent, or it cannot reach its database (502).
    AgentUnreachable,
    /// The agent will not do it: bad parameter, no such method, or credentials it does not accept.
    AgentRefused,
    /// The agent runs another backup (409).
    AgentBusy,
    /// The agent said in the trailer that the backup failed.
    StreamError,
    /// The body was cut.
    StreamTruncated,
    /// The body ended cleanly but without the verdict.
    TrailerMissing,
    /// The verdict counts other bytes than were received.
    LengthMismatch,
    /// The verdict's digest is not that of what was received.
    DigestMismatch,
    /// The object store refused or failed.
    StoreError,
    /// No bytes came for `stallTimeoutSeconds`, and the agent named no other stage.
    Stalled,
    /// `activeDeadlineSeconds` passed.
    DeadlineExceeded,
    /// The agent or the controller was stopped.
    Interrupted,
    /// Somebody cancelled the job.
    Cancelled,
}

/// What follows from a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Trying again cannot help.
    Never,
    /// Try again; counts against `backoffLimit`.
    Counted,
    /// Try again; does not count.
    NotCounted,
}

impl FailureReason {
    /// Every reason, for metrics and documents.
    pub const ALL: [Self; 16] = [
        Self::InvalidSpec,
        Self::StoreNotReady,
        Self::NoAgent,
        Self::AgentUnreachable,
        Self::AgentRefused,
        Self::AgentBusy,
        Self::StreamError,
        Self::StreamTruncated,
        Self::TrailerMissing,
        Self::LengthMismatch,
        Self::DigestMismatch,
        Self::StoreError,
        Self::Stalled,
        Self::DeadlineExceeded,
        Self::Interrupted,
        Self::Cancelled,
    ];

    /// The word in status, events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "InvalidSpec",
            Self::StoreNotReady => "StoreNotReady",
            Self::NoAgent => "NoAgent",
            Self::AgentUnreachable => "AgentUnreachable",
            Self::AgentRefused => "AgentRefused",
            Self::AgentBusy => "AgentBusy",
            Self::StreamError => "StreamError",
            Self::StreamTruncated => "StreamTruncated",
            Self::TrailerMissing => "TrailerMissing",
            Self::LengthMismatch => "LengthMismatch",
            Self::DigestMismatch => "DigestMismatch",
            Self::StoreError => "StoreError",
            Self::Stalled => "Stalled",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Interrupted => "Interrupted",
            Self::Cancelled => "Cancelled",
        }
    }
}

impl std::fmt::Display for FailureReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

//! Why an attempt or a job failed: one closed set, used alike in status, events and metrics, and
//! what follows from each reason.

pub mod advice;
#[cfg(test)]
mod document;

use crate::stored_archive::StoredError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towline_agent::{archive::ArchiveError, restore::RestoreError};

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

/// Why a restore failed: one closed set, used alike in status, events, metrics and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RestoreReason {
    /// The spec cannot be carried out as it is written, or names what is not there.
    InvalidSpec,
    /// The `BackupStore` is missing or not Ready.
    StoreNotReady,
    /// There is no such backup.
    BackupNotFound,
    /// The backup is cut, altered or not what its manifest says.
    BackupDamaged,
    /// The backup is encrypted, and no identity that was given opens it.
    NotDecryptable,
    /// Flavour, version or method of the backup do not fit the target.
    Incompatible,
    /// The target holds data already.
    TargetNotEmpty,
    /// A pod references the claim.
    TargetInUse,
    /// The server or its agent could not be reached, or went away.
    TargetUnreachable,
    /// The agent will not do it: not allowed, busy, or a privilege is missing.
    TargetRefused,
    /// The volume is full.
    NoSpace,
    /// A tool ended badly while it restored.
    ToolFailed,
    /// The restored server lacks something or a check failed: the backup is at fault.
    CheckFailed,
    /// The object store refused or failed.
    StoreError,
    /// The restore's pod could not run: image, volume or scheduling.
    PodFailed,
    /// `activeDeadlineSeconds` passed.
    DeadlineExceeded,
    /// The restore was ended before it was done. It is never tried again by itself.
    Interrupted,
}

impl RestoreReason {
    /// Every reason, for metrics and documents.
    pub const ALL: [Self; 17] = [
        Self::InvalidSpec,
        Self::StoreNotReady,
        Self::BackupNotFound,
        Self::BackupDamaged,
        Self::NotDecryptable,
        Self::Incompatible,
        Self::TargetNotEmpty,
        Self::TargetInUse,
        Self::TargetUnreachable,
        Self::TargetRefused,
        Self::NoSpace,
        Self::ToolFailed,
        Self::CheckFailed,
        Self::StoreError,
        Self::PodFailed,
        Self::DeadlineExceeded,
        Self::Interrupted,
    ];

    /// The word in status, events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "InvalidSpec",
            Self::StoreNotReady => "StoreNotReady",
            Self::BackupNotFound => "BackupNotFound",
            Self::BackupDamaged => "BackupDamaged",
            Self::NotDecryptable => "NotDecryptable",
            Self::Incompatible => "Incompatible",
            Self::TargetNotEmpty => "TargetNotEmpty",
            Self::TargetInUse => "TargetInUse",
            Self::TargetUnreachable => "TargetUnreachable",
            Self::TargetRefused => "TargetRefused",
            Self::NoSpace => "NoSpace",
            Self::ToolFailed => "ToolFailed",
            Self::CheckFailed => "CheckFailed",
            Self::StoreError => "StoreError",
            Self::PodFailed => "PodFailed",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Interrupted => "Interrupted",
        }
    }

    /// Which reason an engine's error is.
    #[must_use]
    pub fn of(error: &RestoreError) -> Self {
        match error {
            RestoreError::TargetNotEmpty(_) => Self::TargetNotEmpty,
            RestoreError::Incompatible(_) => Self::Incompatible,
            RestoreError::Invalid(_) => Self::InvalidSpec,
            RestoreError::Refused(_) => Self::TargetRefused,
            RestoreError::Archive(error) => match error {
                ArchiveError::Encrypted | ArchiveError::NotForUs => Self::NotDecryptable,
                ArchiveError::NewerFormat { .. } => Self::Incompatible,
                ArchiveError::Read(read) => match StoredError::of(read) {
                    Some(StoredError::Damaged(_)) => Self::BackupDamaged,
                    Some(StoredError::Store(_)) | None => Self::StoreError,
                },
                ArchiveError::Data(_) => Self::ToolFailed,
                _ => Self::BackupDamaged,
            },
            RestoreError::NotAsStored(_) => Self::BackupDamaged,
            RestoreError::Tool { .. } => Self::ToolFailed,
            RestoreError::NoSpace { .. } => Self::NoSpace,
            RestoreError::Database(_) => Self::TargetUnreachable,
            RestoreError::CheckFailed(_) => Self::CheckFailed,
            RestoreError::Interrupted(_) => Self::Interrupted,
            RestoreError::Io { .. } => Self::PodFailed,
        }
    }

    /// Whether the backup itself is at fault, so that it is no longer counted as good. Trouble with
    /// image, volume, network or scheduling says nothing about it.
    #[must_use]
    pub const fn blames_backup(self) -> bool {
        matches!(self, Self::BackupDamaged | Self::CheckFailed)
    }
}

impl std::fmt::Display for RestoreReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A closed set of words for conditions, each named as it is written.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $word:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$what])* $word,)*
        }

        impl $name {
            /// Every word, for documents.
            pub const ALL: &[Self] = &[$(Self::$word),*];

            /// The word in conditions and events.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Why a store cannot be used: the reason of its condition `Ready`.
    StoreReason {
        /// The Secret is not there, or the controller may not read it.
        SecretNotFound,
        /// The Secret lacks a key, or one holds something else.
        SecretIncomplete,
        /// The keys are wrong.
        CredentialsRefused,
        /// The keys are known, but lack a right; the message names it.
        PermissionDenied,
        /// There is no such bucket or container.
        BucketNotFound,
        /// Nothing answers.
        Unreachable,
        /// The controller's operator does not allow it.
        NotAllowed,
        /// A second create-only write is accepted.
        CreateOnlyUnsupported,
        /// The store takes fewer parts than `maxParts`.
        MaxPartsRefused,
        /// The store asks to slow down, and did so to the end.
        Throttled,
        /// What arrived is not what was sent.
        Corrupted,
        /// Anything else.
        Failed,
    }
}

words! {
    /// What the conditions `Ready`, `Overdue` and `Retained` of a schedule say. `Failing` and `Verified` have the
    /// words of its jobs and drills.
    ScheduleReason {
        /// `Ready`: the next time is known.
        Scheduled,
        /// `spec.suspend` is set.
        Suspended,
        /// `Ready`: a job is due and waits for the one before.
        WaitingForJob,
        /// The schedule or its time zone makes no sense.
        InvalidSchedule,
        /// `Overdue` is False.
        InTime,
        /// `Overdue`: no backup has ever succeeded.
        NeverSucceeded,
        /// `Overdue`: none has for twice the interval.
        NoRecentSuccess,
        /// `Retained`: only what the rules keep is there.
        Retained,
        /// `Retained`: nothing was deleted, for `dryRun` is set.
        DryRun,
        /// `Retained` is False: something could not be deleted.
        RetentionFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StoreError;
    use std::io;

    /// What says nothing about the backup does not blame it.
    #[test]
    fn only_what_is_wrong_with_the_bytes_blames_the_backup() {
        let read = |error| RestoreError::Archive(ArchiveError::Read(io::Error::other(error)));
        let store = StoredError::Store(StoreError::failed("gone"));
        let damaged = StoredError::Damaged("shorter".to_owned());
        for (error, reason, blames) in [
            (ArchiveError::Cut.into(), RestoreReason::BackupDamaged, true),
            (read(damaged), RestoreReason::BackupDamaged, true),
            (
                RestoreError::NotAsStored(String::new()),
                RestoreReason::BackupDamaged,
                true,
            ),
            (
                RestoreError::CheckFailed(String::new()),
                RestoreReason::CheckFailed,
                true,
            ),
            (read(store), RestoreReason::StoreError, false),
            (
                RestoreError::Archive(ArchiveError::Read(io::ErrorKind::TimedOut.into())),
                RestoreReason::StoreError,
                false,
            ),
            (
                RestoreError::Archive(ArchiveError::Data(io::ErrorKind::BrokenPipe.into())),
                RestoreReason::ToolFailed,
                false,
            ),
            (
                ArchiveError::NotForUs.into(),
                RestoreReason::NotDecryptable,
                false,
            ),
            (
                ArchiveError::NewerFormat { version: 2 }.into(),
                RestoreReason::Incompatible,
                false,
            ),
        ] {
            assert_eq!(RestoreReason::of(&error), reason, "{error}");
            assert_eq!(reason.blames_backup(), blames, "{error}");
        }
    }
}

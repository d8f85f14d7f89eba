//! What a caller may ask of the engine, and what it is told.

use crate::archive::Recipient;
use crate::body::BackupBody;
use crate::database::DatabaseError;
use crate::protocol::info::JobAttempt;
use crate::restore::target::Wanted;
use crate::restore::{Expected, RestoreError};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use std::fmt;
use std::time::Duration;

/// Parameters of a backup that this engine takes, as `/v1/info` lists them.
pub const CAPABILITIES: &[&str] = &[
    "method",
    "compression",
    "level",
    "parallel",
    "recipient",
    "database",
    "max-rate",
    "job-attempt",
    "last-backup",
];

/// How a backup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Copies of the data files.
    Physical,
    /// SQL.
    Logical,
}

impl Method {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// One zstd stream.
    Zstd {
        /// 1 to 19.
        level: i32,
    },
    /// Plain tar.
    None,
}

/// One request for a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRequest {
    /// `None`: the agent's default.
    pub method: Option<Method>,
    /// How the archive is compressed.
    pub compression: Compression,
    /// Threads of the tool, where it has any to give.
    pub parallel: u16,
    /// Schemas, logical only; empty: every one of the users'.
    pub databases: Vec<String>,
    /// Who alone can open the archive; empty: everybody, unless the agent has recipients of its own.
    pub recipients: Vec<Recipient>,
    /// Most bytes of body a second.
    pub max_rate: Option<u64>,
    /// The job that this works for.
    pub job: Option<JobAttempt>,
}

/// A backup that has begun.
#[derive(Debug)]
pub struct Started {
    /// Its id.
    pub id: String,
    /// A name that tells the layers: `.tar`, `.tar.zst`, `.tar.zst.age`.
    pub file_name: String,
    /// Media type of the body.
    pub content_type: &'static str,
    /// A guess at the bytes of the tool's output.
    pub estimated_bytes: Option<u64>,
    /// Time from the request to a running tool.
    pub precheck: Duration,
    /// The archive and its verdict.
    pub body: BackupBody,
}

/// The body of a request to restore. Nothing of it is asked for before the restore can begin.
pub type Upload = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// One request to restore an archive.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// What of it, how, and what it is of.
    pub wanted: Wanted,
    /// What its bytes have to be.
    pub expected: Expected,
}

/// A restore that has begun.
#[derive(Debug)]
pub struct RestoreStarted {
    /// Its id.
    pub id: String,
    /// Time from the request to the first byte of the archive.
    pub precheck: Duration,
    /// Lines of progress, and the verdict.
    pub body: BackupBody,
}

/// Why no backup or restore was begun. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A parameter cannot be carried out on this server.
    #[error("{message}")]
    BadParameter {
        /// Name of the query parameter.
        parameter: String,
        /// What is wrong with it.
        message: String,
    },
    /// Another backup holds the slot.
    #[error(
        "backup or restore {id} is running, and an agent runs one at a time: wait for its end, or cancel it"
    )]
    Busy {
        /// Id of the running backup.
        id: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// No tool here can do it.
    #[error("{message}")]
    MethodNotAvailable {
        /// Which, and why.
        message: String,
    },
    /// The server is in a state that gives no good backup.
    #[error("{message}")]
    Unfit {
        /// What is wrong with it.
        message: String,
    },
    /// The server is unreachable, or refuses what a backup needs.
    #[error("{message}")]
    Database {
        /// What it said.
        message: String,
    },
    /// This agent restores nothing.
    #[error(
        "this agent does not restore: start it with --allow-restore, and give its database user the grants of deploy/grants/*-restore.sql"
    )]
    RestoreNotAllowed,
    /// There is something where a restore was to go.
    #[error("{message}")]
    NotEmpty {
        /// What, and what to do.
        message: String,
    },
    /// The backup is not for such a server.
    #[error("{message}")]
    Incompatible {
        /// Why.
        message: String,
    },
    /// The server is no place for a restore, or a privilege is missing.
    #[error("{message}")]
    TargetUnfit {
        /// What is wrong with it.
        message: String,
    },
    /// The agent is being stopped.
    #[error("the agent is being stopped: try again when its pod is back")]
    Draining,
}

impl From<RestoreError> for StartError {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::TargetNotEmpty(_) => Self::NotEmpty { message },
            RestoreError::Incompatible(_) => Self::Incompatible { message },
            RestoreError::Refused(_) => Self::TargetUnfit { message },
            RestoreError::Invalid(_) => Self::BadParameter {
                parameter: "database".to_owned(),
                message,
            },
            RestoreError::Io { .. } => Self::MethodNotAvailable { message },
            _ => Self::Database { message },
        }
    }
}

impl From<DatabaseError> for StartError {
    fn from(error: DatabaseError) -> Self {
        Self::Database {
            message: error.to_string(),
        }
    }
}

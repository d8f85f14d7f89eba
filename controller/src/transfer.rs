//! One attempt: pull the stream from an agent, put it into the store, decide.
//!
//! Knows nothing of Kubernetes: the controller runs it beside its reconcilers, the command line runs
//! it as its main job.

use crate::{
    agent_client::Endpoint,
    catalog::{JobIdentity, Manifest},
    reason::FailureReason,
    storage::Store,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What to ask the agent for. `None` leaves it to the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupParameters {
    /// `physical` or `logical`.
    pub method: Option<String>,
    /// `zstd` or `none`.
    pub compression: Option<String>,
    /// zstd level, 1 to 19.
    pub level: Option<u8>,
    /// Threads of the tool.
    pub parallel: Option<u16>,
    /// Schemas; logical only.
    pub databases: Vec<String>,
    /// Age recipients.
    pub recipients: Vec<String>,
    /// Bytes a second.
    pub max_rate: Option<u64>,
}

/// One attempt at one job.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Whose backup it is.
    pub job: JobIdentity,
    /// This attempt, counted from 1, claimed before.
    pub attempt: u32,
    /// The agent.
    pub agent: Endpoint,
    /// What to ask it for.
    pub parameters: BackupParameters,
    /// Where the backup goes.
    pub store: Arc<Store>,
    /// How long the stream may bring nothing.
    pub stall_timeout: Duration,
}

/// How far a transfer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes received.
    pub bytes: u64,
    /// What the agent guessed, uncompressed.
    pub estimated_bytes: Option<u64>,
    /// When bytes last came.
    pub last_progress: Option<jiff::Timestamp>,
    /// The server, once the agent has told.
    pub server_version: Option<String>,
}

/// Seconds of each phase, where it was gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Name resolution.
    pub dns: Option<f64>,
    /// TCP.
    pub connect: Option<f64>,
    /// TLS handshake.
    pub tls: Option<f64>,
    /// Until the request was written, from the start.
    pub wrote_request: Option<f64>,
    /// Until the response's head, from the start.
    pub first_byte: Option<f64>,
    /// Head to end of body.
    pub copy: Option<f64>,
    /// Locks held, as the agent's Server-Timing says.
    pub lock: Option<f64>,
    /// Verdict to manifest.
    pub finalize: Option<f64>,
}

/// A backup that stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Success {
    /// The decision. When an earlier attempt had won already, its manifest.
    pub manifest: Manifest,
    /// Where the time went.
    pub timings: Timings,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Why.
    pub reason: FailureReason,
    /// For people: says what to do next; cleaned and cut, no secret.
    pub message: String,
    /// Whether another attempt can help at all: see the table in the protocol.
    pub retry: crate::reason::Retry,
    /// The agent's `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Bytes received.
    pub bytes: u64,
    /// Whether completed objects may exist: then `abandon` before the job becomes Failed.
    pub complete_tried: bool,
}

/// Runs one attempt to its end. Reads the manifest first: a job that is decided is not run again.
/// When `cancel` fires, the upload is aborted and the answer is `Interrupted`.
///
/// # Errors
/// [`Failure`]: nothing in the bucket can be taken for a backup by this attempt.
#[expect(clippy::todo, reason = "skeleton")]
pub async fn run(
    _transfer: Transfer,
    _progress: watch::Sender<Progress>,
    _cancel: CancellationToken,
) -> Result<Success, Failure> {
    todo!()
}

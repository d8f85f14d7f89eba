//! One attempt: pull the stream from an agent, put it into the store, decide.
//!
//! Knows nothing of Kubernetes: the controller runs it beside its reconcilers, the command line runs
//! it as its main job.

mod pace;
mod peek;
mod progress;
mod pull;
mod quiet;
mod upload;
pub(crate) mod verdict;

use crate::{
    agent_client::{
        self, AgentError, Claim, Endpoint,
        trace::{LogTrace, TimingsTrace, Trace},
    },
    catalog::{self, JobIdentity, Manifest, Outcome},
    peer_text::{Keep, clean},
    reason::{FailureReason, Retry},
    storage::{Store, StoreError},
};
use peek::Peek;
use progress::Reporter;
use pull::{Piece, Pull};
use quiet::Sign;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use towline_agent::protocol::info::LastBackup;
use upload::Upload;
use verdict::Rejected;

/// The least time that an agent gets for its checks before it answers; an older attempt's tool may
/// have to be reaped first.
const MIN_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The least time in which a store has to finish one of the parts that are under way.
const MIN_STORE_STALL: Duration = Duration::from_secs(300);

/// Longest wait for an agent that is asked what its backup is doing.
const SIGN_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// How long the stream may bring nothing while the agent, too, says that nothing has changed.
    pub stall_timeout: Duration,
    /// Who watches the pull.
    pub trace: Trace,
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
    pub retry: Retry,
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
pub async fn run(
    transfer: Transfer,
    progress: watch::Sender<Progress>,
    cancel: CancellationToken,
) -> Result<Success, Failure> {
    let mut state = State::default();
    // Boxed, so that what it holds can be dropped (the agent's connection first of all) before
    // the upload is cleaned up.
    let attempt = Box::pin(attempt(&transfer, &progress, &mut state));
    let outcome = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Stop {
            reason: FailureReason::Interrupted,
            retry: Retry::NotCounted,
            message: "the transfer was stopped".to_owned(),
            retry_after: None,
        }),
        outcome = attempt => outcome,
    };
    match outcome {
        Ok(success) => Ok(success),
        Err(stop) => Err(fail(&transfer, state, stop).await),
    }
}

/// What outlives an attempt that is cut short.
#[derive(Default)]
struct State {
    upload: Option<Upload>,
    bytes: u64,
}

/// Why an attempt stopped.
struct Stop {
    reason: FailureReason,
    retry: Retry,
    message: String,
    retry_after: Option<Duration>,
}

impl Stop {
    fn counted(reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            retry: Retry::Counted,
            message: message.into(),
            retry_after: None,
        }
    }
}

impl From<AgentError> for Stop {
    fn from(e: AgentError) -> Self {
        Self {
            reason: e.reason,
            retry: e.retry,
            message: e.message,
            retry_after: e.retry_after,
        }
    }
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Self {
        Self::counted(FailureReason::StoreError, e.message)
    }
}

impl From<Rejected> for Stop {
    fn from(r: Rejected) -> Self {
        Self {
            reason: r.reason,
            retry: r.retry,
            message: r.message,
            retry_after: None,
        }
    }
}

/// Cleans up after an attempt that stopped.
async fn fail(transfer: &Transfer, state: State, stop: Stop) -> Failure {
    let mut message = stop.message;
    let mut complete_tried = false;
    if let Some(mut upload) = state.upload {
        complete_tried = upload.complete_tried();
        if let Err(error) = upload.abort().await {
            message.push_str(&format!(
                "; the upload could not be cleaned up ({error}): the mark in its folder stays, and the next attempt or the sweep does it"
            ));
        }
    }
    tracing::warn!(
        job = transfer.job.job_name,
        attempt = transfer.attempt,
        reason = stop.reason.as_str(),
        bytes = state.bytes,
        message,
        "attempt failed"
    );
    Failure {
        reason: stop.reason,
        message,
        retry: stop.retry,
        retry_after: stop.retry_after,
        bytes: state.bytes,
        complete_tried,
    }
}

/// The attempt itself; may be dropped at any await.
async fn attempt(
    t: &Transfer,
    progress: &watch::Sender<Progress>,
    state: &mut State,
) -> Result<Success, Stop> {
    let start_time = jiff::Timestamp::now();
    // Also proves that the store is there before the database is bothered.
    if let Some(manifest) = catalog::read_decision(&t.store, &t.job).await? {
        return standing(manifest, Timings::default());
    }

    let claim = Claim {
        job_uid: &t.job.job_uid,
        attempt: t.attempt,
    };
    let head_timeout = t.stall_timeout.max(MIN_HEAD_TIMEOUT);
    let clock = Arc::new(TimingsTrace::default());
    let mut trace = t.trace.and(clock.clone());
    if LogTrace::wanted() {
        trace = trace.and(Arc::new(LogTrace));
    }
    let stream = agent_client::backup(&t.agent, &t.parameters, claim, head_timeout, &trace).await?;
    let server = stream.info.database.clone().unwrap_or_default();
    let mut reporter = Reporter::new(progress);
    reporter.started(
        stream.estimated_bytes,
        Some(server.version.clone()).filter(|v| !v.is_empty()),
    );

    let upload = state.upload.insert(Upload::new(
        Arc::clone(&t.store),
        &t.job,
        t.attempt,
        start_time,
        stream.extension,
        t.stall_timeout.max(MIN_STORE_STALL),
    ));
    upload.begin().await?;

    let mut peek = Peek::default();
    let mut pull = Pull::new(stream.body, t.stall_timeout, trace);
    let end = loop {
        let piece = tokio::select! {
            error = upload.failed() => return Err(error.into()),
            piece = pull.next() => piece,
        };
        state.bytes = pull.bytes();
        match piece {
            Piece::Data(data) => {
                peek.add(&data);
                upload.write(&data).await?;
                reporter.received(state.bytes);
            }
            Piece::End(end) => break end,
            Piece::Quiet => {
                let patience = SIGN_TIMEOUT.min(t.stall_timeout);
                let sign = agent_client::running(&t.agent, &stream.backup_id, patience).await;
                pull.told(sign.map(|running| Sign {
                    stage: running.stage,
                    bytes: running.bytes,
                }));
            }
            Piece::Stalled => {
                let stage = pull
                    .stage()
                    .map_or(String::new(), |stage| format!(", in its stage {stage}"));
                return Err(Stop::counted(
                    FailureReason::Stalled,
                    format!(
                        "nothing came from the agent for {} s, after {} bytes{stage}: see the agent's log, or raise the stall timeout",
                        t.stall_timeout.as_secs(),
                        state.bytes
                    ),
                ));
            }
        }
    };
    reporter.done(state.bytes);
    let mut timings = clock.timings();
    timings.lock = verdict::lock_seconds(&end, stream.server_timing.as_deref());
    let sha256 = pull.sha256();
    verdict::judge(&end, state.bytes, &sha256, t.agent.token.as_deref())?;

    let finalize_started = Instant::now();
    // Before anything is completed: what takes time belongs here.
    let last = if stream.info.can("last-backup") {
        agent_client::last_backup(&t.agent, &stream.backup_id)
            .await
            .unwrap_or_default()
    } else {
        LastBackup::default()
    };
    let about = about(&peek, t, &server, &last);
    let objects = upload.complete().await?;
    let manifest = Manifest {
        format_version: catalog::FORMAT_VERSION,
        outcome: Outcome::Complete,
        identity: t.job.clone(),
        attempt: t.attempt,
        time: jiff::Timestamp::now(),
        bytes: objects.iter().map(|o| o.bytes).sum(),
        objects,
        sha256: hex::encode(sha256),
        backup_id: stream.backup_id,
        method: about.method,
        server_flavour: about.server_flavour,
        server_version: about.server_version,
        position: last.position,
        start_time,
    };
    let decided = catalog::decide(&t.store, &manifest).await?;
    timings.finalize = Some(finalize_started.elapsed().as_secs_f64());
    if decided != manifest {
        // Somebody else decided meanwhile: what we made belongs to no backup.
        match catalog::clean_attempt(&t.store, &t.job, t.attempt).await {
            Ok(_) => state.upload = None,
            Err(error) => {
                tracing::warn!(job = t.job.job_name, attempt = t.attempt, %error, "objects of a lost race are left to the sweep")
            }
        }
    }
    standing(decided, timings)
}

/// What the manifest says of the backup's origin.
struct About {
    method: String,
    server_flavour: String,
    server_version: String,
}

/// The archive itself knows best; of an encrypted one the agent tells, or what was asked for.
fn about(peek: &Peek, t: &Transfer, server: &agent_client::Server, last: &LastBackup) -> About {
    let token = t.agent.token.as_deref();
    let short = |text: &str| clean(text, token, Keep::Start);
    match peek.metadata() {
        Some(m) => About {
            method: short(&m.method),
            server_flavour: short(&m.server_flavour),
            server_version: short(&m.server_version),
        },
        None => About {
            method: match last.method.as_str() {
                "" => t.parameters.method.clone().unwrap_or_default(),
                told => told.to_owned(),
            },
            server_flavour: server.flavour.clone(),
            server_version: server.version.clone(),
        },
    }
}

/// What a decision that stands means for an attempt.
fn standing(manifest: Manifest, timings: Timings) -> Result<Success, Stop> {
    match manifest.outcome {
        Outcome::Complete => Ok(Success { manifest, timings }),
        Outcome::Abandoned => Err(Stop {
            reason: FailureReason::Interrupted,
            retry: Retry::Never,
            message: format!(
                "the job was given up at {}: its manifest says Abandoned, so it gets no backup any more",
                manifest.time
            ),
            retry_after: None,
        }),
    }
}

//! Talks to an agent: one connection per pull, trailers kept, nothing followed.

mod answer;
mod connect;
mod info;
mod request;
mod resolve;
mod restore;
mod tls;
pub mod trace;
mod traced_io;

pub use resolve::is_local;
pub use restore::{Pieces, RestoreFailure, can_restore, restore};
pub use tls::{Tls, TlsError};
pub use towline_agent::protocol::info::{Info, Server};

use crate::{
    reason::{FailureReason, Retry},
    transfer::BackupParameters,
};
use connect::Connection;
use hyper::body::Incoming;
use std::time::Duration;
use towline_agent::protocol::info::{LastBackup, Running};
use trace::Trace;

/// An agent and how to be let in.
#[derive(Clone)]
pub struct Endpoint {
    /// `https://host:port` with TLS, else `http://host:port`; without a path.
    pub base: url::Url,
    /// Bearer token.
    pub token: Option<String>,
    /// Whom to trust and who we are; `None`: plain text.
    pub tls: Option<Tls>,
    /// Whether loopback and link-local addresses are accepted, after resolution: only for the command line.
    pub allow_local_addresses: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// Why an agent gave no stream: the right column of the protocol's last table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// The job's reason.
    pub reason: FailureReason,
    /// Whether another attempt can help, and counts.
    pub retry: Retry,
    /// For people: says what to do next; cleaned and cut, no secret.
    pub message: String,
    /// The agent's `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl AgentError {
    fn new(reason: FailureReason, retry: Retry, message: impl Into<String>) -> Self {
        Self {
            reason,
            retry,
            message: message.into(),
            retry_after: None,
        }
    }

    fn unreachable(message: impl Into<String>) -> Self {
        Self::new(FailureReason::AgentUnreachable, Retry::Counted, message)
    }
}

/// Whose backup a request is for: two headers, by which the agent tells a newer attempt.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Uid of the job.
    pub job_uid: &'a str,
    /// Number of the attempt.
    pub attempt: u32,
}

impl Claim<'_> {
    /// By which the agent's access log and our own log name the same request: the job's uid and the attempt's
    /// number.
    #[must_use]
    pub fn request_id(&self) -> String {
        format!("{}-{}", self.job_uid, self.attempt)
    }
}

/// A backup that has begun to stream.
#[derive(Debug)]
pub struct Stream {
    /// Id that the agent gave it.
    pub backup_id: String,
    /// A guess at the uncompressed bytes.
    pub estimated_bytes: Option<u64>,
    /// What the archive's name ends with: `.tar`, `.tar.zst`, with `.age` when it is encrypted.
    pub extension: &'static str,
    /// The agent's `Server-Timing` of the head, where it is not in the trailers.
    pub server_timing: Option<String>,
    /// The body, trailers and all.
    pub body: Incoming,
    /// What the agent said of itself.
    pub info: Info,
    /// Keeps the connection going; dropping it closes the connection, and the agent stops the tool.
    pub connection: Connection,
}

/// How long an agent may take to say what it is.
const INFO_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for what is only good to know.
const LAST_BACKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the agent what it is, then for a backup.
///
/// Parameters go out only when the agent names them among its capabilities; one that is asked for
/// and not named is a refusal, never dropped. `head_timeout` bounds the wait for the answer's
/// head: before it the agent checks its database and may wait for an older attempt's tool.
///
/// # Errors
/// [`AgentError`] by the protocol's table.
pub async fn backup(
    agent: &Endpoint,
    parameters: &BackupParameters,
    claim: Claim<'_>,
    head_timeout: Duration,
    trace: &Trace,
) -> Result<Stream, AgentError> {
    let token = agent.token.as_deref();
    let mut connection =
        Connection::get(agent, None, towline_agent::protocol::PATH_INFO, trace).await?;
    let request = request::get(agent, towline_agent::protocol::PATH_INFO, None)?;
    let answer = connection.send(agent, request, INFO_TIMEOUT).await?;
    let info = info::read(answer, token).await?;
    let query = request::query(parameters, &info)?;

    let path = towline_agent::protocol::PATH_BACKUP;
    let mut connection = Connection::get(agent, Some(connection), path, trace).await?;
    let request = request::get(
        agent,
        &format!("{}{query}", towline_agent::protocol::PATH_BACKUP),
        Some(claim),
    )?;
    let answer = connection.send(agent, request, head_timeout).await?;
    if answer.status() != http::StatusCode::OK {
        return Err(answer::refusal(answer, token).await);
    }
    let head = answer::Head::read(answer.headers(), token);
    if !parameters.recipients.is_empty() && !head.extension.ends_with(".age") {
        return Err(AgentError::new(
            FailureReason::AgentRefused,
            Retry::Never,
            "encryption was asked for, but the agent began to send an archive that is not encrypted: upgrade the agent",
        ));
    }
    Ok(Stream {
        backup_id: head.backup_id,
        estimated_bytes: head.estimated_bytes,
        extension: head.extension,
        server_timing: head.server_timing,
        body: answer.into_body(),
        info,
        connection,
    })
}

/// Asks the agent what it and its server are.
///
/// # Errors
/// [`AgentError`] by the protocol's table.
pub async fn info(agent: &Endpoint, timeout: Duration) -> Result<Info, AgentError> {
    let path = towline_agent::protocol::PATH_INFO;
    let ask = async {
        let mut connection = Connection::get(agent, None, path, &Trace::none()).await?;
        let request = request::get(agent, path, None)?;
        let answer = connection.send(agent, request, timeout).await?;
        info::read(answer, agent.token.as_deref()).await
    };
    tokio::time::timeout(timeout, ask)
        .await
        .unwrap_or_else(|_| {
            Err(AgentError::unreachable(format!(
                "no answer from {} within {} s",
                agent.base,
                timeout.as_secs()
            )))
        })
}

/// What the agent says that a backup is doing. `None` when it does not tell, or knows no such backup.
pub async fn running(agent: &Endpoint, backup_id: &str, timeout: Duration) -> Option<Running> {
    match info(agent, timeout).await {
        Ok(info) => info.running.filter(|running| running.id == backup_id),
        Err(error) => {
            tracing::debug!(%error, backup_id, "the agent does not tell what its backup is doing");
            None
        }
    }
}

/// What the agent says of a backup that it has just made: an archive tells its position only at its
/// end, and an encrypted one nothing at all. `None` when the agent does not tell; a backup is none the
/// worse for it.
pub async fn last_backup(agent: &Endpoint, backup_id: &str) -> Option<LastBackup> {
    match info(agent, LAST_BACKUP_TIMEOUT).await {
        Ok(info) => info.last_backup.filter(|last| last.id == backup_id),
        Err(error) => {
            tracing::debug!(%error, backup_id, "the agent does not tell of the backup");
            None
        }
    }
}

//! Sends an archive to an agent that restores it: a refusal comes before a byte is sent, and the end
//! counts only with the agent's verdict.

use super::{AgentError, Endpoint, answer, connect::Connection, connect::Outgoing, request};
use crate::{
    peer_text::{Keep, clean},
    reason::{FailureReason, RestoreReason},
    transfer::verdict::{End, judge},
};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{io, sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc};
use towline_agent::{
    protocol::{
        CAPABILITY_RESTORE, PATH_RESTORE, PROBLEM_TYPE_PREFIX, StreamReason, TRAILER_DIGEST,
        TRAILER_ERROR, TRAILER_REASON, encode_digest, restore_parameter as parameter,
    },
    restore::{Definers, Events, Expected, Progress, Stage, progress::Look, target::Wanted},
};

/// How long an agent may take to say what it is.
const INFO_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent may look at its server before it wants the archive, and from the first byte to its 200.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a 100 is waited for: RFC 9110, 10.1.1 wants no wait without end, for there are proxies that
/// swallow it.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an agent may say nothing of its progress; it does so every second.
const QUIET: Duration = Duration::from_secs(120);
/// Longest refusal that is read, bytes.
const MAX_PROBLEM: usize = 16 << 10;
/// Longest line of progress, bytes.
const MAX_LINE: usize = 4 << 10;

/// Why nothing was restored, or not everything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RestoreFailure {
    /// The job's reason.
    pub reason: RestoreReason,
    /// For people: says what to do next; cleaned and cut, no secret.
    pub message: String,
    /// Whether something may have been written to the server.
    pub written: bool,
}

impl RestoreFailure {
    fn before(reason: RestoreReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            written: false,
        }
    }

    fn after(reason: RestoreReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            written: true,
        }
    }
}

impl From<AgentError> for RestoreFailure {
    /// Of an agent that was not asked to restore yet, or gave no answer.
    fn from(error: AgentError) -> Self {
        let reason = match error.reason {
            FailureReason::InvalidSpec => RestoreReason::InvalidSpec,
            FailureReason::AgentUnreachable | FailureReason::Interrupted => {
                RestoreReason::TargetUnreachable
            }
            _ => RestoreReason::TargetRefused,
        };
        Self::before(reason, error.message)
    }
}

/// The archive, piece by piece; an error breaks the request off.
pub type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// Asks what can be asked before the archive is read: does the agent restore at all, and is its server
/// one for such a backup.
///
/// # Errors
/// [`RestoreFailure`]; nothing was written.
pub async fn can_restore(
    agent: &Endpoint,
    flavour: &str,
    version: &str,
) -> Result<(), RestoreFailure> {
    let info = super::info(agent, INFO_TIMEOUT).await?;
    if !info.can(CAPABILITY_RESTORE) {
        return Err(RestoreFailure::before(
            RestoreReason::TargetRefused,
            format!(
                "the agent at {} does not restore: start it with --allow-restore",
                agent.base
            ),
        ));
    }
    let Some(server) = info.database else {
        let why = info.database_error.unwrap_or_default();
        return Err(RestoreFailure::before(
            RestoreReason::TargetUnreachable,
            format!(
                "the agent at {} does not reach its database: {why}",
                agent.base
            ),
        ));
    };
    towline_agent::restore::compat::logical(flavour, version, &server.flavour, &server.version)
        .map_err(|error| RestoreFailure::before(RestoreReason::Incompatible, error.to_string()))
}

/// Sends an archive. `expected` is what its bytes have to be, for the agent too.
///
/// # Errors
/// [`RestoreFailure`].
pub async fn restore(
    agent: &Endpoint,
    wanted: &Wanted,
    expected: &Expected,
    pieces: Pieces,
    progress: &Progress,
) -> Result<(), RestoreFailure> {
    let token = agent.token.as_deref();
    let trace = super::trace::Trace::none();
    let mut connection = Connection::get(agent, None, PATH_RESTORE, &trace).await?;
    let go = Arc::new(Notify::new());
    let target = format!("{PATH_RESTORE}{}", query(wanted));
    let mut request = request::post(agent, &target, body(pieces, go.clone()))?;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_LENGTH, expected.bytes.into());
    headers.insert(
        header::EXPECT,
        header::HeaderValue::from_static("100-continue"),
    );
    headers.insert(TRAILER_DIGEST, digest(expected)?);
    let told = go.clone();
    hyper::ext::on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            told.notify_one();
        }
    });
    let answer = connection.send(agent, request, HEAD_TIMEOUT).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(answer, token).await);
    }
    // A proxy may have swallowed the 100.
    go.notify_one();
    follow(answer, progress, expected, token).await
}

fn digest(expected: &Expected) -> Result<header::HeaderValue, RestoreFailure> {
    let invalid = || {
        RestoreFailure::before(
            RestoreReason::InvalidSpec,
            format!("{:?} is no SHA-256", expected.sha256),
        )
    };
    let sum = hex::decode(&expected.sha256).map_err(|_| invalid())?;
    let sum: [u8; 32] = sum.try_into().map_err(|_| invalid())?;
    header::HeaderValue::try_from(encode_digest(&sum)).map_err(|_| invalid())
}

/// A body whose first byte waits until it may go.
fn body(pieces: Pieces, go: Arc<Notify>) -> Outgoing {
    let stream = futures::stream::unfold((pieces, Some(go)), |(mut pieces, go)| async move {
        if let Some(go) = go {
            let _ = tokio::time::timeout(CONTINUE_TIMEOUT, go.notified()).await;
        }
        let piece = pieces.recv().await?;
        Some((piece, (pieces, None)))
    });
    let frames = stream.map(|piece| {
        piece
            .map(Frame::data)
            .map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
    });
    StreamBody::new(frames).boxed_unsync()
}

fn query(wanted: &Wanted) -> String {
    let options = &wanted.options;
    let yes = |value: bool| if value { "true" } else { "false" };
    let mut pairs: Vec<(&str, &str)> = vec![
        (parameter::FLAVOUR, &wanted.flavour),
        (parameter::VERSION, &wanted.version),
        (parameter::INCLUDE_USERS, yes(options.include_users)),
        (parameter::BINARY_LOG, yes(options.binary_log)),
        (parameter::ROUTINES, yes(options.routines)),
        (parameter::TRIGGERS, yes(options.triggers)),
    ];
    pairs.push((
        parameter::EVENTS,
        match options.events {
            Events::Disabled => "disabled",
            Events::AsBackedUp => "as-backed-up",
            Events::Skip => "skip",
        },
    ));
    pairs.push((
        parameter::DEFINERS,
        match options.definers {
            Definers::Keep => "keep",
            Definers::CurrentUser => "current-user",
        },
    ));
    if options.gtid_purged {
        // Without one the agent says that there is none.
        let gtid = wanted.gtid.as_deref().unwrap_or_default();
        pairs.push((parameter::GTID_PURGED, gtid));
    }
    for database in &options.databases {
        pairs.push((parameter::DATABASE, database));
    }
    let mut query = String::new();
    for (name, value) in pairs {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
    }
    query
}

/// Reads the agent's progress to its verdict.
async fn follow(
    answer: Response<Incoming>,
    progress: &Progress,
    expected: &Expected,
    token: Option<&str>,
) -> Result<(), RestoreFailure> {
    let mut body = answer.into_body();
    let mut sum = Context::new(&SHA256);
    let mut bytes = 0;
    let mut lines = Lines::new(progress, expected);
    let mut trailers = None;
    let end = loop {
        let frame = match tokio::time::timeout(QUIET, body.frame()).await {
            Ok(frame) => frame,
            Err(_) => break End::Cut(format!("it said nothing for {} s", QUIET.as_secs())),
        };
        match frame {
            None => break End::Clean(trailers.take()),
            Some(Err(error)) => break End::Cut(error.to_string()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    sum.update(&data);
                    bytes += data.len() as u64;
                    lines.take(&data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    };
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(sum.finish().as_ref());
    let Err(rejected) = judge(&end, bytes, &sha256, token) else {
        return Ok(());
    };
    let reason = match rejected.reason {
        FailureReason::StreamError | FailureReason::Interrupted => told(&end),
        _ => RestoreReason::TargetUnreachable,
    };
    Err(RestoreFailure::after(reason, rejected.message))
}

/// What the agent's word means.
fn told(end: &End) -> RestoreReason {
    let End::Clean(Some(trailers)) = end else {
        return RestoreReason::TargetUnreachable;
    };
    debug_assert!(trailers.contains_key(TRAILER_ERROR) || trailers.contains_key(TRAILER_REASON));
    let word = trailers.get(TRAILER_REASON).and_then(|v| v.to_str().ok());
    match word.and_then(StreamReason::parse) {
        Some(StreamReason::ArchiveDamaged) => RestoreReason::BackupDamaged,
        Some(StreamReason::DatabaseLost) => RestoreReason::TargetUnreachable,
        Some(
            StreamReason::Stalled
            | StreamReason::Draining
            | StreamReason::Preempted
            | StreamReason::Cancelled,
        ) => RestoreReason::Interrupted,
        _ => RestoreReason::ToolFailed,
    }
}

/// Turns the agent's lines into progress here.
struct Lines<'a> {
    progress: &'a Progress,
    line: Vec<u8>,
    last: Look,
    total: u64,
}

impl<'a> Lines<'a> {
    fn new(progress: &'a Progress, expected: &Expected) -> Self {
        progress.enter(Stage::Loading, expected.bytes);
        Self {
            progress,
            line: Vec::new(),
            last: Look {
                stage: Stage::Loading,
                ..Look::default()
            },
            total: expected.bytes,
        }
    }

    fn take(&mut self, data: &[u8]) {
        for byte in data {
            if *byte == b'\n' {
                let look = serde_json::from_slice(&self.line);
                self.line.clear();
                if let Ok(look) = look {
                    self.look(look);
                }
            } else if self.line.len() < MAX_LINE {
                self.line.push(*byte);
            }
        }
    }

    fn look(&mut self, look: Look) {
        // What comes before and after is told here.
        if ![Stage::Loading, Stage::Checking].contains(&look.stage) {
            return;
        }
        if look.stage != self.last.stage {
            let total = if look.stage == Stage::Loading {
                self.total
            } else {
                0
            };
            self.progress.enter(look.stage, total);
            self.last.bytes = 0;
        }
        self.progress
            .read(look.bytes.saturating_sub(self.last.bytes));
        self.last = look;
    }
}

/// Turns an answer that is no 200 into a reason: nothing was written.
async fn refusal(answer: Response<Incoming>, token: Option<&str>) -> RestoreFailure {
    let status = answer.status();
    let body = answer::bounded(answer.into_body(), MAX_PROBLEM).await;
    let kind = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|problem| problem["type"].as_str().map(str::to_owned));
    let word = kind
        .as_deref()
        .and_then(|k| k.strip_prefix(PROBLEM_TYPE_PREFIX));
    let said = clean(&answer::problem_text(&body), token, Keep::Start);
    let (reason, remedy) = judge_refusal(status, word);
    RestoreFailure::before(
        reason,
        format!("the agent answered {}: {said} ({remedy})", status.as_u16()),
    )
}

fn judge_refusal(status: StatusCode, word: Option<&str>) -> (RestoreReason, &'static str) {
    match (status.as_u16(), word) {
        (409, Some("target-not-empty")) => (
            RestoreReason::TargetNotEmpty,
            "a restore never writes over anything",
        ),
        (409, _) => (
            RestoreReason::TargetRefused,
            "it runs a backup or another restore: wait for that to end, and restore again",
        ),
        (422, Some("incompatible")) => (RestoreReason::Incompatible, "choose another server"),
        (400, _) => (RestoreReason::InvalidSpec, "correct what it names"),
        (401, _) => (
            RestoreReason::TargetRefused,
            "compare the token with those of the agent's --token-file; with mutual TLS see whether our certificate is still valid",
        ),
        (403, _) => (
            RestoreReason::TargetRefused,
            "the token needs the scope `restore` in the agent's --token-file; with mutual TLS the certificate needs a name among its --allowed-client",
        ),
        (422 | 501, _) => (RestoreReason::TargetRefused, "nothing was written"),
        (502, _) => (
            RestoreReason::TargetUnreachable,
            "the agent runs but does not reach its database: see the agent's log",
        ),
        (503, _) => (
            RestoreReason::TargetUnreachable,
            "it is being stopped: restore again when its pod is back",
        ),
        (500..=599, _) => (RestoreReason::TargetUnreachable, "see the agent's log"),
        _ => (
            RestoreReason::TargetRefused,
            "does the URL lead to a Towline agent?",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_agent::restore::LogicalOptions;

    #[test]
    fn nothing_slips_into_the_query() {
        let mut wanted = Wanted {
            flavour: "mariadb".into(),
            version: "10.11.6-MariaDB-0+deb12u1".into(),
            gtid: Some("0-1-5".into()),
            options: LogicalOptions {
                databases: vec!["a&events=skip".into(), "é x".into()],
                ..LogicalOptions::default()
            },
        };
        let text = query(&wanted);
        assert!(text.starts_with("?flavour=mariadb&version=10%2E11%2E6%2DMariaDB%2D0%2Bdeb12u1&"));
        assert!(
            text.ends_with(
                "&events=disabled&definers=keep&database=a%26events%3Dskip&database=%C3%A9%20x"
            ),
            "{text}"
        );
        assert!(!text.contains("gtid"));
        wanted.options.gtid_purged = true;
        assert!(
            query(&wanted).contains("gtid%2Dpurged=0%2D1%2D5")
                || query(&wanted).contains("gtid-purged=0%2D1%2D5")
        );
    }

    #[test]
    fn refusals() {
        use RestoreReason::*;
        for (status, word, reason) in [
            (400, "bad-parameter", InvalidSpec),
            (401, "unauthorized", TargetRefused),
            (403, "forbidden", TargetRefused),
            (404, "not-found", TargetRefused),
            (409, "busy", TargetRefused),
            (409, "target-not-empty", TargetNotEmpty),
            (422, "incompatible", Incompatible),
            (422, "target-unfit", TargetRefused),
            (500, "internal", TargetUnreachable),
            (501, "restore-not-allowed", TargetRefused),
            (502, "database", TargetUnreachable),
            (503, "draining", TargetUnreachable),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                judge_refusal(status, Some(word)).0,
                reason,
                "{status} {word}"
            );
            assert!(!reason.blames_backup());
        }
    }

    #[test]
    fn the_agents_words() {
        use RestoreReason::*;
        for word in StreamReason::ALL {
            let mut trailers = http::HeaderMap::new();
            trailers.insert(TRAILER_ERROR, "x".parse().unwrap());
            trailers.insert(TRAILER_REASON, word.as_str().parse().unwrap());
            let reason = told(&End::Clean(Some(trailers)));
            // Nothing but damage blames the backup.
            assert_eq!(reason.blames_backup(), word == StreamReason::ArchiveDamaged);
            if [StreamReason::Draining, StreamReason::Stalled].contains(&word) {
                assert_eq!(reason, Interrupted);
            }
        }
    }

    #[test]
    fn progress_is_the_agents() {
        let progress = Progress::default();
        let expected = Expected {
            bytes: 100,
            sha256: String::new(),
        };
        let mut lines = Lines::new(&progress, &expected);
        lines.take(
            b"{\"stage\":\"Starting\",\"bytes\":0,\"totalBytes\":0}\n{\"stage\":\"Loading\",\"by",
        );
        lines.take(b"tes\":40,\"totalBytes\":100}\nnonsense\n{\"stage\":\"Loading\",\"bytes\":70,\"totalBytes\":100}\n");
        let look = progress.look();
        assert_eq!(
            (look.stage, look.bytes, look.total_bytes),
            (Stage::Loading, 70, 100)
        );
        lines.take(b"{\"stage\":\"Checking\",\"bytes\":0,\"totalBytes\":0}\n{\"stage\":\"Ended\",\"bytes\":0,\"totalBytes\":0}\n");
        assert_eq!(progress.look().stage, Stage::Checking);
    }
}

//! What an agent answers, judged by the protocol's table.

use super::AgentError;
use crate::{
    peer_text::{Keep, clean},
    reason::{FailureReason, Retry},
};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use std::time::Duration;
use towline_agent::protocol::{HEADER_BACKUP_ID, HEADER_ESTIMATED_BYTES, SERVER_TIMING};

/// Longest error answer that is read, bytes.
const MAX_PROBLEM: usize = 16 << 10;
/// How long the rest of an answer may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A `Retry-After` is a peer's wish: it cannot put a job off for longer than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// What the head of a 200 says.
pub(super) struct Head {
    pub(super) backup_id: String,
    pub(super) estimated_bytes: Option<u64>,
    pub(super) extension: &'static str,
    pub(super) server_timing: Option<String>,
}

impl Head {
    pub(super) fn read(headers: &HeaderMap, token: Option<&str>) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        Self {
            backup_id: clean(
                text(HEADER_BACKUP_ID).unwrap_or_default(),
                token,
                Keep::Start,
            ),
            estimated_bytes: text(HEADER_ESTIMATED_BYTES).and_then(|v| v.parse().ok()),
            extension: extension(headers),
            server_timing: text(SERVER_TIMING).map(|t| clean(t, token, Keep::Start)),
        }
    }
}

/// A peer's file name never becomes part of a key; only which of the known endings it has.
fn extension(headers: &HeaderMap) -> &'static str {
    let name = headers
        .get(header::CONTENT_DISPOSITION)
        .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let name = name.unwrap_or_default();
    let name = name.trim_end_matches(['"', ' ']);
    let known = [".tar.zst.age", ".tar.age", ".tar.zst", ".tar"];
    if let Some(found) = known.into_iter().find(|e| name.ends_with(e)) {
        return found;
    }
    match headers
        .get(header::CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes)
    {
        Some(b"application/x-tar") => ".tar",
        _ => ".tar.zst",
    }
}

/// Reads at most `max` bytes of a body; what is cut or late is left out.
pub(super) async fn bounded(mut body: Incoming, max: usize) -> Bytes {
    let mut read = bytes::BytesMut::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let room = max - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if read.len() == max {
                return;
            }
        }
    };
    // Late is as good as cut: what was read until then is used.
    let _ = tokio::time::timeout(BODY_TIMEOUT, reading).await;
    read.freeze()
}

/// Turns an answer that is no stream into a reason.
pub(super) async fn refusal(answer: Response<Incoming>, token: Option<&str>) -> AgentError {
    let status = answer.status();
    let retry_after = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let body = bounded(answer.into_body(), MAX_PROBLEM).await;
    let said = clean(&problem_text(&body), token, Keep::Start);
    judge(status, retry_after.map(Duration::from_secs), &said)
}

/// The protocol's last table. What it does not list is refused, and counted.
fn judge(status: StatusCode, retry_after: Option<Duration>, said: &str) -> AgentError {
    use FailureReason::{AgentBusy, AgentRefused, AgentUnreachable, Interrupted};
    let (reason, retry, remedy) = match status.as_u16() {
        400 => (AgentRefused, Retry::Never, "correct the parameters"),
        501 => (
            AgentRefused,
            Retry::Never,
            "ask for another method, or install its tool beside the agent",
        ),
        401 => (
            AgentRefused,
            Retry::Counted,
            "compare what source.auth.tokenSecretRef names (or --token-file) with the agent's own --token-file; with mutual TLS see whether our client certificate is still valid",
        ),
        403 => (
            AgentRefused,
            Retry::Counted,
            "the token needs the scope `backup` in the agent's --token-file; with mutual TLS the client certificate needs a name among its --allowed-client",
        ),
        404 => (
            AgentRefused,
            Retry::Counted,
            "does the URL lead to a Towline agent?",
        ),
        409 => (
            AgentBusy,
            Retry::NotCounted,
            "it runs another backup: wait for that to end",
        ),
        422 => (
            AgentRefused,
            Retry::Counted,
            "repair what it names, or back up another server",
        ),
        502 => (
            AgentUnreachable,
            Retry::Counted,
            "the agent runs but does not reach its database: see the agent's log",
        ),
        503 => (Interrupted, Retry::NotCounted, "it is being stopped"),
        300..=399 => (
            AgentRefused,
            Retry::Never,
            "redirects are not followed: give the agent's own URL",
        ),
        500..=599 => (AgentUnreachable, Retry::Counted, "see the agent's log"),
        _ => (
            AgentRefused,
            Retry::Counted,
            "does the URL lead to a Towline agent?",
        ),
    };
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    };
    AgentError {
        reason,
        retry,
        message: format!("the agent answered {}{said} ({remedy})", status.as_u16()),
        retry_after: retry_after.map(|d| d.min(MAX_RETRY_AFTER)),
    }
}

/// What [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details say, or the plain text.
pub(super) fn problem_text(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Problem {
        title: String,
        detail: String,
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { title, detail }) if detail.is_empty() => title,
        Ok(Problem { title, detail }) if title.is_empty() => detail,
        Ok(Problem { title, detail }) => format!("{title}: {detail}"),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        use FailureReason::*;
        let cases = [
            (400, AgentRefused, Retry::Never),
            (501, AgentRefused, Retry::Never),
            (401, AgentRefused, Retry::Counted),
            (403, AgentRefused, Retry::Counted),
            (409, AgentBusy, Retry::NotCounted),
            (503, Interrupted, Retry::NotCounted),
            (422, AgentRefused, Retry::Counted),
            (502, AgentUnreachable, Retry::Counted),
            (302, AgentRefused, Retry::Never),
            (404, AgentRefused, Retry::Counted),
            (204, AgentRefused, Retry::Counted),
            (500, AgentUnreachable, Retry::Counted),
        ];
        for (status, reason, retry) in cases {
            let error = judge(StatusCode::from_u16(status).unwrap(), None, "said");
            assert_eq!((error.reason, error.retry), (reason, retry), "{status}");
            assert!(error.message.contains("said"));
        }
    }

    #[test]
    fn retry_after_is_bounded() {
        let error = judge(StatusCode::CONFLICT, Some(Duration::from_secs(1 << 40)), "");
        assert_eq!(error.retry_after, Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn endings() {
        let of = |name: &str, kind: &str| {
            let mut h = HeaderMap::new();
            h.insert("content-disposition", name.parse().unwrap());
            h.insert("content-type", kind.parse().unwrap());
            extension(&h)
        };
        assert_eq!(of("attachment; filename=\"a.tar.zst\"", "x/y"), ".tar.zst");
        assert_eq!(
            of("attachment; filename=a.tar.zst.age", "x/y"),
            ".tar.zst.age"
        );
        assert_eq!(
            of("attachment; filename=\"../../etc/passwd.tar\"", "x/y"),
            ".tar"
        );
        assert_eq!(of("attachment", "application/x-tar"), ".tar");
    }

    #[test]
    fn problems() {
        assert_eq!(
            problem_text(br#"{"type":"urn:x","title":"Busy","detail":"b-1 is running"}"#),
            "Busy: b-1 is running"
        );
        assert_eq!(problem_text(b"plain"), "plain");
    }
}

//! Errors as [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details.

use crate::protocol::{PROBLEM_CONTENT_TYPE, PROBLEM_TYPE_PREFIX};
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// One kind of refusal: its `type`, title and status never change once released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(&'static Words);

#[derive(Debug, PartialEq, Eq)]
struct Words {
    slug: &'static str,
    title: &'static str,
    status: StatusCode,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $title:literal, $status:ident;)*) => {
        impl Kind {
            $(
                $(#[$doc])*
                pub const $name: Self =
                    Self(&Words { slug: $slug, title: $title, status: StatusCode::$status });
            )*

            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    /// A parameter or header is unknown or malformed.
    BAD_PARAMETER = "bad-parameter", "Bad parameter", BAD_REQUEST;
    /// No credentials, or unknown ones.
    UNAUTHORIZED = "unauthorized", "Not authenticated", UNAUTHORIZED;
    /// Known credentials without the scope.
    FORBIDDEN = "forbidden", "Not allowed", FORBIDDEN;
    /// No such path, or no such backup.
    NOT_FOUND = "not-found", "Not found", NOT_FOUND;
    /// The path does not know the method.
    METHOD_NOT_ALLOWED = "method-not-allowed", "Method not allowed", METHOD_NOT_ALLOWED;
    /// A backup is running.
    BUSY = "busy", "A backup is running", CONFLICT;
    /// There is something where a restore was to go.
    TARGET_NOT_EMPTY = "target-not-empty", "The target is not empty", CONFLICT;
    /// A request body where none is taken.
    BODY_NOT_TAKEN = "body-not-taken", "No request body is taken here", PAYLOAD_TOO_LARGE;
    /// The server is in a state that gives no good backup.
    UNFIT = "unfit", "The database is not fit for a backup", UNPROCESSABLE_ENTITY;
    /// The server cannot take a backup of such a server.
    INCOMPATIBLE = "incompatible", "The backup is not for such a server", UNPROCESSABLE_ENTITY;
    /// The server is in a state in which nothing is restored to it, or a privilege is missing.
    TARGET_UNFIT = "target-unfit", "The database is not fit for a restore", UNPROCESSABLE_ENTITY;
    /// A fault of the agent.
    INTERNAL = "internal", "Internal error", INTERNAL_SERVER_ERROR;
    /// No tool here can make such a backup.
    METHOD_NOT_AVAILABLE = "method-not-available", "Method not available here", NOT_IMPLEMENTED;
    /// The agent was not started with `--allow-restore`.
    RESTORE_NOT_ALLOWED = "restore-not-allowed", "This agent does not restore", NOT_IMPLEMENTED;
    /// The database is unreachable or refuses us.
    DATABASE = "database", "The database is unreachable or refuses the agent", BAD_GATEWAY;
    /// The agent is being stopped.
    DRAINING = "draining", "The agent is being stopped", SERVICE_UNAVAILABLE;
    /// HTTP/1.0, which has no way to cut a body short visibly.
    HTTP_VERSION = "http-version", "HTTP version not supported", HTTP_VERSION_NOT_SUPPORTED;
}

impl Kind {
    /// The `type` member.
    #[must_use]
    pub fn uri(self) -> String {
        format!("{PROBLEM_TYPE_PREFIX}{}", self.0.slug)
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.0.status
    }
}

/// A refusal that becomes a response.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    detail: String,
    parameter: Option<String>,
    backup_id: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_id: Option<&'a str>,
}

impl Problem {
    /// `detail` is for a person: what is wrong and what to do.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            kind,
            detail,
            parameter: None,
            backup_id: None,
            headers: Vec::new(),
        }
    }

    /// Names the parameter or header that is wrong.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>) -> Self {
        self.parameter = Some(name.into());
        self
    }

    /// Names the backup that is in the way.
    #[must_use]
    pub fn backup_id(mut self, id: impl Into<String>) -> Self {
        self.backup_id = Some(id.into());
        self
    }

    /// Says when to come back, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        self
    }

    /// Says how to authenticate ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750), 3).
    #[must_use]
    pub fn challenge(mut self, value: &'static str) -> Self {
        self.headers
            .push((WWW_AUTHENTICATE, HeaderValue::from_static(value)));
        self
    }

    /// Says which methods the path knows.
    #[must_use]
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.headers
            .push((ALLOW, HeaderValue::from_static(methods)));
        self
    }

    /// Closes the connection after the answer; HTTP/1 only.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.headers
            .push((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    /// What kind of refusal this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The parameter or header that is wrong.
    #[must_use]
    pub fn parameter_name(&self) -> Option<&str> {
        self.parameter.as_deref()
    }

    /// The text for a person.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// As a response.
    #[must_use]
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let document = Document {
            r#type: self.kind.uri(),
            title: self.kind.0.title,
            status: self.kind.0.status.as_u16(),
            detail: &self.detail,
            parameter: self.parameter.as_deref(),
            backup_id: self.backup_id.as_deref(),
        };
        // Strings and a number always serialize; were it not so, status and headers still speak.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.kind.0.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        headers.extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::collections::BTreeSet;

    #[test]
    fn types_are_distinct() {
        let types: BTreeSet<String> = Kind::ALL.iter().map(|kind| kind.uri()).collect();
        assert_eq!(types.len(), Kind::ALL.len());
    }

    #[test]
    fn every_type_is_documented() {
        let docs = include_str!("../../../docs/agent.md");
        for kind in Kind::ALL {
            let row = format!("| `{}` | {} |", kind.uri(), kind.status().as_u16());
            assert!(docs.contains(&row), "docs/agent.md lacks {row}");
        }
    }

    #[tokio::test]
    async fn busy_says_who_and_when() {
        let problem = Problem::new(Kind::BUSY, "wait")
            .backup_id("b1")
            .retry_after(7);
        let response = problem.into_response();
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:towline:problem:busy", "title": "A backup is running",
                "status": 409, "detail": "wait", "backupId": "b1",
            })
        );
    }
}

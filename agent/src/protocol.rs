//! The wire contract between an agent and its callers, protocol v1.
//!
//! Every path, parameter, header and trailer name lives here and nowhere else; the
//! controller and the command line use this module too.

pub mod info;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// Streams one backup.
pub const PATH_BACKUP: &str = "/v1/backup";
/// Loads an archive into the server.
pub const PATH_RESTORE: &str = "/v1/restore";
/// What the agent and its server are.
pub const PATH_INFO: &str = "/v1/info";

/// Query parameters of [`PATH_BACKUP`].
pub mod parameter {
    /// `physical` or `logical`.
    pub const METHOD: &str = "method";
    /// `zstd` or `none`.
    pub const COMPRESSION: &str = "compression";
    /// zstd level, 1 to 19.
    pub const LEVEL: &str = "level";
    /// Threads of the tool.
    pub const PARALLEL: &str = "parallel";
    /// age recipient (an X25519 public key), repeatable: the archive is encrypted.
    pub const RECIPIENT: &str = "recipient";
    /// Schema, repeatable, for logical backups only.
    pub const DATABASE: &str = "database";
    /// Bytes a second.
    pub const MAX_RATE: &str = "max-rate";
    /// What this agent takes.
    pub const KNOWN: &[&str] = &[
        METHOD,
        COMPRESSION,
        LEVEL,
        PARALLEL,
        RECIPIENT,
        DATABASE,
        MAX_RATE,
    ];
}

/// Query parameters of [`PATH_RESTORE`].
pub mod restore_parameter {
    /// Database to restore, repeatable; at least one.
    pub const DATABASE: &str = "database";
    /// Flavour of the backup's server: `mariadb` or `mysql`.
    pub const FLAVOUR: &str = "flavour";
    /// Version of the backup's server, as `SELECT VERSION()` gave it.
    pub const VERSION: &str = "version";
    /// `true` or `false`: accounts and grants too.
    pub const INCLUDE_USERS: &str = "include-users";
    /// The backup's GTIDs, which the server is told that it has.
    pub const GTID_PURGED: &str = "gtid-purged";
    /// `true` or `false`: write what is restored into the binary log.
    pub const BINARY_LOG: &str = "binary-log";
    /// `true` or `false`: stored procedures and functions.
    pub const ROUTINES: &str = "routines";
    /// `true` or `false`.
    pub const TRIGGERS: &str = "triggers";
    /// `disabled`, `as-backed-up` or `skip`.
    pub const EVENTS: &str = "events";
    /// `keep` or `current-user`.
    pub const DEFINERS: &str = "definers";
    /// What this agent takes.
    pub const KNOWN: &[&str] = &[
        DATABASE,
        FLAVOUR,
        VERSION,
        INCLUDE_USERS,
        GTID_PURGED,
        BINARY_LOG,
        ROUTINES,
        TRIGGERS,
        EVENTS,
        DEFINERS,
    ];
}

/// Among the capabilities of an agent that restores.
pub const CAPABILITY_RESTORE: &str = "restore";

/// Content type of the answer to [`PATH_RESTORE`]: a line of JSON for each look at the progress.
pub const PROGRESS_CONTENT_TYPE: &str = "application/x-ndjson";

/// Content type of every error, [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";
/// Every error's `type` starts so; the rest is one stable word.
pub const PROBLEM_TYPE_PREFIX: &str = "urn:towline:problem:";

/// Request and response header: id of a request, for finding it in the logs of both sides.
pub const HEADER_REQUEST_ID: &str = "x-request-id";
/// Request header: uid of the `BackupJob` that this request works for.
pub const HEADER_JOB: &str = "x-backup-job";
/// Request header: number of the attempt, counted from 1. A higher one pre-empts the same job's.
pub const HEADER_ATTEMPT: &str = "x-backup-attempt";
/// Response header: id of this backup.
pub const HEADER_BACKUP_ID: &str = "x-backup-id";
/// Response header: id of this restore.
pub const HEADER_RESTORE_ID: &str = "x-restore-id";
/// Response header: a guess at the body's uncompressed bytes.
pub const HEADER_ESTIMATED_BYTES: &str = "x-backup-estimated-bytes";
/// Header and trailer: [Server-Timing](https://www.w3.org/TR/server-timing/), durations in ms.
pub const SERVER_TIMING: &str = "server-timing";

/// Trailer: empty when the backup is complete, else what went wrong (see [`encode_error`]).
pub const TRAILER_ERROR: &str = "x-streaming-error";
/// Trailer: one of [`StreamReason`], absent when the backup is complete.
pub const TRAILER_REASON: &str = "x-streaming-error-reason";
/// Trailer: bytes of body sent, decimal.
pub const TRAILER_BYTES: &str = "x-backup-bytes";
/// Trailer: [RFC 9530](https://www.rfc-editor.org/rfc/rfc9530) `sha-256=:...:` of the body.
pub const TRAILER_DIGEST: &str = "repr-digest";
/// Value of the `Trailer` header: hyper's HTTP/1 server drops every trailer that it does not name.
pub const TRAILER_NAMES: &str =
    "X-Streaming-Error, X-Streaming-Error-Reason, X-Backup-Bytes, Repr-Digest, Server-Timing";

/// Longest encoded value of [`TRAILER_ERROR`], in bytes. h2 turns trailers over 16 KiB into an
/// empty map without an error.
pub const MAX_ERROR_BYTES: usize = 4096;

/// Why a stream ended without a complete backup: a closed set, used alike in trailers and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StreamReason {
    /// The backup tool exited with an error or was killed.
    ToolFailed,
    /// The tool exited with success but never said that it was complete, or left something out.
    ToolIncomplete,
    /// The database went away while it was being backed up or restored to.
    DatabaseLost,
    /// A lock would have been held for longer than `--max-lock-seconds`.
    LockTimeout,
    /// The archive that was to be restored is cut, altered, or not what the request said of it.
    ArchiveDamaged,
    /// The reader took nothing for `--stall-timeout`, or who sends an archive sent nothing.
    Stalled,
    /// A later attempt of the same job took over.
    Preempted,
    /// The agent is being stopped.
    Draining,
    /// Somebody cancelled the backup.
    Cancelled,
    /// A fault of the agent itself.
    Internal,
}

impl StreamReason {
    /// Every reason, in the order of the protocol's table.
    pub const ALL: [Self; 10] = [
        Self::ToolFailed,
        Self::ToolIncomplete,
        Self::DatabaseLost,
        Self::LockTimeout,
        Self::ArchiveDamaged,
        Self::Stalled,
        Self::Preempted,
        Self::Draining,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ToolFailed => "ToolFailed",
            Self::ToolIncomplete => "ToolIncomplete",
            Self::DatabaseLost => "DatabaseLost",
            Self::LockTimeout => "LockTimeout",
            Self::ArchiveDamaged => "ArchiveDamaged",
            Self::Stalled => "Stalled",
            Self::Preempted => "Preempted",
            Self::Draining => "Draining",
            Self::Cancelled => "Cancelled",
            Self::Internal => "Internal",
        }
    }

    /// The reason that a word on the wire names; `None` for a word that is not in the set.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == word)
    }
}

impl std::fmt::Display for StreamReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is percent-encoded beside non-ASCII: controls (hyper refuses CR, LF and DEL) and `%` itself.
const ENCODE: &AsciiSet = &CONTROLS.add(b'%');

/// Encodes an error text as a trailer value of at most [`MAX_ERROR_BYTES`] bytes.
///
/// The **end** of a long text is kept: the last lines of a tool's stderr say why it failed.
/// An empty text would mean success, so it becomes a fixed sentence.
#[must_use]
pub fn encode_error(text: &str) -> String {
    let text = text.trim();
    let text = if text.is_empty() {
        "unknown error"
    } else {
        text
    };
    let mut kept = 0;
    let mut start = text.len();
    for (at, ch) in text.char_indices().rev() {
        let cost = utf8_percent_encode(&text[at..at + ch.len_utf8()], ENCODE)
            .map(str::len)
            .sum::<usize>();
        if kept + cost > MAX_ERROR_BYTES {
            break;
        }
        kept += cost;
        start = at;
    }
    // A field value has no white space at its ends (RFC 9110, 5.5); a cut may have left some.
    utf8_percent_encode(text[start..].trim_start(), ENCODE).to_string()
}

/// Decodes a value of [`TRAILER_ERROR`]. Bytes that are not UTF-8 are replaced, never refused.
#[must_use]
pub fn decode_error(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

/// Formats a SHA-256 as an RFC 9530 `Repr-Digest` value.
#[must_use]
pub fn encode_digest(sha256: &[u8; 32]) -> String {
    use base64::Engine as _;
    format!(
        "sha-256=:{}:",
        base64::engine::general_purpose::STANDARD.encode(sha256)
    )
}

/// Finds the `sha-256` of an RFC 9530 `Repr-Digest` value, which may list other algorithms too.
#[must_use]
pub fn decode_digest(value: &str) -> Option<[u8; 32]> {
    use base64::Engine as _;
    value.split(',').find_map(|member| {
        let encoded = member.trim().strip_prefix("sha-256=:")?.strip_suffix(':')?;
        base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .ok()?
            .try_into()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digest_of_the_rfc() {
        let d =
            decode_digest("sha-512=:AAAA:, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
        assert_eq!(
            d.map(|d| encode_digest(&d)).as_deref(),
            Some("sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")
        );
        assert_eq!(decode_digest("sha-256=:AAAA:"), None);
    }

    #[test]
    fn an_empty_error_never_looks_like_success() {
        assert!(!encode_error("").is_empty());
        assert!(!encode_error(" \n").is_empty());
    }

    #[test]
    fn the_end_of_a_long_error_is_kept() {
        let text = format!("{}the last line", "é\n".repeat(5000));
        let encoded = encode_error(&text);
        assert!(encoded.len() <= MAX_ERROR_BYTES);
        assert!(decode_error(encoded.as_bytes()).ends_with("the last line"));
    }

    proptest! {
        #[test]
        fn any_stderr_survives(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let encoded = encode_error(&text);
            prop_assert!(encoded.len() <= MAX_ERROR_BYTES);
            prop_assert!(!encoded.is_empty());
            let value = http::HeaderValue::from_str(&encoded);
            prop_assert!(value.is_ok());
            prop_assert!(encoded.is_ascii());
            let decoded = decode_error(encoded.as_bytes());
            if !text.trim().is_empty() { prop_assert!(text.trim().ends_with(decoded.trim_start())); }
            // What fits comes back whole.
            let fits = utf8_percent_encode(text.trim(), ENCODE).map(str::len).sum::<usize>() <= MAX_ERROR_BYTES;
            if fits && !text.trim().is_empty() { prop_assert_eq!(&*decoded, text.trim()); }
        }

        #[test]
        fn any_value_is_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..300), sum in any::<[u8; 32]>()) {
            let text = decode_error(&bytes);
            prop_assert!(!text.is_empty() || bytes.is_empty());
            let _ = decode_digest(&String::from_utf8_lossy(&bytes));
            prop_assert_eq!(decode_digest(&encode_digest(&sum)), Some(sum));
        }
    }
}

//! Decides from what was received whether it is a backup. Pure: the rule that a backup is never
//! taken for good by mistake is here and nowhere else.

use crate::{
    peer_text::{Keep, clean},
    reason::{FailureReason, Retry},
};
use http::{HeaderMap, HeaderValue};
use towline_agent::protocol::{
    SERVER_TIMING, StreamReason, TRAILER_BYTES, TRAILER_DIGEST, TRAILER_ERROR, TRAILER_REASON,
    decode_digest, decode_error,
};

/// How a body ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// Cleanly, with these trailers; there may be none.
    Clean(Option<HeaderMap>),
    /// The connection broke, or the framing was wrong.
    Cut(String),
}

/// Why what was received is no backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) reason: FailureReason,
    pub(crate) retry: Retry,
    pub(crate) message: String,
}

/// Judges a body by its end, its length and its digest.
pub(crate) fn judge(
    end: &End,
    bytes: u64,
    sha256: &[u8; 32],
    token: Option<&str>,
) -> Result<(), Rejected> {
    use FailureReason::{DigestMismatch, LengthMismatch, StreamTruncated, TrailerMissing};
    let rejected = |reason, message: String| {
        Err(Rejected {
            reason,
            retry: Retry::Counted,
            message,
        })
    };
    let trailers = match end {
        End::Cut(why) => {
            let why = clean(why, token, Keep::Start);
            return rejected(
                StreamTruncated,
                format!(
                    "the stream broke off after {bytes} bytes ({why}): did the agent's pod stop, or a proxy close the connection?"
                ),
            );
        }
        End::Clean(None) => &HeaderMap::new(),
        End::Clean(Some(trailers)) => trailers,
    };
    let error = match single(trailers, TRAILER_ERROR) {
        Single::One(value) => value.as_bytes(),
        Single::None => {
            return rejected(
                TrailerMissing,
                format!(
                    "the stream ended after {bytes} bytes without the agent's verdict (trailer X-Streaming-Error): does a proxy \
                     in between drop HTTP trailers?"
                ),
            );
        }
        Single::Many => {
            return rejected(
                TrailerMissing,
                "the agent's verdict came more than once: which one is true?".to_owned(),
            );
        }
    };
    // A reason beside an empty error contradicts it, and is believed: fail closed.
    if !error.is_empty()
        || trailers
            .get_all(TRAILER_REASON)
            .iter()
            .any(|v| !v.is_empty())
    {
        return Err(told(trailers, error, token));
    }
    let sent = match single(trailers, TRAILER_BYTES) {
        Single::None => {
            return rejected(
                TrailerMissing,
                "the trailer X-Backup-Bytes is missing".to_owned(),
            );
        }
        Single::Many => None,
        Single::One(value) => decimal(value),
    };
    if sent != Some(bytes) {
        let sent = sent.map_or_else(|| "an unreadable number of".to_owned(), |n| n.to_string());
        return rejected(
            LengthMismatch,
            format!(
                "the agent sent {sent} bytes, but {bytes} arrived: something in between changes the stream"
            ),
        );
    }
    if bytes == 0 {
        return rejected(
            StreamTruncated,
            "the agent sent an empty archive, which is no backup".to_owned(),
        );
    }
    let digest = match single(trailers, TRAILER_DIGEST) {
        Single::None => {
            return rejected(
                TrailerMissing,
                "the trailer Repr-Digest is missing".to_owned(),
            );
        }
        Single::Many => None,
        Single::One(value) => value
            .to_str()
            .ok()
            .filter(|v| v.matches("sha-256=").count() == 1)
            .and_then(decode_digest),
    };
    if digest.as_ref() != Some(sha256) {
        return rejected(
            DigestMismatch,
            "what arrived has another SHA-256 than what the agent sent: something in between changes the stream".to_owned(),
        );
    }
    Ok(())
}

/// The failure that the agent tells of.
fn told(trailers: &HeaderMap, error: &[u8], token: Option<&str>) -> Rejected {
    let word = trailers
        .get(TRAILER_REASON)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let known = StreamReason::parse(word);
    let (reason, retry) = match known {
        Some(StreamReason::Draining | StreamReason::Preempted) => {
            (FailureReason::Interrupted, Retry::NotCounted)
        }
        _ => (FailureReason::StreamError, Retry::Counted),
    };
    // A newer agent may have a new word; what is no word at all is not shown as one.
    let plain =
        !word.is_empty() && word.len() <= 32 && word.bytes().all(|b| b.is_ascii_alphanumeric());
    let word = if plain {
        word
    } else {
        StreamReason::Internal.as_str()
    };
    let text = clean(&decode_error(error), token, Keep::Ends);
    Rejected {
        reason,
        retry,
        message: format!("{word}: {text}"),
    }
}

enum Single<'a> {
    None,
    One(&'a HeaderValue),
    Many,
}

fn single<'a>(trailers: &'a HeaderMap, name: &str) -> Single<'a> {
    let mut values = trailers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Single::None,
        (Some(value), None) => Single::One(value),
        (Some(_), Some(_)) => Single::Many,
    }
}

/// Digits only: `FromStr` would take a sign.
fn decimal(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Seconds that locks were held, from the trailer `Server-Timing`, else from the head's header.
pub(crate) fn lock_seconds(end: &End, header: Option<&str>) -> Option<f64> {
    let trailer = match end {
        End::Clean(Some(trailers)) => trailers.get(SERVER_TIMING).and_then(|v| v.to_str().ok()),
        _ => None,
    };
    let metric = trailer
        .or(header)?
        .split(',')
        .map(str::trim)
        .find(|m| m.starts_with("lock;"))?;
    let ms: f64 = metric
        .split(';')
        .find_map(|p| p.trim().strip_prefix("dur="))?
        .parse()
        .ok()?;
    (ms.is_finite() && ms >= 0.0).then_some(ms / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureReason::*;
    use proptest::prelude::*;
    use towline_agent::protocol::encode_digest;

    const SUM: [u8; 32] = [7; 32];

    fn trailers(pairs: &[(&'static str, &str)]) -> End {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        End::Clean(Some(map))
    }

    #[test]
    fn table() {
        let sum = encode_digest(&SUM);
        let other = encode_digest(&[8; 32]);
        let twice = format!("{other}, {sum}");
        let (e, r, b, d) = (TRAILER_ERROR, TRAILER_REASON, TRAILER_BYTES, TRAILER_DIGEST);
        type Case<'a> = (&'a str, End, Option<(FailureReason, Retry)>);
        let counted = |reason| Some((reason, Retry::Counted));
        let cases: Vec<Case<'_>> = vec![
            ("good", trailers(&[(e, ""), (b, "5"), (d, &sum)]), None),
            (
                "cut",
                End::Cut("unexpected EOF".into()),
                counted(StreamTruncated),
            ),
            ("no trailers", End::Clean(None), counted(TrailerMissing)),
            ("empty trailers", trailers(&[]), counted(TrailerMissing)),
            (
                "no verdict",
                trailers(&[(b, "5"), (d, &sum)]),
                counted(TrailerMissing),
            ),
            (
                "verdict twice",
                trailers(&[(e, ""), (e, ""), (b, "5"), (d, &sum)]),
                counted(TrailerMissing),
            ),
            (
                "good and bad verdict",
                trailers(&[(e, ""), (e, "x"), (b, "5"), (d, &sum)]),
                counted(TrailerMissing),
            ),
            (
                "error",
                trailers(&[(e, "x"), (r, "ToolFailed"), (b, "5"), (d, &sum)]),
                counted(StreamError),
            ),
            (
                "error, no word",
                trailers(&[(e, "x"), (b, "5"), (d, &sum)]),
                counted(StreamError),
            ),
            (
                "an encoded blank is an error",
                trailers(&[(e, "%20"), (b, "5"), (d, &sum)]),
                counted(StreamError),
            ),
            (
                "reason without error",
                trailers(&[(e, ""), (r, "ToolFailed"), (b, "5"), (d, &sum)]),
                counted(StreamError),
            ),
            (
                "cancelled at the agent",
                trailers(&[(e, "x"), (r, "Cancelled")]),
                counted(StreamError),
            ),
            (
                "draining",
                trailers(&[(e, "x"), (r, "Draining")]),
                Some((Interrupted, Retry::NotCounted)),
            ),
            (
                "preempted",
                trailers(&[(e, "x"), (r, "Preempted")]),
                Some((Interrupted, Retry::NotCounted)),
            ),
            (
                "no length",
                trailers(&[(e, ""), (d, &sum)]),
                counted(TrailerMissing),
            ),
            (
                "length",
                trailers(&[(e, ""), (b, "6"), (d, &sum)]),
                counted(LengthMismatch),
            ),
            (
                "length with a sign",
                trailers(&[(e, ""), (b, "+5"), (d, &sum)]),
                counted(LengthMismatch),
            ),
            (
                "empty length",
                trailers(&[(e, ""), (b, ""), (d, &sum)]),
                counted(LengthMismatch),
            ),
            (
                "length twice",
                trailers(&[(e, ""), (b, "5"), (b, "5"), (d, &sum)]),
                counted(LengthMismatch),
            ),
            (
                "no digest",
                trailers(&[(e, ""), (b, "5")]),
                counted(TrailerMissing),
            ),
            (
                "digest",
                trailers(&[(e, ""), (b, "5"), (d, &other)]),
                counted(DigestMismatch),
            ),
            (
                "digest twice",
                trailers(&[(e, ""), (b, "5"), (d, &sum), (d, &sum)]),
                counted(DigestMismatch),
            ),
            (
                "two digests in one",
                trailers(&[(e, ""), (b, "5"), (d, &twice)]),
                counted(DigestMismatch),
            ),
            (
                "foul digest",
                trailers(&[(e, ""), (b, "5"), (d, "sha-256=:x:")]),
                counted(DigestMismatch),
            ),
        ];
        for (name, end, expected) in cases {
            let got = judge(&end, 5, &SUM, None)
                .err()
                .map(|r| (r.reason, r.retry));
            assert_eq!(got, expected, "{name}");
        }
        let empty = judge(&trailers(&[(e, ""), (b, "0"), (d, &sum)]), 0, &SUM, None);
        assert_eq!(empty.unwrap_err().reason, StreamTruncated);
    }

    #[test]
    fn the_message_starts_with_the_agents_word() {
        let message = |word: &str, text: &str| {
            judge(
                &trailers(&[(TRAILER_ERROR, text), (TRAILER_REASON, word)]),
                5,
                &SUM,
                Some("s3cret"),
            )
            .unwrap_err()
            .message
        };
        assert_eq!(
            message("ToolIncomplete", "no line%0Aat the end s3cret"),
            "ToolIncomplete: no line at the end ***"
        );
        assert_eq!(message("NewWord", "x"), "NewWord: x");
        assert_eq!(message("<b>", "x"), "Internal: x");
        assert!(
            message("ToolFailed", &format!("{}the end", "x".repeat(3000))).ends_with("the end")
        );
    }

    #[test]
    fn server_timing() {
        let with = |v: &str| lock_seconds(&trailers(&[(SERVER_TIMING, v)]), Some("lock;dur=9000"));
        assert_eq!(
            with("copy;dur=3, lock;dur=1500.5, finish;dur=1"),
            Some(1.5005)
        );
        assert_eq!(with("copy;dur=3"), None);
        assert_eq!(with("lock;dur=NaN"), None);
        assert_eq!(
            lock_seconds(&End::Clean(None), Some("lock;dur=9000")),
            Some(9.0)
        );
    }

    proptest! {
        /// Whatever arrives: it is good only when all four things hold.
        #[test]
        fn good_only_when_all_holds(
            errors in proptest::collection::vec("[a-z%0 ]{0,3}", 0..3),
            words in proptest::collection::vec("[A-Za-z]{0,3}", 0..2),
            lengths in proptest::collection::vec("[0-9]{0,1}", 0..3),
            right in proptest::collection::vec(any::<bool>(), 0..3),
            cut in any::<bool>(),
            bytes in 0u64..10,
        ) {
            let mut map = HeaderMap::new();
            let trimmed: Vec<&str> = errors.iter().map(|e| e.trim()).collect();
            for v in &trimmed { map.append(TRAILER_ERROR, HeaderValue::from_str(v).unwrap()); }
            for v in &words { map.append(TRAILER_REASON, HeaderValue::from_str(v).unwrap()); }
            for v in &lengths { map.append(TRAILER_BYTES, HeaderValue::from_str(v).unwrap()); }
            for ok in &right {
                let d = encode_digest(if *ok { &SUM } else { &[1; 32] });
                map.append(TRAILER_DIGEST, HeaderValue::from_str(&d).unwrap());
            }
            let end = if cut { End::Cut("eof".into()) } else { End::Clean(Some(map)) };
            let good = !cut
                && trimmed == [""]
                && words.iter().all(String::is_empty)
                && bytes > 0
                && lengths == [bytes.to_string()]
                && right == [true];
            prop_assert_eq!(judge(&end, bytes, &SUM, None).is_ok(), good);
        }
    }
}

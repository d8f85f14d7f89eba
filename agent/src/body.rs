//! The body of a backup: it ends in exactly one way, in trailers or in an abort, never silently.

use crate::protocol::{
    SERVER_TIMING, StreamReason, TRAILER_BYTES, TRAILER_DIGEST, TRAILER_ERROR, TRAILER_REASON,
    encode_digest, encode_error,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long each part of a backup took: the `Server-Timing` trailer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the request to a running tool.
    pub precheck: Duration,
    /// From the tool's start to its first byte of output.
    pub first_byte: Duration,
    /// From the first byte to the end of the tool's output.
    pub copy: Duration,
    /// How long the tool held locks that can block writes.
    pub lock: Duration,
    /// From the end of the tool's output to the verdict.
    pub finish: Duration,
}

impl Timings {
    /// The value of [`SERVER_TIMING`], durations in milliseconds.
    #[must_use]
    pub fn header_value(&self) -> String {
        let mut value = String::new();
        let parts = [
            ("precheck", self.precheck),
            ("first-byte", self.first_byte),
            ("copy", self.copy),
            ("lock", self.lock),
            ("finish", self.finish),
        ];
        for (name, duration) in parts {
            let comma = if value.is_empty() { "" } else { ", " };
            let ms = duration.as_secs_f64() * 1000.0;
            // Writing to a String cannot fail.
            let _ = write!(value, "{comma}{name};dur={ms:.1}");
        }
        value
    }
}

/// What a backup came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The archive is whole.
    Complete {
        /// SHA-256 of the whole body.
        sha256: [u8; 32],
        /// Bytes of the whole body.
        bytes: u64,
        /// How long each part took.
        timings: Timings,
    },
    /// The archive is not whole, whatever was sent of it.
    Failed {
        /// Class of the failure.
        reason: StreamReason,
        /// What went wrong, for a person.
        message: String,
        /// How long each part took.
        timings: Timings,
    },
}

/// How a body ended, for the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// With trailers that carry the verdict.
    Trailers,
    /// Cleanly and complete, without trailers, for this peer cannot get any.
    WithoutTrailers,
    /// Cut on purpose: the peer sees an unexpected end.
    Cut,
    /// The reader went away first.
    ReaderGone,
}

/// How the peer can be told the verdict. Without its asking for trailers nobody knows whether it
/// reads them, so a failure is a cut then, on HTTP/2 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It asked for trailers, and gets them.
    Asked,
    /// It can get trailers, and did not ask for them: they tell of success only.
    Unasked,
    /// It cannot get trailers: a complete backup ends cleanly without them.
    Impossible,
}

/// Why a body is cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The producer disappeared without saying how it ended.
    #[error("the backup ended without a verdict")]
    NoVerdict,
    /// The producer's count is not what was sent.
    #[error("{sent} bytes were sent of {expected}")]
    Miscounted {
        /// Bytes that the body gave.
        sent: u64,
        /// Bytes that the producer counted.
        expected: u64,
    },
    /// The backup failed, and the peer asked for no trailers, so the cut is the only way to say it.
    #[error("{reason}: {message}")]
    Undeliverable {
        /// Class of the failure.
        reason: StreamReason,
        /// What went wrong.
        message: String,
    },
}

#[derive(Debug, Default)]
struct EndedState {
    bytes: AtomicU64,
    end: Mutex<Option<(BodyEnd, Option<Verdict>)>>,
}

/// What became of a body; readable at any time, from anywhere, also after the body is gone.
#[derive(Clone, Debug, Default)]
pub struct Ended(Arc<EndedState>);

impl Ended {
    /// Bytes that the body has given so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// How the body ended; `None` while it has not.
    #[must_use]
    pub fn end(&self) -> Option<BodyEnd> {
        self.0
            .end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|(end, _)| *end)
    }

    /// The verdict; `None` while there is none, and for ever when the reader left before it.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let end = self.0.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.as_ref().and_then(|(_, verdict)| verdict.clone())
    }

    fn set(&self, end: BodyEnd, verdict: Option<Verdict>) {
        let mut slot = self.0.end.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some((end, verdict));
        }
    }
}

/// The producing end of a [`BackupBody`]: chunks first, then a verdict.
#[derive(Debug)]
pub struct BodySender {
    /// Chunks of the body. Sending waits while the reader is slow; it fails once the reader is gone.
    pub chunks: mpsc::Sender<Bytes>,
    /// The end. The body waits for it once every sender of chunks is dropped.
    pub verdict: oneshot::Sender<Verdict>,
}

/// The body of a backup response. Dropping it before its end tells the producer that the reader
/// went away.
#[derive(Debug)]
pub struct BackupBody {
    chunks: mpsc::Receiver<Bytes>,
    verdict: oneshot::Receiver<Verdict>,
    delivery: Delivery,
    sent: u64,
    ended: Ended,
    done: bool,
}

impl BackupBody {
    /// A body and its producing end, with room for `capacity` chunks between them.
    #[must_use]
    pub fn channel(capacity: usize) -> (BodySender, Self) {
        let (chunks_tx, chunks) = mpsc::channel(capacity);
        let (verdict_tx, verdict) = oneshot::channel();
        let body = Self {
            chunks,
            verdict,
            delivery: Delivery::Asked,
            sent: 0,
            ended: Ended::default(),
            done: false,
        };
        (
            BodySender {
                chunks: chunks_tx,
                verdict: verdict_tx,
            },
            body,
        )
    }

    /// How the peer is told the verdict: never by a clean end without a verdict for a failure.
    #[must_use]
    pub fn deliver_verdict(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// A handle that tells how this body ended.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }

    fn cut(
        &mut self,
        verdict: Option<Verdict>,
        error: BodyError,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.done = true;
        self.ended.set(BodyEnd::Cut, verdict);
        Some(Err(error))
    }

    fn conclude(&mut self, verdict: Option<Verdict>) -> Option<Result<Frame<Bytes>, BodyError>> {
        let Some(verdict) = verdict else {
            return self.cut(None, BodyError::NoVerdict);
        };
        if let Verdict::Complete { bytes, .. } = verdict
            && bytes != self.sent
        {
            return self.cut(
                None,
                BodyError::Miscounted {
                    sent: self.sent,
                    expected: bytes,
                },
            );
        }
        match (&verdict, self.delivery) {
            (_, Delivery::Asked) | (Verdict::Complete { .. }, Delivery::Unasked) => {
                let trailers = trailers(&verdict, self.sent);
                self.done = true;
                self.ended.set(BodyEnd::Trailers, Some(verdict));
                Some(Ok(Frame::trailers(trailers)))
            }
            (Verdict::Complete { .. }, Delivery::Impossible) => {
                self.done = true;
                self.ended.set(BodyEnd::WithoutTrailers, Some(verdict));
                None
            }
            (
                Verdict::Failed {
                    reason, message, ..
                },
                Delivery::Unasked | Delivery::Impossible,
            ) => {
                let error = BodyError::Undeliverable {
                    reason: *reason,
                    message: message.clone(),
                };
                self.cut(Some(verdict), error)
            }
        }
    }
}

/// The trailers of a verdict, as protocol.md lists them.
fn trailers(verdict: &Verdict, sent: u64) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(5);
    let timings = match verdict {
        Verdict::Complete {
            sha256, timings, ..
        } => {
            map.insert(TRAILER_ERROR, HeaderValue::from_static(""));
            if let Ok(digest) = HeaderValue::try_from(encode_digest(sha256)) {
                map.insert(TRAILER_DIGEST, digest);
            }
            timings
        }
        Verdict::Failed {
            reason,
            message,
            timings,
        } => {
            // The encoding leaves printable ASCII alone, so the fallback is never taken; were it,
            // the trailer would still say that the backup failed.
            let error = HeaderValue::try_from(encode_error(message))
                .unwrap_or(HeaderValue::from_static("unknown error"));
            map.insert(TRAILER_ERROR, error);
            map.insert(TRAILER_REASON, HeaderValue::from_static(reason.as_str()));
            timings
        }
    };
    map.insert(TRAILER_BYTES, HeaderValue::from(sent));
    if let Ok(timing) = HeaderValue::try_from(timings.header_value()) {
        map.insert(SERVER_TIMING, timing);
    }
    map
}

impl http_body::Body for BackupBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(chunk) = ready!(this.chunks.poll_recv(cx)) {
            this.sent += chunk.len() as u64;
            this.ended.0.bytes.store(this.sent, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let verdict = ready!(Pin::new(&mut this.verdict).poll(cx)).ok();
        Poll::Ready(this.conclude(verdict))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

impl Drop for BackupBody {
    fn drop(&mut self) {
        if !self.done {
            self.ended.set(BodyEnd::ReaderGone, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{decode_digest, decode_error};
    use http_body_util::BodyExt as _;

    fn complete(bytes: u64) -> Verdict {
        Verdict::Complete {
            sha256: [7; 32],
            bytes,
            timings: Timings::default(),
        }
    }

    fn failed() -> Verdict {
        Verdict::Failed {
            reason: StreamReason::ToolFailed,
            message: "line one\nline two".into(),
            timings: Timings::default(),
        }
    }

    async fn send(verdict: Option<Verdict>, delivery: Delivery) -> (BackupBody, Ended) {
        let (sender, body) = BackupBody::channel(4);
        sender
            .chunks
            .send(Bytes::from_static(b"abc"))
            .await
            .unwrap();
        drop(sender.chunks);
        match verdict {
            Some(verdict) => sender.verdict.send(verdict).unwrap(),
            None => drop(sender.verdict),
        }
        let body = body.deliver_verdict(delivery);
        let ended = body.ended();
        (body, ended)
    }

    #[tokio::test]
    async fn a_complete_backup_ends_in_an_empty_error() {
        let (body, ended) = send(Some(complete(3)), Delivery::Asked).await;
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(trailers[TRAILER_ERROR], "");
        assert_eq!(trailers[TRAILER_BYTES], "3");
        assert_eq!(
            decode_digest(trailers[TRAILER_DIGEST].to_str().unwrap()),
            Some([7; 32])
        );
        assert_eq!(trailers.get(TRAILER_REASON), None);
        assert_eq!(
            trailers[SERVER_TIMING],
            "precheck;dur=0.0, first-byte;dur=0.0, copy;dur=0.0, lock;dur=0.0, finish;dur=0.0"
        );
        assert_eq!(ended.end(), Some(BodyEnd::Trailers));
        assert_eq!(ended.bytes(), 3);
    }

    #[tokio::test]
    async fn a_failed_backup_says_why_and_has_no_digest() {
        let (body, ended) = send(Some(failed()), Delivery::Asked).await;
        let trailers = body.collect().await.unwrap().trailers().unwrap().clone();
        assert_eq!(
            decode_error(trailers[TRAILER_ERROR].as_bytes()),
            "line one\nline two"
        );
        assert_eq!(trailers[TRAILER_REASON], "ToolFailed");
        assert_eq!(trailers.get(TRAILER_DIGEST), None);
        assert_eq!(ended.verdict(), Some(failed()));
    }

    #[tokio::test]
    async fn who_did_not_ask_sees_only_success_end_cleanly() {
        let (body, ended) = send(Some(complete(3)), Delivery::Impossible).await;
        let collected = body.collect().await.unwrap();
        assert!(collected.trailers().is_none());
        assert_eq!(ended.end(), Some(BodyEnd::WithoutTrailers));

        let (body, ended) = send(Some(complete(3)), Delivery::Unasked).await;
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()[TRAILER_ERROR], "");
        assert_eq!(ended.end(), Some(BodyEnd::Trailers));

        for delivery in [Delivery::Unasked, Delivery::Impossible] {
            let (body, ended) = send(Some(failed()), delivery).await;
            assert!(matches!(
                body.collect().await,
                Err(BodyError::Undeliverable { .. })
            ));
            assert_eq!(ended.end(), Some(BodyEnd::Cut));
            assert_eq!(ended.verdict(), Some(failed()));
        }
    }

    #[tokio::test]
    async fn no_verdict_and_a_wrong_count_are_cuts() {
        for delivery in [Delivery::Asked, Delivery::Unasked, Delivery::Impossible] {
            let (body, ended) = send(None, delivery).await;
            assert_eq!(body.collect().await.unwrap_err(), BodyError::NoVerdict);
            assert_eq!(ended.end(), Some(BodyEnd::Cut));
            let (body, _) = send(Some(complete(4)), delivery).await;
            let error = body.collect().await.unwrap_err();
            assert_eq!(
                error,
                BodyError::Miscounted {
                    sent: 3,
                    expected: 4
                }
            );
        }
    }

    #[tokio::test]
    async fn a_dropped_body_is_a_reader_gone() {
        let (body, ended) = send(Some(complete(3)), Delivery::Asked).await;
        assert_eq!(ended.end(), None);
        drop(body);
        assert_eq!(ended.end(), Some(BodyEnd::ReaderGone));
    }
}

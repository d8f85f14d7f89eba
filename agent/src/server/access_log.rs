//! One log line per request, whatever ends it: the line is written when the last part of the
//! exchange is dropped, so a reader that leaves and a handler that panics are logged too.

use crate::body::{Ended, Verdict};
use crate::metrics::HttpMetrics;
use crate::protocol::HEADER_REQUEST_ID;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// Longest text of a peer in the log, in characters.
const MAX_TEXT: usize = 256;

/// Target of the line's tracing event.
pub const TARGET: &str = "towline_agent::access";

/// How the exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The body ended cleanly, without trailers.
    Complete,
    /// The body ended in trailers.
    Trailers,
    /// The body was cut on purpose: the peer sees an unexpected end.
    Aborted,
    /// The peer left, or its connection was closed, before the end.
    Disconnected,
    /// The agent's own code panicked.
    Panicked,
}

impl End {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Trailers => "trailers",
            Self::Aborted => "aborted",
            Self::Disconnected => "disconnected",
            Self::Panicked => "panicked",
        }
    }
}

fn shown(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT)
        .collect()
}

/// The request's id: the peer's own, if it is harmless in logs and headers, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let id = headers
        .get(HEADER_REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match id {
        Some(id) if (1..=64).contains(&id.len()) && id.bytes().all(harmless) => id.to_owned(),
        _ => uuid::Uuid::new_v4().to_string(),
    }
}

/// What is known of one exchange. Dropping it writes the line and counts the request.
#[derive(Debug)]
pub struct Record<G> {
    metrics: HttpMetrics,
    started: Instant,
    method: String,
    path: String,
    route: &'static str,
    protocol: http::Version,
    remote: SocketAddr,
    user_agent: Option<String>,
    request_id: String,
    peer: Option<Arc<str>>,
    request_bytes: Arc<AtomicU64>,
    response_bytes: u64,
    status: Option<StatusCode>,
    end: Option<End>,
    error: Option<String>,
    backup: Option<Ended>,
    // Dropped with the record: the connection counts what is in flight by it.
    _in_flight: G,
}

impl<G> Record<G> {
    /// Begins the record of a request.
    pub fn begin<B>(
        request: Request<B>,
        remote: SocketAddr,
        metrics: HttpMetrics,
        in_flight: G,
    ) -> (Self, Request<CountedBody<B>>) {
        let headers = request.headers();
        let user_agent = headers
            .get(USER_AGENT)
            .map(|v| shown(&String::from_utf8_lossy(v.as_bytes())));
        let request_bytes = Arc::new(AtomicU64::new(0));
        let record = Self {
            metrics,
            started: Instant::now(),
            method: shown(request.method().as_str()),
            // Without the query: what callers put there by mistake may be a secret.
            path: shown(request.uri().path()),
            route: "other",
            protocol: request.version(),
            remote,
            user_agent,
            request_id: request_id(headers),
            peer: None,
            request_bytes: request_bytes.clone(),
            response_bytes: 0,
            status: None,
            end: None,
            error: None,
            backup: None,
            _in_flight: in_flight,
        };
        let request = request.map(|inner| CountedBody {
            inner,
            bytes: request_bytes,
        });
        (record, request)
    }

    /// Names the route, for the metrics: one of a fixed set.
    pub fn route(&mut self, route: &'static str) {
        self.route = route;
    }

    /// Names the caller.
    pub fn peer(&mut self, name: Arc<str>) {
        self.peer = Some(name);
    }

    /// Says that a handler panicked.
    pub fn panicked(&mut self) {
        self.error = Some("a handler panicked".to_owned());
    }

    /// Hands the record over to the response's body, which ends it.
    pub fn respond<B: Body>(mut self, response: Response<B>) -> Response<LoggedBody<B, G>> {
        self.status = Some(response.status());
        self.backup = response.extensions().get::<Ended>().cloned();
        let id = http::HeaderValue::try_from(self.request_id.as_str());
        let mut response = response.map(|inner| LoggedBody {
            inner,
            record: self,
        });
        if let Ok(id) = id {
            response
                .headers_mut()
                .insert(HeaderName::from_static(HEADER_REQUEST_ID), id);
        }
        response
    }
}

impl<G> Drop for Record<G> {
    fn drop(&mut self) {
        let end = match self.end {
            Some(end) => end,
            None if std::thread::panicking() => End::Panicked,
            None => End::Disconnected,
        };
        let verdict = self
            .backup
            .as_ref()
            .and_then(Ended::verdict)
            .map(|verdict| match verdict {
                Verdict::Complete { .. } => "complete",
                Verdict::Failed { reason, .. } => reason.as_str(),
            });
        self.metrics.request(self.route, self.status);
        tracing::info!(
            target: TARGET,
            method = self.method,
            path = self.path,
            protocol = ?self.protocol,
            status = self.status.map(|s| s.as_u16()),
            request_bytes = self.request_bytes.load(Ordering::Relaxed),
            response_bytes = self.response_bytes,
            elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            remote = %self.remote,
            user_agent = self.user_agent,
            request_id = self.request_id,
            peer = self.peer.as_deref(),
            end = end.as_str(),
            verdict,
            error = self.error,
            "request"
        );
    }
}

pin_project! {
    /// Counts a request's body.
    #[derive(Debug)]
    pub struct CountedBody<B> {
        #[pin]
        inner: B,
        bytes: Arc<AtomicU64>,
    }
}

impl<B: Body<Data = Bytes>> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// A response body that is passed through unchanged, frame by frame, and recorded.
    #[derive(Debug)]
    pub struct LoggedBody<B: Body, G> {
        #[pin]
        inner: B,
        // Declared behind `inner`, so dropped after it: a backup's body says at its own end what
        // became of it.
        record: Record<G>,
    }

    impl<B: Body, G> PinnedDrop for LoggedBody<B, G> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // hyper does not poll a body again that has said that it is at its end.
            if this.record.end.is_none() && this.inner.is_end_stream() {
                this.record.end = Some(End::Complete);
            }
        }
    }
}

impl<B, G> Body for LoggedBody<B, G>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        let record = this.record;
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    record.response_bytes += data.len() as u64;
                } else if frame.is_trailers() {
                    record.end = Some(End::Trailers);
                }
            }
            Some(Err(error)) => {
                record.end = Some(End::Aborted);
                record.error = Some(shown(&error.to_string()));
            }
            None => {
                record.end.get_or_insert(End::Complete);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_request_ids_are_taken() {
        let id = |value: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(
                HEADER_REQUEST_ID,
                http::HeaderValue::from_bytes(value).unwrap(),
            );
            request_id(&headers)
        };
        assert_eq!(id(b"abc-1_2.3"), "abc-1_2.3");
        for bad in [&b""[..], b"a b", b"a\"b", b"\xff", &[b'a'; 65]] {
            let text = String::from_utf8_lossy(bad).into_owned();
            assert_ne!(id(Box::leak(bad.to_vec().into_boxed_slice())), text);
        }
    }
}

//! Watches a pull without touching it: the idea of Go's `net/http/httptrace`.
//!
//! Hooks are given shared references and return nothing, so none can change a request; one that
//! panics is contained; without a trace a hook costs a look at an `Option`.

mod timings;
mod waterfall;

pub(crate) use timings::TimingsTrace;
pub use waterfall::Waterfall;

use http::{HeaderMap, StatusCode};
use std::{
    fmt,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `GET`.
    pub method: &'a str,
    /// `https://host:port` or `http://host:port`.
    pub base: &'a str,
    /// Path, without the query.
    pub path: &'a str,
}

/// The connection that a request goes out on.
#[derive(Clone, Copy, Debug)]
pub struct GotConnection {
    /// The agent's address.
    pub address: SocketAddr,
    /// How long the connection had been idle; `None`: it is new.
    pub idle: Option<Duration>,
}

/// What was agreed upon in a TLS handshake.
#[derive(Clone, Copy, Debug)]
pub struct Agreed<'a> {
    /// `TLSv1_3`.
    pub version: &'a str,
    /// Name of the cipher suite.
    pub cipher_suite: &'a str,
}

/// What can be watched, in the order in which it happens. Errors are short, clean texts. Hooks are
/// called in the midst of the work, so they must be quick.
pub trait ClientTrace: Send + Sync {
    /// A connection is wanted.
    fn get_connection(&self, _target: &Target<'_>) {}
    /// The name is being resolved. An address in the URL is not.
    fn dns_start(&self, _host: &str) {}
    /// The name has these addresses. Those that may not be connected to are among them.
    fn dns_done(&self, _addresses: Result<&[SocketAddr], &str>) {}
    /// One address is being connected to.
    fn connect_start(&self, _address: SocketAddr) {}
    /// It is connected, or not; then the next one is tried.
    fn connect_done(&self, _address: SocketAddr, _result: Result<(), &str>) {}
    /// The TLS handshake begins.
    fn tls_start(&self) {}
    /// The TLS handshake is over.
    fn tls_done(&self, _result: Result<&Agreed<'_>, &str>) {}
    /// There is a connection; what follows is about one request on it.
    fn got_connection(&self, _connection: &GotConnection) {}
    /// The first bytes of the request's head were written.
    fn wrote_headers(&self) {}
    /// The whole request was handed to the kernel.
    fn wrote_request(&self, _result: Result<(), &str>) {}
    /// An interim answer came (RFC 9110, 15.2), mostly `100 Continue`.
    fn got_informational(&self, _status: StatusCode, _headers: &HeaderMap) {}
    /// The first byte of the answer came.
    fn got_first_response_byte(&self) {}
    /// The body is over, cleanly after so many bytes or not.
    fn body_end(&self, _result: Result<u64, &str>) {}
    /// Trailers came behind the body.
    fn got_trailers(&self, _trailers: &HeaderMap) {}
}

/// Nobody's, one's or several people's hooks. Cheap to clone; nobody's takes no memory.
#[derive(Clone, Default)]
pub struct Trace(Arc<[Arc<dyn ClientTrace>]>);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({})", self.0.len())
    }
}

impl Trace {
    /// Nobody watches.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Somebody watches.
    #[must_use]
    pub fn of(trace: Arc<dyn ClientTrace>) -> Self {
        Self(Arc::new([trace]))
    }

    /// Somebody watches, too.
    #[must_use]
    pub fn and(&self, trace: Arc<dyn ClientTrace>) -> Self {
        Self(self.0.iter().cloned().chain([trace]).collect())
    }

    /// Whether anybody watches.
    pub(crate) fn watched(&self) -> bool {
        !self.0.is_empty()
    }

    /// Calls a hook of each watcher.
    pub(crate) fn tell(&self, hook: impl Fn(&dyn ClientTrace)) {
        for trace in self.0.iter() {
            // A watcher's fault must not become the backup's.
            if catch_unwind(AssertUnwindSafe(|| hook(trace.as_ref()))).is_err() {
                tracing::error!("a hook of a client trace panicked; the backup goes on");
            }
        }
    }
}

/// Writes every hook to the log, at debug level.
#[derive(Debug)]
pub(crate) struct LogTrace;

impl LogTrace {
    /// Whether anybody would read it.
    pub(crate) fn wanted() -> bool {
        tracing::enabled!(tracing::Level::DEBUG)
    }
}

impl ClientTrace for LogTrace {
    fn get_connection(&self, target: &Target<'_>) {
        tracing::debug!(
            target.method,
            target.base,
            target.path,
            "trace: get connection"
        );
    }

    fn dns_start(&self, host: &str) {
        tracing::debug!(host, "trace: dns start");
    }

    fn dns_done(&self, addresses: Result<&[SocketAddr], &str>) {
        tracing::debug!(?addresses, "trace: dns done");
    }

    fn connect_start(&self, address: SocketAddr) {
        tracing::debug!(%address, "trace: connect start");
    }

    fn connect_done(&self, address: SocketAddr, result: Result<(), &str>) {
        tracing::debug!(%address, ?result, "trace: connect done");
    }

    fn tls_start(&self) {
        tracing::debug!("trace: tls start");
    }

    fn tls_done(&self, result: Result<&Agreed<'_>, &str>) {
        tracing::debug!(?result, "trace: tls done");
    }

    fn got_connection(&self, connection: &GotConnection) {
        tracing::debug!(address = %connection.address, idle = ?connection.idle, "trace: got connection");
    }

    fn wrote_headers(&self) {
        tracing::debug!("trace: wrote headers");
    }

    fn wrote_request(&self, result: Result<(), &str>) {
        tracing::debug!(?result, "trace: wrote request");
    }

    fn got_informational(&self, status: StatusCode, _headers: &HeaderMap) {
        tracing::debug!(%status, "trace: got informational");
    }

    fn got_first_response_byte(&self) {
        tracing::debug!("trace: got first response byte");
    }

    fn body_end(&self, result: Result<u64, &str>) {
        tracing::debug!(?result, "trace: body end");
    }

    fn got_trailers(&self, trailers: &HeaderMap) {
        let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
        tracing::debug!(?names, "trace: got trailers");
    }
}

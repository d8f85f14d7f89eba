//! The registry, and what the HTTP server counts. The engine's metrics are in
//! [`crate::backup`]; the names of both are those of metrics.md.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// What the server of `/v1` counts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    connections: IntGauge,
}

impl HttpMetrics {
    /// Registers them, and the build's version.
    ///
    /// # Errors
    /// When one of the names is already taken in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "towline_agent_http_requests_total",
                "Requests to /v1 that ended, by route and status (none: the caller left before one was sent).",
            ),
            &["path", "status"],
        )?;
        let connections = IntGauge::new(
            "towline_agent_http_connections",
            "Open connections to the listener of /v1.",
        )?;
        let build = IntGaugeVec::new(
            Opts::new(
                "towline_agent_build_info",
                "Always 1; the label is the agent's version.",
            ),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(build))?;
        Ok(Self {
            requests,
            connections,
        })
    }

    /// Counts one ended request. `path` is a route, never what a caller wrote: labels are bounded.
    pub(crate) fn request(&self, path: &'static str, status: Option<http::StatusCode>) {
        let status = status.as_ref().map_or("none", http::StatusCode::as_str);
        self.requests.with_label_values(&[path, status]).inc();
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn connection(&self) -> ConnectionGuard {
        self.connections.inc();
        ConnectionGuard(self.connections.clone())
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(IntGauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Everything in `registry` in the Prometheus text format.
///
/// # Errors
/// When a metric is inconsistent: a fault of the agent.
pub fn render(registry: &Registry) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&registry.gather())
}

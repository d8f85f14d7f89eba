//! The registry, and what the HTTP server counts. The engine's metrics are in
//! [`crate::backup`]; the names of both are those of metrics.md.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// What the server of `/v1` counts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    connections: IntGauge,
}

impl HttpMetrics {
    /// Registers them.
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
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(connections.clone()))?;
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

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// The caller presented no certificate, or one that is not accepted.
    ClientCertificate,
    /// The caller does not accept ours.
    Refused,
    /// What came is not the TLS that the agent speaks.
    Protocol,
    /// It took too long.
    Timeout,
    /// The caller left.
    Disconnected,
}

impl HandshakeFailure {
    const ALL: [Self; 5] = [
        Self::ClientCertificate,
        Self::Refused,
        Self::Protocol,
        Self::Timeout,
        Self::Disconnected,
    ];

    /// Label in the metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCertificate => "client-certificate",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
        }
    }
}

/// What is known of TLS on the listener of `/v1`. Absent without TLS: an expiry of 0 would alarm.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    failures: IntCounterVec,
    expiry: IntGauge,
}

impl TlsMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When one of the names is already taken in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let failures = IntCounterVec::new(
            Opts::new(
                "towline_agent_tls_handshake_failures_total",
                "TLS handshakes on the listener of /v1 that failed, by reason.",
            ),
            &["reason"],
        )?;
        for kind in HandshakeFailure::ALL {
            failures.with_label_values(&[kind.as_str()]);
        }
        let expiry = IntGauge::new(
            "towline_agent_tls_certificate_expiry_timestamp_seconds",
            "When the agent's certificate expires, in Unix time.",
        )?;
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(expiry.clone()))?;
        Ok(Self { failures, expiry })
    }

    pub(crate) fn failed(&self, kind: HandshakeFailure) {
        self.failures.with_label_values(&[kind.as_str()]).inc();
    }

    /// `not_after` in Unix time, seconds.
    pub(crate) fn expiry(&self, not_after: i64) {
        self.expiry.set(not_after);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backup::BackupMetrics, build::Build};
    use std::collections::BTreeSet;

    /// docs/metrics.md names every metric with its labels, and no other.
    #[test]
    fn the_document_has_every_metric_and_no_other() {
        let registry = Registry::new();
        let http = HttpMetrics::new(&registry).unwrap();
        http.request("/v1/backup", None);
        let _tls = TlsMetrics::new(&registry).unwrap();
        let backups = BackupMetrics::new(&registry).unwrap();
        backups.ended("physical", None, 1.0);
        backups
            .stage_duration
            .with_label_values(&["FLUSH"])
            .set(1.0);
        backups.restored(None);
        Build::new(None)
            .register("towline_agent_build_info", &registry)
            .unwrap();
        let exposed: BTreeSet<String> = registry
            .gather()
            .iter()
            .map(|family| {
                let labels = family.get_metric()[0].get_label().iter();
                // The library sorts labels by name; the document need not.
                let labels: BTreeSet<_> = labels.map(|label| label.name().to_owned()).collect();
                format!("{} {labels:?}", family.name())
            })
            .collect();
        let document = include_str!("../../docs/metrics.md");
        let documented: BTreeSet<String> = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|metric| metric.starts_with("towline_agent_"))
            .map(|metric| {
                let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
                let labels = labels.trim_end_matches('}').split(',');
                let labels: BTreeSet<_> = labels
                    .filter(|l| !l.is_empty())
                    .map(str::to_owned)
                    .collect();
                format!("{name} {labels:?}")
            })
            .collect();
        assert_eq!(exposed, documented);
    }
}

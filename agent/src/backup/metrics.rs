//! What the engine counts, under the names of metrics.md.

use crate::protocol::StreamReason;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts,
    Registry,
};

/// The engine's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BackupMetrics {
    pub(crate) backups: IntCounterVec,
    pub(crate) running: IntGauge,
    pub(crate) raw_bytes: prometheus::IntCounter,
    pub(crate) sent_bytes: prometheus::IntCounter,
    pub(crate) duration: HistogramVec,
    pub(crate) stage_duration: GaugeVec,
    pub(crate) lock_duration: Histogram,
    pub(crate) last_lock: Gauge,
    pub(crate) lock_limit: Gauge,
    pub(crate) lock_buffer: IntGauge,
    pub(crate) last_success: Gauge,
    pub(crate) restores: IntCounterVec,
    pub(crate) restore_running: IntGauge,
    pub(crate) restore_bytes: prometheus::IntCounter,
}

impl BackupMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When one of the names is already taken in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let backups = IntCounterVec::new(
            Opts::new(
                "towline_agent_backups_total",
                "Backups that ended, by method and by reason of the failure (empty: complete).",
            ),
            &["method", "reason"],
        )?;
        let running = IntGauge::new(
            "towline_agent_backup_running",
            "1 while a backup runs, else 0.",
        )?;
        let bytes = IntCounterVec::new(
            Opts::new(
                "towline_agent_backup_bytes_total",
                "Bytes that the tools gave (raw) and that went into response bodies (sent).",
            ),
            &["kind"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "towline_agent_backup_duration_seconds",
                "Time from a request to its verdict.",
            )
            .buckets(vec![
                1.0,
                5.0,
                15.0,
                60.0,
                300.0,
                900.0,
                3600.0,
                4.0 * 3600.0,
                12.0 * 3600.0,
            ]),
            &["method"],
        )?;
        let stage_duration = GaugeVec::new(
            Opts::new(
                "towline_agent_stage_duration_seconds",
                "How long each stage of the last backup took.",
            ),
            &["stage"],
        )?;
        let lock_duration = Histogram::with_opts(
            HistogramOpts::new(
                "towline_agent_lock_duration_seconds",
                "How long a backup held locks that can block writes.",
            )
            .buckets(vec![
                0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
            ]),
        )?;
        let last_lock = Gauge::new(
            "towline_agent_last_lock_duration_seconds",
            "How long the last physical backup held such locks; 0 when there was none since the start.",
        )?;
        let lock_limit = Gauge::new(
            "towline_agent_lock_limit_seconds",
            "How long a backup may hold such locks before it is given up: --max-lock-seconds.",
        )?;
        let lock_buffer = IntGauge::new(
            "towline_agent_lock_buffer_bytes",
            "Bytes held in memory so that locks are released at the tool's own pace.",
        )?;
        let last_success = Gauge::new(
            "towline_agent_last_success_timestamp_seconds",
            "When the last complete backup ended; 0 when there was none since the start.",
        )?;
        let restores = IntCounterVec::new(
            Opts::new(
                "towline_agent_restores_total",
                "Restores that began and ended, by reason of the failure (empty: complete).",
            ),
            &["reason"],
        )?;
        let restore_running = IntGauge::new(
            "towline_agent_restore_running",
            "1 while a restore runs, else 0.",
        )?;
        let restore_bytes = prometheus::IntCounter::new(
            "towline_agent_restore_bytes_total",
            "Bytes of archives that were read to be restored.",
        )?;
        for collector in [
            Box::new(backups.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(running.clone()),
            Box::new(bytes.clone()),
            Box::new(duration.clone()),
            Box::new(stage_duration.clone()),
            Box::new(lock_duration.clone()),
            Box::new(last_lock.clone()),
            Box::new(lock_limit.clone()),
            Box::new(lock_buffer.clone()),
            Box::new(last_success.clone()),
            Box::new(restores.clone()),
            Box::new(restore_running.clone()),
            Box::new(restore_bytes.clone()),
        ] {
            registry.register(collector)?;
        }
        Ok(Self {
            backups,
            running,
            raw_bytes: bytes.with_label_values(&["raw"]),
            sent_bytes: bytes.with_label_values(&["sent"]),
            duration,
            stage_duration,
            lock_duration,
            last_lock,
            lock_limit,
            lock_buffer,
            last_success,
            restores,
            restore_running,
            restore_bytes,
        })
    }

    /// Counts one ended restore; no reason means that it is complete.
    pub(crate) fn restored(&self, reason: Option<StreamReason>) {
        let reason = reason.map_or("", StreamReason::as_str);
        self.restores.with_label_values(&[reason]).inc();
    }

    /// Counts one ended backup; no reason means that it is complete.
    pub(crate) fn ended(&self, method: &str, reason: Option<StreamReason>, seconds: f64) {
        let reason = reason.map_or("", StreamReason::as_str);
        self.backups.with_label_values(&[method, reason]).inc();
        self.duration.with_label_values(&[method]).observe(seconds);
    }
}

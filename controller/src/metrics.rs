//! The controller's metrics: one struct, registered into a registry that is passed in. Labels are
//! bounded; series go when their object goes.

mod by_schedule;

use crate::{
    api::{job::Phase, restore::RestorePhase},
    reason::{FailureReason, RestoreReason},
    restore::Kind,
    storage::{Operation, RequestObserver, RequestResult},
    transfer::Timings,
};
use by_schedule::BySchedule;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Namespace and name.
type NamespacedName = (String, String);

/// The controller's metrics.
#[derive(Debug)]
pub struct Metrics {
    schedule_last_success: IntGaugeVec,
    schedule_overdue: IntGaugeVec,
    schedule_last_verified: IntGaugeVec,
    schedule_verified: IntGaugeVec,
    schedule_verify_overdue: IntGaugeVec,
    schedule_next_run: IntGaugeVec,
    schedule_last_bytes: IntGaugeVec,
    schedule_last_duration: GaugeVec,
    schedule_last_phase: GaugeVec,
    schedule_last_lock: GaugeVec,
    schedule_last_drill: GaugeVec,
    schedule_last_failure: IntGaugeVec,
    last_failures: Mutex<HashMap<NamespacedName, FailureReason>>,
    schedule_failures: IntGaugeVec,
    schedule_suspended: IntGaugeVec,
    schedule_backups: IntGaugeVec,
    schedule_stored_bytes: IntGaugeVec,
    jobs: BySchedule<2>,
    restores: IntCounterVec,
    drills: BySchedule<1>,
    attempts: BySchedule<1>,
    transfer_bytes: BySchedule<0>,
    /// Transfers that run.
    pub transfers_running: IntGauge,
    /// Jobs that wait for one of the `--max-transfers`.
    pub transfers_waiting: IntGauge,
    /// 1 while this replica leads.
    pub leader: IntGauge,
    transfer_phase: HistogramVec,
    start_delay: Histogram,
    store_ready: IntGaugeVec,
    store_requests: IntCounterVec,
    store_request_duration: HistogramVec,
    /// Unfinished uploads of dead attempts that the sweep aborted.
    pub swept_uploads: IntCounter,
    /// Backups that retention deleted.
    pub retention_deleted: IntCounter,
    reconcile_duration: HistogramVec,
    reconcile_errors: IntCounterVec,
    malformed: IntGaugeVec,
    malformed_objects: Mutex<HashSet<(String, NamespacedName)>>,
}

/// What is known of one schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScheduleMetrics {
    /// Of the last success, seconds since the epoch.
    pub last_success: Option<i64>,
    /// From when on the schedule is overdue, seconds since the epoch.
    pub overdue: Option<i64>,
    /// Of the last drill that restored a backup, seconds since the epoch.
    pub last_verified: Option<i64>,
    /// Whether the newest drill that says anything about its backup has restored it.
    pub verified: Option<bool>,
    /// From when on drills are overdue, seconds since the epoch.
    pub verify_overdue: Option<i64>,
    /// Of the next run, seconds since the epoch.
    pub next_run: Option<i64>,
    /// Size of the newest backup.
    pub last_bytes: Option<u64>,
    /// From start to end of the newest backup's job.
    pub last_duration: Option<Duration>,
    /// Where the time of the newest backup went.
    pub last_timings: Timings,
    /// From start to end of the newest drill that passed.
    pub last_drill: Option<Duration>,
    /// When the newest job that failed ended, seconds since the epoch, and why it failed.
    pub last_failure: Option<(i64, FailureReason)>,
    /// Jobs that failed since one succeeded.
    pub consecutive_failures: u32,
    /// `spec.suspend`.
    pub suspended: bool,
    /// Backups in the store.
    pub backups: Option<u64>,
    /// Their size.
    pub stored_bytes: Option<u64>,
}

const SCHEDULE: [&str; 2] = ["namespace", "schedule"];

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When the registry has one of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let int_gauges = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let histograms = |name: &str, help: &str, labels: &[&str], buckets: Vec<f64>| {
            let metric =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let metric = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let start_delay = Histogram::with_opts(
            HistogramOpts::new(
                "towline_start_delay_seconds",
                "From a job's due time to the first byte of its backup.",
            )
            .buckets(vec![
                0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0,
            ]),
        )?;
        registry.register(Box::new(start_delay.clone()))?;
        Ok(Self {
            schedule_last_success: int_gauges(
                "towline_schedule_last_success_timestamp_seconds",
                "When a job of the schedule last succeeded, seconds since the epoch.",
                &SCHEDULE,
            )?,
            schedule_overdue: int_gauges(
                "towline_schedule_overdue_timestamp_seconds",
                "When the schedule is overdue unless a job of it succeeds before, seconds since the epoch.",
                &SCHEDULE,
            )?,
            schedule_last_verified: int_gauges(
                "towline_schedule_last_verified_timestamp_seconds",
                "When a drill last restored a backup of the schedule, seconds since the epoch.",
                &SCHEDULE,
            )?,
            schedule_verified: int_gauges(
                "towline_schedule_verified",
                "1 when the newest drill that says anything about its backup has restored it, 0 when the backup is at fault.",
                &SCHEDULE,
            )?,
            schedule_verify_overdue: int_gauges(
                "towline_schedule_verify_overdue_timestamp_seconds",
                "When drills of the schedule are overdue unless one passes before, seconds since the epoch.",
                &SCHEDULE,
            )?,
            schedule_next_run: int_gauges(
                "towline_schedule_next_run_timestamp_seconds",
                "When the schedule is due next, seconds since the epoch.",
                &SCHEDULE,
            )?,
            schedule_last_bytes: int_gauges(
                "towline_schedule_last_backup_bytes",
                "Size of the newest backup.",
                &SCHEDULE,
            )?,
            schedule_last_duration: gauges(
                "towline_schedule_last_duration_seconds",
                "From start to end of the newest job that succeeded.",
                &SCHEDULE,
            )?,
            schedule_last_phase: gauges(
                "towline_schedule_last_phase_duration_seconds",
                "How long each phase of the newest backup's transfer took.",
                &["namespace", "schedule", "phase"],
            )?,
            schedule_last_lock: gauges(
                "towline_schedule_last_lock_duration_seconds",
                "How long the newest backup held locks that can block writes, as the agent said.",
                &SCHEDULE,
            )?,
            schedule_last_drill: gauges(
                "towline_schedule_last_drill_duration_seconds",
                "From start to end of the newest drill that passed.",
                &SCHEDULE,
            )?,
            schedule_last_failure: int_gauges(
                "towline_schedule_last_failure_timestamp_seconds",
                "When the newest job of the schedule that failed ended, seconds since the epoch, and why it failed.",
                &["namespace", "schedule", "reason"],
            )?,
            last_failures: Mutex::default(),
            schedule_failures: int_gauges(
                "towline_schedule_consecutive_failures",
                "Jobs of the schedule that failed since one succeeded.",
                &SCHEDULE,
            )?,
            schedule_suspended: int_gauges(
                "towline_schedule_suspended",
                "1 while the schedule is suspended.",
                &SCHEDULE,
            )?,
            schedule_backups: int_gauges(
                "towline_schedule_backups",
                "Backups of the schedule in its store, after retention.",
                &SCHEDULE,
            )?,
            schedule_stored_bytes: int_gauges(
                "towline_schedule_stored_bytes",
                "Their size.",
                &SCHEDULE,
            )?,
            jobs: BySchedule::new(
                registry,
                "towline_jobs_total",
                "Jobs that ended; the schedule is empty for those without one, the reason for those that succeeded.",
                ["phase", "reason"],
            )?,
            restores: counters(
                "towline_restores_total",
                "Restores that ended; the reason is empty for those that succeeded.",
                &["namespace", "kind", "phase", "reason"],
            )?,
            drills: BySchedule::new(
                registry,
                "towline_drills_total",
                "Drills that ended; the schedule is empty for those without one.",
                ["result"],
            )?,
            attempts: BySchedule::new(
                registry,
                "towline_attempts_total",
                "Attempts that ended; the schedule is empty for those of jobs without one, the reason for those that succeeded.",
                ["reason"],
            )?,
            transfer_bytes: BySchedule::new(
                registry,
                "towline_transfer_bytes_total",
                "Bytes received from agents; the schedule is empty for those of jobs without one.",
                [],
            )?,
            swept_uploads: counter(
                "towline_swept_uploads_total",
                "Unfinished uploads of dead attempts that the sweep aborted.",
            )?,
            retention_deleted: counter(
                "towline_retention_deleted_total",
                "Backups that retention deleted.",
            )?,
            transfers_running: gauge("towline_transfers_running", "Transfers that run.")?,
            transfers_waiting: gauge(
                "towline_transfers_waiting",
                "Jobs that wait for a free transfer.",
            )?,
            leader: gauge("towline_leader", "1 while this replica leads.")?,
            transfer_phase: histograms(
                "towline_transfer_phase_duration_seconds",
                "How long the phases of transfers that succeeded took.",
                &["phase"],
                vec![
                    0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 14_400.0,
                ],
            )?,
            start_delay,
            store_ready: int_gauges(
                "towline_store_ready",
                "1 when the store is Ready.",
                &["namespace", "store"],
            )?,
            store_requests: counters(
                "towline_store_requests_total",
                "Requests to object stores, retries too.",
                &["operation", "result"],
            )?,
            store_request_duration: histograms(
                "towline_store_request_duration_seconds",
                "From a request to an object store to the head of its answer.",
                &["operation"],
                vec![
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0,
                ],
            )?,
            reconcile_duration: histograms(
                "towline_reconcile_duration_seconds",
                "How long reconciles took.",
                &["kind"],
                vec![0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0],
            )?,
            reconcile_errors: counters(
                "towline_reconcile_errors_total",
                "Reconciles that failed and are tried again.",
                &["kind", "reason"],
            )?,
            malformed: int_gauges(
                "towline_malformed_objects",
                "Objects that the controller cannot read and leaves alone.",
                &["kind"],
            )?,
            malformed_objects: Mutex::default(),
        })
    }

    /// Sets everything about one schedule.
    pub fn schedule(&self, namespace: &str, name: &str, now: &ScheduleMetrics) {
        let labels = [namespace, name];
        let set = |metric: &IntGaugeVec, value: Option<i64>| match value {
            Some(value) => metric.with_label_values(&labels).set(value),
            // There is none to remove when it never was.
            None => drop(metric.remove_label_values(&labels)),
        };
        set(&self.schedule_last_success, now.last_success);
        set(&self.schedule_overdue, now.overdue);
        set(&self.schedule_last_verified, now.last_verified);
        set(&self.schedule_verified, now.verified.map(i64::from));
        set(&self.schedule_verify_overdue, now.verify_overdue);
        set(&self.schedule_next_run, now.next_run);
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        set(&self.schedule_last_bytes, now.last_bytes.map(number));
        set(&self.schedule_backups, now.backups.map(number));
        set(&self.schedule_stored_bytes, now.stored_bytes.map(number));
        set(
            &self.schedule_failures,
            Some(i64::from(now.consecutive_failures)),
        );
        set(&self.schedule_suspended, Some(i64::from(now.suspended)));
        let seconds = |metric: &GaugeVec, value: Option<f64>| match value {
            Some(value) => metric.with_label_values(&labels).set(value),
            None => drop(metric.remove_label_values(&labels)),
        };
        let duration = |duration: Option<Duration>| duration.map(|d| d.as_secs_f64());
        seconds(&self.schedule_last_duration, duration(now.last_duration));
        seconds(&self.schedule_last_drill, duration(now.last_drill));
        seconds(&self.schedule_last_lock, now.last_timings.lock);
        for (phase, value) in phases(&now.last_timings) {
            let labels = [namespace, name, phase];
            match value {
                Some(value) => self
                    .schedule_last_phase
                    .with_label_values(&labels)
                    .set(value),
                None => drop(self.schedule_last_phase.remove_label_values(&labels)),
            }
        }
        self.last_failure(namespace, name, now.last_failure);
    }

    /// The series of an earlier reason goes.
    fn last_failure(&self, namespace: &str, name: &str, now: Option<(i64, FailureReason)>) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut told = self
            .last_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = match now {
            Some((_, reason)) => told.insert(key, reason),
            None => told.remove(&key),
        };
        if let Some(before) = before.filter(|before| now.is_none_or(|(_, now)| now != *before)) {
            let labels = [namespace, name, before.as_str()];
            drop(self.schedule_last_failure.remove_label_values(&labels));
        }
        if let Some((when, reason)) = now {
            self.schedule_last_failure
                .with_label_values(&[namespace, name, reason.as_str()])
                .set(when);
        }
    }

    /// Whether an object cannot be read.
    pub fn malformed(&self, kind: &str, namespace: &str, name: &str, malformed: bool) {
        let object = (kind.to_owned(), (namespace.to_owned(), name.to_owned()));
        let mut objects = self
            .malformed_objects
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if malformed {
            objects.insert(object);
        } else {
            objects.remove(&object);
        }
        let count = objects.iter().filter(|(k, _)| *k == kind).count();
        self.malformed
            .with_label_values(&[kind])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The schedule is gone: so are its series.
    pub fn forget_schedule(&self, namespace: &str, name: &str) {
        let labels = [namespace, name];
        for metric in [
            &self.schedule_last_success,
            &self.schedule_overdue,
            &self.schedule_last_verified,
            &self.schedule_verified,
            &self.schedule_verify_overdue,
            &self.schedule_next_run,
            &self.schedule_last_bytes,
            &self.schedule_failures,
            &self.schedule_suspended,
            &self.schedule_backups,
            &self.schedule_stored_bytes,
        ] {
            // A series that never was is no error.
            drop(metric.remove_label_values(&labels));
        }
        for metric in [
            &self.schedule_last_duration,
            &self.schedule_last_lock,
            &self.schedule_last_drill,
        ] {
            drop(metric.remove_label_values(&labels));
        }
        for (phase, _) in phases(&Timings::default()) {
            let labels = [namespace, name, phase];
            drop(self.schedule_last_phase.remove_label_values(&labels));
        }
        self.last_failure(namespace, name, None);
        self.jobs.forget(namespace, name);
        self.drills.forget(namespace, name);
        self.attempts.forget(namespace, name);
        self.transfer_bytes.forget(namespace, name);
    }

    /// A job ended.
    pub fn job_ended(
        &self,
        namespace: &str,
        schedule: Option<&str>,
        phase: Phase,
        reason: Option<FailureReason>,
    ) {
        let reason = reason.map_or("", FailureReason::as_str);
        self.jobs
            .of(namespace, schedule, [phase.as_str(), reason])
            .inc();
    }

    /// A restore ended.
    pub fn restore_ended(
        &self,
        namespace: &str,
        kind: Kind,
        phase: RestorePhase,
        reason: Option<RestoreReason>,
    ) {
        let reason = reason.map_or("", RestoreReason::as_str);
        self.restores
            .with_label_values(&[namespace, kind.as_str(), phase.as_str(), reason])
            .inc();
    }

    /// A drill ended: `Passed`, `Failed` (the backup is at fault) or `Error`.
    pub fn drill_ended(&self, namespace: &str, schedule: Option<&str>, result: &'static str) {
        self.drills.of(namespace, schedule, [result]).inc();
    }

    /// An attempt ended.
    pub fn attempt_ended(
        &self,
        namespace: &str,
        schedule: Option<&str>,
        reason: Option<FailureReason>,
    ) {
        let reason = reason.map_or("", FailureReason::as_str);
        self.attempts.of(namespace, schedule, [reason]).inc();
    }

    /// Bytes received from agents for jobs of this schedule.
    pub fn transfer_bytes(&self, namespace: &str, schedule: Option<&str>) -> IntCounter {
        self.transfer_bytes.of(namespace, schedule, [])
    }

    /// Where the time of a transfer went.
    pub fn transfer_timings(&self, timings: &Timings) {
        for (phase, seconds) in phases(timings) {
            if let Some(seconds) = seconds {
                self.transfer_phase
                    .with_label_values(&[phase])
                    .observe(seconds);
            }
        }
    }

    /// From due time to first byte.
    pub fn start_delay(&self, delay: Duration) {
        self.start_delay.observe(delay.as_secs_f64());
    }

    /// Whether a store is Ready.
    pub fn store(&self, namespace: &str, name: &str, ready: bool) {
        self.store_ready
            .with_label_values(&[namespace, name])
            .set(i64::from(ready));
    }

    /// The store is gone: so is its series.
    pub fn forget_store(&self, namespace: &str, name: &str) {
        drop(self.store_ready.remove_label_values(&[namespace, name]));
    }

    /// A reconcile ended.
    pub fn reconciled(&self, kind: &'static str, took: Duration, error: Option<&'static str>) {
        self.reconcile_duration
            .with_label_values(&[kind])
            .observe(took.as_secs_f64());
        if let Some(reason) = error {
            self.reconcile_errors
                .with_label_values(&[kind, reason])
                .inc();
        }
    }
}

/// What a transfer goes through. `first_byte` is counted from its start.
fn phases(timings: &Timings) -> [(&'static str, Option<f64>); 6] {
    [
        ("dns", timings.dns),
        ("connect", timings.connect),
        ("tls", timings.tls),
        ("first_byte", timings.first_byte),
        ("copy", timings.copy),
        ("finalize", timings.finalize),
    ]
}

impl RequestObserver for Metrics {
    fn request(&self, operation: Operation, result: RequestResult, took: Duration) {
        let operation = operation.as_str();
        self.store_requests
            .with_label_values(&[operation, result.as_str()])
            .inc();
        self.store_request_duration
            .with_label_values(&[operation])
            .observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;

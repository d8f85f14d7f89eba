//! Counters whose series go with the schedule that they are about.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

/// Namespace and name.
type NamespacedName = (String, String);

/// A counter by namespace, schedule and `N` labels more, whose values are words of ours.
#[derive(Debug)]
pub(super) struct BySchedule<const N: usize> {
    series: IntCounterVec,
    seen: Mutex<HashMap<NamespacedName, HashSet<[&'static str; N]>>>,
}

impl<const N: usize> BySchedule<N> {
    /// Registers it.
    ///
    /// # Errors
    /// When the registry has this name already.
    pub(super) fn new(
        registry: &Registry,
        name: &str,
        help: &str,
        more: [&str; N],
    ) -> Result<Self, prometheus::Error> {
        let labels = [&["namespace", "schedule"], &more[..]].concat();
        let series = IntCounterVec::new(Opts::new(name, help), &labels)?;
        registry.register(Box::new(series.clone()))?;
        Ok(Self {
            series,
            seen: Mutex::default(),
        })
    }

    /// One series; the schedule is empty for what has none.
    pub(super) fn of(
        &self,
        namespace: &str,
        schedule: Option<&str>,
        more: [&'static str; N],
    ) -> IntCounter {
        let schedule = schedule.unwrap_or_default();
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((namespace.to_owned(), schedule.to_owned()))
            .or_default()
            .insert(more);
        self.series
            .with_label_values(&[&[namespace, schedule], &more[..]].concat())
    }

    /// The schedule is gone: so are its series.
    pub(super) fn forget(&self, namespace: &str, schedule: &str) {
        let seen = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(namespace.to_owned(), schedule.to_owned()));
        for more in seen.into_iter().flatten() {
            // A series that is gone already is no error.
            drop(
                self.series
                    .remove_label_values(&[&[namespace, schedule], &more[..]].concat()),
            );
        }
    }
}

//! The single slot: who has it, who may take it over, who waits for it.

use super::request::{Method, StartError};
use super::stage::Stage;
use crate::body::Ended;
use crate::protocol::StreamReason;
use crate::protocol::info::{JobAttempt, LastBackup, Running};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// When a caller that found the slot taken should ask again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Why a running backup is ended early, or found to have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) reason: StreamReason,
    pub(super) message: String,
}

impl Stop {
    pub(super) fn new(reason: StreamReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// What is shared about one backup while it runs.
struct Current {
    id: String,
    method: Mutex<Method>,
    job: Option<JobAttempt>,
    start_time: jiff::Timestamp,
    stop: watch::Sender<Option<Stop>>,
    stage: watch::Sender<Stage>,
    body: OnceLock<Ended>,
}

impl Current {
    /// The first reason stands.
    fn stop(&self, stop: Stop) {
        self.stop.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(stop);
            }
            first
        });
    }
}

#[derive(Default)]
struct State {
    closed: bool,
    current: Option<Arc<Current>>,
    last: Option<LastBackup>,
}

/// The slot of one engine.
pub(super) struct Slots {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::new(watch::channel(()).0),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slots {
    /// Takes the slot. A higher attempt of the job that has it stops that one and waits until its
    /// tool is reaped.
    pub(super) async fn take(
        &self,
        method: Method,
        job: Option<JobAttempt>,
    ) -> Result<Slot, StartError> {
        let mut changed = self.changed.subscribe();
        loop {
            match self.try_take(method, job.as_ref())? {
                Some(slot) => return Ok(slot),
                // The sender lives as long as `self`.
                None => {
                    let _ = changed.changed().await;
                }
            }
        }
    }

    fn try_take(
        &self,
        method: Method,
        job: Option<&JobAttempt>,
    ) -> Result<Option<Slot>, StartError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(StartError::Draining);
        }
        if let Some(current) = &state.current {
            let preempts = match (&current.job, job) {
                (Some(old), Some(new)) => old.uid == new.uid && new.attempt > old.attempt,
                _ => false,
            };
            if !preempts {
                return Err(StartError::Busy {
                    id: current.id.clone(),
                    retry_after: RETRY_AFTER,
                });
            }
            current.stop(Stop::new(
                StreamReason::Preempted,
                "a later attempt of the same job took over",
            ));
            return Ok(None);
        }
        let current = Arc::new(Current {
            id: uuid::Uuid::new_v4().to_string(),
            method: Mutex::new(method),
            job: job.cloned(),
            start_time: jiff::Timestamp::now(),
            stop: watch::channel(None).0,
            stage: watch::channel(Stage::default()).0,
            body: OnceLock::new(),
        });
        state.current = Some(Arc::clone(&current));
        drop(state);
        Ok(Some(Slot {
            current,
            state: Arc::clone(&self.state),
            changed: Arc::clone(&self.changed),
        }))
    }

    pub(super) fn running(&self) -> Option<Running> {
        let current = lock(&self.state).current.clone()?;
        let stage = current.stage.borrow().name.to_owned();
        Some(Running {
            id: current.id.clone(),
            method: current
                .method
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .to_string(),
            stage,
            bytes: current.body.get().map_or(0, Ended::bytes),
            start_time: Some(current.start_time),
            job: current.job.clone(),
        })
    }

    pub(super) fn last(&self) -> Option<LastBackup> {
        lock(&self.state).last.clone()
    }

    pub(super) fn cancel(&self, id: &str, reason: StreamReason) -> bool {
        let state = lock(&self.state);
        let Some(current) = state.current.as_ref().filter(|current| current.id == id) else {
            return false;
        };
        let message = match reason {
            StreamReason::Draining => {
                "the agent is being stopped, and the backup did not end in time"
            }
            _ => "the backup was cancelled",
        };
        current.stop(Stop::new(reason, message));
        true
    }

    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.send_replace(());
    }

    pub(super) async fn wait_idle(&self) {
        let mut changed = self.changed.subscribe();
        while lock(&self.state).current.is_some() {
            let _ = changed.changed().await;
        }
    }
}

/// The slot, taken; dropping it frees it.
pub(super) struct Slot {
    current: Arc<Current>,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

impl Slot {
    pub(super) fn id(&self) -> &str {
        &self.current.id
    }

    pub(super) fn start_time(&self) -> jiff::Timestamp {
        self.current.start_time
    }

    /// The job that it is for, where the caller has named one.
    pub(super) fn job(&self) -> Option<&JobAttempt> {
        self.current.job.as_ref()
    }

    pub(super) fn set_method(&self, method: Method) {
        *self
            .current
            .method
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = method;
    }

    /// Where the count of what was sent is read from.
    pub(super) fn set_body(&self, body: Ended) {
        let _ = self.current.body.set(body);
    }

    /// What the tool is doing.
    pub(super) fn stage(&self) -> &watch::Sender<Stage> {
        &self.current.stage
    }

    /// Asks for the end; the first reason stands.
    pub(super) fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.current))
    }

    /// Resolves when somebody asked for the end.
    pub(super) async fn stopped(&self) -> Stop {
        let mut stop = self.current.stop.subscribe();
        loop {
            if let Some(stop) = stop.borrow_and_update().clone() {
                return stop;
            }
            // The sender lives in `self.current`.
            let _ = stop.changed().await;
        }
    }

    /// The reason for the end, when somebody asked for it.
    pub(super) fn asked(&self) -> Option<Stop> {
        self.current.stop.borrow().clone()
    }

    /// Remembers a complete backup.
    pub(super) fn complete(&self, last: LastBackup) {
        lock(&self.state).last = Some(last);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.state).current = None;
        self.changed.send_replace(());
    }
}

/// Asks for the end of one backup, from any task.
#[derive(Clone)]
pub(super) struct Stopper(Arc<Current>);

impl Stopper {
    pub(super) fn stop(&self, reason: StreamReason, message: impl Into<String>) {
        self.0.stop(Stop::new(reason, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(uid: &str, attempt: u32) -> Option<JobAttempt> {
        Some(JobAttempt {
            uid: uid.into(),
            attempt,
        })
    }

    #[tokio::test]
    async fn who_may_take_over() {
        let slots = Slots::default();
        let first = slots.take(Method::Physical, job("a", 2)).await.unwrap();
        for other in [None, job("b", 9), job("a", 2), job("a", 1)] {
            let refused = slots.take(Method::Physical, other).await;
            assert!(matches!(refused, Err(StartError::Busy { .. })));
        }
        let later = slots.take(Method::Physical, job("a", 3));
        let old_reader = async {
            let stop = first.stopped().await;
            assert_eq!(stop.reason, StreamReason::Preempted);
            drop(first);
        };
        let (later, ()) = tokio::join!(later, old_reader);
        assert!(slots.running().is_some_and(|r| r.job == job("a", 3)));
        drop(later);
        slots.wait_idle().await;
        slots.close();
        assert!(matches!(
            slots.take(Method::Physical, None).await,
            Err(StartError::Draining)
        ));
    }

    #[tokio::test]
    async fn the_first_reason_stands() {
        let slots = Slots::default();
        let slot = slots.take(Method::Logical, None).await.unwrap();
        assert!(!slots.cancel("another", StreamReason::Cancelled));
        assert!(slots.cancel(slot.id(), StreamReason::Cancelled));
        slot.stopper().stop(StreamReason::Stalled, "later");
        assert_eq!(slot.stopped().await.reason, StreamReason::Cancelled);
    }
}

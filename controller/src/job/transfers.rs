//! The transfers of this process: a bounded number of tasks beside the reconcilers, which start,
//! observe and cancel them.

use super::{
    plan::Local,
    queue::{FairQueue, Place},
};
use crate::{
    api::BackupJob,
    context::Guard,
    metrics::Metrics,
    reason::{FailureReason, Retry},
    transfer::{self, Failure, Progress, Success, Transfer},
};
use futures::channel::mpsc::UnboundedSender;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use prometheus::IntCounter;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// A job as the watches name it.
pub type JobRef = ObjectRef<Guard<BackupJob>>;

/// Reconciles a job.
pub type Wake = UnboundedSender<JobRef>;

/// How often progress is written to a status, at most.
const REPORT_INTERVAL: SignedDuration = SignedDuration::from_secs(5);

/// The transfers of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transfers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By uid of the job.
    entries: HashMap<String, Entry>,
    /// Slots that nobody has. While there is one, nobody waits.
    free: usize,
    /// Jobs that found no slot.
    waiting: FairQueue<Waiting>,
    /// Jobs whose turn has come and that have not taken their slot yet, by uid.
    granted: HashMap<String, JobRef>,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    job: JobRef,
    wake: Wake,
    /// How many were ahead when that was last told.
    told: usize,
}

#[derive(Debug)]
struct Entry {
    job: JobRef,
    attempt: u32,
    cancel: CancellationToken,
    stopped_by: Option<FailureReason>,
    progress: watch::Receiver<Progress>,
    reported: (Timestamp, u64),
    result: Option<Result<Success, Failure>>,
}

/// A transfer that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its attempt.
    pub attempt: u32,
    /// Why it was cancelled, if it was.
    pub stopped_by: Option<FailureReason>,
    /// What became of it.
    pub result: Result<Success, Failure>,
}

/// The right to run one transfer; the next in line gets it when this is dropped.
#[derive(Debug)]
pub struct Slot(Transfers);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.give_back();
        self.0.count(&state);
    }
}

impl State {
    /// A slot is free: whose turn it is gets it.
    fn give_back(&mut self) {
        match self.waiting.pop() {
            None => self.free += 1,
            Some((uid, waiting)) => {
                // The receiver is gone when the process stops.
                drop(waiting.wake.unbounded_send(waiting.job.clone()));
                self.granted.insert(uid, waiting.job);
            }
        }
    }

    /// The job does not wait any more.
    fn leave(&mut self, uid: &str) {
        self.waiting.remove(uid);
        if self.granted.remove(uid).is_some() {
            self.give_back();
        }
    }
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// All are taken; the job stands in line, and is woken when its turn has come. How many are
    /// ahead of it, and whether that is worth telling: when it joined, and each time that half of
    /// them have gone.
    Full {
        /// Jobs whose turn comes first.
        ahead: usize,
        /// Whether to tell.
        news: bool,
    },
    /// The process stops.
    Closed,
}

impl Transfers {
    /// At most `max` at once.
    #[must_use]
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                free: max,
                ..State::default()
            }),
            metrics,
            emptied: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves nothing half-done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot, or puts the job in line. `schedule` is the name of the job's schedule, if it
    /// has one: schedules take turns, as their namespaces do.
    ///
    /// # Errors
    /// [`NoSlot`].
    pub fn reserve(
        &self,
        uid: &str,
        job: &JobRef,
        schedule: Option<&str>,
        wake: &Wake,
    ) -> Result<Slot, NoSlot> {
        let mut state = self.state();
        if state.closed {
            return Err(NoSlot::Closed);
        }
        let granted = state.granted.remove(uid).is_some();
        if !granted && state.free == 0 {
            return Err(self.stand_in_line(&mut state, uid, job, schedule, wake));
        }
        if !granted {
            state.free -= 1;
        }
        self.count(&state);
        Ok(Slot(self.clone()))
    }

    fn stand_in_line(
        &self,
        state: &mut State,
        uid: &str,
        job: &JobRef,
        schedule: Option<&str>,
        wake: &Wake,
    ) -> NoSlot {
        let joined = state.waiting.ahead(uid).is_none();
        let place = Place {
            namespace: job.namespace.as_deref().unwrap_or_default(),
            schedule: schedule.unwrap_or_default(),
            id: uid,
        };
        let waiting = Waiting {
            job: job.clone(),
            wake: wake.clone(),
            told: usize::MAX,
        };
        state.waiting.push(place, waiting);
        self.count(state);
        let ahead = state.waiting.ahead(uid).unwrap_or_default();
        let mut news = joined;
        if let Some(waiting) = state.waiting.get_mut(uid) {
            news |= ahead <= waiting.told / 2 && ahead < waiting.told;
            if news {
                waiting.told = ahead;
            }
        }
        NoSlot::Full { ahead, news }
    }

    /// The job does not wait any more: its place, or the slot that it did not take, is another's.
    pub fn leave(&self, uid: &str) {
        let mut state = self.state();
        state.leave(uid);
        self.count(&state);
    }

    /// Starts a transfer, whose attempt was claimed. `wake` gets the job when it has ended.
    pub fn start(&self, slot: Slot, uid: &str, job: &JobRef, wake: &Wake, transfer: Transfer) {
        let cancel = CancellationToken::new();
        let (sender, progress) = watch::channel(Progress::default());
        let entry = Entry {
            job: job.clone(),
            attempt: transfer.attempt,
            cancel: cancel.clone(),
            stopped_by: None,
            progress: progress.clone(),
            // There is nothing to tell before the first interval is over.
            reported: (Timestamp::now(), 0),
            result: None,
        };
        {
            let mut state = self.state();
            if state.closed {
                cancel.cancel();
            }
            state.entries.insert(uid.to_owned(), entry);
            self.count(&state);
        }
        let schedule = transfer.job.schedule_name.as_deref();
        let received = &self.0.metrics;
        let received = received.transfer_bytes(&transfer.job.namespace, schedule);
        let (this, uid, job, wake) = (self.clone(), uid.to_owned(), job.clone(), wake.clone());
        tokio::spawn(async move {
            // A task of its own: a panic in it is a result like any other.
            let mut task = tokio::spawn(Box::pin(transfer::run(transfer, sender, cancel)));
            let result = Self::follow(&received, &mut task, progress).await;
            drop(slot);
            this.end(&uid, result);
            // The receiver is gone when the process stops.
            drop(wake.unbounded_send(job));
        });
    }

    /// Counts bytes as they come, until the transfer ends.
    async fn follow(
        received: &IntCounter,
        task: &mut tokio::task::JoinHandle<Result<Success, Failure>>,
        mut progress: watch::Receiver<Progress>,
    ) -> Result<Success, Failure> {
        let mut counted = 0;
        let mut count = |bytes: u64| {
            received.inc_by(bytes.saturating_sub(counted));
            counted = counted.max(bytes);
        };
        loop {
            tokio::select! {
                ended = &mut *task => {
                    count(progress.borrow().bytes);
                    return ended.unwrap_or_else(|error| Err(Failure {
                        reason: FailureReason::Interrupted,
                        message: format!("the transfer broke down inside the controller ({error}): report this, with the controller's log"),
                        retry: Retry::NotCounted,
                        retry_after: None,
                        bytes: counted,
                        // It cannot be known.
                        complete_tried: true,
                    }));
                }
                Ok(()) = progress.changed() => {
                    let bytes = progress.borrow_and_update().bytes;
                    count(bytes);
                }
            }
        }
    }

    fn end(&self, uid: &str, result: Result<Success, Failure>) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(uid) {
            entry.result = Some(result);
        }
        self.count(&state);
    }

    fn count(&self, state: &State) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let running = state
            .entries
            .values()
            .filter(|e| e.result.is_none())
            .count();
        self.0.metrics.transfers_running.set(number(running));
        self.0
            .metrics
            .transfers_waiting
            .set(number(state.waiting.len()));
    }

    /// Where the job's transfer is.
    #[must_use]
    pub fn local(&self, uid: &str) -> Local {
        match self.state().entries.get(uid) {
            None => Local::None,
            Some(Entry { result: None, .. }) => Local::Running,
            Some(_) => Local::Ended,
        }
    }

    /// The attempt that runs or ended here.
    #[must_use]
    pub fn attempt(&self, uid: &str) -> Option<u32> {
        self.state().entries.get(uid).map(|e| e.attempt)
    }

    /// How far the transfer is and how fast of late, if it is time to write it again.
    #[must_use]
    pub fn progress(&self, uid: &str, now: Timestamp) -> Option<(Progress, u64)> {
        let mut state = self.state();
        let entry = state.entries.get_mut(uid)?;
        let progress = entry.progress.borrow().clone();
        let (at, bytes) = entry.reported;
        let passed = now.duration_since(at);
        if passed < REPORT_INTERVAL {
            return None;
        }
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = progress.bytes.saturating_sub(bytes).saturating_mul(1000) / millis;
        entry.reported = (now, progress.bytes);
        Some((progress, rate))
    }

    /// Cancels a transfer; the job is woken when it has ended. The first reason stands.
    pub fn cancel(&self, uid: &str, reason: FailureReason) {
        if let Some(entry) = self.state().entries.get_mut(uid) {
            entry.stopped_by.get_or_insert(reason);
            entry.cancel.cancel();
        }
    }

    /// The transfer's result, until it is forgotten.
    #[must_use]
    pub fn ended(&self, uid: &str) -> Option<Ended> {
        let state = self.state();
        let entry = state.entries.get(uid)?;
        Some(Ended {
            attempt: entry.attempt,
            stopped_by: entry.stopped_by,
            result: entry.result.clone()?,
        })
    }

    /// The result is in the status, or nobody wants it.
    pub fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.leave(uid);
        if let Some(entry) = state.entries.remove(uid) {
            entry.cancel.cancel();
        }
        self.count(&state);
        if state.entries.is_empty() {
            self.0.emptied.notify_waiters();
        }
    }

    /// The object of this name is gone, or is another one now: its transfers are cancelled and forgotten.
    pub fn forget_others(&self, job: &JobRef, uid: Option<&str>) {
        let others: HashSet<String> = {
            let state = self.state();
            let of_entries = state.entries.iter().map(|(u, e)| (u.as_str(), &e.job));
            let of_waiting = state.waiting.jobs().map(|(u, w)| (u, &w.job));
            let of_granted = state.granted.iter().map(|(u, j)| (u.as_str(), j));
            of_entries
                .chain(of_waiting)
                .chain(of_granted)
                .filter(|(u, j)| *j == job && uid != Some(*u))
                .map(|(u, _)| u.to_owned())
                .collect::<HashSet<_>>()
        };
        for uid in others {
            tracing::info!(job = %job, uid, "the job is gone: its transfer is stopped");
            self.forget(&uid);
        }
    }

    /// Starts no more and cancels those that run.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting = FairQueue::default();
        state.granted.clear();
        for entry in state.entries.values_mut() {
            entry.stopped_by.get_or_insert(FailureReason::Interrupted);
            entry.cancel.cancel();
        }
        self.count(&state);
    }

    /// Resolves when every transfer has ended and was recorded.
    pub async fn empty(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.state().entries.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
mod tests;

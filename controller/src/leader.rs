//! Which of several replicas works: leader election by a Lease, by the rules of client-go's
//! `leaderelection`.
//!
//! Two never lead at once, however slow, deaf or frozen one of them is:
//! - a leader counts from before it **sent** its last renewal that got through, and leads for two
//!   thirds of the Lease's duration from then on;
//! - the others count from after they **saw** the Lease change, and take it when the whole duration
//!   has passed without another change;
//! - both count by a clock that goes on while a process or a machine is frozen, and no clock of one
//!   machine is compared with that of another: the times in the Lease are for people;
//! - every write names the version that it replaces.
//!
//! A write that was on its way when its sender froze may still arrive late. That is why claims have
//! a resource version and manifests are create-only: the Lease keeps work from being done twice, it
//! is not what keeps backups whole.
//!
//! Who loses the Lease ends: then nothing of it can be left over that still acts.

mod candidate;

use candidate::{Answer, Call, Candidate};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use prometheus::IntGauge;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A time by [`clock`].
pub(crate) type Moment = Duration;

/// How long giving the Lease back may take.
const RELEASE_PATIENCE: Duration = Duration::from_secs(4);

/// Which Lease, who asks for it, and for how long it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// Name of the Lease.
    pub name: String,
    /// Its namespace; `None`: the one that the controller runs in.
    pub namespace: Option<String>,
    /// Who this replica is. No two that run at once may share it.
    pub holder: String,
    /// How long a leader that is not heard of keeps the Lease.
    pub duration: Duration,
}

/// Whether this replica leads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leading(watch::Receiver<Option<Moment>>);

impl Leading {
    /// For a program that is alone.
    #[must_use]
    pub fn always() -> Self {
        Self(watch::channel(Some(Moment::MAX)).1)
    }

    /// For tests: it leads once the function was called.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (impl FnOnce(), Self) {
        let (until, leading) = watch::channel(None);
        (
            move || {
                until.send_replace(Some(Moment::MAX));
            },
            Self(leading),
        )
    }

    /// Resolves when this replica leads. What follows may act until the process ends: it ends when
    /// the Lease is lost.
    pub async fn elected(&self) {
        let mut until = self.0.clone();
        if until.wait_for(|until| leads(*until)).await.is_err() {
            // The election is over, and the process about to end.
            std::future::pending::<()>().await;
        }
    }

    /// Whether this replica leads at this moment: a process that was frozen past its Lease learns
    /// it here, before its timers have told.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        leads(*self.0.borrow())
    }
}

fn leads(until: Option<Moment>) -> bool {
    until.is_some_and(|until| clock() < until)
}

/// Time since the machine started. It goes on while this process is stopped and while the machine
/// sleeps, and nobody sets it.
fn clock() -> Moment {
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    // Never before zero.
    Moment::try_from(rustix::time::clock_gettime(id)).unwrap_or_default()
}

/// The Lease was lost: another replica may lead already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lost(String);

/// This replica's part in the election.
pub struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    until: watch::Sender<Option<Moment>>,
    gauge: IntGauge,
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election")
            .field("candidate", &self.candidate)
            .finish_non_exhaustive()
    }
}

impl Election {
    /// Nobody is asked yet. `gauge` is 1 while this replica leads.
    #[must_use]
    pub fn new(client: Client, config: &LeaseConfig, gauge: IntGauge) -> (Self, Leading) {
        let (until, leading) = watch::channel(None);
        let api = match &config.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::default_namespaced(client),
        };
        let election = Self {
            api,
            candidate: Candidate::new(config),
            until,
            gauge,
        };
        (election, Leading(leading))
    }

    /// Asks for the Lease, and renews it once it is ours, until `release` fires: then it is given
    /// back, so that another replica leads at once.
    ///
    /// # Errors
    /// [`Lost`], at most two thirds of its duration after the Lease was last renewed.
    pub async fn run(mut self, release: CancellationToken) -> Result<(), Lost> {
        let mut complaint = String::new();
        loop {
            let leader_before = self.candidate.leader().map(str::to_owned);
            let asked = clock();
            let call = self.candidate.next(asked, Timestamp::now());
            let patience = self.candidate.patience(asked);
            let answer = tokio::select! {
                biased;
                () = release.cancelled() => break,
                answer = tokio::time::timeout(patience, perform(&self.api, &call)) => answer
                    .unwrap_or_else(|_| Answer::Failed(format!("no answer within {patience:?}"))),
            };
            if let Answer::Failed(problem) = &answer
                && *problem != complaint
            {
                complaint.clone_from(problem);
                tracing::warn!(
                    problem,
                    "the Lease cannot be read or written; it is tried again"
                );
            }
            let pause = self.candidate.answered(asked, clock(), &call, answer)?;
            self.publish();
            let leader = self.candidate.leader();
            if leader != leader_before.as_deref() {
                complaint.clear();
                tracing::info!(leader, leading = self.gauge.get() == 1, "leader");
            }
            tokio::select! {
                biased;
                () = release.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            self.candidate.check(clock())?;
        }
        self.until.send_replace(None);
        self.gauge.set(0);
        self.release().await;
        Ok(())
    }

    fn publish(&self) {
        let until = self.candidate.leads_until();
        self.gauge.set(i64::from(leads(until)));
        self.until.send_replace(until);
    }

    /// Gives the Lease back. When that fails, it ends by itself.
    async fn release(&mut self) {
        let giving = async {
            // A renewal that was on its way when we were told to stop may come in between.
            loop {
                let lease = self.candidate.release(clock(), Timestamp::now())?;
                match perform(&self.api, &Call::Replace(lease)).await {
                    Answer::Conflict => {}
                    answer => return Some(answer),
                }
                match perform(&self.api, &self.candidate.read()).await {
                    Answer::Lease(lease) => self.candidate.saw(clock(), lease),
                    answer => return Some(answer),
                }
            }
        };
        match tokio::time::timeout(RELEASE_PATIENCE, giving).await {
            // It is not ours.
            Ok(None) => {}
            Ok(Some(Answer::Lease(_))) => tracing::info!("the Lease is given back"),
            other => tracing::warn!(?other, "the Lease could not be given back; it runs out"),
        }
    }
}

async fn perform(api: &Api<Lease>, call: &Call) -> Answer {
    let post = PostParams::default();
    let result = match call {
        Call::Read(name) => api.get(name).await,
        Call::Create(lease) => api.create(&post, lease).await,
        Call::Replace(lease) => {
            let name = lease.metadata.name.as_deref().unwrap_or_default();
            api.replace(name, &post, lease).await
        }
    };
    match result {
        Ok(lease) => Answer::Lease(Box::new(lease)),
        Err(kube::Error::Api(status)) if status.code == 404 => Answer::Missing,
        Err(kube::Error::Api(status)) if status.code == 409 => Answer::Conflict,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

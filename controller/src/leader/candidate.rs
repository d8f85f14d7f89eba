//! The rules of the election, with time and answers passed in.

use super::{LeaseConfig, Lost, Moment};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::api::ObjectMeta;
use std::time::Duration;

/// What the API server is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    /// The Lease of this name.
    Read(String),
    /// To make it, ours.
    Create(Box<Lease>),
    /// To replace the version that it names.
    Replace(Box<Lease>),
}

/// What it answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The Lease as it is now.
    Lease(Box<Lease>),
    /// There is none.
    Missing,
    /// It is not the version that was to be replaced, or exists already.
    Conflict,
    /// Nothing that helps. What was asked may have been done, or may be done later.
    Failed(String),
}

/// What is known of the Lease.
#[derive(Debug)]
enum Known {
    Nothing,
    Missing,
    Is(Box<Lease>),
}

/// One replica in the election.
#[derive(Debug)]
pub(super) struct Candidate {
    name: String,
    holder: String,
    duration: Duration,
    known: Known,
    /// The last holder other than nobody: since when its claim is as it is, and how long it lasts.
    claim: Option<Claim>,
    /// When our last renewal that got through was sent.
    renewed: Option<Moment>,
}

/// Somebody's hold on the Lease, as far as this replica has seen.
#[derive(Debug)]
struct Claim {
    holder: String,
    version: Option<String>,
    seen: Moment,
    duration: Duration,
}

impl Candidate {
    pub(super) fn new(config: &LeaseConfig) -> Self {
        Self {
            name: config.name.clone(),
            holder: config.holder.clone(),
            duration: config.duration,
            known: Known::Nothing,
            claim: None,
            renewed: None,
        }
    }

    /// How often the Lease is renewed, or looked at.
    fn period(&self) -> Duration {
        self.duration / 6
    }

    /// How long a leader leads after the last renewal.
    fn renew_within(&self) -> Duration {
        self.duration / 3 * 2
    }

    /// Until when this replica leads.
    pub(super) fn leads_until(&self) -> Option<Moment> {
        self.renewed.map(|sent| sent + self.renew_within())
    }

    /// Who was last seen to hold the Lease.
    pub(super) fn leader(&self) -> Option<&str> {
        self.claim.as_ref().map(|claim| claim.holder.as_str())
    }

    /// How long an answer is waited for.
    pub(super) fn patience(&self, now: Moment) -> Duration {
        self.until_lost(now).min(self.period())
    }

    fn until_lost(&self, now: Moment) -> Duration {
        self.leads_until()
            .map_or(Duration::MAX, |until| until.saturating_sub(now))
    }

    /// What to ask.
    pub(super) fn next(&self, now: Moment, wall: Timestamp) -> Call {
        match &self.known {
            Known::Missing if self.may_hold(now) => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.ours(None, wall)),
                };
                Call::Create(Box::new(lease))
            }
            Known::Is(lease) if self.may_hold(now) => {
                let mut lease = lease.clone();
                lease.metadata.managed_fields = None;
                lease.spec = Some(self.ours(lease.spec.as_ref(), wall));
                Call::Replace(lease)
            }
            _ => self.read(),
        }
    }

    /// A look at the Lease.
    pub(super) fn read(&self) -> Call {
        Call::Read(self.name.clone())
    }

    /// Whether nobody else can hold the Lease any more.
    fn may_hold(&self, now: Moment) -> bool {
        match &self.claim {
            None => true,
            Some(claim) if claim.holder == self.holder => true,
            Some(claim) => now >= claim.seen + claim.duration,
        }
    }

    fn ours(&self, before: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let before = before.cloned().unwrap_or_default();
        let held = before.holder_identity.as_deref() == Some(self.holder.as_str());
        LeaseSpec {
            acquire_time: before
                .acquire_time
                .filter(|_| held)
                .or(Some(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX),
            ),
            lease_transitions: Some(
                before
                    .lease_transitions
                    .unwrap_or(0)
                    .saturating_add(i32::from(!held)),
            ),
            ..before
        }
    }

    /// Takes in an answer that came at `now` to what was asked at `asked`; says how long to wait
    /// before the next question.
    pub(super) fn answered(
        &mut self,
        asked: Moment,
        now: Moment,
        call: &Call,
        answer: Answer,
    ) -> Result<Duration, Lost> {
        let wrote = !matches!(call, Call::Read(_));
        let pause = match answer {
            Answer::Lease(lease) => {
                self.saw(now, lease);
                if wrote {
                    self.renewed = Some(asked);
                }
                // What was read and may be ours is asked for at once.
                if !wrote && self.may_hold(now) {
                    Duration::ZERO
                } else {
                    self.period()
                }
            }
            Answer::Missing => {
                self.known = Known::Missing;
                if self.may_hold(now) {
                    self.period() / 20
                } else {
                    self.period()
                }
            }
            Answer::Conflict => {
                self.known = Known::Nothing;
                self.period() / 20
            }
            Answer::Failed(_) => self.period(),
        };
        self.check(now)?;
        Ok(pause.min(self.until_lost(now)))
    }

    /// The Lease as it was at `now` or before.
    pub(super) fn saw(&mut self, now: Moment, lease: Box<Lease>) {
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        self.known = Known::Is(lease);
        let Some(holder) = spec.holder_identity.filter(|holder| !holder.is_empty()) else {
            self.claim = None;
            return;
        };
        let seen = match &self.claim {
            Some(claim) if claim.holder == holder && claim.version == version => claim.seen,
            _ => now,
        };
        // A holder that was configured otherwise leads for longer.
        let told = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        self.claim = Some(Claim {
            holder,
            version,
            seen,
            duration: self.duration.max(Duration::from_secs(told)),
        });
    }

    /// Whether what began is over: another holds the Lease, or ours has not been renewed in time.
    pub(super) fn check(&self, now: Moment) -> Result<(), Lost> {
        let Some(until) = self.leads_until() else {
            return Ok(());
        };
        if self.leader() != Some(self.holder.as_str()) {
            let by = self.leader().unwrap_or("nobody");
            return Err(Lost(format!("Lease {} is held by {by} now", self.name)));
        }
        if now >= until {
            return Err(Lost(format!(
                "Lease {} could not be renewed within {} s: the API server was not reached, or this process did not run",
                self.name,
                self.renew_within().as_secs()
            )));
        }
        Ok(())
    }

    /// The Lease as it is to be when we go; `None` when it is not ours.
    pub(super) fn release(&self, now: Moment, wall: Timestamp) -> Option<Box<Lease>> {
        let Known::Is(lease) = &self.known else {
            return None;
        };
        if self.renewed.is_none() || self.check(now).is_err() {
            return None;
        }
        let mut lease = lease.clone();
        lease.metadata.managed_fields = None;
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            // As client-go does: a Lease of nobody.
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(wall)),
            ..lease.spec.unwrap_or_default()
        });
        Some(lease)
    }
}

#[cfg(test)]
mod tests;

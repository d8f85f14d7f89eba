//! Which backups stay: a pure function of the backups, the policy, its time zone and the time.
//!
//! The rules are restic's: each keeps the newest backup of each of the latest N periods that have
//! one, they count apart, and what any of them keeps stays. So one more rule never deletes more.

use crate::{
    api::schedule::Retention,
    schedule::calendar::{self, InvalidSchedule},
};
use jiff::{
    Span, Timestamp, Zoned,
    civil::DateTime,
    tz::{Offset, TimeZone},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// One backup, as its manifest tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Key of its manifest.
    pub key: String,
    /// Cluster that made it.
    pub cluster_id: String,
    /// Uid of the schedule that made it.
    pub schedule_uid: Option<String>,
    /// When its job was created: the time that its key shows.
    pub time: Timestamp,
    /// Its size.
    pub bytes: u64,
    /// False when it is known not to restore. Such a backup takes no good one's place, and goes when
    /// a good one in its place would.
    pub good: bool,
    /// Somebody reads it, or its job has not ended.
    pub in_use: bool,
}

/// Whose backups a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of this cluster in the bucket.
    pub cluster_id: String,
    /// The schedule's uid, and the adopted ones.
    pub schedule_uids: BTreeSet<String>,
}

impl Owner {
    /// Whether a backup is the policy's business.
    #[must_use]
    pub fn owns(&self, backup: &Backup) -> bool {
        let schedule = backup.schedule_uid.as_ref();
        backup.cluster_id == self.cluster_id
            && schedule.is_some_and(|uid| self.schedule_uids.contains(uid))
    }
}

/// Why a backup stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `keepLast`.
    Last,
    /// `keepHourly`.
    Hourly,
    /// `keepDaily`.
    Daily,
    /// `keepWeekly`.
    Weekly,
    /// `keepMonthly`.
    Monthly,
    /// `keepYearly`.
    Yearly,
    /// `keepWithin`.
    Within,
    /// It is the newest good one, which always stays.
    Newest,
    /// Somebody reads it, or its job has not ended.
    InUse,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "keepLast",
            Self::Hourly => "keepHourly",
            Self::Daily => "keepDaily",
            Self::Weekly => "keepWeekly",
            Self::Monthly => "keepMonthly",
            Self::Yearly => "keepYearly",
            Self::Within => "keepWithin",
            Self::Newest => "newest",
            Self::InUse => "in use",
        })
    }
}

/// What is kept of a schedule's backups.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Each with its number of backups or periods.
    counts: BTreeMap<Reason, u32>,
    within: Option<Span>,
    zone: TimeZone,
}

/// A policy that cannot be followed; nothing is deleted. The message names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// The zone is not known.
    #[error("{0}")]
    Zone(InvalidSchedule),
    /// `keepWithin` is no span of time.
    #[error("spec.retention.keepWithin {0:?} is no span of time: write e.g. 36h, 30d, 8w or 1y6mo")]
    Within(String),
    /// There is no rule.
    #[error("spec.retention has no rule: set at least one keep…, e.g. keepDaily: 7")]
    Empty,
}

impl Policy {
    /// Reads `spec.retention` and `spec.timeZone`.
    ///
    /// # Errors
    /// [`InvalidPolicy`].
    pub fn parse(retention: &Retention, zone: &str) -> Result<Self, InvalidPolicy> {
        let counts = [
            (Reason::Last, retention.keep_last),
            (Reason::Hourly, retention.keep_hourly),
            (Reason::Daily, retention.keep_daily),
            (Reason::Weekly, retention.keep_weekly),
            (Reason::Monthly, retention.keep_monthly),
            (Reason::Yearly, retention.keep_yearly),
        ];
        let counts: BTreeMap<Reason, u32> = counts
            .into_iter()
            .filter_map(|(rule, count)| Some((rule, count?)))
            .collect();
        let within = match &retention.keep_within {
            None => None,
            Some(text) => match text.parse::<Span>() {
                Ok(span) if span.is_positive() => Some(span),
                _ => return Err(InvalidPolicy::Within(text.clone())),
            },
        };
        if counts.is_empty() && within.is_none() {
            return Err(InvalidPolicy::Empty);
        }
        Ok(Self {
            counts,
            within,
            zone: calendar::zone(zone).map_err(InvalidPolicy::Zone)?,
        })
    }

    /// What is not older than this is kept; a span that reaches before all time keeps everything.
    fn kept_since(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone.clone());
        let within = self.within?;
        Some(
            now.checked_sub(within)
                .map_or(Timestamp::MIN, |since| since.timestamp()),
        )
    }

    /// Why each of these stays; `backups` are the newest first.
    fn reasons(&self, backups: &[&Backup], now: Timestamp) -> BTreeMap<String, BTreeSet<Reason>> {
        let mut kept: BTreeMap<String, BTreeSet<Reason>> = BTreeMap::new();
        let mut keep = |backup: &Backup, reason| {
            kept.entry(backup.key.clone()).or_default().insert(reason);
        };
        for (&rule, &count) in &self.counts {
            // A clock that is set back at midnight can return to a day: periods need not be in one piece.
            let mut periods = BTreeSet::new();
            for (n, backup) in backups.iter().enumerate() {
                if periods.len() >= count as usize {
                    break;
                }
                let at = backup.time.to_zoned(self.zone.clone());
                if periods.insert(Period::of(rule, &at, n)) {
                    keep(backup, rule);
                }
            }
        }
        if let Some(since) = self.kept_since(now) {
            for backup in backups.iter().filter(|b| b.time >= since) {
                keep(backup, Reason::Within);
            }
        }
        if let Some(newest) = backups.first() {
            keep(newest, Reason::Newest);
        }
        kept
    }
}

/// What a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Period {
    /// A backup.
    One(usize),
    /// Start of the hour, and the offset: an hour that the clock repeats counts twice.
    Hour(DateTime, Offset),
    /// Start of the day, week, month or year.
    From(DateTime),
}

impl Period {
    fn of(rule: Reason, at: &Zoned, n: usize) -> Self {
        let date = at.date();
        let from = match rule {
            Reason::Hourly => return Self::Hour(date.at(at.hour(), 0, 0, 0), at.offset()),
            Reason::Daily => Some(date),
            // None: a week that reaches before all time.
            Reason::Weekly => date
                .iso_week_date()
                .first_of_week()
                .ok()
                .map(jiff::civil::ISOWeekDate::date),
            Reason::Monthly => Some(date.first_of_month()),
            Reason::Yearly => Some(date.first_of_year()),
            Reason::Last | Reason::Within | Reason::Newest | Reason::InUse => None,
        };
        from.map_or(Self::One(n), |from| Self::From(from.at(0, 0, 0, 0)))
    }
}

/// What is to be done with the backups of one schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision<'a> {
    /// These stay, and why; the newest first.
    pub keep: Vec<(&'a Backup, BTreeSet<Reason>)>,
    /// These go, the oldest first.
    pub delete: Vec<&'a Backup>,
}

/// The backups that are the policy's business, the newest first.
#[must_use]
pub fn owned<'a>(backups: &'a [Backup], owner: &Owner) -> Vec<&'a Backup> {
    let mut ours: Vec<&Backup> = backups.iter().filter(|b| owner.owns(b)).collect();
    ours.sort_by(|a, b| (b.time, &b.key).cmp(&(a.time, &a.key)));
    ours
}

/// Decides. Backups of others are in neither list.
#[must_use]
pub fn decide<'a>(
    backups: &'a [Backup],
    owner: &Owner,
    policy: &Policy,
    now: Timestamp,
) -> Decision<'a> {
    let all = owned(backups, owner);
    let good: Vec<&Backup> = all.iter().copied().filter(|b| b.good).collect();
    let for_good = policy.reasons(&good, now);
    // A bad one stays as long as a good one in its place would: while there is no good one, it may be
    // all that there is.
    let for_any = policy.reasons(&all, now);
    let mut decision = Decision::default();
    for backup in all {
        let rules = if backup.good { &for_good } else { &for_any };
        let mut reasons = rules.get(&backup.key).cloned().unwrap_or_default();
        if backup.in_use {
            reasons.insert(Reason::InUse);
        }
        if reasons.is_empty() {
            decision.delete.push(backup);
        } else {
            decision.keep.push((backup, reasons));
        }
    }
    decision.delete.reverse();
    decision
}

#[cfg(test)]
mod tests;

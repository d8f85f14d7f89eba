//! When the runs of a schedule start: due times, jitter and the deadline for starting late.

use super::calendar::{Calendar, InvalidSchedule};
use crate::{api::schedule::BackupScheduleSpec, jitter};
use jiff::{SignedDuration, Timestamp};

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The time that `spec.schedule` names. A run has its name from it.
    pub time: Timestamp,
    /// When the run starts: later than `time` by less than `jitterSeconds`, and before the next due time.
    pub start: Timestamp,
}

/// The runs around a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The one to be started now: the latest that has come, however many were missed.
    pub run: Option<Due>,
    /// The one after it.
    pub next: Due,
}

/// The runs of a schedule after `since`, its last due time that was run, seen at `now`. `since` may
/// lie after `now`: the clock was set back, and what ran does not run again.
///
/// # Errors
/// [`InvalidSchedule`].
pub fn times(
    spec: &BackupScheduleSpec,
    uid: &str,
    since: Timestamp,
    now: Timestamp,
) -> Result<Times, InvalidSchedule> {
    let calendar = Calendar::parse(&spec.schedule, &spec.time_zone)?;
    let due = |time| Due {
        time,
        start: start(&calendar, spec.jitter_seconds, uid, time),
    };
    let next = due(calendar.next(now.max(since))?);
    let in_time = |run: &Due| {
        spec.starting_deadline_seconds.is_none_or(|limit| {
            now.duration_since(run.start) <= SignedDuration::from_secs(i64::from(limit))
        })
    };
    let (run, next) = match calendar.latest(since, now).map(due) {
        // It is due, but its start is still to come, so the one before it counts.
        Some(latest) if latest.start > now => {
            let before = latest
                .time
                .checked_sub(SignedDuration::from_secs(1))
                .ok()
                .and_then(|before| calendar.latest(since, before));
            (before.map(due), latest)
        }
        latest => (latest, next),
    };
    Ok(Times {
        run: run.filter(in_time),
        next,
    })
}

/// The same for the same run, whenever and wherever it is asked. Runs never overtake one another:
/// each starts before the next is due, so none is lost to jitter.
fn start(calendar: &Calendar, jitter_seconds: u32, uid: &str, time: Timestamp) -> Timestamp {
    if jitter_seconds == 0 {
        return time;
    }
    let room = calendar.next(time).map_or(i64::MAX, |next| {
        next.as_second().saturating_sub(time.as_second())
    });
    let span = i64::from(jitter_seconds).saturating_add(1).min(room.max(1));
    let offset = jitter::below(uid, time.as_second(), span.unsigned_abs()).cast_signed();
    time.checked_add(SignedDuration::from_secs(offset))
        .unwrap_or(time)
}

#[cfg(test)]
mod tests;

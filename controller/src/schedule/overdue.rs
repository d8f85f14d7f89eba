//! Whether a schedule has gone for too long without a backup that succeeded: however that came
//! about, and whatever else is well. The same of its drills.

use super::calendar::{Calendar, InvalidSchedule};
use crate::api::{BackupScheduleStatus, schedule::BackupScheduleSpec};
use jiff::Timestamp;

/// When the schedule becomes overdue, unless a backup succeeds before: twice its interval after the last
/// success or else its creation.
///
/// # Errors
/// [`InvalidSchedule`].
pub fn of_backups(
    spec: &BackupScheduleSpec,
    status: &BackupScheduleStatus,
    created: Timestamp,
) -> Result<Timestamp, InvalidSchedule> {
    let success = status.last_successful_time.as_ref().map(|t| t.0);
    let calendar = Calendar::parse(&spec.schedule, &spec.time_zone)?;
    limit(&calendar, success.map_or(created, |t| t.max(created)))
}

/// Twice the interval after `since`.
///
/// # Errors
/// [`InvalidSchedule`].
pub(super) fn limit(calendar: &Calendar, since: Timestamp) -> Result<Timestamp, InvalidSchedule> {
    let second = calendar.next(calendar.next(since)?)?;
    // The run that made the backup ended so long after it was due; the next ones may as well.
    let late = calendar
        .latest(Timestamp::MIN, since)
        .map(|due| since.duration_since(due))
        .unwrap_or_default();
    Ok(second.checked_add(late).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_interval_after_the_last_success() {
        for (schedule, zone, since, overdue) in [
            (
                "0 2 * * *",
                "Etc/UTC",
                "2025-01-01T02:20:00Z",
                "2025-01-03T02:20:00Z",
            ),
            // It ran for most of a day.
            (
                "0 2 * * *",
                "Etc/UTC",
                "2025-01-02T01:00:00Z",
                "2025-01-04T01:00:00Z",
            ),
            (
                "*/10 * * * *",
                "Etc/UTC",
                "2025-01-01T00:00:30Z",
                "2025-01-01T00:20:30Z",
            ),
            // Weekdays: the interval over a weekend is three days.
            (
                "0 2 * * 1-5",
                "Etc/UTC",
                "2025-01-03T02:05:00Z",
                "2025-01-07T02:05:00Z",
            ),
            // A day of 23 hours is a day.
            (
                "30 12 * * *",
                "Europe/Berlin",
                "2025-03-29T11:30:00Z",
                "2025-03-31T10:30:00Z",
            ),
        ] {
            let calendar = Calendar::parse(schedule, zone).unwrap();
            assert_eq!(
                limit(&calendar, since.parse().unwrap()).unwrap(),
                overdue.parse().unwrap(),
                "{schedule} {since}"
            );
        }
    }
}

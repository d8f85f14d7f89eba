//! Whether a schedule has gone for too long without a backup that succeeded: however that came
//! about, and whatever else is well.

use super::calendar::{Calendar, InvalidSchedule};
use crate::api::schedule::BackupScheduleSpec;
use jiff::Timestamp;

/// When the schedule becomes overdue, unless a backup succeeds before: twice its interval after
/// `since`, the last success or else its creation.
///
/// # Errors
/// [`InvalidSchedule`].
pub fn limit(spec: &BackupScheduleSpec, since: Timestamp) -> Result<Timestamp, InvalidSchedule> {
    let calendar = Calendar::parse(&spec.schedule, &spec.time_zone)?;
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
            let spec: BackupScheduleSpec = serde_json::from_value(serde_json::json!({
                "schedule": schedule, "timeZone": zone,
                "jobTemplate": {"spec": {"source": {"podSelector": {"matchLabels": {"app": "db"}}}, "storeRef": {"name": "main"}}},
            }))
            .unwrap();
            assert_eq!(
                limit(&spec, since.parse().unwrap()).unwrap(),
                overdue.parse().unwrap(),
                "{schedule} {since}"
            );
        }
    }
}

//! Due times: a cron expression read in a time zone.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// A schedule's due times.
#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

/// A schedule that gives no due times. The message names the field and says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// The expression is not cron.
    #[error(
        "spec.schedule {schedule:?} is not a schedule: {detail} Write five cron fields, e.g. '30 2 * * *'"
    )]
    Expression {
        /// What it says.
        schedule: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The zone is not known.
    #[error(
        "spec.timeZone {0:?} is not known to the controller: write the name of an IANA time zone, e.g. 'Europe/Berlin', or update the controller's time zone data"
    )]
    Zone(String),
    /// No date matches.
    #[error(
        "spec.schedule {0:?} never comes due: no date matches it, so no backup would ever be made"
    )]
    Never(String),
}

/// How far back a missed due time is searched for, in steps; the last is longer than the longest
/// distance between two matches of five cron fields (29 February on a fixed weekday: 40 years).
const WINDOWS: [SignedDuration; 5] = [
    SignedDuration::from_hours(2),
    SignedDuration::from_hours(2 * 24),
    SignedDuration::from_hours(33 * 24),
    SignedDuration::from_hours(367 * 24),
    SignedDuration::from_hours(41 * 366 * 24),
];

impl Calendar {
    /// Reads `spec.schedule` and `spec.timeZone`.
    ///
    /// # Errors
    /// [`InvalidSchedule`].
    pub fn parse(schedule: &str, zone: &str) -> Result<Self, InvalidSchedule> {
        // The parser knows every macro but this one.
        let expression = if schedule.trim().eq_ignore_ascii_case("@midnight") {
            "@daily"
        } else {
            schedule
        };
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(expression)
            .map_err(|e| InvalidSchedule::Expression {
                schedule: schedule.to_owned(),
                detail: e.to_string(),
            })?;
        Ok(Self {
            cron,
            zone: self::zone(zone)?,
        })
    }

    /// The first due time after `after`.
    ///
    /// # Errors
    /// [`InvalidSchedule::Never`].
    pub fn next(&self, after: Timestamp) -> Result<Timestamp, InvalidSchedule> {
        self.cron
            .find_next_occurrence(&after.to_zoned(self.zone.clone()), false)
            .map(|due| due.timestamp())
            .map_err(|_| InvalidSchedule::Never(self.cron.as_str().to_owned()))
    }

    /// The latest due time after `after` and not after `now`, however many there were.
    #[must_use]
    pub fn latest(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        // Only next() is asked, so that missed and coming times follow the same rules on days on
        // which the clock changes.
        for window in WINDOWS {
            let from = now
                .checked_sub(window)
                .map_or(after, |start| start.max(after));
            let mut latest = None;
            let mut due = self.next(from).ok()?;
            while due <= now {
                latest = Some(due);
                due = match self.next(due) {
                    Ok(due) => due,
                    Err(_) => break,
                };
            }
            if latest.is_some() || from == after {
                return latest;
            }
        }
        None
    }
}

/// Reads `spec.timeZone`.
///
/// # Errors
/// [`InvalidSchedule::Zone`].
pub fn zone(name: &str) -> Result<TimeZone, InvalidSchedule> {
    match name {
        // Known without time zone data.
        "Etc/UTC" | "UTC" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| InvalidSchedule::Zone(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn next_follows_the_zone() {
        for (schedule, zone, after, next) in [
            (
                "30 2 * * *",
                "Etc/UTC",
                "2025-01-01T00:00:00Z",
                "2025-01-01T02:30:00Z",
            ),
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2025-01-01T00:00:00Z",
                "2025-01-01T01:30:00Z",
            ),
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2025-07-01T00:00:00Z",
                "2025-07-01T00:30:00Z",
            ),
            (
                "30 2 * * *",
                "Etc/UTC",
                "2025-01-01T02:30:00Z",
                "2025-01-02T02:30:00Z",
            ),
            (
                "@midnight",
                "Asia/Kolkata",
                "2025-01-01T00:00:00Z",
                "2025-01-01T18:30:00Z",
            ),
            (
                "@hourly",
                "Etc/UTC",
                "2025-01-01T00:00:01Z",
                "2025-01-01T01:00:00Z",
            ),
            (
                "*/5 * * * *",
                "Etc/UTC",
                "2025-01-01T00:04:59.9Z",
                "2025-01-01T00:05:00Z",
            ),
            (
                "0 0 1 JAN ?",
                "Etc/UTC",
                "2025-01-01T00:00:00Z",
                "2026-01-01T00:00:00Z",
            ),
            (
                "0 0 29 2 *",
                "Etc/UTC",
                "2025-01-01T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            // Both day fields restricted: either matches, as in crontab(5).
            (
                "0 0 13 * 5",
                "Etc/UTC",
                "2025-01-01T00:00:00Z",
                "2025-01-03T00:00:00Z",
            ),
        ] {
            let calendar = Calendar::parse(schedule, zone).unwrap();
            assert_eq!(
                calendar.next(t(after)).unwrap(),
                t(next),
                "{schedule} {zone} {after}"
            );
        }
    }

    #[test]
    fn the_latest_missed_time_is_one_however_many_passed() {
        for (schedule, after, now, latest) in [
            (
                "* * * * *",
                "2015-01-01T00:00:00Z",
                "2025-01-01T00:00:30Z",
                Some("2025-01-01T00:00:00Z"),
            ),
            (
                "0 2 * * *",
                "2024-12-01T02:00:00Z",
                "2025-01-01T01:00:00Z",
                Some("2024-12-31T02:00:00Z"),
            ),
            (
                "0 2 1 * *",
                "2024-06-01T02:00:00Z",
                "2025-01-01T01:00:00Z",
                Some("2024-12-01T02:00:00Z"),
            ),
            (
                "0 0 29 2 *",
                "2020-01-01T00:00:00Z",
                "2025-01-01T01:00:00Z",
                Some("2024-02-29T00:00:00Z"),
            ),
            (
                "0 2 * * *",
                "2025-01-01T02:00:00Z",
                "2025-01-02T01:59:59Z",
                None,
            ),
            (
                "0 2 * * *",
                "2025-01-01T02:00:00Z",
                "2025-01-02T02:00:00Z",
                Some("2025-01-02T02:00:00Z"),
            ),
            // The clock went back behind the last run.
            (
                "0 2 * * *",
                "2025-01-02T02:00:00Z",
                "2025-01-01T03:00:00Z",
                None,
            ),
        ] {
            let calendar = Calendar::parse(schedule, "Etc/UTC").unwrap();
            assert_eq!(
                calendar.latest(t(after), t(now)),
                latest.map(t),
                "{schedule} {after} {now}"
            );
        }
    }

    /// What a fixed time of day stands for is made once on every day; what is said to come every
    /// so often comes so often in real time.
    #[test]
    fn days_on_which_the_clock_changes() {
        for (schedule, after, expected) in [
            // 2025-03-30, Europe/Berlin: 02:00 becomes 03:00, at 01:00 UTC.
            (
                "30 2 * * *",
                "2025-03-29T12:00:00Z",
                &["2025-03-30T01:00:00Z", "2025-03-31T00:30:00Z"][..],
            ),
            (
                "30 3 * * *",
                "2025-03-29T12:00:00Z",
                &["2025-03-30T01:30:00Z", "2025-03-31T01:30:00Z"],
            ),
            (
                "*/30 * * * *",
                "2025-03-30T00:15:00Z",
                &[
                    "2025-03-30T00:30:00Z",
                    "2025-03-30T01:00:00Z",
                    "2025-03-30T01:30:00Z",
                ],
            ),
            (
                "0 * * * *",
                "2025-03-30T00:15:00Z",
                &["2025-03-30T01:00:00Z", "2025-03-30T02:00:00Z"],
            ),
            // 2025-10-26: 03:00 becomes 02:00, at 01:00 UTC; 02:30 comes twice.
            (
                "30 2 * * *",
                "2025-10-25T12:00:00Z",
                &["2025-10-26T00:30:00Z", "2025-10-27T01:30:00Z"],
            ),
            (
                "*/30 * * * *",
                "2025-10-26T00:15:00Z",
                &[
                    "2025-10-26T00:30:00Z",
                    "2025-10-26T01:00:00Z",
                    "2025-10-26T01:30:00Z",
                    "2025-10-26T02:00:00Z",
                ],
            ),
            (
                "0 * * * *",
                "2025-10-25T23:30:00Z",
                &[
                    "2025-10-26T00:00:00Z",
                    "2025-10-26T01:00:00Z",
                    "2025-10-26T02:00:00Z",
                ],
            ),
        ] {
            let calendar = Calendar::parse(schedule, "Europe/Berlin").unwrap();
            let mut at = t(after);
            for due in expected {
                at = calendar.next(at).unwrap();
                assert_eq!(at, t(due), "{schedule} after {after}");
            }
            let last = t(expected[expected.len() - 1]);
            assert_eq!(
                calendar.latest(t(after), last),
                Some(last),
                "{schedule}: missed ones follow the same rule"
            );
        }
    }

    #[test]
    fn what_gives_no_due_time_says_why() {
        for (schedule, zone, part) in [
            ("0 2 30 2 *", "Etc/UTC", "never comes due"),
            ("30-10 * * * *", "Etc/UTC", "spec.schedule"),
            ("0 0 2 * * *", "Etc/UTC", "spec.schedule"),
            ("0 2 * * *", "Mars/Olympus", "spec.timeZone"),
        ] {
            let error = Calendar::parse(schedule, zone)
                .and_then(|c| c.next(t("2025-01-01T00:00:00Z")))
                .unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

//! When a schedule's backups are drilled, and what follows from the drills: a pure function of what was
//! observed and the time.

use super::{calendar::Calendar, overdue};
use crate::{
    api::{
        BackupScheduleStatus,
        conditions::{self, Status},
        restore::RestorePhase,
        schedule::{BackupScheduleSpec, VERIFIED},
    },
    reason::{RestoreReason, ScheduleReason},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Drills of each outcome that are kept.
const KEPT: usize = 3;

/// A drill that this schedule owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedDrill {
    /// Name of the RestoreJob.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The due time that it was created for, as its name tells.
    pub due: Option<Timestamp>,
    /// Where it is.
    pub phase: RestorePhase,
    /// Why it failed.
    pub reason: Option<RestoreReason>,
    /// What it says of its end.
    pub message: String,
    /// When the controller took it up.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub completion: Option<Timestamp>,
    /// The BackupJob whose backup it restored.
    pub backup: Option<String>,
}

/// What was observed.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// What is wanted.
    pub spec: &'a BackupScheduleSpec,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The drills that this schedule owns.
    pub drills: &'a [OwnedDrill],
    /// Now.
    pub now: Timestamp,
}

/// What to do, beside what was changed in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Create the drill of this due time.
    pub create: Option<Timestamp>,
    /// Delete these drills' records, `(name, uid)`.
    pub delete: Vec<(String, String)>,
    /// Look again at this time.
    pub wake: Option<Timestamp>,
    /// When drills are overdue, unless one passes before: twice their interval after the last that did, or
    /// else after the first. Absent while there are to be none.
    pub overdue: Option<Timestamp>,
}

/// Plans, and takes account in `status` of drills that have ended.
#[must_use]
pub fn plan(observed: &Observed<'_>, status: &mut BackupScheduleStatus) -> Plan {
    judge(observed, status);
    let mut plan = Plan {
        delete: surplus(observed.drills),
        ..Plan::default()
    };
    let Some(verify) = &observed.spec.verify else {
        status.last_verify_schedule_time = None;
        return plan;
    };
    let calendar = match Calendar::parse(&verify.schedule, &observed.spec.time_zone) {
        Ok(calendar) => calendar,
        Err(error) => {
            // The field has another name here.
            let message = error
                .to_string()
                .replace("spec.schedule", "spec.verify.schedule");
            set(
                observed,
                status,
                Status::Unknown,
                ScheduleReason::InvalidSchedule.as_str(),
                &message,
            );
            return plan;
        }
    };
    let now = observed.now;
    let created = observed.drills.iter().filter_map(|drill| drill.due);
    let passed = status.last_verified_time.as_ref().map(|t| t.0);
    let asked = status.last_verify_schedule_time.as_ref().map(|t| t.0);
    let since = passed.or(created.clone().min()).or(asked).unwrap_or(now);
    plan.overdue = overdue::limit(&calendar, since)
        .ok()
        .filter(|_| !verify.suspend);
    let told = status.last_verify_schedule_time.as_ref().map(|t| t.0);
    // What was due before anybody asked for drills is not made up for.
    let Some(since) = created.chain(told).filter(|due| *due <= now).max() else {
        status.last_verify_schedule_time = Some(Time(now));
        plan.wake = calendar.next(now).ok();
        return plan;
    };
    status.last_verify_schedule_time = Some(Time(since));
    plan.wake = calendar.next(now).ok();
    let Some(due) = calendar.latest(since, now) else {
        return plan;
    };
    if verify.suspend {
        status.last_verify_schedule_time = Some(Time(due));
        return plan;
    }
    // One at a time: the end of the one before calls again.
    if observed.drills.iter().all(|drill| drill.phase.is_final()) {
        plan.create = Some(due);
    }
    plan
}

/// What the newest drill that says anything about its backup means.
fn judge(observed: &Observed<'_>, status: &mut BackupScheduleStatus) {
    let ended = observed.drills.iter().filter_map(|drill| {
        let good = drill.phase == RestorePhase::Succeeded;
        let bad = drill.reason.is_some_and(RestoreReason::blames_backup);
        let says = drill.phase.is_final() && (good || bad);
        Some((drill.completion.filter(|_| says)?, good, drill))
    });
    let Some((at, good, drill)) = ended.max_by_key(|(at, ..)| *at) else {
        return;
    };
    // Somebody may have deleted the record of a later one.
    let last = status.last_verified_time.as_ref().map(|t| t.0);
    if last.is_some_and(|last| at <= last) {
        return;
    }
    let of = drill.backup.as_deref().unwrap_or("a backup");
    if good {
        status.last_verified_time = Some(Time(at));
        let message = format!("{of} was restored by {}: {}", drill.name, drill.message);
        set(observed, status, Status::True, "Restored", &message);
    } else {
        let reason = drill.reason.map_or("Failed", RestoreReason::as_str);
        let message = format!(
            "{of} does not restore ({}): {}. It is not counted as a good backup; take another one (kubectl describe bkjob {of})",
            drill.name, drill.message
        );
        set(observed, status, Status::False, reason, &message);
    }
}

fn set(
    observed: &Observed<'_>,
    status: &mut BackupScheduleStatus,
    holds: Status,
    reason: &str,
    message: &str,
) {
    conditions::set(
        &mut status.conditions,
        VERIFIED,
        holds,
        reason,
        message,
        observed.generation,
        observed.now,
    );
}

/// Records beyond the last of each outcome, oldest first.
fn surplus(drills: &[OwnedDrill]) -> Vec<(String, String)> {
    let beyond = |phase: RestorePhase| {
        let mut ended: Vec<_> = drills.iter().filter(|d| d.phase == phase).collect();
        ended.sort_by(|a, b| (a.completion, &a.name).cmp(&(b.completion, &b.name)));
        let surplus = ended.len().saturating_sub(KEPT);
        ended.truncate(surplus);
        ended
    };
    beyond(RestorePhase::Succeeded)
        .into_iter()
        .chain(beyond(RestorePhase::Failed))
        .map(|drill| (drill.name.clone(), drill.uid.clone()))
        .collect()
}

/// Name of the drill of one due time: the same however often it is planned.
#[must_use]
pub fn drill_name(schedule: &str, due: Timestamp) -> String {
    format!("{schedule}-verify-{}", due.as_second().div_euclid(60))
}

/// The due time of a drill, from its name.
#[must_use]
pub fn due_of(schedule: &str, drill: &str) -> Option<Timestamp> {
    let minutes = drill.strip_prefix(schedule)?.strip_prefix("-verify-")?;
    let due = Timestamp::from_second(minutes.parse::<i64>().ok()?.checked_mul(60)?).ok()?;
    (drill_name(schedule, due) == drill).then_some(due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn t(time: &str) -> Timestamp {
        format!("2026-03-01T{time}Z").parse().unwrap()
    }

    fn spec(verify: serde_json::Value) -> BackupScheduleSpec {
        serde_json::from_value(json!({
            "schedule": "0 * * * *", "verify": verify,
            "jobTemplate": {"spec": {"source": {"url": "http://db"}, "storeRef": {"name": "s"}}},
        }))
        .unwrap()
    }

    fn hourly() -> BackupScheduleSpec {
        spec(json!({"schedule": "30 * * * *", "image": "i"}))
    }

    fn drill(due: &str, phase: RestorePhase, reason: Option<RestoreReason>) -> OwnedDrill {
        let due = t(due);
        OwnedDrill {
            name: drill_name("nightly", due),
            uid: format!("u{}", due.as_second()),
            due: Some(due),
            phase,
            reason,
            message: "m".into(),
            start: None,
            completion: phase.is_final().then_some(due),
            backup: Some("nightly-1".into()),
        }
    }

    fn run(
        spec: &BackupScheduleSpec,
        status: &mut BackupScheduleStatus,
        drills: &[OwnedDrill],
        now: &str,
    ) -> Plan {
        let observed = Observed {
            spec,
            generation: Some(1),
            drills,
            now: t(now),
        };
        plan(&observed, status)
    }

    #[test]
    fn drills_come_at_their_times_and_one_at_a_time() {
        let mut status = BackupScheduleStatus::default();
        // Asked for at 10:45: what was due before does not matter.
        let first = run(&hourly(), &mut status, &[], "10:45:00");
        assert_eq!((first.create, first.wake), (None, Some(t("11:30:00"))));
        assert_eq!(run(&hourly(), &mut status, &[], "11:29:59").create, None);
        let due = run(&hourly(), &mut status, &[], "11:30:00");
        assert_eq!(due.create, Some(t("11:30:00")));
        // Whoever created it died before that was written: its name tells.
        let running = [drill("11:30:00", RestorePhase::Running, None)];
        assert_eq!(
            run(&hourly(), &mut status, &running, "11:31:00").create,
            None
        );
        assert_eq!(
            run(&hourly(), &mut status, &running, "12:31:00").create,
            None
        );
        let ended = [drill("11:30:00", RestorePhase::Succeeded, None)];
        let next = run(&hourly(), &mut status, &ended, "13:31:00");
        assert_eq!(
            next.create,
            Some(t("13:30:00")),
            "the latest, however many were missed"
        );
        // Its record is gone; the status knows.
        assert_eq!(run(&hourly(), &mut status, &[], "11:45:00").create, None);
    }

    #[test]
    fn drills_are_overdue_after_twice_their_interval() {
        let mut status = BackupScheduleStatus::default();
        let mut overdue =
            |drills: &[OwnedDrill], now: &str| run(&hourly(), &mut status, drills, now).overdue;
        // None was made yet.
        assert_eq!(overdue(&[], "10:45:00"), Some(t("12:45:00")));
        let error = Some(RestoreReason::PodFailed);
        let first = drill("11:30:00", RestorePhase::Failed, error);
        let second = drill("12:30:00", RestorePhase::Failed, error);
        let failing = [first, second];
        assert_eq!(overdue(&failing, "12:45:00"), Some(t("13:30:00")));
        let passed = drill("13:30:00", RestorePhase::Succeeded, None);
        let last = drill("14:30:00", RestorePhase::Failed, error);
        assert_eq!(
            overdue(&[passed, last.clone()], "14:40:00"),
            Some(t("15:30:00"))
        );
        // The record of the one that passed is gone; the status knows.
        assert_eq!(overdue(&[last], "16:40:00"), Some(t("15:30:00")));
        let mut suspended = hourly();
        suspended.verify.as_mut().unwrap().suspend = true;
        assert_eq!(run(&suspended, &mut status, &[], "16:50:00").overdue, None);
        let mut none = hourly();
        none.verify = None;
        assert_eq!(run(&none, &mut status, &[], "16:50:00").overdue, None);
    }

    #[test]
    fn while_it_is_suspended_times_pass() {
        let mut suspended = hourly();
        suspended.verify.as_mut().unwrap().suspend = true;
        let mut status = BackupScheduleStatus::default();
        run(&suspended, &mut status, &[], "10:45:00");
        assert_eq!(run(&suspended, &mut status, &[], "11:30:00").create, None);
        assert_eq!(run(&hourly(), &mut status, &[], "11:50:00").create, None);
        // The backups that there are can be proven while no new ones are made.
        let mut no_backups = hourly();
        no_backups.suspend = true;
        let due = run(&no_backups, &mut status, &[], "12:30:00");
        assert_eq!(due.create, Some(t("12:30:00")));
    }

    #[test]
    fn only_what_says_something_about_the_backup_changes_the_condition() {
        let mut status = BackupScheduleStatus::default();
        let verified = |status: &BackupScheduleStatus| {
            let condition = conditions::get(&status.conditions, VERIFIED)?;
            Some((condition.status.clone(), condition.reason.clone()))
        };
        let is = |status: &str, reason: &str| Some((status.to_owned(), reason.to_owned()));
        let error = drill(
            "10:30:00",
            RestorePhase::Failed,
            Some(RestoreReason::PodFailed),
        );
        run(
            &hourly(),
            &mut status,
            std::slice::from_ref(&error),
            "10:40:00",
        );
        assert_eq!(verified(&status), None);
        let good = drill("11:30:00", RestorePhase::Succeeded, None);
        let drills = [error.clone(), good.clone()];
        run(&hourly(), &mut status, &drills, "11:40:00");
        assert_eq!(verified(&status), is("True", "Restored"));
        assert_eq!(status.last_verified_time, Some(Time(t("11:30:00"))));
        let bad = drill(
            "12:30:00",
            RestorePhase::Failed,
            Some(RestoreReason::BackupDamaged),
        );
        let later = drill(
            "13:30:00",
            RestorePhase::Failed,
            Some(RestoreReason::NoSpace),
        );
        let drills = [later, bad, good.clone(), error];
        run(&hourly(), &mut status, &drills, "13:40:00");
        assert_eq!(verified(&status), is("False", "BackupDamaged"));
        let message = &conditions::get(&status.conditions, VERIFIED)
            .unwrap()
            .message;
        assert!(
            message.starts_with("nightly-1 does not restore"),
            "{message}"
        );
        assert_eq!(status.last_verified_time, Some(Time(t("11:30:00"))));
        // Somebody deletes the record of the bad one.
        run(&hourly(), &mut status, &[good], "13:50:00");
        assert_eq!(verified(&status), is("False", "BackupDamaged"));
    }

    #[test]
    fn the_last_of_each_outcome_are_kept() {
        let ended =
            |phase, reason| (0..5).map(move |hour| drill(&format!("0{hour}:30:00"), phase, reason));
        let mut drills: Vec<_> = ended(RestorePhase::Succeeded, None).collect();
        drills.extend(ended(RestorePhase::Failed, Some(RestoreReason::NoSpace)));
        drills.push(drill("09:30:00", RestorePhase::Running, None));
        let mut status = BackupScheduleStatus::default();
        let mut none = hourly();
        none.verify = None;
        for spec in [hourly(), none] {
            let plan = run(&spec, &mut status, &drills, "09:31:00");
            let due: Vec<_> = plan
                .delete
                .iter()
                .map(|(name, _)| due_of("nightly", name))
                .collect();
            let (a, b) = (Some(t("00:30:00")), Some(t("01:30:00")));
            assert_eq!(due, [a, b, a, b]);
        }
    }

    #[test]
    fn a_schedule_of_drills_that_is_none_says_so() {
        let mut status = BackupScheduleStatus::default();
        let spec = spec(json!({"schedule": "0 0 30 2 *", "image": "i"}));
        let plan = run(&spec, &mut status, &[], "10:00:00");
        assert_eq!(plan.create, None);
        let bad = self::spec(json!({"schedule": "x", "image": "i"}));
        let plan = run(&bad, &mut status, &[], "10:00:00");
        assert_eq!(plan, Plan::default());
        let condition = conditions::get(&status.conditions, VERIFIED).unwrap();
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            ("Unknown", "InvalidSchedule")
        );
        assert!(
            condition.message.contains("spec.verify.schedule"),
            "{}",
            condition.message
        );
    }
}

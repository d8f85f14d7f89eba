//! What a restore does next: a pure function of its object and the time.

use crate::{
    api::{RestoreJobSpec, RestoreJobStatus},
    reason::RestoreReason,
};
use jiff::{SignedDuration, Timestamp};

/// The one next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the object changes.
    Rest,
    /// The restore has ended: what still runs for it is stopped, and what a drill used is removed.
    Tidy,
    /// Its time to live is over: delete the object.
    Delete,
    /// Nothing before this time.
    Wait(Timestamp),
    /// Take the restore up: write its start time.
    TakeUp,
    /// Find the backup, and write down which it is. Retention lets it be from then on.
    Resolve,
    /// See whether the target can take it, and write down the name of the Job that will do it.
    Admit,
    /// See once more, and create the Job.
    Create,
    /// Look at the Job and its pod.
    Watch,
    /// End it: nothing was begun.
    Conclude {
        /// Why.
        reason: RestoreReason,
        /// For people.
        message: String,
    },
}

/// Plans.
#[must_use]
pub fn plan(spec: &RestoreJobSpec, status: &RestoreJobStatus, now: Timestamp) -> Step {
    if status.phase.is_final() {
        return match end_of_life(spec, status) {
            _ if !status.tidied => Step::Tidy,
            Some(end) if end <= now => Step::Delete,
            Some(end) => Step::Wait(end),
            None => Step::Rest,
        };
    }
    if status.start_time.is_none() {
        return Step::TakeUp;
    }
    // A pod that has ended in time is believed, however late that is seen.
    if status.job_uid.is_some() {
        return Step::Watch;
    }
    if is_over(spec, status, now) {
        return Step::Conclude {
            reason: RestoreReason::DeadlineExceeded,
            message: deadline_message(spec, status),
        };
    }
    if status.backup.is_none() {
        Step::Resolve
    } else if status.job.is_none() {
        Step::Admit
    } else {
        Step::Create
    }
}

/// Seconds of `activeDeadlineSeconds` that are left, 1 at least.
#[must_use]
pub fn seconds_left(spec: &RestoreJobSpec, status: &RestoreJobStatus, now: Timestamp) -> i64 {
    deadline(spec, status).map_or(i64::from(spec.active_deadline_seconds), |end| {
        end.as_second().saturating_sub(now.as_second()).max(1)
    })
}

/// Whether `activeDeadlineSeconds` are over.
#[must_use]
pub fn is_over(spec: &RestoreJobSpec, status: &RestoreJobStatus, now: Timestamp) -> bool {
    deadline(spec, status).is_some_and(|end| end <= now)
}

/// What is said when they are.
#[must_use]
pub fn deadline_message(spec: &RestoreJobSpec, status: &RestoreJobStatus) -> String {
    let waited_for = status
        .reason
        .map(|reason| format!("; it waited for {reason}"))
        .unwrap_or_default();
    format!(
        "activeDeadlineSeconds ({}) are over{waited_for}. Raise it if restores may take longer",
        spec.active_deadline_seconds
    )
}

fn deadline(spec: &RestoreJobSpec, status: &RestoreJobStatus) -> Option<Timestamp> {
    let limit = SignedDuration::from_secs(i64::from(spec.active_deadline_seconds));
    status.start_time.as_ref()?.0.checked_add(limit).ok()
}

fn end_of_life(spec: &RestoreJobSpec, status: &RestoreJobStatus) -> Option<Timestamp> {
    let ttl = SignedDuration::from_secs(i64::from(spec.ttl_seconds_after_finished?));
    status.completion_time.as_ref()?.0.checked_add(ttl).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::restore::{RestorePhase, RestoredBackup};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn spec() -> RestoreJobSpec {
        serde_json::from_value(serde_json::json!({
            "from": {"backupJobRef": {"name": "b"}},
            "to": {"persistentVolumeClaim": {"claimName": "data"}},
            "activeDeadlineSeconds": 100, "ttlSecondsAfterFinished": 50,
        }))
        .unwrap()
    }

    /// How far a restore got, each step as the one before left it.
    fn story() -> [RestoreJobStatus; 5] {
        let fresh = RestoreJobStatus::default();
        let taken = RestoreJobStatus {
            start_time: Some(Time(t(0))),
            ..fresh.clone()
        };
        let resolved = RestoreJobStatus {
            backup: Some(RestoredBackup::default()),
            ..taken.clone()
        };
        let admitted = RestoreJobStatus {
            job: Some("r-restore".into()),
            phase: RestorePhase::Running,
            ..resolved.clone()
        };
        let created = RestoreJobStatus {
            job_uid: Some("u".into()),
            ..admitted.clone()
        };
        [fresh, taken, resolved, admitted, created]
    }

    #[test]
    fn each_step_follows_from_what_is_written() {
        let steps = story().map(|status| plan(&spec(), &status, t(99)));
        let expected = [
            Step::TakeUp,
            Step::Resolve,
            Step::Admit,
            Step::Create,
            Step::Watch,
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn too_late_nothing_is_begun_and_what_runs_is_still_looked_at() {
        let [_, taken, resolved, admitted, created] = story();
        for status in [taken, resolved, admitted] {
            let step = plan(&spec(), &status, t(100));
            assert!(
                matches!(&step, Step::Conclude { reason: RestoreReason::DeadlineExceeded, message } if message.contains("activeDeadlineSeconds (100)")),
                "{step:?}"
            );
        }
        assert_eq!(plan(&spec(), &created, t(1000)), Step::Watch);
        assert!(is_over(&spec(), &created, t(100)) && !is_over(&spec(), &created, t(99)));
        assert_eq!(seconds_left(&spec(), &created, t(40)), 60);
        assert_eq!(seconds_left(&spec(), &created, t(400)), 1);
    }

    #[test]
    fn one_that_has_ended_is_tidied_and_goes_in_its_time() {
        let [.., mut ended] = story();
        ended.completion_time = Some(Time(t(20)));
        for phase in [RestorePhase::Succeeded, RestorePhase::Failed] {
            ended.phase = phase;
            ended.tidied = false;
            assert_eq!(plan(&spec(), &ended, t(1000)), Step::Tidy);
            ended.tidied = true;
            assert_eq!(plan(&spec(), &ended, t(69)), Step::Wait(t(70)));
            assert_eq!(plan(&spec(), &ended, t(70)), Step::Delete);
            let mut kept = spec();
            kept.ttl_seconds_after_finished = None;
            assert_eq!(plan(&kept, &ended, t(1000)), Step::Rest);
        }
    }
}

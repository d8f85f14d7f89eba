//! What is made of a schedule, by the controller at its times and by whoever asks for one now: pure.

use crate::api::{
    BackupJob, BackupSchedule, LABEL_SCHEDULE, LocalReference, RestoreJob, RestoreJobSpec,
    restore::{FromLatest, RestoreFrom, RestoreTo},
};
use kube::{Resource, ResourceExt, api::ObjectMeta};

/// A job of the schedule's template, which the schedule owns: it counts for its history, its concurrency
/// policy and its retention. It has no name yet. `None`: the schedule is not one of the API server's.
#[must_use]
pub fn job(schedule: &BackupSchedule) -> Option<BackupJob> {
    let template = &schedule.spec.job_template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut made = ObjectMeta {
        labels: Some(metadata.labels),
        ..owned(schedule)?
    };
    if !metadata.annotations.is_empty() {
        made.annotations = Some(metadata.annotations);
    }
    let mut job = BackupJob {
        metadata: made,
        spec: template.spec.clone(),
        status: None,
    };
    job.labels_mut()
        .insert(LABEL_SCHEDULE.into(), schedule.name_any());
    Some(job)
}

/// A drill of the schedule's newest backup, which the schedule owns, so that its end is the schedule's
/// `Verified`. It has no name yet. `None`: there is no `spec.verify`, or the schedule is not one of the API
/// server's.
#[must_use]
pub fn drill(schedule: &BackupSchedule) -> Option<RestoreJob> {
    let verify = schedule.spec.verify.as_ref()?;
    let spec = RestoreJobSpec {
        checks: verify.checks.clone(),
        decryption: verify.decryption.clone(),
        ..RestoreJobSpec::new(
            newest(schedule),
            RestoreTo {
                drill: Some(verify.target()),
                ..RestoreTo::default()
            },
        )
    };
    let mut drill = RestoreJob {
        metadata: owned(schedule)?,
        spec,
        status: None,
    };
    drill
        .labels_mut()
        .insert(LABEL_SCHEDULE.into(), schedule.name_any());
    Some(drill)
}

/// The newest backup of the schedule, whether or not its BackupJob is still there.
#[must_use]
pub fn newest(schedule: &BackupSchedule) -> RestoreFrom {
    let latest = FromLatest {
        store_ref: LocalReference {
            name: schedule.spec.job_template.spec.store_name().to_owned(),
        },
        schedule: Some(schedule.name_any()),
        before: None,
    };
    RestoreFrom {
        latest: Some(latest),
        ..RestoreFrom::default()
    }
}

fn owned(schedule: &BackupSchedule) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        namespace: schedule.namespace(),
        owner_references: Some(vec![schedule.controller_owner_ref(&())?]),
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::schedule_of;
    use serde_json::json;

    fn schedule() -> BackupSchedule {
        serde_json::from_value(json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule",
            "metadata": {"name": "nightly", "namespace": "shop", "uid": "u"},
            "spec": {
                "schedule": "0 3 * * *",
                "verify": {"schedule": "0 6 * * 0", "image": "mariadb:10.11", "checks": [{"query": "SELECT 1"}],
                           "decryption": {"identitySecretRef": {"name": "identity"}}},
                "jobTemplate": {
                    "metadata": {"labels": {"team": "shop", LABEL_SCHEDULE: "another"}, "annotations": {"a": "b"}},
                    "spec": {"source": {"url": "http://db"}, "storeRef": {"name": "offsite"}, "method": "logical"},
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_job_is_the_template_and_the_schedules_own() {
        let schedule = schedule();
        let job = job(&schedule).unwrap();
        assert_eq!(job.spec, schedule.spec.job_template.spec);
        assert_eq!(job.namespace().as_deref(), Some("shop"));
        assert_eq!(schedule_of(&job).map(|o| o.uid.as_str()), Some("u"));
        let labels: Vec<_> = job
            .labels()
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(labels, [("team", "shop"), (LABEL_SCHEDULE, "nightly")]);
        assert_eq!(job.annotations().get("a").map(String::as_str), Some("b"));
        // Whoever owns must be an object that is there.
        let mut written = schedule;
        written.metadata.uid = None;
        assert_eq!(super::job(&written), None);
    }

    #[test]
    fn a_drill_is_of_the_newest_backup_and_as_spec_verify_says() {
        let mut schedule = schedule();
        let drill = drill(&schedule).unwrap();
        let spec = serde_json::to_value(&drill.spec).unwrap();
        let wanted = json!({
            "from": {"latest": {"storeRef": {"name": "offsite"}, "schedule": "nightly"}},
            "to": {"drill": {"image": "mariadb:10.11"}},
            "checks": [{"query": "SELECT 1"}],
            "decryption": {"identitySecretRef": {"name": "identity", "key": "identity"}},
            "activeDeadlineSeconds": 86_400,
        });
        assert_eq!(spec, wanted);
        assert_eq!(schedule_of(&drill).map(|o| o.uid.as_str()), Some("u"));
        assert_eq!(
            drill.labels().get(LABEL_SCHEDULE).map(String::as_str),
            Some("nightly")
        );
        schedule.spec.verify = None;
        assert_eq!(super::drill(&schedule), None);
    }
}

//! The drills of a schedule: RestoreJobs that it owns.

use super::{
    made,
    verify::{self, OwnedDrill},
};
use crate::{
    api::{
        BackupSchedule, RestoreJob, conditions,
        restore::{COMPLETE, FAILED, RestorePhase},
    },
    context::{Context, Guard},
    error::Error,
    job::schedule_of,
};
use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use std::time::Duration;

/// The drills that a schedule owns, of those in the cache.
pub(super) fn observe(
    context: &Context,
    namespace: &str,
    schedule: &BackupSchedule,
) -> Vec<OwnedDrill> {
    let uid = schedule.uid().unwrap_or_default();
    let name = schedule.name_any();
    let restores = context.restores.all();
    restores
        .iter()
        .filter_map(|guard| guard.0.as_ref().ok())
        .filter(|restore| {
            restore.namespace().as_deref() == Some(namespace)
                && restore.metadata.deletion_timestamp.is_none()
                && schedule_of(*restore).is_some_and(|o| o.uid == uid)
        })
        .map(|restore| owned(&name, restore))
        .collect()
}

/// From start to end of the newest drill that passed.
pub(super) fn last_passed(drills: &[OwnedDrill]) -> Option<Duration> {
    let passed = drills
        .iter()
        .filter(|drill| drill.phase == RestorePhase::Succeeded);
    let newest = passed.max_by_key(|drill| drill.completion)?;
    Duration::try_from(newest.completion?.duration_since(newest.start?)).ok()
}

fn owned(schedule: &str, restore: &RestoreJob) -> OwnedDrill {
    let status = restore.status.as_ref();
    let phase = status.map_or(RestorePhase::Pending, |s| s.phase);
    let condition = match phase {
        RestorePhase::Succeeded => COMPLETE,
        _ => FAILED,
    };
    let told = status.and_then(|s| conditions::get(&s.conditions, condition));
    OwnedDrill {
        name: restore.name_any(),
        uid: restore.uid().unwrap_or_default(),
        due: verify::due_of(schedule, &restore.name_any()),
        phase,
        reason: status.and_then(|s| s.reason),
        message: told.map(|c| c.message.clone()).unwrap_or_default(),
        start: status.and_then(|s| s.start_time.as_ref()).map(|t| t.0),
        completion: status.and_then(|s| s.completion_time.as_ref()).map(|t| t.0),
        backup: status
            .and_then(|s| s.backup.as_ref())
            .map(|b| b.backup_job.clone()),
    }
}

/// Creates the drill of one due time. Whether it is there, and ours.
pub(super) async fn create(
    context: &Context,
    namespace: &str,
    schedule: &BackupSchedule,
    due: Timestamp,
) -> Result<bool, Error> {
    if schedule.spec.verify.is_none() {
        return Ok(false);
    }
    let name = verify::drill_name(&schedule.name_any(), due);
    let mut restore = made::drill(schedule).ok_or(Error::Malformed("uid"))?;
    restore.metadata.name = Some(name.clone());
    let api = Api::<RestoreJob>::namespaced(context.client.clone(), namespace);
    let about = schedule.object_ref(&());
    match api.create(&PostParams::default(), &restore).await {
        Ok(_) => {
            tracing::info!(
                namespace,
                schedule = schedule.name_any(),
                drill = name,
                "drill created"
            );
            let note = format!("created RestoreJob {name}, a drill of the newest backup");
            context
                .report
                .normal(&about, "Created", "Verify", &note)
                .await;
            Ok(true)
        }
        // An earlier try has created it, and died before it wrote so.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = Api::<Guard<RestoreJob>>::namespaced(context.client.clone(), namespace)
                .get_opt(&name)
                .await?;
            let ours = found
                .is_some_and(|r| schedule_of(&r).map(|o| &o.uid) == schedule.metadata.uid.as_ref());
            if !ours {
                let note = format!(
                    "RestoreJob {name} exists and is not this schedule's: delete or rename it; its drill is not made"
                );
                context
                    .report
                    .warning(&about, "NameTaken", "Verify", &note)
                    .await;
            }
            Ok(ours)
        }
        Err(kube::Error::Api(status)) if status.code == 422 => {
            let note = format!(
                "RestoreJob {name} was refused: {}; correct spec.verify",
                status.message
            );
            context
                .report
                .warning(&about, "VerifyRefused", "Verify", &note)
                .await;
            Err(kube::Error::Api(status).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes the record of a drill. Its proof in the bucket stays.
pub(super) async fn delete(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), Error> {
    let delete = DeleteParams::background().preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    });
    let api = Api::<RestoreJob>::namespaced(context.client.clone(), namespace);
    match api.delete(name, &delete).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

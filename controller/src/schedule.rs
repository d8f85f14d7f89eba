//! The `BackupSchedule` reconciler: observe, plan, act.

pub mod calendar;
mod drills;
pub mod due;
mod figures;
pub mod made;
pub mod overdue;
pub mod plan;
pub mod verify;

use crate::{
    api::{
        ANNOTATION_SCHEDULED_AT, BackupJob, BackupSchedule, BackupScheduleStatus, conditions,
        job::Phase,
        schedule::{ActiveJob, OVERDUE, READY, RETAINED, VERIFIED},
    },
    context::{Context, Guard},
    error::Error,
    job::{deletion, schedule_of},
};
use due::Due;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::controller::Action,
};
use plan::{Observed, OwnedJob, Plan};
use std::{sync::Arc, time::Duration};

/// The longest sleep: the clock of the machine may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(300);

/// Creates the job that is due, if one is, and tidies up.
///
/// # Errors
/// When the API server does not let us; the run is neither lost nor doubled, for its job's name is
/// made from its due time.
pub async fn reconcile(
    schedule: Arc<BackupSchedule>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let namespace = schedule.namespace().ok_or(Error::Malformed("namespace"))?;
    if schedule.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    context.jobs.filled().await;
    let api = Api::<BackupSchedule>::namespaced(context.client.clone(), &namespace);
    let mut schedule = BackupSchedule::clone(&schedule);
    let mut jobs = observe(&context, &namespace, &schedule).await?;
    let mut plan = plan_for(&schedule, &jobs)?;
    if plan.create.is_some() || !plan.cancel.is_empty() {
        // The cache may lag behind our own last write: what is due is judged on the object as it is.
        match api.get_opt(&schedule.name_any()).await? {
            Some(live) if live.uid() == schedule.uid() => schedule = live,
            _ => return Ok(Action::await_change()),
        }
        jobs = observe(&context, &namespace, &schedule).await?;
        plan = plan_for(&schedule, &jobs)?;
    }
    act(&context, &api, &namespace, &schedule, &jobs, plan).await
}

fn plan_for(schedule: &BackupSchedule, jobs: &[Arc<Guard<BackupJob>>]) -> Result<Plan, Error> {
    let name = schedule.name_any();
    let owned: Vec<OwnedJob> = readable(jobs).map(|job| owned(&name, job)).collect();
    Ok(plan::plan(&Observed {
        spec: &schedule.spec,
        status: schedule
            .status
            .as_ref()
            .unwrap_or(&BackupScheduleStatus::default()),
        uid: schedule
            .metadata
            .uid
            .as_deref()
            .ok_or(Error::Malformed("uid"))?,
        generation: schedule.metadata.generation,
        created: schedule
            .metadata
            .creation_timestamp
            .as_ref()
            .ok_or(Error::Malformed("creationTimestamp"))?
            .0,
        jobs: &owned,
        now: Timestamp::now(),
    }))
}

/// The objects that hold a job.
fn readable(jobs: &[Arc<Guard<BackupJob>>]) -> impl Iterator<Item = &BackupJob> {
    jobs.iter().filter_map(|job| job.0.as_ref().ok())
}

fn owned(schedule: &str, job: &BackupJob) -> OwnedJob {
    let status = job.status.as_ref();
    OwnedJob {
        name: job.name_any(),
        due: plan::due_of(schedule, &job.name_any()),
        uid: job.uid().unwrap_or_default(),
        phase: status.map_or(Phase::Pending, |s| s.phase),
        reason: status.and_then(|s| s.reason),
        completion: status.and_then(|s| s.completion_time.as_ref()).map(|t| t.0),
        cancelled: job.spec.cancel,
    }
}

/// The jobs that the schedule owns: those of the cache, and those that the status says are active
/// and the cache does not have yet.
async fn observe(
    context: &Context,
    namespace: &str,
    schedule: &BackupSchedule,
) -> Result<Vec<Arc<Guard<BackupJob>>>, Error> {
    let uid = schedule.uid().ok_or(Error::Malformed("uid"))?;
    let mut jobs = context.owned_jobs.of(&uid, &context.jobs);
    let active = schedule.status.iter().flat_map(|s| &s.active);
    let unseen: Vec<&ActiveJob> = active
        .filter(|a| !jobs.iter().any(|j| j.uid().as_deref() == Some(&a.uid)))
        .collect();
    // One that cannot be read says so itself, and must not hold up its schedule.
    let api = Api::<Guard<BackupJob>>::namespaced(context.client.clone(), namespace);
    for job in unseen {
        if let Some(found) = api
            .get_opt(&job.name)
            .await?
            .filter(|found| found.uid().as_deref() == Some(&job.uid))
        {
            jobs.push(Arc::new(found));
        }
    }
    Ok(jobs)
}

async fn act(
    context: &Context,
    api: &Api<BackupSchedule>,
    namespace: &str,
    schedule: &BackupSchedule,
    jobs: &[Arc<Guard<BackupJob>>],
    plan: Plan,
) -> Result<Action, Error> {
    let name = schedule.name_any();
    let mut status = plan.status;
    let (drills, passed) = plan_drills(context, namespace, schedule, &mut status).await?;
    for (job, uid) in plan.cancel {
        cancel_job(context, namespace, schedule, &job, &uid).await?;
    }
    if let Some(due) = plan.create {
        match create_job(context, namespace, schedule, due).await? {
            Some(job) => plan::record_created(&mut status, due.time, job),
            None => {
                let taken = plan::job_name(&name, due.time);
                let note = format!(
                    "BackupJob {taken} exists and is not this schedule's: delete or rename it; its backup is not made"
                );
                context
                    .report
                    .warning(&schedule.object_ref(&()), "NameTaken", "Create", &note)
                    .await;
                return Ok(Action::requeue(Duration::from_secs(30)));
            }
        }
    }
    if schedule.status.as_ref() != Some(&status) {
        let mut changed = schedule.clone();
        changed.status = Some(status.clone());
        api.replace_status(&name, &PostParams::default(), &changed)
            .await?;
    }
    tell_conditions(context, schedule, &status).await;
    for (drill, uid) in &drills.delete {
        drills::delete(context, namespace, drill, uid).await?;
    }
    if retention_is_new(schedule, &status) {
        let store = schedule.spec.job_template.spec.store_name();
        context.upkeep.wake(namespace, store);
    }
    for (_, uid) in plan.delete {
        // Beyond the history limit. What it stored stays.
        if let Some(job) = readable(jobs).find(|j| j.uid().as_ref() == Some(&uid))
            && deletion::delete_record(&context.client, job).await?
        {
            let job = job.name_any();
            tracing::debug!(namespace, job, "deleted by the history limit");
        }
    }
    let known = figures::of(schedule, &status, jobs, drills.overdue, passed);
    context.metrics.schedule(namespace, &name, &known);
    Ok(match plan.wake.into_iter().chain(drills.wake).min() {
        None => Action::await_change(),
        Some(wake) => {
            let sleep =
                Duration::try_from(wake.duration_since(Timestamp::now())).unwrap_or_default();
            Action::requeue(sleep.clamp(Duration::from_millis(1), LONGEST_SLEEP))
        }
    })
}

/// Plans the drills into the status, and creates the one that is due. Its name is made from its due time,
/// so it is neither lost nor doubled. With how long the newest that passed took.
async fn plan_drills(
    context: &Context,
    namespace: &str,
    schedule: &BackupSchedule,
    status: &mut BackupScheduleStatus,
) -> Result<(verify::Plan, Option<Duration>), Error> {
    context.restores.filled().await;
    let owned = drills::observe(context, namespace, schedule);
    let observed = verify::Observed {
        spec: &schedule.spec,
        generation: schedule.metadata.generation,
        drills: &owned,
        now: Timestamp::now(),
    };
    let plan = verify::plan(&observed, status);
    if let Some(due) = plan.create {
        // The cache may lag behind our own last write.
        let last = schedule.status.as_ref();
        let last = last.and_then(|s| s.last_verify_schedule_time.as_ref());
        if last.is_none_or(|last| last.0 < due) {
            drills::create(context, namespace, schedule, due).await?;
        }
        status.last_verify_schedule_time = Some(Time(due));
    }
    Ok((plan, drills::last_passed(&owned)))
}

/// Whether no pass has followed this retention, or its absence, yet.
fn retention_is_new(schedule: &BackupSchedule, status: &BackupScheduleStatus) -> bool {
    let told = conditions::get(&status.conditions, RETAINED);
    match (&schedule.spec.retention, told) {
        (None, None) => false,
        (Some(_), Some(told)) => told.observed_generation != schedule.metadata.generation,
        _ => true,
    }
}

/// Creates the job of one due time; `None` when its name is taken by another's job.
async fn create_job(
    context: &Context,
    namespace: &str,
    schedule: &BackupSchedule,
    due: Due,
) -> Result<Option<ActiveJob>, Error> {
    let name = plan::job_name(&schedule.name_any(), due.time);
    let mut job = made::job(schedule).ok_or(Error::Malformed("uid"))?;
    job.metadata.name = Some(name.clone());
    job.annotations_mut()
        .insert(ANNOTATION_SCHEDULED_AT.into(), due.start.to_string());

    let api = Api::<BackupJob>::namespaced(context.client.clone(), namespace);
    match api.create(&PostParams::default(), &job).await {
        Ok(job) => {
            tracing::info!(namespace, schedule = schedule.name_any(), job = name, due = %due.time, "job created");
            context
                .report
                .normal(
                    &schedule.object_ref(&()),
                    "Created",
                    "Create",
                    &format!("created BackupJob {name}"),
                )
                .await;
            Ok(Some(ActiveJob {
                name,
                uid: job.uid().unwrap_or_default(),
            }))
        }
        // An earlier try has created it, and died before it wrote so.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let found = Api::<Guard<BackupJob>>::namespaced(context.client.clone(), namespace)
                .get_opt(&name)
                .await?;
            let ours = found
                .filter(|job| schedule_of(job).map(|o| &o.uid) == schedule.metadata.uid.as_ref());
            Ok(ours.map(|job| ActiveJob {
                name,
                uid: job.uid().unwrap_or_default(),
            }))
        }
        Err(kube::Error::Api(status)) if status.code == 422 => {
            let note = format!(
                "BackupJob {name} was refused: {}; correct spec.jobTemplate",
                status.message
            );
            context
                .report
                .warning(
                    &schedule.object_ref(&()),
                    "TemplateRefused",
                    "Create",
                    &note,
                )
                .await;
            Err(kube::Error::Api(status).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells a job to end, for the next one is due. Its record stays, and says that it was cancelled.
async fn cancel_job(
    context: &Context,
    namespace: &str,
    schedule: &BackupSchedule,
    name: &str,
    uid: &str,
) -> Result<(), Error> {
    // The uid makes it this very job, or a conflict.
    let cancel = serde_json::json!({"metadata": {"uid": uid}, "spec": {"cancel": true}});
    match Api::<BackupJob>::namespaced(context.client.clone(), namespace)
        .patch(name, &PatchParams::default(), &Patch::Merge(&cancel))
        .await
    {
        Ok(_) => {
            let note = format!("cancelled BackupJob {name}: the next one is due");
            context
                .report
                .normal(&schedule.object_ref(&()), "Replaced", "Cancel", &note)
                .await;
            Ok(())
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An event when the schedule ceases to be understood, and when it has gone too long without a backup.
async fn tell_conditions(
    context: &Context,
    schedule: &BackupSchedule,
    status: &BackupScheduleStatus,
) {
    for (type_, bad, action) in [
        (READY, "False", "Plan"),
        (OVERDUE, "True", "Watch"),
        (VERIFIED, "False", "Verify"),
    ] {
        let before = schedule
            .status
            .as_ref()
            .and_then(|s| conditions::get(&s.conditions, type_))
            .filter(|c| c.status == bad);
        if let Some(now) = conditions::get(&status.conditions, type_)
            && now.status == bad
            && before.is_none_or(|c| {
                c.reason != now.reason || (type_ == VERIFIED && c.message != now.message)
            })
        {
            context
                .report
                .warning(&schedule.object_ref(&()), &now.reason, action, &now.message)
                .await;
        }
    }
}

//! Retention of each schedule whose backups go to one store, and what its status says of it.

use super::Pass;
use crate::{
    api::{
        BackupSchedule, BackupScheduleStatus,
        conditions::{self, Status, cut},
        schedule::RETAINED,
    },
    catalog::{self, Folder, Manifest},
    error::Error,
    job::record::human_bytes,
    reason::{ScheduleReason, StoreReason},
    retention::{self, Backup, Decision, Owner, Policy, Reason},
    storage::Store,
};
use kube::{Api, Resource, ResourceExt, api::PostParams};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// How often a status is written anew when somebody else has changed the object.
const TRIES: usize = 5;
/// Bytes of names in a message.
const NAMES: usize = 600;

/// What became of one schedule's backups.
struct Outcome {
    status: Status,
    reason: ScheduleReason,
    message: String,
    /// What went, or would go: for an event.
    gone: Option<String>,
}

/// Brings the backups of every schedule of this store to what its retention keeps. What was deleted
/// goes from `backups`. Whether all of it was done.
pub(super) async fn all(
    pass: &Pass<'_>,
    store: &Store,
    folders: &[Folder],
    backups: &mut Vec<Backup>,
) -> Result<bool, Error> {
    let manifests: HashMap<String, Arc<Manifest>> = folders
        .iter()
        .filter_map(|folder| folder.manifest.as_ref()?.as_ref().ok())
        .filter_map(|m| Some((m.key(store).ok()?, Arc::clone(m))))
        .collect();
    let mut good = true;
    for schedule in schedules(pass) {
        let Some(owner) = owner(pass, &schedule) else {
            continue;
        };
        let mut deleted = BTreeSet::new();
        let outcome = one(
            pass,
            store,
            &schedule,
            &owner,
            backups,
            &manifests,
            &mut deleted,
        )
        .await?;
        backups.retain(|b| !deleted.contains(&b.key));
        good &= outcome.as_ref().is_none_or(|o| o.status == Status::True);
        tell(pass, &schedule, &owner, backups, outcome).await?;
    }
    Ok(good)
}

/// The store cannot be looked through: the schedules with a retention say so.
pub(super) async fn failed(pass: &Pass<'_>, problem: &str) -> Result<(), Error> {
    for schedule in schedules(pass) {
        if schedule.spec.retention.is_some() {
            let outcome = Outcome::failed(format!("nothing was deleted: {problem}"));
            write(pass, &schedule, None, Some(outcome)).await?;
        }
    }
    Ok(())
}

/// The schedules whose backups go to this store.
fn schedules(pass: &Pass<'_>) -> Vec<BackupSchedule> {
    let store = pass.store.name_any();
    let all = pass.context.schedules.all();
    let good = all.iter().filter_map(|guard| guard.0.as_ref().ok());
    good.filter(|schedule| {
        schedule.namespace().as_deref() == Some(pass.namespace)
            && schedule.metadata.deletion_timestamp.is_none()
            && schedule.spec.job_template.spec.store_name() == store
    })
    .cloned()
    .collect()
}

fn owner(pass: &Pass<'_>, schedule: &BackupSchedule) -> Option<Owner> {
    let adopted = schedule
        .spec
        .retention
        .iter()
        .flat_map(|r| &r.adopt)
        .cloned();
    Some(Owner {
        cluster_id: pass.context.cluster_id.to_string(),
        schedule_uids: adopted.chain([schedule.uid()?]).collect(),
    })
}

/// Follows one schedule's policy; `None`: it has none. What went is in `deleted`.
async fn one(
    pass: &Pass<'_>,
    store: &Store,
    schedule: &BackupSchedule,
    owner: &Owner,
    backups: &[Backup],
    manifests: &HashMap<String, Arc<Manifest>>,
    deleted: &mut BTreeSet<String>,
) -> Result<Option<Outcome>, Error> {
    let Some(retention) = &schedule.spec.retention else {
        return Ok(None);
    };
    let policy = match Policy::parse(retention, &schedule.spec.time_zone) {
        Ok(policy) => policy,
        Err(invalid) => {
            return Ok(Some(Outcome::failed(format!(
                "nothing was deleted: {invalid}"
            ))));
        }
    };
    let decision = retention::decide(backups, owner, &policy, pass.now);
    for (backup, why) in &decision.keep {
        tracing::debug!(
            schedule = schedule.name_any(),
            key = backup.key,
            ?why,
            "kept"
        );
    }
    let name = |key: &str| {
        manifests
            .get(key)
            .map_or(key.to_owned(), |m| m.identity.job_name.clone())
    };
    if retention.dry_run {
        return Ok(Some(dry_run(&decision, name)));
    }
    let mut failure = None;
    for backup in &decision.delete {
        let Some(manifest) = manifests.get(&backup.key) else {
            continue;
        };
        // A restore may have begun to read it meanwhile.
        if pass
            .read_by_restores()
            .contains(&manifest.identity.folder())
        {
            continue;
        }
        // The policy may have been changed, or another process may be in charge by now.
        if !stands(pass, schedule).await? {
            break;
        }
        match catalog::delete_backup(store, &owner.cluster_id, manifest, pass.now).await {
            Ok(()) => {
                tracing::info!(
                    namespace = pass.namespace,
                    schedule = schedule.name_any(),
                    key = backup.key,
                    bytes = backup.bytes,
                    "backup deleted by retention"
                );
                pass.context.metrics.retention_deleted.inc();
                deleted.insert(backup.key.clone());
            }
            Err(error) => {
                tracing::warn!(namespace = pass.namespace, key = backup.key, %error, "a backup could not be deleted");
                let gone = error.reason == StoreReason::Unreachable;
                failure.get_or_insert(error);
                if gone {
                    break;
                }
            }
        }
    }
    let went: Vec<&Backup> = decision
        .delete
        .iter()
        .copied()
        .filter(|b| deleted.contains(&b.key))
        .collect();
    let gone = (!went.is_empty()).then(|| format!("deleted {}", describe(&went, name)));
    let mut outcome = match failure {
        None => Outcome {
            status: Status::True,
            reason: ScheduleReason::Retained,
            message: what_stays(&decision),
            gone: None,
        },
        Some(error) => Outcome::failed(format!(
            "{} of {} surplus backups could not be deleted: {}",
            decision.delete.len() - went.len(),
            decision.delete.len(),
            error.message
        )),
    };
    outcome.gone = gone;
    Ok(Some(outcome))
}

impl Outcome {
    fn failed(message: String) -> Self {
        Self {
            status: Status::False,
            reason: ScheduleReason::RetentionFailed,
            message,
            gone: None,
        }
    }
}

fn dry_run(decision: &Decision<'_>, name: impl Fn(&str) -> String) -> Outcome {
    let stays = what_stays(decision);
    let message = if decision.delete.is_empty() {
        format!("dry run: nothing would be deleted; {stays}")
    } else {
        let would = describe(&decision.delete, name);
        format!("dry run: would delete {would}; {stays}")
    };
    Outcome {
        status: Status::True,
        reason: ScheduleReason::DryRun,
        gone: (!decision.delete.is_empty()).then(|| message.clone()),
        message,
    }
}

/// `3 backups (1.20GiB): a, b, c`.
fn describe(backups: &[&Backup], name: impl Fn(&str) -> String) -> String {
    let bytes = backups.iter().map(|b| b.bytes).sum();
    let mut names = String::new();
    for (n, backup) in backups.iter().enumerate() {
        let next = name(&backup.key);
        if names.len() + next.len() > NAMES {
            names.push_str(&format!(" and {} more", backups.len() - n));
            break;
        }
        names.push_str(if n == 0 { "" } else { ", " });
        names.push_str(&next);
    }
    format!("{}: {names}", how_many(backups.len(), bytes))
}

fn how_many(count: usize, bytes: u64) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} backup{s} ({})", human_bytes(bytes))
}

/// `9 backups (12.0GiB) stay: keepDaily 7, keepWeekly 4, newest 1`.
fn what_stays(decision: &Decision<'_>) -> String {
    let bytes = decision.keep.iter().map(|(b, _)| b.bytes).sum();
    let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
    for reason in decision.keep.iter().flat_map(|(_, why)| why) {
        *reasons.entry(*reason).or_default() += 1;
    }
    let verb = if decision.keep.len() == 1 {
        "stays"
    } else {
        "stay"
    };
    let why: Vec<String> = reasons.iter().map(|(r, n)| format!("{r} {n}")).collect();
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(": {}", why.join(", "))
    };
    format!("{} {verb}{why}", how_many(decision.keep.len(), bytes))
}

/// Whether the schedule is still as the pass has seen it.
async fn stands(pass: &Pass<'_>, schedule: &BackupSchedule) -> Result<bool, Error> {
    let live = api(pass).get_opt(&schedule.name_any()).await?;
    let leads = pass.context.leading.is_leading();
    Ok(live.is_some_and(|live| {
        leads
            && live.uid() == schedule.uid()
            && live.metadata.generation == schedule.metadata.generation
            && live.metadata.deletion_timestamp.is_none()
    }))
}

fn api(pass: &Pass<'_>) -> Api<BackupSchedule> {
    Api::namespaced(pass.context.client.clone(), pass.namespace)
}

/// Writes status and events.
async fn tell(
    pass: &Pass<'_>,
    schedule: &BackupSchedule,
    owner: &Owner,
    backups: &[Backup],
    outcome: Option<Outcome>,
) -> Result<(), Error> {
    let ours = retention::owned(backups, owner);
    let good = ours.iter().filter(|b| b.good);
    let count = good.clone().count() as u64;
    let bytes = good.map(|b| b.bytes).sum();
    write(pass, schedule, Some((count, bytes)), outcome).await
}

async fn write(
    pass: &Pass<'_>,
    schedule: &BackupSchedule,
    stored: Option<(u64, u64)>,
    outcome: Option<Outcome>,
) -> Result<(), Error> {
    let name = schedule.name_any();
    let mut current = schedule.clone();
    let mut tries = 0;
    let before = loop {
        let before = current.status.clone().unwrap_or_default();
        let mut status = before.clone();
        record(
            &mut status,
            schedule.metadata.generation,
            stored,
            outcome.as_ref(),
            pass.now,
        );
        if status == before {
            break before;
        }
        let mut changed = current.clone();
        changed.status = Some(status);
        match api(pass)
            .replace_status(&name, &PostParams::default(), &changed)
            .await
        {
            Ok(_) => break before,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {
                tries += 1;
                match api(pass).get_opt(&name).await? {
                    Some(live) if live.uid() == schedule.uid() => current = live,
                    _ => return Ok(()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    if let Some(outcome) = &outcome {
        announce(pass, schedule, &before, outcome).await;
    }
    Ok(())
}

/// How a schedule's status changes.
fn record(
    status: &mut BackupScheduleStatus,
    generation: Option<i64>,
    stored: Option<(u64, u64)>,
    outcome: Option<&Outcome>,
    now: jiff::Timestamp,
) {
    if let Some((backups, bytes)) = stored {
        status.backups = Some(backups);
        status.bytes = Some(bytes);
        status.size = Some(human_bytes(bytes));
    }
    match outcome {
        None => status.conditions.retain(|c| c.type_ != RETAINED),
        Some(outcome) => conditions::set(
            &mut status.conditions,
            RETAINED,
            outcome.status,
            outcome.reason.as_str(),
            &outcome.message,
            generation,
            now,
        ),
    }
}

/// Events: each deletion, and what else is new.
async fn announce(
    pass: &Pass<'_>,
    schedule: &BackupSchedule,
    before: &BackupScheduleStatus,
    outcome: &Outcome,
) {
    let about = schedule.object_ref(&());
    let report = &pass.context.report;
    let was = conditions::get(&before.conditions, RETAINED);
    let dry = outcome.reason == ScheduleReason::DryRun;
    if let Some(gone) = &outcome.gone
        && (!dry || was.is_none_or(|c| c.message != cut(&outcome.message, 4096)))
    {
        let reason = if dry { "DryRun" } else { "Deleted" };
        report.normal(&about, reason, "Retain", gone).await;
    }
    if outcome.status == Status::False && was.is_none_or(|c| c.reason != outcome.reason.as_str()) {
        report
            .warning(&about, outcome.reason.as_str(), "Retain", &outcome.message)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(key: &str, bytes: u64) -> Backup {
        Backup {
            key: key.into(),
            cluster_id: "c".into(),
            schedule_uid: Some("s".into()),
            time: jiff::Timestamp::UNIX_EPOCH,
            bytes,
            good: true,
            in_use: false,
        }
    }

    #[test]
    fn messages() {
        let (a, b) = (backup("nightly-1", 1 << 20), backup("nightly-2", 3 << 20));
        let decision = Decision {
            keep: vec![(&b, [Reason::Daily, Reason::Newest].into())],
            delete: vec![&a],
        };
        assert_eq!(
            what_stays(&decision),
            "1 backup (3.00MiB) stays: keepDaily 1, newest 1"
        );
        assert_eq!(
            dry_run(&decision, str::to_owned).message,
            "dry run: would delete 1 backup (1.00MiB): nightly-1; 1 backup (3.00MiB) stays: keepDaily 1, newest 1"
        );
        assert_eq!(what_stays(&Decision::default()), "0 backups (0B) stay");
        let many: Vec<Backup> = (0..300)
            .map(|n| backup(&format!("nightly-{n}"), 1))
            .collect();
        let text = describe(&many.iter().collect::<Vec<_>>(), str::to_owned);
        assert!(
            text.len() < 800 && text.contains("nightly-0, nightly-1"),
            "{text}"
        );
        assert!(text.ends_with("more"), "{text}");
    }

    #[test]
    fn without_a_policy_there_is_no_condition() {
        let mut status = BackupScheduleStatus::default();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let failed = Outcome::failed("x".into());
        record(&mut status, Some(1), None, Some(&failed), now);
        assert_eq!((status.backups, status.conditions.len()), (None, 1));
        record(&mut status, Some(2), Some((2, 2048)), None, now);
        assert_eq!(
            (status.backups, status.bytes, status.size.as_deref()),
            (Some(2), Some(2048), Some("2.00KiB"))
        );
        assert!(status.conditions.is_empty());
    }
}

//! Which backup is meant, and whether it can be restored.

use super::{
    error::{Exit, Failure},
    kind::{Kind, Target},
    session::Session,
    text::{bytes, instant},
};
use crate::{
    api::{
        BackupJob, BackupSchedule, conditions,
        job::{Phase, VERIFIED},
    },
    fleet::schedule_name,
};
use jiff::Timestamp;
use kube::ResourceExt;

/// What a command line names.
#[derive(Debug)]
pub(super) enum Chosen {
    /// This backup, and its schedule, where that is there.
    Job(Box<BackupJob>, Option<Box<BackupSchedule>>),
    /// The newest of this schedule: which that is the controller finds out when it begins.
    Schedule(Box<BackupSchedule>),
}

/// What was chosen, and the jobs beside it.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) chosen: Chosen,
    /// Of the same schedule those that are still there; none where they may not be listed.
    pub(super) jobs: Vec<BackupJob>,
}

impl Choice {
    /// Asks the cluster.
    pub(super) async fn of(session: &Session, target: &Target) -> Result<Self, Failure> {
        let name = &target.name;
        let (schedule, job) = match target.kind {
            Some(Kind::Schedule) => (Some(session.get::<BackupSchedule>(name).await?), None),
            Some(Kind::Job) => (None, Some(session.get::<BackupJob>(name).await?)),
            Some(Kind::Restore | Kind::Store) => {
                return Err(Failure::usage(format!(
                    "{target} is no backup: name a BackupJob, or a BackupSchedule for its newest one"
                )));
            }
            None => (
                session.find::<BackupSchedule>(name).await?,
                session.find::<BackupJob>(name).await?,
            ),
        };
        let chosen = match (schedule, job) {
            (Some(_), Some(_)) => {
                return Err(Failure::usage(format!(
                    "{name} is a BackupSchedule and a BackupJob: write schedule/{name} or job/{name}"
                )));
            }
            (Some(schedule), None) => Chosen::Schedule(Box::new(schedule)),
            (None, Some(job)) => {
                // It only helps: who may not see it, or when it is gone, gives what it would have told.
                let schedule = match schedule_name(&job) {
                    Some(name) => session.find::<BackupSchedule>(&name).await.ok().flatten(),
                    None => None,
                };
                Chosen::Job(Box::new(job), schedule.map(Box::new))
            }
            (None, None) => {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!(
                        "there is no BackupSchedule and no BackupJob {name} in namespace {}: kubectl towline ls shows the backups, ls schedules the schedules",
                        session.namespace
                    ),
                ));
            }
        };
        let schedule = match &chosen {
            Chosen::Job(job, _) => schedule_name(job),
            Chosen::Schedule(schedule) => Some(schedule.name_any()),
        };
        let listed = session.list::<BackupJob>().await;
        let mut jobs = listed.map(|listed| listed.items).unwrap_or_default();
        jobs.retain(|job| schedule.is_some() && schedule_name(job) == schedule);
        Ok(Self { chosen, jobs })
    }

    /// The backup as far as it is known: of a schedule its newest whose job is still there.
    pub(super) fn backup(&self, before: Option<Timestamp>) -> Option<&BackupJob> {
        match &self.chosen {
            Chosen::Job(job, _) => Some(job),
            Chosen::Schedule(_) => newest(&self.jobs, before, |_| true),
        }
    }

    /// Whether there is something to restore. `command` is what the user could run instead, up to the name.
    pub(super) fn check(&self, command: &str) -> Result<(), Failure> {
        match &self.chosen {
            Chosen::Job(job, _) => usable(job, &self.jobs, command),
            Chosen::Schedule(_) => Ok(()),
        }
    }
}

/// The newest that succeeded.
fn newest(
    jobs: &[BackupJob],
    before: Option<Timestamp>,
    also: impl Fn(&BackupJob) -> bool,
) -> Option<&BackupJob> {
    let stand = jobs.iter().filter(|job| {
        let stands = phase(job) == Phase::Succeeded;
        let early = before.is_none_or(|before| ended(job).is_some_and(|at| at <= before));
        stands && early && also(job)
    });
    stand.max_by_key(|job| ended(job))
}

fn usable(job: &BackupJob, others: &[BackupJob], command: &str) -> Result<(), Failure> {
    let name = job.name_any();
    let why = match phase(job) {
        Phase::Succeeded => return Ok(()),
        Phase::Pending | Phase::Running => format!(
            "{name} has no backup yet, for it is {}: kubectl towline watch job/{name} follows it",
            phase(job).as_str()
        ),
        Phase::Failed | Phase::Cancelled => {
            let reason = job.status.as_ref().and_then(|status| status.reason);
            let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            format!(
                "{name} has no backup, for it is {}{reason}",
                phase(job).as_str()
            )
        }
    };
    let instead = match newest(others, None, |job| verified(job) != Some(false)) {
        Some(good) => format!(
            "; the newest good one of its schedule is {}: {command} job/{}",
            good.name_any(),
            good.name_any()
        ),
        None => "; kubectl towline ls shows those that there are".to_owned(),
    };
    Err(Failure::failed(why + &instead))
}

fn phase(job: &BackupJob) -> Phase {
    job.status.as_ref().map_or(Phase::Pending, |s| s.phase)
}

fn ended(job: &BackupJob) -> Option<Timestamp> {
    job.status
        .as_ref()
        .and_then(|s| s.completion_time.as_ref())
        .map(|time| time.0)
}

/// What the newest drill of it has found.
fn verified(job: &BackupJob) -> Option<bool> {
    let conditions = &job.status.as_ref()?.conditions;
    match conditions::get(conditions, VERIFIED)?.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

/// Whether it has to be decrypted, as far as its objects' names tell.
pub(super) fn is_encrypted(job: &BackupJob) -> bool {
    let objects = job.status.iter().flat_map(|s| &s.objects);
    objects
        .map(|o| o.key.rsplit('/').next().unwrap_or_default())
        .any(|name| name.split('.').any(|part| part == "age"))
}

/// A backup in a few words.
pub(super) fn describe(job: &BackupJob) -> String {
    let status = job.status.clone().unwrap_or_default();
    let mut words = vec![job.name_any()];
    words.extend(status.method);
    words.extend(status.bytes.map(|n| bytes(Some(n))));
    words.extend(
        status
            .source
            .and_then(|source| source.server_version)
            .map(|version| format!("of server {version}")),
    );
    words.extend(ended(job).map(|at| format!("complete {}", instant(at))));
    if is_encrypted(job) {
        words.push("encrypted".to_owned());
    }
    words.push(
        match verified(job) {
            Some(true) => "verified by a drill",
            Some(false) => "A DRILL HAS SHOWN THAT IT DOES NOT RESTORE",
            None => "not verified",
        }
        .to_owned(),
    );
    words.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A job of the schedule `nightly` that is there.
    pub(in super::super) fn job(name: &str, status: &Value) -> BackupJob {
        serde_json::from_value(json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"towline.dev/schedule": "nightly"}},
            "spec": {"source": {"podSelector": {"matchLabels": {"app": "db"}}, "prefer": "Replica", "auth": {"tokenSecretRef": {"name": "token"}}},
                     "storeRef": {"name": "offsite"}},
            "status": status,
        }))
        .unwrap()
    }

    pub(in super::super) fn succeeded(name: &str, day: u8, more: &Value) -> BackupJob {
        let mut status = json!({
            "phase": "Succeeded", "completionTime": format!("2026-03-{day:02}T03:00:00Z"), "method": "physical", "bytes": 2048,
            "objects": [{"key": "p/shop/nightly/t-u/1/backup.tar.zst", "bytes": 2048}],
        });
        status
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        job(name, &status)
    }

    fn bad() -> Value {
        json!({"conditions": [{"type": "Verified", "status": "False", "reason": "BackupDamaged", "message": "", "lastTransitionTime": "2026-03-04T03:00:00Z"}]})
    }

    #[test]
    fn of_a_job_without_backup_it_says_why_and_which_to_take() {
        let others = [
            succeeded("nightly-1", 1, &json!({})),
            succeeded("nightly-2", 2, &json!({})),
            succeeded("nightly-3", 3, &bad()),
        ];
        assert_eq!(usable(&others[0], &others, "x"), Ok(()));
        let failed = job(
            "nightly-4",
            &json!({"phase": "Failed", "reason": "StreamError"}),
        );
        let running = job("nightly-5", &json!({"phase": "Running"}));
        for (job, others, words) in [
            (
                &failed,
                &others[..],
                vec![
                    "nightly-4 has no backup",
                    "Failed (StreamError)",
                    "verify job/nightly-2",
                ],
            ),
            (&failed, &[], vec!["kubectl towline ls"]),
            (
                &running,
                &others[..],
                vec!["Running", "watch job/nightly-5", "verify job/nightly-2"],
            ),
        ] {
            let failure = usable(job, others, "kubectl towline verify").unwrap_err();
            assert_eq!(failure.exit, Exit::Failed);
            for word in words {
                assert!(failure.message.contains(word), "{}", failure.message);
            }
        }
    }

    #[test]
    fn a_schedule_means_its_newest_in_time() {
        let jobs = vec![
            succeeded("nightly-2", 2, &json!({})),
            succeeded("nightly-3", 3, &json!({})),
            job(
                "nightly-4",
                &json!({"phase": "Failed", "completionTime": "2026-03-04T03:00:00Z"}),
            ),
        ];
        let schedule = serde_json::from_value(json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "nightly"},
            "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {}}},
        }));
        let choice = Choice {
            chosen: Chosen::Schedule(Box::new(schedule.unwrap())),
            jobs,
        };
        let name = |before: Option<&str>| {
            let before = before.map(|before| before.parse().unwrap());
            choice.backup(before).map(ResourceExt::name_any)
        };
        assert_eq!(name(None).as_deref(), Some("nightly-3"));
        assert_eq!(
            name(Some("2026-03-03T02:59:59Z")).as_deref(),
            Some("nightly-2")
        );
        assert_eq!(name(Some("2026-03-01T00:00:00Z")), None);
        assert_eq!(choice.check("x"), Ok(()));
    }

    #[test]
    fn a_backup_is_described() {
        let status = json!({"source": {"serverVersion": "10.11.14-MariaDB"}, "objects": [{"key": "a/backup.tar.zst.age.0001", "bytes": 1}]});
        let text = describe(&succeeded("nightly-1", 1, &status));
        assert_eq!(
            text,
            "nightly-1, physical, 2.00KiB, of server 10.11.14-MariaDB, complete 2026-03-01T03:00:00Z, encrypted, not verified"
        );
        assert!(describe(&succeeded("n", 1, &bad())).contains("DOES NOT RESTORE"));
        assert!(!is_encrypted(&succeeded("n", 1, &json!({}))));
    }
}

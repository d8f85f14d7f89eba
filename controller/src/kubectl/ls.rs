//! `kubectl towline ls`: the objects, as people look for them.

use super::{
    error::Failure,
    kind::object_name,
    output::{self, Cell, Format, Paint, Table, Tone},
    session::{Connection, Listed, Ours, Session, kind_of},
    text::{age, bytes, instant, relative, verified},
};
use crate::{
    api::{
        BackupJob, BackupSchedule, BackupStore, LABEL_IMPORTED, LABEL_SCHEDULE, RestoreJob,
        conditions, job, job::Phase, restore::RestorePhase,
    },
    fleet::{Fleet, Objects, ScheduleState, schedule_name},
};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kube::{Resource as _, ResourceExt};
use serde::Serialize;
use serde_json::json;

/// What to list, and how.
#[derive(Args, Debug)]
#[command(after_help = "\
backups are the BackupJobs that Succeeded. A schedule keeps the objects of its last jobs only
(successfulJobsHistoryLimit), and the store may hold more: `towline ls` reads the store itself, and
`towline catalog import` makes objects of what it holds.")]
pub(super) struct LsArgs {
    /// What to list
    #[arg(value_enum, default_value_t)]
    what: What,

    /// Only what belongs to this schedule
    #[arg(long, value_name = "NAME", value_parser = object_name, add = super::complete::names("BackupSchedule"))]
    schedule: Option<String>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum What {
    /// Backups: jobs that succeeded, the newest first
    #[default]
    Backups,
    /// Jobs, whatever became of them, the newest first
    Jobs,
    /// Schedules
    Schedules,
    /// Restores and drills, the newest first
    Restores,
    /// Stores
    Stores,
}

impl LsArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        if self.schedule.is_some() && matches!(self.what, What::Schedules | What::Stores) {
            return Err(Failure::usage(
                "--schedule goes with backups, jobs and restores",
            ));
        }
        let session = Session::connect(connection).await?;
        let all = session.scope().is_none();
        let now = Timestamp::now();
        match self.what {
            What::Backups | What::Jobs => {
                let mut listed = session.list::<BackupJob>().await?;
                let backups = self.what == What::Backups;
                listed.items.retain(|job| {
                    let phase = job.status.as_ref().map(|s| s.phase).unwrap_or_default();
                    let kept = if backups {
                        phase == Phase::Succeeded
                    } else {
                        !job.labels().contains_key(LABEL_IMPORTED)
                    };
                    kept && self.is_of(schedule_name(job).as_deref())
                });
                listed.items.sort_by_key(|job| std::cmp::Reverse(when(job)));
                self.print(listed, |jobs, wide| {
                    if backups {
                        table_of_backups(jobs, all, wide, now)
                    } else {
                        table_of_jobs(jobs, all, wide, now)
                    }
                })?;
                if backups && matches!(self.output, Format::Table | Format::Wide) {
                    self.hint(&session).await;
                }
                Ok(())
            }
            What::Schedules => {
                let listed = session.list::<BackupSchedule>().await?;
                self.print(listed, |schedules, wide| {
                    table_of_schedules(schedules, all, wide, now)
                })
            }
            What::Restores => {
                let mut listed = session.list::<RestoreJob>().await?;
                listed.items.retain(|restore| {
                    self.is_of(restore.labels().get(LABEL_SCHEDULE).map(String::as_str))
                });
                listed
                    .items
                    .sort_by_key(|restore| std::cmp::Reverse(restore.creation_timestamp()));
                self.print(listed, |restores, wide| {
                    table_of_restores(restores, all, wide, now)
                })
            }
            What::Stores => {
                let listed = session.list::<BackupStore>().await?;
                self.print(listed, |stores, wide| {
                    table_of_stores(stores, all, wide, now)
                })
            }
        }
    }

    fn is_of(&self, schedule: Option<&str>) -> bool {
        self.schedule.is_none() || self.schedule.as_deref() == schedule
    }

    fn print<K: Ours + Serialize>(
        &self,
        listed: Listed<K>,
        table: impl FnOnce(&[K], bool) -> Table,
    ) -> Result<(), Failure> {
        let Listed { items, malformed } = listed;
        for one in &malformed {
            output::note(&format!(
                "{} {}/{} cannot be read and is left out: {}",
                one.kind, one.namespace, one.name, one.error
            ));
        }
        // As kubectl get -o json has it.
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        if output::machine(self.output, &list)? {
            return Ok(());
        }
        if self.output == Format::Name {
            for item in &items {
                let kind = kind_of::<K>().to_lowercase();
                output::out(&format!("{kind}.towline.dev/{}", item.name_any()));
            }
            return Ok(());
        }
        let table = table(&items, self.output == Format::Wide);
        if table.is_empty() {
            output::note(&format!("no {} found", self.what.plural()));
        } else {
            output::out(&table.render(Paint::of_stdout()));
        }
        Ok(())
    }

    /// Says where the store holds more than is listed. It is a hint: who may not see schedules does without.
    async fn hint(&self, session: &Session) {
        let (Ok(schedules), Ok(jobs)) = futures::join!(
            session.list::<BackupSchedule>(),
            session.list::<BackupJob>()
        ) else {
            return;
        };
        for line in hidden(&schedules.items, &jobs.items, self.schedule.as_deref()) {
            output::note(&line);
        }
    }
}

impl What {
    const fn plural(self) -> &'static str {
        match self {
            Self::Backups => "backups",
            Self::Jobs => "jobs",
            Self::Schedules => "schedules",
            Self::Restores => "restores",
            Self::Stores => "stores",
        }
    }
}

/// Schedules of which the store holds more backups than there are objects.
fn hidden(schedules: &[BackupSchedule], jobs: &[BackupJob], only: Option<&str>) -> Vec<String> {
    let shown = |schedule: &BackupSchedule| {
        jobs.iter()
            .filter(|job| {
                job.namespace() == schedule.namespace()
                    && schedule_name(job).as_deref() == Some(&schedule.name_any())
                    && job
                        .status
                        .as_ref()
                        .is_some_and(|s| s.phase == Phase::Succeeded)
            })
            .count()
    };
    let of = schedules
        .iter()
        .filter(|s| only.is_none_or(|name| s.name_any() == name));
    of.filter_map(|schedule| {
        let stored = schedule.status.as_ref()?.backups?;
        let shown = shown(schedule);
        (usize::try_from(stored).unwrap_or(usize::MAX) > shown).then(|| {
            format!(
                "{}/{}: the store holds {stored} backups, {shown} of them as BackupJobs: towline ls lists all, towline catalog import makes BackupJobs of them",
                schedule.namespace().unwrap_or_default(),
                schedule.name_any()
            )
        })
    })
    .collect()
}

/// When it ended, or else began.
fn when(job: &BackupJob) -> Option<Timestamp> {
    let status = job.status.as_ref();
    status
        .and_then(|s| s.completion_time.as_ref())
        .or(job.meta().creation_timestamp.as_ref())
        .map(|t| t.0)
}

fn head(all: bool, columns: &[&'static str], wide: bool, more: &[&'static str]) -> Table {
    let first = all.then_some("NAMESPACE");
    let more = more.iter().filter(|_| wide);
    Table::new(first.iter().chain(columns).chain(more).copied().collect())
}

fn cells(
    all: bool,
    object: &impl ResourceExt,
    cells: Vec<Cell>,
    wide: bool,
    more: Vec<Cell>,
) -> Vec<Cell> {
    let first = all.then(|| object.namespace().unwrap_or_default().into());
    let more = more.into_iter().filter(|_| wide);
    first.into_iter().chain(cells).chain(more).collect()
}

fn dash(text: Option<&str>) -> Cell {
    text.unwrap_or("-").into()
}

fn verdict(job: &BackupJob) -> Option<bool> {
    let status = job.status.as_ref()?;
    match &*conditions::get(&status.conditions, job::VERIFIED)?.status {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

fn verified_cell(verdict: Option<bool>) -> Cell {
    let tone = match verdict {
        Some(true) => Tone::Good,
        Some(false) => Tone::Bad,
        None => Tone::Plain,
    };
    Cell::toned(verified(verdict), tone)
}

/// The key without the store's prefix and without `manifest.json`, as `towline` and RestoreJobs take it.
pub(super) fn key(job: &BackupJob) -> Option<String> {
    if let Some(import) = &job.spec.import {
        return Some(import.key.clone());
    }
    let folder = job
        .status
        .as_ref()?
        .manifest_key
        .as_deref()?
        .strip_suffix("/manifest.json")?;
    let mut parts: Vec<_> = folder.rsplit('/').take(3).collect();
    parts.reverse();
    Some(parts.join("/"))
}

fn table_of_backups(jobs: &[BackupJob], all: bool, wide: bool, now: Timestamp) -> Table {
    let columns = [
        "BACKUP", "SCHEDULE", "FINISHED", "SIZE", "METHOD", "VERIFIED", "KEY",
    ];
    let more = ["STORE", "SERVER", "DURATION", "AGE"];
    let mut table = head(all, &columns, wide, &more);
    for job in jobs {
        let status = job.status.clone().unwrap_or_default();
        let ended = status.completion_time.as_ref().map(|t| t.0);
        let server = status
            .source
            .as_ref()
            .and_then(|s| s.server_version.as_deref());
        let key = key(job);
        let line = vec![
            job.name_any().into(),
            dash(schedule_name(job).as_deref()),
            ended.map_or_else(|| "-".into(), |t| instant(t).into()),
            bytes(status.bytes).into(),
            dash(status.method.as_deref()),
            verified_cell(verdict(job)),
            dash(key.as_deref()),
        ];
        let more = vec![
            job.spec.store_name().into(),
            dash(server),
            dash(status.duration.as_deref()),
            age(ended, now).into(),
        ];
        table.row(cells(all, job, line, wide, more));
    }
    table
}

fn table_of_jobs(jobs: &[BackupJob], all: bool, wide: bool, now: Timestamp) -> Table {
    let columns = [
        "JOB", "SCHEDULE", "PHASE", "REASON", "ATTEMPT", "SIZE", "DURATION", "AGE",
    ];
    let more = ["STORE", "METHOD", "SOURCE", "PROGRESS"];
    let mut table = head(all, &columns, wide, &more);
    for job in jobs {
        let status = job.status.clone().unwrap_or_default();
        let tone = match status.phase {
            Phase::Succeeded => Tone::Good,
            Phase::Failed => Tone::Bad,
            Phase::Cancelled => Tone::Faint,
            Phase::Pending | Phase::Running => Tone::Plain,
        };
        let created = job.meta().creation_timestamp.as_ref().map(|t| t.0);
        let line = vec![
            job.name_any().into(),
            dash(schedule_name(job).as_deref()),
            Cell::toned(status.phase.as_str(), tone),
            dash(status.reason.map(|r| r.as_str())),
            status.attempt.to_string().into(),
            dash(status.size.as_deref()),
            dash(status.duration.as_deref()),
            age(created, now).into(),
        ];
        let more = vec![
            job.spec.store_name().into(),
            dash(status.method.as_deref()),
            dash(status.source.as_ref().and_then(|s| s.pod.as_deref())),
            dash(status.progress.as_ref().and_then(|p| p.summary.as_deref())),
        ];
        table.row(cells(all, job, line, wide, more));
    }
    table
}

fn table_of_schedules(
    schedules: &[BackupSchedule],
    all: bool,
    wide: bool,
    now: Timestamp,
) -> Table {
    let columns = [
        "SCHEDULE",
        "CRON",
        "TIME ZONE",
        "STATE",
        "LAST GOOD",
        "NEXT",
        "BACKUPS",
        "SIZE",
    ];
    let more = ["STORE", "LAST VERIFIED", "DRILLS", "AGE"];
    let mut table = head(all, &columns, wide, &more);
    for schedule in schedules {
        let objects = Objects {
            schedules: vec![schedule],
            ..Objects::default()
        };
        let fleet = Fleet::of(&objects, now);
        let Some(row) = fleet.schedules.first() else {
            continue;
        };
        let tone = match row.state {
            ScheduleState::Good => Tone::Good,
            ScheduleState::Suspended | ScheduleState::New => Tone::Faint,
            ScheduleState::Failing => Tone::Warn,
            _ => Tone::Bad,
        };
        let line = vec![
            row.name.as_str().into(),
            row.schedule.as_str().into(),
            row.time_zone.as_str().into(),
            Cell::toned(row.state.as_str(), tone),
            relative(row.last_success, now).into(),
            relative(row.next_run, now).into(),
            row.backups
                .map_or_else(|| "-".to_owned(), |n| n.to_string())
                .into(),
            bytes(row.bytes).into(),
        ];
        let more = vec![
            row.store.as_str().into(),
            relative(row.last_verified, now).into(),
            dash(schedule.spec.verify.as_ref().map(|v| v.schedule.as_str())),
            age(
                schedule.meta().creation_timestamp.as_ref().map(|t| t.0),
                now,
            )
            .into(),
        ];
        table.row(cells(all, schedule, line, wide, more));
    }
    table
}

fn table_of_restores(restores: &[RestoreJob], all: bool, wide: bool, now: Timestamp) -> Table {
    let columns = [
        "RESTORE", "PHASE", "REASON", "FROM", "TO", "DURATION", "AGE",
    ];
    let more = ["SCHEDULE", "METHOD", "TABLES", "POD", "PROGRESS"];
    let mut table = head(all, &columns, wide, &more);
    for restore in restores {
        let status = restore.status.clone().unwrap_or_default();
        let tone = match status.phase {
            RestorePhase::Succeeded => Tone::Good,
            RestorePhase::Failed => Tone::Bad,
            RestorePhase::Pending | RestorePhase::Running => Tone::Plain,
        };
        let line = vec![
            restore.name_any().into(),
            Cell::toned(status.phase.as_str(), tone),
            dash(status.reason.map(|r| r.as_str())),
            dash(status.from.as_deref()),
            dash(status.to.as_deref()),
            dash(status.duration.as_deref()),
            age(restore.meta().creation_timestamp.as_ref().map(|t| t.0), now).into(),
        ];
        let more = vec![
            dash(restore.labels().get(LABEL_SCHEDULE).map(String::as_str)),
            dash(status.backup.as_ref().map(|b| b.method.as_str())),
            status
                .tables
                .map_or_else(|| "-".to_owned(), |n| n.to_string())
                .into(),
            dash(status.pod.as_deref()),
            dash(status.progress.as_ref().and_then(|p| p.summary.as_deref())),
        ];
        table.row(cells(all, restore, line, wide, more));
    }
    table
}

fn table_of_stores(stores: &[BackupStore], all: bool, wide: bool, now: Timestamp) -> Table {
    let columns = ["STORE", "READY", "LOCATION", "BACKUPS", "SIZE", "AGE"];
    let more = ["SECRET", "PROBED"];
    let mut table = head(all, &columns, wide, &more);
    for store in stores {
        let status = store.status.clone().unwrap_or_default();
        let ready = conditions::get(&status.conditions, crate::api::store::READY);
        let ready = match ready.map(|c| (c.status.as_str(), c.reason.as_str())) {
            Some(("True", _)) => Cell::toned("yes", Tone::Good),
            Some(("False", reason)) => Cell::toned(reason, Tone::Bad),
            _ => "-".into(),
        };
        let secret = store.spec.credentials_secret_ref.as_ref();
        let line = vec![
            store.name_any().into(),
            ready,
            dash(status.location.as_deref()),
            status
                .backups
                .map_or_else(|| "-".to_owned(), |n| n.to_string())
                .into(),
            bytes(status.bytes).into(),
            age(store.meta().creation_timestamp.as_ref().map(|t| t.0), now).into(),
        ];
        let more = vec![
            dash(secret.map(|s| s.name.as_str())),
            relative(status.last_probe_time.as_ref().map(|t| t.0), now).into(),
        ];
        table.row(cells(all, store, line, wide, more));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, status: serde_json::Value) -> BackupJob {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"towline.dev/schedule": "nightly"}, "creationTimestamp": "2026-03-04T02:00:00Z"},
            "spec": {"source": {"url": "http://db:8474"}, "storeRef": {"name": "offsite"}},
            "status": status,
        }))
        .unwrap()
    }

    fn backup(name: &str) -> BackupJob {
        job(
            name,
            json!({"phase": "Succeeded", "completionTime": "2026-03-04T02:10:00Z", "bytes": 1024, "method": "physical", "duration": "10m0s",
                "manifestKey": "prefix/deep/shop/nightly/20260304T020000Z-u/manifest.json",
                "conditions": [{"type": "Verified", "status": "False", "reason": "CheckFailed", "message": "", "lastTransitionTime": "2026-03-04T03:00:00Z"}]}),
        )
    }

    #[test]
    fn a_backup_has_its_key_as_towline_takes_it() {
        let now = "2026-03-04T12:00:00Z".parse().unwrap();
        let jobs = [backup("nightly-1")];
        let found = table_of_backups(&jobs, false, false, now).render(Paint::new(false));
        assert_eq!(
            found,
            "BACKUP      SCHEDULE   FINISHED               SIZE      METHOD     VERIFIED   KEY\n\
             nightly-1   nightly    2026-03-04T02:10:00Z   1.00KiB   physical   NO         shop/nightly/20260304T020000Z-u"
        );
        let wide = table_of_backups(&jobs, true, true, now).render(Paint::new(false));
        assert!(wide.starts_with("NAMESPACE"), "{wide}");
        assert!(
            wide.ends_with("offsite   -        10m0s      9h50m"),
            "{wide}"
        );
    }

    #[test]
    fn what_the_history_has_lost_is_told() {
        let schedule: BackupSchedule = serde_json::from_value(json!({
            "metadata": {"name": "nightly", "namespace": "shop"},
            "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"source": {"url": "http://db"}, "storeRef": {"name": "offsite"}}}},
            "status": {"backups": 2},
        }))
        .unwrap();
        let schedules = [schedule];
        let one = [
            backup("nightly-1"),
            job("nightly-2", json!({"phase": "Failed"})),
        ];
        let told = hidden(&schedules, &one, None);
        assert!(
            told[0].contains("shop/nightly: the store holds 2 backups, 1 of them"),
            "{told:?}"
        );
        assert!(hidden(&schedules, &one, Some("other")).is_empty());
        let both = [backup("nightly-1"), backup("nightly-2")];
        assert!(hidden(&schedules, &both, None).is_empty());
    }

    /// Every table has as many cells as columns.
    #[test]
    fn rows_fit_their_heads() {
        let now = Timestamp::UNIX_EPOCH;
        let restore: RestoreJob = serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"from": {"backupJobRef": {"name": "b"}}, "to": {"agent": {"url": "http://db"}}},
        }))
        .unwrap();
        let store: BackupStore = serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "shop"}, "spec": {"file": {"path": "a"}},
        }))
        .unwrap();
        let schedule: BackupSchedule = serde_json::from_value(json!({
            "metadata": {"name": "n", "namespace": "shop"},
            "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"source": {"url": "http://db"}, "storeRef": {"name": "offsite"}}}},
        }))
        .unwrap();
        for (all, wide) in [(true, true), (false, false), (true, false), (false, true)] {
            for table in [
                table_of_backups(&[backup("b")], all, wide, now),
                table_of_jobs(&[backup("b")], all, wide, now),
                table_of_schedules(std::slice::from_ref(&schedule), all, wide, now),
                table_of_restores(std::slice::from_ref(&restore), all, wide, now),
                table_of_stores(std::slice::from_ref(&store), all, wide, now),
            ] {
                assert!(table.is_even(), "{table:?}");
            }
        }
    }
}

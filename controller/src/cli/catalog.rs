//! `towline catalog`: makes a cluster know of backups that it has forgotten.

mod cluster;

use super::{
    CliError, human,
    store::{StoreArgs, dns_name},
};
use crate::{
    api::{BackupJob, BackupSchedule, LABEL_IMPORTED, LABEL_SCHEDULE},
    catalog::{self, Listed, Manifest, Outcome},
    storage::Store,
};
use aws_lc_rs::digest::{SHA256, digest};
use clap::{Args, Subcommand};
use cluster::Cluster;
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use std::collections::{BTreeMap, BTreeSet};

/// Commands about the catalog.
#[derive(Args, Debug)]
pub(super) struct CatalogArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a BackupJob, which never runs, for each backup of a BackupStore that has none
    Import(ImportArgs),
    /// Let a schedule's retention own the backups of earlier schedules of its name
    Adopt(AdoptArgs),
}

impl CatalogArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Import(args) => args.run().await,
            Command::Adopt(args) => args.run().await,
        }
    }
}

const IMPORT_HELP: &str = "\
After a cluster was lost: make the namespace, the Secret and the BackupStore again, wait until the
store is Ready, then
  towline catalog import offsite -n shop
The records say where each backup lies, how large it is and what it is of. Deleting one deletes no
backup unless its deletionPolicy is set to Delete. Run again, it makes what is missing.

The store is opened from here, as the BackupStore and its Secret say. Where this machine reaches it
by another address, or it is a folder, say how with --store.";

/// What to import.
#[derive(Args, Debug)]
#[command(after_help = IMPORT_HELP)]
struct ImportArgs {
    /// Name of the BackupStore in which the backups lie
    #[arg(value_name = "BACKUPSTORE", value_parser = dns_name)]
    store_ref: String,

    /// Only the backups of this schedule
    #[arg(long, value_name = "NAME", value_parser = dns_name)]
    schedule: Option<String>,

    /// Only say what would be made
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    store: StoreArgs,
}

impl ImportArgs {
    async fn run(self) -> Result<(), CliError> {
        let namespace = &self.store.namespace;
        let cluster = Cluster::connect(namespace).await?;
        let store = open(&cluster, &self.store_ref, &self.store).await?;
        let (manifests, unreadable) = complete(catalog::list(&store, namespace).await?);
        let jobs = cluster.api::<BackupJob>();
        let known = jobs.list(&ListParams::default()).await;
        let known = known.map_err(|e| cluster.error("BackupJobs", "list", e))?;
        let wanted = manifests.iter().filter(|m| {
            let schedule = m.identity.schedule_name.as_ref();
            self.schedule.is_none() || schedule == self.schedule.as_ref()
        });
        let (mut made, mut there) = (0_usize, 0_usize);
        for manifest in wanted {
            let job = record(manifest, &self.store_ref)?;
            if is_known(&known.items, manifest) {
                there += 1;
                continue;
            }
            let post = PostParams {
                dry_run: self.dry_run,
                ..Default::default()
            };
            match jobs.create(&post, &job).await {
                Ok(_) => {
                    made += 1;
                    let verb = if self.dry_run { "would make" } else { "made" };
                    println!(
                        "{verb} {}  {}  {}",
                        job.name_any(),
                        human(manifest.bytes),
                        manifest.identity.folder()
                    );
                }
                // Somebody else does the same just now.
                Err(kube::Error::Api(status)) if status.code == 409 => there += 1,
                Err(e) => return Err(cluster.error("BackupJobs", "create", e)),
            }
        }
        println!("{made} made, {there} there already");
        complain(&unreadable)
    }
}

/// A store as the cluster says, or as the arguments do.
async fn open(cluster: &Cluster, name: &str, args: &StoreArgs) -> Result<Store, CliError> {
    let described = cluster.store(name).await?;
    if args.is_given() {
        return args.open(true);
    }
    cluster.open(&described).await
}

/// The backups, the oldest first, and what could not be read.
fn complete(listed: Vec<Listed>) -> (Vec<Manifest>, Vec<String>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for one in listed {
        match one.manifest {
            Ok(manifest) if manifest.outcome == Outcome::Complete => good.push(manifest),
            Ok(_) => {}
            Err(error) => bad.push(error.message),
        }
    }
    (good, bad)
}

fn complain(unreadable: &[String]) -> Result<(), CliError> {
    if unreadable.is_empty() {
        Ok(())
    } else {
        Err(CliError::failed(unreadable.join("\ntowline: ")))
    }
}

/// Whether a BackupJob is the record of this backup: that which made it, or an imported one.
fn is_known(jobs: &[BackupJob], manifest: &Manifest) -> bool {
    let key = manifest.identity.folder();
    jobs.iter().any(|job| {
        job.uid().as_deref() == Some(&manifest.identity.job_uid)
            || job.spec.import.as_ref().is_some_and(|i| i.key == key)
    })
}

/// Longest name of a job of which a record's name is made; a schedule's jobs fit.
const NAME: usize = 63;

/// Name of the record of a backup: always the same, so that it is made once.
fn record_name(manifest: &Manifest) -> String {
    let job = &manifest.identity.job_name;
    let start: String = job.chars().take(NAME).collect();
    let hash = digest(&SHA256, manifest.identity.folder().as_bytes());
    let hash: String = hex::encode(hash).chars().take(8).collect();
    format!("{}-{hash}", start.trim_end_matches(['-', '.']))
}

fn record(manifest: &Manifest, store: &str) -> Result<BackupJob, CliError> {
    let spec = serde_json::json!({"import": {
        "storeRef": {"name": store},
        "key": manifest.identity.folder(),
    }});
    let spec = serde_json::from_value(spec)
        .map_err(|e| CliError::failed(format!("the record cannot be made: {e}")))?;
    let mut job = BackupJob::new(&record_name(manifest), spec);
    let mut labels = BTreeMap::from([(LABEL_IMPORTED.to_owned(), "true".to_owned())]);
    if let Some(schedule) = &manifest.identity.schedule_name {
        labels.insert(LABEL_SCHEDULE.to_owned(), schedule.clone());
    }
    job.metadata.labels = Some(labels);
    Ok(job)
}

const ADOPT_HELP: &str = "\
A schedule that was deleted and made again is another one, and its retention leaves the backups of
the earlier one alone. This writes the earlier one's uid, as the manifests in the store have it, into
spec.retention.adopt. Only backups of this cluster are meant: see --cluster-id.";

/// Which schedule adopts.
#[derive(Args, Debug)]
#[command(after_help = ADOPT_HELP)]
struct AdoptArgs {
    /// Name of the BackupSchedule
    #[arg(value_name = "SCHEDULE", value_parser = dns_name)]
    schedule: String,

    /// Name of this cluster in the bucket, as the controller was told [default: uid of namespace kube-system]
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,

    /// Only say what would be written
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    store: StoreArgs,
}

impl AdoptArgs {
    async fn run(self) -> Result<(), CliError> {
        let namespace = &self.store.namespace;
        let cluster = Cluster::connect(namespace).await?;
        let schedules = cluster.api::<BackupSchedule>();
        let schedule = schedules
            .get(&self.schedule)
            .await
            .map_err(|e| cluster.error(&format!("BackupSchedule {}", self.schedule), "get", e))?;
        let Some(retention) = &schedule.spec.retention else {
            return Err(CliError::failed(format!(
                "BackupSchedule {} has no spec.retention, so nothing of its is ever deleted: set it first",
                self.schedule
            )));
        };
        let cluster_id = match &self.cluster_id {
            Some(id) => id.clone(),
            None => cluster.id().await?,
        };
        let name = schedule.spec.job_template.spec.store_name();
        let store = open(&cluster, name, &self.store).await?;
        let (manifests, unreadable) = complete(catalog::list(&store, namespace).await?);
        let found = orphans(&manifests, &schedule, &cluster_id);
        let mut adopt: BTreeSet<String> = retention.adopt.iter().cloned().collect();
        let before = adopt.len();
        let mut backups = 0;
        for (uid, count) in found.ours {
            println!("{uid}: {count} backups");
            if adopt.insert(uid) {
                backups += count;
            }
        }
        for (id, count) in found.others {
            eprintln!(
                "towline: {count} backups were made by the cluster {id}: retention leaves them alone, unless the controller is started with --cluster-id {id}"
            );
        }
        let new = adopt.len() - before;
        if new > 0 && !self.dry_run {
            let patch = serde_json::json!({
                "metadata": {"resourceVersion": schedule.resource_version()},
                "spec": {"retention": {"adopt": adopt}},
            });
            schedules
                .patch(
                    &self.schedule,
                    &PatchParams::default(),
                    &Patch::Merge(&patch),
                )
                .await
                .map_err(|e| {
                    cluster.error(&format!("BackupSchedule {}", self.schedule), "patch", e)
                })?;
        }
        let verb = if self.dry_run {
            "would be adopted"
        } else {
            "adopted"
        };
        println!("{new} earlier schedules with {backups} backups {verb}");
        complain(&unreadable)
    }
}

/// Backups of earlier schedules of one name.
#[derive(Debug, PartialEq, Eq)]
struct Orphans {
    /// By uid of the schedule.
    ours: BTreeMap<String, usize>,
    /// By id of the cluster.
    others: BTreeMap<String, usize>,
}

fn orphans(manifests: &[Manifest], schedule: &BackupSchedule, cluster_id: &str) -> Orphans {
    let mut found = Orphans {
        ours: BTreeMap::new(),
        others: BTreeMap::new(),
    };
    for identity in manifests.iter().map(|m| &m.identity) {
        let Some(uid) = &identity.schedule_uid else {
            continue;
        };
        if identity.schedule_name.as_ref() != schedule.metadata.name.as_ref()
            || schedule.metadata.uid.as_ref() == Some(uid)
        {
            continue;
        }
        let count = if identity.cluster_id == cluster_id {
            found.ours.entry(uid.clone())
        } else {
            found.others.entry(identity.cluster_id.clone())
        };
        *count.or_default() += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(job: &str, uid: &str, schedule: Option<(&str, &str)>, cluster: &str) -> Manifest {
        serde_json::from_value(serde_json::json!({
            "formatVersion": 1, "outcome": "Complete", "clusterId": cluster, "namespace": "shop",
            "jobName": job, "jobUid": uid, "scheduleName": schedule.map(|s| s.0), "scheduleUid": schedule.map(|s| s.1),
            "created": "2026-01-02T03:04:05Z", "attempt": 1, "time": "2026-01-02T03:14:05Z", "startTime": "2026-01-02T03:04:06Z",
            "objects": [], "bytes": 7,
        }))
        .unwrap()
    }

    #[test]
    fn a_record_has_one_name() {
        let nightly = manifest("nightly-29000000", "u-1", Some(("nightly", "s")), "c");
        let job = record(&nightly, "offsite").unwrap();
        assert_eq!(job.name_any(), record_name(&nightly));
        assert!(
            job.name_any().starts_with("nightly-29000000-"),
            "{}",
            job.name_any()
        );
        assert_ne!(
            record_name(&manifest(
                "nightly-29000000",
                "u-2",
                Some(("nightly", "s")),
                "c"
            )),
            job.name_any()
        );
        assert_eq!(job.labels()[LABEL_SCHEDULE], "nightly");
        let import = job.spec.import.as_ref().unwrap();
        assert_eq!(import.key, "shop/nightly/20260102T030405Z-u-1");
        assert!(job.spec.source.is_none() && job.spec.store_ref.is_none());
        let long = record_name(&manifest(&"a.".repeat(120), "u", None, "c"));
        assert!(dns_name(&long).is_ok() && long.len() <= 72, "{long}");
    }

    #[test]
    fn what_made_a_backup_is_its_record_too() {
        let nightly = manifest("job", "u-1", None, "c");
        let imported = record(&nightly, "offsite").unwrap();
        let mut other = record(&manifest("job", "u-2", None, "c"), "offsite").unwrap();
        assert!(is_known(std::slice::from_ref(&imported), &nightly));
        assert!(!is_known(std::slice::from_ref(&other), &nightly));
        other.metadata.uid = Some("u-1".into());
        assert!(is_known(&[other], &nightly));
    }

    #[test]
    fn earlier_schedules_of_the_same_name_are_found() {
        let mut schedule: BackupSchedule = serde_json::from_value(serde_json::json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "nightly", "uid": "now"},
            "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"source": {"url": "http://db"}, "storeRef": {"name": "main"}}}},
        }))
        .unwrap();
        schedule.metadata.namespace = Some("shop".into());
        let all = [
            manifest("a", "1", Some(("nightly", "now")), "c"),
            manifest("b", "2", Some(("nightly", "before")), "c"),
            manifest("c", "3", Some(("nightly", "before")), "c"),
            manifest("d", "4", Some(("weekly", "other")), "c"),
            manifest("e", "5", Some(("nightly", "lost")), "old-cluster"),
            manifest("f", "6", None, "c"),
        ];
        assert_eq!(
            orphans(&all, &schedule, "c"),
            Orphans {
                ours: [("before".to_owned(), 2)].into(),
                others: [("old-cluster".to_owned(), 1)].into(),
            }
        );
    }
}

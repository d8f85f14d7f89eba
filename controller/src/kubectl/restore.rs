//! `kubectl towline restore`: a backup into a volume or into a running server.

use super::{
    error::{Asked, Failure},
    kind::{Target, object_name},
    order::{OrderArgs, SecretKey, agreed},
    output::note,
    session::{Connection, Session},
    text::instant,
    verify::{can_open, decryption},
    which::{Choice, Chosen, describe},
};
use crate::{
    api::{
        LocalReference, RestoreJob, RestoreJobSpec, SecretKeyReference,
        job::{PodSelector, Prefer, Source, SourceAuth, SourceTls},
        restore::{RestoreFrom, RestoreTo, VolumeTarget},
    },
    schedule::made,
};
use clap::{ArgGroup, Args};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::PersistentVolumeClaim, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use std::collections::BTreeMap;

/// What to restore, and where.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("target_of").required(true).args(["to_claim", "to_agent"]),
    after_help = "\
A physical backup goes into a claim that is empty and that no pod uses; a logical one into a running server
in which its databases are absent or empty, through an agent that allows restores (--allow-restore). Nothing
is ever written over. docs/restore.md is the runbook for what comes before and after.

Examples:
  The newest backup from before the damage into a new volume:
    kubectl towline restore nightly --before 2026-11-28T09:00:00Z --to-claim data-restored --size 20Gi --wait

  One database of a logical backup into a running server:
    kubectl towline restore job/nightly-29735220 --to-agent app=mariadb-new --database shop \\
        --token-secret agent-restore-token

  Only look at what would be made:
    kubectl towline restore nightly --to-claim data-restored --dry-run server -o yaml"
)]
pub(super) struct RestoreArgs {
    /// BackupJob, or BackupSchedule for its newest backup
    #[arg(value_name = "JOB|SCHEDULE", add = super::complete::names(""))]
    from: Target,

    /// Of a schedule's backups the newest that was complete by then, RFC 3339, e.g. 2026-11-28T09:00:00Z
    #[arg(long, value_name = "TIME")]
    before: Option<Timestamp>,

    /// PersistentVolumeClaim, empty, or new with --size
    #[arg(long, value_name = "CLAIM", value_parser = object_name)]
    to_claim: Option<String>,

    /// Make the claim, so large
    #[arg(long, value_name = "QUANTITY", conflicts_with = "to_agent", value_parser = quantity)]
    size: Option<String>,

    /// StorageClass of the claim that is made [default: the cluster's default one]
    #[arg(long, value_name = "NAME", requires = "size", value_parser = object_name)]
    storage_class: Option<String>,

    /// Labels of the server's pod (app=mariadb), or the URL of its agent; port and TLS are those of the backup's source
    #[arg(long, value_name = "LABELS|URL")]
    to_agent: Option<String>,

    /// Secret with a token of the scope restore [default: the token with which the backup was made]
    #[arg(long, value_name = "NAME[/KEY]", conflicts_with = "to_claim")]
    token_secret: Option<SecretKey>,

    /// Only this database; may be given again
    #[arg(long = "database", value_name = "NAME", conflicts_with = "to_claim")]
    databases: Vec<String>,

    /// Secret with the age identity that opens the backup
    #[arg(long, value_name = "NAME[/KEY]")]
    identity_secret: Option<SecretKey>,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    order: OrderArgs,
}

impl RestoreArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        self.order.check()?;
        let session = Session::connect(connection).await?;
        let choice = Choice::of(&session, &self.from).await?;
        choice.check("kubectl towline restore")?;
        let restore = self.restore(&choice)?;
        let claim = self.claim(&session).await?;
        note(&self.plan(&choice, claim.is_some()));
        if self.order.is_real() {
            agreed(self.yes)?;
            if let Some(claim) = claim {
                make_claim(&session, &claim).await?;
            }
        }
        self.order.make(&session, restore, &[]).await
    }

    /// The object.
    fn restore(&self, choice: &Choice) -> Result<RestoreJob, Failure> {
        let (namespace, name, from) = match &choice.chosen {
            Chosen::Job(job, _) => {
                if self.before.is_some() {
                    return Err(Failure::usage(format!(
                        "--before chooses among a schedule's backups, and {} is one: leave it out, or name the schedule",
                        job.name_any()
                    )));
                }
                let from = RestoreFrom {
                    backup_job_ref: Some(LocalReference {
                        name: job.name_any(),
                    }),
                    ..RestoreFrom::default()
                };
                (job.namespace(), job.name_any(), from)
            }
            Chosen::Schedule(schedule) => {
                let mut from = made::newest(schedule);
                if let Some(latest) = &mut from.latest {
                    latest.before = self.before.map(Time);
                }
                (schedule.namespace(), schedule.name_any(), from)
            }
        };
        let to = match (&self.to_claim, &self.to_agent) {
            (Some(claim), _) => RestoreTo {
                persistent_volume_claim: Some(VolumeTarget {
                    claim_name: claim.clone(),
                    sub_path: None,
                    tool_image: None,
                    resources: None,
                    use_memory: None,
                    security_context: None,
                    scratch: None,
                }),
                ..RestoreTo::default()
            },
            (None, Some(agent)) => RestoreTo {
                agent: Some(self.agent(choice, agent)?),
                ..RestoreTo::default()
            },
            (None, None) => return Err(Failure::usage("give --to-claim or --to-agent")),
        };
        self.fits(choice)?;
        let mut spec = RestoreJobSpec::new(from, to);
        spec.databases = (!self.databases.is_empty()).then(|| self.databases.clone());
        spec.decryption = self.identity_secret.as_ref().map(decryption);
        can_open(choice, &spec)?;
        Ok(RestoreJob {
            metadata: ObjectMeta {
                namespace,
                generate_name: Some(format!("{name}-restore-")),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        })
    }

    /// Whether a backup of this method goes there, as far as it is known. The controller would say so later.
    fn fits(&self, choice: &Choice) -> Result<(), Failure> {
        let Some(job) = choice.backup(self.before) else {
            return Ok(());
        };
        let method = job.status.as_ref().and_then(|s| s.method.as_deref());
        let name = job.name_any();
        match method {
            Some("logical") if self.to_claim.is_some() => Err(Failure::usage(format!(
                "{name} is logical: SQL, which goes into a running server; give --to-agent in the place of --to-claim"
            ))),
            Some("physical") if self.to_agent.is_some() => Err(Failure::usage(format!(
                "{name} is physical: a server's files, which go into a volume; give --to-claim in the place of --to-agent"
            ))),
            _ => Ok(()),
        }
    }

    /// The agent: reached as that of the backup's source is.
    fn agent(&self, choice: &Choice, to: &str) -> Result<Source, Failure> {
        let spec = match &choice.chosen {
            Chosen::Job(job, _) => &job.spec,
            Chosen::Schedule(schedule) => &schedule.spec.job_template.spec,
        };
        let mut source = spec.source.clone().ok_or_else(|| {
            Failure::usage(format!(
                "{} is the record of an imported backup, and does not say how agents are reached: write a RestoreJob with to.agent (docs/restore.md)",
                self.from
            ))
        })?;
        if let Some(token) = &self.token_secret {
            source.auth = Some(SourceAuth {
                token_secret_ref: SecretKeyReference {
                    name: token.name.clone(),
                    key: token.key.clone().unwrap_or_else(|| "token".to_owned()),
                },
            });
        }
        source.max_replica_lag_seconds = None;
        if to.contains("://") {
            source.pod_selector = None;
            source.port = None;
            source.prefer = Prefer::Any;
            source.tls = match source.tls {
                _ if to.starts_with("http://") => None,
                None => Some(SourceTls::default()),
                tls => tls,
            };
            source.url = Some(to.to_owned());
        } else {
            source.url = None;
            // A replica gets its data from its primary.
            source.prefer = Prefer::Primary;
            source.pod_selector = Some(PodSelector {
                match_labels: labels(to).map_err(Failure::usage)?,
                match_expressions: Vec::new(),
            });
        }
        Ok(source)
    }

    /// The claim that has to be made, if one has.
    async fn claim(&self, session: &Session) -> Result<Option<PersistentVolumeClaim>, Failure> {
        let Some(name) = &self.to_claim else {
            return Ok(None);
        };
        let namespace = session.one_namespace()?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(session.client.clone(), namespace);
        let found = claims.get_opt(name).await;
        let found = found.map_err(|error| asked("get", namespace).failed(&error))?;
        match (found, &self.size) {
            (Some(_), None) => Ok(None),
            (Some(_), Some(_)) => Err(Failure::usage(format!(
                "claim {name} is there already: leave --size out to restore into it, or name another"
            ))),
            (None, None) => Err(Failure::usage(format!(
                "there is no claim {name} in namespace {namespace}: correct the name, or have it made with --size, e.g. --size 20Gi"
            ))),
            (None, Some(size)) => Ok(Some(
                claim(name, size, self.storage_class.as_deref()).map_err(|error| {
                    Failure::failed(format!("the claim cannot be written: {error}"))
                })?,
            )),
        }
    }

    /// What will be done, for who has to agree.
    fn plan(&self, choice: &Choice, new_claim: bool) -> String {
        let mut what = match choice.backup(self.before) {
            Some(job) => describe(job),
            None => "which one the store tells, for no BackupJob is left of it".to_owned(),
        };
        if let Chosen::Schedule(schedule) = &choice.chosen {
            let name = schedule.name_any();
            let by = match self.before {
                Some(before) => format!(" that was complete by {}", instant(before)),
                None => String::new(),
            };
            what = format!("the newest of {name}{by}: {what}");
        }
        let (into, rule) = match (&self.to_claim, &self.to_agent) {
            (Some(claim), _) => {
                let made = match (&self.size, new_claim) {
                    (Some(size), true) => format!(", which is made, {size}"),
                    _ => String::new(),
                };
                (
                    format!("claim {claim}{made}"),
                    "It has to be empty, and no pod may use it: nothing is written over.",
                )
            }
            (None, agent) => {
                let which = match self.databases.as_slice() {
                    [] => "all databases".to_owned(),
                    some => format!("databases {}", some.join(", ")),
                };
                let agent = agent.as_deref().unwrap_or_default();
                (
                    format!("the running server of agent {agent}, {which}"),
                    "They have to be absent there or without tables: nothing is written over.",
                )
            }
        };
        format!("Restore {what}\n   into {into}.\n   {rule}")
    }
}

fn asked<'a>(verb: &'a str, namespace: &'a str) -> Asked<'a> {
    Asked {
        verb,
        resource: "persistentvolumeclaims",
        object: None,
        namespace: Some(namespace),
    }
}

async fn make_claim(session: &Session, claim: &PersistentVolumeClaim) -> Result<(), Failure> {
    let namespace = session.one_namespace()?;
    let claims = Api::namespaced(session.client.clone(), namespace);
    let params = PostParams {
        field_manager: Some(super::order::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let made: Result<PersistentVolumeClaim, _> = claims.create(&params, claim).await;
    made.map_err(|error| asked("create", namespace).failed(&error))?;
    note(&format!(
        "persistentvolumeclaim/{} created",
        claim.name_any()
    ));
    Ok(())
}

fn claim(
    name: &str,
    size: &str,
    class: Option<&str>,
) -> Result<PersistentVolumeClaim, serde_json::Error> {
    let mut spec = serde_json::json!({
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}},
    });
    if let Some(class) = class {
        spec["storageClassName"] = class.into();
    }
    serde_json::from_value(serde_json::json!({"metadata": {"name": name}, "spec": spec}))
}

/// A size as the custom resources have it.
fn quantity(text: &str) -> Result<String, String> {
    match crate::api::restore::bytes_of(text) {
        Some(bytes) if bytes > 0 => Ok(text.to_owned()),
        _ => Err("write a number and Ki, Mi, Gi or Ti, e.g. 20Gi".to_owned()),
    }
}

/// `app=mariadb,role=new`.
fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let plain = |text: &str| {
            text.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        };
        (!key.is_empty() && plain(key) && plain(value)).then(|| (key.to_owned(), value.to_owned()))
    };
    text.split(',')
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| {
            format!("--to-agent {text:?}: write labels that the server's pod has, app=mariadb, or a URL, https://host:8474")
        })
}

#[cfg(test)]
mod tests;

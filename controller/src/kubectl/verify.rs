//! `kubectl towline verify`: a drill, now.

use super::{
    error::Failure,
    kind::Target,
    order::{OrderArgs, SecretKey},
    session::{Connection, Session},
    which::{Choice, Chosen, is_encrypted},
};
use crate::{
    api::{
        LocalReference, RestoreJob, RestoreJobSpec,
        restore::{Decryption, DrillTarget, IdentitySecretReference, RestoreFrom, RestoreTo},
        schedule::Verify,
    },
    schedule::made,
};
use clap::Args;
use kube::{Resource as _, ResourceExt, api::ObjectMeta};

/// What to verify, and with what.
#[derive(Args, Debug)]
#[command(after_help = "\
The backup is restored into a server that is thrown away, and that is asked whether it is whole: what
spec.verify of the schedule does at its times. Image, checks and identity are those of spec.verify, unless
they are given here. What it finds is the condition Verified of the BackupJob, and of the schedule, when it
was asked for the schedule's newest.

Examples:
  Does the newest backup restore?
    kubectl towline verify nightly --wait

  Does this one, of a schedule without spec.verify?
    kubectl towline verify job/nightly-29735220 --image mariadb:10.11 --wait")]
pub(super) struct VerifyArgs {
    /// BackupJob, or BackupSchedule for its newest backup
    #[arg(value_name = "JOB|SCHEDULE", add = super::complete::names(""))]
    target: Target,

    /// Server to start: the image that runs the database [default: that of the schedule's spec.verify]
    #[arg(long)]
    image: Option<String>,

    /// Secret with the age identity that opens the backup [default: that of the schedule's spec.verify]
    #[arg(long, value_name = "NAME[/KEY]")]
    identity_secret: Option<SecretKey>,

    #[command(flatten)]
    order: OrderArgs,
}

impl VerifyArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        self.order.check()?;
        let session = Session::connect(connection).await?;
        let choice = Choice::of(&session, &self.target).await?;
        choice.check("kubectl towline verify")?;
        let drill = drill(&choice, self.image, self.identity_secret.as_ref())?;
        self.order.make(&session, drill, &[]).await
    }
}

/// The drill. One of a schedule's newest backup is the schedule's, for it tells how the schedule's backups are;
/// one of a certain backup tells of that alone.
fn drill(
    choice: &Choice,
    image: Option<String>,
    identity: Option<&SecretKey>,
) -> Result<RestoreJob, Failure> {
    let (mut drill, verify, schedule) = match &choice.chosen {
        Chosen::Schedule(schedule) => {
            let owner = schedule.controller_owner_ref(&());
            let made = made::drill(schedule).unwrap_or_else(|| {
                bare(
                    schedule.namespace(),
                    made::newest(schedule),
                    owner.into_iter().collect(),
                )
            });
            (
                made,
                schedule.spec.verify.as_ref(),
                Some(schedule.name_any()),
            )
        }
        Chosen::Job(job, schedule) => {
            let from = RestoreFrom {
                backup_job_ref: Some(LocalReference {
                    name: job.name_any(),
                }),
                ..RestoreFrom::default()
            };
            let verify = schedule.as_ref().and_then(|s| s.spec.verify.as_ref());
            let mut made = bare(job.namespace(), from, Vec::new());
            if let Some(verify) = verify {
                made.spec.to.drill = Some(verify.target());
                made.spec.checks.clone_from(&verify.checks);
                made.spec.decryption.clone_from(&verify.decryption);
            }
            (made, verify, schedule.as_ref().map(|s| s.name_any()))
        }
    };
    if let Some(image) = image {
        match &mut drill.spec.to.drill {
            Some(target) => target.image = image,
            none => {
                *none = Some(DrillTarget {
                    image,
                    tool_image: None,
                    resources: None,
                    storage: None,
                });
            }
        }
    }
    if drill.spec.to.drill.is_none() {
        return Err(no_image(choice, verify, schedule.as_deref()));
    }
    if let Some(identity) = identity {
        drill.spec.decryption = Some(decryption(identity));
    }
    can_open(choice, &drill.spec)?;
    let of = match &choice.chosen {
        Chosen::Job(job, _) => job.name_any(),
        Chosen::Schedule(schedule) => schedule.name_any(),
    };
    drill.metadata.generate_name = Some(format!("{of}-verify-"));
    Ok(drill)
}

/// Without a target.
fn bare(
    namespace: Option<String>,
    from: RestoreFrom,
    owners: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>,
) -> RestoreJob {
    RestoreJob {
        metadata: ObjectMeta {
            namespace,
            owner_references: (!owners.is_empty()).then_some(owners),
            ..ObjectMeta::default()
        },
        spec: RestoreJobSpec::new(from, RestoreTo::default()),
        status: None,
    }
}

fn no_image(choice: &Choice, verify: Option<&Verify>, schedule: Option<&str>) -> Failure {
    debug_assert!(verify.is_none(), "spec.verify names an image");
    let version = choice
        .backup(None)
        .and_then(|job| job.status.as_ref()?.source.as_ref()?.server_version.clone());
    let version = version.map_or_else(String::new, |v| format!(" (its server was {v})"));
    let or = match schedule {
        Some(name) => format!(", or spec.verify.image to BackupSchedule {name}"),
        None => String::new(),
    };
    Failure::usage(format!(
        "which server is to take the backup is not known: give --image, the one that runs the database{version}{or}"
    ))
}

pub(super) fn decryption(identity: &SecretKey) -> Decryption {
    Decryption {
        identity_secret_ref: IdentitySecretReference {
            name: identity.name.clone(),
            key: identity
                .key
                .clone()
                .unwrap_or_else(|| "identity".to_owned()),
        },
    }
}

/// Whether an encrypted backup comes with an identity; the controller would find out later.
pub(super) fn can_open(choice: &Choice, spec: &RestoreJobSpec) -> Result<(), Failure> {
    let before = spec.from.latest.as_ref().and_then(|l| l.before.as_ref());
    let Some(job) = choice.backup(before.map(|time| time.0)) else {
        return Ok(());
    };
    if is_encrypted(job) && spec.decryption.is_none() {
        return Err(Failure::usage(format!(
            "{} is encrypted: give --identity-secret, a Secret with an age identity (AGE-SECRET-KEY-1...) that opens it",
            job.name_any()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::which::tests::succeeded, *};
    use crate::job::schedule_of;
    use serde_json::{Value, json};

    fn schedule(verify: &Value) -> Box<crate::api::BackupSchedule> {
        let spec = json!({"schedule": "0 3 * * *", "verify": verify,
            "jobTemplate": {"spec": {"source": {"url": "http://db"}, "storeRef": {"name": "offsite"}}}});
        Box::new(
            serde_json::from_value(json!({
                "apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule",
                "metadata": {"name": "nightly", "namespace": "shop", "uid": "u"}, "spec": spec,
            }))
            .unwrap(),
        )
    }

    fn verify() -> Value {
        json!({"schedule": "0 6 * * 0", "image": "mariadb:10.11", "checks": [{"query": "SELECT 1"}],
               "decryption": {"identitySecretRef": {"name": "drills"}}})
    }

    fn of_schedule(verify: &Value) -> Choice {
        Choice {
            chosen: Chosen::Schedule(schedule(verify)),
            jobs: vec![succeeded("nightly-1", 1, &json!({}))],
        }
    }

    fn of_job(verify: Option<&Value>, status: &Value) -> Choice {
        Choice {
            chosen: Chosen::Job(
                Box::new(succeeded("nightly-1", 1, status)),
                verify.map(schedule),
            ),
            jobs: Vec::new(),
        }
    }

    #[test]
    fn of_a_schedule_it_is_the_drill_that_the_schedule_makes() {
        let made = drill(&of_schedule(&verify()), None, None).unwrap();
        assert_eq!(made.spec, made::drill(&schedule(&verify())).unwrap().spec);
        assert_eq!(schedule_of(&made).map(|o| o.uid.as_str()), Some("u"));
        assert_eq!(
            made.metadata.generate_name.as_deref(),
            Some("nightly-verify-")
        );
        // Its name is none of a due time.
        assert_eq!(
            crate::schedule::verify::due_of("nightly", "nightly-verify-x7k2p"),
            None
        );
        let other = drill(&of_schedule(&verify()), Some("mariadb:11.4".into()), None).unwrap();
        assert_eq!(other.spec.to.drill.unwrap().image, "mariadb:11.4");
    }

    #[test]
    fn of_a_job_it_is_nobodys_and_of_that_backup() {
        let made = drill(&of_job(Some(&verify()), &json!({})), None, None).unwrap();
        assert_eq!(schedule_of(&made), None);
        assert_eq!(made.spec.from.backup_job_ref.unwrap().name, "nightly-1");
        assert_eq!(made.spec.checks.len(), 1);
        assert_eq!(
            made.spec.decryption.unwrap().identity_secret_ref.name,
            "drills"
        );
        assert_eq!(made.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(
            made.metadata.generate_name.as_deref(),
            Some("nightly-1-verify-")
        );
        // Its schedule is gone.
        let made = drill(&of_job(None, &json!({})), Some("mysql:9".into()), None).unwrap();
        assert_eq!(made.spec.to.drill.unwrap().image, "mysql:9");
    }

    #[test]
    fn what_is_missing_is_asked_for() {
        let status = json!({"source": {"serverVersion": "10.11.14-MariaDB"}, "objects": [{"key": "a/backup.tar.zst.age", "bytes": 1}]});
        let failure = drill(&of_schedule(&Value::Null), None, None).unwrap_err();
        assert!(
            failure.message.contains("--image")
                && failure.message.contains("BackupSchedule nightly"),
            "{}",
            failure.message
        );
        let failure = drill(&of_job(None, &status), None, None).unwrap_err();
        assert!(
            failure.message.contains("10.11.14-MariaDB"),
            "{}",
            failure.message
        );
        let image = Some("mariadb:10.11".to_owned());
        let failure = drill(&of_job(None, &status), image.clone(), None).unwrap_err();
        assert!(
            failure.message.contains("--identity-secret"),
            "{}",
            failure.message
        );
        let identity: SecretKey = "mine/age.txt".parse().unwrap();
        let made = drill(&of_job(None, &status), image, Some(&identity)).unwrap();
        let secret = made.spec.decryption.unwrap().identity_secret_ref;
        assert_eq!((&*secret.name, &*secret.key), ("mine", "age.txt"));
    }
}

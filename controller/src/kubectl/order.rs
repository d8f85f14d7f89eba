//! What the commands that make an object have in common: how it is tried, made, printed and followed.

use super::{
    error::{Exit, Failure},
    kind::Kind,
    output::{self, Format, Lines, note},
    session::{Ours, Session, kind_of},
    watch,
};
use crate::api::{BackupJob, RestoreJob, job::Phase, restore::RestorePhase};
use clap::{Args, ValueEnum};
use kube::{
    ResourceExt,
    api::PostParams,
    runtime::{
        wait::{self, await_condition},
        watcher,
    },
};
use serde::Serialize;
use std::io::IsTerminal as _;

/// Whom the API server writes down as the one who made or changed a field.
pub(super) const FIELD_MANAGER: &str = "kubectl-towline";

/// How an object is made.
#[derive(Args, Debug)]
pub(super) struct OrderArgs {
    /// Follow it to its end; the exit code tells how it ended
    #[arg(long)]
    wait: bool,

    /// Make nothing: client prints what would be made, server has the API server judge it, too
    #[arg(long, value_enum, value_name = "WHO", default_value_t)]
    dry_run: DryRun,

    /// Print the object that was made; with --wait as it is in the end
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Made>,
}

/// Who tries, as kubectl has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DryRun {
    /// Nobody: it is made
    #[default]
    None,
    /// This program
    Client,
    /// The API server
    Server,
}

/// How an object that was made is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Made {
    /// As YAML
    Yaml,
    /// As JSON
    Json,
    /// Kind and name only
    Name,
}

impl OrderArgs {
    /// Whether the object is really to be made.
    pub(super) fn is_real(&self) -> bool {
        self.dry_run == DryRun::None
    }

    /// Refuses what cannot go together, before anything is asked.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.wait && !self.is_real() {
            return Err(Failure::usage(
                "with --dry-run nothing is made, so there is nothing to wait for: leave --wait out",
            ));
        }
        Ok(())
    }

    /// Makes the object, prints it, and follows it where that is wanted. `notes` are for who has made it.
    pub(super) async fn make<K: Order>(
        &self,
        session: &Session,
        object: K,
        notes: &[String],
    ) -> Result<(), Failure> {
        let made = match self.dry_run {
            DryRun::Client => object,
            DryRun::None | DryRun::Server => {
                let params = PostParams {
                    dry_run: self.dry_run == DryRun::Server,
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                };
                let made = session.api::<K>().create(&params, &object).await;
                made.map_err(|error| session.failed::<K>("create", None, &error))?
            }
        };
        for line in notes {
            note(line);
        }
        if self.wait {
            return self.follow(session, &made).await;
        }
        self.print(&made)?;
        if self.output.is_none() {
            let dry = match self.dry_run {
                DryRun::None => "",
                DryRun::Client => " (dry run)",
                DryRun::Server => " (server dry run)",
            };
            output::out(&format!("{} created{dry}", name_of(&made)));
            if self.is_real() {
                let namespace = made.namespace().unwrap_or_default();
                let name = made.name_any();
                output::out(&format!(
                    "Follow it: kubectl towline watch {}/{name} -n {namespace}",
                    K::SHORT
                ));
            }
        }
        Ok(())
    }

    /// To its end. Progress is for people: who wants the object on standard output gets it alone.
    async fn follow<K: Order>(&self, session: &Session, made: &K) -> Result<(), Failure> {
        let name = made.name_any();
        note(&format!("{} created", name_of(made)));
        if self.output.is_none() {
            return watch::follow(session, K::KIND, &name, Lines::Text).await;
        }
        let uid = made.uid();
        let ended = until(session, &name, |found: Option<&K>| {
            found.is_none_or(|found| found.uid() != uid || found.ended().is_some())
        });
        let Some(object) = ended.await?.filter(|found| found.uid() == uid) else {
            return Err(Failure::failed(format!("{} was deleted", name_of(made))));
        };
        self.print(&object)?;
        match object.ended() {
            Some(Ended::Well) => Ok(()),
            _ => Err(Failure::failed(format!(
                "{} did not succeed: kubectl towline explain {}/{name}",
                name_of(made),
                K::SHORT
            ))),
        }
    }

    fn print<K: Ours + Serialize>(&self, object: &K) -> Result<(), Failure> {
        let format = match self.output {
            None => return Ok(()),
            Some(Made::Name) => {
                output::out(&name_of(object));
                return Ok(());
            }
            Some(Made::Yaml) => Format::Yaml,
            Some(Made::Json) => Format::Json,
        };
        output::machine(format, object).map(drop)
    }
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// What was wanted is there.
    Well,
    /// It is not.
    Badly,
}

/// A kind of which an object is an order: it ends.
pub(super) trait Order: Ours + Serialize + Sync {
    const KIND: Kind;
    /// The kind on a command line.
    const SHORT: &'static str;

    /// How it ended, once it has.
    fn ended(&self) -> Option<Ended>;
}

impl Order for BackupJob {
    const KIND: Kind = Kind::Job;
    const SHORT: &'static str = "job";

    fn ended(&self) -> Option<Ended> {
        match self.status.as_ref()?.phase {
            Phase::Pending | Phase::Running => None,
            Phase::Succeeded => Some(Ended::Well),
            Phase::Failed | Phase::Cancelled => Some(Ended::Badly),
        }
    }
}

impl Order for RestoreJob {
    const KIND: Kind = Kind::Restore;
    const SHORT: &'static str = "restore";

    fn ended(&self) -> Option<Ended> {
        match self.status.as_ref()?.phase {
            RestorePhase::Pending | RestorePhase::Running => None,
            RestorePhase::Succeeded => Some(Ended::Well),
            RestorePhase::Failed => Some(Ended::Badly),
        }
    }
}

/// Waits until an object of this name, or its absence, pleases `is`; gives it as it is then.
pub(super) async fn until<K: Ours + Sync>(
    session: &Session,
    name: &str,
    is: impl Fn(Option<&K>) -> bool + Send,
) -> Result<Option<K>, Failure> {
    let found = await_condition(session.api::<K>(), name, |object: Option<&K>| is(object)).await;
    found.map_err(|wait::Error::ProbeFailed(error)| match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => session.failed::<K>("watch", None, &error),
        other => Failure::failed(format!("{name} cannot be followed: {other}")),
    })
}

/// As kubectl names an object: `backupjob.towline.dev/nightly-now-x7k2p`. Of one that nobody has named yet, what
/// its name will begin with.
pub(super) fn name_of<K: Ours>(object: &K) -> String {
    let meta = object.meta();
    let name = match (&meta.name, &meta.generate_name) {
        (Some(name), _) => name.clone(),
        (None, start) => format!("{}…", start.as_deref().unwrap_or_default()),
    };
    format!("{}.towline.dev/{name}", kind_of::<K>().to_lowercase())
}

/// Asks, unless `yes` was said beforehand. `what` has been printed.
pub(super) fn agreed(yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "nobody can be asked here: say --yes to have it done",
        ));
    }
    eprint!("Go on? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "nothing was done"))
}

/// A Secret, and which of its keys: `NAME` or `NAME/KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretKey {
    pub(super) name: String,
    pub(super) key: Option<String>,
}

impl std::str::FromStr for SecretKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, key) = match text.split_once('/') {
            None => (text, None),
            Some((_, "")) => return Err("write NAME or NAME/KEY".to_owned()),
            Some((name, key)) => (name, Some(key.to_owned())),
        };
        crate::api::check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_name_and_perhaps_a_key() {
        let of = |name: &str, key: Option<&str>| SecretKey {
            name: name.into(),
            key: key.map(str::to_owned),
        };
        assert_eq!("identity".parse(), Ok(of("identity", None)));
        assert_eq!(
            "identity/age.txt".parse(),
            Ok(of("identity", Some("age.txt")))
        );
        for bad in ["", "a/", "A", "../x", "/key"] {
            assert!(bad.parse::<SecretKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_has_no_name_yet_shows_how_it_will_begin() {
        let mut job: BackupJob = serde_json::from_value(serde_json::json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob",
            "metadata": {"generateName": "nightly-now-"}, "spec": {},
        }))
        .unwrap();
        assert_eq!(name_of(&job), "backupjob.towline.dev/nightly-now-…");
        job.metadata.name = Some("nightly-now-x7k2p".into());
        assert_eq!(name_of(&job), "backupjob.towline.dev/nightly-now-x7k2p");
    }
}

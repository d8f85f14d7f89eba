//! `kubectl towline watch`: follows jobs and restores to their end.

mod view;

use super::{
    error::Failure,
    kind::{Kind, Target},
    output::{self, Lines, Paint},
    session::{Connection, Ours, Session, asked},
    text::clean,
};
use crate::{
    api::{
        BackupJob, RestoreJob, conditions,
        job::{self, Phase},
        restore,
    },
    fleet::Running,
};
use clap::Args;
use futures::{StreamExt as _, stream, stream::BoxStream};
use kube::{
    Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::Serialize;
use std::collections::HashSet;
use view::View;

/// What to follow, and how.
#[derive(Args, Debug)]
#[command(after_help = "\
Without a name all jobs and restores that run or wait are followed, and what begins meanwhile; it ends
when none is left. On a terminal there are bars, else plain lines. A backup's total is what the agent
guessed before compression: it ends below it.

Exit code 0 when all that were followed succeeded, 1 when one did not. Ctrl-C ends the watching, not
the job.")]
pub(super) struct WatchArgs {
    /// A job, or TYPE/NAME with job or restore [default: all that run]
    #[arg(value_name = "[TYPE/]NAME", add = super::complete::names("BackupJob"))]
    target: Option<Target>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Lines,
}

/// How one stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    kind: &'static str,
    namespace: String,
    name: String,
    phase: &'static str,
    /// Why it waits or failed.
    reason: Option<String>,
    /// In words, where it has ended or waits.
    message: Option<String>,
    /// Unless it has ended.
    running: Option<Running>,
}

/// What an object is known by.
type Key = (&'static str, String, String);

impl Item {
    fn key(&self) -> Key {
        (self.kind, self.namespace.clone(), self.name.clone())
    }

    fn title(&self, all: bool) -> String {
        let what = match self.kind {
            "BackupJob" => "backup",
            _ => "restore",
        };
        if all {
            format!("{what} {}/{}", self.namespace, self.name)
        } else {
            format!("{what} {}", self.name)
        }
    }

    fn succeeded(&self) -> bool {
        self.phase == Phase::Succeeded.as_str()
    }
}

fn told(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    types: [&str; 3],
) -> Option<String> {
    let holds = types.iter().find_map(|type_| {
        conditions::get(conditions, type_).filter(|c| c.status == "True" && !c.message.is_empty())
    });
    holds.map(|c| clean(&c.message))
}

impl From<&BackupJob> for Item {
    fn from(job: &BackupJob) -> Self {
        let status = job.status.clone().unwrap_or_default();
        Self {
            kind: Kind::Job.as_str(),
            namespace: job.namespace().unwrap_or_default(),
            name: job.name_any(),
            phase: status.phase.as_str(),
            reason: status.reason.map(|r| r.to_string()),
            message: told(
                &status.conditions,
                [job::COMPLETE, job::FAILED, job::PROGRESSING],
            ),
            running: Running::of_job(job),
        }
    }
}

impl From<&RestoreJob> for Item {
    fn from(job: &RestoreJob) -> Self {
        let status = job.status.clone().unwrap_or_default();
        Self {
            kind: Kind::Restore.as_str(),
            namespace: job.namespace().unwrap_or_default(),
            name: job.name_any(),
            phase: status.phase.as_str(),
            reason: status.reason.map(|r| r.to_string()),
            message: told(
                &status.conditions,
                [restore::COMPLETE, restore::FAILED, restore::PROGRESSING],
            ),
            running: Running::of_restore(job),
        }
    }
}

/// What a watch tells.
enum Change {
    /// It was there when the watch began, or began anew.
    Found(Item),
    /// It is new or has changed.
    Changed(Item),
    Gone(Key),
    /// All that were there have been told.
    Listed,
    Failed(Failure),
}

impl WatchArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let session = Session::connect(connection).await?;
        match &self.target {
            None => follow_all(&session, self.output).await,
            Some(target) => {
                let kind = one(&session, target).await?;
                follow(&session, kind, &target.name, self.output).await
            }
        }
    }
}

/// Which kind a target is of; it is there.
async fn one(session: &Session, target: &Target) -> Result<Kind, Failure> {
    match target.kind {
        Some(kind @ (Kind::Schedule | Kind::Store)) => Err(Failure::usage(format!(
            "a {} does not end: watch follows jobs and restores; kubectl towline watch alone follows all that run",
            kind.as_str()
        ))),
        Some(Kind::Restore) => {
            session.get::<RestoreJob>(&target.name).await?;
            Ok(Kind::Restore)
        }
        Some(Kind::Job) => {
            session.get::<BackupJob>(&target.name).await?;
            Ok(Kind::Job)
        }
        None => {
            if session.find::<BackupJob>(&target.name).await?.is_none()
                && session.find::<RestoreJob>(&target.name).await?.is_some()
            {
                return Ok(Kind::Restore);
            }
            session.get::<BackupJob>(&target.name).await?;
            Ok(Kind::Job)
        }
    }
}

/// Follows one job or restore to its end, which decides about the exit code.
pub(super) async fn follow(
    session: &Session,
    kind: Kind,
    name: &str,
    lines: Lines,
) -> Result<(), Failure> {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let changes = match kind {
        Kind::Restore => changes::<RestoreJob>(session, only),
        _ => changes::<BackupJob>(session, only),
    };
    Box::pin(to_the_end(changes, 1, true, View::new(lines, false))).await
}

/// Follows all that run, of the session's namespace or of all.
async fn follow_all(session: &Session, lines: Lines) -> Result<(), Failure> {
    let changes = stream::select(
        changes::<BackupJob>(session, watcher::Config::default()),
        changes::<RestoreJob>(session, watcher::Config::default()),
    );
    let all = session.scope().is_none();
    Box::pin(to_the_end(changes.boxed(), 2, false, View::new(lines, all))).await
}

/// Watches a kind. What can be repaired is; what cannot, such as a missing right, ends it.
fn changes<K>(session: &Session, config: watcher::Config) -> BoxStream<'static, Change>
where
    K: Ours,
    for<'a> Item: From<&'a K>,
{
    let api: kube::Api<DeserializeGuard<K>> = match session.scope() {
        Some(namespace) => kube::Api::namespaced(session.client.clone(), namespace),
        None => kube::Api::all(session.client.clone()),
    };
    let scope = session.scope().map(str::to_owned);
    let kind = super::session::kind_of::<K>();
    let mut unreachable = false;
    watcher(api, config)
        .default_backoff()
        .filter_map(move |event| {
            let change = match event {
                Ok(event) => {
                    unreachable = false;
                    of_event(kind, event)
                }
                Err(watcher::Error::WatchError(status)) => {
                    // The watch is too old, and begins anew.
                    tracing::debug!(%status, "watch");
                    None
                }
                Err(
                    ref failed @ (watcher::Error::InitialListFailed(ref error)
                    | watcher::Error::WatchStartFailed(ref error)
                    | watcher::Error::WatchFailed(ref error)),
                ) => {
                    let verb = match failed {
                        watcher::Error::InitialListFailed(_) => "list",
                        _ => "watch",
                    };
                    let failure = asked::<K>(verb, None, scope.as_deref()).failed(error);
                    if matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404)) {
                        Some(Change::Failed(failure))
                    } else {
                        if !unreachable {
                            output::note(&format!("{}; it is asked again", failure.message));
                        }
                        unreachable = true;
                        None
                    }
                }
                Err(error @ watcher::Error::NoResourceVersion) => {
                    Some(Change::Failed(Failure::failed(error.to_string())))
                }
            };
            futures::future::ready(change)
        })
        .boxed()
}

fn of_event<K: Ours>(kind: &'static str, event: Event<DeserializeGuard<K>>) -> Option<Change>
where
    for<'a> Item: From<&'a K>,
{
    let key = |object: &DeserializeGuard<K>| {
        (
            kind,
            object.meta().namespace.clone().unwrap_or_default(),
            object.meta().name.clone().unwrap_or_default(),
        )
    };
    // One that cannot be read never runs.
    match event {
        Event::Apply(object) => Some(Change::Changed(Item::from(&object.0.ok()?))),
        Event::InitApply(object) => Some(Change::Found(Item::from(&object.0.ok()?))),
        Event::Delete(object) => Some(Change::Gone(key(&object))),
        Event::InitDone => Some(Change::Listed),
        Event::Init => None,
    }
}

/// Until nothing is followed any more. `lists` is how many lists there are before that is known; with `only`,
/// there is one object, which counts even when it has ended before.
async fn to_the_end(
    mut changes: BoxStream<'static, Change>,
    lists: usize,
    only: bool,
    mut view: View,
) -> Result<(), Failure> {
    let (mut open, mut seen, mut listed) = (HashSet::<Key>::new(), HashSet::<Key>::new(), 0);
    let mut failed = false;
    while let Some(change) = changes.next().await {
        match change {
            Change::Failed(failure) => return Err(failure),
            Change::Listed => listed += 1,
            Change::Gone(key) => {
                if open.remove(&key) {
                    view.gone(&key);
                    failed = true;
                }
            }
            Change::Found(item) | Change::Changed(item) => {
                let key = item.key();
                let followed = open.contains(&key);
                if item.running.is_some() {
                    open.insert(key.clone());
                    seen.insert(key);
                    view.show(&item);
                } else if followed || (only && seen.insert(key.clone())) {
                    open.remove(&key);
                    failed |= !item.succeeded();
                    view.end(&item);
                }
            }
        }
        if listed >= lists && open.is_empty() {
            break;
        }
    }
    if seen.is_empty() {
        output::note("nothing runs");
    }
    if failed {
        // What became of it was printed.
        return Err(Failure::failed(""));
    }
    Ok(())
}

/// How one ended, in a line.
fn ending(item: &Item, all: bool, paint: Paint) -> String {
    let phase = if item.succeeded() {
        paint.good(item.phase)
    } else {
        paint.bad(item.phase)
    };
    let reason = item
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    let message = item
        .message
        .as_ref()
        .map_or_else(String::new, |message| format!(": {message}"));
    format!("{}: {phase}{reason}{message}", item.title(all))
}

#[cfg(test)]
mod tests;

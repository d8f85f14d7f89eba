//! `kubectl towline logs`: what happened to a job or a restore, in the order of time, from all who tell of it.

mod gather;
mod line;

use super::{
    error::Failure,
    kind::{Kind, Target, object_name},
    output::{self, Lines, Paint},
    session::{Connection, Session},
    text::clean,
};
use crate::api::{BackupJob, RestoreJob};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};
use serde::Serialize;

/// Namespace in which the chart's documents install the controller.
const CONTROLLER_NAMESPACE: &str = "towline-system";
/// Clocks of nodes differ, and an agent's last words come after the controller's.
const SLACK: SignedDuration = SignedDuration::from_secs(10);

/// Of what, and how.
#[derive(Args, Debug)]
#[command(after_help = "\
It puts together, by time: the object's Events, the attempts in its status, the controller's lines about
it, and those of the agent beside the database, of a restore those of its pod. Events are gone after
an hour, and a container's log when its pod is.

An agent's line is taken when it names the job, and when it names none and falls into an attempt. What
you may not read is left out, and said on standard error; the rest is still printed.")]
pub(super) struct LogsArgs {
    /// A job, or TYPE/NAME with job or restore
    #[arg(value_name = "[TYPE/]NAME", add = super::complete::names("BackupJob"))]
    target: Target,

    /// Namespace in which the controller runs
    #[arg(long, value_name = "NAME", default_value = CONTROLLER_NAMESPACE, value_parser = object_name)]
    controller_namespace: String,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Lines,
}

/// Who told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Event,
    Attempt,
    Controller,
    Agent,
    Restore,
}

impl Source {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Attempt => "attempt",
            Self::Controller => "controller",
            Self::Agent => "agent",
            Self::Restore => "restore",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    #[serde(serialize_with = "to_the_microsecond")]
    time: Timestamp,
    source: Source,
    /// Of a log line: the pod and the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    /// `INFO`, `WARN` and the like.
    level: String,
    text: String,
}

/// Always with as many digits, so that lines sort as text, too.
fn to_the_microsecond<S: serde::Serializer>(
    time: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
}

/// Whom it is about: what tells its lines from others'.
#[derive(Clone, Debug)]
struct Subject {
    kind: Kind,
    namespace: String,
    name: String,
    uid: String,
    created: Timestamp,
    /// When it ended; nothing that is later is looked at.
    ended: Option<Timestamp>,
    /// From when to when an attempt ran; no end: it runs.
    attempts: Vec<(Timestamp, Option<Timestamp>)>,
    /// Whether an attempt found an agent.
    agent_found: bool,
    /// Pod of the agent that the last attempt read from.
    agent_pod: Option<String>,
}

impl Subject {
    fn of_job(job: &BackupJob) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let attempts = status.attempts.iter();
        Self {
            attempts: attempts
                .map(|a| (a.start.0, a.end.as_ref().map(|t| t.0)))
                .collect(),
            ended: status.completion_time.as_ref().map(|t| t.0),
            agent_found: status.attempts.iter().any(|a| a.agent.is_some()),
            agent_pod: status.source.and_then(|s| s.pod),
            ..Self::new(job, Kind::Job)
        }
    }

    fn of_restore(restore: &RestoreJob) -> Self {
        let status = restore.status.clone().unwrap_or_default();
        Self {
            ended: status.completion_time.as_ref().map(|t| t.0),
            ..Self::new(restore, Kind::Restore)
        }
    }

    fn new<K: Resource>(object: &K, kind: Kind) -> Self {
        let created = object.meta().creation_timestamp.as_ref();
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            created: created.map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            ended: None,
            attempts: Vec::new(),
            agent_found: false,
            agent_pod: None,
        }
    }

    /// Whether an attempt ran then.
    fn in_attempt(&self, time: Timestamp) -> bool {
        let within = |(start, end): &(Timestamp, Option<Timestamp>)| {
            time.saturating_add(SLACK).is_ok_and(|t| t >= *start)
                && end.is_none_or(|end| time <= end.saturating_add(SLACK).unwrap_or(end))
        };
        self.attempts.iter().any(within)
    }

    /// Whether it is after the end of all.
    fn is_over(&self, time: Timestamp) -> bool {
        // The controller tidies up for a while.
        let slack = SignedDuration::from_mins(2);
        self.ended
            .is_some_and(|end| time > end.saturating_add(slack).unwrap_or(end))
    }
}

impl LogsArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let session = Session::connect(connection).await?;
        session.one_namespace()?;
        let (subject, attempts) = self.subject(&session).await?;
        let mut notes = Vec::new();
        let mut entries = attempts;
        entries.extend(gather::events(&session, &subject, &mut notes).await?);
        entries.extend(
            gather::controller(&session, &subject, &self.controller_namespace, &mut notes).await?,
        );
        entries.extend(match subject.kind {
            Kind::Restore => gather::restore_pods(&session, &subject, &mut notes).await?,
            _ => gather::agent(&session, &subject, &mut notes).await?,
        });
        // Those of one second in the order of who tells first: attempts and events have whole seconds.
        entries.sort_by_key(|entry| (entry.time, entry.source));
        let paint = Paint::of_stdout();
        for entry in &entries {
            match self.output {
                Lines::Text => output::out(&render(entry, paint)),
                Lines::Json => output::out(&serde_json::to_string(entry).map_err(|error| {
                    Failure::failed(format!("cannot be written as JSON: {error}"))
                })?),
            }
        }
        if entries.is_empty() {
            output::note("nothing is known of it any more");
        }
        for note in notes {
            output::note(&format!("note: {note}"));
        }
        Ok(())
    }

    async fn subject(&self, session: &Session) -> Result<(Subject, Vec<Entry>), Failure> {
        let name = &self.target.name;
        let of_job = |job: &BackupJob| (Subject::of_job(job), attempts(job));
        match self.target.kind {
            Some(kind @ (Kind::Schedule | Kind::Store)) => Err(Failure::usage(format!(
                "a {} has no log of its own: name a job or a restore; kubectl towline explain tells of it",
                kind.as_str()
            ))),
            Some(Kind::Restore) => {
                let restore = session.get::<RestoreJob>(name).await?;
                Ok((Subject::of_restore(&restore), Vec::new()))
            }
            Some(Kind::Job) => Ok(of_job(&session.get(name).await?)),
            None => {
                if let Some(job) = session.find::<BackupJob>(name).await? {
                    return Ok(of_job(&job));
                }
                if let Some(restore) = session.find::<RestoreJob>(name).await? {
                    return Ok((Subject::of_restore(&restore), Vec::new()));
                }
                Ok(of_job(&session.get(name).await?))
            }
        }
    }
}

/// The attempts that the status remembers, each with its begin and its end.
fn attempts(job: &BackupJob) -> Vec<Entry> {
    let status = job.status.clone().unwrap_or_default();
    let mut entries = Vec::new();
    for attempt in &status.attempts {
        let agent = attempt.agent.as_deref().unwrap_or("no agent");
        let entry = |time, level: &str, text| Entry {
            time,
            source: Source::Attempt,
            pod: None,
            level: level.to_owned(),
            text,
        };
        entries.push(entry(
            attempt.start.0,
            "INFO",
            format!("attempt {} begins: {agent}", attempt.number),
        ));
        if let Some(end) = &attempt.end {
            let size = super::text::bytes(Some(attempt.bytes));
            let (level, text) = match (attempt.reason, &attempt.message) {
                (Some(reason), message) => (
                    "WARN",
                    format!(
                        "attempt {} failed after {size}: {reason}: {}",
                        attempt.number,
                        message.as_deref().unwrap_or_default()
                    ),
                ),
                (None, _) => (
                    "INFO",
                    format!("attempt {} is good: {size}", attempt.number),
                ),
            };
            entries.push(entry(end.0, level, text));
        }
    }
    entries
}

fn render(entry: &Entry, paint: Paint) -> String {
    let level = format!("{:5}", entry.level);
    let level = match entry.level.as_str() {
        "ERROR" => paint.bad(&level),
        "WARN" => paint.warn(&level),
        "DEBUG" | "TRACE" => paint.faint(&level),
        _ => level,
    };
    format!(
        "{}  {:10}  {level}  {}",
        entry.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
        entry.source.as_str(),
        clean(&entry.text)
    )
}

#[cfg(test)]
mod tests;

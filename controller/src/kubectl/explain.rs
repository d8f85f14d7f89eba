//! `kubectl towline explain`: why something is in the state that it is in, and what to do.

mod advice;

use super::{
    error::{Exit, Failure},
    kind::{Kind, Target},
    output::{self, Format, Paint},
    session::{Connection, Session},
    text::{age, bytes, clean, instant, relative, verified, wrap},
};
use crate::{
    api::{
        BackupJob, BackupSchedule, BackupStore, RestoreJob,
        job::{self, Phase},
        restore::{self, RestorePhase},
        store,
    },
    fleet::{Fleet, Objects, Running, schedule_name},
    reason::advice as document,
};
use advice::Words;
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use serde::Serialize;

/// Columns of the text, where it is not a table.
const WIDTH: usize = 100;
/// Where the document is, for who reads on.
const DOCUMENT: &str = "docs/troubleshooting.md";

/// What to explain, and how.
#[derive(Args, Debug)]
#[command(after_help = "\
What stands under \"What to do\" is the section of docs/troubleshooting.md on the reason, with the names
of your objects in its commands. A name alone is looked for among jobs, restores, schedules and
stores, in that order.")]
pub(super) struct ExplainArgs {
    /// A job, or TYPE/NAME: job, restore, schedule or store
    #[arg(value_name = "[TYPE/]NAME", add = super::complete::names(""))]
    target: Target,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// All that is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    kind: &'static str,
    namespace: String,
    name: String,
    /// The phase, or one word for a schedule or a store.
    state: String,
    /// One sentence on it.
    summary: String,
    /// The word that the state is due to, where there is one.
    reason: Option<String>,
    /// The same in words.
    message: Option<String>,
    conditions: Vec<Condition>,
    attempts: Vec<job::Attempt>,
    checks: Vec<restore::CheckStatus>,
    /// Further lines, each with a title.
    facts: Vec<Fact>,
    advice: Vec<Section>,
    #[serde(skip)]
    variables: Vec<(&'static str, String)>,
}

/// A line with a title.
#[derive(Clone, Debug, Serialize)]
struct Fact {
    title: &'static str,
    text: String,
}

/// A section of the document.
#[derive(Clone, Debug, Serialize)]
struct Section {
    reason: String,
    document: String,
    text: String,
}

impl ExplainArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let session = Session::connect(connection).await?;
        session.one_namespace()?;
        let explanation = Box::pin(find(&session, &self.target)).await?;
        if output::machine(self.output, &explanation)? {
            return Ok(());
        }
        if self.output == Format::Name {
            let kind = explanation.kind.to_lowercase();
            output::out(&format!("{kind}.towline.dev/{}", explanation.name));
            return Ok(());
        }
        let text = explanation.render(
            self.output == Format::Wide,
            Timestamp::now(),
            Paint::of_stdout(),
        );
        output::out(text.trim_end());
        Ok(())
    }
}

async fn find(session: &Session, target: &Target) -> Result<Explanation, Failure> {
    let now = Timestamp::now();
    let name = &target.name;
    match target.kind {
        Some(Kind::Job) => Ok(of_job(&session.get(name).await?)),
        Some(Kind::Restore) => Ok(of_restore(&session.get(name).await?)),
        Some(Kind::Schedule) => of_schedule_and_jobs(session, session.get(name).await?, now).await,
        Some(Kind::Store) => Ok(of_store(&session.get(name).await?)),
        None => {
            for kind in Kind::ALL {
                let there = match kind {
                    Kind::Job => session.find::<BackupJob>(name).await?.map(|o| of_job(&o)),
                    Kind::Restore => session.find(name).await?.map(|o| of_restore(&o)),
                    Kind::Schedule => match session.find(name).await? {
                        Some(schedule) => Some(of_schedule_and_jobs(session, schedule, now).await?),
                        None => None,
                    },
                    Kind::Store => session.find(name).await?.map(|o| of_store(&o)),
                };
                if let Some(explanation) = there {
                    return Ok(explanation);
                }
            }
            // For the names that are like it.
            let failure = match session.get::<BackupJob>(name).await {
                Ok(job) => return Ok(of_job(&job)),
                Err(failure) => failure,
            };
            if failure.exit != Exit::NotFound {
                return Err(failure);
            }
            Err(Failure::new(
                Exit::NotFound,
                failure.message.replace(
                    "there is no BackupJob",
                    "there is no BackupJob, RestoreJob, BackupSchedule or BackupStore",
                ),
            ))
        }
    }
}

async fn of_schedule_and_jobs(
    session: &Session,
    schedule: BackupSchedule,
    now: Timestamp,
) -> Result<Explanation, Failure> {
    let jobs = session.list::<BackupJob>().await?;
    Ok(of_schedule(&schedule, &jobs.items, now))
}

impl Explanation {
    fn new<K: Resource<DynamicType = ()>>(object: &K, kind: Kind) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let name = object.name_any();
        let variable = match kind {
            Kind::Job => "JOB",
            Kind::Restore => "RESTORE",
            Kind::Schedule => "SCHEDULE",
            Kind::Store => "STORE",
        };
        let variables = vec![("NS", namespace.clone()), (variable, name.clone())];
        Self {
            kind: kind.as_str(),
            namespace,
            name,
            state: String::new(),
            summary: String::new(),
            reason: None,
            message: None,
            conditions: Vec::new(),
            attempts: Vec::new(),
            checks: Vec::new(),
            facts: Vec::new(),
            advice: Vec::new(),
            variables,
        }
    }

    fn because(&mut self, reason: Option<&str>, conditions: &[Condition], types: &[&str]) {
        self.conditions = conditions.to_vec();
        let told = types.iter().find_map(|type_| {
            let holds = |c: &&Condition| c.type_ == *type_ && !c.message.is_empty();
            conditions.iter().find(holds)
        });
        self.message = told.map(|c| c.message.clone());
        self.reason = reason.map(str::to_owned);
        if let Some(reason) = reason {
            self.advise(reason);
        }
    }

    /// Adds the document's section on a reason, once.
    fn advise(&mut self, reason: &str) {
        let Some(advice) = document::of(self.kind, reason) else {
            return;
        };
        let document = format!("{DOCUMENT}#{}", advice.anchor());
        if self
            .advice
            .iter()
            .any(|section| section.document == document)
        {
            return;
        }
        let words = Words {
            variables: &self.variables,
            message: self.message.as_deref().unwrap_or_default(),
        };
        self.advice.push(Section {
            reason: reason.to_owned(),
            document,
            text: advice::plain(advice.text, &words),
        });
    }

    fn fact(&mut self, title: &'static str, text: Option<impl Into<String>>) {
        if let Some(text) = text {
            self.facts.push(Fact {
                title,
                text: text.into(),
            });
        }
    }

    fn render(&self, wide: bool, now: Timestamp, paint: Paint) -> String {
        let mut out = format!(
            "{} {}/{}: {}\n",
            self.kind,
            self.namespace,
            self.name,
            paint.bold(&self.state)
        );
        for line in wrap(&clean(&self.summary), WIDTH) {
            out += &format!("{line}\n");
        }
        for Fact { title, text } in &self.facts {
            out += &format!("  {:16}{}\n", format!("{title}:"), clean(text));
        }
        let section = |title: &str| format!("\n{}\n", paint.bold(title));
        if self.reason.is_some() || self.message.is_some() {
            out += &section("Why");
            if let Some(reason) = &self.reason {
                out += &format!("  {}\n", paint.warn(reason));
            }
            for line in self.message.iter().flat_map(|m| wrap(&clean(m), WIDTH)) {
                out += &format!("  {line}\n");
            }
        }
        if !self.attempts.is_empty() {
            out += &section("Attempts");
            for attempt in &self.attempts {
                out += &format!("  {}\n", attempt_line(attempt, now));
                let message = attempt.message.iter().flat_map(|m| wrap(&clean(m), WIDTH));
                // The last one's stands above already.
                for line in message.filter(|_| attempt.message != self.message) {
                    out += &format!("      {line}\n");
                }
            }
        }
        if !self.checks.is_empty() {
            out += &section("Checks");
            for check in &self.checks {
                let mark = if check.passed {
                    paint.good("passed")
                } else {
                    paint.bad("FAILED")
                };
                out += &format!(
                    "  {mark}  {}: {}\n",
                    clean(&check.check),
                    clean(&check.found)
                );
            }
        }
        if wide && !self.conditions.is_empty() {
            out += &section("Conditions");
            for c in &self.conditions {
                let since = age(Some(c.last_transition_time.0), now);
                out += &format!(
                    "  {}={} {} ({since}): {}\n",
                    c.type_,
                    c.status,
                    c.reason,
                    clean(&c.message)
                );
            }
        }
        for advice in &self.advice {
            out += &section(&format!("What to do about {}", advice.reason));
            out += &advice.text;
            out += &format!("  {}\n", paint.faint(&format!("({})", advice.document)));
        }
        out
    }
}

fn attempt_line(attempt: &job::Attempt, now: Timestamp) -> String {
    let start = attempt.start.0;
    let took = match &attempt.end {
        Some(end) => format!("{} long", age(Some(start), end.0)),
        None => format!("for {}", age(Some(start), now)),
    };
    let outcome = match (&attempt.end, attempt.reason) {
        (None, _) => "runs".to_owned(),
        (Some(_), Some(reason)) => reason.to_string(),
        (Some(_), None) => "good".to_owned(),
    };
    let agent = attempt.agent.as_deref().unwrap_or("no agent");
    format!(
        "{}  {}  {took}  {}  {outcome}  {}",
        attempt.number,
        instant(start),
        bytes(Some(attempt.bytes)),
        clean(agent)
    )
}

fn ended(start: Option<&Timestamp>, end: Option<&Timestamp>) -> Option<String> {
    Some(format!("{} to {}", instant(*start?), instant(*end?)))
}

/// What runs, in one sentence.
fn progress(running: &Running, what: &str) -> String {
    let rate = running
        .bytes_per_second
        .map_or_else(String::new, |rate| format!(", {}/s", bytes(Some(rate))));
    let stage = running
        .stage
        .as_ref()
        .map_or_else(String::new, |stage| format!(" ({stage})"));
    format!(
        "{what} runs{stage}: {}{rate}.",
        super::status::done(running)
    )
}

fn of_job(job: &BackupJob) -> Explanation {
    let mut told = Explanation::new(job, Kind::Job);
    let status = job.status.clone().unwrap_or_default();
    told.state = status.phase.as_str().to_owned();
    told.attempts = status.attempts.clone();
    told.variables
        .push(("STORE", job.spec.store_name().to_owned()));
    if let Some(pod) = status.source.as_ref().and_then(|s| s.pod.clone()) {
        told.variables.push(("POD", pod));
    }
    if let Some(schedule) = schedule_name(job) {
        told.variables.push(("SCHEDULE", schedule.clone()));
        told.fact("schedule", Some(schedule));
    }
    let reason = status.reason.map(|r| r.as_str());
    told.because(
        reason,
        &status.conditions,
        &[job::FAILED, job::FAILURE_TARGET, job::PROGRESSING],
    );
    told.summary = match status.phase {
        Phase::Succeeded => "The backup stands: the agent's verdict was read, and everything that it names is in the store.".to_owned(),
        Phase::Failed => "There is no backup, and this job makes no other attempt. Nothing half-made is visible in the store.".to_owned(),
        Phase::Cancelled => "Somebody cancelled the job, or the next one took its place. There is no backup of it.".to_owned(),
        Phase::Running => Running::of_job(job).map_or_else(String::new, |r| progress(&r, &format!("Attempt {}", r.attempt))),
        Phase::Pending if status.start_time.is_none() => "No controller has taken the job up yet: is one running, and does it watch this namespace?".to_owned(),
        Phase::Pending => match &status.retry_time {
            Some(at) => format!("No attempt runs; the next may start at {}.", instant(at.0)),
            None => "No attempt runs; one starts as soon as it can.".to_owned(),
        },
    };
    told.fact("store", Some(job.spec.store_name()));
    told.fact("size", status.bytes.map(|b| bytes(Some(b))));
    told.fact("key", super::ls::key(job));
    told.fact(
        "time",
        ended(
            status.start_time.as_ref().map(|t| &t.0),
            status.completion_time.as_ref().map(|t| &t.0),
        ),
    );
    if status.phase == Phase::Failed || status.phase == Phase::Pending {
        told.fact(
            "failures",
            Some(format!(
                "{} counted, backoffLimit {}",
                status.failures, job.spec.backoff_limit
            )),
        );
    }
    let verdict = status
        .conditions
        .iter()
        .find(|c| c.type_ == job::VERIFIED)
        .cloned();
    if let Some(verdict) = verdict {
        told.fact(
            "restores",
            Some(format!(
                "{} ({})",
                verified(Some(verdict.status == "True")),
                verdict.message
            )),
        );
        if verdict.status == "False"
            && let Some(advice) = document::of(Kind::Restore.as_str(), &verdict.reason)
        {
            let words = Words {
                variables: &told.variables,
                message: &verdict.message,
            };
            told.advice.push(Section {
                reason: verdict.reason.clone(),
                document: format!("{DOCUMENT}#{}", advice.anchor()),
                text: advice::plain(advice.text, &words),
            });
        }
    }
    told
}

fn of_restore(restore: &RestoreJob) -> Explanation {
    let mut told = Explanation::new(restore, Kind::Restore);
    let status = restore.status.clone().unwrap_or_default();
    told.state = status.phase.as_str().to_owned();
    if let Some(backup) = &status.backup {
        told.variables.push(("STORE", backup.store.clone()));
    }
    if let Some(pod) = &status.pod {
        told.variables.push(("POD", pod.clone()));
    }
    told.because(
        status.reason.map(|r| r.as_str()),
        &status.conditions,
        &[restore::FAILED, restore::PROGRESSING],
    );
    told.checks = status.checks.clone();
    let drill = restore.spec.to.drill.is_some();
    let what = if drill { "drill" } else { "restore" };
    told.summary = match status.phase {
        RestorePhase::Succeeded if drill => "The backup restores: a server was started on it and found whole.".to_owned(),
        RestorePhase::Succeeded => "All of the backup was proven and is in its place.".to_owned(),
        RestorePhase::Failed => {
            let target = match status.target_written {
                Some(false) => "nothing was written to the target",
                Some(true) => "the target was written to, and is unusable: empty it before another restore",
                None => "nobody knows whether the target was written to: take it for unusable",
            };
            if drill {
                "The drill failed. It runs once; the schedule makes the next.".to_owned()
            } else {
                format!("The restore failed, and is not tried again: {target}.")
            }
        }
        RestorePhase::Running | RestorePhase::Pending => match Running::of_restore(restore) {
            Some(running) if running.phase == "Running" => progress(&running, &format!("The {what}")),
            _ if status.start_time.is_none() => "No controller has taken it up yet: is one running, and does it watch this namespace?".to_owned(),
            _ => format!("The {what} has not begun."),
        },
    };
    told.fact("from", status.from.clone());
    told.fact("to", status.to.clone());
    told.fact("key", status.backup.as_ref().map(|b| b.key.clone()));
    told.fact("pod", status.pod.clone());
    told.fact(
        "time",
        ended(
            status.start_time.as_ref().map(|t| &t.0),
            status.completion_time.as_ref().map(|t| &t.0),
        ),
    );
    told
}

fn of_schedule(schedule: &BackupSchedule, jobs: &[BackupJob], now: Timestamp) -> Explanation {
    let mut told = Explanation::new(schedule, Kind::Schedule);
    told.variables.push((
        "STORE",
        schedule.spec.job_template.spec.store_name().to_owned(),
    ));
    let objects = Objects {
        schedules: vec![schedule],
        jobs: jobs
            .iter()
            .filter(|job| job.namespace() == schedule.namespace())
            .filter(|job| schedule_name(job).as_deref() == Some(&schedule.name_any()))
            .collect(),
        ..Objects::default()
    };
    let fleet = Fleet::of(&objects, now);
    if let Some(job) = fleet
        .schedules
        .first()
        .and_then(|row| row.last_failure.as_ref()?.job.clone())
    {
        told.variables.push(("JOB", job));
    }
    let conditions = schedule.status.clone().unwrap_or_default().conditions;
    told.because(None, &conditions, &[]);
    let attention: Vec<_> = fleet
        .attention
        .iter()
        .filter(|one| one.kind == Kind::Schedule.as_str())
        .collect();
    told.summary = if attention.is_empty() {
        "Nothing needs attention.".to_owned()
    } else {
        let texts: Vec<_> = attention
            .iter()
            .map(|one| format!("{}: {}.", one.reason, one.text.trim_end_matches('.')))
            .collect();
        texts.join(" ")
    };
    let Some(row) = fleet.schedules.first() else {
        return told;
    };
    told.state = row.state.as_str().to_owned();
    told.reason = attention.first().map(|one| one.reason.clone());
    told.message = row.last_failure.as_ref().map(|f| f.message.clone());
    for one in &attention {
        told.advise(&one.reason);
    }
    // Why it is late is why its jobs fail.
    if let Some(failure) = &row.last_failure {
        told.advise(&failure.reason);
        let job = failure.job.as_deref().unwrap_or("a job that is gone");
        told.fact("last failure", Some(format!("{} ({job})", failure.reason)));
    }
    told.fact("cron", Some(format!("{} {}", row.schedule, row.time_zone)));
    told.fact("last good", Some(relative(row.last_success, now)));
    if row.drilled {
        told.fact("last verified", Some(relative(row.last_verified, now)));
    }
    told.fact("next", Some(relative(row.next_run, now)));
    told.fact(
        "stored",
        row.backups
            .map(|n| format!("{n} backups, {}", bytes(row.bytes))),
    );
    for running in &row.running {
        told.fact(
            "running",
            Some(format!("{} {}", running.name, super::status::done(running))),
        );
    }
    told
}

fn of_store(object: &BackupStore) -> Explanation {
    let mut told = Explanation::new(object, Kind::Store);
    let status = object.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|c| c.type_ == store::READY);
    let reason = ready
        .filter(|c| c.status != "True")
        .map(|c| c.reason.clone());
    (told.state, told.summary) = match ready.map(|c| c.status.as_str()) {
        Some("True") => (
            "Ready".to_owned(),
            "It can be used: objects were written, read, listed and deleted in it.".to_owned(),
        ),
        Some(_) => (
            "NotReady".to_owned(),
            "Nothing can be backed up to it or restored from it. It is probed again by itself."
                .to_owned(),
        ),
        None => (
            "Unknown".to_owned(),
            "No controller has probed it yet: is one running, and does it watch this namespace?"
                .to_owned(),
        ),
    };
    told.because(reason.as_deref(), &status.conditions, &[store::READY]);
    told.fact("location", status.location.clone());
    told.fact(
        "probed",
        status.last_probe_time.as_ref().map(|t| instant(t.0)),
    );
    told.fact(
        "stored",
        status
            .backups
            .map(|n| format!("{n} backups, {}", bytes(status.bytes))),
    );
    told
}

#[cfg(test)]
mod tests;

//! A drill: the first container restores, the second one asks the server that runs on it.

mod server_log;

use super::{
    Check, DATA_DIR, DRILL_DIR, DRILL_EXITED, DRILL_LOG, DRILL_SETTINGS, DRILL_SOCKET, Plan,
    Report,
    run::{Failed, Pod, Stop, find, source},
    volume,
};
use crate::{logical_restore::Backup, reason::RestoreReason};
use serde::{Deserialize, Serialize};
use std::{fs, io, path::PathBuf, time::Duration};
use towline_agent::{
    archive::{Metadata, Summary, Verified},
    database::{Address, Connection},
    restore::{
        Events, Expected, LogicalOptions, Progress, RestoreError, Restored, Stage, checks,
        drill_server,
        logical::{self, Input, Proven},
    },
};

/// What the first container tells the second one, in [`DRILL_DIR`].
const HAND_OVER: &str = "backup.json";
/// How often the server is asked whether it is up.
const LOOK: Duration = Duration::from_millis(250);
/// Longest wait for an answer to whether it is up.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait for the answer to one question: a large table takes its time to check. The job has a
/// deadline of its own.
const QUESTION: Duration = Duration::from_secs(24 * 3600);
/// How long the exit status of a server that went away may take to be written.
const EXIT: Duration = Duration::from_secs(20);

/// The archive's own account of itself, proven by the first container.
#[derive(Serialize, Deserialize)]
struct HandOver {
    metadata: Metadata,
    summary: Summary,
    bytes: u64,
    /// Of a logical backup: what the second container has to load.
    dump: Option<Dump>,
}

/// What was proven of a dump, as [`Proven`] has it.
#[derive(Clone, Serialize, Deserialize)]
struct Dump {
    plain: Expected,
    databases: Vec<String>,
    has_users: bool,
}

impl HandOver {
    fn of(verified: Verified, bytes: u64, dump: Option<Dump>) -> Self {
        Self {
            metadata: verified.metadata,
            summary: verified.summary,
            bytes,
            dump,
        }
    }
}

/// A drill loads everything but accounts and events: a server without accounts takes neither.
fn everything() -> LogicalOptions {
    LogicalOptions {
        events: Events::Skip,
        ..LogicalOptions::default()
    }
}

pub(super) async fn prepare(
    pod: &Pod,
    plan: &Plan,
    use_memory: Option<u64>,
    progress: &Progress,
    mut stop: Stop<'_>,
    report: &mut Report,
) -> Result<(), Failed> {
    let backup = find(pod, plan, &mut stop).await?;
    restore(pod, &backup, use_memory, progress, stop, report).await
}

/// Restores a physical backup, or proves a logical one, and leaves a note for who asks the server.
pub(super) async fn restore(
    pod: &Pod,
    backup: &Backup,
    use_memory: Option<u64>,
    progress: &Progress,
    stop: Stop<'_>,
    report: &mut Report,
) -> Result<(), Failed> {
    let bytes = backup.manifest.bytes;
    let hand_over = if backup.manifest.method == "physical" {
        let restored =
            volume::into_directory(pod, backup, use_memory, progress, stop, report).await?;
        let Restored {
            metadata, summary, ..
        } = restored;
        HandOver::of(Verified { metadata, summary }, bytes, None)
    } else {
        let options = everything();
        let proven = tokio::select! {
            why = stop => return Err(Failed::interrupted(why)),
            proven = backup.prove(&options, progress) => proven.map_err(|error| match error {
                // Nothing is asked for that it could lack, but anything at all.
                RestoreError::Invalid(why) => Failed::new(
                    RestoreReason::CheckFailed,
                    format!("the backup has no table: {why}"),
                ),
                error => error.into(),
            })?,
        };
        report.bytes = bytes;
        report.position = proven.verified.summary.position.clone();
        let dump = Dump {
            plain: proven.plain,
            databases: proven.databases,
            has_users: proven.has_users,
        };
        HandOver::of(proven.verified, bytes, Some(dump))
    };
    let folder = pod.path(DRILL_DIR);
    let written = drill_server::write_settings(&pod.path(DATA_DIR), &folder.join(DRILL_SETTINGS))
        .and_then(|()| Ok(serde_json::to_vec(&hand_over)?))
        .and_then(|json| fs::write(folder.join(HAND_OVER), json));
    written.map_err(|error| {
        let text = format!("{} cannot be written: {error}", folder.display());
        Failed::new(RestoreReason::PodFailed, text)
    })
}

/// Where the backup is found, where it has to be read once more.
#[derive(Clone, Copy)]
pub(super) enum Reader<'a> {
    /// By a pod's plan.
    Plan(&'a Plan),
    /// It was found already.
    Found(&'a Backup),
}

pub(super) async fn check(
    pod: &Pod,
    reader: Reader<'_>,
    user: &[Check],
    progress: &Progress,
    mut stop: Stop<'_>,
    report: &mut Report,
) -> Result<(), Failed> {
    let drill = Drill::new(pod)?;
    let outcome = drill
        .run(pod, reader, user, progress, &mut stop, report)
        .await;
    // The pod ends only when its server does.
    if let Ok(session) = drill.connection(ANSWER).connect().await {
        session.shut_down().await;
    }
    outcome
}

/// The server of a drill, and what it was made of.
struct Drill {
    folder: PathBuf,
    hand_over: HandOver,
}

impl Drill {
    fn new(pod: &Pod) -> Result<Self, Failed> {
        let folder = pod.path(DRILL_DIR);
        let read =
            fs::read(folder.join(HAND_OVER)).and_then(|json| Ok(serde_json::from_slice(&json)?));
        let hand_over = read.map_err(|error| {
            let text = format!("the drill's first container left no {HAND_OVER}: {error}");
            Failed::new(RestoreReason::PodFailed, text)
        })?;
        Ok(Self { folder, hand_over })
    }

    fn connection(&self, timeout: Duration) -> Connection {
        Connection {
            address: Address::Socket(self.folder.join(DRILL_SOCKET)),
            // It knows no accounts and asks for no password.
            user: "root".to_owned(),
            password_file: None,
            timeout,
        }
    }

    async fn run(
        &self,
        pod: &Pod,
        reader: Reader<'_>,
        user: &[Check],
        progress: &Progress,
        stop: &mut Stop<'_>,
        report: &mut Report,
    ) -> Result<(), Failed> {
        let HandOver {
            summary,
            bytes,
            dump,
            ..
        } = &self.hand_over;
        report.bytes = *bytes;
        report.position = summary.position.clone();
        self.is_up(stop).await?;
        // One without a database is told by the checks.
        if let Some(dump) = dump.as_ref().filter(|dump| !dump.databases.is_empty()) {
            self.load(pod, reader, dump, progress, stop).await?;
        }
        progress.enter(Stage::Checking, 0);
        let connection = self.connection(QUESTION);
        let checked = tokio::select! {
            why = &mut *stop => return Err(Failed::interrupted(why)),
            checked = checks::run(&connection, summary, user) => checked,
        };
        let checked = match checked {
            Ok(checked) => checked,
            Err(RestoreError::Database(message)) => return Err(self.went_away(message).await),
            Err(error) => return Err(error.into()),
        };
        report.tables = checked.tables;
        report.rows = Some(checked.rows);
        let failure = checked.failure();
        report.checks = checked.results;
        match failure {
            None => Ok(()),
            Some(failure) => Err(Failed::new(RestoreReason::CheckFailed, failure)),
        }
    }

    /// Loads what the first container has proven, proving it again.
    async fn load(
        &self,
        pod: &Pod,
        reader: Reader<'_>,
        dump: &Dump,
        progress: &Progress,
        stop: &mut Stop<'_>,
    ) -> Result<(), Failed> {
        let backup = match reader {
            Reader::Plan(plan) => find(pod, plan, stop).await?,
            Reader::Found(backup) => backup.clone(),
        };
        let proven = Proven {
            verified: Verified {
                metadata: self.hand_over.metadata.clone(),
                summary: self.hand_over.summary.clone(),
            },
            plain: dump.plain.clone(),
            databases: dump.databases.clone(),
            has_users: dump.has_users,
        };
        let source = source(&backup);
        let input = Input {
            archive: source.archive,
            identities: source.identities,
            expected: source.expected,
        };
        let (connection, options) = (self.connection(QUESTION), everything());
        let loading = logical::load(input, &proven, &connection, &options, progress, stop);
        match loading.await {
            Ok(_) => Ok(()),
            Err(RestoreError::Database(message)) => Err(self.went_away(message).await),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the server answers, or has ended.
    async fn is_up(&self, stop: &mut Stop<'_>) -> Result<(), Failed> {
        let connection = self.connection(ANSWER);
        loop {
            if let Some(status) = self.exited() {
                return Err(self.judge(&status));
            }
            match connection.connect().await {
                Ok(session) => {
                    session.close().await;
                    return Ok(());
                }
                Err(error) => tracing::debug!(%error, "the drill's server does not answer yet"),
            }
            tokio::select! {
                why = &mut *stop => return Err(Failed::interrupted(why)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Why a server does not answer any more.
    async fn went_away(&self, message: String) -> Failed {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < EXIT {
            if let Some(status) = self.exited() {
                return self.judge(&status);
            }
            tokio::time::sleep(LOOK).await;
        }
        Failed::new(RestoreReason::PodFailed, message)
    }

    /// Its exit status, once it has ended.
    fn exited(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(DRILL_EXITED)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn judge(&self, status: &str) -> Failed {
        let log = match fs::read(self.folder.join(DRILL_LOG)) {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => format!("(its log cannot be read: {error})"),
        };
        server_log::judge(&self.hand_over.metadata, status, &log)
    }
}

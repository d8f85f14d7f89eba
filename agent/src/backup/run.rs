//! One running backup: its tool, its archive, its body, and the verdict.

use super::command::{Prepared, Wanted, asked};
use super::dump::Dump;
use super::gate::Gate;
use super::pipeline::{Archive, CHUNKS, Forward, Pump, Sent, lock_waited_for, widen};
use super::prepare::Plan;
use super::process::{Process, describe};
use super::report::{self, Report};
use super::request::{Compression, Method, StartError, Started};
use super::slot::{Slot, Stop};
use super::stage::Stage;
use super::tables_wanted::tables_waited_for;
use super::{BackupMetrics, EngineConfig};
use crate::archive::{FORMAT_VERSION, Metadata, Position, Summary};
use crate::body::{BackupBody, BodySender, Timings, Verdict};
use crate::database::Tables;
use crate::protocol::StreamReason;
use crate::protocol::info::LastBackup;
use bytes::Bytes;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How long the 200 waits for a tool's first byte: one that fails at once is told as an error. Tools
/// can be quiet for longer.
const FIRST_BYTE: Duration = Duration::from_secs(5);

pub(super) struct Run {
    pub(super) config: EngineConfig,
    metrics: BackupMetrics,
    slot: Slot,
    pub(super) plan: Plan,
    pub(super) begun: Instant,
}

/// Starts the tool and what belongs to it. Returns when the first byte is there, or when it is late.
pub(super) async fn launch(
    config: &EngineConfig,
    metrics: &BackupMetrics,
    slot: Slot,
    mut plan: Plan,
    begun: Instant,
) -> Result<Started, StartError> {
    let wanted = Wanted {
        installed: &plan.installed,
        connection: &config.database,
        password: plan.password.take(),
        server: &plan.server,
        grants: &plan.grants,
        databases: &plan.databases,
        parallel: plan.parallel,
        max_lock: config.max_lock,
        tmp: &config.tmp,
    };
    let prepared = wanted
        .prepare()
        .map_err(|error| StartError::MethodNotAvailable {
            message: format!(
                "the agent cannot write to {}: {error}; give it a writable folder by TMPDIR",
                config.tmp.display()
            ),
        })?;
    let (sender, body) = BackupBody::channel(CHUNKS);
    slot.set_body(body.ended());
    let (mut extension, mut content_type) = match plan.compression {
        Compression::Zstd { .. } => ("tar.zst".to_owned(), "application/zstd"),
        Compression::None => ("tar".to_owned(), "application/x-tar"),
    };
    if !plan.recipients.is_empty() {
        extension.push_str(".age");
        content_type = "application/octet-stream";
    }
    let id = slot.id().to_owned();
    let file_name = format!("{}-{}-{id}.{extension}", plan.server.flavour, plan.method);
    let estimated_bytes = plan.estimated_bytes;
    let (ready, started) = oneshot::channel();
    let run = Run {
        config: config.clone(),
        metrics: metrics.clone(),
        slot,
        plan,
        begun,
    };
    tokio::spawn(run.supervise(prepared, sender, ready));
    let precheck = started.await.unwrap_or_else(|_| {
        Err(StartError::Database {
            message: "the backup ended before it began: see the agent's log".to_owned(),
        })
    })?;
    Ok(Started {
        id,
        file_name,
        content_type,
        estimated_bytes,
        precheck,
        body,
    })
}

/// What the tool left behind.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) report: Report,
    pub(super) dump: Option<(bool, Tables, Position)>,
}

impl Run {
    async fn supervise(
        self,
        prepared: Prepared,
        sender: BodySender,
        ready: oneshot::Sender<Result<Duration, StartError>>,
    ) {
        self.metrics.running.set(1);
        let id = self.slot.id().to_owned();
        let (method, metrics, begun) = (self.plan.method, self.metrics.clone(), self.begun);
        let tool = &self.plan.installed.version;
        let recipients = self.plan.recipients.len();
        // By these a job's lines are found in this log.
        let job = self.slot.job().map(|job| job.uid.clone());
        let attempt = self.slot.job().map(|job| job.attempt);
        tracing::info!(backup = id, job, attempt, %method, tool, recipients, "backup starts");
        let server = &self.plan.server.version;
        if !self.plan.installed.tested_on(server) {
            tracing::warn!(
                backup = id,
                job,
                attempt,
                tool,
                server,
                "the project does not test this tool with such a server: try a restore"
            );
        }
        let BodySender {
            chunks,
            verdict: tell,
        } = sender;
        let verdict = self.run(prepared, chunks, ready).await;
        metrics.running.set(0);
        metrics.lock_buffer.set(0);
        let seconds = begun.elapsed().as_secs_f64();
        match &verdict {
            Verdict::Complete { bytes, .. } => {
                metrics.ended(method.as_str(), None, seconds);
                metrics
                    .last_success
                    .set(jiff::Timestamp::now().as_second() as f64);
                tracing::info!(backup = id, job, attempt, %method, bytes, seconds, "backup is complete");
            }
            Verdict::Failed {
                reason, message, ..
            } => {
                metrics.ended(method.as_str(), Some(*reason), seconds);
                tracing::warn!(backup = id, job, attempt, %method, %reason, message, seconds, "backup failed");
            }
        }
        // The slot is free when the caller learns of the end: it may ask for the next one at once.
        drop(self);
        // The body takes it when its chunks have come to their end; a reader that is gone does not.
        let _ = tell.send(verdict);
    }

    async fn run(
        &self,
        Prepared { command, folder }: Prepared,
        body: mpsc::Sender<Bytes>,
        ready: oneshot::Sender<Result<Duration, StartError>>,
    ) -> Verdict {
        let mut timings = Timings::default();
        let mut process = match Process::start(command) {
            Ok(process) => process,
            Err(error) => {
                let name = self.plan.installed.tool.name();
                let message = format!("{name} cannot be started: {error}");
                let _ = ready.send(Err(StartError::MethodNotAvailable {
                    message: message.clone(),
                }));
                return Verdict::Failed {
                    reason: StreamReason::ToolFailed,
                    message,
                    timings,
                };
            }
        };
        timings.precheck = self.begun.elapsed();
        let stage = self.slot.stage();
        stage.send_replace(Stage::named("copy"));
        let (queue, queued) = mpsc::unbounded_channel();
        let (out, chunks) = mpsc::channel(CHUNKS);
        let (summary, summary_comes) = oneshot::channel();
        let gate = Arc::new(Gate::default());
        let archive = Archive {
            queue: queued,
            gate: Arc::clone(&gate),
            metadata: self.metadata(),
            extension: self.plan.installed.tool.extension(),
            level: match self.plan.compression {
                Compression::Zstd { level } => Some(level),
                Compression::None => None,
            },
            recipients: self.plan.recipients.clone(),
            summary: summary_comes,
            out,
        };
        let archive = tokio::task::spawn_blocking(move || archive.run());
        let forward = Forward {
            chunks,
            body,
            max_rate: self.plan.max_rate,
            stage: stage.subscribe(),
            stall_timeout: self.config.stall_timeout,
            stopper: self.slot.stopper(),
            metrics: self.metrics.clone(),
        };
        let mut forward = tokio::spawn(forward.run());
        let users = queue.clone();
        let pump = Pump {
            queue,
            gate: Arc::clone(&gate),
            stage: stage.subscribe(),
            lock_buffer: self.config.lock_buffer,
            max_lock: self.config.max_lock,
            metrics: self.metrics.clone(),
        };

        let ended = self.tool(&mut process, pump, ready, &mut timings).await;
        // The folder holds the password.
        drop(folder);
        let finishing = Instant::now();
        let lock = stage.borrow().lock_time(finishing);
        timings.lock = lock;
        if self.plan.method == Method::Physical {
            self.metrics.lock_duration.observe(lock.as_secs_f64());
            self.metrics.last_lock.set(lock.as_secs_f64());
        }
        stage.send_modify(|stage| stage.name = "finish");
        let complete = match ended {
            Ok(ended) => self.judge(ended).await,
            Err(stop) => Err(stop),
        };
        let complete = match complete {
            Ok(complete) => self.add_users(complete, &users, &gate).await,
            Err(stop) => Err(stop),
        };
        // The archive thread waits for its end.
        drop(users);
        let outcome = match complete {
            Err(stop) => {
                // What is still queued is worth nothing now, and a slow reader or a low rate would
                // keep the verdict behind it.
                forward.abort();
                Err(stop)
            }
            Ok(complete) => {
                let last = self.last(&complete);
                // The archive thread waits for it; if it is gone, its result says why.
                let _ = summary.send(complete);
                let sent = tokio::select! {
                    // Where both are there, the forwarder ended for what it asked the stop for.
                    biased;
                    stop = self.slot.stopped() => Err(stop),
                    sent = &mut forward => Ok(sent.ok().flatten()),
                };
                match sent {
                    Err(stop) => {
                        forward.abort();
                        Err(stop)
                    }
                    Ok(sent) => written(archive.await, sent).map(|sent| (sent, last)),
                }
            }
        };
        timings.finish = finishing.elapsed();
        match outcome {
            Ok((Sent { sha256, bytes }, last)) => {
                self.slot.complete(last);
                Verdict::Complete {
                    sha256,
                    bytes,
                    timings,
                }
            }
            Err(Stop { reason, message }) => Verdict::Failed {
                reason,
                message,
                timings,
            },
        }
    }

    /// Resolves when somebody asked for the end.
    pub(super) async fn stopped(&self) -> Stop {
        self.slot.stopped().await
    }

    /// Runs the tool to its end, or ends it. It is reaped when this returns.
    async fn tool(
        &self,
        process: &mut Process,
        pump: Pump,
        ready: oneshot::Sender<Result<Duration, StartError>>,
        timings: &mut Timings,
    ) -> Result<Ended, Stop> {
        let internal = |what: &str| {
            Stop::new(
                StreamReason::Internal,
                format!("the tool's {what} is not there"),
            )
        };
        let stdout = process
            .child
            .stdout
            .take()
            .ok_or_else(|| internal("stdout"))?;
        widen(&stdout);
        let stderr = process
            .child
            .stderr
            .take()
            .ok_or_else(|| internal("stderr"))?;
        let report = tokio::spawn(report::read(
            stderr,
            self.slot.stage().clone(),
            self.metrics.clone(),
        ));
        let started = Instant::now();
        let precheck = timings.precheck;
        let mut first_byte = None;
        let (saw_first, first_seen) = oneshot::channel();
        let mut saw_first = Some(saw_first);
        let mut dump = (self.plan.method == Method::Logical).then(|| {
            Dump::new(asked(
                &self.plan.installed,
                &self.plan.server,
                &self.plan.grants,
            ))
        });
        let look = |data: &[u8]| {
            if let Some(saw) = saw_first.take() {
                first_byte = Some(Instant::now());
                let _ = saw.send(());
            }
            if let Some(dump) = &mut dump {
                dump.data(data);
            }
        };
        let mut ready = Some(ready);
        let pumped = {
            let gate = Arc::clone(&pump.gate);
            let pumping = pump.run(stdout, look);
            let waited = lock_waited_for(self.slot.stage().subscribe(), self.config.max_lock);
            let wanted = async {
                match self.plan.method {
                    Method::Logical => {
                        tables_waited_for(&self.config.database, gate, self.config.max_lock).await
                    }
                    // Its stages tell of its locks.
                    Method::Physical => std::future::pending().await,
                }
            };
            let first = async {
                let _ = tokio::time::timeout(FIRST_BYTE, first_seen).await;
            };
            tokio::pin!(pumping, waited, wanted, first);
            loop {
                tokio::select! {
                    biased;
                    stop = self.slot.stopped() => break Err(stop),
                    pumped = &mut pumping => break pumped,
                    stop = &mut waited => break Err(stop),
                    stop = &mut wanted => break Err(stop),
                    () = &mut first, if ready.is_some() => {
                        if let Some(ready) = ready.take() {
                            let _ = ready.send(Ok(precheck));
                        }
                    }
                }
            }
        };
        let output_ended = Instant::now();
        timings.first_byte = first_byte.map_or(Duration::ZERO, |at| at - started);
        timings.copy = first_byte.map_or(Duration::ZERO, |at| output_ended - at);
        let status = match pumped {
            Ok(()) => tokio::select! {
                status = process.child.wait() => Ok(status),
                stop = self.slot.stopped() => Err(stop),
            },
            Err(stop) => Err(stop),
        };
        let status = match status {
            Ok(status) => status,
            Err(stop) => {
                if let Err(error) = process.end().await {
                    tracing::error!(%error, "the tool cannot be waited for");
                }
                if let Some(ready) = ready.take() {
                    // The trailers say why, with a word that the caller acts on.
                    let _ = ready.send(Ok(precheck));
                }
                let report = report::finished(report).await;
                // Who asked for the end comes before what broke because of it.
                let asked = self.slot.asked().unwrap_or(stop);
                return Err(Stop::new(asked.reason, report.told(&asked.message)));
            }
        };
        let status = status.map_err(|error| {
            Stop::new(
                StreamReason::Internal,
                format!("the tool cannot be waited for: {error}"),
            )
        })?;
        let report = report::finished(report).await;
        if let Some(ready) = ready.take() {
            // Not one byte: nothing was sent yet, so it can be said plainly.
            if first_byte.is_some() {
                let _ = ready.send(Ok(precheck));
            } else {
                let name = self.plan.installed.tool.name();
                let message = report.told(&format!("{name} gave nothing ({})", describe(status)));
                let _ = ready.send(Err(StartError::Database { message }));
            }
        }
        Ok(Ended {
            status,
            report,
            dump: dump.map(Dump::finish),
        })
    }

    fn metadata(&self) -> Metadata {
        let Plan {
            server,
            installed,
            method,
            ..
        } = &self.plan;
        Metadata {
            format_version: FORMAT_VERSION,
            backup_id: self.slot.id().to_owned(),
            server_flavour: server.flavour.as_str().to_owned(),
            server_version: server.version.clone(),
            server_uuid: server.uuid.clone(),
            method: method.as_str().to_owned(),
            tool: installed.tool.name().to_owned(),
            tool_version: installed.version.clone(),
            start_time: self.slot.start_time(),
        }
    }

    fn last(&self, summary: &Summary) -> LastBackup {
        LastBackup {
            id: self.slot.id().to_owned(),
            end_time: Some(summary.end_time),
            method: self.plan.method.to_string(),
            position: summary.position.clone(),
        }
    }
}

fn written(
    archive: Result<std::io::Result<bool>, tokio::task::JoinError>,
    sent: Option<Sent>,
) -> Result<Sent, Stop> {
    let internal = |message: String| Err(Stop::new(StreamReason::Internal, message));
    match (archive, sent) {
        (Ok(Ok(true)), Some(sent)) => Ok(sent),
        (Ok(Ok(_)), _) => internal("the archive was not handed on whole".to_owned()),
        (Ok(Err(error)), _) => internal(format!("the archive could not be written: {error}")),
        (Err(error), _) => internal(format!("the archive's thread ended: {error}")),
    }
}

//! One running backup: its tool, its archive, its body, and the verdict.

use super::command::{Prepared, Wanted};
use super::dump::{self, Dump};
use super::pipeline::{Archive, CHUNKS, Forward, Gate, Pump, Sent, lock_waited_for};
use super::prepare::{Plan, of_backup};
use super::process::{Process, describe};
use super::request::{Compression, LastBackup, Method, StartError, Started};
use super::slot::{Slot, Stop};
use super::stage::{Log, Stage};
use super::{BackupMetrics, EngineConfig};
use crate::archive::{FORMAT_VERSION, Metadata, Position, Summary};
use crate::body::{BackupBody, BodySender, Timings, Verdict};
use crate::database::{DatabaseError, Tables};
use crate::protocol::StreamReason;
use std::collections::VecDeque;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::{mpsc, oneshot, watch};

/// How long the 200 waits for a tool's first byte: one that fails at once is told as an error. Tools
/// can be quiet for longer.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// How long stderr may outlive the tool: something that it started may hold it open.
const STDERR: Duration = Duration::from_secs(5);
/// Bytes of stderr that are kept for a message, the last ones.
const TAIL: usize = 3000;
/// Longest line of stderr that is looked at.
const LINE: usize = 8 << 10;

struct Run {
    config: EngineConfig,
    metrics: BackupMetrics,
    slot: Slot,
    plan: Plan,
    begun: Instant,
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
    let (extension, content_type) = match plan.compression {
        Compression::Zstd { .. } => ("tar.zst", "application/zstd"),
        Compression::None => ("tar", "application/x-tar"),
    };
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
struct Ended {
    status: ExitStatus,
    report: Report,
    dump: Option<(bool, Tables, Position)>,
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
        tracing::info!(backup = id, %method, tool = self.plan.installed.version, "backup starts");
        let verdict = self.run(prepared, sender, ready).await;
        metrics.running.set(0);
        let seconds = begun.elapsed().as_secs_f64();
        match &verdict {
            Verdict::Complete { bytes, .. } => {
                metrics.ended(method.as_str(), None, seconds);
                metrics
                    .last_success
                    .set(jiff::Timestamp::now().as_second() as f64);
                tracing::info!(backup = id, %method, bytes, seconds, "backup is complete");
            }
            Verdict::Failed {
                reason, message, ..
            } => {
                metrics.ended(method.as_str(), Some(*reason), seconds);
                tracing::warn!(backup = id, %method, %reason, message, seconds, "backup failed");
            }
        }
    }

    async fn run(
        self,
        Prepared { command, folder }: Prepared,
        sender: BodySender,
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
            summary: summary_comes,
            out,
        };
        let archive = tokio::task::spawn_blocking(move || archive.run());
        let forward = Forward {
            chunks,
            body: sender.chunks,
            max_rate: self.plan.max_rate,
            stage: stage.subscribe(),
            stall_timeout: self.config.stall_timeout,
            stopper: self.slot.stopper(),
            metrics: self.metrics.clone(),
        };
        let mut forward = tokio::spawn(forward.run());
        let pump = Pump {
            queue,
            gate,
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
        }
        stage.send_modify(|stage| stage.name = "finish");
        let complete = match ended {
            Ok(ended) => self.judge(ended).await,
            Err(stop) => Err(stop),
        };
        let outcome = match complete {
            Err(stop) => Err(stop),
            Ok(complete) => {
                let last = self.last(&complete);
                // The archive thread waits for it; if it is gone, its result says why.
                let _ = summary.send(complete);
                let sent = tokio::select! {
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
        let verdict = match outcome {
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
        };
        // The body takes it when its chunks have come to their end; a reader that is gone does not.
        let _ = sender.verdict.send(verdict.clone());
        verdict
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
        let stderr = process
            .child
            .stderr
            .take()
            .ok_or_else(|| internal("stderr"))?;
        let report = tokio::spawn(read_report(
            stderr,
            self.slot.stage().clone(),
            self.metrics.clone(),
        ));
        let started = Instant::now();
        let precheck = timings.precheck;
        let mut first_byte = None;
        let (saw_first, first_seen) = oneshot::channel();
        let mut saw_first = Some(saw_first);
        let mut dump = (self.plan.method == Method::Logical).then(Dump::default);
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
            let pumping = pump.run(stdout, look);
            let waited = lock_waited_for(self.slot.stage().subscribe(), self.config.max_lock);
            let first = async {
                let _ = tokio::time::timeout(FIRST_BYTE, first_seen).await;
            };
            tokio::pin!(pumping, waited, first);
            loop {
                tokio::select! {
                    biased;
                    stop = self.slot.stopped() => break Err(stop),
                    pumped = &mut pumping => break pumped,
                    stop = &mut waited => break Err(stop),
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
                let report = stderr_report(report).await;
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
        let report = stderr_report(report).await;
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

    /// Whether what the tool left is a complete backup.
    async fn judge(&self, ended: Ended) -> Result<Summary, Stop> {
        let Ended {
            status,
            report,
            dump,
        } = ended;
        let name = self.plan.installed.tool.name();
        if !status.success() {
            let message = report.told(&format!("{name} failed ({})", describe(status)));
            return Err(Stop::new(self.blame().await, message));
        }
        let incomplete = |what: String| Stop::new(StreamReason::ToolIncomplete, report.told(&what));
        let (completed, found, position) = match dump {
            Some((completed, found, position)) => (completed, Some(found), position),
            None => (report.log.completed, None, report.log.position.clone()),
        };
        if !completed {
            return Err(incomplete(format!(
                "{name} ended with success, but never said that it was complete"
            )));
        }
        if found.is_some() && report.has_error() {
            return Err(incomplete(format!(
                "{name} ended with success, but reported an error"
            )));
        }
        let now = self.tables_now().await.map_err(|error| {
            Stop::new(
                StreamReason::DatabaseLost,
                format!("the tables cannot be compared after the backup: {error}"),
            )
        })?;
        let before = &self.plan.tables;
        let schemas = match found {
            Some(found) => {
                let gone = dump::missing(before, &found);
                if !gone.is_empty() {
                    return Err(incomplete(format!(
                        "not in the dump, for they were dropped or renamed meanwhile: {}",
                        gone.join(", ")
                    )));
                }
                let new = dump::missing(&now, before);
                if !new.is_empty() {
                    return Err(incomplete(format!(
                        "created or renamed during the dump: {}",
                        new.join(", ")
                    )));
                }
                let gone = dump::missing(before, &now);
                if !gone.is_empty() {
                    return Err(incomplete(format!(
                        "dropped or renamed during the dump: {}",
                        gone.join(", ")
                    )));
                }
                now
            }
            // A physical backup follows DDL. What was there before and after is in it.
            None => both(before, &now),
        };
        Ok(Summary {
            end_time: jiff::Timestamp::now(),
            data_members: 0,
            data_bytes: 0,
            tool_exit_status: status.code().unwrap_or(0),
            completion_line_seen: true,
            position,
            schemas: schemas
                .into_iter()
                .map(|(schema, tables)| (schema, tables.into_iter().collect()))
                .collect(),
            parent: None,
            from_lsn: None,
        })
    }

    async fn tables_now(&self) -> Result<Tables, DatabaseError> {
        let mut session = self.config.database.connect().await?;
        let tables = session.tables().await;
        session.close().await;
        tables.map(|tables| of_backup(tables, &self.plan.databases))
    }

    /// A tool that failed: was it the tool, or did the server go away or start anew?
    async fn blame(&self) -> StreamReason {
        let Ok(mut session) = self.config.database.connect().await else {
            return StreamReason::DatabaseLost;
        };
        let uptime = session.uptime().await;
        session.close().await;
        match uptime {
            Ok(uptime) if uptime >= self.begun.elapsed() => StreamReason::ToolFailed,
            _ => StreamReason::DatabaseLost,
        }
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
            end_time: summary.end_time,
            method: self.plan.method,
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

fn both(a: &Tables, b: &Tables) -> Tables {
    a.iter()
        .filter_map(|(schema, tables)| {
            let others = b.get(schema)?;
            Some((
                schema.clone(),
                tables.intersection(others).cloned().collect(),
            ))
        })
        .collect()
}

/// What stderr said.
#[derive(Debug, Default)]
struct Report {
    log: Log,
    tail: VecDeque<String>,
    error_seen: bool,
}

impl Report {
    /// A message with the last lines of stderr.
    fn told(&self, message: &str) -> String {
        if self.tail.is_empty() {
            return message.to_owned();
        }
        let lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        format!("{message}; the tool's last words:\n{}", lines.join("\n"))
    }

    /// Dump tools may print an error and go on.
    fn has_error(&self) -> bool {
        self.error_seen
    }

    fn line(&mut self, line: &str) {
        self.log.line(line);
        if line.trim().is_empty() {
            return;
        }
        let lower = line.to_ascii_lowercase();
        self.error_seen |= ["dump: error", "dump: got error", "dump: couldn't"]
            .iter()
            .any(|e| lower.contains(e));
        self.tail.push_back(line.trim_end().to_owned());
        while self.tail.iter().map(String::len).sum::<usize>() > TAIL && self.tail.len() > 1 {
            self.tail.pop_front();
        }
    }
}

async fn stderr_report(mut task: tokio::task::JoinHandle<Report>) -> Report {
    match tokio::time::timeout(STDERR, &mut task).await {
        Ok(report) => report.unwrap_or_default(),
        Err(_) => {
            task.abort();
            Report::default()
        }
    }
}

async fn read_report(
    stderr: impl AsyncRead + Unpin,
    stage: watch::Sender<Stage>,
    metrics: BackupMetrics,
) -> Report {
    let mut report = Report::default();
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    let mut entered = Instant::now();
    metrics.stage_duration.reset();
    loop {
        let buffer = match stderr.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(buffer) => buffer,
        };
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&piece[..piece.len().min(LINE - line.len())]);
        let used = piece.len() + usize::from(end.is_some());
        stderr.consume(used);
        if end.is_none() {
            continue;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        tracing::debug!(line = text, "tool");
        report.line(&text);
        let now = Instant::now();
        let before = *stage.borrow();
        if let Some(next) = before.after(&text, now) {
            if next.name != before.name {
                metrics
                    .stage_duration
                    .with_label_values(&[before.name])
                    .set((now - entered).as_secs_f64());
                entered = now;
            }
            stage.send_replace(next);
        }
    }
    if !line.is_empty() {
        report.line(&String::from_utf8_lossy(&line));
    }
    let last = stage.borrow().name;
    metrics
        .stage_duration
        .with_label_values(&[last])
        .set(entered.elapsed().as_secs_f64());
    report
}

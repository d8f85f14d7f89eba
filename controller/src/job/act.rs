//! The steps of a job that reach beyond its object: agent, store, transfer.

use super::{
    Subject, plan,
    record::Next,
    source::{self, NotChosen},
    transfers::NoSlot,
};
use crate::{
    agent_client::{Claim, trace::Trace},
    api::{
        ANNOTATION_SCHEDULED_AT, BackupJobSpec, conditions,
        job::{CompressionType, PROGRESSING},
        store::READY,
    },
    catalog::{JobIdentity, Manifest},
    error::Error,
    reason::{FailureReason, Retry},
    storage::Store,
    transfer::{BackupParameters, Success, Timings, Transfer},
};
use kube::{ResourceExt, runtime::controller::Action};
use std::{sync::Arc, time::Duration};

/// How often a job looks for a store that is not Ready. No request is made for it.
const STORE_POLL: Duration = Duration::from_secs(3);
/// Reason of the condition Progressing of a job that stands in line.
const QUEUED: &str = "Queued";
/// When a job that stands in line looks at its store and its deadline again.
const QUEUE_POLL: Duration = Duration::from_secs(60);
/// How long a success waits until leftovers of earlier attempts are taken away.
const CLEANING_PATIENCE: Duration = Duration::from_secs(20);

impl Subject<'_> {
    /// Chooses store and agent, claims the next attempt, starts its transfer.
    pub(super) async fn start(&mut self) -> Result<Action, Error> {
        if let Err(message) = self.store_is_ready().await {
            return self.wait_for_store(&message).await;
        }
        let schedule = super::schedule_of(&self.job).map(|o| o.name.clone());
        let slot = match self.context.transfers.reserve(
            &self.uid,
            &self.reference,
            schedule.as_deref(),
            &self.context.wake,
        ) {
            Ok(slot) => slot,
            Err(NoSlot::Closed) => return Ok(Action::await_change()),
            Err(NoSlot::Full { ahead, news }) => return self.wait_in_line(ahead, news).await,
        };
        // Both ask the API server, and neither needs the other's answer.
        let (opened, chosen) = futures::join!(
            self.open_store(),
            source::choose(
                self.context,
                &self.namespace,
                &self.uid,
                self.job.spec.source.as_ref()
            )
        );
        let (store, identity) = match opened? {
            Ok(opened) => opened,
            Err(message) => return self.wait_for_store(&message).await,
        };
        let agent = match chosen {
            Ok(agent) => agent,
            Err(NotChosen::Error(error)) => return Err(error),
            Err(NotChosen::Failed(failure)) => {
                let next = self
                    .change(|record| record.fail_unclaimed(&failure))
                    .await?;
                self.tell_failed(failure.reason, &failure.message, next)
                    .await;
                return Ok(Action::requeue(Duration::from_millis(100)));
            }
        };

        // From here on this attempt is ours, or somebody else's and we stop.
        let url = agent
            .endpoint
            .base
            .as_str()
            .trim_end_matches('/')
            .to_owned();
        let attempt = self
            .change(|record| record.claim(&url, agent.pod.as_deref(), agent.role.as_deref()))
            .await?;
        let transfer = Transfer {
            job: identity,
            attempt,
            agent: agent.endpoint,
            parameters: parameters(&self.job.spec),
            store,
            stall_timeout: Duration::from_secs(u64::from(self.job.spec.stall_timeout_seconds)),
            trace: Trace::none(),
        };
        self.context.transfers.start(
            slot,
            &self.uid,
            &self.reference,
            &self.context.wake,
            transfer,
        );
        let mut from = agent.pod.unwrap_or(url);
        if let Some(role) = agent.role {
            from.push_str(&format!(" ({role})"));
        }
        if !agent.passed_over.is_empty() {
            let others = source::some_of(&agent.passed_over);
            from.push_str(&format!("; passed over: {others}"));
        }
        tracing::info!(
            namespace = self.namespace,
            name = self.name,
            attempt,
            request_id = Claim {
                job_uid: &self.uid,
                attempt
            }
            .request_id(),
            from,
            "attempt started"
        );
        self.context
            .report
            .normal(
                &self.object(),
                "Started",
                "Transfer",
                &format!("attempt {attempt} reads from {from}"),
            )
            .await;
        Ok(Action::requeue(super::REPORT_EVERY))
    }

    /// The store cannot be used at the moment.
    pub(super) async fn wait_for_store(&mut self, message: &str) -> Result<Action, Error> {
        self.context.transfers.leave(&self.uid);
        let reason = FailureReason::StoreNotReady;
        let told = self.status().reason == Some(reason);
        self.change(|record| record.wait(Some(reason), reason.as_str(), message))
            .await?;
        if !told {
            self.context
                .report
                .warning(&self.object(), reason.as_str(), "Wait", message)
                .await;
        }
        Ok(Action::requeue(STORE_POLL))
    }

    /// All transfers run. The message is not written each time that the line moves.
    async fn wait_in_line(&mut self, ahead: usize, news: bool) -> Result<Action, Error> {
        let status = self.status();
        let told = conditions::get(&status.conditions, PROGRESSING)
            .is_some_and(|progressing| progressing.reason == QUEUED);
        if news || !told {
            let message = format!(
                "waiting for one of the {} transfers at once (--max-transfers); jobs ahead of it: {ahead} at last count",
                self.context.config.max_transfers
            );
            self.change(|record| record.wait(None, QUEUED, &message))
                .await?;
        }
        let poll = self.now.checked_add(QUEUE_POLL).unwrap_or(self.now);
        let deadline = plan::deadline(&self.job.spec, &self.status());
        Ok(self.at(deadline.map_or(poll, |end| end.min(poll))))
    }

    /// Writes what became of the transfer that ended here.
    pub(super) async fn record_ended(&mut self) -> Result<Action, Error> {
        let Some(ended) = self.context.transfers.ended(&self.uid) else {
            return Ok(Action::await_change());
        };
        let ours = self
            .status()
            .attempts
            .last()
            .is_some_and(|a| a.number == ended.attempt && a.end.is_none());
        if !ours {
            self.context.transfers.forget(&self.uid);
            return Ok(Action::requeue(Duration::from_millis(100)));
        }
        match ended.result {
            Ok(Success { manifest, timings }) => self.succeed(&manifest, Some(&timings)).await,
            Err(mut failure) => {
                if failure.reason == FailureReason::Interrupted
                    && let Some(reason) = ended.stopped_by
                {
                    (failure.reason, failure.retry, failure.message) = self.stopped(reason);
                }
                let next = self.change(|record| record.fail(&failure)).await?;
                self.context.transfers.forget(&self.uid);
                self.tell_failed(failure.reason, &failure.message, next)
                    .await;
                Ok(Action::requeue(Duration::from_millis(100)))
            }
        }
    }

    /// What a cancelled attempt is called.
    fn stopped(&self, reason: FailureReason) -> (FailureReason, Retry, String) {
        let message = match reason {
            FailureReason::Cancelled => "spec.cancel was set".to_owned(),
            FailureReason::DeadlineExceeded => {
                format!(
                    "activeDeadlineSeconds ({}) are over: raise it if backups may take longer",
                    self.job.spec.active_deadline_seconds
                )
            }
            _ => {
                return (
                    FailureReason::Interrupted,
                    Retry::NotCounted,
                    "the controller was stopped".to_owned(),
                );
            }
        };
        (reason, Retry::Never, message)
    }

    pub(super) async fn succeed(
        &mut self,
        manifest: &Manifest,
        timings: Option<&Timings>,
    ) -> Result<Action, Error> {
        if self.status().attempt > 1 {
            let cleaned = match self.open_store().await? {
                Ok((store, identity)) => {
                    self.clean_all(&store, &identity, Some(manifest.attempt), CLEANING_PATIENCE)
                        .await
                }
                Err(problem) => Err(problem),
            };
            if let Err(problem) = cleaned {
                tracing::warn!(
                    namespace = self.namespace,
                    name = self.name,
                    problem,
                    "leftovers of earlier attempts stay"
                );
            }
        }
        // The manifest lies beside the folders of the attempts.
        let first = manifest.objects.first().map_or("", |o| o.key.as_str());
        let folder = first.rsplitn(3, '/').nth(2).unwrap_or_default();
        let key = format!("{folder}/manifest.json");
        self.change(|record| record.succeed(manifest, key, timings))
            .await?;
        self.context.transfers.forget(&self.uid);
        self.count_attempt(None);
        self.count_end();
        let store = self.job.spec.store_name();
        self.context.upkeep.wake(&self.namespace, store);
        if let Some(timings) = timings {
            self.context.metrics.transfer_timings(timings);
            self.observe_start_delay(manifest, timings);
        }
        let size = super::record::human_bytes(manifest.bytes);
        tracing::info!(
            namespace = self.namespace,
            name = self.name,
            attempt = manifest.attempt,
            bytes = manifest.bytes,
            "job succeeded"
        );
        self.context
            .report
            .normal(
                &self.object(),
                "Succeeded",
                "Complete",
                &format!("{size} in attempt {}", manifest.attempt),
            )
            .await;
        Ok(Action::requeue(Duration::from_millis(100)))
    }

    fn observe_start_delay(&self, manifest: &Manifest, timings: &Timings) {
        let due = self
            .job
            .annotations()
            .get(ANNOTATION_SCHEDULED_AT)
            .and_then(|t| t.parse::<jiff::Timestamp>().ok());
        let (Some(due), Some(first_byte)) = (due, timings.first_byte) else {
            return;
        };
        if let Ok(until_start) = Duration::try_from(manifest.start_time.duration_since(due)) {
            self.context
                .metrics
                .start_delay(until_start + Duration::from_secs_f64(first_byte.max(0.0)));
        }
    }

    pub(super) async fn tell_failed(&self, reason: FailureReason, message: &str, next: Next) {
        self.count_attempt(Some(reason));
        let attempt = self.status().attempt;
        tracing::warn!(namespace = self.namespace, name = self.name, attempt, %reason, detail = message, "attempt failed");
        if let Next::Retry(at) = next {
            let wait = super::record::human_duration(at.duration_since(self.now));
            let note = format!("attempt {attempt} failed: {message} (next attempt in {wait})");
            self.context
                .report
                .warning(&self.object(), reason.as_str(), "Retry", &note)
                .await;
        }
    }

    /// Whether the store can be used, as far as its condition tells; else what the job waits for.
    pub(super) async fn store_is_ready(&self) -> Result<(), String> {
        // The cache is filled before the first job is judged by it.
        self.context.stores.filled().await;
        let name = self.job.spec.store_name();
        let Some(Ok(store)) = self.context.store(&self.namespace, name) else {
            // Opening it says what is wrong.
            return Ok(());
        };
        let conditions = store
            .status
            .as_ref()
            .map(|s| s.conditions.as_slice())
            .unwrap_or_default();
        if conditions::is_true(conditions, READY) {
            return Ok(());
        }
        let why = conditions::get(conditions, READY)
            .map_or("it has not been probed yet".to_owned(), |c| {
                format!("{}: {}", c.reason, c.message)
            });
        Err(format!("BackupStore {name} is not Ready: {why}"))
    }

    /// The store, Ready or not; else why it cannot be opened.
    pub(super) async fn open_store(
        &self,
    ) -> Result<Result<(Arc<Store>, JobIdentity), String>, Error> {
        let name = self.job.spec.store_name();
        let store = match self.context.store(&self.namespace, name) {
            None => {
                return Ok(Err(format!(
                    "BackupStore {name} does not exist in namespace {}: create it",
                    self.namespace
                )));
            }
            Some(Err(error)) => {
                return Ok(Err(format!("BackupStore {name} is malformed: {error}")));
            }
            Some(Ok(store)) => store,
        };
        let identity = self.identity(store.uid())?;
        Ok(match crate::store::open(self.context, &store).await {
            Ok(opened) => Ok((opened, identity)),
            Err(error) => Err(format!("BackupStore {name}: {error}")),
        })
    }
}

/// What the agent is asked for.
fn parameters(spec: &BackupJobSpec) -> BackupParameters {
    BackupParameters {
        method: spec.method.map(|m| m.as_str().to_owned()),
        compression: spec.compression.map(|c| c.type_.as_str().to_owned()),
        level: spec
            .compression
            .filter(|c| c.type_ == CompressionType::Zstd)
            .and_then(|c| c.level),
        parallel: spec.parallel,
        databases: spec.databases.clone().unwrap_or_default(),
        recipients: spec
            .encryption
            .as_ref()
            .map(|e| e.recipients.clone())
            .unwrap_or_default(),
        max_rate: spec.max_bytes_per_second,
    }
}

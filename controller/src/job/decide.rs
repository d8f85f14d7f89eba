//! The steps of a job that ask the store what stands: after a crash, and before the job may fail.

use super::Subject;
use crate::{
    api::{BackupJobStatus, conditions, job::FAILURE_TARGET},
    catalog::{self, JobIdentity, Outcome},
    context::STORE_PATIENCE,
    error::Error,
    reason::{FailureReason, Retry, StoreReason},
    storage::{Store, StoreError},
    transfer::Failure,
};
use futures::{StreamExt as _, stream};
use jiff::SignedDuration;
use kube::runtime::controller::Action;
use std::{future::Future, time::Duration};

/// How long a job's end waits for its leftovers to be taken away.
const CLEANING_PATIENCE: SignedDuration = SignedDuration::from_mins(10);

impl Subject<'_> {
    /// An attempt was claimed by a process that is gone. The manifest says whether it got through;
    /// else its uploads are aborted and the next attempt follows.
    pub(super) async fn recover(&mut self) -> Result<Action, Error> {
        let attempt = self.status().attempt;
        let (store, identity) = match self.open_store().await? {
            Ok(opened) => opened,
            Err(message) => return self.undecided(&message).await,
        };
        match patiently(catalog::read_decision(&store, &identity)).await {
            Ok(Some(manifest)) if manifest.outcome == Outcome::Complete => {
                return self.succeed(&manifest, None).await;
            }
            Ok(_) => {}
            Err(error) => return self.undecided(&error.message).await,
        }
        if let Err(error) = patiently(catalog::clean_attempt(&store, &identity, attempt)).await {
            return self.undecided(&error.message).await;
        }
        let failure = Failure {
            reason: FailureReason::Interrupted,
            message: format!(
                "the controller was stopped during attempt {attempt}; what it had uploaded was aborted"
            ),
            retry: Retry::NotCounted,
            retry_after: None,
            bytes: 0,
            // A zombie of the process may still complete it.
            complete_tried: true,
        };
        let next = self.change(|record| record.fail(&failure)).await?;
        self.tell_failed(failure.reason, &failure.message, next)
            .await;
        Ok(Action::requeue(Duration::from_millis(10)))
    }

    /// Ends the job without a backup, unless the store says that there is one.
    pub(super) async fn conclude(
        &mut self,
        reason: FailureReason,
        message: &str,
    ) -> Result<Action, Error> {
        let status = self.status();
        if status.attempts.iter().any(|a| a.agent.is_some()) {
            match self.open_store().await? {
                Ok((store, identity)) => {
                    if status.complete_tried {
                        match patiently(catalog::abandon(
                            &store,
                            &identity,
                            status.attempt,
                            self.now,
                        ))
                        .await
                        {
                            Ok(manifest) if manifest.outcome == Outcome::Complete => {
                                return self.succeed(&manifest, None).await;
                            }
                            Ok(_) => {}
                            Err(error) => {
                                return self.wait_to_fail(reason, message, &error.message).await;
                            }
                        }
                    }
                    let cleaned = self
                        .clean_all(&store, &identity, None, STORE_PATIENCE)
                        .await;
                    if let Err(problem) = cleaned
                        && self.still_cleans(&status)
                    {
                        return self.wait_to_fail(reason, message, &problem).await;
                    }
                }
                Err(problem) if status.complete_tried => {
                    return self.wait_to_fail(reason, message, &problem).await;
                }
                Err(problem) => {
                    tracing::warn!(
                        namespace = self.namespace,
                        name = self.name,
                        problem,
                        "leftovers of failed attempts could not be looked for"
                    );
                }
            }
        }
        self.change(|record| record.conclude(reason, message))
            .await?;
        self.context.transfers.forget(&self.uid);
        self.count_end();
        tracing::warn!(namespace = self.namespace, name = self.name, %reason, detail = message, "job failed");
        let phase = self.status().phase;
        self.context
            .report
            .warning(&self.object(), reason.as_str(), phase.as_str(), message)
            .await;
        Ok(Action::requeue(Duration::from_millis(100)))
    }

    /// The store does not answer, and without its answer nothing may be decided.
    pub(super) async fn undecided(&mut self, problem: &str) -> Result<Action, Error> {
        tracing::warn!(
            namespace = self.namespace,
            name = self.name,
            problem,
            "the store cannot be asked about an attempt"
        );
        let told = self.status().reason == Some(FailureReason::StoreError);
        self.change(|record| record.undecided(problem)).await?;
        if !told {
            let note =
                format!("the store cannot be asked what became of the last attempt: {problem}");
            self.context
                .report
                .warning(
                    &self.object(),
                    FailureReason::StoreError.as_str(),
                    "Decide",
                    &note,
                )
                .await;
        }
        Ok(Action::requeue(Duration::from_secs(1)))
    }

    /// Whether the job's end still waits for its leftovers to be taken away.
    fn still_cleans(&self, status: &BackupJobStatus) -> bool {
        conditions::get(&status.conditions, FAILURE_TARGET).is_none_or(|target| {
            self.now.duration_since(target.last_transition_time.0) < CLEANING_PATIENCE
        })
    }

    /// The job fails, but not before what it left is taken away.
    async fn wait_to_fail(
        &mut self,
        reason: FailureReason,
        message: &str,
        problem: &str,
    ) -> Result<Action, Error> {
        tracing::warn!(
            namespace = self.namespace,
            name = self.name,
            problem,
            "leftovers of a failed job stay for now"
        );
        self.change(|record| record.hold(reason, message, problem))
            .await?;
        Ok(Action::requeue(Duration::from_secs(1)))
    }

    /// Takes away what attempts left, but for the one that won. What cannot be taken away now, the
    /// sweep or the bucket's lifecycle rule will.
    pub(super) async fn clean_all(
        &self,
        store: &Store,
        identity: &JobIdentity,
        winner: Option<u32>,
        patience: Duration,
    ) -> Result<(), String> {
        let attempts = (1..=self.status().attempt).filter(|attempt| Some(*attempt) != winner);
        let cleaning = stream::iter(attempts)
            .map(|attempt| catalog::clean_attempt(store, identity, attempt))
            .buffer_unordered(8)
            .filter_map(|cleaned| std::future::ready(cleaned.err()))
            .collect::<Vec<_>>();
        match tokio::time::timeout(patience, cleaning).await {
            Ok(problems) => problems
                .into_iter()
                .next()
                .map_or(Ok(()), |p| Err(p.message)),
            Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
        }
    }
}

/// A store that never answers must not hold a reconcile for ever.
pub(super) async fn patiently<T>(
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(STORE_PATIENCE, asking)
        .await
        .unwrap_or_else(|_| {
            Err(StoreError {
                message: format!("no answer within {} s", STORE_PATIENCE.as_secs()),
                reason: StoreReason::Unreachable,
            })
        })
}

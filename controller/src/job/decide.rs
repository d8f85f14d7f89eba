//! The steps of a job that ask the store what stands: after a crash, and before the job may fail.

use super::Subject;
use crate::{
    catalog::{self, JobIdentity, Manifest, Outcome},
    context::STORE_PATIENCE,
    error::Error,
    reason::{FailureReason, Retry},
    storage::{Store, StoreError},
    transfer::Failure,
};
use futures::{StreamExt as _, stream};
use kube::runtime::controller::Action;
use std::{future::Future, time::Duration};

/// When the store is asked again about a job that must not end without its answer.
const DECISION_RETRY: Duration = Duration::from_secs(15);

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
                return self.adopt(&store, &manifest).await;
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
                                return self.adopt(&store, &manifest).await;
                            }
                            Ok(_) => {}
                            Err(error) => return self.undecided(&error.message).await,
                        }
                    }
                    self.clean_all(&store, &identity, status.attempt, None)
                        .await;
                }
                Err(problem) if status.complete_tried => return self.undecided(&problem).await,
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

    /// A manifest that stands is the job's success, whichever attempt wrote it.
    async fn adopt(&mut self, store: &Store, manifest: &Manifest) -> Result<Action, Error> {
        if let Ok(identity) = self.identity(None)
            && self.status().complete_tried
        {
            self.clean_all(
                store,
                &identity,
                self.status().attempt,
                Some(manifest.attempt),
            )
            .await;
        }
        self.succeed(manifest, None).await
    }

    /// The store does not answer, and without its answer nothing may be decided.
    async fn undecided(&mut self, problem: &str) -> Result<Action, Error> {
        let message =
            format!("an attempt may have got through, and the store cannot be asked: {problem}");
        let status = self.status();
        tracing::warn!(
            namespace = self.namespace,
            name = self.name,
            problem,
            "the store cannot be asked about an attempt"
        );
        self.change(|record| record.wait(Some(FailureReason::StoreError), "StoreError", &message))
            .await?;
        if status.reason != Some(FailureReason::StoreError) {
            self.context
                .report
                .warning(
                    &self.object(),
                    FailureReason::StoreError.as_str(),
                    "Decide",
                    &message,
                )
                .await;
        }
        Ok(Action::requeue(DECISION_RETRY))
    }

    /// Takes away what attempts left, but for the one that won. What cannot be taken away now, the
    /// sweep or the bucket's lifecycle rule will.
    async fn clean_all(
        &self,
        store: &Store,
        identity: &JobIdentity,
        last: u32,
        winner: Option<u32>,
    ) {
        let attempts = (1..=last).filter(|attempt| Some(*attempt) != winner);
        let cleaning = stream::iter(attempts)
            .map(|attempt| catalog::clean_attempt(store, identity, attempt))
            .buffer_unordered(8);
        let all = cleaning.for_each(|cleaned| async {
            if let Err(error) = cleaned {
                tracing::warn!(namespace = self.namespace, name = self.name, %error, "leftovers of an attempt stay");
            }
        });
        if tokio::time::timeout(STORE_PATIENCE, all).await.is_err() {
            tracing::warn!(
                namespace = self.namespace,
                name = self.name,
                "leftovers of attempts stay: the store is too slow"
            );
        }
    }
}

/// A store that never answers must not hold a reconcile for ever.
async fn patiently<T>(
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(STORE_PATIENCE, asking)
        .await
        .unwrap_or_else(|_| {
            Err(StoreError {
                message: format!("no answer within {} s", STORE_PATIENCE.as_secs()),
                reason: StoreError::UNREACHABLE,
            })
        })
}

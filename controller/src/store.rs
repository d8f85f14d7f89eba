//! The `BackupStore` reconciler: probes the store now and then, and says what it found.

use crate::{
    api::{
        BackupStore, BackupStoreStatus,
        conditions::{self, Status},
        store::{self as api, READY},
    },
    context::{Context, STORE_PATIENCE},
    error::Error,
    reason::StoreReason,
    storage::{Capabilities, Location, Store, StoreError, from_api},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Resource, ResourceExt, api::PostParams, runtime::controller::Action};
use std::{sync::Arc, time::Duration};

/// A store that is Ready.
const INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// A store that is not.
const QUICK_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// A store that has not been for a while.
const SLOW_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// When a failing store is probed slowly.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// Reason of a store that is Ready.
const PROBED: &str = "Probed";

/// The message of a store that was Ready and is only busy now: a transfer waits for it, and a probe
/// does not, so its impatience says nothing of the store.
fn stays_ready(
    status: &BackupStoreStatus,
    generation: Option<i64>,
    error: &StoreError,
) -> Option<String> {
    let ready = conditions::get(&status.conditions, READY)?;
    let same = ready.status == "True" && ready.observed_generation == generation;
    (same && error.reason == StoreReason::Throttled).then(|| ready.message.clone())
}

/// When the store is to be probed next. A changed spec is probed at once; a changed Secret is
/// noticed by the next probe, for the controller may not watch Secrets.
fn next_probe(status: &BackupStoreStatus, generation: Option<i64>, now: Timestamp) -> Timestamp {
    let (Some(ready), Some(last)) = (
        conditions::get(&status.conditions, READY),
        &status.last_probe_time,
    ) else {
        return now;
    };
    if ready.observed_generation != generation || last.0 > now {
        return now;
    }
    let interval = if ready.status == "True" {
        INTERVAL
    } else if now.duration_since(ready.last_transition_time.0) < PATIENCE {
        QUICK_INTERVAL
    } else {
        SLOW_INTERVAL
    };
    last.0.checked_add(interval).unwrap_or(now)
}

/// Probes a store when it is time to.
///
/// # Errors
/// When the status cannot be written.
pub async fn reconcile(store: Arc<BackupStore>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = store.namespace().ok_or(Error::Malformed("namespace"))?;
    let name = store.name_any();
    if store.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let status = store.status.clone().unwrap_or_default();
    let now = Timestamp::now();
    let due = next_probe(&status, store.metadata.generation, now);
    if due > now {
        let ready = conditions::is_true(&status.conditions, READY);
        context.metrics.store(&namespace, &name, ready);
        if ready {
            context.upkeep.ready(&namespace, &name);
        }
        return Ok(Action::requeue(until(due, now)));
    }

    let found = probe(&context, &store, &namespace).await;
    let now = Timestamp::now();
    let before = status.clone();
    let mut status = status;
    status.last_probe_time = Some(Time(now));
    let (ready, reason, message) = match &found {
        Ok((store, capabilities)) => {
            status.location = Some(store.url());
            status.capabilities = Some(api::Capabilities {
                checksum: capabilities.crc64nvme.then_some(api::Checksum::Crc64Nvme),
                list_uploads: capabilities.list_uploads,
            });
            (Status::True, PROBED, can(store, *capabilities))
        }
        Err(error) => match stays_ready(&status, store.metadata.generation, error) {
            Some(message) => (Status::True, PROBED, message),
            None => (Status::False, error.reason.as_str(), error.message.clone()),
        },
    };
    let is_ready = matches!(ready, Status::True);
    conditions::set(
        &mut status.conditions,
        READY,
        ready,
        reason,
        &message,
        store.metadata.generation,
        now,
    );

    let mut changed = BackupStore::clone(&store);
    changed.status = Some(status.clone());
    Api::<BackupStore>::namespaced(context.client.clone(), &namespace)
        .replace_status(&name, &PostParams::default(), &changed)
        .await?;
    context.metrics.store(&namespace, &name, is_ready);
    if conditions::get(&before.conditions, READY).map(|c| c.reason.as_str()) != Some(reason) {
        let about = store.object_ref(&());
        match found {
            Ok(_) => {
                tracing::info!(namespace, name, "store is ready");
                context
                    .report
                    .normal(&about, "Ready", "Probe", &message)
                    .await;
            }
            Err(_) => {
                tracing::warn!(
                    namespace,
                    name,
                    reason,
                    detail = message,
                    "store is not ready"
                );
                context
                    .report
                    .warning(&about, reason, "Probe", &message)
                    .await;
            }
        }
    }
    Ok(Action::requeue(until(
        next_probe(&status, store.metadata.generation, now),
        now,
    )))
}

/// Opens the store of an object, with what its last probe found out. Its Secret is read each time; one
/// that is open already and has not changed is used again.
///
/// # Errors
/// [`StoreError`] that names what is missing, wrong or not allowed.
pub async fn open(context: &Context, store: &BackupStore) -> Result<Arc<Store>, StoreError> {
    let mut config = from_api::resolve(&context.client, &context.config, store).await?;
    config.observer = Some(context.metrics.clone());
    let namespace = store.namespace().unwrap_or_default();
    let open_stores = &context.open_stores;
    open_stores
        .open(&namespace, &store.name_any(), config)
        .await
}

async fn probe(
    context: &Context,
    store: &BackupStore,
    namespace: &str,
) -> Result<(Arc<Store>, Capabilities), StoreError> {
    let opened = open(context, store).await?;
    match tokio::time::timeout(STORE_PATIENCE, opened.probe(namespace)).await {
        Ok(probed) => probed.map(|capabilities| (opened, capabilities)),
        Err(_) => Err(StoreError {
            message: format!("{} does not answer: check the endpoint", opened.url()),
            reason: StoreReason::Unreachable,
        }),
    }
}

/// What the store was seen to do, for people.
fn can(store: &Store, capabilities: Capabilities) -> String {
    let mut text = format!(
        "objects were written, read, listed and deleted in {}, uploads opened and aborted",
        store.url()
    );
    if capabilities.crc64nvme {
        text.push_str("; the store compares checksums of parts (CRC64NVME)");
    }
    let listed = match store.config().location {
        Location::S3(_) | Location::Gcs(_) => capabilities.list_uploads,
        // Azure drops what was not committed after a week; in a folder it is a file.
        Location::Azure(_) | Location::File { .. } => true,
    };
    if !listed {
        text.push_str(
            "; it does not let unfinished uploads be listed, and so those that a crash leaves are not found: \
             give the bucket a lifecycle rule that aborts incomplete uploads after some days",
        );
    }
    text
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now))
        .unwrap_or_default()
        .max(Duration::from_millis(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn a_busy_store_stays_ready() {
        for (what, before, generation, reason, stays) in [
            ("busy", Status::True, 1, StoreReason::Throttled, true),
            ("never was", Status::False, 1, StoreReason::Throttled, false),
            ("changed", Status::True, 2, StoreReason::Throttled, false),
            ("gone", Status::True, 1, StoreReason::Unreachable, false),
        ] {
            let mut status = BackupStoreStatus::default();
            conditions::set(
                &mut status.conditions,
                READY,
                before,
                "R",
                "as before",
                Some(1),
                t(0),
            );
            let error = StoreError {
                message: "now".into(),
                reason,
            };
            let kept = stays_ready(&status, Some(generation), &error);
            assert_eq!(kept.as_deref(), stays.then_some("as before"), "{what}");
        }
        let error = StoreError {
            message: "now".into(),
            reason: StoreReason::Throttled,
        };
        let never = stays_ready(&BackupStoreStatus::default(), Some(1), &error);
        assert_eq!(never, None, "never probed");
    }

    #[test]
    fn probes_come_quickly_while_they_fail() {
        for (what, ready, since, probed, generation, now, due) in [
            ("ready", Status::True, 0, 0, 1, 10, 300),
            ("changed", Status::True, 0, 0, 2, 10, 10),
            ("failing", Status::False, 0, 5, 1, 6, 15),
            ("failing for long", Status::False, 0, 400, 1, 401, 460),
            ("the clock went back", Status::True, 0, 500, 1, 10, 10),
        ] {
            let mut status = BackupStoreStatus {
                last_probe_time: Some(Time(t(probed))),
                ..Default::default()
            };
            conditions::set(
                &mut status.conditions,
                READY,
                ready,
                "R",
                "",
                Some(1),
                t(since),
            );
            assert_eq!(
                next_probe(&status, Some(generation), t(now)),
                t(due),
                "{what}"
            );
        }
        assert_eq!(
            next_probe(&BackupStoreStatus::default(), Some(1), t(7)),
            t(7),
            "never probed"
        );
    }
}

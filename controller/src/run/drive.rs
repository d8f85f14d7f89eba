//! One kind: its watch, its cache, and its reconciler, which is run once this replica leads.

use crate::{
    context::{Cache, Context, Guard},
    error::Error,
    leader::Leading,
    malformed,
    server::Readiness,
    upkeep,
};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DynamicObject,
    runtime::{
        WatchStreamExt as _,
        controller::{self, Action, ReconcileRequest},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, future::Future, sync::Arc, time::Instant};
use tokio::sync::watch as flag;

/// What our three kinds have in common.
pub(super) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}
impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

pub(super) type Watched<K> = Result<Guard<K>, watcher::Error>;

/// Watches a kind into a cache; `index` sees each event once the cache has taken it, and before others
/// hear of it. An object that its type cannot hold is an object like any other here.
pub(super) fn watch<K: Kind, I: Fn(&watcher::Event<Guard<K>>) + Send + 'static>(
    client: &Client,
    namespace: Option<&str>,
    index: I,
) -> (Cache<K>, impl Stream<Item = Watched<K>> + Send + use<K, I>) {
    let api: Api<Guard<K>> = crate::scope::api(client, namespace);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    follow(events, index)
}

/// The cache of what a watch sees, and its events once the cache has taken them.
fn follow<K: Kind, I: Fn(&watcher::Event<Guard<K>>) + Send + 'static>(
    events: impl Stream<Item = watcher::Result<watcher::Event<Guard<K>>>> + Send,
    index: I,
) -> (Cache<K>, impl Stream<Item = Watched<K>> + Send) {
    let (objects, writer) = reflector::store();
    let (fill, filled) = flag::channel(false);
    let events = events
        // The larger half of a small object, and of no use here.
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .inspect(move |event| {
            let Ok(event) = event else {
                return;
            };
            index(event);
            if matches!(event, watcher::Event::InitDone) {
                fill.send_replace(true);
            }
        })
        .touched_objects();
    (Cache::new(objects, filled), events)
}

/// What is to be reconciled: objects that change, and those that somebody names.
pub(super) fn requests<K: Kind>(
    events: impl Stream<Item = Watched<K>> + Send + 'static,
    named: impl Stream<Item = ObjectRef<Guard<K>>> + Send + 'static,
) -> impl Stream<Item = Result<ReconcileRequest<Guard<K>>, watcher::Error>> + Send {
    let changed = controller::trigger_self(events, ());
    let named = named.map(|object| Ok(ReconcileRequest::from(object)));
    stream::select(changed, named)
}

pub(super) async fn when_filled<K: Kind>(cache: Cache<K>, readiness: Readiness) {
    cache.filled().await;
    readiness.filled();
    // The end of a part stops the controller.
    std::future::pending().await
}

/// Reconciles one kind for ever, once this replica leads. Until then only the cache is kept.
pub(super) async fn drive<K, Reconcile, Reconciling>(
    kind: &'static str,
    cache: Cache<K>,
    requests: impl Stream<Item = Result<ReconcileRequest<Guard<K>>, watcher::Error>> + Send + 'static,
    context: Arc<Context>,
    reconcile: Reconcile,
    gone: impl Fn(&ObjectRef<DynamicObject>) + Send,
) where
    K: Kind,
    Reconcile: Fn(Arc<K>, Arc<Context>) -> Reconciling + Copy + Send + Sync,
    Reconciling: Future<Output = Result<Action, Error>> + Send,
{
    let mut requests = requests.boxed();
    let Some(known) = take_over(kind, &context.leading, &cache, &mut requests).await else {
        return;
    };
    let metrics = Arc::clone(&context.metrics);
    let known = stream::iter(known).map(|object| Ok(ReconcileRequest::from(object)));
    let requests = stream::select(known, requests);

    let one = move |object: Arc<Guard<K>>, context: Arc<Context>| {
        Box::pin(one(kind, object, context, reconcile))
    };
    let policy =
        |_: Arc<Guard<K>>, error: &Error, _: Arc<Context>| Action::requeue(error.retry_after());
    let results = controller::applier(
        one,
        policy,
        context,
        cache.objects(),
        requests,
        at_once(kind),
    );
    let mut results = std::pin::pin!(results);
    while let Some(result) = results.next().await {
        match result {
            Ok(_) => {}
            Err(controller::Error::ObjectNotFound(object)) => {
                let namespace = object.namespace.as_deref().unwrap_or_default();
                metrics.malformed(&K::kind(&()), namespace, &object.name, false);
                gone(&object);
            }
            Err(controller::Error::ReconcilerFailed(error @ Error::Conflict, object)) => {
                tracing::debug!(kind, %object, %error, "reconcile is repeated")
            }
            Err(controller::Error::ReconcilerFailed(error, object)) => {
                tracing::warn!(kind, %object, %error, "reconcile failed; it is repeated")
            }
            Err(controller::Error::QueueError(error)) => watch_failed(kind, &error),
            Err(error) => tracing::error!(kind, %error, "reconciler"),
        }
    }
}

/// Keeps the cache until this replica leads; gives every object that is there then, or `None` when
/// `requests` has ended.
///
/// What goes by before is in the cache once that is filled, and not earlier: a replica that is elected
/// in the middle of the first list has to wait for its end, or the first half of it is never looked at.
async fn take_over<K: Kind>(
    kind: &str,
    leading: &Leading,
    cache: &Cache<K>,
    requests: &mut (impl Stream<Item = Result<ReconcileRequest<Guard<K>>, watcher::Error>> + Unpin),
) -> Option<Vec<ObjectRef<Guard<K>>>> {
    let turn = async {
        leading.elected().await;
        cache.filled().await;
    };
    tokio::select! {
        biased;
        () = turn => {}
        () = stand_by(kind, requests) => return None,
    }
    let all = cache.all();
    Some(
        all.iter()
            .map(|object| ObjectRef::from_obj(object.as_ref()))
            .collect(),
    )
}

/// Keeps the cache, whose watch is behind `requests`, until that ends.
async fn stand_by<K: Kind>(
    kind: &str,
    requests: &mut (impl Stream<Item = Result<ReconcileRequest<Guard<K>>, watcher::Error>> + Unpin),
) {
    while let Some(request) = requests.next().await {
        if let Err(error) = request {
            watch_failed(kind, &error);
        }
    }
}

fn watch_failed(kind: &str, error: &dyn std::error::Error) {
    tracing::warn!(kind, %error, "watch failed; it is repeated: are the CRDs installed, and may the controller watch them?");
}

/// How many objects of a kind are reconciled at once: none waits for another, but those whose passes
/// take long.
fn at_once(kind: &str) -> controller::Config {
    let config = controller::Config::default();
    match kind {
        "Upkeep" => config.concurrency(upkeep::AT_ONCE),
        _ => config,
    }
}

async fn one<K, Reconciling>(
    kind: &'static str,
    object: Arc<Guard<K>>,
    context: Arc<Context>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> Reconciling,
) -> Result<Action, Error>
where
    K: Kind,
    Reconciling: Future<Output = Result<Action, Error>>,
{
    if !context.leading.is_leading() {
        // The process ends, as soon as its election has noticed.
        return Ok(Action::await_change());
    }
    let began = Instant::now();
    let metrics = Arc::clone(&context.metrics);
    let namespace = object.namespace().unwrap_or_default();
    metrics.malformed(
        &K::kind(&()),
        &namespace,
        &object.name_any(),
        object.0.is_err(),
    );
    let result = match &object.0 {
        Ok(good) => reconcile(Arc::new(good.clone()), context).await,
        Err(invalid) => {
            let name = ObjectRef::<K>::new(&object.name_any()).within(&namespace);
            malformed::tell(&name, &invalid.error, &context).await
        }
    };
    metrics.reconciled(
        kind,
        began.elapsed(),
        result.as_ref().err().map(Error::reason),
    );
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BackupStore;
    use futures::channel::mpsc;
    use serde_json::json;

    fn store(name: &str) -> Guard<BackupStore> {
        let object = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore",
            "metadata": {"name": name, "namespace": "a"}, "spec": {"file": {"path": "x"}}});
        serde_json::from_value(object).unwrap()
    }

    #[tokio::test]
    async fn elected_in_the_middle_of_the_first_list_it_looks_at_all_of_it() {
        let (events, seen) = mpsc::unbounded();
        let (cache, touched) = follow::<BackupStore, _>(seen, |_| {});
        let (consumed, mut count) = mpsc::unbounded();
        let touched = touched.inspect(move |_| drop(consumed.unbounded_send(())));
        let mut requests = requests(touched, stream::pending()).boxed();
        let (elect, leading) = Leading::by_hand();
        let send = |event| events.unbounded_send(Ok(event)).unwrap();
        let story = async {
            send(watcher::Event::Init);
            send(watcher::Event::InitApply(store("first")));
            count.next().await.unwrap();
            elect();
            send(watcher::Event::InitApply(store("second")));
            send(watcher::Event::InitDone);
            std::future::pending::<()>().await
        };
        let known = tokio::select! {
            known = take_over("BackupStore", &leading, &cache, &mut requests) => known.unwrap(),
            () = story => unreachable!(),
        };
        let mut names: Vec<_> = known.into_iter().map(|object| object.name).collect();
        names.sort();
        assert_eq!(names, ["first", "second"]);
    }
}

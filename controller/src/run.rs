//! The controller as a whole: watches, reconcilers, admin endpoints, and how it stops.

use crate::{
    api::{BackupJob, BackupSchedule, BackupStore},
    config::Config,
    context::{Cache, Context, Guard, OwnedJobs},
    error::Error,
    job::{self, schedule_of, transfers::Transfers},
    leader::{Election, Leading, Lost},
    malformed,
    metrics::Metrics,
    open_stores::OpenStores,
    report::Report,
    schedule,
    server::{self, Readiness},
    store,
    upkeep::{self, Upkeep},
};
use futures::{Stream, StreamExt as _, channel::mpsc, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace};
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
use prometheus::Registry;
use serde::de::DeserializeOwned;
use std::{
    fmt::Debug,
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch as flag, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long transfers have to end when the process stops; the grace period of a pod is 30 s.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Why the controller could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to the API server.
    #[error("the Kubernetes API cannot be reached: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The name of this cluster is not known.
    #[error(
        "the uid of namespace kube-system could not be read ({0}): allow get on it, or set --cluster-id"
    )]
    ClusterId(String),
    /// The admin endpoints.
    #[error("--admin-listen {address}: {error}")]
    Listen {
        /// The flag.
        address: std::net::SocketAddr,
        /// What was wrong.
        #[source]
        error: io::Error,
    },
    /// A metric was registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Another replica may lead.
    #[error("{0}; this process ends, and starts afresh")]
    Lost(#[from] Lost),
    /// A part of the controller ended by itself.
    #[error("a part of the controller ended unexpectedly: see the log above")]
    Died,
}

/// Waits until this replica leads, then works until `stop` resolves; then aborts the transfers,
/// records them as interrupted and gives the Lease back.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let client = Client::try_default()
        .await
        .map_err(|e| RunError::Client(Box::new(e)))?;
    let config = Arc::new(config);
    let cluster_id = cluster_id(&client, &config).await?;
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry)?);
    let transfers = Transfers::new(config.max_transfers, Arc::clone(&metrics));
    let open_stores = OpenStores::default();
    let report = Report::new(client.clone());

    let scopes: Vec<Option<String>> = match config.watch_namespaces.as_slice() {
        [] => vec![None],
        names => names.iter().cloned().map(Some).collect(),
    };
    // A replica that does not lead is ready too: it could take over, and an update of the Deployment
    // goes on when it is there.
    let readiness = Readiness::waiting_for(scopes.len() * 3);
    let (election, leading) = Election::new(client.clone(), &config.lease, metrics.leader.clone());
    let address = config.admin_listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| RunError::Listen { address, error })?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %cluster_id, %address, namespaces = ?config.watch_namespaces, "controller started");

    let mut parts = JoinSet::new();
    parts.spawn({
        let readiness = readiness.clone();
        async move {
            if let Err(error) =
                server::serve(listener, registry, readiness, std::future::pending()).await
            {
                tracing::error!(%error, "the admin endpoints failed");
            }
        }
    });
    for scope in scopes {
        let base = Base {
            client: &client,
            config: &config,
            cluster_id: &cluster_id,
            report: &report,
            metrics: &metrics,
            transfers: &transfers,
            open_stores: &open_stores,
            leading: &leading,
        };
        watch_scope(&mut parts, &base, scope.as_deref(), &readiness);
    }

    let release = CancellationToken::new();
    let mut election = std::pin::pin!(election.run(release.clone()));
    tokio::select! {
        () = stop => {}
        _ = parts.join_next() => return Err(RunError::Died),
        // What runs here ends with the process: nothing may act for a leader that is none. What it
        // had begun is found by the next, as after a crash.
        result = &mut election => return Err(lost(result)),
    }
    tracing::info!("stopping: transfers are aborted and recorded as interrupted");
    readiness.stop();
    transfers.close();
    // The reconcilers still run: they write what became of the transfers.
    tokio::select! {
        recorded = tokio::time::timeout(STOP_PATIENCE, transfers.empty()) => if recorded.is_err() {
            tracing::warn!(
                "not every transfer could be recorded: the next start finds out what became of them"
            );
        },
        result = &mut election => return Err(lost(result)),
    }
    // Nothing acts any more when the next replica may.
    parts.shutdown().await;
    release.cancel();
    Ok(election.await?)
}

/// The election is over, and nobody had asked for that.
fn lost(result: Result<(), Lost>) -> RunError {
    let error = result.err().map_or(RunError::Died, RunError::Lost);
    tracing::error!(%error, "this replica leads no longer");
    error
}

async fn cluster_id(client: &Client, config: &Config) -> Result<Arc<str>, RunError> {
    if let Some(id) = &config.cluster_id {
        return Ok(id.as_str().into());
    }
    let namespace = Api::<Namespace>::all(client.clone())
        .get("kube-system")
        .await
        .map_err(|e| RunError::ClusterId(e.to_string()))?;
    namespace
        .uid()
        .map(Into::into)
        .ok_or_else(|| RunError::ClusterId("it has none".into()))
}

/// What all scopes share.
struct Base<'a> {
    client: &'a Client,
    config: &'a Arc<Config>,
    cluster_id: &'a Arc<str>,
    report: &'a Report,
    metrics: &'a Arc<Metrics>,
    transfers: &'a Transfers,
    open_stores: &'a OpenStores,
    leading: &'a Leading,
}

/// Watches all namespaces, or one, and reconciles what is found there.
fn watch_scope(
    parts: &mut JoinSet<()>,
    base: &Base<'_>,
    namespace: Option<&str>,
    readiness: &Readiness,
) {
    let owned_jobs = OwnedJobs::default();
    let index = owned_jobs.clone();
    let (stores, store_events) = watch::<BackupStore, _>(base.client, namespace, |_| {});
    let (jobs, job_events) =
        watch::<BackupJob, _>(base.client, namespace, move |event| index.apply(event));
    let (schedules, schedule_events) = watch::<BackupSchedule, _>(base.client, namespace, |_| {});
    let (wake, woken) = mpsc::unbounded();
    let (owner, owners) = mpsc::unbounded();
    let (look, looks) = mpsc::unbounded();
    let context = Arc::new(Context {
        client: base.client.clone(),
        config: Arc::clone(base.config),
        cluster_id: Arc::clone(base.cluster_id),
        report: base.report.clone(),
        metrics: Arc::clone(base.metrics),
        transfers: base.transfers.clone(),
        open_stores: base.open_stores.clone(),
        leading: base.leading.clone(),
        wake,
        jobs: jobs.clone(),
        owned_jobs,
        stores: stores.clone(),
        schedules: schedules.clone(),
        upkeep: Upkeep::new(look),
    });
    parts.spawn(when_filled(stores.clone(), readiness.clone()));
    parts.spawn(when_filled(jobs.clone(), readiness.clone()));
    parts.spawn(when_filled(schedules.clone(), readiness.clone()));

    // A job that changes is its schedule's business too.
    let job_events = job_events.inspect(move |event| {
        if let Ok(Guard { 0: Ok(job) }) = event
            && let Some(schedule) = schedule_of(job)
        {
            let schedule =
                ObjectRef::new(&schedule.name).within(&job.namespace().unwrap_or_default());
            // The receiver lives as long as the process.
            drop(owner.unbounded_send(schedule));
        }
    });
    let forget_job = {
        let transfers = context.transfers.clone();
        move |gone: &ObjectRef<DynamicObject>| {
            let job =
                ObjectRef::new(&gone.name).within(gone.namespace.as_deref().unwrap_or_default());
            transfers.forget_others(&job, None);
        }
    };
    let metrics = Arc::clone(&context.metrics);
    let forget_schedule = move |gone: &ObjectRef<DynamicObject>| {
        metrics.forget_schedule(gone.namespace.as_deref().unwrap_or_default(), &gone.name)
    };
    let metrics = Arc::clone(&context.metrics);
    let upkeep = context.upkeep.clone();
    let forget_store = move |gone: &ObjectRef<DynamicObject>| {
        let namespace = gone.namespace.as_deref().unwrap_or_default();
        metrics.forget_store(namespace, &gone.name);
        upkeep.forget(namespace, &gone.name);
    };

    parts.spawn(drive(
        "Upkeep",
        stores.clone(),
        requests(stream::empty(), looks),
        Arc::clone(&context),
        upkeep::reconcile,
        |_: &ObjectRef<DynamicObject>| {},
    ));
    parts.spawn(drive(
        "BackupStore",
        stores,
        requests(store_events, stream::pending()),
        Arc::clone(&context),
        store::reconcile,
        forget_store,
    ));
    parts.spawn(drive(
        "BackupJob",
        jobs,
        requests(job_events, woken),
        Arc::clone(&context),
        job::reconcile,
        forget_job,
    ));
    parts.spawn(drive(
        "BackupSchedule",
        schedules,
        requests(schedule_events, owners),
        context,
        schedule::reconcile,
        forget_schedule,
    ));
}

/// What our three kinds have in common.
trait Kind:
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

type Watched<K> = Result<Guard<K>, watcher::Error>;

/// Watches a kind into a cache; `index` sees each event once the cache has taken it, and before others
/// hear of it. An object that its type cannot hold is an object like any other here.
fn watch<K: Kind, I: Fn(&watcher::Event<Guard<K>>) + Send + 'static>(
    client: &Client,
    namespace: Option<&str>,
    index: I,
) -> (Cache<K>, impl Stream<Item = Watched<K>> + Send + use<K, I>) {
    let api: Api<Guard<K>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (objects, writer) = reflector::store();
    let (fill, filled) = flag::channel(false);
    let events = watcher(api, watcher::Config::default())
        .default_backoff()
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
fn requests<K: Kind>(
    events: impl Stream<Item = Watched<K>> + Send + 'static,
    named: impl Stream<Item = ObjectRef<Guard<K>>> + Send + 'static,
) -> impl Stream<Item = Result<ReconcileRequest<Guard<K>>, watcher::Error>> + Send {
    let changed = controller::trigger_self(events, ());
    let named = named.map(|object| Ok(ReconcileRequest::from(object)));
    stream::select(changed, named)
}

async fn when_filled<K: Kind>(cache: Cache<K>, readiness: Readiness) {
    cache.filled().await;
    readiness.filled();
    // The end of a part stops the controller.
    std::future::pending().await
}

/// Reconciles one kind for ever, once this replica leads. Until then only the cache is kept.
async fn drive<K, Reconcile, Reconciling>(
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
    tokio::select! {
        biased;
        () = context.leading.elected() => {}
        () = stand_by(kind, &mut requests) => return,
    }
    let metrics = Arc::clone(&context.metrics);
    let known = stream::iter(cache.all())
        .map(|object| Ok(ReconcileRequest::from(ObjectRef::from_obj(object.as_ref()))));
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

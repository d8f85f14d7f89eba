//! The controller as a whole: watches, reconcilers, admin endpoints, and how it stops.

mod drive;

use crate::{
    api::{BackupJob, BackupSchedule, BackupStore, RestoreJob},
    config::Config,
    context::{Context, Guard, OwnedJobs},
    job::{self, schedule_of, transfers::Transfers},
    leader::{Election, Leading, Lost},
    metrics::Metrics,
    open_stores::OpenStores,
    page::{Caches, Page, Seen},
    report::Report,
    restore, schedule,
    server::{self, Readiness},
    store,
    upkeep::{self, Upkeep},
};
use drive::{Watched, drive, requests, watch, when_filled};
use futures::{StreamExt as _, channel::mpsc, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt, core::DynamicObject, runtime::reflector::ObjectRef};
use prometheus::Registry;
use std::{future::Future, io, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch as flag, task::JoinSet};
use tokio_util::sync::CancellationToken;
use towline_agent::{build::Build, server::FileError};

/// How long transfers have to end when the process stops; the grace period of a pod is 30 s.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long readers of the status page have to take what they are being answered.
const PAGE_PATIENCE: Duration = Duration::from_secs(2);

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
    /// The status page's address.
    #[error("--page-listen {address}: {error}")]
    PageListen {
        /// The flag.
        address: std::net::SocketAddr,
        /// What was wrong.
        #[source]
        error: io::Error,
    },
    /// The status page's files.
    #[error("{0}")]
    Page(#[from] FileError),
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
pub async fn run(
    build: Build,
    config: Config,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let client = Client::try_default()
        .await
        .map_err(|e| RunError::Client(Box::new(e)))?;
    let config = Arc::new(config);
    let cluster_id = cluster_id(&client, &config).await?;
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry)?);
    build.register("towline_build_info", &registry)?;
    let transfers = Transfers::new(config.max_transfers, Arc::clone(&metrics));
    let open_stores = OpenStores::default();
    let report = Report::new(client.clone());

    let scopes: Vec<Option<String>> = match config.watch_namespaces.as_slice() {
        [] => vec![None],
        names => names.iter().cloned().map(Some).collect(),
    };
    // A replica that does not lead is ready too: it could take over, and an update of the Deployment
    // goes on when it is there.
    let readiness = Readiness::waiting_for(scopes.len() * 4);
    let (election, leading) = Election::new(client.clone(), &config.lease, metrics.leader.clone());
    let address = config.admin_listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| RunError::Listen { address, error })?;
    tracing::info!(version = build.version, commit = build.commit, %cluster_id, %address, namespaces = ?config.watch_namespaces, "controller started");

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
    let seen = Seen::default();
    let (stop_page, page_stopped) = flag::channel(false);
    let page = serve_page(&config, &build, seen.clone(), page_stopped).await?;
    let page_ended = CancellationToken::new();
    if let Some(page) = page {
        let ended = page_ended.clone().drop_guard();
        parts.spawn(async move {
            page.await;
            drop(ended);
            std::future::pending().await
        });
    } else {
        page_ended.cancel();
    }
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
            seen: &seen,
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
    stop_page.send_replace(true);
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
    // Nobody notices in time where the connection has gone.
    drop(tokio::time::timeout(PAGE_PATIENCE, page_ended.cancelled()).await);
    // Nothing acts any more when the next replica may.
    parts.shutdown().await;
    release.cancel();
    Ok(election.await?)
}

/// The status page, where there is to be one. What it gives ends after `stop`.
async fn serve_page(
    config: &Config,
    build: &Build,
    seen: Seen,
    stop: flag::Receiver<bool>,
) -> Result<Option<impl Future<Output = ()> + use<>>, RunError> {
    let Some(config) = &config.page else {
        return Ok(None);
    };
    let page = Page::open(config).await?;
    let address = config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| RunError::PageListen { address, error })?;
    let (tokens, certificates) = (config.tokens.is_some(), config.clients.is_some());
    tracing::info!(%address, tls = config.tls.is_some(), tokens, certificates, "the status page is served");
    Ok(Some(page.serve(listener, seen, build.version, stop)))
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
    seen: &'a Seen,
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
    let changes = || base.seen.changes.clone();
    let (of_stores, of_jobs, of_schedules, of_restores) =
        (changes(), changes(), changes(), changes());
    let (stores, store_events) =
        watch::<BackupStore, _>(base.client, namespace, move |_| of_stores.note());
    let (jobs, job_events) = watch::<BackupJob, _>(base.client, namespace, move |event| {
        index.apply(event);
        of_jobs.note();
    });
    let (schedules, schedule_events) =
        watch::<BackupSchedule, _>(base.client, namespace, move |_| of_schedules.note());
    let (restores, restore_events) =
        watch::<RestoreJob, _>(base.client, namespace, move |_| of_restores.note());
    base.seen.add(Caches {
        schedules: schedules.clone(),
        jobs: jobs.clone(),
        stores: stores.clone(),
        restores: restores.clone(),
    });
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
        restores: restores.clone(),
        upkeep: Upkeep::new(look),
    });
    parts.spawn(when_filled(stores.clone(), readiness.clone()));
    parts.spawn(when_filled(jobs.clone(), readiness.clone()));
    parts.spawn(when_filled(schedules.clone(), readiness.clone()));
    parts.spawn(when_filled(restores.clone(), readiness.clone()));

    // A job or a drill that changes is its schedule's business too.
    let owner_of_drill = owner.clone();
    let job_events = job_events.inspect(move |event| call_schedule(event, &owner));
    let restore_events = restore_events.inspect(move |event| call_schedule(event, &owner_of_drill));
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
        "RestoreJob",
        restores,
        requests(restore_events, stream::pending()),
        Arc::clone(&context),
        restore::reconcile,
        |_: &ObjectRef<DynamicObject>| {},
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

/// Has the schedule reconciled that owns what has changed.
fn call_schedule<K: ResourceExt>(
    event: &Watched<K>,
    owner: &mpsc::UnboundedSender<ObjectRef<Guard<BackupSchedule>>>,
) {
    if let Ok(Guard { 0: Ok(object) }) = event
        && let Some(schedule) = schedule_of(object)
    {
        let namespace = object.namespace().unwrap_or_default();
        // The receiver lives as long as the process.
        drop(owner.unbounded_send(ObjectRef::new(&schedule.name).within(&namespace)));
    }
}

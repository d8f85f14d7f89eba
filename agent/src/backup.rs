//! The engine: one backup at a time, from a request to a body that ends in a verdict.

mod command;
mod dump;
mod gate;
mod judge;
mod metrics;
pub(crate) mod pipeline;
mod prepare;
pub(crate) mod process;
mod report;
mod request;
mod restore;
mod run;
mod slot;
mod stage;
mod tables_wanted;
pub(crate) mod tool;
mod users;

pub use metrics::BackupMetrics;
pub use request::{
    BackupRequest, CAPABILITIES, Compression, Method, RestoreRequest, RestoreStarted, StartError,
    Started, Upload,
};

pub use crate::protocol::info::JobAttempt;

use crate::archive::Recipient;
use crate::archive::encryption::MAX_RECIPIENTS;
use crate::database::{Connection, DatabaseError, ServerInfo};
use crate::protocol::info::{LastBackup, Running, Tool as ToolInfo};
use crate::protocol::{StreamReason, parameter};
use slot::Slots;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, Semaphore};
use tool::Installed;

/// Sessions at once that only look at the server.
const LOOKS: usize = 2;

/// How the engine works.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The server to back up.
    pub database: Connection,
    /// Method of a request that names none; `None`: physical where a tool for it is installed.
    pub method: Option<Method>,
    /// Bytes of output kept in memory while the tool holds locks.
    pub lock_buffer: u64,
    /// Longest time that a slow reader may prolong locks, and longest wait for one.
    pub max_lock: Duration,
    /// Longest time that a reader may take nothing.
    pub stall_timeout: Duration,
    /// Most bytes of body a second, whatever a request asks for.
    pub max_rate: Option<u64>,
    /// Who can open every archive, whatever a request asks for; empty: whom the request names.
    pub require_recipients: Vec<Recipient>,
    /// Whether a Galera node is backed up.
    pub allow_galera: bool,
    /// Whether archives are restored.
    pub allow_restore: bool,
    /// Folder for small private files.
    pub tmp: PathBuf,
}

struct Shared {
    config: EngineConfig,
    metrics: BackupMetrics,
    tools: OnceCell<Vec<Installed>>,
    slots: Slots,
    /// Sessions that only look at the server.
    looks: Semaphore,
}

/// Makes backups, one at a time. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

impl Engine {
    /// An engine with a free slot.
    #[must_use]
    pub fn new(config: EngineConfig, metrics: BackupMetrics) -> Self {
        let slots = Slots::default();
        metrics.lock_limit.set(config.max_lock.as_secs_f64());
        Self(Arc::new(Shared {
            config,
            metrics,
            tools: OnceCell::new(),
            slots,
            looks: Semaphore::new(LOOKS),
        }))
    }

    /// Takes the slot, asks the server, starts the tool. A request that pre-empts waits until the
    /// older tool is reaped. Dropping the future, or the body later, ends the tool.
    ///
    /// # Errors
    /// [`StartError`], before anything was sent.
    pub async fn start(&self, mut request: BackupRequest) -> Result<Started, StartError> {
        let begun = Instant::now();
        request.recipients = self.recipients(&request.recipients)?;
        let first_guess = request
            .method
            .or(self.0.config.method)
            .unwrap_or(Method::Physical);
        let slot = self.0.slots.take(first_guess, request.job.clone()).await?;
        let plan = prepare::prepare(&self.0.config, self.installed().await, request).await?;
        slot.set_method(plan.method);
        run::launch(&self.0.config, &self.0.metrics, slot, plan, begun).await
    }

    /// The agent's own recipients, and those of a request.
    fn recipients(&self, asked: &[Recipient]) -> Result<Vec<Recipient>, StartError> {
        let mut all = self.0.config.require_recipients.clone();
        for recipient in asked {
            if !all.contains(recipient) {
                all.push(recipient.clone());
            }
        }
        if all.len() > MAX_RECIPIENTS {
            return Err(StartError::BadParameter {
                parameter: parameter::RECIPIENT.to_owned(),
                message: format!(
                    "an archive has at most {MAX_RECIPIENTS} recipients, {} of which --require-recipient names here: ask for fewer",
                    self.0.config.require_recipients.len()
                ),
            });
        }
        Ok(all)
    }

    /// Whether archives are restored here.
    #[must_use]
    pub fn restores(&self) -> bool {
        self.0.config.allow_restore
    }

    /// The backup that holds the slot.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.0.slots.running()
    }

    /// The last complete backup since the start.
    #[must_use]
    pub fn last_backup(&self) -> Option<LastBackup> {
        self.0.slots.last()
    }

    /// Ends the backup with this id; `false` when it does not run.
    pub fn cancel(&self, id: &str, reason: StreamReason) -> bool {
        self.0.slots.cancel(id, reason)
    }

    /// Waits until the slot is free: no tool runs, all are reaped.
    pub async fn wait_idle(&self) {
        self.0.slots.wait_idle().await;
    }

    /// Refuses every further request.
    pub fn close(&self) {
        self.0.slots.close();
    }

    /// What the server is. Callers wait for each other, so that many of them take no more than a few
    /// of the server's connections.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn server_info(&self) -> Result<ServerInfo, DatabaseError> {
        // Never closed.
        let _turn = self.0.looks.acquire().await;
        let mut session = self.0.config.database.connect().await?;
        let info = session.info().await;
        session.close().await;
        info
    }

    /// The tools that are installed.
    pub async fn tools(&self) -> Vec<ToolInfo> {
        self.installed().await.iter().map(Installed::info).collect()
    }

    async fn installed(&self) -> &[Installed] {
        self.0.tools.get_or_init(tool::find_installed).await
    }
}

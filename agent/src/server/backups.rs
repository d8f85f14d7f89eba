//! What the server asks of the engine: a seam for tests, which need endings on demand.

use crate::backup::{
    BackupRequest, Engine, RestoreRequest, RestoreStarted, StartError, Started, Upload,
};
use crate::database::{DatabaseError, ServerInfo};
use crate::protocol::StreamReason;
use crate::protocol::info::{LastBackup, Running, Tool as ToolInfo};
use async_trait::async_trait;

/// One slot for backups and what is known of the database. See [`Engine`] for each meaning.
#[async_trait]
pub trait Backups: Send + Sync + 'static {
    /// Takes the slot and starts a backup, or says why not.
    async fn start(&self, request: BackupRequest) -> Result<Started, StartError>;
    /// Whether archives are restored here.
    fn restores(&self) -> bool {
        false
    }
    /// Takes the slot and starts a restore, or says why not before it asks for a byte of the archive.
    async fn restore(
        &self,
        _request: RestoreRequest,
        _upload: Upload,
    ) -> Result<RestoreStarted, StartError> {
        Err(StartError::RestoreNotAllowed)
    }
    /// The backup that holds the slot.
    fn running(&self) -> Option<Running>;
    /// The last complete backup since the start.
    fn last_backup(&self) -> Option<LastBackup>;
    /// Cancels the backup with this id; `false` when it does not run.
    fn cancel(&self, id: &str, reason: StreamReason) -> bool;
    /// Waits until no tool runs and all are reaped.
    async fn wait_idle(&self);
    /// Refuses new backups from now on.
    fn close(&self);
    /// What the database server is.
    async fn server_info(&self) -> Result<ServerInfo, DatabaseError>;
    /// The tools that are installed.
    async fn tools(&self) -> Vec<ToolInfo>;
}

#[async_trait]
impl Backups for Engine {
    async fn start(&self, request: BackupRequest) -> Result<Started, StartError> {
        Self::start(self, request).await
    }

    fn restores(&self) -> bool {
        Self::restores(self)
    }

    async fn restore(
        &self,
        request: RestoreRequest,
        upload: Upload,
    ) -> Result<RestoreStarted, StartError> {
        Self::restore(self, request, upload).await
    }

    fn running(&self) -> Option<Running> {
        Self::running(self)
    }

    fn last_backup(&self) -> Option<LastBackup> {
        Self::last_backup(self)
    }

    fn cancel(&self, id: &str, reason: StreamReason) -> bool {
        Self::cancel(self, id, reason)
    }

    async fn wait_idle(&self) {
        Self::wait_idle(self).await;
    }

    fn close(&self) {
        Self::close(self);
    }

    async fn server_info(&self) -> Result<ServerInfo, DatabaseError> {
        Self::server_info(self).await
    }

    async fn tools(&self) -> Vec<ToolInfo> {
        Self::tools(self).await
    }
}

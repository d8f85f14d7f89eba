//! A logical backup into a drill's server.

use super::run::{Backup, Failed};
use crate::logical_restore;
use std::{future::pending, sync::Arc};
use towline_agent::{
    database::Connection,
    restore::{Events, LogicalOptions, Progress},
};

/// Loads everything but the events: a server without accounts takes none, and they would not run.
pub(super) async fn into_drill(
    backup: &Backup,
    connection: Connection,
    progress: &Progress,
) -> Result<(), Failed> {
    let options = LogicalOptions {
        events: Events::Skip,
        ..LogicalOptions::default()
    };
    let backup = logical(backup)?;
    // Whoever ends the drill drops this, and the server goes with the pod.
    logical_restore::into_server(&backup, &connection, &options, progress, pending()).await?;
    Ok(())
}

/// A plan's backup, for the two passes of a logical restore.
pub(super) fn logical(backup: &Backup) -> Result<logical_restore::Backup, Failed> {
    Ok(logical_restore::Backup {
        store: Arc::clone(&backup.store),
        manifest: backup.manifest.clone(),
        identities: Arc::new(backup.identities()?),
    })
}

//! A logical backup into a drill's server.

use super::run::{Backup, Failed};
use crate::reason::RestoreReason;
use towline_agent::{database::Connection, restore::Progress};

pub(super) async fn into_drill(
    _backup: &Backup,
    _connection: Connection,
    _progress: &Progress,
) -> Result<(), Failed> {
    Err(Failed::new(
        RestoreReason::Incompatible,
        "this towline cannot drill logical backups yet",
    ))
}

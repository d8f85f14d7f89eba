//! The graceful stop: nothing new, what runs gets its time, then an honest verdict.

use super::backups::Backups;
use crate::protocol::StreamReason;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Time for a cancelled backup's verdict to reach its reader, and for its tool to be reaped.
const DELIVER: Duration = Duration::from_secs(5);

/// How long a stop takes its time.
#[derive(Clone, Copy, Debug)]
pub struct DrainTimes {
    /// From the signal to the close of the listener: time for `/readyz` to be noticed.
    pub delay: Duration,
    /// From the signal to the cancellation of a backup that still runs.
    pub timeout: Duration,
}

/// Stops the server whose connections `api` serves. Takes at most the longer one of the two times
/// and 10 s more.
pub(super) async fn drain(
    backups: &dyn Backups,
    times: DrainTimes,
    ready: &AtomicBool,
    stop: &watch::Sender<bool>,
    mut api: JoinHandle<()>,
) {
    let begun = Instant::now();
    ready.store(false, Ordering::Release);
    backups.close();
    let running = backups.running();
    tracing::info!(
        delay_s = times.delay.as_secs(),
        timeout_s = times.timeout.as_secs(),
        backup = running.as_ref().map(|running| running.id.as_str()),
        "stopping: no new backups"
    );
    let close = async {
        tokio::time::sleep_until(begun + times.delay).await;
        stop.send_replace(true);
    };
    // The reader may still be taking what the tool left in memory, so its connection counts, not
    // the tool.
    let finish = async {
        if timeout_at(begun + times.timeout, &mut api).await.is_ok() {
            return true;
        }
        if let Some(running) = backups.running() {
            tracing::warn!(
                backup = running.id,
                "drain timeout: the backup is cancelled"
            );
            backups.cancel(&running.id, StreamReason::Draining);
        }
        false
    };
    let ((), finished) = tokio::join!(close, finish);
    if !finished && timeout(DELIVER, &mut api).await.is_err() {
        tracing::warn!("connections that would not end are cut");
        api.abort();
        // Cut connections drop their bodies, and those tell the engine.
        let _ = api.await;
    }
    if timeout(DELIVER, backups.wait_idle()).await.is_err() {
        tracing::error!("a backup tool is still not reaped");
    }
    tracing::info!(
        elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "stopped"
    );
}

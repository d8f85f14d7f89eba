//! A dump keeps the definition of the table that it reads from being changed, and whoever wants to use
//! the table queues up behind whoever wants to change it. That must not last for as long as a slow
//! reader likes.

use super::gate::Gate;
use super::pipeline::QUEUE;
use super::slot::Stop;
use crate::database::{Connection, DatabaseError};
use crate::protocol::StreamReason;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Resolves when at every look for as long as `max_lock` somebody waited for a table while the reader
/// held the tool up. Where it cannot be asked nothing is decided.
pub(super) async fn tables_waited_for(
    connection: &Connection,
    gate: Arc<Gate>,
    max_lock: Duration,
) -> Stop {
    let pause = (max_lock / 10).clamp(Duration::from_millis(200), Duration::from_secs(5));
    let mut since: Option<Instant> = None;
    let mut warned = false;
    loop {
        tokio::time::sleep(pause).await;
        // A reader that keeps up leaves the queue all but empty: then it is the tool that takes its time.
        let waits = gate.queued() >= QUEUE / 4
            && match somebody_waits(connection).await {
                Ok(waits) => waits,
                Err(error) => {
                    if !warned {
                        tracing::warn!(%error, "it cannot be seen whether anybody waits for a table of the dump");
                    }
                    warned = true;
                    false
                }
            };
        if !waits {
            since = None;
            continue;
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= max_lock {
            return Stop::new(
                StreamReason::LockTimeout,
                format!(
                    "the reader is too slow: somebody has waited for a table for {} s while the dump was held up in it; \
                     give the reader a faster way, or use method=physical",
                    max_lock.as_secs()
                ),
            );
        }
    }
}

async fn somebody_waits(connection: &Connection) -> Result<bool, DatabaseError> {
    let mut session = connection.connect().await?;
    let waits = session.somebody_waits_for_a_table().await;
    session.close().await;
    waits
}

//! Tells whoever watches how far a transfer is, at a bounded rate.

use super::Progress;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const INTERVAL: Duration = Duration::from_millis(200);

/// Sends [`Progress`] to its watchers.
pub(crate) struct Reporter<'a> {
    watchers: &'a watch::Sender<Progress>,
    last: Option<Instant>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(watchers: &'a watch::Sender<Progress>) -> Self {
        Self {
            watchers,
            last: None,
        }
    }

    pub(crate) fn started(&self, estimated_bytes: Option<u64>, server_version: Option<String>) {
        self.watchers.send_modify(|p| {
            *p = Progress {
                bytes: 0,
                estimated_bytes,
                last_progress: Some(jiff::Timestamp::now()),
                server_version,
            };
        });
    }

    /// Bytes were received; the watchers hear of it now and then.
    pub(crate) fn received(&mut self, bytes: u64) {
        if self.last.is_none_or(|at| at.elapsed() >= INTERVAL) {
            self.done(bytes);
        }
    }

    /// The last count.
    pub(crate) fn done(&mut self, bytes: u64) {
        self.last = Some(Instant::now());
        self.watchers.send_modify(|p| {
            p.bytes = bytes;
            p.last_progress = Some(jiff::Timestamp::now());
        });
    }
}

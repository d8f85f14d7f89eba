//! Live updates: a stream of events that says when the page should be asked for again.
//!
//! What has changed is not in it: the page is rendered in one place, whether a script or a person asks
//! for it, and whoever may not read it any more learns nothing from a stream that he still has.

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, stream};
use std::{convert::Infallible, time::Duration};
use tokio::{sync::watch, time::sleep};

/// What changes meanwhile comes with one event.
const GATHER: Duration = Duration::from_millis(700);
/// After so long an event comes whatever happened: words such as "2 minutes ago" grow old.
const LONGEST: Duration = Duration::from_secs(30);
/// A browser tries again so long after a stream has broken.
const RETRY: Duration = Duration::from_secs(3);
/// Between two comments that keep proxies from taking the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Tells whoever follows that something was seen to change.
#[derive(Clone, Debug)]
pub struct Changes(watch::Sender<u64>);

impl Default for Changes {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl Changes {
    /// Something has changed. Costs next to nothing while nobody follows.
    pub fn note(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn follow(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// An event after each change, until `stop` says so.
pub(super) fn events(
    changes: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + Send> {
    let stream = stream::unfold(
        (changes, stop, true),
        |(mut changes, mut stop, first)| async move {
            // Without data a browser drops an event.
            let event = Event::default().event("changed").data("again");
            if first {
                // What was missed between the page and the stream.
                changes.mark_unchanged();
                return Some((Ok(event.retry(RETRY)), (changes, stop, false)));
            }
            let next = async {
                tokio::select! {
                    changed = changes.changed() => changed.is_ok(),
                    () = sleep(LONGEST) => true,
                }
            };
            let go_on = tokio::select! {
                // An error means that the server is gone.
                _ = stop.wait_for(|stop| *stop) => false,
                go_on = async { let go_on = next.await; sleep(GATHER).await; go_on } => go_on,
            };
            changes.mark_unchanged();
            go_on.then_some((Ok(event), (changes, stop, false)))
        },
    );
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

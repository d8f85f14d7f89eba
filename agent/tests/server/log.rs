//! The log of a test's thread, as the agent writes it.

use crate::harness::eventually;
use serde_json::Value;
use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use towline_agent::server::ACCESS_LOG_TARGET;

thread_local! {
    /// Where this thread's lines go.
    static SINK: RefCell<Option<Log>> = const { RefCell::new(None) };
}

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// Ends a [`Log`].
pub(crate) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        SINK.set(None);
    }
}

/// Writes into the log of whichever thread it runs in.
struct ToThread;

impl Write for ToThread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        SINK.with_borrow(|sink| {
            if let Some(Log(lines)) = sink {
                lines.lock().unwrap().extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Collects what is logged in this thread from now on.
    pub(crate) fn start() -> (Self, Guard) {
        // One subscriber for all threads: with one for each, a thread that has none can make
        // tracing believe that nobody wants a line.
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .with_writer(|| ToThread)
                .finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            tracing::callsite::rebuild_interest_cache();
        });
        let log = Self::default();
        SINK.set(Some(log.clone()));
        (log, Guard)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Lines of the access log.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line["target"] == ACCESS_LOG_TARGET)
            .collect()
    }

    pub(crate) async fn line(&self) -> Value {
        eventually("an access log line", || self.lines().pop()).await
    }
}

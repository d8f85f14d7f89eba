//! The admin endpoints: `/livez`, `/readyz`, `/metrics`.

use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse,
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::net::TcpListener;

/// Ready once every cache was filled; not ready any more once the process stops.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<AtomicUsize>);

impl Readiness {
    /// Waits for this many caches.
    #[must_use]
    pub fn waiting_for(caches: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(caches)))
    }

    /// One cache was filled.
    pub fn filled(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The process stops.
    pub fn stop(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Serves until `stop` resolves.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(readiness)
        .route("/metrics", get(metrics).with_state(registry));
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    if readiness.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "caches are not filled yet, or the controller stops\n",
        )
    }
}

async fn metrics(State(registry): State<Registry>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => (
            StatusCode::OK,
            [(CONTENT_TYPE, prometheus::TEXT_FORMAT)],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_between_the_last_cache_and_the_end() {
        let readiness = Readiness::waiting_for(2);
        readiness.filled();
        assert!(!readiness.is_ready());
        readiness.filled();
        assert!(readiness.is_ready());
        readiness.stop();
        assert!(!readiness.is_ready());
    }
}

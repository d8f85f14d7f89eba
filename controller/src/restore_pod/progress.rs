//! `GET /progress` of a restore's pod.

use axum::{Json, Router, routing::get};
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinSet};
use towline_agent::restore::Progress;

/// Answers until what it returns is dropped. A restore goes on without anybody looking: an address that
/// cannot be had is told in the log only.
pub async fn serve(listen: SocketAddr, progress: Progress) -> JoinSet<()> {
    let mut task = JoinSet::new();
    let listener = match TcpListener::bind(listen).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!(
                "towline: nobody can look at the progress: cannot listen on {listen}: {error}"
            );
            return task;
        }
    };
    let look = move || async move { Json(progress.look()) };
    let router = Router::new().route("/progress", get(look));
    task.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "nobody can look at the progress");
        }
    });
    task
}

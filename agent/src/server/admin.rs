//! The other listener: probes and metrics, for whoever reaches the port.

use super::{Tls, to_head};
use crate::metrics::render;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use prometheus::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the probes and the scraper are told.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub(super) registry: Registry,
    /// Never depends on the database or on a backup: a sidecar must not take its database out of
    /// service.
    pub(super) ready: Arc<AtomicBool>,
    /// Of the other listener: its metrics follow its files.
    pub(super) tls: Option<Arc<Tls>>,
}

impl Admin {
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        if let Some(tls) = &self.tls
            && request.uri().path() == "/metrics"
        {
            tls.refresh().await;
        }
        let (status, kind, body) = match request.uri().path() {
            _ if request.method() != Method::GET && request.method() != Method::HEAD => (
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "only GET\n".to_owned(),
            ),
            "/livez" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" if self.ready.load(Ordering::Acquire) => {
                (StatusCode::OK, TEXT, "ok\n".to_owned())
            }
            "/readyz" => (
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "the agent is being stopped\n".to_owned(),
            ),
            "/metrics" => match render(&self.registry) {
                Ok(text) => (StatusCode::OK, prometheus::TEXT_FORMAT, text),
                Err(error) => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    format!("{error}\n"),
                ),
            },
            _ => (
                StatusCode::NOT_FOUND,
                TEXT,
                "here are /livez, /readyz and /metrics\n".to_owned(),
            ),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if request.method() == Method::HEAD {
            to_head(response)
        } else {
            response
        }
    }
}

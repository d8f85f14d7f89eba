//! `GET /v1/backup` and `DELETE /v1/backup/{id}`.

use super::negotiate::delivery;
use super::problem::{Kind, Problem};
use super::query;
use super::route::{Api, ApiBody, json};
use crate::backup::{StartError, Started};
use crate::body::Delivery;
use crate::protocol::{
    HEADER_BACKUP_ID, HEADER_ESTIMATED_BYTES, SERVER_TIMING, StreamReason, TRAILER_NAMES,
};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, TRAILER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Either;

/// Starts a backup and streams it.
pub(super) async fn stream(api: &Api, request: &Parts) -> Result<Response<ApiBody>, Problem> {
    let wanted = query::parse(request.uri.query(), &request.headers)?;
    let started = api.backups.start(wanted).await.map_err(refused)?;
    let headers = head(&started, request)?;
    let body = started
        .body
        .deliver_verdict(delivery(request.version, &request.headers));
    let ended = body.ended();
    let mut response = Response::new(Either::Right(body));
    *response.headers_mut() = headers;
    // The access log reads the verdict from it.
    response.extensions_mut().insert(ended);
    Ok(response)
}

fn head(started: &Started, request: &Parts) -> Result<HeaderMap, Problem> {
    let value = |text: String| {
        HeaderValue::try_from(text).map_err(|error| Problem::new(Kind::INTERNAL, error.to_string()))
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(started.content_type));
    // The name is the engine's own, of letters, digits, dots and dashes.
    headers.insert(
        CONTENT_DISPOSITION,
        value(format!("attachment; filename=\"{}\"", started.file_name))?,
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static(HEADER_BACKUP_ID),
        value(started.id.clone())?,
    );
    if let Some(bytes) = started.estimated_bytes {
        headers.insert(
            HeaderName::from_static(HEADER_ESTIMATED_BYTES),
            HeaderValue::from(bytes),
        );
    }
    let delivery = delivery(request.version, &request.headers);
    if delivery != Delivery::Impossible {
        headers.insert(TRAILER, HeaderValue::from_static(TRAILER_NAMES));
    }
    if delivery != Delivery::Asked {
        let timing = format!(
            "precheck;dur={:.1}",
            started.precheck.as_secs_f64() * 1000.0
        );
        headers.insert(HeaderName::from_static(SERVER_TIMING), value(timing)?);
    }
    Ok(headers)
}

/// Cancels a running backup. The answer does not wait for the tool's end; the stream's verdict
/// tells of it.
pub(super) fn cancel(api: &Api, id: &str) -> Result<Response<ApiBody>, Problem> {
    if api.backups.cancel(id, StreamReason::Cancelled) {
        return Ok(json(
            StatusCode::ACCEPTED,
            &serde_json::json!({ "backupId": id }),
        ));
    }
    let detail =
        "no backup with this id is running; it may have ended, and GET /v1/info tells what runs";
    Err(Problem::new(Kind::NOT_FOUND, detail))
}

/// What the engine refuses, as the caller is told.
pub(super) fn refused(error: StartError) -> Problem {
    let detail = error.to_string();
    match error {
        StartError::BadParameter { parameter, .. } => {
            Problem::new(Kind::BAD_PARAMETER, detail).parameter(parameter)
        }
        StartError::Busy { id, retry_after } => Problem::new(Kind::BUSY, detail)
            .backup_id(id)
            .retry_after(retry_after.as_secs().max(1)),
        StartError::MethodNotAvailable { .. } => Problem::new(Kind::METHOD_NOT_AVAILABLE, detail),
        StartError::RestoreNotAllowed => Problem::new(Kind::RESTORE_NOT_ALLOWED, detail),
        StartError::NotEmpty { .. } => Problem::new(Kind::TARGET_NOT_EMPTY, detail),
        StartError::Incompatible { .. } => Problem::new(Kind::INCOMPATIBLE, detail),
        StartError::TargetUnfit { .. } => Problem::new(Kind::TARGET_UNFIT, detail),
        StartError::Unfit { .. } => Problem::new(Kind::UNFIT, detail),
        StartError::Database { .. } => Problem::new(Kind::DATABASE, detail),
        StartError::Draining => Problem::new(Kind::DRAINING, detail).retry_after(10),
    }
}

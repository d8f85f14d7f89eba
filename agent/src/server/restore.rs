//! `POST /v1/restore`.

use super::backup::refused;
use super::negotiate::delivery;
use super::problem::Problem;
use super::query;
use super::route::{Api, ApiBody};
use crate::backup::{RestoreStarted, Upload};
use crate::body::Delivery;
use crate::protocol::{HEADER_RESTORE_ID, PROGRESS_CONTENT_TYPE, TRAILER_NAMES};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, TRAILER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};
use http_body_util::Either;

/// Refuses what can be refused before the archive is sent, then loads it and tells how far it is.
pub(super) async fn load(
    api: &Api,
    request: &Parts,
    upload: Upload,
) -> Result<Response<ApiBody>, Problem> {
    let wanted = query::parse_restore(request.uri.query(), &request.headers)?;
    let started = api.backups.restore(wanted, upload).await.map_err(refused)?;
    let RestoreStarted { id, body, .. } = started;
    let delivery = delivery(request.version, &request.headers);
    let body = body.deliver_verdict(delivery);
    let ended = body.ended();
    let mut response = Response::new(Either::Right(body));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(PROGRESS_CONTENT_TYPE),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(HeaderName::from_static(HEADER_RESTORE_ID), id);
    }
    if delivery != Delivery::Impossible {
        headers.insert(TRAILER, HeaderValue::from_static(TRAILER_NAMES));
    }
    // The access log reads the verdict from it.
    response.extensions_mut().insert(ended);
    Ok(response)
}

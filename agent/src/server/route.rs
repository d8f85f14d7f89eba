//! From a request to `/v1` to its response. A hand-written match, not a router: `HEAD` must not
//! start a backup, nothing is told to strangers (not even which paths exist), and the metrics'
//! labels are a closed set.

use super::access_log::{LoggedBody, Record};
use super::auth::{Auth, Scope};
use super::backups::Backups;
use super::connection::{Closer, InFlight, Remote};
use super::problem::{Kind, Problem};
use super::{backup, info, restore, to_head};
use crate::body::BackupBody;
use crate::metrics::HttpMetrics;
use crate::protocol::{PATH_BACKUP, PATH_INFO, PATH_RESTORE};
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Full};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// A short answer, or a backup.
pub(super) type ApiBody = Either<Full<Bytes>, BackupBody>;

/// What every handler may use.
pub(super) struct Api {
    pub(super) backups: Arc<dyn Backups>,
    pub(super) auth: Auth,
    pub(super) metrics: HttpMetrics,
}

/// The resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Backup,
    OneBackup(&'a str),
    Restore,
    Info,
    Other,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Self {
        if path == PATH_BACKUP {
            return Self::Backup;
        }
        if path == PATH_INFO {
            return Self::Info;
        }
        if path == PATH_RESTORE {
            return Self::Restore;
        }
        match path
            .strip_prefix(PATH_BACKUP)
            .and_then(|rest| rest.strip_prefix('/'))
        {
            Some(id) if !id.is_empty() && !id.contains('/') => Self::OneBackup(id),
            _ => Self::Other,
        }
    }

    /// Label in the metrics.
    const fn label(self) -> &'static str {
        match self {
            Self::Backup => PATH_BACKUP,
            Self::OneBackup(_) => "/v1/backup/{id}",
            Self::Restore => PATH_RESTORE,
            Self::Info => PATH_INFO,
            Self::Other => "other",
        }
    }
}

/// Answers one request. Whatever happens in a handler, the caller gets a response.
pub(super) async fn handle<B>(
    api: Arc<Api>,
    request: Request<B>,
    remote: Remote,
    in_flight: InFlight,
) -> Response<LoggedBody<ApiBody, InFlight>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // No path knows it, so all answers to it are refusals.
    let head = request.method() == Method::HEAD;
    let refuse = |problem: Problem| {
        let response = problem.into_response();
        if head { to_head(response) } else { response }.map(Either::Left)
    };
    let closer = in_flight.closer();
    let metrics = api.metrics.clone();
    let (mut record, request) = Record::begin(request, remote.address, metrics, in_flight);
    let answered = AssertUnwindSafe(answer(&api, &mut record, request, &remote, &closer))
        .catch_unwind()
        .await;
    let response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => refuse(problem),
        Err(_) => {
            record.panicked();
            let detail = "the agent has a fault; its log says more under this request's id";
            refuse(Problem::new(Kind::INTERNAL, detail))
        }
    };
    if matches!(response.body(), Either::Left(_)) {
        closer.answers_shortly();
    }
    record.respond(response)
}

async fn answer<B>(
    api: &Api,
    record: &mut Record<InFlight>,
    request: Request<B>,
    remote: &Remote,
    closer: &Closer,
) -> Result<Response<ApiBody>, Problem>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let route = Route::of(parts.uri.path());
    record.route(route.label());
    if parts.version != Version::HTTP_11 && parts.version != Version::HTTP_2 {
        let detail = "use HTTP/1.1 or HTTP/2: with an older one a cut body would look complete";
        return Err(Problem::new(Kind::HTTP_VERSION, detail).close());
    }
    let authenticated = api.auth.authenticate(&parts.headers, &remote.certificates);
    let peer = match authenticated.await {
        Ok(peer) => peer,
        Err(refused) => {
            if let Some(name) = refused.peer {
                record.peer(name);
            }
            return Err(match (refused.close, parts.version) {
                (false, _) => refused.problem,
                (true, Version::HTTP_11) => refused.problem.close(),
                (true, _) => {
                    closer.close();
                    refused.problem
                }
            });
        }
    };
    record.peer(peer.name());
    if route != Route::Restore && announces_body(&parts.headers) {
        let detail = "send this request without a body";
        let problem = Problem::new(Kind::BODY_NOT_TAKEN, detail);
        return Err(if parts.version == Version::HTTP_11 {
            problem.close()
        } else {
            problem
        });
    }
    let not_allowed = |methods| {
        let detail = format!("this path knows {methods} only");
        Err(Problem::new(Kind::METHOD_NOT_ALLOWED, detail).allow(methods))
    };
    match route {
        Route::Backup if parts.method == Method::GET => {
            peer.require(Scope::Backup)?;
            backup::stream(api, &parts).await
        }
        Route::Backup => not_allowed("GET"),
        Route::OneBackup(id) if parts.method == Method::DELETE => {
            peer.require(Scope::Cancel)?;
            backup::cancel(api, id)
        }
        Route::OneBackup(_) => not_allowed("DELETE"),
        Route::Restore if parts.method == Method::POST => {
            peer.require(Scope::Restore)?;
            let upload = body.map_err(Into::into).boxed_unsync();
            restore::load(api, &parts, upload).await
        }
        Route::Restore => not_allowed("POST"),
        Route::Info if parts.method == Method::GET => Ok(info::get(api).await),
        Route::Info => not_allowed("GET"),
        Route::Other => {
            let detail = format!(
                "here are GET {PATH_BACKUP}, DELETE {PATH_BACKUP}/ID, POST {PATH_RESTORE} and GET {PATH_INFO}"
            );
            Err(Problem::new(Kind::NOT_FOUND, detail))
        }
    }
}

/// Whether the request has a body. Over HTTP/2 one without a length may come unannounced: it is
/// never read, so flow control bounds it.
fn announces_body(headers: &HeaderMap) -> bool {
    let empty = |value: &HeaderValue| value.as_bytes() == b"0";
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|v| !empty(v))
}

/// A short JSON answer.
pub(super) fn json(status: http::StatusCode, value: &impl serde::Serialize) -> Response<ApiBody> {
    // Our own types always serialize.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        assert_eq!(Route::of("/v1/backup"), Route::Backup);
        assert_eq!(Route::of("/v1/backup/abc"), Route::OneBackup("abc"));
        assert_eq!(Route::of("/v1/info"), Route::Info);
        assert_eq!(Route::of("/v1/restore"), Route::Restore);
        for other in [
            "/",
            "/v1",
            "/v1/backup/",
            "/v1/backups",
            "/v1/backup/a/b",
            "/v1/info/",
            "/metrics",
        ] {
            assert_eq!(Route::of(other), Route::Other, "{other}");
        }
    }
}

//! From a request to its answer: who may read, which page, and the headers that all of them have.

use super::{
    Access, Seen, live,
    parts::Shell,
    seen::find,
    view::{Front, JobPage, Notice, RestorePage, SchedulePage, StorePage},
};
use crate::fleet::Fleet;
use askama::Template;
use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{
        HeaderName, HeaderValue, Request, Response, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
            WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    response::{Html, IntoResponse},
    routing::get,
};
use hyper::{body::Incoming, service::Service as _};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use serde::Deserialize;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use towline_agent::server::Caller;

/// Between two log lines about readers that were not let in: anybody can cause any number of those.
const LOG_PAUSE: Duration = Duration::from_secs(10);
/// When to come back while the first lists are not there.
const FIRST_LIST: HeaderValue = HeaderValue::from_static("3");

/// What every answer has: nothing is loaded from elsewhere, run inline, framed, sniffed, embedded,
/// told to others or kept.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// The page and who may read it.
pub(super) struct Site {
    access: Access,
    seen: Seen,
    version: &'static str,
    stop: watch::Receiver<bool>,
    /// When somebody who was not let in was last logged.
    logged: Mutex<Option<Instant>>,
}

impl Site {
    pub(super) fn new(
        access: Access,
        seen: Seen,
        version: &'static str,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            access,
            seen,
            version,
            stop,
            logged: Mutex::default(),
        }
    }

    /// Answers whoever may read. Others learn nothing, not even which paths there are.
    pub(super) async fn answer(
        &self,
        router: Router,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let admitted = self.access.admit(request.headers(), &caller.certificates);
        let mut response = match admitted.await {
            Ok(reader) => {
                let request = request.map(Body::new);
                let answered = TowerToHyperService::new(router).call(request).await;
                let response = answered.unwrap_or_else(|never| match never {});
                let status = response.status().as_u16();
                tracing::debug!(remote = %caller.address, %reader, %method, path, status, "page read");
                response
            }
            Err(denied) => {
                let (status, remote) = (denied.status.as_u16(), caller.address);
                if self.may_log() {
                    tracing::info!(%remote, %method, status, why = denied.detail, "a reader of the status page is not let in");
                }
                let mut response = self.notice(denied.status, "Not allowed", &denied.detail);
                for challenge in denied.challenges {
                    let value = HeaderValue::from_static(challenge);
                    response.headers_mut().append(WWW_AUTHENTICATE, value);
                }
                response
            }
        };
        for (name, value) in HEADERS {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let due = logged.is_none_or(|logged| logged.elapsed() >= LOG_PAUSE);
        if due {
            *logged = Some(Instant::now());
        }
        due
    }

    fn notice(&self, status: StatusCode, heading: &str, text: &str) -> Response<Body> {
        let notice = Notice {
            shell: Shell {
                title: heading.to_owned(),
                version: self.version,
                now: Timestamp::now(),
            },
            heading: heading.to_owned(),
            text: text.to_owned(),
        };
        let mut response = show(&notice);
        *response.status_mut() = status;
        response
    }

    /// Of a replica that does not have all objects yet.
    fn not_yet(&self) -> Response<Body> {
        let mut response = self.notice(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not yet",
            "This replica has not seen the first list of all objects yet. The page appears when it has; if it does not, the controller's log says what is in the way.",
        );
        response.headers_mut().insert(RETRY_AFTER, FIRST_LIST);
        response
    }

    fn not_found(&self, kind: &str, namespace: &str, name: &str) -> Response<Body> {
        let text = format!(
            "There is no {kind} {name:?} in namespace {namespace:?} any more, or it cannot be read."
        );
        self.notice(StatusCode::NOT_FOUND, "Not found", &text)
    }
}

fn show<T: Template>(page: &T) -> Response<Body> {
    match page.render() {
        Ok(html) => Html(html).into_response(),
        // Only a formatter that fails, which a String's does not.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The paths. Anything but GET and HEAD is refused by all of them.
pub(super) fn router(site: &Arc<Site>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/schedules/{namespace}/{name}", get(schedule))
        .route("/jobs/{namespace}/{name}", get(job))
        .route("/restores/{namespace}/{name}", get(restore))
        .route("/stores/{namespace}/{name}", get(store))
        .route("/events", get(events))
        .route(
            "/page.css",
            get(file(
                "text/css; charset=utf-8",
                include_str!("../../templates/page/page.css"),
            )),
        )
        .route(
            "/page.js",
            get(file(
                "text/javascript; charset=utf-8",
                include_str!("../../templates/page/page.js"),
            )),
        )
        .route(
            "/icon.svg",
            get(file(
                "image/svg+xml",
                include_str!("../../templates/page/icon.svg"),
            )),
        )
        .fallback(other)
        .with_state(Arc::clone(site))
}

fn file(
    content_type: &'static str,
    text: &'static str,
) -> impl Fn() -> std::future::Ready<([(HeaderName, &'static str); 1], &'static str)> + Clone {
    move || std::future::ready(([(CONTENT_TYPE, content_type)], text))
}

type Name = Path<(String, String)>;

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    namespace: String,
}

async fn front(
    State(site): State<Arc<Site>>,
    which: Result<Query<Which>, QueryRejection>,
) -> Response<Body> {
    let Some(held) = site.seen.held() else {
        return site.not_yet();
    };
    let wanted = which
        .map(|Query(which)| which.namespace)
        .unwrap_or_default();
    let namespace = Some(wanted.as_str()).filter(|n| !n.is_empty());
    let fleet = Fleet::of(&held.objects(namespace), Timestamp::now());
    show(&Front::new(
        site.version,
        fleet,
        held.namespaces(),
        namespace,
    ))
}

async fn schedule(State(site): State<Arc<Site>>, Path((namespace, name)): Name) -> Response<Body> {
    let Some(held) = site.seen.held() else {
        return site.not_yet();
    };
    let objects = held.objects(Some(&namespace));
    let page = find(&held.schedules, &namespace, &name).and_then(|schedule| {
        let fleet = Fleet::of(&objects, Timestamp::now());
        SchedulePage::new(site.version, &fleet, schedule, &objects)
    });
    match page {
        Some(page) => show(&page),
        None => site.not_found("BackupSchedule", &namespace, &name),
    }
}

async fn job(State(site): State<Arc<Site>>, Path((namespace, name)): Name) -> Response<Body> {
    let Some(held) = site.seen.held() else {
        return site.not_yet();
    };
    match find(&held.jobs, &namespace, &name) {
        Some(job) => show(&JobPage::new(site.version, job, Timestamp::now())),
        None => site.not_found("BackupJob", &namespace, &name),
    }
}

async fn restore(State(site): State<Arc<Site>>, Path((namespace, name)): Name) -> Response<Body> {
    let Some(held) = site.seen.held() else {
        return site.not_yet();
    };
    match find(&held.restores, &namespace, &name) {
        Some(restore) => show(&RestorePage::new(site.version, restore, Timestamp::now())),
        None => site.not_found("RestoreJob", &namespace, &name),
    }
}

async fn store(State(site): State<Arc<Site>>, Path((namespace, name)): Name) -> Response<Body> {
    let Some(held) = site.seen.held() else {
        return site.not_yet();
    };
    let page = find(&held.stores, &namespace, &name).and_then(|store| {
        let fleet = Fleet::of(&held.objects(Some(&namespace)), Timestamp::now());
        StorePage::new(site.version, &fleet, store)
    });
    match page {
        Some(page) => show(&page),
        None => site.not_found("BackupStore", &namespace, &name),
    }
}

async fn events(State(site): State<Arc<Site>>) -> impl IntoResponse {
    live::events(site.seen.changes.follow(), site.stop.clone())
}

async fn other(State(site): State<Arc<Site>>) -> Response<Body> {
    site.notice(
        StatusCode::NOT_FOUND,
        "Not found",
        "There is no such page. The overview has links to all there are.",
    )
}

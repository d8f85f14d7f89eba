//! Whether an installed controller works, as `helm test` asks: it is ready, serves its metrics, a replica of it
//! leads, and the custom resources are served and may be read where it works.

use crate::{
    api::{BackupJob, BackupSchedule, BackupStore, RestoreJob},
    scope::{self, scopes},
};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{NamespaceResourceScope, api::coordination::v1::Lease};
use kube::{Api, Client, Resource, api::ListParams};
use std::{fmt::Debug, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use url::Url;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// For one answer of the controller.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of one answer of the controller.
const MAX_BYTES: usize = 64 << 20;

/// Flags of `towline-controller check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Where the controller serves /readyz and /metrics: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    url: Url,

    /// Lease by which replicas agree on one that works
    #[arg(long, default_value = "towline-controller", value_name = "NAME")]
    lease_name: String,

    /// Namespace of the Lease. Default: that of this process
    #[arg(long, value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Namespaces that the controller works in. Default: all
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE,…")]
    watch_namespaces: Vec<String>,

    /// Seconds to wait for what is not there yet
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
}

/// What does not hold.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

/// Checks one thing after the other, and tells of each on standard output.
///
/// # Errors
/// [`Failed`]: the first that does not hold.
pub async fn run(args: CheckArgs) -> Result<(), Failed> {
    let deadline = Instant::now() + Duration::from_secs(u64::from(args.timeout));
    holds(deadline, || ready(&args.url)).await?;
    holds(deadline, || metrics(&args.url)).await?;
    let client = Client::try_default()
        .await
        .map_err(|e| Failed(format!("the Kubernetes API cannot be reached: {e}")))?;
    let leases = match &args.lease_namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::default_namespaced(client.clone()),
    };
    holds(deadline, || leader(&leases, &args.lease_name)).await?;
    for scope in scopes(&args.watch_namespaces) {
        holds(deadline, || served::<BackupStore>(&client, scope)).await?;
        holds(deadline, || served::<BackupSchedule>(&client, scope)).await?;
        holds(deadline, || served::<BackupJob>(&client, scope)).await?;
        holds(deadline, || served::<RestoreJob>(&client, scope)).await?;
    }
    Ok(())
}

/// Tries until it holds or the time is over.
async fn holds<F: Future<Output = Result<String, String>>>(
    deadline: Instant,
    check: impl Fn() -> F,
) -> Result<(), Failed> {
    loop {
        match check().await {
            Ok(good) => {
                println!("ok: {good}");
                return Ok(());
            }
            Err(problem) if Instant::now() >= deadline => return Err(Failed(problem)),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn ready(url: &Url) -> Result<String, String> {
    match get(url, "/readyz").await? {
        (200, _) => Ok(format!("the controller is ready at {url}")),
        (status, text) => Err(format!(
            "the controller is not ready: {status} {}; see its log",
            text.trim()
        )),
    }
}

async fn metrics(url: &Url) -> Result<String, String> {
    let (status, text) = get(url, "/metrics").await?;
    if status != 200 {
        return Err(format!("{url} answers /metrics by {status}"));
    }
    Ok(format!("its metrics are served: {}", build(&text)?))
}

/// The line of the metrics that says who serves them.
fn build(text: &str) -> Result<&str, String> {
    let line = text
        .lines()
        .find(|line| line.starts_with("towline_build_info{"));
    line.ok_or_else(|| "what is served at /metrics is not the controller's".to_owned())
}

/// The status and the text of one answer.
async fn get(url: &Url, path: &str) -> Result<(u16, String), String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!(
            "{url} does not answer ({error}): has the controller a pod that is ready, and may this one reach it"
        )
    };
    let host = url
        .host_str()
        .filter(|_| url.scheme() == "http")
        .ok_or_else(|| format!("--url {url} is not http://HOST:PORT"))?;
    let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
    let exchange = async {
        let stream = TcpStream::connect(&authority)
            .await
            .map_err(|e| failed(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        tokio::spawn(connection);
        let request = http::Request::get(path)
            .header(http::header::HOST, &authority)
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BYTES)
            .collect()
            .await
            .map_err(|e| failed(&e))?
            .to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    match timeout(PATIENCE, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(failed(&format_args!("not within {} s", PATIENCE.as_secs()))),
    }
}

async fn leader(leases: &Api<Lease>, name: &str) -> Result<String, String> {
    let lease = leases
        .get(name)
        .await
        .map_err(|e| format!("Lease {name} cannot be read: {e}"))?;
    led(&lease, Timestamp::now()).ok_or_else(|| {
        format!("no replica holds Lease {name}: see the controller's log for why not")
    })
}

/// Who leads. What has not been renewed for twice as long as it is held was left by somebody who is gone.
fn led(lease: &Lease, now: Timestamp) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_deref().filter(|h| !h.is_empty())?;
    let held = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds?) * 2);
    let renewed = spec.renew_time.as_ref()?.0;
    (now.duration_since(renewed) < held).then(|| format!("{holder} leads"))
}

async fn served<K>(client: &Client, scope: Option<&str>) -> Result<String, String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + for<'de> serde::Deserialize<'de>,
{
    let api = scope::api::<K>(client, scope);
    let one = ListParams::default().limit(1);
    let place = scope.map_or_else(|| "all namespaces".to_owned(), |n| format!("namespace {n}"));
    let kind = K::kind(&());
    match api.list_metadata(&one).await {
        Ok(_) => Ok(format!(
            "{} of {} can be read in {place}",
            kind,
            K::api_version(&())
        )),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(format!(
            "{}.{} of {} is not served: install the custom resource definitions (crds.install)",
            K::plural(&()),
            K::group(&()),
            K::version(&())
        )),
        Err(error) => Err(format!("{kind} cannot be read in {place}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lease_that_nobody_renews_is_led_by_nobody() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        for (spec, leads) in [
            (json!({}), false),
            (
                json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:59.000000Z"}),
                false,
            ),
            (
                json!({"holderIdentity": "a", "leaseDurationSeconds": 30, "renewTime": "2026-01-01T00:00:50.000000Z"}),
                true,
            ),
            (
                json!({"holderIdentity": "a", "leaseDurationSeconds": 30, "renewTime": "2026-01-01T00:00:00.000000Z"}),
                false,
            ),
        ] {
            let lease = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(led(&lease, now).is_some(), leads, "{spec}");
        }
    }

    #[test]
    fn metrics_of_somebody_else_are_not_ours() {
        assert!(build("go_goroutines 5\n").is_err());
        let ours = "# TYPE towline_build_info gauge\ntowline_build_info{version=\"1\"} 1\n";
        assert_eq!(build(ours).unwrap(), "towline_build_info{version=\"1\"} 1");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_named() {
        let url: Url = "http://127.0.0.1:1".parse().unwrap();
        let error = get(&url, "/readyz").await.unwrap_err();
        assert!(
            error.contains("http://127.0.0.1:1/ does not answer"),
            "{error}"
        );
        let url: Url = "https://a".parse().unwrap();
        let error = get(&url, "/readyz").await.unwrap_err();
        assert!(error.contains("--url"), "{error}");
    }
}

//! Which agent an attempt asks, and how it lets us in.

mod secrets;

use crate::{
    agent_client::Endpoint,
    api::{
        BackupJob,
        job::{DEFAULT_AGENT_PORT, PodSelector, SelectorOperator},
    },
    config::AllowedHosts,
    context::Context,
    error::Error,
    reason::{FailureReason, Retry},
    transfer::Failure,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::ListParams,
    core::{Expression, Selector},
};
use std::net::IpAddr;

/// The agent that was chosen.
#[derive(Clone, Debug)]
pub struct Agent {
    /// How it is reached.
    pub endpoint: Endpoint,
    /// Its pod, when it was chosen by selector.
    pub pod: Option<String>,
}

/// Why no agent was chosen.
#[derive(Debug)]
pub enum NotChosen {
    /// The attempt has failed: `NoAgent` or `InvalidSpec`; the message says what to check.
    Failed(Failure),
    /// The API server did not answer: that is not the job's fault.
    Error(Error),
}

impl From<Failure> for NotChosen {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl NotChosen {
    /// What may not be read is the job's failure, so that its status says so.
    fn of(error: kube::Error, reason: FailureReason, what: &str) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 403 => {
                let message = format!("the controller may not read {what}: {}", status.message);
                Self::Failed(failure(reason, Retry::Counted, message))
            }
            _ => Self::Error(error.into()),
        }
    }
}

/// Chooses an agent.
///
/// # Errors
/// [`NotChosen`].
pub async fn choose(
    context: &Context,
    namespace: &str,
    job: &BackupJob,
) -> Result<Agent, NotChosen> {
    let source = &job.spec.source;
    let (base, pod) = match (&source.pod_selector, &source.url) {
        (Some(selector), None) => {
            let selector = to_selector(selector);
            let pods = Api::<Pod>::namespaced(context.client.clone(), namespace)
                .list(&ListParams::default().labels_from(&selector))
                .await
                .map_err(|e| NotChosen::of(e, FailureReason::NoAgent, "pods"))?;
            let (name, address) = pick(&pods.items, &selector.to_string(), namespace)?;
            let port = source.port.unwrap_or(DEFAULT_AGENT_PORT);
            let scheme = if source.tls.is_some() {
                "https"
            } else {
                "http"
            };
            let address = std::net::SocketAddr::new(address, port);
            (format!("{scheme}://{address}"), Some(name))
        }
        (None, Some(url)) => {
            let allowed = &context.config.allowed_source_hosts;
            (check_url(url, source.tls.is_some(), allowed)?, None)
        }
        _ => {
            return Err(failure(
                FailureReason::InvalidSpec,
                Retry::Never,
                "set exactly one of spec.source.podSelector and spec.source.url".into(),
            )
            .into());
        }
    };
    let base = url::Url::parse(&base).map_err(|e| {
        failure(
            FailureReason::InvalidSpec,
            Retry::Never,
            format!("{base:?} is not a URL: {e}"),
        )
    })?;
    let secrets = secrets::Secrets::new(&context.client, namespace);
    Ok(Agent {
        endpoint: Endpoint {
            base,
            token: secrets.token(source.auth.as_ref()).await?,
            tls: secrets.tls(source.tls.as_ref()).await?,
            allow_local_addresses: false,
        },
        pod,
    })
}

/// The first ready pod by name, so that attempts keep to one while it is ready.
fn pick(pods: &[Pod], selector: &str, namespace: &str) -> Result<(String, IpAddr), Failure> {
    let mut pods: Vec<_> = pods.iter().collect();
    pods.sort_by_key(|pod| pod.name_any());
    let mut passed_over = Vec::new();
    for pod in &pods {
        match address_of_ready(pod) {
            Ok(address) => return Ok((pod.name_any(), address)),
            Err(why) => passed_over.push(format!("{} {why}", pod.name_any())),
        }
    }
    let message = if pods.is_empty() {
        format!(
            "no pod in namespace {namespace} matches {selector}: check spec.source.podSelector against kubectl get pods --show-labels"
        )
    } else {
        let shown = passed_over
            .iter()
            .take(5)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        format!(
            "none of the {} pods that match {selector} is ready ({shown}): see kubectl describe pod -l '{selector}'",
            pods.len()
        )
    };
    Err(failure(FailureReason::NoAgent, Retry::Counted, message))
}

fn address_of_ready(pod: &Pod) -> Result<IpAddr, String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Err("is being deleted".into());
    }
    let status = pod.status.as_ref();
    let ready = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
    if ready.is_none_or(|c| c.status != "True") {
        let why = ready
            .and_then(|c| c.message.clone())
            .or_else(|| status.and_then(|s| s.phase.clone()));
        return Err(format!(
            "is not ready ({})",
            why.unwrap_or_else(|| "no status yet".into())
        ));
    }
    status
        .and_then(|s| s.pod_ip.as_deref())
        .and_then(|ip| ip.parse().ok())
        .ok_or_else(|| "has no address".into())
}

/// Our bounded selector as kube's.
fn to_selector(selector: &PodSelector) -> Selector {
    let labels = selector
        .match_labels
        .iter()
        .map(|(k, v)| Expression::Equal(k.clone(), v.clone()));
    let expressions = selector.match_expressions.iter().map(|r| {
        let (key, values) = (r.key.clone(), r.values.iter().cloned().collect());
        match r.operator {
            SelectorOperator::In => Expression::In(key, values),
            SelectorOperator::NotIn => Expression::NotIn(key, values),
            SelectorOperator::Exists => Expression::Exists(key),
            SelectorOperator::DoesNotExist => Expression::DoesNotExist(key),
        }
    });
    labels.chain(expressions).collect()
}

fn check_url(url: &str, tls: bool, allowed: &AllowedHosts) -> Result<String, Failure> {
    let invalid = |message: String| failure(FailureReason::InvalidSpec, Retry::Never, message);
    let parsed = url::Url::parse(url)
        .map_err(|e| invalid(format!("spec.source.url {url:?} is not a URL: {e}")))?;
    let scheme = if tls { "https" } else { "http" };
    if parsed.scheme() != scheme
        || parsed.path() != "/"
        || parsed.query().is_some()
        || !parsed.username().is_empty()
        || parsed.password().is_some()
    {
        let tls = if tls { "with" } else { "without" };
        return Err(invalid(format!(
            "spec.source.url must be {scheme}://host or {scheme}://host:port, {tls} spec.source.tls"
        )));
    }
    let host = parsed.host_str().unwrap_or_default();
    if !allowed.allow(host) {
        return Err(invalid(format!(
            "spec.source.url names {host}, which is not among the hosts that this controller asks: use podSelector, or have the host added to --allowed-source-hosts"
        )));
    }
    Ok(url.to_owned())
}

fn failure(reason: FailureReason, retry: Retry, message: String) -> Failure {
    Failure {
        reason,
        message,
        retry,
        retry_after: None,
        bytes: 0,
        complete_tried: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, ready: &str, ip: Option<&str>) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready, "message": "containers with unready status: [mariadb]"}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_first_ready_pod_is_taken() {
        let mut deleted = pod("db-0", "True", Some("10.0.0.1"));
        deleted.metadata.deletion_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
        );
        let pods = [
            pod("db-3", "True", Some("10.0.0.4")),
            pod("db-1", "False", Some("10.0.0.2")),
            deleted,
            pod("db-2", "True", Some("10.0.0.3")),
        ];
        let (name, address) = pick(&pods, "app=db", "shop").unwrap();
        assert_eq!(
            (name.as_str(), address.to_string().as_str()),
            ("db-2", "10.0.0.3")
        );
    }

    #[test]
    fn without_one_the_message_says_what_to_check() {
        for (pods, parts) in [
            (
                vec![],
                vec!["no pod in namespace shop matches app=db", "podSelector"],
            ),
            (
                vec![pod("db-0", "False", Some("10.0.0.1"))],
                vec!["app=db", "db-0 is not ready", "unready status: [mariadb]"],
            ),
            (vec![pod("db-0", "True", None)], vec!["db-0 has no address"]),
            (vec![Pod::default()], vec!["no status yet"]),
        ] {
            let failure = pick(&pods, "app=db", "shop").unwrap_err();
            assert_eq!(
                (failure.reason, failure.retry),
                (FailureReason::NoAgent, Retry::Counted)
            );
            for part in parts {
                assert!(failure.message.contains(part), "{}", failure.message);
            }
        }
    }

    #[test]
    fn a_url_needs_its_host_allowed() {
        let allowed = AllowedHosts::parse(vec!["db.example.org".into()]).unwrap();
        assert!(check_url("http://db.example.org:8474", false, &allowed).is_ok());
        assert!(check_url("https://db.example.org:8474", true, &allowed).is_ok());
        for (url, tls, part) in [
            ("http://other.example.org", false, "--allowed-source-hosts"),
            ("https://other.example.org", true, "--allowed-source-hosts"),
            (
                "http://db.example.org@evil.example",
                false,
                "must be http://",
            ),
            ("http://db.example.org/v1", false, "must be http://"),
            ("https://db.example.org", false, "without spec.source.tls"),
            ("http://db.example.org", true, "must be https://"),
            ("db", false, "not a URL"),
        ] {
            let failure = check_url(url, tls, &allowed).unwrap_err();
            assert_eq!(
                (failure.reason, failure.retry),
                (FailureReason::InvalidSpec, Retry::Never),
                "{url}"
            );
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }

    #[test]
    fn the_selector_is_kubes() {
        let selector: PodSelector = serde_json::from_value(json!({
            "matchLabels": {"app": "db"},
            "matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["proxy"]}, {"key": "old", "operator": "DoesNotExist"}],
        }))
        .unwrap();
        assert_eq!(
            to_selector(&selector).to_string(),
            "app=db,role notin (proxy),!old"
        );
    }
}

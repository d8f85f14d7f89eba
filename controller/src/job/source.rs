//! Which agent an attempt asks, and how it lets us in.

mod prefer;
mod secrets;
mod url_host;

use crate::{
    agent_client::{self, Endpoint},
    api::job::{DEFAULT_AGENT_PORT, PodSelector, Prefer, SelectorOperator, Source},
    context::Context,
    error::Error,
    reason::{FailureReason, Retry},
    transfer::Failure,
};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::ListParams,
    core::{Expression, Selector},
};
use prefer::{Candidate, Choice};
use std::{net::IpAddr, time::Duration};

/// How long an agent has to say what its server is, and how many are asked at once.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const ASKED_AT_ONCE: usize = 8;

/// The agent that was chosen.
#[derive(Clone, Debug)]
pub struct Agent {
    /// How it is reached.
    pub endpoint: Endpoint,
    /// Its pod, when it was chosen by selector.
    pub pod: Option<String>,
    /// `primary` or `replica`, when it was chosen by that.
    pub role: Option<String>,
    /// Why other pods were not chosen.
    pub passed_over: Vec<String>,
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

/// Chooses an agent; `uid` is that of the job, so that several do not all take the same one.
///
/// # Errors
/// [`NotChosen`].
pub async fn choose(
    context: &Context,
    namespace: &str,
    uid: &str,
    source: Option<&Source>,
) -> Result<Agent, NotChosen> {
    let Some(source) = source else {
        return Err(failure(
            FailureReason::InvalidSpec,
            Retry::Never,
            "set spec.source: whose data is backed up".into(),
        )
        .into());
    };
    let secrets = secrets::Secrets::new(&context.client, namespace);
    let open = async |base: String| -> Result<Endpoint, NotChosen> {
        let base = url::Url::parse(&base).map_err(|e| {
            failure(
                FailureReason::InvalidSpec,
                Retry::Never,
                format!("{base:?} is not a URL: {e}"),
            )
        })?;
        Ok(Endpoint {
            base,
            token: secrets.token(source.auth.as_ref()).await?,
            tls: secrets.tls(source.tls.as_ref()).await?,
            allow_local_addresses: false,
        })
    };
    match (&source.pod_selector, &source.url) {
        (Some(selector), None) => {
            let selector = to_selector(selector);
            let pods = Api::<Pod>::namespaced(context.client.clone(), namespace)
                .list(&ListParams::default().labels_from(&selector))
                .await
                .map_err(|e| NotChosen::of(e, FailureReason::NoAgent, "pods"))?;
            let (ready, not_ready) = ready(pods.items);
            let none = |passed_over: &[String]| {
                no_agent(passed_over, &selector.to_string(), namespace, source.prefer)
            };
            let Some(first) = ready.first().cloned() else {
                return Err(none(&not_ready).into());
            };
            let endpoint = open(base_of(source, first.address)).await?;
            if source.prefer == Prefer::Any {
                return Ok(Agent {
                    endpoint,
                    pod: Some(first.pod),
                    role: None,
                    passed_over: not_ready,
                });
            }
            let at = |address| -> Result<Endpoint, String> {
                let base = base_of(source, address).parse();
                Ok(Endpoint {
                    base: base.map_err(|e| format!("its address is of no use: {e}"))?,
                    ..endpoint.clone()
                })
            };
            let asked = stream::iter(ready)
                .map(async |candidate| {
                    let info = match at(candidate.address) {
                        Ok(endpoint) => agent_client::info(&endpoint, ASK_TIMEOUT)
                            .await
                            .map_err(|e| e.message),
                        Err(why) => Err(why),
                    };
                    (candidate, info)
                })
                .buffered(ASKED_AT_ONCE)
                .collect()
                .await;
            let Choice {
                chosen,
                mut passed_over,
            } = prefer::choose(source.prefer, source.max_replica_lag_seconds, uid, asked);
            passed_over.extend(not_ready);
            let Some((chosen, role)) = chosen else {
                return Err(none(&passed_over).into());
            };
            let endpoint = at(chosen.address)
                .map_err(|why| failure(FailureReason::NoAgent, Retry::Counted, why))?;
            Ok(Agent {
                endpoint,
                pod: Some(chosen.pod),
                role: Some(role),
                passed_over,
            })
        }
        (None, Some(url)) => {
            let allowed = &context.config.allowed_source_hosts;
            Ok(Agent {
                endpoint: open(url_host::check(url, source.tls.is_some(), allowed)?).await?,
                pod: None,
                role: None,
                passed_over: Vec::new(),
            })
        }
        _ => Err(failure(
            FailureReason::InvalidSpec,
            Retry::Never,
            "set exactly one of spec.source.podSelector and spec.source.url".into(),
        )
        .into()),
    }
}

fn base_of(source: &Source, address: IpAddr) -> String {
    let scheme = if source.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let port = source.port.unwrap_or(DEFAULT_AGENT_PORT);
    format!("{scheme}://{}", std::net::SocketAddr::new(address, port))
}

/// Ready pods by name, so that attempts keep to one while it is ready; and why others are not.
fn ready(mut pods: Vec<Pod>) -> (Vec<Candidate>, Vec<String>) {
    pods.sort_by_key(ResourceExt::name_any);
    let mut ready = Vec::new();
    let mut not_ready = Vec::new();
    for pod in &pods {
        let name = pod.name_any();
        match address_of_ready(pod) {
            Ok(address) => ready.push(Candidate { pod: name, address }),
            Err(why) => not_ready.push(format!("{name} {why}")),
        }
    }
    (ready, not_ready)
}

fn no_agent(passed_over: &[String], selector: &str, namespace: &str, prefer: Prefer) -> Failure {
    let message = if passed_over.is_empty() {
        format!(
            "no pod in namespace {namespace} matches {selector}: check spec.source.podSelector against kubectl get pods --show-labels"
        )
    } else {
        let (n, shown) = (passed_over.len(), some_of(passed_over));
        match prefer {
            Prefer::Any => format!(
                "none of the {n} pods that match {selector} is ready ({shown}): see kubectl describe pod -l '{selector}'"
            ),
            prefer => format!(
                "none of the {n} pods that match {selector} fits spec.source.prefer {prefer:?} ({shown})"
            ),
        }
    };
    failure(FailureReason::NoAgent, Retry::Counted, message)
}

/// The first few of them.
#[must_use]
pub fn some_of(passed_over: &[String]) -> String {
    let mut shown = passed_over.iter().take(5).cloned().collect::<Vec<_>>();
    if passed_over.len() > shown.len() {
        shown.push(format!("and {} more", passed_over.len() - shown.len()));
    }
    shown.join(", ")
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
    fn ready_pods_come_by_name() {
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
        let (ready, not_ready) = ready(pods.to_vec());
        let names: Vec<_> = ready.iter().map(|c| c.pod.as_str()).collect();
        assert_eq!(names, ["db-2", "db-3"]);
        assert_eq!(ready[0].address.to_string(), "10.0.0.3");
        assert_eq!(not_ready.len(), 2, "{not_ready:?}");
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
            let (ready, not_ready) = ready(pods);
            assert!(ready.is_empty());
            let failure = no_agent(&not_ready, "app=db", "shop", Prefer::Any);
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

//! What has to be done before the controller goes for good: it is stopped, and its finalizer is taken off every
//! BackupJob. Without the controller nobody would, and the jobs that have it, their namespaces and the
//! definition could never be deleted. No backup is deleted.

use crate::{
    api::BackupJob,
    job::deletion::{FINALIZER, without_finalizer},
    scope::{self, scopes},
};
use clap::Args;
use futures::{StreamExt as _, stream};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::Selector,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Objects that are asked for at once.
const PAGE: u32 = 500;
/// Finalizers that are taken off at once.
const AT_ONCE: usize = 16;
/// Between two looks at what is to go.
const PAUSE: Duration = Duration::from_millis(500);
/// Problems that are told of.
const TOLD: usize = 5;

/// Flags of `towline-controller remove-finalizers`.
#[derive(Args, Clone, Debug)]
pub struct RemoveFinalizersArgs {
    /// Deployment of the controller, in the namespace of this process. It is scaled to 0 first, for a running controller puts its finalizer back. Default: nothing is stopped
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,

    /// Namespaces to work in. Default: all
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE,…")]
    watch_namespaces: Vec<String>,

    /// Seconds after which it is given up
    #[arg(long, default_value = "240", value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
}

/// Why not every finalizer is gone.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// No way to the API server.
    #[error("the Kubernetes API cannot be reached: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The API server did not let us.
    #[error("{doing}: {error}")]
    Api {
        /// What was tried.
        doing: String,
        /// What it said.
        #[source]
        error: Box<kube::Error>,
    },
    /// The Deployment's selector makes no sense.
    #[error("Deployment {0} has a selector that cannot be read")]
    Selector(String),
    /// The controller still runs.
    #[error(
        "the controller still runs after {seconds} s: {pods}. Find out why with kubectl describe pod; kubectl delete pod --force where their node is lost"
    )]
    Running {
        /// How long it was waited for.
        seconds: u64,
        /// Its pods.
        pods: String,
    },
    /// Some objects still have it.
    #[error(
        "{count} BackupJobs still have the finalizer {FINALIZER} after {seconds} s: {problems}"
    )]
    Left {
        /// So many.
        count: usize,
        /// How long it was tried.
        seconds: u64,
        /// What was said of some of them.
        problems: String,
    },
}

impl UninstallError {
    fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Api {
            doing,
            error: Box::new(error),
        }
    }
}

/// [`UninstallError`], and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}.\nThe controller may be stopped already: `helm uninstall` again goes on from here, `helm upgrade` starts it again. \
     `helm uninstall --no-hooks` goes without this; no BackupJob with the finalizer can be deleted then before it is \
     taken off by hand: kubectl patch bkjob NAME -n NAMESPACE --type merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'"
)]
pub struct NotReadyToGo(#[from] UninstallError);

/// Stops the controller and takes its finalizer off, telling on standard output what was done.
///
/// # Errors
/// [`NotReadyToGo`]. What was done until then stays done; it can be run again.
pub async fn run(args: RemoveFinalizersArgs) -> Result<(), NotReadyToGo> {
    Ok(stop_and_remove(args).await?)
}

async fn stop_and_remove(args: RemoveFinalizersArgs) -> Result<(), UninstallError> {
    let client = Client::try_default()
        .await
        .map_err(|e| UninstallError::Client(Box::new(e)))?;
    let patience = Duration::from_secs(u64::from(args.timeout));
    let deadline = Instant::now() + patience;
    if let Some(name) = &args.deployment {
        stop(&client, name, deadline, patience).await?;
    }
    let mut done = Done::default();
    for scope in scopes(&args.watch_namespaces) {
        let api = scope::api(&client, scope);
        remove(&client, &api, deadline, patience, &mut done).await?;
    }
    println!("{done}");
    Ok(())
}

/// Scales the Deployment to 0 and waits until no pod of it is left.
async fn stop(
    client: &Client,
    name: &str,
    deadline: Instant,
    patience: Duration,
) -> Result<(), UninstallError> {
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    let found = deployments
        .get_opt(name)
        .await
        .map_err(UninstallError::api(format!(
            "Deployment {name} cannot be read"
        )))?;
    let Some(found) = found else {
        println!("there is no Deployment {name}: nothing is stopped");
        return Ok(());
    };
    let selector = found.spec.map(|spec| spec.selector).unwrap_or_default();
    let selector =
        Selector::try_from(selector).map_err(|_| UninstallError::Selector(name.to_owned()))?;
    let none = Patch::Merge(serde_json::json!({"spec": {"replicas": 0}}));
    deployments
        .patch_scale(name, &PatchParams::default(), &none)
        .await
        .map_err(UninstallError::api(format!(
            "Deployment {name} cannot be scaled to 0"
        )))?;
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let ours = ListParams::default().labels_from(&selector);
    loop {
        let list = pods.list(&ours).await.map_err(UninstallError::api(format!(
            "the pods of Deployment {name} cannot be listed"
        )))?;
        let running = running(&list.items);
        if running.is_empty() {
            println!("Deployment {name} is stopped: no pod of it is left");
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(UninstallError::Running {
                seconds: patience.as_secs(),
                pods: running.join(", "),
            });
        }
        sleep(PAUSE).await;
    }
}

/// Pods that may still act. One that has ended stays in the list until somebody removes it.
fn running(pods: &[Pod]) -> Vec<String> {
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let running = pods.iter().filter(|pod| !ended(pod));
    running.map(ResourceExt::name_any).collect()
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    /// Objects that the finalizer was taken off.
    freed: usize,
    /// Of those, whose deletion somebody had asked for before.
    deleted: usize,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { freed, deleted } = self;
        write!(
            f,
            "the finalizer {FINALIZER} was taken off {freed} BackupJobs"
        )?;
        if *deleted > 0 {
            write!(
                f,
                "; {deleted} of them were being deleted and are gone, and what they had in a store stays there"
            )?;
        }
        Ok(())
    }
}

/// One pass over all objects: what was said of those that could not be changed.
#[derive(Debug, Default)]
struct Pass {
    left: usize,
    problems: Vec<String>,
}

/// Takes the finalizer off until no object of the scope has it. An object that changes meanwhile is met again
/// in the next pass.
async fn remove(
    client: &Client,
    api: &Api<BackupJob>,
    deadline: Instant,
    patience: Duration,
    done: &mut Done,
) -> Result<(), UninstallError> {
    loop {
        let pass = pass(client, api, done).await;
        let pass = match pass {
            // The definition is not there: nor are objects.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return Err(UninstallError::api("BackupJobs cannot be listed")(
                    kube::Error::Api(status),
                ));
            }
            Err(error) => Pass {
                left: 1,
                problems: vec![format!("BackupJobs cannot be listed: {error}")],
            },
            Ok(pass) => pass,
        };
        if pass.left == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(UninstallError::Left {
                count: pass.left,
                seconds: patience.as_secs(),
                problems: pass.problems.join("; "),
            });
        }
        sleep(PAUSE).await;
    }
}

async fn pass(client: &Client, api: &Api<BackupJob>, done: &mut Done) -> Result<Pass, kube::Error> {
    let mut pass = Pass::default();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let list = match api.list_metadata(&params).await {
            // The list was read for so long that its rest is no longer kept. What is left is found by another.
            Err(kube::Error::Api(status)) if status.code == 410 => {
                pass.left += 1;
                pass.problems.push("the list of BackupJobs expired".into());
                return Ok(pass);
            }
            list => list?,
        };
        let held = list.items.into_iter().filter_map(|object| {
            let change = without_ours(&object.metadata)?;
            Some((object.metadata, change))
        });
        let mut changes = stream::iter(held)
            .map(|(metadata, change)| {
                let (namespace, name) = (
                    metadata.namespace.clone().unwrap_or_default(),
                    metadata.name.clone().unwrap_or_default(),
                );
                let api = Api::<BackupJob>::namespaced(client.clone(), &namespace);
                async move {
                    let result = api
                        .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&change))
                        .await;
                    (
                        namespace,
                        name,
                        metadata.deletion_timestamp.is_some(),
                        result,
                    )
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some((namespace, name, deleted, result)) = changes.next().await {
            match result {
                Ok(_) => {
                    done.freed += 1;
                    done.deleted += usize::from(deleted);
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    pass.left += 1;
                    if pass.problems.len() < TOLD {
                        pass.problems.push(format!("{namespace}/{name}: {error}"));
                    }
                }
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(pass),
        }
    }
}

/// The change that takes our finalizer off, and no other; `None` where it is not on.
fn without_ours(metadata: &ObjectMeta) -> Option<serde_json::Value> {
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|f| f == FINALIZER).then(|| {
        serde_json::json!({"metadata": {
            "uid": metadata.uid,
            // Others' may have come since.
            "resourceVersion": metadata.resource_version,
            "finalizers": without_finalizer(finalizers),
        }})
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_our_finalizer_goes() {
        let change = |finalizers: serde_json::Value| {
            let metadata = json!({"uid": "u", "resourceVersion": "7", "finalizers": finalizers});
            without_ours(&serde_json::from_value(metadata).unwrap())
        };
        assert_eq!(change(json!(null)), None);
        assert_eq!(change(json!(["example.com/theirs"])), None);
        let only_ours = change(json!([FINALIZER])).unwrap();
        assert_eq!(
            only_ours["metadata"],
            json!({"uid": "u", "resourceVersion": "7", "finalizers": []})
        );
        let both = change(json!(["example.com/theirs", FINALIZER])).unwrap();
        assert_eq!(
            both["metadata"]["finalizers"],
            json!(["example.com/theirs"])
        );
    }

    #[test]
    fn a_pod_that_has_ended_is_not_waited_for() {
        let pods: Vec<Pod> = [
            ("a", "Running"),
            ("b", "Failed"),
            ("c", "Pending"),
            ("d", "Succeeded"),
        ]
        .map(|(name, phase)| {
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"phase": phase}}))
                .unwrap()
        })
        .into();
        assert_eq!(running(&pods), ["a", "c"]);
    }

    #[test]
    fn it_says_what_became_of_the_backups() {
        let done = |freed, deleted| Done { freed, deleted }.to_string();
        assert!(
            done(3, 0).ends_with("taken off 3 BackupJobs"),
            "{}",
            done(3, 0)
        );
        assert!(done(3, 1).ends_with("stays there"), "{}", done(3, 1));
    }
}

//! The cluster that a kubeconfig names, with the rights of who calls.

use super::{
    error::{Asked, Exit, Failure},
    kind::object_name,
};
use crate::fleet::Malformed;
use clap::Args;
use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ApiResource, ListParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::DynamicObject,
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, path::PathBuf, time::Duration};

/// How long a cluster has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How alike a name has to be to be named: 1 is the same.
const ALIKE: f64 = 0.85;

/// Which cluster, and where in it. As kubectl has them.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Connection {
    /// Namespace [default: that of the context]
    #[arg(short, long, global = true, value_name = "NAME", value_parser = object_name, help_heading = "Cluster")]
    pub(super) namespace: Option<String>,

    /// All namespaces
    #[arg(
        short = 'A',
        long,
        global = true,
        conflicts_with = "namespace",
        help_heading = "Cluster"
    )]
    pub(super) all_namespaces: bool,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub(super) context: Option<String>,

    /// File that names clusters [default: the variable KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub(super) kubeconfig: Option<PathBuf>,
}

/// A cluster, and which namespace of it is meant.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    /// That which was given, or the context's.
    pub(super) namespace: String,
    all: bool,
}

/// What a list has brought.
#[derive(Debug)]
pub(super) struct Listed<K> {
    pub(super) items: Vec<K>,
    /// Objects that their type cannot hold.
    pub(super) malformed: Vec<Malformed>,
}

/// A kind of ours.
pub(super) trait Ours:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + 'static
{
}

impl<K> Ours for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + 'static
{
}

impl Session {
    /// Reads the kubeconfig. The cluster is not asked yet.
    pub(super) async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let mut config = connection.config().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = connection
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| {
            Failure::new(
                Exit::NoCluster,
                format!("the kubeconfig cannot be used: {error}"),
            )
        })?;
        Ok(Self {
            client,
            namespace,
            all: connection.all_namespaces,
        })
    }

    /// The namespace that lists are of; none: all.
    pub(super) fn scope(&self) -> Option<&str> {
        (!self.all).then_some(self.namespace.as_str())
    }

    /// For commands about one object.
    pub(super) fn one_namespace(&self) -> Result<&str, Failure> {
        self.scope().ok_or_else(|| {
            Failure::usage("an object is in one namespace: give -n NAME instead of -A")
        })
    }

    /// Objects of the session's one namespace.
    pub(super) fn api<K: Ours>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One object. Where there is none, names that are like it are told.
    pub(super) async fn get<K: Ours>(&self, name: &str) -> Result<K, Failure> {
        self.one_namespace()?;
        match self.api::<K>().get(name).await {
            Ok(object) => Ok(object),
            Err(error) => {
                let mut failure = self.failed::<K>("get", Some(name), &error);
                if failure.exit == Exit::NotFound
                    && let Some(hint) = self.alike::<K>(name).await
                {
                    failure.message.push_str(&hint);
                }
                Err(failure)
            }
        }
    }

    /// One object, or none when there is none.
    pub(super) async fn find<K: Ours>(&self, name: &str) -> Result<Option<K>, Failure> {
        self.one_namespace()?;
        let found = self.api::<K>().get_opt(name).await;
        found.map_err(|error| self.failed::<K>("get", Some(name), &error))
    }

    /// All of a kind, in the session's namespace or in all.
    pub(super) async fn list<K: Ours>(&self) -> Result<Listed<K>, Failure> {
        self.list_with(&ListParams::default()).await
    }

    pub(super) fn list_with<'a, K: Ours>(
        &'a self,
        params: &'a ListParams,
    ) -> BoxFuture<'a, Result<Listed<K>, Failure>> {
        Box::pin(async move {
            let resource = ApiResource::erase::<K>(&());
            // As they are: one that its type cannot hold must not hide the others.
            let api: Api<DynamicObject> = match self.scope() {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            let list = api
                .list(params)
                .await
                .map_err(|error| asked::<K>("list", None, self.scope()).failed(&error))?;
            let mut listed = Listed {
                items: Vec::with_capacity(list.items.len()),
                malformed: Vec::new(),
            };
            for object in list {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                match read(object) {
                    Ok(object) => listed.items.push(object),
                    Err(error) => listed.malformed.push(Malformed {
                        kind: kind_of::<K>(),
                        namespace,
                        name,
                        error,
                    }),
                }
            }
            Ok(listed)
        })
    }

    /// What the API server's answer to something about a kind of ours means.
    pub(super) fn failed<K: Ours>(
        &self,
        verb: &str,
        name: Option<&str>,
        error: &kube::Error,
    ) -> Failure {
        asked::<K>(verb, name, Some(&self.namespace)).failed(error)
    }

    /// Names in the namespace that are like this one.
    async fn alike<K: Ours>(&self, name: &str) -> Option<String> {
        let all = self.api::<K>().list_metadata(&ListParams::default()).await;
        let names: Vec<String> = all.ok()?.iter().map(ResourceExt::name_any).collect();
        let like = nearest(name, &names);
        (!like.is_empty()).then(|| format!(" (there is {})", like.join(", ")))
    }
}

/// At most three names that are like `name`, the most alike first.
fn nearest<'a>(name: &str, names: &'a [String]) -> Vec<&'a str> {
    let mut scored: Vec<_> = names
        .iter()
        .map(|other| (strsim::jaro_winkler(name, other), other.as_str()))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Static, for there are four.
pub(super) fn kind_of<K: Ours>() -> &'static str {
    super::kind::Kind::parse(&K::kind(&())).map_or("object", super::kind::Kind::as_str)
}

fn plural<K: Ours>() -> &'static str {
    match kind_of::<K>() {
        "BackupJob" => "backupjobs.towline.dev",
        "RestoreJob" => "restorejobs.towline.dev",
        "BackupSchedule" => "backupschedules.towline.dev",
        _ => "backupstores.towline.dev",
    }
}

pub(super) fn asked<'a, K: Ours>(
    verb: &'a str,
    name: Option<&'a str>,
    namespace: Option<&'a str>,
) -> Asked<'a> {
    Asked {
        verb,
        resource: plural::<K>(),
        object: name.map(|name| (kind_of::<K>(), name)),
        namespace,
    }
}

fn read<K: Ours>(object: DynamicObject) -> Result<K, String> {
    let whole = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_path_to_error::deserialize(&whole)
        .map_err(|error| format!("{}: {}", error.path(), error.inner()))
}

impl Connection {
    async fn config(&self) -> Result<Config, Failure> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let no_cluster = |why: String| {
            Failure::new(
                Exit::NoCluster,
                format!("no cluster: {why}; give --kubeconfig FILE or set KUBECONFIG"),
            )
        };
        let loaded = match &self.kubeconfig {
            Some(file) => match Kubeconfig::read_from(file) {
                Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
                Err(error) => Err(error),
            },
            None => Config::from_kubeconfig(&options).await,
        };
        // In a pod its own ServiceAccount does, as for kubectl.
        if loaded.is_err()
            && self.kubeconfig.is_none()
            && self.context.is_none()
            && let Ok(config) = Config::incluster()
        {
            return Ok(config);
        }
        loaded.map_err(|error| no_cluster(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_alike_are_told() {
        let names = ["nightly-1", "nightly-2", "hourly-1", "shop"].map(str::to_owned);
        assert_eq!(nearest("nightly-11", &names), ["nightly-1", "nightly-2"]);
        assert_eq!(nearest("nigthly-2", &names)[0], "nightly-2");
        assert!(nearest("billing", &names).is_empty());
    }

    #[tokio::test]
    async fn without_a_kubeconfig_there_is_no_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = write(
            "good",
            "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\ncontexts: [{name: c, context: {cluster: c, user: u, namespace: shop}}]\nusers: [{name: u, user: {}}]\ncurrent-context: c\n",
        );
        let connect = async |file: PathBuf, context: Option<&str>| {
            let connection = Connection {
                kubeconfig: Some(file),
                context: context.map(str::to_owned),
                ..Connection::default()
            };
            Session::connect(&connection).await
        };
        for (file, context, needle) in [
            (dir.path().join("absent"), None, "absent"),
            (write("garbage", "{{{"), None, "no cluster: "),
            (
                write("empty", "apiVersion: v1\nkind: Config\n"),
                None,
                "context",
            ),
            (good.clone(), Some("other"), "other"),
        ] {
            let failure = connect(file, context).await.err().unwrap();
            assert_eq!(failure.exit, Exit::NoCluster, "{}", failure.message);
            assert!(failure.message.contains(needle), "{}", failure.message);
        }
        let session = connect(good, None).await.unwrap();
        assert_eq!(session.namespace, "shop");
        // Nobody listens there.
        let failure = session.list::<crate::api::BackupJob>().await.unwrap_err();
        assert_eq!(failure.exit, Exit::NoCluster);
        assert!(
            failure.message.contains("the cluster does not answer"),
            "{}",
            failure.message
        );
    }
}

//! The objects of the benchmark: thousands, so they are made by a client of the API, not by kubectl.

use e2e::{Namespace, objects::TOKEN, store::Bucket};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Node};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

/// Namespaces that the objects are spread over.
pub(crate) const NAMESPACES: usize = 10;
/// Requests at once.
const AT_ONCE: usize = 32;
/// What e2e's namespaces carry, so that a later run clears away what one left.
const LABEL: (&str, &str) = ("towline.dev/e2e", "true");

pub(crate) struct Objects {
    client: Client,
    node: IpAddr,
}

/// A schedule that was made.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    namespace: String,
    name: String,
    uid: String,
}

impl Objects {
    /// Makes the namespaces, each with a store and the Secrets that its jobs name.
    pub(crate) async fn connect(ns: &Namespace, bucket: &Bucket) -> Self {
        let kubeconfig = Kubeconfig::read_from(&ns.cluster.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let node = node_address(&client).await;
        let this = Self { client, node };
        let (id, secret) = &ns.cluster.s3_key;
        for i in 0..NAMESPACES {
            let namespace = namespace(i);
            let object = json!({"metadata": {"name": namespace, "labels": {LABEL.0: LABEL.1}}});
            Api::<NamespaceObject>::all(this.client.clone())
                .create(
                    &PostParams::default(),
                    &serde_json::from_value(object).unwrap(),
                )
                .await
                .unwrap();
            for (name, data) in [
                (
                    "s3",
                    json!({"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret}),
                ),
                ("agent-token", json!({"token": TOKEN})),
            ] {
                let object = json!({"metadata": {"name": name}, "stringData": data});
                this.create("", "v1", "Secret", &namespace, object).await;
            }
            let spec = json!({"s3": {"bucket": bucket.name, "region": "us-east-1", "endpoint": ns.cluster.s3_endpoint,
                                     "forcePathStyle": true, "allowHttp": true},
                              "prefix": "backups", "credentialsSecretRef": {"name": "s3"}});
            let object = json!({"metadata": {"name": "store"}, "spec": spec});
            this.ours("BackupStore", &namespace, object).await;
        }
        this
    }

    /// Where pods and the controller reach this machine.
    pub(crate) fn node_address(&self) -> IpAddr {
        self.node
    }

    fn api(&self, group: &str, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    fn our_api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        self.api("towline.dev", "v1alpha1", kind, namespace)
    }

    async fn create(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        namespace: &str,
        mut object: Value,
    ) -> DynamicObject {
        let separator = if group.is_empty() { "" } else { "/" };
        object["apiVersion"] = format!("{group}{separator}{version}").into();
        object["kind"] = kind.into();
        self.api(group, version, kind, namespace)
            .create(
                &PostParams::default(),
                &serde_json::from_value(object).unwrap(),
            )
            .await
            .unwrap()
    }

    async fn ours(&self, kind: &str, namespace: &str, object: Value) -> DynamicObject {
        self.create("towline.dev", "v1alpha1", kind, namespace, object)
            .await
    }

    /// Makes schedules, whose jobs ask these agents in turn.
    pub(crate) async fn schedules(
        &self,
        name: &str,
        number: usize,
        cron: &str,
        agents: &[SocketAddr],
    ) -> Vec<Schedule> {
        let nowhere = SocketAddr::from((self.node, 1));
        stream::iter(0..number)
            .map(|i| async move {
                let agent = agents.get(i % agents.len().max(1)).unwrap_or(&nowhere);
                let namespace = namespace(i);
                let spec = json!({"schedule": cron, "successfulJobsHistoryLimit": 100, "failedJobsHistoryLimit": 100,
                                  "jobTemplate": {"spec": job_spec(agent)}});
                let object = json!({"metadata": {"name": format!("{name}-{i}")}, "spec": spec});
                let made = self.ours("BackupSchedule", &namespace, object).await;
                Schedule {
                    namespace,
                    name: made.name_any(),
                    uid: made.uid().unwrap(),
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    /// Makes jobs of these schedules that succeeded, one a day.
    pub(crate) async fn finished_jobs(&self, schedules: &[Schedule], number: usize) {
        let now = Timestamp::now();
        stream::iter(0..number)
            .map(|i| async move {
                let schedule = &schedules[i % schedules.len()];
                let days = i64::try_from(i / schedules.len()).unwrap() + 1;
                let start = now - SignedDuration::from_hours(24 * days);
                let name = format!("{}-{}", schedule.name, start.as_second() / 60);
                let agent = SocketAddr::from((self.node, 1));
                let object = json!({
                    "metadata": {
                        "name": name,
                        "labels": {"towline.dev/schedule": schedule.name},
                        "annotations": {"towline.dev/scheduled-at": start.to_string()},
                        "ownerReferences": [{"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "name": schedule.name,
                                             "uid": schedule.uid, "controller": true, "blockOwnerDeletion": true}],
                    },
                    "spec": job_spec(&agent),
                });
                let mut job = self.ours("BackupJob", &schedule.namespace, object).await;
                job.data["status"] = succeeded(&job, start);
                self.our_api("BackupJob", &schedule.namespace)
                    .replace_status(&name, &PostParams::default(), &job)
                    .await
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await
            .unwrap();
    }

    /// Keeps schedules from making further jobs.
    pub(crate) async fn suspend(&self, schedules: &[Schedule]) {
        let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
        stream::iter(schedules)
            .map(|schedule| async {
                self.our_api("BackupSchedule", &schedule.namespace)
                    .patch(&schedule.name, &PatchParams::default(), &suspend)
                    .await
                    .unwrap();
            })
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
    }

    async fn jobs_of(&self, schedules: &[Schedule]) -> Vec<DynamicObject> {
        let mut jobs = Vec::new();
        for i in 0..NAMESPACES {
            let found = self
                .our_api("BackupJob", &namespace(i))
                .list(&ListParams::default())
                .await
                .unwrap();
            jobs.extend(found.items.into_iter().filter(|job| {
                let owners = job.owner_references();
                schedules
                    .iter()
                    .any(|s| owners.iter().any(|owner| owner.uid == s.uid))
            }));
        }
        jobs
    }

    /// The jobs that schedules made: uid and when it was due.
    pub(crate) async fn made_by(&self, schedules: &[Schedule]) -> HashMap<String, Timestamp> {
        let jobs = self.jobs_of(schedules).await;
        jobs.iter()
            .map(|job| {
                let due = &job.annotations()["towline.dev/scheduled-at"];
                (job.uid().unwrap(), due.parse().unwrap())
            })
            .collect()
    }

    /// Statuses of the jobs that schedules made which are no success.
    pub(crate) async fn unsuccessful(&self, schedules: &[Schedule]) -> Vec<String> {
        let jobs = self.jobs_of(schedules).await;
        let statuses = jobs.iter().map(|job| &job.data["status"]);
        statuses
            .filter(|status| status["phase"] != "Succeeded")
            .map(Value::to_string)
            .collect()
    }

    /// Removes the namespaces, in the background.
    pub(crate) async fn delete(self) {
        for i in 0..NAMESPACES {
            Api::<NamespaceObject>::all(self.client.clone())
                .delete(&namespace(i), &DeleteParams::background())
                .await
                .unwrap();
        }
    }
}

fn namespace(i: usize) -> String {
    format!("e2e-scale-{}", i % NAMESPACES)
}

async fn node_address(client: &Client) -> IpAddr {
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap();
    let addresses = nodes.items.into_iter().flat_map(|node| {
        let addresses = node.status.and_then(|status| status.addresses);
        addresses.unwrap_or_default()
    });
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
    internal.next().expect("a node").address.parse().unwrap()
}

fn job_spec(agent: &SocketAddr) -> Value {
    json!({
        "source": {"url": format!("http://{agent}"), "auth": {"tokenSecretRef": {"name": "agent-token"}}},
        "storeRef": {"name": "store"},
        "method": "physical",
    })
}

/// What a controller writes of a job that succeeded.
fn succeeded(job: &DynamicObject, start: Timestamp) -> Value {
    let end = start + SignedDuration::from_secs(754);
    let time = |t: Timestamp| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (start, end) = (time(start), time(end));
    let folder = format!(
        "backups/{}/{}/20260101T010000Z-{}",
        job.namespace().unwrap(),
        job.labels()["towline.dev/schedule"],
        job.uid().unwrap()
    );
    let condition = |kind: &str, status: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": "Succeeded", "message": message,
               "lastTransitionTime": end, "observedGeneration": 1})
    };
    json!({
        "phase": "Succeeded",
        "conditions": [
            condition("Complete", "True", "4.12GiB in attempt 1"),
            condition("Failed", "False", ""),
            condition("Progressing", "False", ""),
        ],
        "startTime": start,
        "completionTime": end,
        "attempt": 1,
        "attempts": [{"number": 1, "agent": "http://10.244.0.17:8474", "start": start, "end": end, "bytes": 4_423_680_000_u64}],
        "failures": 0,
        "source": {"pod": "mariadb-0", "serverVersion": "10.11.19-MariaDB-deb12-log"},
        "method": "physical",
        "objects": [{"key": format!("{folder}/1/backup.tar.zst"), "bytes": 4_423_680_000_u64}],
        "manifestKey": format!("{folder}/manifest.json"),
        "bytes": 4_423_680_000_u64,
        "size": "4.12GiB",
        "duration": "12m34s",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "position": {"gtid": "0-1-123456789", "binlogFile": "mariadb-bin.000123", "binlogPosition": 123_456_789, "lsn": 98_765_432_100_u64},
        "timings": {"connect": 0.001_234, "wroteRequest": 0.000_321, "firstByte": 0.123_456, "copy": 753.123_456, "lock": 1.234, "finalize": 0.345_678},
    })
}

//! The fault proxy as a pod of a test's namespace.

use crate::{Namespace, eventually, store::Bucket};
use serde_json::{Value, json};

const POD: &str = "fault-proxy";

/// A running fault proxy, labelled `app=fault-proxy`; traffic comes in on 8474.
pub struct FaultProxy<'a> {
    namespace: &'a Namespace,
}

impl<'a> FaultProxy<'a> {
    /// Starts it, without rules: every request fails until there are some.
    pub async fn start(namespace: &'a Namespace) -> Self {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "labels": {"app": POD}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "proxy", "image": format!("{}:dev", namespace.cluster.image(POD)),
                "imagePullPolicy": namespace.cluster.pull_policy(), "ports": [{"containerPort": 8474}, {"containerPort": 9000}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 9000}, "periodSeconds": 1}}]}});
        namespace.apply(&pod.to_string()).await;
        namespace.ready(POD).await;
        Self { namespace }
    }

    /// Starts it before the S3 server, with a new bucket and a store that is reached through it alone.
    /// The third value is the S3 server's address, for rules.
    pub async fn before_store(namespace: &'a Namespace) -> (Self, Bucket, String) {
        let proxy = Self::start(namespace).await;
        let upstream = namespace
            .cluster
            .s3_endpoint
            .trim_start_matches("http://")
            .to_owned();
        proxy.rules(&json!({"upstream": upstream})).await;
        let bucket = Bucket::create(namespace).await;
        namespace
            .store(&bucket.name, &format!("http://{}", proxy.address().await))
            .await;
        (proxy, bucket, upstream)
    }

    /// Where its traffic comes in, as other pods reach it.
    pub async fn address(&self) -> String {
        format!("{}:8474", self.namespace.pod_ip(POD).await)
    }

    fn control(&self) -> String {
        format!(
            "/api/v1/namespaces/{}/pods/{POD}:9000/proxy/",
            self.namespace.name
        )
    }

    /// Sets the rules; requests that were held are dropped.
    pub async fn rules(&self, rules: &Value) {
        let output = self
            .namespace
            .kubectl(
                &["replace", "--raw", &self.control(), "-f", "-"],
                &rules.to_string(),
            )
            .await;
        assert!(output.code == 0, "{}", output.stderr);
    }

    /// Requests that are held now.
    pub async fn held(&self) -> Vec<String> {
        let report = eventually("the fault proxy answers", || async {
            let output = self
                .namespace
                .kubectl(&["get", "--raw", &self.control()], "")
                .await;
            if output.code == 0 {
                Ok(output.stdout)
            } else {
                Err(output.stderr)
            }
        })
        .await;
        serde_json::from_str::<Value>(&report).unwrap()["held"]
            .as_array()
            .unwrap()
            .iter()
            .map(|h| h.as_str().unwrap().to_owned())
            .collect()
    }
}

//! The objects that a user would apply, and what tests ask of them.

use crate::{Namespace, namespace::condition, store::Bucket, wait::eventually};
use serde_json::{Value, json};

/// Token that the tests' agents accept.
pub const TOKEN: &str = "e2e-token-0123456789abcdef";

impl Namespace {
    /// Applies a `BackupStore` named `store` with its Secret. `endpoint` is as pods reach it.
    pub async fn store(&self, bucket: &str, endpoint: &str) {
        let (id, secret) = &self.cluster.s3_key;
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"},
             "stringData": {"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret}},
            {"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": "store"},
             "spec": {"s3": {"bucket": bucket, "region": "us-east-1", "endpoint": endpoint, "forcePathStyle": true, "allowHttp": true},
                      "prefix": "backups", "credentialsSecretRef": {"name": "s3"}}},
        ]});
        self.apply(&objects.to_string()).await;
    }

    /// [`Self::store`] in a new bucket on the S3 server itself, waited for.
    pub async fn ready_store(&self) -> Bucket {
        let bucket = Bucket::create(self).await;
        self.store(&bucket.name, &self.cluster.s3_endpoint).await;
        eventually("the store is Ready", || async {
            let store = self.get("backupstore", "store").await.ok_or("none")?;
            if condition(&store, "Ready").is_some_and(|c| c["status"] == "True") {
                Ok(())
            } else {
                Err(store["status"].to_string())
            }
        })
        .await;
        bucket
    }

    /// Spec of a `BackupJob` from the pods labelled `app=<app>`, with `more` merged in.
    pub fn job_spec(app: &str, more: &Value) -> Value {
        let mut spec = json!({
            "source": {"podSelector": {"matchLabels": {"app": app}}, "auth": {"tokenSecretRef": {"name": "agent-token"}}},
            "storeRef": {"name": "store"},
        });
        merge(&mut spec, more);
        spec
    }

    /// Applies a `BackupJob`.
    pub async fn job(&self, name: &str, app: &str, more: Value) {
        let job = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "metadata": {"name": name},
                         "spec": Self::job_spec(app, &more)});
        self.apply(&job.to_string()).await;
    }

    /// Waits until a job's status pleases `probe`.
    pub async fn job_until(&self, name: &str, what: &str, probe: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("job {name}: {what}"), || async {
            let job = self.get("backupjob", name).await.ok_or("no such job")?;
            if probe(&job["status"]) {
                Ok(job)
            } else {
                Err(job["status"].to_string())
            }
        })
        .await
    }

    /// Waits for the end of a job, which must be this phase.
    pub async fn job_ends(&self, name: &str, phase: &str) -> Value {
        let job = self
            .job_until(name, "ends", |s| {
                matches!(
                    s["phase"].as_str(),
                    Some("Succeeded" | "Failed" | "Cancelled")
                )
            })
            .await;
        assert_eq!(job["status"]["phase"], phase, "{}", job["status"]);
        let complete = condition(&job, "Complete").is_some_and(|c| c["status"] == "True");
        let failed = condition(&job, "Failed").is_some_and(|c| c["status"] == "True");
        assert_eq!(
            (complete, failed),
            (phase == "Succeeded", phase != "Succeeded"),
            "{}",
            job["status"]
        );
        job
    }

    /// Waits until bytes of a job's transfer have arrived.
    pub async fn job_streams(&self, name: &str) -> Value {
        self.job_until(name, "bytes arrive", |s| {
            s["phase"] == "Running" && s["progress"]["bytes"].as_u64() > Some(0)
        })
        .await
    }
}

/// Puts `more` over `base`, object by object. A null removes.
pub fn merge(base: &mut Value, more: &Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                if value.is_null() {
                    base.remove(key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, more) => *base = more.clone(),
    }
}

/// Reason of the job's last attempt or condition `Failed`, and its message.
pub fn failure(job: &Value) -> (String, String) {
    let failed = condition(job, "Failed").cloned().unwrap_or_default();
    (
        failed["reason"].as_str().unwrap_or_default().into(),
        failed["message"].as_str().unwrap_or_default().into(),
    )
}

/// Reasons of the recorded attempts, oldest first; empty for one that has none.
pub fn attempt_reasons(job: &Value) -> Vec<String> {
    let attempts = job["status"]["attempts"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    attempts
        .iter()
        .map(|a| a["reason"].as_str().unwrap_or_default().to_owned())
        .collect()
}

//! Restores, as a user orders them, and servers on what they restored.

use crate::{
    Namespace,
    database::Database,
    namespace::condition,
    objects::{TOKEN, merge},
    wait::eventually,
};
use serde_json::{Value, json};

impl Namespace {
    /// Makes an empty claim of the default storage class, which test clusters provision at once.
    pub async fn claim(&self, name: &str) {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        self.apply(&claim.to_string()).await;
    }

    /// Applies a `RestoreJob`.
    pub async fn restore(&self, name: &str, from: &Value, to: &Value, more: &Value) {
        let mut spec = json!({"from": from, "to": to});
        merge(&mut spec, more);
        let restore = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "RestoreJob", "metadata": {"name": name}, "spec": spec});
        self.apply(&restore.to_string()).await;
    }

    /// [`Self::restore`] of a `BackupJob`'s backup into a claim.
    pub async fn restore_into(&self, name: &str, backup: &str, claim: &str, more: &Value) {
        self.restore(
            name,
            &json!({"backupJobRef": {"name": backup}}),
            &json!({"persistentVolumeClaim": {"claimName": claim}}),
            more,
        )
        .await;
    }

    /// Waits until a restore's status pleases `probe`.
    pub async fn restore_until(
        &self,
        name: &str,
        what: &str,
        probe: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(&format!("restore {name}: {what}"), || async {
            let restore = self
                .get("restorejob", name)
                .await
                .ok_or("no such restore")?;
            if probe(&restore["status"]) {
                Ok(restore)
            } else {
                Err(restore["status"].to_string())
            }
        })
        .await
    }

    /// Waits for the end of a restore, which must be this phase.
    pub async fn restore_ends(&self, name: &str, phase: &str) -> Value {
        let restore = self
            .restore_until(name, "ends", |s| {
                matches!(s["phase"].as_str(), Some("Succeeded" | "Failed"))
            })
            .await;
        assert_eq!(restore["status"]["phase"], phase, "{}", restore["status"]);
        let holds = |kind| condition(&restore, kind).is_some_and(|c| c["status"] == "True");
        let good = phase == "Succeeded";
        assert_eq!(
            (holds("Complete"), holds("Failed")),
            (good, !good),
            "{}",
            restore["status"]
        );
        restore
    }

    /// Waits for the failure of a restore, which must have this reason; gives its message.
    pub async fn restore_fails(&self, name: &str, reason: &str) -> String {
        let restore = self.restore_ends(name, "Failed").await;
        let failed = condition(&restore, "Failed").unwrap();
        assert_eq!(failed["reason"], reason, "{}", restore["status"]);
        assert_eq!(restore["status"]["reason"], reason);
        let message = failed["message"].as_str().unwrap_or_default().to_owned();
        assert!(!message.is_empty(), "{}", restore["status"]);
        let events = self.events(name).await;
        assert!(
            events.iter().any(|event| event.contains(&*message)),
            "no event says {message}: {events:?}"
        );
        message
    }

    /// The marker file that a restore leaves in a claim.
    pub async fn marker(&self, claim: &str) -> Value {
        let text = self
            .in_claim(claim, "cat /claim/towline-restore.json")
            .await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Runs a shell script in a pod that has a claim mounted on /claim, as the server's user.
    pub async fn in_claim(&self, claim: &str, script: &str) -> String {
        let name = format!("look-{claim}");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "securityContext": {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
                "containers": [{"name": "look", "image": format!("{}:10.11", self.cluster.image("mariadb")),
                    "imagePullPolicy": self.cluster.pull_policy(), "command": ["sh", "-euc", script],
                    "volumeMounts": [{"name": "claim", "mountPath": "/claim"}]}],
                "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}]}});
        self.apply(&pod.to_string()).await;
        eventually(&format!("pod {name} has looked"), || async {
            let pod = self.get("pod", &name).await.ok_or("no such pod")?;
            match pod["status"]["phase"].as_str() {
                Some("Succeeded") => Ok(()),
                Some("Failed") => panic!("{script}: {}", pod["status"]),
                _ => Err(pod["status"].to_string()),
            }
        })
        .await;
        let output = self.kubectl_ok(&["logs", &name]).await;
        self.kubectl_ok(&["delete", "pod", &name, "--wait=true"])
            .await;
        output
    }
}

impl<'a> Database<'a> {
    /// A MariaDB on a claim that holds a data directory already, ready; with these options.
    pub async fn mariadb_on_claim(
        namespace: &'a Namespace,
        name: &str,
        claim: &str,
        options: &[&str],
    ) -> Self {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"securityContext": {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
                "containers": [{"name": "database", "image": format!("{}:10.11", namespace.cluster.image("mariadb")),
                    "imagePullPolicy": namespace.cluster.pull_policy(), "args": options,
                    // Accounts are the backup's: the variable only tells the tests' client.
                    "env": [{"name": "MARIADB_ROOT_PASSWORD", "value": TOKEN}],
                    "readinessProbe": {"exec": {"command": ["mariadb-admin", "--host=127.0.0.1", "ping"]}, "periodSeconds": 2, "timeoutSeconds": 3},
                    "volumeMounts": [{"name": "data", "mountPath": "/var/lib/mysql"}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}});
        namespace.apply(&pod.to_string()).await;
        namespace.ready(name).await;
        Self::in_pod(namespace, name, "mariadb")
    }
}

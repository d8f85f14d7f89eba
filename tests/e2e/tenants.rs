//! A namespace is the boundary: under one controller that may read all of them, a tenant tries to get
//! at what is another's.

use e2e::{
    Namespace, database::Database, eventually, namespace::condition, objects::TOKEN,
    objects::failure,
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_tenant_reaches_nothing_of_another() {
    let ns = Namespace::create_alone("tenants").await;
    let victim = ns.neighbour("tenants-victim").await;
    // What the operator of the cluster allows by name is still refused by address.
    ns.install_chart(&["allowedSourceHosts={localhost,127.0.0.1,[::1]}"])
        .await;
    let db = Database::mariadb(&victim, "mariadb").await;
    let bucket = victim.ready_store().await;
    victim
        .job("job", db.app(), json!({"method": "physical"}))
        .await;
    // The controller has the rights, and uses them for whoever they belong to.
    let job = victim.job_ends("job", "Succeeded").await;
    bucket.assert_one_backup(&job).await;

    names_that_lead_elsewhere(&ns, &victim, db.app()).await;
    stores_that_are_not_ours(&ns).await;

    ns.ready_store().await;
    let pod_ip = victim.pod_ip(db.pod()).await;
    let by_url =
        |url: &str| json!({"backoffLimit": 0, "source": {"podSelector": null, "url": url}});
    ns.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "agent-token"}, "stringData": {"token": TOKEN}}).to_string()).await;
    for (name, spec, reason, words) in [
        (
            "by-label",
            json!({"backoffLimit": 0}),
            "NoAgent",
            vec!["no pod in namespace e2e-tenants matches"],
        ),
        (
            "by-address",
            by_url(&format!("http://{pod_ip}:8474")),
            "InvalidSpec",
            vec!["--allowed-source-hosts", &pod_ip],
        ),
        (
            "by-name",
            by_url("http://mariadb.e2e-tenants-victim.svc:8474"),
            "InvalidSpec",
            vec!["--allowed-source-hosts"],
        ),
        (
            "loopback",
            by_url("http://localhost:8080"),
            "InvalidSpec",
            vec!["loopback"],
        ),
        (
            "loopback-as-number",
            by_url("http://2130706433:8080"),
            "InvalidSpec",
            vec!["loopback"],
        ),
        (
            "loopback-v6",
            by_url("http://[::1]:8080"),
            "InvalidSpec",
            vec!["loopback"],
        ),
    ] {
        ns.job(name, db.app(), spec).await;
        let job = ns.job_ends(name, "Failed").await;
        let (_, message) = failure(&job);
        assert_eq!(
            job["status"]["attempts"][0]["reason"], reason,
            "{name}: {message}"
        );
        for word in words {
            assert!(message.contains(word), "{name}: {message}");
        }
    }
    // Nobody has asked the victim's agent for another backup than its own.
    let log = victim
        .kubectl_ok(&["logs", db.pod(), "-c", "towline-agent", "--tail=-1"])
        .await;
    let asked = log
        .lines()
        .filter(|line| line.contains("towline_agent::access") && line.contains("/v1/backup"));
    assert_eq!(asked.count(), 1, "{log}");
    ns.kubectl_ok(&["delete", "namespace", &victim.name, "--wait=false"])
        .await;
    ns.helm(&["uninstall", "towline", "--wait"]).await;
    ns.delete().await;
}

/// The API server refuses names that are paths.
async fn names_that_lead_elsewhere(ns: &Namespace, victim: &Namespace, app: &str) {
    let elsewhere = |kind: &str, name: &str| format!("../../{}/{kind}/{name}", victim.name);
    let job = |more: Value| json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "metadata": {"name": "path"}, "spec": Namespace::job_spec(app, &more)});
    let tls = |more: Value| {
        let mut tls = json!({"serverName": "agent"});
        e2e::objects::merge(&mut tls, &more);
        job(json!({"source": {"tls": tls}}))
    };
    for object in [
        job(json!({"storeRef": {"name": format!("{}/store", victim.name)}})),
        job(
            json!({"source": {"auth": {"tokenSecretRef": {"name": elsewhere("secrets", "agent-token")}}}}),
        ),
        tls(json!({"caSecretRef": {"name": elsewhere("secrets", "ca")}})),
        tls(json!({"clientCertSecretRef": {"name": elsewhere("secrets", "us")}})),
        json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": "path"},
            "spec": {"s3": {"bucket": "any"}, "credentialsSecretRef": {"name": elsewhere("secrets", "s3")}}}),
    ] {
        let output = ns
            .kubectl(&["create", "-f", "-"], &object.to_string())
            .await;
        assert_ne!(output.code, 0, "accepted: {object}");
        assert!(
            output
                .stderr
                .contains("name of an object in this namespace"),
            "{}",
            output.stderr
        );
    }
}

/// Stores that lead to the controller's own identity, disk, host or cloud.
async fn stores_that_are_not_ours(ns: &Namespace) {
    let s3 = |endpoint: &str| json!({"s3": {"bucket": "any", "endpoint": endpoint, "allowHttp": true, "forcePathStyle": true}, "credentialsSecretRef": {"name": "keys"}});
    ns.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "stringData": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}})
        .to_string(),
    )
    .await;
    for (name, spec, word) in [
        (
            "ambient",
            json!({"s3": {"bucket": "any"}}),
            "credentialsSecretRef",
        ),
        (
            "disk",
            json!({"file": {"path": "any"}}),
            "--file-store-root",
        ),
        ("metadata", s3("http://169.254.169.254"), "link-local"),
        (
            "mapped",
            s3("http://[::ffff:169.254.169.254]"),
            "link-local",
        ),
        ("host", s3("http://localhost:8080"), "loopback"),
        ("number", s3("http://0x7f000001:8080"), "loopback"),
    ] {
        let store = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": name}, "spec": spec});
        ns.apply(&store.to_string()).await;
        eventually(&format!("store {name} is refused"), || async {
            let store = ns.get("backupstore", name).await.ok_or("none")?;
            let ready = condition(&store, "Ready").ok_or("no condition")?;
            let message = ready["message"].as_str().unwrap_or_default();
            if ready["reason"] == "NotAllowed" && message.contains(word) {
                Ok(())
            } else {
                Err(ready.to_string())
            }
        })
        .await;
    }
}

//! What cannot work says so, says where, and says what to do.

use e2e::{
    Namespace,
    database::Database,
    eventually,
    namespace::condition,
    objects::{attempt_reasons, failure},
    proxy::FaultProxy,
    store::Bucket,
};
use serde_json::{Value, json};

#[tokio::test]
async fn the_api_server_refuses_what_is_written_wrong() {
    let ns = Namespace::create("invalid").await;
    let schedule = |spec: Value| {
        let mut base = json!({"schedule": "0 3 * * *", "jobTemplate": {"spec": Namespace::job_spec("x", &json!({}))}});
        e2e::objects::merge(&mut base, &spec);
        json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "s"}, "spec": base})
    };
    let store = |spec: Value| json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": "s"}, "spec": spec});
    let job = |spec: Value| json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "metadata": {"name": "j"}, "spec": Namespace::job_spec("x", &spec)});
    let s3 = json!({"bucket": "backups", "region": "us-east-1"});
    let gcs = json!({"bucket": "backups"});
    let azure = json!({"container": "backups", "account": "acc"});
    let long = "a".repeat(53);
    let mut long_name = schedule(json!({}));
    long_name["metadata"]["name"] = json!(long);
    for (object, words) in [
        (
            store(json!({"s3": s3, "file": {"path": "x"}})),
            vec!["exactly one", "s3", "file"],
        ),
        (
            store(json!({"gcs": gcs, "azure": azure})),
            vec!["exactly one", "gcs", "azure"],
        ),
        (
            store(json!({"azure": {"container": "backups"}})),
            vec!["spec.azure.account", "Required"],
        ),
        (
            store(json!({"gcs": {"bucket": "gs://backups"}})),
            vec!["spec.gcs.bucket", "bucket's name alone"],
        ),
        (
            store(
                json!({"gcs": {"bucket": "backups", "endpoint": "http://gcs:80"}, "credentialsSecretRef": {"name": "s"}}),
            ),
            vec!["spec.gcs.endpoint", "allowHttp"],
        ),
        (
            store(
                json!({"azure": {"container": "backups", "account": "acc", "endpoint": "https://a"}}),
            ),
            vec!["spec.credentialsSecretRef", "credentials of its own"],
        ),
        (
            store(json!({"gcs": gcs, "serverSideEncryption": {"algorithm": "AES256"}})),
            vec!["spec.serverSideEncryption", "only S3"],
        ),
        (
            store(
                json!({"s3": s3, "serverSideEncryption": {"algorithm": "AES256", "kmsKeyId": "k"}}),
            ),
            vec!["kmsKeyId", "aws:kms"],
        ),
        (store(json!({})), vec!["exactly one"]),
        (schedule(json!({"schedule": "every day"})), vec!["schedule"]),
        (
            schedule(json!({"schedule": "61 3 * * * *"})),
            vec!["schedule"],
        ),
        (schedule(json!({"timeZone": "Mars/Base"})), vec!["timeZone"]),
        (long_name, vec!["52"]),
        (
            job(json!({"source": {"podSelector": null}})),
            vec!["source", "exactly one"],
        ),
        (
            job(json!({"source": {"url": "http://db:8474"}})),
            vec!["source", "exactly one"],
        ),
        (
            job(json!({"source": {"tls": {}}})),
            vec!["source.tls", "serverName"],
        ),
        (
            job(json!({"source": {"podSelector": null, "url": "https://db:8474"}})),
            vec!["source.url", "https:// url together with tls"],
        ),
        (
            job(json!({"source": {"podSelector": null, "url": "http://db:8474", "tls": {}}})),
            vec!["source.url", "https:// url together with tls"],
        ),
        (
            job(json!({"source": {"tls": {"serverName": "https://db"}}})),
            vec!["serverName", "DNS name"],
        ),
        (
            job(
                json!({"source": {"podSelector": null, "url": "http://db:8474", "prefer": "Replica"}}),
            ),
            vec!["source.prefer", "podSelector"],
        ),
        (
            job(json!({"source": {"prefer": "Primary", "maxReplicaLagSeconds": 60}})),
            vec!["maxReplicaLagSeconds", "PreferReplica"],
        ),
        (
            schedule(json!({"concurrencyPolicy": "Sometimes"})),
            vec!["concurrencyPolicy", "Replace"],
        ),
        (
            job(json!({"encryption": {"recipients": []}})),
            vec!["recipients", "at least 1"],
        ),
        (
            job(json!({"encryption": {"recipients": ["AGE-SECRET-KEY-1QQ"]}})),
            vec!["recipients", "age1"],
        ),
        (
            job(json!({"method": "snapshot"})),
            vec!["method", "physical", "logical"],
        ),
        (
            job(json!({"compression": {"type": "zstd", "level": 40}})),
            vec!["level", "19"],
        ),
    ] {
        let output = ns
            .kubectl(&["create", "-f", "-"], &object.to_string())
            .await;
        assert_ne!(output.code, 0, "accepted: {object}");
        for word in words {
            assert!(
                output.stderr.contains(word),
                "{word} is not in: {}\n{object}",
                output.stderr
            );
        }
    }
    // Immutable fields.
    ns.apply(&store(json!({"s3": s3})).to_string()).await;
    ns.apply(&job(json!({})).to_string()).await;
    for (object, word) in [
        (
            store(json!({"s3": {"bucket": "other", "region": "us-east-1"}})),
            "bucket",
        ),
        (store(json!({"s3": s3, "prefix": "other"})), "prefix"),
        (store(json!({"s3": null, "gcs": gcs})), "kind of a store"),
        (job(json!({"method": "logical"})), "immutable"),
        (
            job(json!({"encryption": {"recipients": [format!("age1{}", "q".repeat(58))]}})),
            "immutable",
        ),
    ] {
        let output = ns.kubectl(&["apply", "-f", "-"], &object.to_string()).await;
        assert_ne!(output.code, 0, "accepted: {object}");
        assert!(output.stderr.contains(word), "{}", output.stderr);
    }
    // What may change, may.
    let output = ns
        .kubectl(
            &[
                "patch",
                "backupjob",
                "j",
                "--type=merge",
                "-p",
                r#"{"spec":{"cancel":true}}"#,
            ],
            "",
        )
        .await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    ns.delete().await;
}

#[tokio::test]
async fn no_ready_pod_wrong_token_busy_agent() {
    let ns = Namespace::create("refused").await;
    ns.install_controller(&[]).await;
    let bucket = ns.ready_store().await;

    ns.job("nobody", "no-such-app", json!({"backoffLimit": 0}))
        .await;
    let job = ns.job_ends("nobody", "Failed").await;
    let (_, message) = failure(&job);
    assert_eq!(attempt_reasons(&job), ["NoAgent"], "{}", job["status"]);
    assert!(message.contains("app=no-such-app"), "{message}");

    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    ns.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"}, "stringData": {"token": "not-the-token"}}).to_string()).await;
    ns.job(
        "stranger",
        db.app(),
        json!({"backoffLimit": 0, "source": {"auth": {"tokenSecretRef": {"name": "wrong"}}}}),
    )
    .await;
    let job = ns.job_ends("stranger", "Failed").await;
    let (_, message) = failure(&job);
    assert_eq!(attempt_reasons(&job), ["AgentRefused"], "{}", job["status"]);
    assert!(
        message.contains("tokenSecretRef") && !message.contains("not-the-token"),
        "{message}"
    );
    for (name, secret, words) in [
        (
            "no-secret",
            json!({"name": "absent"}),
            ["Secret absent does not exist", "under the key token"],
        ),
        (
            "no-key",
            json!({"name": "wrong", "key": "other"}),
            ["Secret wrong", "has no key other"],
        ),
    ] {
        let source = json!({"backoffLimit": 0, "source": {"auth": {"tokenSecretRef": secret}}});
        ns.job(name, db.app(), source).await;
        let job = ns.job_ends(name, "Failed").await;
        let (reason, message) = failure(&job);
        assert_eq!(reason, "InvalidSpec", "{}", job["status"]);
        for word in words {
            assert!(message.contains(word), "{word} is not in: {message}");
        }
    }

    ns.job("first", db.app(), json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 3_000_000})).await;
    ns.job_streams("first").await;
    ns.job(
        "second",
        db.app(),
        json!({"method": "physical", "backoffLimit": 0}),
    )
    .await;
    ns.job_until("second", "finds the agent busy", |s| {
        s["attempts"]
            .as_array()
            .is_some_and(|a| a.iter().any(|a| a["reason"] == "AgentBusy"))
    })
    .await;
    ns.job_ends("first", "Succeeded").await;
    // It waited for its turn, and waiting did not count against its backoffLimit of 0.
    let job = ns.job_ends("second", "Succeeded").await;
    bucket.assert_one_backup(&job).await;
    ns.delete().await;
}

#[tokio::test]
async fn store_down_bucket_missing_wrong_key() {
    let ns = Namespace::create("bad-store").await;
    ns.install_controller(&[]).await;
    let not_ready = async |what: &str, words: &[&str]| {
        let what = format!("the store is not Ready: {what}");
        eventually(&what, || async {
            let store = ns.get("backupstore", "store").await.ok_or("none")?;
            let ready = condition(&store, "Ready").ok_or("no condition")?;
            let message = ready["message"].as_str().unwrap_or_default();
            if ready["status"] == "False" && words.iter().all(|word| message.contains(word)) {
                Ok(())
            } else {
                Err(ready.to_string())
            }
        })
        .await;
        ns.kubectl_ok(&["delete", "backupstore", "store"]).await;
    };
    ns.store("no-such-bucket-here", &ns.cluster.s3_endpoint)
        .await;
    not_ready("bucket missing", &["no-such-bucket-here"]).await;
    // Nothing listens there.
    let host = ns.cluster.s3_endpoint.rsplit_once(':').unwrap().0;
    ns.store("any", &format!("{host}:1")).await;
    not_ready("down", &["endpoint"]).await;

    ns.apply(&json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": "store"}, "spec": {
        "s3": {"bucket": "any", "region": "us-east-1", "endpoint": ns.cluster.s3_endpoint, "forcePathStyle": true, "allowHttp": true},
        "credentialsSecretRef": {"name": "no-such-secret"}}}).to_string()).await;
    not_ready("no Secret", &["no-such-secret"]).await;
    ns.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "half"}, "stringData": {"AWS_ACCESS_KEY_ID": "somebody"}},
        {"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": "store"}, "spec": {
         "s3": {"bucket": "any", "region": "us-east-1", "endpoint": ns.cluster.s3_endpoint, "forcePathStyle": true, "allowHttp": true},
         "credentialsSecretRef": {"name": "half"}}},
    ]}).to_string()).await;
    not_ready("a key missing", &["half", "no key AWS_SECRET_ACCESS_KEY"]).await;

    let bucket = Bucket::create(&ns).await;
    ns.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"},
         "stringData": {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "not-the-key"}},
        {"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": "store"}, "spec": {
         "s3": {"bucket": bucket.name, "region": "us-east-1", "endpoint": ns.cluster.s3_endpoint, "forcePathStyle": true, "allowHttp": true},
         "credentialsSecretRef": {"name": "wrong"}}},
    ]}).to_string()).await;
    not_ready("wrong key", &["credentials"]).await;

    // A job whose store goes away in mid-transfer.
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let (proxy, bucket, upstream) = FaultProxy::before_store(&ns).await;
    ns.job("cut-off", db.app(), json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 3_000_000, "backoffLimit": 0})).await;
    ns.job_streams("cut-off").await;
    proxy.rules(&json!({"upstream": "127.0.0.1:1"})).await;
    let job = ns
        .job_until("cut-off", "fails", |s| {
            s["attempts"][0]["reason"] == "StoreError"
        })
        .await;
    let message = job["status"]["attempts"][0]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("store"), "{message}");
    proxy.rules(&json!({"upstream": upstream})).await;
    ns.job_ends("cut-off", "Failed").await;
    eventually("the upload is aborted once the store is back", || async {
        if bucket.uploads().await.is_empty() {
            Ok(())
        } else {
            Err(format!("{:?}", bucket.uploads().await))
        }
    })
    .await;
    ns.delete().await;
}

#[tokio::test]
async fn a_job_without_its_store_waits_and_says_for_what() {
    let ns = Namespace::create("no-store").await;
    ns.install_controller(&[]).await;
    ns.job("job", "nobody", json!({"backoffLimit": 0})).await;
    let waits = ns
        .job_until("job", "waits for its store", |s| {
            s["reason"] == "StoreNotReady"
        })
        .await;
    assert_eq!(waits["status"]["phase"], "Pending", "{}", waits["status"]);
    let told = "StoreNotReady BackupStore store does not exist";
    eventually("an event says so", || async {
        let events = ns.events("job").await;
        if events.iter().any(|event| event.starts_with(told)) {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        }
    })
    .await;
    // No attempt was used up: the one there is goes on as soon as it can.
    ns.ready_store().await;
    let (reason, message) = failure(&ns.job_ends("job", "Failed").await);
    assert_eq!(reason, "NoAgent", "{message}");
    ns.delete().await;
}

//! Whatever goes wrong with a stream, the job says so, and nothing in the bucket looks like a backup.

use e2e::{
    Namespace,
    database::Database,
    eventually,
    objects::{attempt_reasons, failure},
    proxy::FaultProxy,
    store::Bucket,
};
use serde_json::json;

/// A physical, uncompressed backup that takes long enough to be broken in the middle.
fn slow() -> serde_json::Value {
    json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 3_000_000, "backoffLimit": 0})
}

/// Nothing that a failed job leaves can be taken for a backup, and no upload stays open.
async fn nothing_left(bucket: &Bucket) {
    let last = eventually("a failed job's objects and uploads are gone", || async {
        let keys = bucket.keys().await;
        let uploads = bucket.uploads().await;
        let archives = keys.iter().any(|key| key.contains("/backup.tar"));
        if !archives && uploads.is_empty() {
            Ok(keys)
        } else {
            Err(format!("{keys:?} {uploads:?}"))
        }
    })
    .await;
    for key in last.iter().filter(|key| key.ends_with("manifest.json")) {
        let manifest: serde_json::Value = serde_json::from_slice(&bucket.read(key).await).unwrap();
        assert_eq!(manifest["outcome"], "Abandoned", "{manifest}");
    }
}

#[tokio::test]
async fn the_tool_is_killed_in_mid_stream() {
    let ns = Namespace::create("tool-killed").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    ns.job("killed", db.app(), slow()).await;
    // More than what it sends before it copies the first file.
    ns.job_until("killed", "files are copied", |s| {
        s["progress"]["bytes"].as_u64() > Some(2_000_000)
    })
    .await;
    db.kill_tool("mariadb-backup").await;
    let job = ns.job_ends("killed", "Failed").await;
    let (reason, message) = failure(&job);
    assert_eq!(attempt_reasons(&job), ["StreamError"], "{}", job["status"]);
    assert!(message.contains("ToolFailed"), "{reason}: {message}");
    // The tail of the tool's stderr: what it was doing when it died.
    assert!(
        message.contains("Copying") || message.contains("Streaming"),
        "{message}"
    );
    nothing_left(&bucket).await;
    ns.delete().await;
}

#[tokio::test]
async fn the_tool_exits_with_success_but_never_says_complete() {
    let ns = Namespace::create("tool-incomplete").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb_with_tool(
        &ns,
        "mariadb",
        "mariadb-backup",
        // The real tool, its last word taken away.
        "#!/bin/sh\n/usr/bin/mariadb-backup \"$@\" 2>/tmp/stderr; code=$?; grep -v 'completed OK!' /tmp/stderr >&2; exit $code\n",
    )
    .await;
    let bucket = ns.ready_store().await;
    ns.job(
        "incomplete",
        db.app(),
        json!({"method": "physical", "backoffLimit": 0}),
    )
    .await;
    let job = ns.job_ends("incomplete", "Failed").await;
    let (_, message) = failure(&job);
    assert_eq!(attempt_reasons(&job), ["StreamError"], "{}", job["status"]);
    assert!(message.contains("ToolIncomplete"), "{message}");
    nothing_left(&bucket).await;
    ns.delete().await;
}

#[tokio::test]
async fn the_agents_pod_is_deleted_in_mid_stream() {
    let ns = Namespace::create("pod-deleted").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    let mut spec = slow();
    spec["backoffLimit"] = json!(6);
    ns.job("deleted", db.app(), spec).await;
    ns.job_streams("deleted").await;
    ns.kubectl_ok(&["delete", "pod", db.pod(), "--grace-period=0", "--force"])
        .await;
    let job = ns.job_ends("deleted", "Succeeded").await;
    let reasons = attempt_reasons(&job);
    assert_eq!(
        reasons.first().map(String::as_str),
        Some("StreamTruncated"),
        "{reasons:?}"
    );
    assert!(reasons.len() >= 2);
    bucket.assert_one_backup(&job).await;
    assert!(bucket.uploads().await.is_empty());
    ns.delete().await;
}

#[tokio::test]
async fn a_hop_that_drops_or_breaks_what_passes() {
    let ns = Namespace::create("bad-hop").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    let bucket = ns.ready_store().await;
    let proxy = FaultProxy::start(&ns).await;
    for (fault, reason) in [
        ("dropTrailers", "TrailerMissing"),
        ("loseBytes", "LengthMismatch"),
        ("alterByte", "DigestMismatch"),
    ] {
        proxy.rules(&json!({"upstream": db.agent_address().await, "body": fault, "onlyPath": "/v1/backup"})).await;
        let name = fault.to_lowercase();
        ns.job(
            &name,
            "fault-proxy",
            json!({"method": "physical", "backoffLimit": 0}),
        )
        .await;
        let job = ns.job_ends(&name, "Failed").await;
        assert_eq!(attempt_reasons(&job), [reason], "{}", job["status"]);
        nothing_left(&bucket).await;
    }
    // The same way without a fault: the hop itself is not the cause.
    proxy
        .rules(&json!({"upstream": db.agent_address().await}))
        .await;
    ns.job(
        "whole",
        "fault-proxy",
        json!({"method": "physical", "backoffLimit": 0}),
    )
    .await;
    let job = ns.job_ends("whole", "Succeeded").await;
    bucket.assert_one_backup(&job).await;
    ns.delete().await;
}

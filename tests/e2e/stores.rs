//! What a store says of itself.

use e2e::{Namespace, PortForward, eventually, namespace::condition, run};

#[tokio::test]
async fn a_store_says_where_it_is_and_what_it_can_do() {
    let ns = Namespace::create("store-says").await;
    ns.install_controller(&[]).await;
    let bucket = ns.ready_store().await;
    let store = ns.get("backupstore", "store").await.unwrap();
    let status = &store["status"];
    let place = format!("s3://{}/backups", bucket.name);
    assert_eq!(status["location"], place.as_str());
    // The cluster's S3 server compares checksums and lists uploads.
    assert_eq!(status["capabilities"]["checksum"], "CRC64NVME", "{status}");
    assert_eq!(status["capabilities"]["listUploads"], true, "{status}");
    let ready = condition(&store, "Ready").unwrap();
    let message = ready["message"].as_str().unwrap();
    assert!(
        message.contains(&place) && message.contains("listed and deleted"),
        "{message}"
    );
    let table = ns.kubectl_ok(&["get", "bkstore", "store"]).await;
    assert!(
        table.contains("LOCATION") && table.contains(&place),
        "{table}"
    );
    // What is counted, and that a store's own series goes with it.
    let pod = ns.controller_ready().await;
    let forward = PortForward::start(&ns, &pod, 8080).await;
    let url = format!("http://{}/metrics", forward.address());
    let metrics = run("curl", &["-sf", &url], b"").await.stdout;
    let name = |what: &str| format!("towline_store_{what}");
    for line in [
        name("requests_total{operation=\"put\",result=\"success\"}"),
        name("requests_total{operation=\"abort_upload\",result=\"success\"}"),
        name("request_duration_seconds_count{operation=\"list\"}"),
    ] {
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    let series = format!("towline_store_ready{{namespace=\"{}\"", ns.name);
    assert!(metrics.contains(&series), "{series} is not in {metrics}");
    ns.kubectl_ok(&["delete", "bkstore", "store"]).await;
    eventually("the store's series is gone", || async {
        let metrics = run("curl", &["-sf", &url], b"").await.stdout;
        match metrics.contains(&series) {
            true => Err(series.clone()),
            false => Ok(()),
        }
    })
    .await;
    ns.delete().await;
}

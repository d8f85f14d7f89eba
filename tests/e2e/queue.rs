//! More jobs than transfers at once.

use e2e::{Namespace, database::Database, eventually, namespace::condition};
use serde_json::json;

#[tokio::test]
async fn jobs_wait_in_line_and_say_so() {
    let ns = Namespace::create("queue").await;
    ns.install_controller(&["transfers.max=1"]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    let bucket = ns.ready_store().await;
    let slow = json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 1_000_000});
    ns.job("first", db.app(), slow).await;
    ns.job_streams("first").await;
    for (job, ahead) in [("second", 0), ("third", 1)] {
        ns.job(job, db.app(), json!({"method": "physical"})).await;
        eventually(&format!("{job} is in line"), || async {
            let object = ns.get("backupjob", job).await.ok_or("none")?;
            let told = condition(&object, "Progressing")
                .cloned()
                .unwrap_or_default();
            let message = told["message"].as_str().unwrap_or_default();
            let place = format!("jobs ahead of it: {ahead}");
            if told["reason"] == "Queued"
                && message.contains("--max-transfers")
                && message.contains(&place)
            {
                Ok(())
            } else {
                Err(object["status"].to_string())
            }
        })
        .await;
    }
    // One that leaves the line makes room for the one behind it.
    let cancel = async |job: &str| {
        ns.kubectl_ok(&[
            "patch",
            "backupjob",
            job,
            "--type=merge",
            "-p",
            r#"{"spec":{"cancel":true}}"#,
        ])
        .await;
    };
    cancel("second").await;
    ns.job_ends("second", "Cancelled").await;
    cancel("first").await;
    ns.job_ends("first", "Cancelled").await;
    let third = ns.job_ends("third", "Succeeded").await;
    assert_eq!(
        third["status"]["attempt"], 1,
        "waiting is no attempt: {}",
        third["status"]
    );
    bucket.assert_one_backup(&third).await;
    ns.delete().await;
}

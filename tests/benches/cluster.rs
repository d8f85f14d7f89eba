//! What the README states, measured on a real cluster and printed against its targets.
//!
//! `make bench` runs it with release builds. It asserts nothing about speed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

use e2e::{Namespace, database::Database, eventually_for};
use serde_json::json;
use std::time::Duration;

const MIB: f64 = 1024.0 * 1024.0;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let ns = Namespace::create("bench").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    let bucket = ns.ready_store().await;

    let spec = Namespace::job_spec(db.app(), &json!({"method": "physical"}));
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "due"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": spec}}});
    ns.apply(&schedule.to_string()).await;
    eventually_for(Duration::from_secs(400), "three scheduled jobs", || async {
        let jobs = ns.list("backupjobs", "").await;
        let done = jobs
            .iter()
            .filter(|job| job["status"]["phase"] == "Succeeded")
            .count();
        if done < 3 {
            Err(format!("{done} done"))
        } else {
            Ok(())
        }
    })
    .await;
    // Times in a status have whole seconds; the controller's histogram has more.
    let controller = ns.controller_ready().await;
    let metrics = format!(
        "/api/v1/namespaces/{}/pods/{controller}:8080/proxy/metrics",
        ns.name
    );
    let metrics = ns.kubectl_ok(&["get", "--raw", &metrics]).await;
    let figure = |name: &str| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name}: {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let runs = figure("towline_start_delay_seconds_count");
    let delay = figure("towline_start_delay_seconds_sum") / runs;
    ns.kubectl_ok(&["delete", "backupschedule", "due"]).await;

    db.query(
        "CREATE DATABASE bulk; CREATE TABLE bulk.t (id INT AUTO_INCREMENT PRIMARY KEY, b BLOB)",
    )
    .await;
    for _ in 0..20 {
        // 102,400 rows of 1 KiB that do not compress.
        db.query("USE bulk; INSERT INTO t (b) SELECT RANDOM_BYTES(1024) FROM seq_1_to_102400")
            .await;
    }
    ns.job("bulk", db.app(), json!({"method": "physical"}))
        .await;
    let job = eventually_for(Duration::from_secs(900), "the big backup ends", || async {
        let job = ns.get("backupjob", "bulk").await.ok_or("none")?;
        if job["status"]["phase"] == "Succeeded" {
            Ok(job)
        } else {
            Err(job["status"].to_string())
        }
    })
    .await;
    bucket.assert_one_backup(&job).await;
    let peak = async |pod: &str, container: &str| {
        let output = ns.sh(pod, container, "while read -r name value _; do case $name in VmHWM:) echo $value;; esac; done < /proc/1/status", "").await;
        output
            .stdout
            .trim()
            .parse::<f64>()
            .unwrap_or_else(|_| panic!("{output:?}"))
            / 1024.0
    };
    let bytes = job["status"]["bytes"].as_f64().unwrap();
    let copy = job["status"]["timings"]["copy"].as_f64().unwrap();
    println!("| figure | measured | target |\n|---|---|---|");
    println!(
        "| archive | {:.0} MiB in {copy:.1} s, {:.0} MiB/s | - |",
        bytes / MIB,
        bytes / MIB / copy
    );
    println!(
        "| agent, peak resident | {:.0} MiB | under 256 MiB |",
        peak(db.pod(), "towline-agent").await
    );
    println!(
        "| controller, peak resident | {:.0} MiB | under 256 MiB |",
        peak(&controller, "controller").await
    );
    println!("| due time to first byte, mean of {runs} | {delay:.2} s | under 2 s |");
    ns.delete().await;
}

//! The controller with many objects and with many jobs at once, measured against the real API server.
//!
//! `make bench-scale` runs it with a release build of the controller, started here as a process of its
//! own. It prints figures against targets and asserts nothing about speed.
//!
//! `TOWLINE_BENCH_JOBS` (10000) and `TOWLINE_BENCH_SCHEDULES` (500) are the objects that only lie
//! there, `TOWLINE_BENCH_DUE` (50) the schedules that are due at once, `TOWLINE_BENCH_ROUNDS` (3) how
//! often, `TOWLINE_BENCH_IDLE_SECONDS` (60) how long an idle controller is watched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

mod calls;
mod controller;
mod objects;

use controller::Controller;
use e2e::{
    Namespace, eventually_for,
    report::{machine, median, number, row},
    stand_in::StandIns,
    store::Bucket,
};
use jiff::Timestamp;
use objects::Objects;
use std::{collections::HashMap, time::Duration};

/// Bytes of a stand-in's archive: what matters is when it is asked for.
const ARCHIVE: usize = 64 << 10;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let jobs = number("TOWLINE_BENCH_JOBS", 10_000);
    let schedules = number("TOWLINE_BENCH_SCHEDULES", 500);
    let due = number("TOWLINE_BENCH_DUE", 50);
    let rounds = number("TOWLINE_BENCH_ROUNDS", 3);
    let idle_seconds = number("TOWLINE_BENCH_IDLE_SECONDS", 60);

    let ns = Namespace::create_alone("scale").await;
    if ns.cluster.external {
        println!(
            "skipped: the controller runs here and must reach the S3 server and the stand-in agents by an address \
             that is not loopback, which TOWLINE_TEST_KUBECONFIG does not promise"
        );
        return ns.delete().await;
    }
    let bucket = Bucket::create(&ns).await;
    let objects = Objects::connect(&ns, &bucket).await;
    let node = objects.node_address();

    eprintln!("making {schedules} schedules and {jobs} finished jobs");
    let lying = objects
        .schedules("lying", schedules, "17 3 29 2 *", &[])
        .await;
    objects.finished_jobs(&lying, jobs).await;

    let mut controller = Controller::start(&ns, due, &node.to_string()).await;
    let settled = controller.settles(jobs, schedules).await;
    let memory = controller.memory("VmRSS");
    let peak = controller.memory("VmHWM");
    let calls_before = controller.calls();
    eprintln!("settled after {settled:.1} s; watching it idle for {idle_seconds} s");
    let cpu = controller.cpu();
    tokio::time::sleep(Duration::from_secs(idle_seconds as u64)).await;
    let idle = (controller.cpu() - cpu) / idle_seconds as f64 * 100.0;
    let idle_calls = controller.calls().since(&calls_before);
    eprintln!("{memory:.0} MiB resident, {peak:.0} at most; {idle:.2} % of a CPU when idle");

    let agents = StandIns::start(node, due, ARCHIVE).await;
    // Nothing was due before a schedule's creation, so each run is one that was waited for.
    let due_schedules = objects
        .schedules("due", due, "* * * * *", &agents.addresses)
        .await;
    let before = controller.calls();
    let wanted = due * rounds;
    let limit = Duration::from_secs(60 * (rounds as u64 + 3));
    eventually_for(limit, "every schedule has run", || async {
        match agents.asked().len() {
            n if n >= wanted => Ok(()),
            n => Err(format!("{n} of {wanted} backups were asked for")),
        }
    })
    .await;
    // Some seconds of the minute are left until they are due again.
    controller.quiet(Duration::from_secs(3)).await;
    let calls = controller.calls().since(&before);
    objects.suspend(&due_schedules).await;
    let made = objects.made_by(&due_schedules).await;
    let delays = delays(&agents, &made);
    let at_end = controller.memory("VmRSS");
    let unsuccessful = objects.unsuccessful(&due_schedules).await;
    assert!(
        unsuccessful.is_empty(),
        "not every job succeeded: {unsuccessful:?}"
    );
    controller.stop().await;

    println!("{}\n", machine(&[]).await);
    println!(
        "{jobs} finished jobs and {schedules} schedules in {} namespaces; {} runs of {due} schedules due at once\n",
        objects::NAMESPACES,
        delays.len()
    );
    println!("| figure | measured | target | |\n|---|---|---|---|");
    row(
        "controller, resident",
        format!("{memory:.0} MiB"),
        "under 200 MiB",
        memory < 200.0,
    );
    row(
        "controller, peak resident",
        format!("{peak:.0} MiB"),
        "under 200 MiB",
        peak < 200.0,
    );
    row(
        "controller, CPU when idle",
        format!("{idle:.2} %"),
        "under 1 %",
        idle < 1.0,
    );
    let middle = median(delays.clone());
    row(
        "due time to the request at the agent, median",
        format!("{middle:.2} s"),
        "under 1 s",
        middle < 1.0,
    );
    println!(
        "| the same, slowest | {:.2} s | - | |",
        delays.iter().copied().fold(0.0, f64::max)
    );
    println!("| from start to quiet | {settled:.1} s | - | |");
    println!("| resident after the runs | {at_end:.0} MiB | - | |");
    println!(
        "| API calls of the idle controller | {:.1} a minute | - | |",
        idle_calls.total() as f64 * 60.0 / idle_seconds as f64
    );
    println!(
        "| API calls a run | {:.1} | - | |\n",
        calls.total() as f64 / made.len() as f64
    );
    println!("{}", calls.table(made.len()));
    objects.delete().await;
    ns.delete().await;
}

/// Seconds from each job's due time to its request at the agent.
fn delays(agents: &StandIns, due: &HashMap<String, Timestamp>) -> Vec<f64> {
    agents
        .asked()
        .iter()
        .map(|asked| {
            let due = due
                .get(&asked.job)
                .unwrap_or_else(|| panic!("no job has uid {}", asked.job));
            asked.at.duration_since(*due).as_secs_f64()
        })
        .collect()
}

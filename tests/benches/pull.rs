//! `towline backup` to the S3 server against `curl agent | rclone rcat`, in turn.
//!
//! `make bench-pull` runs it with a release build. The agent is a stand-in of this process whose stream
//! costs next to nothing, so that the way to the store is what is measured; it prints figures against
//! targets and asserts nothing about speed. `TOWLINE_BENCH_MIB` (2048) is the size of the archive,
//! `TOWLINE_BENCH_RUNS` (3) the number of pairs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

use e2e::{
    Cluster,
    report::{machine, median, number, program, row},
    stand_in::StandIns,
    store::Bucket,
};
use std::{fmt::Display, net::SocketAddr};
use tokio::process::Command;

const MIB: f64 = 1024.0 * 1024.0;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let mib = number("TOWLINE_BENCH_MIB", 2048);
    let runs = number("TOWLINE_BENCH_RUNS", 3);
    let bench = Bench::new(mib << 20).await;

    // Connections, caches and the server's own growth are none of the measured ones'.
    bench.pipe().await;
    bench.towline().await;
    let mut pairs = Vec::new();
    for run in 0..runs {
        // Neither always comes first.
        let (pipe, ours) = if run % 2 == 0 {
            let pipe = bench.pipe().await;
            (pipe, bench.towline().await)
        } else {
            let ours = bench.towline().await;
            (bench.pipe().await, ours)
        };
        eprintln!("pair {}: pipe {pipe}; towline {ours}", run + 1);
        pairs.push((pipe, ours));
    }

    let of = |what: fn(&(Cost, Cost)) -> f64| median(pairs.iter().map(what).collect());
    let rate = |seconds: f64| bench.bytes as f64 / MIB / seconds;
    let ratio = of(|(pipe, ours)| pipe.wall / ours.wall);
    println!("{}\n", machine(&["curl", "rclone"]).await);
    println!(
        "{mib} MiB that do not compress from a stand-in agent to the S3 server, {runs} pairs, medians\n"
    );
    println!("| | wall, s | MiB/s | CPU, s |\n|---|---|---|---|");
    for (name, wall, cpu) in [
        (
            "`curl agent \\| rclone rcat`",
            of(|pair| pair.0.wall),
            of(|pair| pair.0.cpu),
        ),
        (
            "`towline backup`",
            of(|pair| pair.1.wall),
            of(|pair| pair.1.cpu),
        ),
    ] {
        println!("| {name} | {wall:.2} | {:.0} | {cpu:.2} |", rate(wall));
    }
    println!("\n| figure | measured | target | |\n|---|---|---|---|");
    row(
        "throughput, towline to the pipe",
        format!("{ratio:.2}x"),
        "at least 0.95x",
        ratio >= 0.95,
    );
}

/// What one backup took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Seconds from start to end.
    wall: f64,
    /// Seconds of user and system time, of every process but agent and store.
    cpu: f64,
}

impl Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} s wall, {:.2} s CPU", self.wall, self.cpu)
    }
}

struct Bench {
    cluster: Cluster,
    bucket: Bucket,
    agents: StandIns,
    bytes: usize,
}

impl Bench {
    async fn new(bytes: usize) -> Self {
        let cluster = Cluster::from_env();
        let bucket = Bucket::create_named(&cluster, "bench-pull").await;
        let agents = StandIns::start([127, 0, 0, 1].into(), 1, bytes).await;
        Self {
            cluster,
            bucket,
            agents,
            bytes,
        }
    }

    fn agent(&self) -> SocketAddr {
        self.agents.addresses[0]
    }

    /// The pipe that a person would build; parts as large as ours and as many at once.
    async fn pipe(&self) -> Cost {
        let script = format!(
            "curl -sSf -H 'TE: trailers' 'http://{}/v1/backup' | \
             rclone rcat --s3-chunk-size 16Mi --s3-upload-concurrency 4 --s3-no-check-bucket ':s3:{}/pipe.tar'",
            self.agent(),
            self.bucket.name
        );
        let env = [
            ("RCLONE_CONFIG", "/dev/null"),
            ("RCLONE_S3_PROVIDER", "Other"),
            ("RCLONE_S3_ENDPOINT", &self.cluster.s3_endpoint_here),
            ("RCLONE_S3_REGION", "us-east-1"),
            ("RCLONE_S3_ACCESS_KEY_ID", &self.cluster.s3_key.0),
            ("RCLONE_S3_SECRET_ACCESS_KEY", &self.cluster.s3_key.1),
        ];
        self.measure(&script, &env, "pipe.tar").await
    }

    async fn towline(&self) -> Cost {
        let script = format!(
            "'{}' backup --agent 'http://{}' --store 's3://{}' --endpoint-url '{}' --region us-east-1 --allow-http --name bench",
            program("towline").display(),
            self.agent(),
            self.bucket.name,
            self.cluster.s3_endpoint_here,
        );
        let env = [
            ("AWS_ACCESS_KEY_ID", self.cluster.s3_key.0.as_str()),
            ("AWS_SECRET_ACCESS_KEY", &self.cluster.s3_key.1),
        ];
        self.measure(&script, &env, "/backup.tar").await
    }

    /// Runs it, looks whether the archive is there and whole, and takes it away again.
    async fn measure(&self, script: &str, env: &[(&str, &str)], ending: &str) -> Cost {
        let cost = timed(script, env).await;
        let objects = self.bucket.sizes().await;
        let archives: Vec<_> = objects
            .iter()
            .filter(|(key, _)| key.ends_with(ending))
            .collect();
        let [(_, size)] = archives[..] else {
            panic!("no archive, or several: {objects:?}")
        };
        assert_eq!(*size, self.bytes as u64);
        self.bucket.empty().await;
        cost
    }
}

/// What a script takes, with all that it starts: bash counts its children.
async fn timed(script: &str, env: &[(&str, &str)]) -> Cost {
    let script = format!("set -o pipefail; TIMEFORMAT='%3R %3U %3S'; time {{ {script}; }}");
    let mut command = Command::new("bash");
    command
        .args(["-c", &script])
        .envs(env.iter().copied())
        // rclone cannot work with the bundle that some machines name for everything AWS.
        .env_remove("AWS_CA_BUNDLE");
    let output = e2e::command::run_command(command, b"").await;
    assert!(output.code == 0, "{output:?}");
    let line = output.stderr.lines().next_back().unwrap_or_default();
    let figures: Vec<f64> = line
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [wall, user, system] = figures[..] else {
        panic!("{output:?}")
    };
    Cost {
        wall,
        cpu: user + system,
    }
}

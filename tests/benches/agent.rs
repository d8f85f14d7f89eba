//! The agent alone, against the pipe that a person would build of the same parts.
//!
//! `make bench-agent` runs it with release builds; it needs MariaDB and curl on this machine, no
//! cluster. It prints figures against targets and asserts nothing about speed.
//! `TOWLINE_BENCH_MIB` (2048) is the size of the data, `TOWLINE_BENCH_RUNS` (5) the number of pairs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

use e2e::{
    database::LocalServer,
    eventually,
    report::{self, machine, median, number, program, row},
};
use std::{
    fmt::Display,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
};

/// Lock buffer of the agent: `--lock-buffer`'s default.
const LOCK_BUFFER_MIB: f64 = 64.0;
/// Connections that do nothing.
const IDLE: usize = 200;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let mib = number("TOWLINE_BENCH_MIB", 2048);
    let runs = number("TOWLINE_BENCH_RUNS", 5);
    let dir = tempfile::tempdir().unwrap();
    let server = LocalServer::fresh(dir.path()).await;
    server.fill(mib).await;
    let agent = Agent::start(dir.path(), server.socket(), &[]).await;

    // Files are in the page cache for all the measured ones.
    let pipe = Pipe::new(dir.path(), server.socket());
    pipe.run().await;
    agent.run(&pipe).await;
    let mut pairs = Vec::new();
    for run in 0..runs {
        // Neither always comes first.
        let (plain, ours) = if run % 2 == 0 {
            let plain = pipe.run().await;
            (plain, agent.run(&pipe).await)
        } else {
            let ours = agent.run(&pipe).await;
            (pipe.run().await, ours)
        };
        eprintln!("pair {}: pipe {plain}; agent {ours}", run + 1);
        pairs.push((plain, ours));
    }
    let peak = agent.memory("VmHWM");
    agent.stop().await;
    // New ones, whose free memory hides nothing.
    let agent = Agent::start(dir.path(), server.socket(), &[]).await;
    let idle = agent.idle_connections(|| plain(&agent.address)).await;
    agent.stop().await;
    let certificate = certificate(dir.path()).await;
    let agent = Agent::start(dir.path(), server.socket(), &certificate).await;
    let idle_tls = agent.idle_connections(|| tls(&agent.address)).await;
    agent.stop().await;

    let of = |what: fn(&(Cost, Cost)) -> f64| median(pairs.iter().map(what).collect());
    let speed = of(|(plain, ours)| plain.wall / ours.wall);
    let cpu = of(|(plain, ours)| ours.cpu / plain.cpu);
    println!("{}\n", machine(&["mariadb-backup", "zstd", "curl"]).await);
    println!("{mib} MiB of rows, {runs} pairs, medians\n");
    println!("| | wall, s | CPU, s |\n|---|---|---|");
    println!(
        "| pipe: tool, zstd, sha256sum | {:.2} | {:.2} |",
        of(|pair| pair.0.wall),
        of(|pair| pair.0.cpu)
    );
    println!(
        "| agent: agent, tool, curl | {:.2} | {:.2} |\n",
        of(|pair| pair.1.wall),
        of(|pair| pair.1.cpu)
    );
    println!("| figure | measured | target | |\n|---|---|---|---|");
    row(
        "throughput, agent to pipe",
        format!("{speed:.2}x"),
        "at least 0.95x",
        speed >= 0.95,
    );
    row(
        "CPU, agent to pipe",
        format!("{cpu:.2}x"),
        "at most 1.1x",
        cpu <= 1.1,
    );
    let most = 128.0 + LOCK_BUFFER_MIB;
    row(
        "agent, peak resident",
        format!("{peak:.0} MiB"),
        "under 128 MiB plus the lock buffer of 64 MiB",
        peak < most,
    );
    row(
        format!("{IDLE} idle connections"),
        format!("{idle:.1} MiB"),
        "under 20 MiB",
        idle < 20.0,
    );
    row(
        format!("{IDLE} idle TLS connections"),
        format!("{idle_tls:.1} MiB"),
        "under 20 MiB",
        idle_tls < 20.0,
    );
    server.stop().await;
}

/// What one backup took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Seconds from start to end.
    wall: f64,
    /// Seconds of user and system time of every process but the server.
    cpu: f64,
}

impl Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} s wall, {:.2} s CPU", self.wall, self.cpu)
    }
}

/// The plain pipe.
struct Pipe {
    script: String,
    dir: PathBuf,
}

impl Pipe {
    fn new(dir: &Path, socket: &Path) -> Self {
        let script = format!(
            "mariadb-backup --no-defaults --user=root --socket='{}' --backup --stream=xbstream --parallel=1 \
                 --target-dir='{}' 2>tool.log | zstd -q -T2 -3 -c | sha256sum >/dev/null",
            socket.display(),
            dir.join("pipe-target").display(),
        );
        Self {
            script,
            dir: dir.to_owned(),
        }
    }

    async fn run(&self) -> Cost {
        self.measure(&self.script).await
    }

    /// What a script takes, with all that it starts: bash counts its children.
    async fn measure(&self, script: &str) -> Cost {
        let script = format!("set -o pipefail; TIMEFORMAT='%3R %3U %3S'; time {{ {script}; }}");
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&self.dir)
            .output()
            .await
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {stderr}");
        let times: Vec<f64> = stderr
            .lines()
            .next_back()
            .unwrap_or_default()
            .split(' ')
            .map(|text| text.parse().unwrap_or_else(|_| panic!("{stderr}")))
            .collect();
        let [wall, user, system] = times[..] else {
            panic!("{stderr}")
        };
        Cost {
            wall,
            cpu: user + system,
        }
    }
}

/// The release build of the agent, with its defaults.
struct Agent {
    child: Child,
    address: String,
}

impl Agent {
    async fn start(dir: &Path, socket: &Path, more: &[String]) -> Self {
        let ports = [0; 2].map(|_| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        });
        let address = format!("127.0.0.1:{}", ports[0]);
        let child = Command::new(program("towline-agent"))
            .args(["--no-auth", "--db-user", "root", "--listen", &address])
            .arg(format!("--admin-listen=127.0.0.1:{}", ports[1]))
            .arg("--db-socket")
            .arg(socket)
            .args(more)
            .stderr(std::fs::File::create(dir.join("agent.log")).unwrap())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let agent = Self { child, address };
        eventually("the agent listens", || async {
            let connected = TcpStream::connect(&agent.address).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        agent
    }

    /// A backup that curl throws away. The agent counts its tool once that is reaped, which is
    /// before the body ends.
    async fn run(&self, pipe: &Pipe) -> Cost {
        let before = self.cpu();
        let curl = format!(
            "curl -sSf -H 'TE: trailers' -D head 'http://{}/v1/backup?method=physical' >/dev/null",
            self.address
        );
        let cost = pipe.measure(&curl).await;
        // curl writes trailers where it writes headers.
        let head = std::fs::read_to_string(pipe.dir.join("head")).unwrap();
        let verdict = head
            .lines()
            .find(|line| line.to_lowercase().starts_with("x-streaming-error:"));
        let verdict = verdict.unwrap_or_else(|| panic!("no verdict: {head}"));
        assert_eq!(verdict.split_once(':').unwrap().1.trim(), "", "{head}");
        Cost {
            wall: cost.wall,
            cpu: cost.cpu + self.cpu() - before,
        }
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("the agent runs")
    }

    /// Seconds of user and system time, of its reaped children too.
    fn cpu(&self) -> f64 {
        report::cpu(self.pid())
    }

    /// A figure of /proc/PID/status, in MiB.
    fn memory(&self, name: &str) -> f64 {
        report::memory(self.pid(), name)
    }

    /// What connections cost, MiB, that have each had one answer and stay open.
    async fn idle_connections<T, F: Future<Output = T>>(&self, connect: impl Fn() -> F) -> f64 {
        // The first one pays for what all share.
        let mut open = vec![connect().await];
        let before = self.memory("VmRSS");
        for _ in 0..IDLE {
            open.push(connect().await);
        }
        let cost = self.memory("VmRSS") - before;
        drop(open);
        cost.max(0.0)
    }

    async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

const REQUEST: &[u8] = b"GET /v1/nothing HTTP/1.1\r\nhost: agent\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 404";

/// A connection that has had an answer.
async fn plain(address: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(REQUEST).await.unwrap();
    let mut answer = [0; ANSWER.len()];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, ANSWER);
    connection
}

/// The same with TLS, held by a program that does not judge the certificate.
async fn tls(address: &str) -> Child {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stdin = client.stdin.as_mut().unwrap();
    stdin.write_all(REQUEST).await.unwrap();
    let mut answer = [0; ANSWER.len()];
    let stdout = client.stdout.as_mut().unwrap();
    stdout.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, ANSWER);
    client
}

/// The flags for a certificate of the agent's own.
async fn certificate(dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let (key, cert) = (file("tls.key"), file("tls.crt"));
    let subject = ["-subj", "/CN=agent", "-addext", "subjectAltName=DNS:agent"];
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let files = ["-keyout", &key, "-out", &cert];
    let args = [&["req", "-x509", "-nodes"][..], &curve, &subject, &files].concat();
    e2e::run_ok("openssl", &args, b"").await;
    vec!["--tls-cert".into(), cert, "--tls-key".into(), key]
}

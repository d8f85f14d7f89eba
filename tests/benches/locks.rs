//! The database comes first: the longest write while backups run whose reader stalls at the worst
//! moments, against a reader that is fast.
//!
//! `make bench-locks` runs it with release builds; it needs MariaDB on this machine, no cluster. The
//! engine runs in this process, so that a reader stalls exactly where it should: no socket takes what
//! it does not. It prints figures and asserts nothing about speed. `TOWLINE_BENCH_RUNS` (3) is the
//! number of runs, of which the longest write counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

use e2e::database::LocalServer;
use http_body_util::BodyExt as _;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use towline_agent::backup::{
    BackupMetrics, BackupRequest, Compression, Engine, EngineConfig, Method, Started,
};
use towline_agent::database::{Address, Connection};
use towline_agent::protocol::{TRAILER_ERROR, TRAILER_REASON};

/// MiB copied while writes to tables without transactions wait, and again while all commits do.
const UNDER_LOCKS: u32 = 60;
/// `--max-lock-seconds` where the reader's fault shall show.
const MAX_LOCK: Duration = Duration::from_secs(5);
/// From a polite request to end to one that cannot be ignored.
const GRACE: Duration = Duration::from_secs(5);

/// What the reader does, and how the agent is set.
struct Case {
    name: &'static str,
    /// The stage that it stops taking anything in; `None`: it never stops.
    stalls: Option<&'static str>,
    lock_buffer: u64,
    max_lock: Duration,
}

const CASES: [Case; 5] = [
    Case {
        name: "fast",
        stalls: None,
        lock_buffer: 64 << 20,
        max_lock: Duration::from_secs(60),
    },
    Case {
        name: "stalls in FLUSH, the buffer suffices",
        stalls: Some("flush"),
        lock_buffer: 256 << 20,
        max_lock: Duration::from_secs(60),
    },
    Case {
        name: "stalls in BLOCK_COMMIT, the buffer suffices",
        stalls: Some("block-commit"),
        lock_buffer: 64 << 20,
        max_lock: Duration::from_secs(60),
    },
    Case {
        name: "stalls in FLUSH, the buffer is too small",
        stalls: Some("flush"),
        lock_buffer: 1 << 20,
        max_lock: MAX_LOCK,
    },
    Case {
        name: "stalls in BLOCK_COMMIT, the buffer is too small",
        stalls: Some("block-commit"),
        lock_buffer: 1 << 20,
        max_lock: MAX_LOCK,
    },
];

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let runs = std::env::var("TOWLINE_BENCH_RUNS").map_or(3, |text| {
        text.parse::<u32>()
            .unwrap_or_else(|_| panic!("TOWLINE_BENCH_RUNS is no number: {text}"))
    });
    let dir = tempfile::tempdir().unwrap();
    let server = LocalServer::fresh(dir.path()).await;
    fill(&server).await;
    let quiet = Writers::start(server.socket()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let quiet = quiet.longest();

    println!("{}\n", machine());
    println!(
        "{UNDER_LOCKS} MiB copied in FLUSH, {UNDER_LOCKS} MiB in BLOCK_COMMIT; longest write of {runs} runs\n"
    );
    println!("| reader | verdict | InnoDB | MyISAM | bound | |\n|---|---|---|---|---|---|");
    println!(
        "| no backup | - | {} | {} | - | |",
        millis(quiet[0]),
        millis(quiet[1])
    );
    let mut fast = Duration::ZERO;
    for case in CASES {
        let mut longest = [Duration::ZERO; 2];
        let mut verdict = String::new();
        for _ in 0..runs {
            let (said, now) = case.run(dir.path(), server.socket()).await;
            verdict = said;
            longest = [longest[0].max(now[0]), longest[1].max(now[1])];
        }
        let most = longest[0].max(longest[1]);
        let (bound, met) = match (case.stalls, verdict.as_str()) {
            (None, _) => {
                fast = most;
                ("-".to_owned(), "")
            }
            (_, "complete") => {
                let bound = 2 * fast;
                let met = if most <= bound { "met" } else { "missed" };
                (format!("twice the fast reader's, {}", millis(bound)), met)
            }
            _ => {
                let bound = case.max_lock + GRACE;
                let met = if most <= bound { "met" } else { "missed" };
                (
                    format!("--max-lock-seconds and the grace, {}", millis(bound)),
                    met,
                )
            }
        };
        println!(
            "| {} | {verdict} | {} | {} | {bound} | {met} |",
            case.name,
            millis(longest[0]),
            millis(longest[1])
        );
    }
    server.stop().await;
}

/// Date, processor, load.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown")
        .trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let date = jiff::Zoned::now().date();
    format!("{date}; {cores} cores of {model}; load {load}")
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

impl Case {
    /// The verdict, and the longest write from the backup's start until its locks are gone.
    async fn run(&self, dir: &Path, socket: &Path) -> (String, [Duration; 2]) {
        let config = EngineConfig {
            database: Connection {
                address: Address::Socket(socket.to_owned()),
                user: "root".to_owned(),
                password_file: None,
                timeout: Duration::from_secs(60),
            },
            method: None,
            lock_buffer: self.lock_buffer,
            max_lock: self.max_lock,
            stall_timeout: Duration::from_secs(600),
            max_rate: None,
            allow_galera: false,
            allow_restore: false,
            require_recipients: Vec::new(),
            tmp: dir.to_owned(),
        };
        let metrics = BackupMetrics::new(&prometheus::Registry::new()).unwrap();
        let engine = Engine::new(config, metrics);
        let request = BackupRequest {
            method: Some(Method::Physical),
            compression: Compression::None,
            parallel: 1,
            databases: Vec::new(),
            recipients: Vec::new(),
            max_rate: None,
            job: None,
        };
        let writers = Writers::start(socket).await;
        let Started { mut body, .. } = engine.start(request).await.unwrap();
        let stage = || engine.running().map(|running| running.stage);
        let mut stalled = false;
        let verdict = loop {
            if !stalled && self.stalls.is_some() && stage().as_deref() == self.stalls {
                stalled = true;
                // Until the tool has released its locks, or is dead.
                while stage().is_some_and(|stage| stage != "finish") {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let frame = body.frame().await.unwrap().unwrap();
            if let Ok(trailers) = frame.into_trailers() {
                let text = |name| trailers.get(name).map(|value| value.to_str().unwrap());
                break match text(TRAILER_ERROR) {
                    Some("") => "complete".to_owned(),
                    _ => text(TRAILER_REASON).unwrap().to_owned(),
                };
            }
        };
        assert!(stalled || self.stalls.is_none(), "{}: never", self.name);
        (verdict, writers.longest())
    }
}

/// A session for each engine that writes one row after the other.
struct Writers(Vec<(Arc<AtomicU64>, JoinHandle<()>)>);

impl Writers {
    async fn start(socket: &Path) -> Self {
        let mut writers = Vec::new();
        for table in ["written_innodb", "written_myisam"] {
            let opts = OptsBuilder::default()
                .user(Some("root"))
                .prefer_socket(false)
                .socket(Some(socket.to_string_lossy()));
            let mut session = Conn::new(opts).await.unwrap();
            let insert = format!("INSERT INTO shop.{table} (at) VALUES (NOW(6))");
            let longest = Arc::new(AtomicU64::new(0));
            let seen = Arc::clone(&longest);
            let task = tokio::spawn(async move {
                loop {
                    let begun = Instant::now();
                    session.query_drop(&insert).await.unwrap();
                    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap();
                    seen.fetch_max(micros, Ordering::Relaxed);
                    // Writes come all the time, and leave the processor to others.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            writers.push((longest, task));
        }
        Self(writers)
    }

    fn longest(self) -> [Duration; 2] {
        let of = |at: usize| {
            let (longest, task) = &self.0[at];
            task.abort();
            Duration::from_micros(longest.load(Ordering::Relaxed))
        };
        [of(0), of(1)]
    }
}

async fn fill(server: &LocalServer) {
    server
        .query(&format!(
            "CREATE DATABASE shop; USE shop;
             CREATE TABLE written_innodb (id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6)) ENGINE=InnoDB;
             CREATE TABLE written_myisam (id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6)) ENGINE=MyISAM;
             CREATE TABLE legacy (id INT PRIMARY KEY, note LONGBLOB) ENGINE=MyISAM;
             INSERT INTO legacy SELECT seq, REPEAT(RANDOM_BYTES(1024), 1024) FROM seq_1_to_{UNDER_LOCKS}"
        ))
        .await;
    // The optimizer's statistics are copied at the very end, while every commit waits.
    for n in 0..UNDER_LOCKS {
        server
            .query(&format!(
                "INSERT INTO mysql.column_stats (db_name, table_name, column_name, histogram)
                 VALUES ('shop', 'legacy', '{n}', REPEAT(RANDOM_BYTES(1024), 1024))"
            ))
            .await;
    }
}

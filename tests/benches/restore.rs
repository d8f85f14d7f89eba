//! `towline restore` out of the S3 server against `curl | zstd | tar | mbstream`, in turn.
//!
//! `make bench-restore` runs it with release builds; it needs MariaDB on this machine. What is measured is the
//! one pass from the store to files on the disk: `mariadb-backup --prepare` is a tool's own work and the same for
//! both, so a stand-in answers for it in the measured runs, and a real one in the last. It prints figures against
//! targets and asserts nothing about speed. `TOWLINE_BENCH_MIB` (1024) is the size of the data,
//! `TOWLINE_BENCH_RUNS` (3) the number of pairs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

use e2e::{
    Cluster,
    database::LocalServer,
    eventually,
    report::{machine, median, number, program, row},
    store::Bucket,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, process::Command};

const MIB: f64 = 1024.0 * 1024.0;
/// How often a process is asked for its memory; the kernel itself keeps the peak.
const LOOK: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let mib = number("TOWLINE_BENCH_MIB", 1024);
    let runs = number("TOWLINE_BENCH_RUNS", 3);
    let bench = Bench::new(mib).await;

    // Connections and caches are none of the measured ones'.
    bench.pipe().await;
    bench.restore(true).await;
    let mut pairs = Vec::new();
    let mut peak: f64 = 0.0;
    for run in 0..runs {
        // Neither always comes first.
        let (pipe, (ours, most)) = if run % 2 == 0 {
            let pipe = bench.pipe().await;
            (pipe, bench.restore(true).await)
        } else {
            let ours = bench.restore(true).await;
            (bench.pipe().await, ours)
        };
        eprintln!(
            "pair {}: pipe {pipe:.2} s; towline {ours:.2} s, {most:.0} MiB",
            run + 1
        );
        pairs.push((pipe, ours));
        peak = peak.max(most);
    }
    let mut verifying = Vec::new();
    for _ in 0..runs {
        verifying.push(bench.towline("verify", &[], None).await.0);
    }
    let (whole, _) = bench.restore(false).await;

    let ratio = median(pairs.iter().map(|(pipe, ours)| pipe / ours).collect());
    let pipe = median(pairs.iter().map(|pair| pair.0).collect());
    let ours = median(pairs.iter().map(|pair| pair.1).collect());
    let verify = median(verifying);
    let (archive, data) = (bench.archive as f64 / MIB, bench.data as f64 / MIB);
    println!("{}\n", machine(&["curl", "zstd", "mariadb-backup"]).await);
    println!(
        "{data:.0} MiB of files, an archive of {archive:.0} MiB in the S3 server, {runs} pairs, medians\n"
    );
    println!("| | wall, s | MiB/s of files |\n|---|---|---|");
    for (name, seconds) in [
        ("`curl \\| zstd -d \\| tar -xO \\| mbstream -x`", pipe),
        ("`towline restore`, without the prepare", ours),
        (
            "`towline verify`: the first pass of a logical restore",
            verify,
        ),
        ("`towline restore`, prepare and all", whole),
    ] {
        println!("| {name} | {seconds:.2} | {:.0} |", data / seconds);
    }
    println!("\n| figure | measured | target | |\n|---|---|---|---|");
    row(
        "throughput of one pass, towline to the pipe",
        format!("{ratio:.2}x"),
        "at least 0.9x",
        ratio >= 0.9,
    );
    row(
        "towline, peak resident",
        format!("{peak:.0} MiB"),
        "under 256 MiB",
        peak < 256.0,
    );
    bench.bucket.empty().await;
}

/// The peak of a process's memory, MiB; one that has just ended has none.
fn memory(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

struct Bench {
    cluster: Cluster,
    bucket: Bucket,
    dir: tempfile::TempDir,
    /// Keys of the archive's objects, in order.
    objects: Vec<String>,
    /// Bytes of the archive.
    archive: u64,
    /// Bytes of the files in it.
    data: u64,
}

impl Bench {
    /// A real backup in the bucket.
    async fn new(mib: usize) -> Self {
        let cluster = Cluster::from_env();
        let bucket = Bucket::create_named(&cluster, "bench-restore").await;
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        let server = LocalServer::fresh(&source).await;
        server.fill(mib).await;
        let mut bench = Self {
            cluster,
            bucket,
            dir,
            objects: Vec::new(),
            archive: 0,
            data: 0,
        };
        bench.back_up(&server).await;
        server.stop().await;
        fs::remove_dir_all(source).unwrap();
        let sizes = bench.bucket.sizes().await;
        let archive = sizes
            .into_iter()
            .filter(|(key, _)| key.contains("/backup.tar"));
        let archive: Vec<(String, u64)> = archive.collect();
        bench.archive = archive.iter().map(|(_, bytes)| bytes).sum();
        bench.objects = archive.into_iter().map(|(key, _)| key).collect();
        let out = bench.towline("verify", &[], None).await.1;
        let words: Vec<&str> = out.split_whitespace().collect();
        let at = words.windows(2).position(|w| w == ["members", "with"]);
        bench.data = words[at.expect("verify tells the size") + 2]
            .parse()
            .unwrap();
        bench
    }

    async fn back_up(&self, server: &LocalServer) {
        let ports = [0; 2].map(|_| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        });
        let address = format!("127.0.0.1:{}", ports[0]);
        let _agent = Command::new(program("towline-agent"))
            .args(["--no-auth", "--db-user", "root", "--listen", &address])
            .arg(format!("--admin-listen=127.0.0.1:{}", ports[1]))
            .arg("--db-socket")
            .arg(server.socket())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        eventually("the agent listens", || async {
            let connected = TcpStream::connect(&address).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        let agent = format!("http://{address}");
        self.run(
            "backup",
            &["--agent", &agent, "--method", "physical", "--name", "bench"],
            None,
        )
        .await;
    }

    /// The pipe that a person would build, down to the disk.
    async fn pipe(&self) -> f64 {
        let into = self.dir.path().join("pipe");
        fs::create_dir(&into).unwrap();
        let urls: Vec<String> = self
            .objects
            .iter()
            .map(|key| {
                format!(
                    "'{}/{}/{key}'",
                    self.cluster.s3_endpoint_here, self.bucket.name
                )
            })
            .collect();
        let script = format!(
            "set -o pipefail; curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 -H x-amz-content-sha256:UNSIGNED-PAYLOAD -u \"$KEY\" {} | zstd -dc | \
             tar -xO --wildcards 'data/*' | mbstream -x -C '{into}' && sync -f '{into}'",
            urls.join(" "),
            into = into.display(),
        );
        let (id, secret) = &self.cluster.s3_key;
        let started = Instant::now();
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("KEY", format!("{id}:{secret}"))
            .output()
            .await
            .unwrap();
        let seconds = started.elapsed().as_secs_f64();
        assert!(output.status.success(), "{output:?}");
        assert!(into.join("ibdata1").is_file());
        fs::remove_dir_all(into).unwrap();
        seconds
    }

    /// Seconds, and the peak of its memory in MiB. `stand_in`: nothing is prepared.
    async fn restore(&self, stand_in: bool) -> (f64, f64) {
        let into = self.dir.path().join("towline");
        let path = into.display().to_string();
        let tools = stand_in.then(|| self.stand_in());
        let (seconds, _, peak) = self
            .run(
                "restore",
                &["--latest", "--to-dir", &path],
                tools.as_deref(),
            )
            .await;
        let marker = fs::read_to_string(into.join("towline-restore.json")).unwrap();
        assert!(marker.contains("Usable"), "{marker}");
        fs::remove_dir_all(into).unwrap();
        (seconds, peak)
    }

    /// A folder with a `mariadb-backup` that has nothing to prepare.
    fn stand_in(&self) -> PathBuf {
        let folder = self.dir.path().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let tool = folder.join("mariadb-backup");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let real = std::env::split_paths(&path)
            .map(|dir| dir.join("mariadb-backup"))
            .find(|path| path.is_file())
            .expect("mariadb-backup is in Debian's package mariadb-backup");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --prepare ] || exec '{}' \"$@\"\necho 'completed OK!' >&2\n",
            real.display()
        );
        fs::write(&tool, script).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    async fn towline(&self, command: &str, args: &[&str], first: Option<&Path>) -> (f64, String) {
        let args = [&["--latest"][..], args].concat();
        let (seconds, out, _) = self.run(command, &args, first).await;
        (seconds, out)
    }

    /// Runs the release build: seconds, what it printed, and the peak of its memory in MiB. Programs are
    /// looked for in `first` before all other folders.
    async fn run(&self, command: &str, args: &[&str], first: Option<&Path>) -> (f64, String, f64) {
        let store = format!("s3://{}", self.bucket.name);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = first.map(Path::to_owned).into_iter();
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).unwrap();
        let started = Instant::now();
        let mut child = Command::new(program("towline"))
            .args([
                command,
                "--store",
                &store,
                "--region",
                "us-east-1",
                "--allow-http",
            ])
            .args(["--endpoint-url", &self.cluster.s3_endpoint_here])
            .args(args)
            .env("AWS_ACCESS_KEY_ID", &self.cluster.s3_key.0)
            .env("AWS_SECRET_ACCESS_KEY", &self.cluster.s3_key.1)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        let mut peak: f64 = 0.0;
        loop {
            tokio::select! {
                ended = child.wait() => { ended.unwrap(); break }
                () = tokio::time::sleep(LOOK) => {
                    peak = peak.max(memory(pid).unwrap_or(0.0));
                }
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (seconds, text(&output.stdout), peak)
    }
}

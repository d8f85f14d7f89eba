//! The agent as a process beside a real MariaDB, seen through curl: a failed backup is always
//! visible, as a trailer or as curl's exit code.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, outside of test functions"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A MariaDB of its own with about 40 MB in it.
struct Database {
    dir: tempfile::TempDir,
    server: Child,
}

impl Database {
    /// `None`, with the reason printed, where MariaDB or curl is not installed.
    fn start() -> Option<Self> {
        for tool in [
            "mariadbd",
            "mariadb-install-db",
            "mariadb",
            "mariadb-backup",
            "curl",
            "zstd",
            "tar",
        ] {
            if let Err(error) = Command::new(tool).arg("--version").output() {
                eprintln!("not run: {tool} does not start: {error}");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        // Installations at the same time meet in one folder for temporary tables.
        let user = if rustix::process::geteuid().is_root() {
            "--user=root"
        } else {
            "--skip-name-resolve"
        };
        run(Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
                user,
            ])
            .arg(format!("--datadir={}", data.display()))
            .env("TMPDIR", dir.path()));
        let server = Command::new("mariadbd")
            .args([
                "--no-defaults",
                "--skip-networking",
                "--innodb-buffer-pool-size=32M",
                user,
            ])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", dir.path().join("socket").display()))
            .arg(format!("--pid-file={}", dir.path().join("pid").display()))
            .env("TMPDIR", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let database = Self { dir, server };
        eventually("the server answers", || {
            let ping = Command::new("mariadb")
                .args(database.root())
                .args(["-e", "SELECT 1"])
                .output()
                .unwrap();
            ping.status.success().then_some(())
        });
        database.sql(
            "CREATE USER towline@localhost IDENTIFIED BY 'pass word';
             GRANT ALL ON *.* TO towline@localhost;
             CREATE DATABASE shop; USE shop;
             CREATE TABLE shop.orders (id INT PRIMARY KEY, note LONGBLOB) ENGINE=InnoDB;
             INSERT INTO shop.orders SELECT seq, REPEAT(RANDOM_BYTES(1024), 100) FROM seq_1_to_400;",
        );
        fs::write(database.password_file(), "pass word\n").unwrap();
        Some(database)
    }

    fn root(&self) -> [String; 4] {
        let socket = format!("--socket={}", self.socket().display());
        [
            "--no-defaults".to_owned(),
            "--user=root".to_owned(),
            "--batch".to_owned(),
            socket,
        ]
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn password_file(&self) -> PathBuf {
        self.dir.path().join("password")
    }

    fn sql(&self, sql: &str) -> String {
        run(Command::new("mariadb")
            .args(self.root())
            .args(["-N", "-e", sql]))
    }

    /// Sessions of the agent's user and its tools.
    fn sessions(&self) -> usize {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'towline'";
        self.sql(sql).trim().parse().unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

struct Agent {
    child: Child,
    url: String,
    tmp: tempfile::TempDir,
}

impl Agent {
    fn start(database: &Database, args: &[&str]) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_towline-agent"))
            .args([
                "--no-auth",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .arg("--db-socket")
            .arg(database.socket())
            .arg("--db-password-file")
            .arg(database.password_file())
            .args(["--drain-delay", "0"])
            .args(args)
            .env("TMPDIR", tmp.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let start: serde_json::Value = serde_json::from_str(&line).unwrap();
        let url = format!("http://{}", start["listen"].as_str().unwrap());
        // The log is shown when a test fails, and never fills its pipe.
        std::thread::spawn(move || {
            log.lines()
                .map_while(Result::ok)
                .for_each(|line| eprintln!("agent: {line}"))
        });
        Self { child, url, tmp }
    }

    /// Children of the agent: its tools.
    fn tools(&self) -> Vec<i32> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = fs::read_dir(tasks)
            .map(|dir| dir.flatten().collect::<Vec<_>>())
            .unwrap_or_default();
        let children = tasks
            .iter()
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let pids: Vec<String> = children
            .flat_map(|c| c.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        pids.iter().map(|pid| pid.parse().unwrap()).collect()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// Starts curl on a backup.
    fn curl(&self, query: &str, args: &[&str]) -> Curl {
        let dir = tempfile::tempdir().unwrap();
        let (body, head) = (dir.path().join("body"), dir.path().join("head"));
        let child = Command::new("curl")
            .args(["-f", "-sS", "--no-buffer", "--noproxy", "*", "-o"])
            .arg(&body)
            .arg("-D")
            .arg(&head)
            .args(args)
            .arg(format!("{}/v1/backup?{query}", self.url))
            .spawn()
            .unwrap();
        Curl { child, dir }
    }

    /// Nothing is left of a backup: no tool, no session, no file.
    fn is_clean(&self, database: &Database) {
        eventually("no tool is left", || self.tools().is_empty().then_some(()));
        eventually("no session is left", || {
            (database.sessions() == 0).then_some(())
        });
        eventually("no file is left", || {
            fs::read_dir(self.tmp.path())
                .unwrap()
                .next()
                .is_none()
                .then_some(())
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Curl {
    child: Child,
    dir: tempfile::TempDir,
}

impl Curl {
    fn body(&self) -> PathBuf {
        self.dir.path().join("body")
    }

    /// Waits until bytes of the body have come: the 200 was sent, the tool is at work.
    fn flows(&mut self) {
        eventually("the body flows", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "curl ended early");
            fs::metadata(self.body())
                .is_ok_and(|meta| meta.len() > 100_000)
                .then_some(())
        });
    }

    /// Exit code, and what came as headers and trailers.
    fn end(&mut self) -> (i32, Vec<(String, String)>) {
        let status = self.child.wait().unwrap();
        let head = fs::read_to_string(self.dir.path().join("head")).unwrap_or_default();
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        let fields = fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        (status.code().unwrap_or(-1), fields)
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

fn sha256_of(path: &Path) -> String {
    run(Command::new("sha256sum").arg(path))
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

const H1: &[&str] = &["--http1.1"];
const H1_TE: &[&str] = &["--http1.1", "-H", "TE: trailers"];
const H2: &[&str] = &["--http2-prior-knowledge"];

#[test]
fn a_real_backup_over_curl() {
    let Some(database) = Database::start() else {
        return;
    };
    let agent = Agent::start(&database, &[]);
    let info = run(Command::new("curl").args(["-fsS", &format!("{}/v1/info", agent.url)]));
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["database"]["flavour"], "mariadb", "{info}");
    assert!(!info["tools"].as_array().unwrap().is_empty(), "{info}");
    for (query, args) in [
        ("method=physical", H1_TE),
        ("method=logical", H1_TE),
        ("method=physical", H2),
        ("method=logical&database=shop", H1),
    ] {
        let mut curl = agent.curl(query, args);
        let (code, fields) = curl.end();
        assert_eq!(code, 0, "{query} {args:?}: {fields:?}");
        assert_eq!(field(&fields, "content-type"), Some("application/zstd"));
        if args != H1 {
            assert_eq!(
                field(&fields, "x-streaming-error"),
                Some(""),
                "{query}: {fields:?}"
            );
            let bytes = fs::metadata(curl.body()).unwrap().len();
            assert_eq!(
                field(&fields, "x-backup-bytes"),
                Some(bytes.to_string().as_str())
            );
            let digest =
                towline_agent::protocol::decode_digest(field(&fields, "repr-digest").unwrap())
                    .unwrap();
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, sha256_of(&curl.body()));
        }
        let out = tempfile::tempdir().unwrap();
        let tar = format!(
            "zstd -dcq '{}' | tar -x -C '{}'",
            curl.body().display(),
            out.path().display()
        );
        run(Command::new("bash").args(["-o", "pipefail", "-c", &tar]));
        run(Command::new("sha256sum")
            .args(["-c", "--quiet", "SHA256SUMS"])
            .current_dir(out.path()));
        agent.is_clean(&database);
    }
}

#[test]
fn a_tool_killed_in_mid_stream_is_always_visible() {
    let Some(database) = Database::start() else {
        return;
    };
    let agent = Agent::start(&database, &[]);
    for method in ["physical", "logical"] {
        for args in [H1, H1_TE, H2] {
            let mut curl = agent.curl(
                &format!("method={method}&compression=none&max-rate=2000000"),
                args,
            );
            curl.flows();
            for tool in agent.tools() {
                let tool = rustix::process::Pid::from_raw(tool).unwrap();
                rustix::process::kill_process(tool, rustix::process::Signal::KILL).unwrap();
            }
            let (code, fields) = curl.end();
            if args == H1 {
                assert_eq!(code, 18, "{method}: {fields:?}");
            } else {
                assert_eq!(
                    field(&fields, "x-streaming-error-reason"),
                    Some("ToolFailed"),
                    "{method} {args:?}: {fields:?}"
                );
                assert_ne!(field(&fields, "x-streaming-error"), Some(""));
                assert_eq!(field(&fields, "repr-digest"), None);
            }
            agent.is_clean(&database);
        }
    }
}

#[test]
fn a_second_request_is_told_who_is_first_and_cancelling_ends_it() {
    let Some(database) = Database::start() else {
        return;
    };
    let agent = Agent::start(&database, &[]);
    let mut first = agent.curl("method=physical&compression=none&max-rate=1000000", H1_TE);
    first.flows();
    let info = run(Command::new("curl").args(["-fsS", &format!("{}/v1/info", agent.url)]));
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let id = info["running"]["id"].as_str().unwrap().to_owned();
    assert!(info["running"]["bytes"].as_u64().unwrap() > 0, "{info}");

    let refused = Command::new("curl")
        .args(["-sS", &format!("{}/v1/backup", agent.url)])
        .output()
        .unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(
        (&problem["status"], &problem["backupId"]),
        (&409.into(), &id.as_str().into()),
        "{problem}"
    );

    run(Command::new("curl").args([
        "-fsS",
        "-X",
        "DELETE",
        &format!("{}/v1/backup/{id}", agent.url),
    ]));
    let (_, fields) = first.end();
    assert_eq!(
        field(&fields, "x-streaming-error-reason"),
        Some("Cancelled"),
        "{fields:?}"
    );
    agent.is_clean(&database);
}

#[test]
fn a_reader_that_goes_away_frees_everything() {
    let Some(database) = Database::start() else {
        return;
    };
    let agent = Agent::start(&database, &[]);
    for args in [H1, H2] {
        let mut curl = agent.curl("method=physical&compression=none&max-rate=1000000", args);
        curl.flows();
        curl.child.kill().unwrap();
        curl.child.wait().unwrap();
        agent.is_clean(&database);
    }
}

#[test]
fn sigterm_in_mid_stream_ends_in_an_honest_trailer_and_exit_code_0() {
    let Some(database) = Database::start() else {
        return;
    };
    let mut agent = Agent::start(&database, &["--drain-timeout", "100ms"]);
    let mut curl = agent.curl("method=physical&compression=none&max-rate=1000000", H1_TE);
    curl.flows();
    agent.signal(rustix::process::Signal::TERM);
    let (_, fields) = curl.end();
    assert_eq!(
        field(&fields, "x-streaming-error-reason"),
        Some("Draining"),
        "{fields:?}"
    );
    assert_eq!(agent.child.wait().unwrap().code(), Some(0));
    eventually("no session is left", || {
        (database.sessions() == 0).then_some(())
    });
}

//! A MariaDB of a test's own, and a physical backup of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use towline_agent::archive::{ArchiveWriter, FORMAT_VERSION, Metadata, Position, Summary};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SUMS: &str = "CHECKSUM TABLE shop.orders, shop.customers EXTENDED";
pub(crate) const BACKUP_ID: &str = "b-1";

pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ran(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// MariaDB refuses to run as root unless it is told to.
fn as_user(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    command
}

/// Makes an empty server's data directory.
pub(crate) fn install(data: &Path) {
    ran(as_user(
        Command::new("mariadb-install-db")
            .args(["--no-defaults", "--skip-test-db"])
            .arg("--auth-root-authentication-method=normal")
            .arg(format!("--datadir={}", data.display())),
    ));
}

/// A running server.
pub(crate) struct Mariadb {
    child: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mariadb {
    /// A new one with two tables and a view.
    fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        install(&data);
        let server = Self::on(dir, &data);
        server.sql(
            "CREATE DATABASE shop; USE shop;
             CREATE TABLE orders (id INT PRIMARY KEY, note LONGBLOB);
             INSERT INTO orders SELECT seq, REPEAT(RANDOM_BYTES(1024), 100) FROM seq_1_to_50;
             CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(20));
             INSERT INTO customers VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger');
             CREATE VIEW names AS SELECT name FROM customers;",
        );
        server
    }

    /// On a data directory; `dir` goes with it.
    pub(crate) fn on(dir: tempfile::TempDir, data: &Path) -> Self {
        let socket = dir.path().join("sock");
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = as_user(Command::new("mariadbd").arg("--no-defaults"))
            .args(["--skip-networking", "--innodb-flush-log-at-trx-commit=0"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let mut server = Self {
            child: child.unwrap(),
            socket,
            _dir: dir,
        };
        eventually("the server answers", || {
            assert_eq!(server.child.try_wait().unwrap(), None, "mariadbd ended");
            let ping = server.client("SELECT 1").output().unwrap();
            ping.status.success().then_some(())
        });
        server
    }

    fn client(&self, sql: &str) -> Command {
        let mut client = Command::new("mariadb");
        client
            .args(["--no-defaults", "--user=root", "--batch"])
            .args(["--skip-column-names", "--execute", sql])
            .arg(format!("--socket={}", self.socket.display()))
            .stdin(Stdio::null());
        client
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        String::from_utf8(ran(&mut self.client(sql)).stdout).unwrap()
    }

    /// What the agent has `mariadb-dump` print.
    fn dump(&self) -> Vec<u8> {
        let output = ran(Command::new("mariadb-dump")
            .args(["--no-defaults", "--user=root", "--single-transaction"])
            .args(["--skip-lock-tables", "--quick", "--hex-blob", "--routines"])
            .args(["--triggers", "--events", "--default-character-set=utf8mb4"])
            .arg(format!("--socket={}", self.socket.display()))
            .args(["--databases", "--", "shop"]));
        output.stdout
    }

    /// What `mariadb-backup` streams.
    fn stream(&self) -> Vec<u8> {
        let target = tempfile::tempdir().unwrap();
        let output = ran(Command::new("mariadb-backup")
            .args(["--no-defaults", "--backup", "--stream=xbstream"])
            .arg("--user=root")
            .arg(format!("--socket={}", self.socket.display()))
            .arg(format!("--target-dir={}", target.path().display())));
        output.stdout
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A backup's data, and what the server said.
pub(crate) struct Backup {
    pub(crate) stream: Vec<u8>,
    pub(crate) dump: Vec<u8>,
    pub(crate) sums: String,
    pub(crate) version: String,
}

/// Made once.
pub(crate) async fn backup() -> &'static Backup {
    static BACKUP: OnceCell<Backup> = OnceCell::const_new();
    BACKUP
        .get_or_init(|| async {
            let server = Mariadb::fresh();
            Backup {
                stream: server.stream(),
                dump: server.dump(),
                sums: server.sql(SUMS),
                version: server.sql("SELECT VERSION()").trim().to_owned(),
            }
        })
        .await
}

impl Backup {
    /// An archive as the agent writes it.
    pub(crate) fn archive(&self) -> Vec<u8> {
        self.archive_with(|_| {})
    }

    /// One whose summary says something else.
    pub(crate) fn archive_with(&self, change: impl FnOnce(&mut Summary)) -> Vec<u8> {
        self.made("physical", &self.stream, change)
    }

    /// An archive of SQL.
    pub(crate) fn logical(&self, dump: &[u8], change: impl FnOnce(&mut Summary)) -> Vec<u8> {
        self.made("logical", dump, change)
    }

    fn made(&self, method: &str, data: &[u8], change: impl FnOnce(&mut Summary)) -> Vec<u8> {
        let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let metadata = Metadata {
            format_version: FORMAT_VERSION,
            backup_id: BACKUP_ID.to_owned(),
            server_flavour: "mariadb".to_owned(),
            server_version: self.version.clone(),
            server_uuid: None,
            method: method.to_owned(),
            tool: "mariadb-backup".to_owned(),
            tool_version: self.version.clone(),
            start_time: now,
        };
        let tables = ["customers", "names", "orders"].map(str::to_owned);
        let mut summary = Summary {
            end_time: now,
            data_members: 0,
            data_bytes: 0,
            tool_exit_status: 0,
            completion_line_seen: true,
            position: Position {
                gtid: Some("0-1-9".to_owned()),
                ..Position::default()
            },
            schemas: [("shop".to_owned(), tables.to_vec())].into(),
            parent: None,
            from_lsn: None,
            users: None,
        };
        change(&mut summary);
        let extension = if method == "physical" { "xbs" } else { "sql" };
        let writer = ArchiveWriter::new(Vec::new(), &metadata, extension, Some(3));
        let mut writer = writer.unwrap();
        writer.write_all(data).unwrap();
        writer.finish(summary).unwrap()
    }
}

/// Command lines that speak of a folder.
pub(crate) fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let mut line = Vec::new();
            let mut file = fs::File::open(entry.path().join("cmdline")).ok()?;
            file.read_to_end(&mut line).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .filter(|line| line.contains(folder))
        .collect()
}

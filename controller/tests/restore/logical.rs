//! `towline restore` into a running server, by itself and through the server's agent, with backups that
//! `towline backup` made through another agent.

use crate::mariadb::Mariadb;
use crate::stored::told;
use prometheus::Registry;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use towline_agent::backup::{BackupMetrics, Engine, EngineConfig};
use towline_agent::database::{Address, Connection};
use towline_agent::metrics::HttpMetrics;
use towline_agent::restore::logical::UNFINISHED;
use towline_agent::server::{Auth, DrainTimes, Limits, Server, TokenFile};

pub(crate) const SUMS: &str = "CHECKSUM TABLE shop.orders, `o``dd`.`é` EXTENDED";

/// A server, and the agent beside it.
pub(crate) struct Place {
    pub(crate) server: Mariadb,
    socket: PathBuf,
    pub(crate) url: String,
    _agent: JoinSet<()>,
    /// Tokens of every scope, of one without `restore`, and a key to encrypt to.
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) async fn new(allow_restore: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        install(&data);
        let socket = dir.path().join("sock");
        let server = Mariadb::on(dir, &data);

        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("tokens"),
            "all backup restore\nsome backup\n",
        )
        .unwrap();
        fs::write(dir.path().join("all"), "all\n").unwrap();
        fs::write(dir.path().join("some"), "some\n").unwrap();
        let patience = Duration::from_secs(60);
        let config = EngineConfig {
            database: Connection {
                address: Address::Socket(socket.clone()),
                user: "root".to_owned(),
                password_file: None,
                timeout: Duration::from_secs(20),
            },
            method: None,
            lock_buffer: 64 << 20,
            max_lock: patience,
            stall_timeout: patience,
            max_rate: None,
            require_recipients: Vec::new(),
            allow_galera: false,
            allow_restore,
            tmp: std::env::temp_dir(),
        };
        let registry = Registry::new();
        let metrics = BackupMetrics::new(&registry).unwrap();
        let agent = Server {
            backups: Arc::new(Engine::new(config, metrics)),
            auth: Auth::Tokens(TokenFile::open(dir.path().join("tokens")).await.unwrap()),
            tls: None,
            metrics: HttpMetrics::new(&registry).unwrap(),
            registry,
            limits: Limits {
                connections: 8,
                header_read: patience,
                idle: patience,
                unacknowledged: patience,
            },
            drain: DrainTimes {
                delay: Duration::ZERO,
                timeout: patience,
            },
        };
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", api.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(agent.run(api, admin, std::future::pending()));
        Self {
            server,
            socket,
            url,
            _agent: task,
            dir,
        }
    }

    pub(crate) async fn filled() -> Self {
        let place = Self::new(false).await;
        place.server.sql(
            "CREATE DATABASE shop; CREATE DATABASE `o``dd`; USE shop;
             CREATE TABLE orders (id INT PRIMARY KEY, note LONGBLOB);
             INSERT INTO orders SELECT seq, REPEAT(RANDOM_BYTES(1024), 1024) FROM seq_1_to_20;
             CREATE PROCEDURE p() SELECT 'p says hello';
             CREATE TABLE `o``dd`.`é` (x INT); INSERT INTO `o``dd`.`é` VALUES (1);
             CREATE USER app@localhost IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO app@localhost",
        );
        place
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// A new data directory.
pub(crate) fn install(data: &Path) {
    let mut install = Command::new("mariadb-install-db");
    install
        .args(["--no-defaults", "--skip-test-db"])
        .arg("--auth-root-authentication-method=normal")
        .arg(format!("--datadir={}", data.display()))
        .stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        install.arg("--user=root");
    }
    assert!(install.output().unwrap().status.success());
}

async fn towline(args: &[&str]) -> (i32, String, String) {
    let mut towline = tokio::process::Command::new(env!("CARGO_BIN_EXE_towline"));
    let towline = towline
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    told(&towline.kill_on_drop(true).output().await.unwrap())
}

/// Backs a place up into a folder, encrypted to a new key; the folder's URL, and the key's file.
pub(crate) async fn backed_up(from: &Place, folder: &Path) -> (String, String) {
    let key = folder.join("key");
    let made = Command::new("age-keygen").arg("-o").arg(&key).output();
    assert!(made.unwrap().status.success());
    let public = Command::new("age-keygen").arg("-y").arg(&key).output();
    let public = String::from_utf8(public.unwrap().stdout).unwrap();
    let store = format!("file://{}/store", folder.display());
    let (code, _, err) = towline(&[
        "backup",
        "--agent",
        &from.url,
        "--token-file",
        &from.file("some"),
        "--store",
        &store,
        "--method",
        "logical",
        "--recipient",
        public.trim(),
        "--name",
        "db",
    ])
    .await;
    assert_eq!(code, 0, "{err}");
    (store, key.display().to_string())
}

fn databases(place: &Place) -> String {
    let names = place.server.sql("SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1");
    names.lines().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_goes_into_a_running_server() {
    let source = Place::filled().await;
    let folder = tempfile::tempdir().unwrap();
    let (store, key) = backed_up(&source, folder.path()).await;
    let target = Place::new(true).await;
    let from = ["restore", "--store", &store, "--latest", "--identity", &key];
    let socket = target.socket.display().to_string();
    let token = target.file("all");
    let agent = ["--to-agent", &target.url, "--token-file", &token];
    let direct = ["--to-socket", &socket, "--user", "root"];
    for to in [&agent[..], &direct] {
        let (code, out, err) = towline(&[&from[..], to].concat()).await;
        assert_eq!(code, 0, "{err}");
        let last = out.lines().last().unwrap();
        assert!(
            last.contains(" bytes=") && last.contains(" tables=2 "),
            "{out}"
        );
        assert!(out.contains("databases  o`dd, shop"), "{out}");
        assert!(
            err.contains("verifying") && err.contains("loading"),
            "{err}"
        );
        assert_eq!(target.server.sql(SUMS), source.server.sql(SUMS));
        assert_eq!(target.server.sql("CALL shop.p()").trim(), "p says hello");
        let app = "SELECT COUNT(*) FROM mysql.user WHERE user = 'app'";
        assert_eq!(target.server.sql(app).trim(), "0");

        // Never over anything.
        let (code, _, err) = towline(&[&from[..], to].concat()).await;
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("is not empty"), "{err}");
        target
            .server
            .sql("DROP DATABASE shop; DROP DATABASE `o``dd`");

        let some = ["--database", "o`dd", "--include-users"];
        let (code, _, err) = towline(&[&from[..], to, &some].concat()).await;
        assert_eq!(code, 0, "{err}");
        assert_eq!(databases(&target), "o`dd");
        assert_eq!(target.server.sql(app).trim(), "1");
        target
            .server
            .sql("DROP DATABASE `o``dd`; DROP USER app@localhost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_told_and_nothing_is_written() {
    let source = Place::filled().await;
    let folder = tempfile::tempdir().unwrap();
    let (store, key) = backed_up(&source, folder.path()).await;
    let target = Place::new(true).await;
    let closed = Place::new(false).await;
    let from = ["restore", "--store", &store, "--latest", "--identity", &key];
    let socket = target.socket.display().to_string();
    let (all, some) = (target.file("all"), target.file("some"));
    let nowhere = folder.path().join("nowhere").display().to_string();
    let other_key = folder.path().join("other");
    let made = Command::new("age-keygen")
        .arg("-o")
        .arg(&other_key)
        .output();
    assert!(made.unwrap().status.success());
    let other_key = other_key.display().to_string();
    let to_agent = ["--to-agent", &target.url, "--token-file"];
    for (code, args, part) in [
        (1, [&to_agent[..], &[&some]].concat(), "scope `restore`"),
        (
            2,
            [&to_agent[..], &[&all, "--database", "nosuch"]].concat(),
            "nosuch",
        ),
        (
            1,
            vec!["--to-agent", &closed.url, "--token-file", &all],
            "--allow-restore",
        ),
        (
            3,
            vec!["--to-agent", "http://127.0.0.1:1", "--token-file", &all],
            "no connection",
        ),
        (
            3,
            vec!["--to-socket", &nowhere, "--user", "root"],
            "is the server running",
        ),
        (2, vec!["--to-socket", &socket], "--user"),
        (2, vec!["--to-host", "db:x", "--user", "root"], "--to-host"),
        (
            2,
            vec!["--to-dir", &nowhere, "--database", "shop"],
            "--database",
        ),
        (1, vec!["--to-dir", &nowhere], "logical"),
    ] {
        let (got, _, err) = towline(&[&from[..], &args].concat()).await;
        assert_eq!(got, code, "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
    let other = [
        "restore",
        "--store",
        &store,
        "--latest",
        "--identity",
        &other_key,
    ];
    let (code, _, err) = towline(&[&other[..], &to_agent[..], &[&all]].concat()).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("none of the identities"), "{err}");

    // Altered in the store: found in the first pass.
    let objects = Command::new("find")
        .arg(folder.path())
        .args(["-name", "backup.tar.zst.age"])
        .output();
    let objects = String::from_utf8(objects.unwrap().stdout).unwrap();
    let object = objects.lines().next().unwrap();
    let mut bytes = fs::read(object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(object, bytes).unwrap();
    for to in [
        [&to_agent[..], &[&all]].concat(),
        vec!["--to-socket", &socket, "--user", "root"],
    ] {
        let (code, _, err) = towline(&[&from[..], &to].concat()).await;
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("altered"), "{err}");
    }
    assert_eq!(databases(&target), "");
    let marks =
        format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_name = '{UNFINISHED}'");
    assert_eq!(target.server.sql(&marks).trim(), "0");
}

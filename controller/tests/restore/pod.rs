//! `towline restore-pod` as a Job runs it: a plan in its environment, secrets in files, a report.

mod logical;

use crate::mariadb::{Mariadb, SUMS, backup, eventually, processes};
use crate::stored::{Stored, told};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use towline_agent::database::Flavour;
use towline_agent::restore::drill_server::server_arguments;
use towline_controller::reason::RestoreReason;
use towline_controller::restore_pod::{
    AGENT_SECRET_DIR, DATA_DIR, DRILL_DIR, DRILL_EXITED, DRILL_LOG, DRILL_SETTINGS, DRILL_SOCKET,
    IDENTITY_DIR, MAX_REPORT_BYTES, PLAN_VARIABLE, Report, SCRATCH_DIR, STORE_SECRET_DIR,
    TERMINATION_LOG,
};

/// An S3 server on the folder of a store; it ends with its owner.
struct S3 {
    endpoint: String,
    process: Child,
    _data: tempfile::TempDir,
}

impl S3 {
    /// `None`, with the reason on stderr, where there is no server program.
    fn of(stored: &Stored) -> Option<Self> {
        let named = std::env::var_os("TOWLINE_VERSITYGW").map(PathBuf::from);
        let Some(program) = named.filter(|path| path.is_file()) else {
            eprintln!(
                "SKIPPED: no versitygw: name it in TOWLINE_VERSITYGW (`tests/cluster/cluster programs` brings it)"
            );
            return None;
        };
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("root");
        fs::create_dir(&root).unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(stored.dir.path())
            .arg(root.join("bkt"))
            .status();
        assert!(copied.unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let process = Command::new(program)
            .env("ROOT_ACCESS_KEY_ID", "test")
            .env("ROOT_SECRET_ACCESS_KEY", "testsecret")
            .args(["--port", &port.to_string(), "posix"])
            .arg(&root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Self {
            endpoint: format!("http://{port}"),
            process: process.unwrap(),
            _data: data,
        };
        eventually("the S3 server listens", || {
            std::net::TcpStream::connect(port).ok()
        });
        Some(server)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What stands for a pod's file system.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for folder in [
            DATA_DIR,
            DRILL_DIR,
            SCRATCH_DIR,
            STORE_SECRET_DIR,
            IDENTITY_DIR,
            AGENT_SECRET_DIR,
            "/dev",
        ] {
            fs::create_dir_all(root.path(folder)).unwrap();
        }
        for (key, value) in [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "testsecret\n"),
        ] {
            fs::write(root.path(STORE_SECRET_DIR).join(key), value).unwrap();
        }
        // As kubelet mounts a Secret.
        fs::create_dir(root.path(STORE_SECRET_DIR).join("..data")).unwrap();
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn command(&self, plan: &Value) -> tokio::process::Command {
        let mut towline = tokio::process::Command::new(env!("CARGO_BIN_EXE_towline"));
        towline
            .args(["restore-pod", "--listen", "127.0.0.1:0", "--root"])
            .arg(self.0.path())
            .env(PLAN_VARIABLE, plan.to_string())
            .env_remove("RUST_LOG")
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        towline
    }

    /// Exit code and report.
    async fn run(&self, plan: &Value) -> (i32, Report) {
        let (code, _, err) = told(&self.command(plan).output().await.unwrap());
        assert!(!err.contains("testsecret"), "{err}");
        (code, self.report())
    }

    fn report(&self) -> Report {
        let text = fs::read(self.path(TERMINATION_LOG)).unwrap();
        assert!(text.len() <= MAX_REPORT_BYTES);
        fs::remove_file(self.path(TERMINATION_LOG)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

fn plan(endpoint: &str, stored: &Stored, task: Value) -> Value {
    json!({
        "store": {
            "s3": {
                "bucket": "bkt", "region": "us-east-1", "endpoint": endpoint,
                "forcePathStyle": true, "allowHttp": true
            },
            "credentialsSecretRef": {"name": "s3"},
        },
        "namespace": "default",
        "folder": stored.manifest.identity.folder(),
        "expected": {"bytes": stored.manifest.bytes, "sha256": stored.manifest.sha256},
        "task": task,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_becomes_the_same_server() {
    let backup = backup().await;
    let stored = Stored::new(&backup.archive(), "tar.zst");
    let Some(s3) = S3::of(&stored) else { return };
    let root = Root::new();
    let volume = plan(
        &s3.endpoint,
        &stored,
        json!({"kind": "volume", "useMemory": 64 << 20}),
    );
    let (code, report) = root.run(&volume).await;
    assert_eq!((code, report.reason), (0, None), "{report:?}");
    assert_eq!((report.tables, report.bytes), (3, stored.manifest.bytes));
    assert!(report.target_written);
    assert_eq!(report.position.gtid.as_deref(), Some("0-1-9"));

    // A second pod finds it there.
    let (code, report) = root.run(&volume).await;
    assert_eq!(
        (code, report.reason),
        (1, Some(RestoreReason::TargetNotEmpty))
    );
    assert!(!report.target_written);
    let data = root.path(DATA_DIR);
    let again = Mariadb::on(root.0, &data);
    assert_eq!(again.sql(SUMS), backup.sums);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_has_its_reason() {
    let backup = backup().await;
    let archive = backup.archive();
    let stored = Stored::new(&archive, "tar.zst");
    let Some(s3) = S3::of(&stored) else { return };
    let volume = json!({"kind": "volume", "useMemory": null});
    let good = plan(&s3.endpoint, &stored, volume.clone());
    type Change = fn(&mut Value);
    let changes: [(RestoreReason, Change, &str); 6] = [
        (
            RestoreReason::BackupNotFound,
            |p| p["folder"] = json!("default/nightly/no"),
            "no backup",
        ),
        (
            RestoreReason::BackupDamaged,
            |p| p["expected"]["bytes"] = json!(7),
            "manifest",
        ),
        (
            RestoreReason::StoreError,
            |p| p["store"]["s3"]["endpoint"] = json!("http://127.0.0.1:1"),
            "nothing answers",
        ),
        (
            RestoreReason::StoreError,
            |p| p["store"]["s3"]["bucket"] = json!("other"),
            "other",
        ),
        (
            RestoreReason::StoreError,
            |p| p["store"] = json!({"file": {"path": "a"}}),
            "towline restore",
        ),
        (
            RestoreReason::PodFailed,
            |p| p["task"] = json!({"kind": "drillCheck", "checks": []}),
            "first container",
        ),
    ];
    for (reason, change, part) in changes {
        let root = Root::new();
        let mut plan = good.clone();
        change(&mut plan);
        let (code, report) = root.run(&plan).await;
        assert_eq!((code, report.reason), (1, Some(reason)), "{report:?}");
        assert!(report.message.contains(part), "{report:?}");
        assert!(!report.target_written);
        assert_eq!(fs::read_dir(root.path(DATA_DIR)).unwrap().count(), 0);
    }

    // Altered after it was stored, and one that nobody here can open.
    let mut altered = archive.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let mut bad = Stored::new(&altered, "tar.zst");
    bad.manifest.sha256 = stored.manifest.sha256.clone();
    bad.write_manifest();
    let s3 = S3::of(&bad).unwrap();
    let root = Root::new();
    let (code, report) = root.run(&plan(&s3.endpoint, &bad, volume.clone())).await;
    assert_eq!(
        (code, report.reason),
        (1, Some(RestoreReason::BackupDamaged)),
        "{report:?}"
    );
    assert!(
        report.target_written && report.message.contains("not usable"),
        "{report:?}"
    );

    let sealed = Stored::new(&archive, "tar.zst.age");
    let s3 = S3::of(&sealed).unwrap();
    let root = Root::new();
    let (_, report) = root.run(&plan(&s3.endpoint, &sealed, volume)).await;
    assert_eq!(
        report.reason,
        Some(RestoreReason::NotDecryptable),
        "{report:?}"
    );
    assert!(report.message.contains("identitySecretRef"), "{report:?}");
}

/// The store accepts the connection and never answers: somebody ends the pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_ended_leaves_a_report() {
    let stored = Stored::new(b"not read", "tar.zst");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let root = Root::new();
    let volume = plan(
        &endpoint,
        &stored,
        json!({"kind": "volume", "useMemory": null}),
    );
    let running = root.command(&volume).spawn().unwrap();
    let connected = tokio::task::block_in_place(|| silent.accept().unwrap());
    let pid = running.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let (code, _, err) = told(&running.wait_with_output().await.unwrap());
    drop(connected);
    assert_eq!(code, 1, "{err}");
    let report = root.report();
    assert_eq!(report.reason, Some(RestoreReason::Interrupted));
    assert!(
        report.message.contains("SIGTERM") && !report.target_written,
        "{report:?}"
    );
}

/// The server's container: it runs on what the first one left, and its exit status is written.
fn serve(root: &Path) -> std::thread::JoinHandle<ExitStatus> {
    let path = |path: &str| root.join(path.trim_start_matches('/'));
    let drill = path(DRILL_DIR);
    let arguments = server_arguments(
        Flavour::Mariadb,
        &drill.join(DRILL_SETTINGS),
        &path(DATA_DIR),
        &drill.join(DRILL_SOCKET),
        &drill.join(DRILL_LOG),
    );
    std::thread::spawn(move || {
        let mut server = Command::new("mariadbd");
        server.args(arguments).stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            server.arg("--user=root");
        }
        let status = server.status().unwrap();
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap());
        fs::write(drill.join(DRILL_EXITED), code.to_string()).unwrap();
        status
    })
}

/// What the first container left; `None` without an S3 server.
async fn prepared(archive: &[u8]) -> Option<(Root, Stored, S3)> {
    let stored = Stored::new(archive, "tar.zst");
    let s3 = S3::of(&stored)?;
    let root = Root::new();
    let task = json!({"kind": "drillPrepare", "useMemory": null});
    let (code, report) = root.run(&plan(&s3.endpoint, &stored, task)).await;
    assert_eq!((code, report.reason), (0, None), "{report:?}");
    Some((root, stored, s3))
}

async fn drill(archive: &[u8], checks: Value, spoil: impl FnOnce(&Root)) -> Option<(i32, Report)> {
    let (root, stored, s3) = prepared(archive).await?;
    spoil(&root);
    let server = serve(root.0.path());
    let task = json!({"kind": "drillCheck", "checks": checks});
    let checked = root.run(&plan(&s3.endpoint, &stored, task)).await;
    tokio::task::block_in_place(|| server.join().unwrap());
    assert_eq!(processes(root.0.path()), Vec::<String>::new());
    Some(checked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_backup_passes_its_drill() {
    let backup = backup().await;
    let checks = json!([
        {"query": "SELECT COUNT(*) FROM shop.customers", "expect": "3"},
        {"query": "SELECT MAX(name) FROM shop.names"},
    ]);
    let Some((code, report)) = drill(&backup.archive(), checks, |_| {}).await else {
        return;
    };
    assert_eq!((code, report.reason), (0, None), "{report:?}");
    assert_eq!((report.tables, report.rows), (3, Some(53)));
    assert_eq!(report.position.gtid.as_deref(), Some("0-1-9"));
    assert!(report.checks.iter().all(|check| check.passed));
    assert_eq!(report.checks.len(), 5);
    assert_eq!(report.checks[4].found, "Grace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_backup_fails_its_drill() {
    let backup = backup().await;
    let lacks = backup.archive_with(|summary| {
        summary
            .schemas
            .get_mut("shop")
            .unwrap()
            .push("lost".to_owned());
    });
    let empty = backup.archive_with(|summary| summary.schemas.clear());
    let whole = backup.archive();
    let wrong = json!([{"query": "SELECT COUNT(*) FROM shop.customers", "expect": "4"}]);
    let none = json!([]);
    type Spoil = fn(&Root);
    let nothing: Spoil = |_| {};
    // Files that no server runs on.
    let overwrite: Spoil = |root| {
        let file = root.path(DATA_DIR).join("ibdata1");
        let length = fs::metadata(&file).unwrap().len();
        fs::write(file, vec![7; usize::try_from(length).unwrap()]).unwrap();
    };
    for (archive, checks, spoil, part) in [
        (&lacks, &none, nothing, "shop.lost"),
        (&empty, &none, nothing, "no table"),
        (&whole, &wrong, nothing, "3, expected 4"),
        (
            &whole,
            &none,
            overwrite,
            "does not run on the restored data",
        ),
    ] {
        let Some((code, report)) = drill(archive, checks.clone(), spoil).await else {
            return;
        };
        assert_eq!(
            (code, report.reason),
            (1, Some(RestoreReason::CheckFailed)),
            "{report:?}"
        );
        assert!(report.message.contains(part), "{report:?}");
    }
}

/// A drill of SQL, in a server with an empty data directory.
async fn logical_drill(archive: &[u8], checks: Value) -> Option<(i32, Report)> {
    let mut stored = Stored::new(archive, "tar.zst");
    stored.manifest.method = "logical".to_owned();
    stored.write_manifest();
    let s3 = S3::of(&stored)?;
    let root = Root::new();
    let task = json!({"kind": "drillPrepare", "useMemory": null});
    let (code, report) = root.run(&plan(&s3.endpoint, &stored, task)).await;
    assert_eq!(fs::read_dir(root.path(DATA_DIR)).unwrap().count(), 0);
    if code != 0 {
        // Then no server is started.
        return Some((code, report));
    }
    assert_eq!(report.reason, None, "{report:?}");
    crate::mariadb::install(&root.path(DATA_DIR));
    let server = serve(root.0.path());
    let task = json!({"kind": "drillCheck", "checks": checks});
    let checked = root.run(&plan(&s3.endpoint, &stored, task)).await;
    tokio::task::block_in_place(|| server.join().unwrap());
    Some(checked)
}

#[tokio::test(flavor = "multi_thread")]
async fn logical_backups_are_drilled_too() {
    let backup = backup().await;
    let archive = backup.logical(&backup.dump, |_| {});
    let checks = json!([{"query": "SELECT COUNT(*) FROM shop.names", "expect": "3"}]);
    let Some((code, report)) = logical_drill(&archive, checks).await else {
        return;
    };
    assert_eq!((code, report.reason), (0, None), "{report:?}");
    assert_eq!((report.tables, report.rows), (3, Some(53)));

    // A table more than there is, and no database at all.
    let lacks = backup.logical(&backup.dump, |summary| {
        summary
            .schemas
            .get_mut("shop")
            .unwrap()
            .push("lost".to_owned());
    });
    let end = backup
        .dump
        .windows(21)
        .rposition(|w| w == b"-- Dump completed on ");
    let sandbox: Vec<u8> = backup
        .dump
        .split_inclusive(|b| *b == b'\n')
        .next()
        .unwrap()
        .to_vec();
    let empty = [&sandbox[..], &backup.dump[end.unwrap()..]].concat();
    let empty = backup.logical(&empty, |summary| summary.schemas.clear());
    for (archive, part) in [(&lacks, "shop.lost"), (&empty, "no table")] {
        let (code, report) = logical_drill(archive, json!([])).await.unwrap();
        let reason = Some(RestoreReason::CheckFailed);
        assert_eq!((code, report.reason), (1, reason), "{report:?}");
        assert!(report.message.contains(part), "{report:?}");
    }
}

/// As a shell writes it when the kernel has killed the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_does_not_blame_the_backup() {
    let backup = backup().await;
    let Some((root, stored, s3)) = prepared(&backup.archive()).await else {
        return;
    };
    fs::write(root.path(DRILL_DIR).join(DRILL_EXITED), "137").unwrap();
    let task = json!({"kind": "drillCheck", "checks": []});
    let (code, report) = root.run(&plan(&s3.endpoint, &stored, task)).await;
    let reason = Some(RestoreReason::PodFailed);
    assert_eq!((code, report.reason), (1, reason), "{report:?}");
}

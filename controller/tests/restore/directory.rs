//! `towline restore --to-dir`.

use crate::mariadb::{Mariadb, SUMS, backup, eventually, processes};
use crate::stored::{Stored, told};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use towline_agent::restore::marker::{Marker, State};

fn state(data: &Path) -> Option<State> {
    Marker::read(data).unwrap().map(|marker| marker.state)
}

fn names(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_two_objects_becomes_the_same_server() {
    let backup = backup().await;
    let stored = Stored::new(&backup.archive(), "tar.zst");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (code, out, err) = stored.restore(&data, &["--use-memory", "64MiB"]).await;
    assert_eq!(code, 0, "{err}");
    for part in ["GTID 0-1-9", "3 in 1 schemas", "chown", &backup.version] {
        assert!(out.contains(part), "{out}");
    }
    let last = out.lines().last().unwrap();
    let folder = stored.manifest.identity.folder();
    let begin = format!(
        "{folder} bytes={} tables=3 duration=",
        stored.manifest.bytes
    );
    assert!(last.starts_with(&begin), "{last}");
    assert_eq!(state(&data), Some(State::Usable));
    let again = Mariadb::on(dir, &data);
    assert_eq!(again.sql(SUMS), backup.sums);
    assert_eq!(again.sql("SELECT COUNT(*) FROM shop.names").trim(), "3");
}

/// Not what was asked for, and not where: nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_from_the_start_writes_nothing() {
    let backup = backup().await;
    let stored = Stored::new(&backup.archive(), "tar.zst");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let cases: [(i32, &[&str], &str); 6] = [
        (2, &["--to-dir", "x"], "--latest"),
        (2, &["--latest"], "--to-dir"),
        (
            2,
            &["--latest", "--to-dir", "x", "--use-memory", "much"],
            "64MiB",
        ),
        (1, &["default/nightly/nope", "--to-dir", "x"], "towline ls"),
        (
            1,
            &["--latest", "--schedule", "weekly", "--to-dir", "x"],
            "weekly",
        ),
        (
            1,
            &[
                "--latest",
                "--before",
                "2026-01-01T00:00:00Z",
                "--to-dir",
                "x",
            ],
            "before 2026-01-01",
        ),
    ];
    for (code, args, part) in cases {
        let mut towline = stored.towline("restore", args);
        towline.current_dir(dir.path());
        let (got, _, err) = told(&towline.output().await.unwrap());
        assert!(got == code && err.contains(part), "{args:?}: {got}: {err}");
    }
    assert_eq!(names(dir.path()), Vec::<String>::new());

    fs::create_dir(&data).unwrap();
    fs::write(data.join("ibdata1"), "dear").unwrap();
    let (code, _, err) = stored.restore(&data, &[]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("not empty (it holds ibdata1)"), "{err}");
    assert_eq!(names(&data), ["ibdata1"]);
    fs::remove_file(data.join("ibdata1")).unwrap();

    // An object is gone, or shorter: told before the first byte is read.
    let second = fs::read(stored.object(1)).unwrap();
    fs::write(stored.object(1), &second[1..]).unwrap();
    let (code, _, err) = stored.restore(&data, &[]).await;
    assert_eq!((code, err.contains("lost or changed")), (1, true), "{err}");
    fs::remove_file(stored.object(1)).unwrap();
    let (code, _, err) = stored.restore(&data, &[]).await;
    assert_eq!((code, err.contains("is not there")), (1, true), "{err}");
    assert_eq!(names(&data), Vec::<String>::new());
}

/// One bit, in each of the objects.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_backup_leaves_a_directory_that_says_so() {
    let backup = backup().await;
    let stored = Stored::new(&backup.archive(), "tar.zst");
    for index in [0, 1] {
        let good = fs::read(stored.object(index)).unwrap();
        let mut altered = good.clone();
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        fs::write(stored.object(index), &altered).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let (code, out, err) = stored.restore(&data, &[]).await;
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(
            err.contains("altered") && err.contains("is not usable"),
            "{err}"
        );
        assert_eq!(state(&data), Some(State::Unfinished));
        // Nobody goes on with it.
        fs::write(stored.object(index), &good).unwrap();
        let (code, _, err) = stored.restore(&data, &[]).await;
        assert_eq!(code, 1);
        assert!(
            err.contains("unfinished restore") && err.contains("altered"),
            "{err}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_needs_its_identity() {
    if Command::new("age").arg("--version").output().is_err() {
        eprintln!("skipped: the stock age is not installed: apt install age");
        return;
    }
    let backup = backup().await;
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let file = dir.path().join(name);
        let made = Command::new("age-keygen").arg("-o").arg(&file).output();
        assert!(made.unwrap().status.success());
        file
    };
    let [ours, others] = ["ours", "others"].map(key);
    let plain = dir.path().join("plain");
    fs::write(&plain, backup.archive()).unwrap();
    let sealed = Command::new("age")
        .arg("-e")
        .arg("-i")
        .arg(&ours)
        .arg(&plain)
        .output();
    let stored = Stored::new(&sealed.unwrap().stdout, "tar.zst.age");
    let data = dir.path().join("data");

    let (code, _, err) = stored.restore(&data, &[]).await;
    assert_eq!((code, err.contains("--identity")), (2, true), "{err}");
    let (code, _, err) = stored
        .restore(&data, &["--identity", others.to_str().unwrap()])
        .await;
    assert_eq!(
        (code, err.contains("none of the identities")),
        (1, true),
        "{err}"
    );
    assert_eq!(state(&data), None);
    let (code, _, err) = stored
        .restore(&data, &["--identity", ours.to_str().unwrap()])
        .await;
    assert_eq!(code, 0, "{err}");
    let again = Mariadb::on(dir, &data);
    assert_eq!(again.sql(SUMS), backup.sums);
}

/// While the backup tool prepares, which the real one does too quickly to be caught.
#[tokio::test(flavor = "multi_thread")]
async fn who_ends_it_finds_no_tool_and_a_clear_state() {
    let backup = backup().await;
    let stored = Stored::new(&backup.archive(), "tar.zst");
    let path = std::env::var("PATH").unwrap();
    let real = Command::new("sh")
        .args(["-c", "command -v mariadb-backup"])
        .output();
    let real = String::from_utf8(real.unwrap().stdout).unwrap();
    for signal in ["-INT", "-TERM"] {
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("mariadb-backup");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --prepare ] || exec {} \"$@\"\ntrap '' INT\nsleep 600 & wait\n",
            real.trim()
        );
        fs::write(&tool, script).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o700)).unwrap();
        let data = dir.path().join("data");
        let mut towline = stored.towline("restore", &["--latest", "--to-dir"]);
        towline
            .arg(&data)
            .env("PATH", format!("{}:{path}", dir.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let running = towline.spawn().unwrap();
        tokio::task::block_in_place(|| {
            eventually("it is prepared", || {
                processes(&data)
                    .iter()
                    .any(|line| line.contains("--prepare"))
                    .then_some(())
            });
        });
        let pid = running.id().unwrap().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
        let (code, _, err) = told(&running.wait_with_output().await.unwrap());
        assert_eq!(code, 1, "{err}");
        let name = signal.replace('-', "SIG");
        assert!(
            err.contains(&name) && err.contains("is not usable"),
            "{err}"
        );
        assert_eq!(processes(&data), Vec::<String>::new());
        assert_eq!(state(&data), Some(State::Unfinished));
    }
}

//! `towline verify --deep`: a drill with the programs of this machine.

use crate::mariadb::{backup, eventually, processes};
use crate::stored::{Stored, told};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

async fn deep(stored: &Stored, tmp: &Path, args: &[&str]) -> (i32, String, String) {
    let mut towline = stored.towline("verify", &["--latest", "--deep", "--tmp"]);
    towline.arg(tmp).args(args);
    let told = told(&towline.output().await.unwrap());
    // Whatever it found, nothing is left of it.
    assert_eq!(fs::read_dir(tmp).unwrap().count(), 0, "{told:?}");
    assert_eq!(processes(tmp), Vec::<String>::new());
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_asked_and_thrown_away() {
    let backup = backup().await;
    let tmp = tempfile::tempdir().unwrap();
    let stored = Stored::new(&backup.archive(), "tar.zst");
    let good = "SELECT COUNT(*) FROM shop.customers WHERE id >= 1 => 3";
    let (code, out, err) = deep(&stored, tmp.path(), &["--check", good]).await;
    assert_eq!(code, 0, "{err}");
    for part in [
        "good, restored",
        "passed  CHECK TABLE",
        "53 rows",
        "GTID 0-1-9",
    ] {
        assert!(out.contains(part), "{out}");
    }
    let bad = "SELECT COUNT(*) FROM shop.customers => 4";
    let (code, out, err) = deep(&stored, tmp.path(), &["--check", bad]).await;
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("failed its drill") && out.contains("FAILED"),
        "{out}"
    );
    assert!(err.contains("3, expected 4"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_too() {
    let backup = backup().await;
    let tmp = tempfile::tempdir().unwrap();
    let mut stored = Stored::new(&backup.logical(&backup.dump, |_| {}), "tar.zst");
    stored.manifest.method = "logical".to_owned();
    stored.write_manifest();
    let (code, out, err) = deep(&stored, tmp.path(), &[]).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("good, restored") && out.contains("53 rows"),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_lacks_a_table_is_found() {
    let backup = backup().await;
    let tmp = tempfile::tempdir().unwrap();
    let lacks = backup.archive_with(|summary| {
        let tables = summary.schemas.get_mut("shop").unwrap();
        tables.push("lost".to_owned());
    });
    let stored = Stored::new(&lacks, "tar.zst");
    let (code, _, err) = deep(&stored, tmp.path(), &[]).await;
    assert_eq!((code, err.contains("shop.lost")), (1, true), "{err}");

    let stored = Stored::new(&backup.archive(), "tar.zst");
    let mut altered = fs::read(stored.object(1)).unwrap();
    altered[1000] ^= 1;
    fs::write(stored.object(1), altered).unwrap();
    let (code, out, err) = deep(&stored, tmp.path(), &[]).await;
    assert_eq!((code, err.contains("BackupDamaged")), (1, true), "{err}");
    assert!(out.contains("failed its drill"), "{out}");
    let (code, _, err) = deep(&stored, tmp.path(), &["--check", " => 1"]).await;
    assert_eq!((code, err.contains("--check")), (2, true), "{err}");
}

/// While the server starts, which the real one does too quickly to be caught.
#[tokio::test(flavor = "multi_thread")]
async fn who_ends_it_finds_nothing_left() {
    let backup = backup().await;
    let stored = Stored::new(&backup.archive(), "tar.zst");
    let [tmp, bin] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let real = Command::new("sh")
        .args(["-c", "PATH=$PATH:/usr/sbin command -v mariadbd"])
        .output();
    let real = String::from_utf8(real.unwrap().stdout).unwrap();
    let slow = bin.path().join("mariadbd");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != --version ] || exec {} --version\nexec sleep 600 \"$@\"\n",
        real.trim()
    )
    .replace("exec sleep 600 \"$@\"", "sleep 600");
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o700)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut towline = stored.towline("verify", &["--latest", "--deep", "--tmp"]);
    let running = towline
        .arg(tmp.path())
        .env("PATH", format!("{}:{path}", bin.path().display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tokio::task::block_in_place(|| {
        eventually("the server starts", || {
            let lines = processes(tmp.path());
            lines
                .iter()
                .any(|line| line.contains("--skip-grant-tables"))
                .then_some(())
        });
    });
    let pid = running.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let (code, _, err) = told(&running.wait_with_output().await.unwrap());
    assert_eq!((code, err.contains("SIGINT")), (1, true), "{err}");
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    assert_eq!(processes(tmp.path()), Vec::<String>::new());
}

//! The program `towline`, as a user runs it.

use crate::{
    agent::{Agent, Step, TOKEN, good, head, problem},
    body,
    place::files,
    servers::Server,
};
use std::{
    io::Write as _,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::process::Command;
use towline_agent::archive::{ArchiveWriter, FORMAT_VERSION, Metadata, Position, Summary};

pub(crate) fn towline(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline"));
    for name in ["AWS_ENDPOINT_URL", "AWS_REGION", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
        .args(args)
        .env("TOWLINE_TOKEN", TOKEN)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "testsecret");
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

pub(crate) fn told(output: &Output) -> (i32, String, String) {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A real archive of `data`.
pub(crate) fn archive(data: &[u8]) -> Vec<u8> {
    let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let metadata = Metadata {
        format_version: FORMAT_VERSION,
        backup_id: "b-1".into(),
        server_flavour: "mariadb".into(),
        server_version: "10.11.19-MariaDB".into(),
        server_uuid: None,
        method: "physical".into(),
        tool: "mariadb-backup".into(),
        tool_version: "10.11.19".into(),
        start_time: now,
    };
    let mut writer = ArchiveWriter::new(Vec::new(), &metadata, "xbs", Some(3)).unwrap();
    writer.write_all(data).unwrap();
    let summary = Summary {
        end_time: now,
        data_members: 0,
        data_bytes: 0,
        tool_exit_status: 0,
        completion_line_seen: true,
        position: Position {
            binlog_file: Some("bin.000007".into()),
            binlog_position: Some(42),
            ..Position::default()
        },
        schemas: [("shop".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into(),
        parent: None,
        from_lsn: None,
        users: None,
    };
    writer.finish(summary).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_ls_and_verify() {
    let gateway = Server::versitygw().await;
    let dir = tempfile::tempdir().unwrap();
    let mut stores = vec![vec![
        "--store".to_owned(),
        format!("file://{}", dir.path().display()),
    ]];
    if let Some(gateway) = &gateway {
        let at = [
            "--store",
            "s3://bkt/pre/fix",
            "--endpoint-url",
            &gateway.endpoint,
            "--allow-http",
        ];
        stores.push(at.map(str::to_owned).to_vec());
    }
    let data = archive(&body(40 << 20));
    let agent = Agent::start(good(&data)).await;
    for store in &stores {
        let store: Vec<&str> = store.iter().map(String::as_str).collect();
        let backup = [
            &["backup", "--agent", agent.url.as_str(), "--name", "db-0"],
            &store[..],
        ]
        .concat();
        let (code, out, err) = told(&towline(&backup).output().await.unwrap());
        assert_eq!(code, 0, "{err}");
        let key = out.split(' ').next().unwrap().to_owned();
        assert!(
            key.starts_with("default/db-0/")
                && out.contains(&format!(" bytes={} sha256=", data.len())),
            "{out}"
        );

        let (code, out, _) = told(
            &towline(&[&["ls"], &store[..]].concat())
                .output()
                .await
                .unwrap(),
        );
        assert_eq!(code, 0);
        assert!(
            out.starts_with("KEY ")
                && out.contains(" physical ")
                && out.contains(&key)
                && out.contains("mariadb 10.11.19-MariaDB"),
            "{out}"
        );
        let (_, out, _) = told(
            &towline(&[&["ls", "-o", "json"], &store[..]].concat())
                .output()
                .await
                .unwrap(),
        );
        let list: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (list[0]["key"].as_str(), list[0]["outcome"].as_str()),
            (Some(key.as_str()), Some("Complete"))
        );
        let (_, out, _) = told(
            &towline(&[&["ls", "-n", "other", "-o", "json"], &store[..]].concat())
                .output()
                .await
                .unwrap(),
        );
        assert_eq!(out.trim(), "[]");

        for which in ["--latest", &key, &format!("{key}/manifest.json")] {
            let (code, out, err) = told(
                &towline(&[&["verify", which], &store[..]].concat())
                    .output()
                    .await
                    .unwrap(),
            );
            assert_eq!(code, 0, "{which}: {err}");
            assert!(
                out.contains("2 in 1 schemas")
                    && out.contains("binlog bin.000007:42")
                    && out.contains("mariadb-backup"),
                "{out}"
            );
        }
        let (code, _, err) = told(
            &towline(&[&["verify", "default/db-0/nope"], &store[..]].concat())
                .output()
                .await
                .unwrap(),
        );
        assert_eq!((code, err.contains("towline ls")), (1, true), "{err}");
    }

    // One bit of what is stored.
    let object = files(dir.path())
        .into_iter()
        .find(|f| f.ends_with("backup.tar.zst"))
        .unwrap();
    let mut stored = std::fs::read(&object).unwrap();
    let middle = stored.len() / 2;
    stored[middle] ^= 1;
    std::fs::write(&object, &stored).unwrap();
    let (code, _, err) = told(
        &towline(&["verify", "--latest", "--store", &stores[0][1]])
            .output()
            .await
            .unwrap(),
    );
    assert_eq!(
        (code, err.contains("the store has changed data")),
        (1, true),
        "{err}"
    );
    stored.truncate(middle);
    std::fs::write(&object, &stored).unwrap();
    let (code, _, err) = told(
        &towline(&["verify", "--latest", "--store", &stores[0][1]])
            .output()
            .await
            .unwrap(),
    );
    assert_eq!(
        (code, err.contains("the manifest says")),
        (1, true),
        "{err}"
    );
}

/// What the agent sums up right may still be no archive.
#[tokio::test]
async fn verify_reads_the_archive_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("file://{}", dir.path().display());
    let whole = archive(&body(1 << 20));
    let agent = Agent::start(good(&whole[..whole.len() / 2])).await;
    let (code, _, err) = told(
        &towline(&["backup", "--agent", agent.url.as_str(), "--store", &store])
            .output()
            .await
            .unwrap(),
    );
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = told(
        &towline(&["verify", "--latest", "--store", &store])
            .output()
            .await
            .unwrap(),
    );
    assert_eq!((code, err.contains("cut")), (1, true), "{err}");
}

#[tokio::test]
async fn exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("file://{}", dir.path().display());
    let failed = Agent::start(problem(
        "409 Conflict",
        "retry-after: 7\r\n",
        "b-9 is running",
    ))
    .await;
    let missing = format!("{store}/missing");
    let cases: Vec<(i32, &str, Vec<&str>)> = vec![
        (2, "--agent", vec!["backup", "--store", &store]),
        (
            2,
            "--store",
            vec!["backup", "--agent", "http://127.0.0.1:1"],
        ),
        (2, "--store", vec!["ls"]),
        (2, "no folder", vec!["ls", "--store", &missing]),
        (2, "s3://", vec!["ls", "--store", "ftp://x"]),
        (
            2,
            "--allow-http",
            vec![
                "ls",
                "--store",
                "s3://bkt",
                "--endpoint-url",
                "http://127.0.0.1:1",
            ],
        ),
        (2, "unexpected", vec!["ls", "--nope"]),
        (2, "--latest", vec!["verify", "--store", &store]),
        (
            1,
            "no backup",
            vec!["verify", "--latest", "--store", &store],
        ),
        (
            1,
            "try again after 7 s",
            vec!["backup", "--agent", failed.url.as_str(), "--store", &store],
        ),
        (
            3,
            "AgentUnreachable",
            vec!["backup", "--agent", "http://127.0.0.1:1", "--store", &store],
        ),
        (
            3,
            "nothing answers",
            vec![
                "ls",
                "--store",
                "s3://bkt",
                "--endpoint-url",
                "http://127.0.0.1:1",
                "--allow-http",
            ],
        ),
    ];
    for (code, text, args) in cases {
        let (got, _, err) = told(&towline(&args).output().await.unwrap());
        assert!(got == code && err.contains(text), "{args:?}: {got}: {err}");
    }
    assert_eq!(files(dir.path()), Vec::<std::path::PathBuf>::new());
}

/// Waits for what a file system shows, for which there is no notice.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn staged(dir: &Path) -> bool {
    files(dir).iter().any(|f| {
        f.extension().is_some_and(|e| e == "partial") && f.metadata().is_ok_and(|m| m.len() > 0)
    })
}

/// Ctrl-C leaves nothing; kill -9 leaves what the mark names, and it can be cleaned.
#[tokio::test]
async fn interrupted_and_killed() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("file://{}", dir.path().display());
    let steps = vec![head(), Step::Chunk(body(40 << 20)), Step::Hold, Step::Hold];
    for signal in ["-INT", "-TERM", "-KILL"] {
        let agent = Agent::start(steps.clone()).await;
        let mut command = towline(&["backup", "--agent", agent.url.as_str(), "--store", &store]);
        let child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        until(|| staged(dir.path())).await;
        let pid = child.id().unwrap().to_string();
        assert!(
            std::process::Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let output = child.wait_with_output().await.unwrap();
        if signal != "-KILL" {
            let (code, _, err) = told(&output);
            assert_eq!((code, err.contains("Interrupted")), (1, true), "{err}");
            assert_eq!(
                files(dir.path()),
                Vec::<std::path::PathBuf>::new(),
                "{signal}"
            );
            continue;
        }
        let left = files(dir.path());
        let mark = left.iter().find(|f| f.ends_with("upload.json")).unwrap();
        let job: towline_controller::catalog::JobIdentity =
            serde_json::from_slice(&std::fs::read(mark).unwrap()).unwrap();
        let place = towline_controller::storage::Store::open(
            towline_controller::storage::StoreConfig::new(
                towline_controller::storage::Location::File {
                    root: dir.path().to_owned(),
                    confined_to: None,
                },
            ),
        );
        let place = place.unwrap();
        let cleaned = towline_controller::catalog::clean_attempt(&place, &job, 1)
            .await
            .unwrap();
        assert_eq!(
            (cleaned.aborted_uploads, cleaned.completed_objects.len()),
            (1, 0)
        );
        assert_eq!(files(dir.path()), Vec::<std::path::PathBuf>::new());
    }
}

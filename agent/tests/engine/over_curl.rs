//! The agent beside a real MariaDB, seen through curl: a failed backup is always visible, as a trailer
//! or as curl's exit code.

use crate::agent::{Agent, field, said, sha256_of};
use crate::server::{Server, eventually};
use std::fs;
use std::process::Command;

/// A server with about 40 MB in it, and the privileges for both methods.
fn shop() -> Server {
    let server = Server::with_user("physical");
    server.grant("logical");
    server.fill("orders", "InnoDB", 40);
    server
}

const H1: &[&str] = &["--http1.1"];
const H1_TE: &[&str] = &["--http1.1", "-H", "TE: trailers"];
const H2: &[&str] = &["--http2-prior-knowledge"];
const H2_TE: &[&str] = &["--http2-prior-knowledge", "-H", "TE: trailers"];

#[test]
fn a_real_backup_over_curl() {
    let server = shop();
    let agent = Agent::start(&server, &[]);
    let info = said(Command::new("curl").args(["-fsS", &format!("{}/v1/info", agent.url)]));
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
        said(Command::new("bash").args(["-o", "pipefail", "-c", &tar]));
        said(
            Command::new("sha256sum")
                .args(["-c", "--quiet", "SHA256SUMS"])
                .current_dir(out.path()),
        );
        agent.is_clean(&server);
    }
}

#[test]
fn a_tool_killed_in_mid_stream_is_always_visible() {
    let server = shop();
    let agent = Agent::start(&server, &[]);
    for method in ["physical", "logical"] {
        for args in [H1, H1_TE, H2, H2_TE] {
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
            if let Some((_, cut)) = [(H1, 18), (H2, 92)].iter().find(|(cut, _)| *cut == args) {
                assert_eq!(code, *cut, "{method} {args:?}: {fields:?}");
            } else {
                assert_eq!(
                    field(&fields, "x-streaming-error-reason"),
                    Some("ToolFailed"),
                    "{method} {args:?}: {fields:?}"
                );
                assert_ne!(field(&fields, "x-streaming-error"), Some(""));
                assert_eq!(field(&fields, "repr-digest"), None);
            }
            agent.is_clean(&server);
        }
    }
}

#[test]
fn a_second_request_is_told_who_is_first_and_cancelling_ends_it() {
    let server = shop();
    let agent = Agent::start(&server, &[]);
    let mut first = agent.curl("method=physical&compression=none&max-rate=1000000", H1_TE);
    first.flows();
    let info = said(Command::new("curl").args(["-fsS", &format!("{}/v1/info", agent.url)]));
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

    said(Command::new("curl").args([
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
    agent.is_clean(&server);
}

#[test]
fn a_reader_that_goes_away_frees_everything() {
    let server = shop();
    let agent = Agent::start(&server, &[]);
    for args in [H1, H2] {
        let mut curl = agent.curl("method=physical&compression=none&max-rate=1000000", args);
        curl.flows();
        curl.child.kill().unwrap();
        curl.child.wait().unwrap();
        agent.is_clean(&server);
    }
}

#[test]
fn sigterm_in_mid_stream_ends_in_an_honest_trailer_and_exit_code_0() {
    let server = shop();
    let mut agent = Agent::start(&server, &["--drain-timeout", "100ms"]);
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
        (server.sessions() == 0).then_some(())
    });
}

#[test]
fn a_second_signal_in_mid_stream_cuts_the_reader_and_leaves_nothing() {
    let server = shop();
    let mut agent = Agent::start(&server, &["--drain-timeout", "1h"]);
    for args in [H1_TE, H2] {
        let mut curl = agent.curl("method=physical&compression=none&max-rate=1000000", args);
        curl.flows();
        let tools = agent.tools();
        assert!(!tools.is_empty());
        agent.signal(rustix::process::Signal::TERM);
        agent.signal(rustix::process::Signal::INT);
        let (code, fields) = curl.end();
        assert_ne!(code, 0, "{fields:?}");
        assert_eq!(field(&fields, "x-streaming-error"), None, "{fields:?}");
        assert_eq!(agent.child.wait().unwrap().code(), Some(1));
        for tool in tools {
            eventually("the tool is gone", || {
                let stat = fs::read_to_string(format!("/proc/{tool}/stat"));
                stat.map_or(true, |stat| stat.contains(") Z "))
                    .then_some(())
            });
        }
        agent.is_clean(&server);
        agent = Agent::start(&server, &["--drain-timeout", "1h"]);
    }
}

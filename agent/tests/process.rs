//! The agent as a process: exit codes, signals, and its start without a database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline-agent"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOWLINE_"))
    {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A started agent, killed with the test.
struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = agent()
            .args([
                "--no-auth",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .args(["--db-socket", "/nowhere/mysqld.sock"])
            .args(args)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let start: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |field: &str| start[field].as_str().unwrap().parse().unwrap();
        assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(start["database"], "/nowhere/mysqld.sock");
        assert_eq!(start["auth"], "none");
        let (listen, admin) = (address("listen"), address("admin_listen"));
        Self {
            child,
            log,
            listen,
            admin,
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait_for_log(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(
                self.log.read_line(&mut line).unwrap(),
                0,
                "the log ends before {text:?}"
            );
        }
    }

    fn exit_code(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn wrong_flags_exit_with_2_and_say_what_to_do() {
    for (args, needle) in [
        (&[][..], "--token-file"),
        (&["--no-auth", "--listen", "0.0.0.0:0"], "--no-auth"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--token-file", "/nowhere/tokens"], "/nowhere/tokens"),
        (&["--token-file", "/dev/null"], "holds no token"),
    ] {
        let output = agent().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            stderr(&output).contains(needle),
            "{args:?}: {}",
            stderr(&output)
        );
    }
    let output = agent()
        .env("TOWLINE_STALL_TIMEOUT", "soon")
        .arg("--no-auth")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = agent().env("TOWLINE_NO_AUTH", "false").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_taken_port_exits_with_1_and_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = agent()
        .args(["--no-auth", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--listen"), "{}", stderr(&output));
}

#[test]
fn help_documents_the_exit_codes() {
    let output = agent().arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exit codes: 0"));
}

#[test]
fn it_starts_without_a_database_and_stops_gracefully() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut agent = Running::start(&["--drain-delay", "0"]);
        assert!(get(agent.admin, "/readyz").starts_with("HTTP/1.1 200"));
        let answer = get(agent.listen, "/v1/backup?method=logical");
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(
            answer.contains("urn:towline:problem:database")
                && answer.contains("/nowhere/mysqld.sock"),
            "{answer}"
        );
        let info = get(agent.listen, "/v1/info");
        assert!(
            info.starts_with("HTTP/1.1 200") && info.contains("databaseError"),
            "{info}"
        );
        agent.signal(signal);
        agent.wait_for_log("stopped");
        assert_eq!(agent.exit_code(), Some(0));
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut agent = Running::start(&["--drain-delay", "1h", "--drain-timeout", "1h"]);
    agent.signal(rustix::process::Signal::TERM);
    agent.wait_for_log("no new backups");
    assert!(get(agent.admin, "/readyz").starts_with("HTTP/1.1 503"));
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.exit_code(), Some(1));
}

//! The agent as a process: exit codes, signals, and its start without a database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};

/// What the agent under test was built with, for it and this test are built by one command.
const COMMIT: &str = match option_env!("TOWLINE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

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

/// A field of a log line, JSON or text.
fn field(line: &str, name: &str) -> String {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(line) {
        return match &json[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
    }
    let start = format!(" {name}=");
    let (_, rest) = line
        .split_once(&start)
        .unwrap_or_else(|| panic!("no {name} in {line}"));
    let value = rest.split_whitespace().next().unwrap_or_default();
    value.trim_matches('"').to_owned()
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
        let (agent, start) = Self::start_with(&[&["--no-auth"], args].concat());
        assert_eq!(field(&start, "version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(field(&start, "commit"), COMMIT);
        assert_eq!(field(&start, "database"), "/nowhere/mysqld.sock");
        assert_eq!(field(&start, "auth"), "none");
        assert_eq!(field(&start, "tls"), "false");
        agent
    }

    /// The agent, and the line that it logs at its start.
    fn start_with(args: &[&str]) -> (Self, String) {
        let mut child = agent()
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--db-socket", "/nowhere/mysqld.sock"])
            .args(args)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut start = String::new();
        log.read_line(&mut start).unwrap();
        let address = |name: &str| field(&start, name).parse().unwrap();
        let (listen, admin) = (address("listen"), address("admin_listen"));
        let running = Self {
            child,
            log,
            listen,
            admin,
        };
        (running, start)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The first line from here on that has the text.
    fn wait_for_log(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(
                self.log.read_line(&mut line).unwrap(),
                0,
                "the log ends before {text:?}"
            );
        }
        line
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
        (
            &["--no-auth", "--tls-cert", "/nowhere/c", "--tls-key", "/k"],
            "/nowhere/c",
        ),
        (
            &[
                "--no-auth",
                "--tls-cert",
                "/dev/null",
                "--tls-key",
                "/dev/null",
            ],
            "holds no certificate",
        ),
        (
            &["--client-ca", "/ca", "--allowed-client", "a"],
            "--tls-cert",
        ),
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
fn the_version_names_the_commit() {
    let output = agent().arg("--version").output().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("towline-agent {version} (commit {COMMIT})\n")
    );
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

#[test]
fn the_access_log_is_json_or_text() {
    for format in ["json", "text"] {
        let mut agent = Running::start(&["--log-format", format]);
        get(agent.listen, "/v1/none");
        let line = agent.wait_for_log("towline_agent::access");
        let json = serde_json::from_str::<serde_json::Value>(&line);
        assert_eq!(json.is_ok(), format == "json", "{line}");
        for (name, value) in [
            ("method", "GET"),
            ("path", "/v1/none"),
            ("protocol", "HTTP/1.1"),
            ("status", "404"),
            ("peer", "anyone"),
            ("end", "complete"),
        ] {
            assert_eq!(field(&line, name), value, "{name} in {line}");
        }
    }
}

/// The blocks of docs/agent.md that begin with a word, as they are to be typed.
fn documented(word: &str) -> String {
    let docs = include_str!("../../docs/agent.md");
    let mut blocks = docs
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .filter(|block| block.starts_with(word));
    let block = blocks
        .next()
        .unwrap_or_else(|| panic!("no {word} in the docs"));
    assert!(blocks.next().is_none(), "{word} is there once");
    block.to_owned()
}

/// What docs/agent.md says of mutual TLS works as it stands there.
#[test]
fn the_documented_certificates_work() {
    for tool in ["openssl", "curl"] {
        if let Err(error) = Command::new(tool).arg("version").output() {
            eprintln!("not run: {tool} does not start: {error}");
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let shell = |script: &str| {
        let output = Command::new("sh")
            .args(["-euc", script])
            .current_dir(dir.path())
            .output()
            .unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, said) = shell(&documented("NEW="));
    assert_eq!(code, Some(0), "{said}");
    let flags = documented("towline-agent --tls-cert").replace("\\\n", " ");
    let flags: Vec<String> = flags
        .split_whitespace()
        .skip(1)
        .map(|word| match dir.path().join(word) {
            file if file.exists() => file.display().to_string(),
            _ => word.to_owned(),
        })
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (mut agent, start) = Running::start_with(&flags);
    assert_eq!(field(&start, "auth"), "certificates");
    assert_eq!(field(&start, "tls"), "true");
    let curl = documented("curl --cacert")
        .replace("curl ", "curl -sS --noproxy '*' ")
        .replace("8474", &agent.listen.port().to_string());
    // There is no database, and curl learns that: everything before was right.
    let (code, said) = shell(&curl);
    assert_eq!(code, Some(22), "{said}");
    let head = std::fs::read_to_string(dir.path().join("head")).unwrap();
    assert!(head.starts_with("HTTP/2 50"), "{head}");
    let line = agent.wait_for_log("towline_agent::access");
    assert_eq!(field(&line, "peer"), "controller.example.org");
    let (code, said) = shell(&curl.replace("--cert client.crt --key client.key", ""));
    assert!(code.is_some_and(|code| code != 0 && code != 22), "{said}");
    let line = agent.wait_for_log("TLS handshake failed");
    assert_eq!(field(&line, "reason"), "client-certificate");
}

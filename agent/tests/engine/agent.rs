//! The agent as a process, and curl as its caller.

use crate::server::{Server, eventually, password_file, run};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a command that has to succeed prints.
pub(crate) fn said(command: &mut Command) -> String {
    String::from_utf8(run(command)).unwrap()
}

pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) url: String,
    tmp: tempfile::TempDir,
    _password: tempfile::NamedTempFile,
}

impl Agent {
    pub(crate) fn start(server: &Server, args: &[&str]) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let password = password_file();
        let mut child = Command::new(env!("CARGO_BIN_EXE_towline-agent"))
            .args([
                "--no-auth",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .arg("--db-socket")
            .arg(server.socket())
            .arg("--db-password-file")
            .arg(password.path())
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
        Self {
            child,
            url,
            tmp,
            _password: password,
        }
    }

    /// Children of the agent: its tools.
    pub(crate) fn tools(&self) -> Vec<i32> {
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

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// Starts curl on a backup.
    pub(crate) fn curl(&self, query: &str, args: &[&str]) -> Curl {
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
    pub(crate) fn is_clean(&self, server: &Server) {
        eventually("no tool is left", || self.tools().is_empty().then_some(()));
        eventually("no session is left", || {
            (server.sessions() == 0).then_some(())
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

pub(crate) struct Curl {
    pub(crate) child: Child,
    dir: tempfile::TempDir,
}

impl Curl {
    pub(crate) fn body(&self) -> PathBuf {
        self.dir.path().join("body")
    }

    /// Waits until bytes of the body have come: the 200 was sent, the tool is at work.
    pub(crate) fn flows(&mut self) {
        eventually("the body flows", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "curl ended early");
            fs::metadata(self.body())
                .is_ok_and(|meta| meta.len() > 100_000)
                .then_some(())
        });
    }

    /// Exit code, and what came as headers and trailers.
    pub(crate) fn end(&mut self) -> (i32, Vec<(String, String)>) {
        let status = self.child.wait().unwrap();
        let head = fs::read_to_string(self.dir.path().join("head")).unwrap_or_default();
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        let fields = fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        (status.code().unwrap_or(-1), fields)
    }
}

pub(crate) fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

pub(crate) fn sha256_of(path: &Path) -> String {
    said(Command::new("sha256sum").arg(path))
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

//! An engine, and what it leaves on the machine.

use crate::reader::Reader;
use crate::server::{PATIENCE, Server, eventually, password_file};
use rustix::process::{Pid, Signal, getpgid, kill_process, test_kill_process_group};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;
use towline_agent::backup::{
    BackupMetrics, BackupRequest, Compression, Engine, EngineConfig, JobAttempt, Method, StartError,
};
use towline_agent::database::{Address, Connection};

/// An engine with a folder of its own.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    tmp: tempfile::TempDir,
    _password: tempfile::NamedTempFile,
    /// Process groups of the tools that were seen.
    groups: Mutex<BTreeSet<i32>>,
}

/// A request for a plain archive, whose bytes flow as the tool gives them.
pub(crate) fn request(method: Method) -> BackupRequest {
    BackupRequest {
        method: Some(method),
        compression: Compression::None,
        parallel: 1,
        recipients: Vec::new(),
        databases: Vec::new(),
        max_rate: None,
        job: None,
    }
}

pub(crate) fn of_job(method: Method, uid: &str, attempt: u32) -> BackupRequest {
    BackupRequest {
        job: Some(JobAttempt {
            uid: uid.to_owned(),
            attempt,
        }),
        ..request(method)
    }
}

/// How the agent's user reaches a server.
pub(crate) fn connection(server: &Server, password: &tempfile::NamedTempFile) -> Connection {
    Connection {
        address: Address::Socket(server.socket()),
        user: "towline".to_owned(),
        password_file: Some(password.path().to_owned()),
        timeout: Duration::from_secs(20),
    }
}

impl Rig {
    pub(crate) fn new(server: &Server) -> Self {
        Self::with(server, |_| {})
    }

    pub(crate) fn with(server: &Server, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let password = password_file();
        let mut config = EngineConfig {
            database: connection(server, &password),
            method: None,
            lock_buffer: 64 << 20,
            max_lock: PATIENCE,
            stall_timeout: PATIENCE,
            max_rate: None,
            require_recipients: Vec::new(),
            allow_galera: false,
            allow_restore: true,
            tmp: tmp.path().to_owned(),
        };
        change(&mut config);
        let metrics = BackupMetrics::new(&prometheus::Registry::new()).unwrap();
        Self {
            engine: Engine::new(config, metrics),
            tmp,
            _password: password,
            groups: Mutex::default(),
        }
    }

    /// Starts a backup that has to start.
    pub(crate) async fn start(&self, request: BackupRequest) -> Reader {
        Reader::of(self.engine.start(request).await.unwrap())
    }

    /// Why a backup does not start.
    pub(crate) async fn refused(&self, request: BackupRequest) -> StartError {
        self.engine.start(request).await.unwrap_err()
    }

    /// What the tool is doing; empty when none runs.
    pub(crate) fn stage(&self) -> String {
        self.engine
            .running()
            .map(|running| running.stage)
            .unwrap_or_default()
    }

    /// Processes that were given this engine's folder, zombies left out.
    pub(crate) fn tools(&self) -> Vec<i32> {
        let folder = self.tmp.path().to_string_lossy().into_owned();
        let pids: Vec<i32> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let args = fs::read(entry.path().join("cmdline")).ok()?;
                String::from_utf8_lossy(&args)
                    .contains(&folder)
                    .then_some(pid)
            })
            .collect();
        // A tool leads a group of its own; one that has just ended has none any more.
        let groups = pids
            .iter()
            .filter_map(|pid| getpgid(Pid::from_raw(*pid)).ok())
            .map(|group| group.as_raw_nonzero().get());
        self.groups.lock().unwrap().extend(groups);
        pids
    }

    pub(crate) fn signal_tool(&self, signal: Signal) {
        let tools = self.tools();
        assert!(!tools.is_empty(), "no tool runs");
        for pid in tools {
            // One may be the other's child, and end with it.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
        }
    }

    /// Nothing is left of a backup: no process of the tool's group, alive or a zombie, no file, no
    /// slot, no session.
    pub(crate) async fn is_clean(&self, server: Option<&Server>) {
        tokio::time::timeout(PATIENCE, self.engine.wait_idle())
            .await
            .unwrap();
        assert!(self.engine.running().is_none());
        assert_eq!(self.tools(), Vec::<i32>::new(), "the tool is reaped first");
        let groups = std::mem::take(&mut *self.groups.lock().unwrap());
        for group in groups {
            // What the tool itself had started is init's to reap.
            eventually("nothing is left of the tool's process group", || {
                test_kill_process_group(Pid::from_raw(group).unwrap())
                    .is_err()
                    .then_some(())
            });
        }
        assert_eq!(fs::read_dir(self.tmp.path()).unwrap().count(), 0);
        if let Some(server) = server {
            eventually("the sessions are gone", || {
                (server.sessions() == 0).then_some(())
            });
        }
    }
}

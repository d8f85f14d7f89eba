//! A controller of this machine, whose memory, time and log can be looked at.

use crate::calls::Calls;
use e2e::{Namespace, eventually, eventually_for, report};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::Instant,
};

pub(crate) struct Controller {
    child: Child,
    admin: String,
    dir: TempDir,
    started: Instant,
}

impl Controller {
    /// Starts the release build with `transfers` at once, which may ask agents at `host`.
    pub(crate) async fn start(ns: &Namespace, transfers: usize, host: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let admin = format!("127.0.0.1:{port}");
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(report::program("towline-controller"))
            .arg("run")
            .arg(format!("--max-transfers={transfers}"))
            .arg(format!("--allowed-source-hosts={host}"))
            .arg(format!("--admin-listen={admin}"))
            .arg("--cluster-id=e2e")
            .arg(format!("--lease-namespace={}", ns.name))
            .env("KUBECONFIG", &ns.cluster.kubeconfig)
            // Its calls are counted from its log.
            .env(
                "RUST_LOG",
                "info,kube_runtime=warn,object_store=warn,kube_client=debug",
            )
            .stderr(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let started = Instant::now();
        let controller = Self {
            child,
            admin,
            dir,
            started,
        };
        eventually("the controller is ready", || async {
            match e2e::run("curl", &["-sf", &controller.url("readyz")], b"").await {
                output if output.code == 0 => Ok(()),
                _ => Err(controller.log()),
            }
        })
        .await;
        controller
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.admin)
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap()
    }

    /// The calls that it has made so far.
    pub(crate) fn calls(&self) -> Calls {
        Calls::read(&self.log())
    }

    /// Reconciles of a kind so far.
    async fn reconciles(&self, kind: &str) -> usize {
        let metrics = e2e::run_ok("curl", &["-sf", &self.url("metrics")], b"").await;
        let name = format!("towline_reconcile_duration_seconds_count{{kind=\"{kind}\"}}");
        let line = metrics.lines().find(|line| line.starts_with(&name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0)
    }

    /// Waits until every object has been looked at and nothing goes on any more; gives the seconds
    /// since the start.
    pub(crate) async fn settles(&self, jobs: usize, schedules: usize) -> f64 {
        let limit = Duration::from_secs(240);
        eventually_for(limit, "every object was reconciled", || async {
            let (j, s) = (
                self.reconciles("BackupJob").await,
                self.reconciles("BackupSchedule").await,
            );
            if j >= jobs && s >= schedules {
                Ok(())
            } else {
                Err(format!("{j} jobs, {s} schedules"))
            }
        })
        .await;
        self.quiet(Duration::from_secs(5)).await
    }

    /// Waits until it has used next to no time for so long; gives the seconds from its start to the
    /// beginning of that.
    pub(crate) async fn quiet(&self, span: Duration) -> f64 {
        let limit = Instant::now() + Duration::from_secs(240);
        let (mut since, mut before) = (Instant::now(), self.cpu());
        while since.elapsed() < span {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.cpu();
            // Two ticks of the clock.
            if now - before > 0.025 {
                (since, before) = (Instant::now(), now);
                assert!(since < limit, "it is busy all the time: {}", self.log());
            }
        }
        since.duration_since(self.started).as_secs_f64()
    }

    fn pid(&self) -> u32 {
        self.child
            .id()
            .unwrap_or_else(|| panic!("the controller has ended: {}", self.log()))
    }

    /// Seconds of user and system time.
    pub(crate) fn cpu(&self) -> f64 {
        report::cpu(self.pid())
    }

    /// A figure of /proc/PID/status, in MiB.
    pub(crate) fn memory(&self, name: &str) -> f64 {
        report::memory(self.pid(), name)
    }

    /// Stops it as Kubernetes does.
    pub(crate) async fn stop(&mut self) {
        e2e::run_ok("kill", &["-TERM", &self.pid().to_string()], b"").await;
        let ended = self.child.wait().await.unwrap();
        assert!(ended.success(), "{ended}: {}", self.log());
    }
}

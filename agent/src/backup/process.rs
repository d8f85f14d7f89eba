//! A tool as a process: started in a group of its own, ended with all that it started, reaped.

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::io;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};

/// From SIGINT to SIGKILL. mariadb-backup blocks SIGTERM and ends at once on SIGINT.
const GRACE: Duration = Duration::from_secs(5);

/// A running tool. Dropping it kills the tool itself, as the last resort.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Child,
    group: Option<Pid>,
}

impl Process {
    /// Starts a tool; the command must ask for a process group of its own.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group })
    }

    /// Ends the tool and what it started: SIGINT, after a grace SIGKILL. Returns when it is reaped.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) async fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::INT);
        let status = match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                self.child.wait().await
            }
        };
        // What the tool had started may have ignored the first signal.
        if self
            .group
            .is_some_and(|group| test_kill_process_group(group).is_ok())
        {
            self.signal(Signal::KILL);
        }
        status
    }

    /// Ends at once a tool that has nothing to put in order. Returns when it is reaped.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.child.wait().await
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // A group that is gone already is what we want.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// For people: how a process ended.
pub(crate) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    #[tokio::test]
    async fn a_tool_that_ignores_us_and_its_child_both_end() {
        let mut command = Command::new("sh");
        // The shell ignores SIGINT, and so does its child.
        command.args(["-c", "trap '' INT; sleep 600 & echo $!; wait"]);
        command
            .process_group(0)
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = Process::start(command).unwrap();
        let stdout = process.child.stdout.take().unwrap();
        let line = BufReader::new(stdout)
            .lines()
            .next_line()
            .await
            .unwrap()
            .unwrap();
        let child = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        assert!(rustix::process::test_kill_process(child).is_ok());
        let status = process.end().await.unwrap();
        assert_eq!(describe(status), "killed by signal 9");
        // Its parent is gone, so init reaps it soon.
        while std::fs::read_to_string(format!("/proc/{line}/stat"))
            .is_ok_and(|s| !s.contains(") Z "))
        {
            tokio::task::yield_now().await;
        }
    }
}

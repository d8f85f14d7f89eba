//! `towline verify --deep`: a drill with the programs of this machine.

use crate::{
    cli::{CliError, restore::Shown, stop_signal},
    logical_restore::Backup,
    restore_pod::{
        Check, DATA_DIR, DRILL_DIR, DRILL_EXITED, DRILL_LOG, DRILL_SETTINGS, DRILL_SOCKET, Pod,
        Report, SCRATCH_DIR, local,
    },
};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
};
use tokio::{process::Command, task::JoinSet};
use towline_agent::{
    database::Flavour,
    restore::{Progress, drill_server::server_arguments, same_series},
};

/// Longest path of a socket, bytes: `sun_path` of `unix(7)`, with the zero at its end.
const MAX_SOCKET: usize = 107;

/// What stands between a query and its answer.
const ANSWER: &str = "=>";

/// A check as the command line has it.
pub(super) fn parse_check(text: &str) -> Result<Check, String> {
    let (query, expect) = match text.rsplit_once(ANSWER) {
        Some((query, expect)) => (query.trim(), Some(expect.trim().to_owned())),
        None => (text.trim(), None),
    };
    if query.is_empty() {
        return Err("write a query, or a query => its answer".to_owned());
    }
    Ok(Check {
        query: query.to_owned(),
        expect,
    })
}

/// Restores into a folder that goes when this ends, however it ends, and asks a server that runs on it.
pub(super) async fn drill(
    backup: &Backup,
    tmp: Option<&Path>,
    checks: &[Check],
) -> Result<Report, CliError> {
    let folder = folder(tmp)?;
    let pod = Pod {
        root: folder.path().to_owned(),
    };
    let progress = Progress::default();
    let shown = Shown::start(progress.clone());
    let mut stop: Pin<Box<dyn Future<Output = String> + Send>> = Box::pin(stop_signal());
    let outcome = run(&pod, backup, checks, &progress, &mut stop).await;
    shown.end().await;
    let kept = folder.path().display().to_string();
    folder
        .close()
        .map_err(|e| CliError::failed(format!("{kept} cannot be removed: {e}")))?;
    outcome
}

/// A private folder, as a drill's pod has its volumes.
fn folder(tmp: Option<&Path>) -> Result<tempfile::TempDir, CliError> {
    let parent = tmp.map_or_else(std::env::temp_dir, PathBuf::from);
    let unusable = |e: std::io::Error| CliError::usage(format!("--tmp {}: {e}", parent.display()));
    let folder = tempfile::Builder::new()
        .prefix("towline-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .map_err(unusable)?;
    let pod = Pod {
        root: folder.path().to_owned(),
    };
    for path in [DATA_DIR, DRILL_DIR, SCRATCH_DIR] {
        fs::create_dir_all(pod.path(path)).map_err(unusable)?;
    }
    let socket = pod.path(DRILL_DIR).join(DRILL_SOCKET);
    if socket.as_os_str().len() > MAX_SOCKET {
        return Err(CliError::usage(format!(
            "--tmp {}: a server's socket cannot have so long a path: name a shorter one",
            parent.display()
        )));
    }
    Ok(folder)
}

async fn run(
    pod: &Pod,
    backup: &Backup,
    checks: &[Check],
    progress: &Progress,
    stop: &mut Pin<Box<dyn Future<Output = String> + Send>>,
) -> Result<Report, CliError> {
    let manifest = &backup.manifest;
    let flavour = match manifest.server_flavour.as_str() {
        "mariadb" => Flavour::Mariadb,
        "mysql" => Flavour::Mysql,
        other => {
            return Err(CliError::failed(format!(
                "there is no server for a backup of {other:?}"
            )));
        }
    };
    let logical = manifest.method == "logical";
    // What cannot run is told before anything is read.
    let program = match flavour {
        Flavour::Mariadb => "mariadbd",
        Flavour::Mysql => "mysqld",
    };
    let server = find(program)?;
    if !logical {
        fits(&server, &manifest.server_version).await?;
    }
    let prepared = local::prepare(pod, backup, progress, stop.as_mut()).await;
    if prepared.reason.is_some() {
        return Ok(prepared);
    }
    if logical {
        let initialising = initialise(pod, flavour, &server);
        tokio::select! {
            why = stop.as_mut() => return Err(CliError::failed(why)),
            made = initialising => made?,
        }
    }
    let (mut running, group) = start(pod, flavour, &server)?;
    let checked = local::check(pod, backup, checks, progress, stop.as_mut()).await;
    // It was told to end where it answered; a signal ends one that did not.
    for signal in [Signal::TERM, Signal::KILL] {
        if let Some(group) = group {
            let _ = kill_process_group(group, signal);
        }
        if tokio::time::timeout(SHUTDOWN, running.join_next())
            .await
            .is_ok()
        {
            break;
        }
    }
    Ok(checked)
}

/// How long a server that was asked to end may take.
const SHUTDOWN: std::time::Duration = std::time::Duration::from_secs(30);

/// A server is in folders that a user's PATH may lack.
fn find(program: &str) -> Result<PathBuf, CliError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            CliError::failed(format!(
                "{program} is not installed here: a drill needs the server program of the backup's release series"
            ))
        })
}

async fn fits(server: &Path, version: &str) -> Result<(), CliError> {
    let asked = Command::new(server).arg("--version").output().await;
    let output = asked.map_err(|e| CliError::failed(format!("{}: {e}", server.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "mariadbd  Ver 10.11.19-MariaDB for debian-linux-gnu".
    let ours = text.split_once("Ver ").map_or(&*text, |(_, rest)| rest);
    if same_series(ours, version) {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "the backup is of {version}, {} is {}: a drill needs the server program of the backup's release series",
        server.display(),
        ours.split_whitespace().next().unwrap_or_default()
    )))
}

/// MySQL and MariaDB refuse to run as root unless they are told to.
fn as_user(command: &mut Command) {
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
}

/// An empty data directory, for a dump.
async fn initialise(pod: &Pod, flavour: Flavour, server: &Path) -> Result<(), CliError> {
    let mut command = match flavour {
        Flavour::Mariadb => {
            let mut command = Command::new(find("mariadb-install-db")?);
            command.args(["--no-defaults", "--skip-test-db"]);
            command.arg("--auth-root-authentication-method=normal");
            command
        }
        Flavour::Mysql => {
            let mut command = Command::new(server);
            command.args(["--no-defaults", "--initialize-insecure"]);
            command
        }
    };
    command
        .arg(format!("--datadir={}", pod.path(DATA_DIR).display()))
        .env("TMPDIR", pod.path(SCRATCH_DIR))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    as_user(&mut command);
    let ended = command.output().await;
    let output = ended.map_err(|e| CliError::failed(format!("making a data directory: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CliError::failed(format!(
        "an empty data directory cannot be made ({}): {}",
        output.status,
        said.trim()
    )))
}

/// Runs the server as a drill's pod does: its exit status goes to a file.
fn start(
    pod: &Pod,
    flavour: Flavour,
    server: &Path,
) -> Result<(JoinSet<()>, Option<Pid>), CliError> {
    let drill = pod.path(DRILL_DIR);
    let mut command = Command::new(server);
    command.args(server_arguments(
        flavour,
        &drill.join(DRILL_SETTINGS),
        &pod.path(DATA_DIR),
        &drill.join(DRILL_SOCKET),
        &drill.join(DRILL_LOG),
    ));
    as_user(&mut command);
    let mut child = command
        .env("TMPDIR", pod.path(SCRATCH_DIR))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C reaches us, and we end it in order, with all that it started.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| CliError::failed(format!("{} cannot be started: {e}", server.display())))?;
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut running = JoinSet::new();
    running.spawn(async move {
        if let Ok(status) = child.wait().await {
            let code = status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            let _ = fs::write(drill.join(DRILL_EXITED), code.to_string());
        }
    });
    Ok((running, group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks() {
        let parsed = |text: &str| parse_check(text).map(|c| (c.query, c.expect));
        let none = Ok(("SELECT 1 FROM t WHERE a=1".to_owned(), None));
        assert_eq!(parsed("SELECT 1 FROM t WHERE a=1"), none);
        let some = Ok(("SELECT 1".to_owned(), Some("1".to_owned())));
        assert_eq!(parsed("SELECT 1 => 1"), some);
        assert_eq!(parsed("SELECT 1=>1"), some);
        let empty = Ok(("SELECT ''".to_owned(), Some(String::new())));
        assert_eq!(parsed("SELECT '' =>"), empty);
        for bad in ["", " => 1"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}

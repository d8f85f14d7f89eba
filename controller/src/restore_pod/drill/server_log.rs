//! Why a drill's server ended: whether that says anything about the backup.

use crate::{reason::RestoreReason, restore_pod::run::Failed};
use towline_agent::{
    archive::Metadata,
    restore::{same_series, speaks_of_no_space},
};

/// Bytes of the log that a message shows, the last ones.
const TAIL: usize = 1200;

/// What the log and the exit status of a server that should run mean. Only a server of the backup's own
/// series that was not ended from outside, and that runs on the backup's files, says that they are bad.
pub(super) fn judge(metadata: &Metadata, status: &str, log: &str) -> Failed {
    let tail = tail(log);
    let failed =
        |reason, what: &str| Failed::new(reason, format!("{what} (exit status {status}): {tail}"));
    if log.lines().any(speaks_of_no_space) {
        return failed(
            RestoreReason::NoSpace,
            "the drill's volume is full: give it more storage",
        );
    }
    // The program could not be started.
    if matches!(status, "126" | "127") {
        return failed(
            RestoreReason::PodFailed,
            "the drill's image has no server that runs here: name an image of the backup's server",
        );
    }
    // As a shell tells of signal 9, which the kernel sends when memory is short, and 15.
    if matches!(status, "137" | "143") {
        return failed(
            RestoreReason::PodFailed,
            "the drill's server was killed: give it more memory in resources",
        );
    }
    if let Some(version) = version(log)
        && !same_series(version, &metadata.server_version)
    {
        let what = format!(
            "the drill's image runs {version}, the backup is of {}: name an image of its series",
            metadata.server_version
        );
        return failed(RestoreReason::Incompatible, &what);
    }
    if let Some(what) = not_the_backups_fault(log) {
        return failed(RestoreReason::PodFailed, what);
    }
    if metadata.method != "physical" {
        return failed(RestoreReason::PodFailed, "the drill's server ended");
    }
    failed(
        RestoreReason::CheckFailed,
        "the server does not run on the restored data",
    )
}

/// What servers say of options and of places they may not use.
fn not_the_backups_fault(log: &str) -> Option<&'static str> {
    const SAID: [(&str, &str); 6] = [
        (
            "unknown option",
            "the drill's server does not know an option",
        ),
        (
            "unknown variable",
            "the drill's server does not know an option",
        ),
        (
            "Permission denied",
            "the drill's server may not use its files: set runAsUser and fsGroup of the image's user",
        ),
        (
            "Cannot allocate memory",
            "the drill's server got no memory: give it more in resources",
        ),
        (
            "Different lower_case_table_names settings",
            "the server that was backed up has another lower_case_table_names than a drill's server",
        ),
        (
            "Please read \"Security\"",
            "the drill's server refuses to run as root",
        ),
    ];
    let said = SAID.iter().find(|(part, _)| log.contains(part));
    said.map(|(_, what)| *what)
}

/// Of the server, as its first line says: `Starting MariaDB 10.11.19-MariaDB source revision ... as
/// process 7`, before 10.9 and in MySQL `... (mysqld 9.1.0) starting as process 7`.
fn version(log: &str) -> Option<&str> {
    let line = log.lines().rfind(|line| line.contains(" as process "))?;
    if let Some((_, version)) = line.split_once("Starting MariaDB ") {
        return version.split_whitespace().next();
    }
    let inside = line.split_once('(')?.1.split_once(')')?.0;
    inside.split_whitespace().last()
}

/// Errors where there are any, else the last lines.
fn tail(log: &str) -> String {
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("[ERROR]") || line.contains("[FATAL]"))
        .collect();
    let lines: Vec<&str> = if errors.is_empty() {
        log.lines().filter(|line| !line.trim().is_empty()).collect()
    } else {
        errors
    };
    let mut kept = Vec::new();
    let mut bytes = 0;
    for line in lines.iter().rev() {
        bytes += line.len();
        if bytes > TAIL && !kept.is_empty() {
            break;
        }
        kept.push(*line);
    }
    kept.reverse();
    if kept.is_empty() {
        return "its log is empty".to_owned();
    }
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(method: &str) -> Metadata {
        Metadata {
            format_version: 1,
            backup_id: "b-1".to_owned(),
            server_flavour: "mariadb".to_owned(),
            server_version: "10.11.6-MariaDB-log".to_owned(),
            server_uuid: None,
            method: method.to_owned(),
            tool: String::new(),
            tool_version: String::new(),
            start_time: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    const START: &str = "2026-03-01  2:00:00 0 [Note] Starting MariaDB 10.11.19-MariaDB-deb12 source revision 0a1b server_uid x= as process 7\n";

    #[test]
    fn only_a_proven_fault_of_the_backup_blames_it() {
        use RestoreReason::{CheckFailed, Incompatible, NoSpace, PodFailed};
        let corrupt = "[ERROR] InnoDB: Database page corruption on disk\n";
        for (method, status, log, reason, part) in [
            (
                "physical",
                "1",
                format!("{START}{corrupt}"),
                CheckFailed,
                "page corruption",
            ),
            (
                "physical",
                "134",
                format!("{START}{corrupt}"),
                CheckFailed,
                "134",
            ),
            ("physical", "1", String::new(), CheckFailed, "log is empty"),
            (
                "logical",
                "1",
                format!("{START}{corrupt}"),
                PodFailed,
                "page corruption",
            ),
            (
                "physical",
                "127",
                "there is no mariadbd in this image".to_owned(),
                PodFailed,
                "name an image",
            ),
            (
                "physical",
                "137",
                format!("{START}{corrupt}"),
                PodFailed,
                "memory",
            ),
            (
                "physical",
                "1",
                format!("{START}InnoDB: Error number 28 means 'No space left on device'\n"),
                NoSpace,
                "storage",
            ),
            (
                "physical",
                "1",
                START.replace("10.11.19", "10.6.20") + corrupt,
                Incompatible,
                "10.6.20-MariaDB-deb12",
            ),
            (
                "physical",
                "1",
                format!("{START}[ERROR] mariadbd: unknown variable 'x=1'\n"),
                PodFailed,
                "option",
            ),
            (
                "physical",
                "1",
                format!(
                    "{START}[ERROR] mariadbd: Can't create file (errno: 13 \"Permission denied\")\n"
                ),
                PodFailed,
                "runAsUser",
            ),
        ] {
            let failed = judge(&metadata(method), status, &log);
            assert_eq!(failed.reason, reason, "{log}");
            assert!(failed.message.contains(part), "{}", failed.message);
        }
    }

    #[test]
    fn the_servers_version() {
        assert_eq!(version(START), Some("10.11.19-MariaDB-deb12"));
        let mysql = "2026-03-01T02:00:00.000000Z 0 [System] [MY-010116] [Server] /usr/sbin/mysqld (mysqld 9.1.0) starting as process 7\n";
        assert_eq!(version(mysql), Some("9.1.0"));
        let older = "2026-03-01  2:00:00 0 [Note] mysqld (server 10.6.20-MariaDB) starting as process 7 ...\n";
        assert_eq!(version(older), Some("10.6.20-MariaDB"));
        assert_eq!(version("nothing"), None);
    }

    #[test]
    fn the_end_of_the_log_is_shown() {
        let log = (0..1000).map(|n| format!("line {n}\n")).collect::<String>();
        let tail = tail(&log);
        assert!(tail.ends_with("line 999") && tail.len() < TAIL + 400);
        assert_eq!(super::tail("a\n[ERROR] b\nc\n"), "[ERROR] b");
    }
}

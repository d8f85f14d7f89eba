//! The command lines of the tools. Nothing secret is on them.

use super::dump::Asked;
use super::tool::{Installed, Tool};
use crate::database::{Connection, Grants, ServerInfo, private_folder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// A tool ready to run, and the private folder that goes when it is dropped.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) command: Command,
    pub(super) folder: TempDir,
}

/// What the command line is made of.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) installed: &'a Installed,
    pub(super) connection: &'a Connection,
    pub(super) password: Option<String>,
    pub(super) server: &'a ServerInfo,
    pub(super) grants: &'a Grants,
    /// Schemas of a logical backup.
    pub(super) databases: &'a [String],
    pub(super) parallel: u16,
    pub(super) max_lock: Duration,
    pub(super) tmp: &'a Path,
}

impl Wanted<'_> {
    /// Writes the defaults file and puts the command together.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub(super) fn prepare(self) -> io::Result<Prepared> {
        let folder = private_folder(self.tmp)?;
        let mut command = self.connection.command(
            &self.installed.path,
            self.password.as_deref(),
            folder.path(),
        )?;
        match self.installed.tool {
            Tool::MariadbBackup | Tool::Xtrabackup => self.copy(&mut command, folder.path())?,
            Tool::MariadbDump => self.mariadb_dump(&mut command),
            Tool::Mysqldump => self.mysqldump(&mut command),
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Prepared { command, folder })
    }

    /// xtrabackup has the options that mariadb-backup has from it.
    fn copy(&self, command: &mut Command, folder: &Path) -> io::Result<()> {
        let target = folder.join("target");
        std::fs::DirBuilder::new().mode(0o700).create(&target)?;
        command
            .args(["--backup", "--stream=xbstream"])
            .arg(format!("--target-dir={}", target.display()))
            .arg(format!("--parallel={}", self.parallel));
        Ok(())
    }

    fn mariadb_dump(&self, command: &mut Command) {
        command.args(DUMP);
        // It takes the position of the snapshot itself; no global lock is needed.
        if asked(self.installed, self.server, self.grants).binlog {
            command.args(["--master-data=2", "--gtid"]);
        }
        self.names(command);
    }

    fn mysqldump(&self, command: &mut Command) {
        command.args(DUMP);
        // Kept as a comment: a restore decides.
        command.arg("--set-gtid-purged=COMMENTED");
        if asked(self.installed, self.server, self.grants).binlog {
            // It takes a global read lock for a moment, and must not wait for one without end.
            let seconds = self.max_lock.as_secs().max(1);
            command.arg("--source-data=2");
            command.arg(format!(
                "--init-command=SET SESSION lock_wait_timeout={seconds}"
            ));
        }
        self.names(command);
    }

    /// After `--`, a name is a name, whatever it looks like.
    fn names(&self, command: &mut Command) {
        command.args(["--databases", "--"]).args(self.databases);
    }
}

/// Which positions a tool tells: where the server has one, and our user may ask for it.
pub(super) fn asked(installed: &Installed, server: &ServerInfo, grants: &Grants) -> Asked {
    let may = match installed.tool {
        Tool::MariadbBackup | Tool::MariadbDump => {
            grants.global(&["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"])
        }
        Tool::Mysqldump => {
            grants.global(&["REPLICATION CLIENT"]) && grants.global(&["RELOAD", "FLUSH_TABLES"])
        }
        Tool::Xtrabackup => grants.global(&["REPLICATION CLIENT"]),
    };
    let binlog = server.binary_log && may;
    Asked {
        binlog,
        // MariaDB's comes with the binary log's, MySQL's with every dump of a server that has one.
        gtid: match installed.tool {
            Tool::Mysqldump => server.gtid.is_some(),
            Tool::MariadbBackup | Tool::MariadbDump | Tool::Xtrabackup => binlog,
        },
    }
}

/// What both dump tools are told: one snapshot, no table locks, everything that belongs to a schema.
const DUMP: [&str; 9] = [
    "--single-transaction",
    "--skip-lock-tables",
    "--quick",
    "--hex-blob",
    "--routines",
    "--triggers",
    "--events",
    "--default-character-set=utf8mb4",
    // A row may be as large as the protocol allows; the default breaks off at 24 MiB.
    "--max-allowed-packet=1G",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Address;
    use crate::database::tests::server;
    use std::os::unix::fs::PermissionsExt as _;

    fn prepared(tool: Tool, grants: &str, tmp: &Path) -> Prepared {
        let connection = Connection {
            address: Address::Socket("/run/s.sock".into()),
            user: "towline".into(),
            password_file: None,
            timeout: Duration::from_secs(1),
        };
        let installed = Installed {
            tool,
            path: tool.name().into(),
            version: String::new(),
        };
        Wanted {
            installed: &installed,
            connection: &connection,
            password: Some("se\"cret\\".into()),
            server: &server(tool.flavour()),
            grants: &[grants.to_owned()].into_iter().collect(),
            databases: &["--all-databases".to_owned()],
            parallel: 2,
            max_lock: Duration::from_secs(60),
            tmp,
        }
        .prepare()
        .unwrap()
    }

    fn args(prepared: &Prepared) -> Vec<String> {
        let args = prepared.command.as_std().get_args();
        args.map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_password_is_in_a_private_file_alone() {
        let tmp = tempfile::tempdir().unwrap();
        for tool in Tool::ALL {
            let prepared = prepared(tool, "GRANT ALL PRIVILEGES ON *.* TO `t`@`%`", tmp.path());
            let args = args(&prepared);
            assert!(!args.iter().any(|arg| arg.contains("cret")), "{args:?}");
            let file = Path::new(args[0].strip_prefix("--defaults-file=").unwrap()).to_owned();
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains("password=\"se\\\"cret\\\\\"\n"), "{text}");
            drop(prepared);
            assert!(!file.exists());
        }
    }

    #[test]
    fn a_name_that_looks_like_an_option_is_a_name() {
        let tmp = tempfile::tempdir().unwrap();
        let args = args(&prepared(
            Tool::MariadbDump,
            "GRANT USAGE ON *.* TO `t`@`%`",
            tmp.path(),
        ));
        assert_eq!(
            args[args.len() - 3..],
            ["--databases", "--", "--all-databases"]
        );
        assert!(!args.iter().any(|arg| arg.starts_with("--master-data")));
    }

    #[test]
    fn both_copying_tools_are_told_the_same() {
        let tmp = tempfile::tempdir().unwrap();
        let all = "GRANT ALL PRIVILEGES ON *.* TO `t`@`%`";
        let of = |tool| {
            let prepared = prepared(tool, all, tmp.path());
            let args = args(&prepared);
            assert!(args[3].ends_with("/target"), "{args:?}");
            [args[1].clone(), args[2].clone(), args[4].clone()]
        };
        let expected = ["--backup", "--stream=xbstream", "--parallel=2"];
        assert_eq!(of(Tool::MariadbBackup), expected);
        assert_eq!(of(Tool::Xtrabackup), expected);
    }

    #[test]
    fn a_global_lock_is_never_waited_for_without_end() {
        let tmp = tempfile::tempdir().unwrap();
        let all = "GRANT RELOAD, REPLICATION CLIENT ON *.* TO `t`@`%`";
        let args = args(&prepared(Tool::Mysqldump, all, tmp.path()));
        assert!(args.iter().any(|arg| arg == "--source-data=2"));
        assert!(args.iter().any(|arg| arg.contains("lock_wait_timeout=60")));
    }
}

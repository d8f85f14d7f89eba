//! The tool table: which programs make which backups, and what they have to say at the end.

use super::request::Method;
use crate::database::Flavour;
use crate::protocol::info;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Longest wait for a tool's `--version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// One kind of tool. What differs between tools is decided by its variant, in `command.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Physical backups of MariaDB.
    MariadbBackup,
    /// Physical backups of MySQL. Its command line and its log are known from its manual and source.
    Xtrabackup,
    /// Logical backups of MariaDB.
    MariadbDump,
    /// Logical backups of MySQL.
    Mysqldump,
}

impl Tool {
    pub(super) const ALL: [Self; 4] = [
        Self::MariadbBackup,
        Self::Xtrabackup,
        Self::MariadbDump,
        Self::Mysqldump,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MariadbBackup => "mariadb-backup",
            Self::Xtrabackup => "xtrabackup",
            Self::MariadbDump => "mariadb-dump",
            Self::Mysqldump => "mysqldump",
        }
    }

    pub(super) const fn method(self) -> Method {
        match self {
            Self::MariadbBackup | Self::Xtrabackup => Method::Physical,
            Self::MariadbDump | Self::Mysqldump => Method::Logical,
        }
    }

    pub(crate) const fn flavour(self) -> Flavour {
        match self {
            Self::MariadbBackup | Self::MariadbDump => Flavour::Mariadb,
            Self::Mysqldump | Self::Xtrabackup => Flavour::Mysql,
        }
    }

    /// The packages that bring it: Debian's, and Percona's of the server's series.
    const fn package(self) -> &'static str {
        match self {
            Self::MariadbBackup => "mariadb-backup",
            Self::Xtrabackup => "percona-xtrabackup-80, -84 or -91",
            Self::MariadbDump => "mariadb-client",
            Self::Mysqldump => "mysql-client",
        }
    }

    /// Whether the project tests this tool in a release series, the tool's or the server's.
    fn tested_with(self, version: &str) -> bool {
        let Some((major, minor)) = series(version) else {
            return false;
        };
        match self {
            Self::MariadbBackup | Self::MariadbDump => (major, minor) == (10, 11),
            Self::Mysqldump => major == 9,
            Self::Xtrabackup => false,
        }
    }

    /// Extension of the archive's data members.
    pub(super) const fn extension(self) -> &'static str {
        match self.method() {
            Method::Physical => "xbs",
            Method::Logical => "sql",
        }
    }
}

/// A tool that is installed.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    pub(super) tool: Tool,
    pub(super) path: PathBuf,
    /// What `--version` printed.
    pub(super) version: String,
}

impl Installed {
    pub(super) fn info(&self) -> info::Tool {
        info::Tool {
            name: self.tool.name().to_owned(),
            version: self.version.clone(),
            methods: vec![self.tool.method().to_string()],
            tested: self.tool.tested_with(&self.version),
        }
    }

    /// Whether the project tests this tool with such a server.
    pub(super) fn tested_on(&self, server_version: &str) -> bool {
        self.tool.tested_with(&self.version) && self.tool.tested_with(server_version)
    }
}

/// A program on `PATH`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|dir| dir.join(name));
    candidates.find(|path| path.is_file())
}

/// Looks for every tool on `PATH`. MariaDB's client packages bring a `mysqldump` of their own,
/// which is no tool for MySQL.
pub(super) async fn find_installed() -> Vec<Installed> {
    let mut found = Vec::new();
    for tool in Tool::ALL {
        let Some(path) = find(tool.name()) else {
            continue;
        };
        match version(&path).await {
            Ok(version) if tool == Tool::Mysqldump && version.contains("MariaDB") => {}
            Ok(version) => found.push(Installed {
                tool,
                path,
                version,
            }),
            Err(error) => {
                tracing::warn!(tool = tool.name(), %error, "a tool does not tell its version: not used")
            }
        }
    }
    found
}

/// What a tool's `--version` prints.
///
/// # Errors
/// When it does not run, or takes too long.
pub(crate) async fn version(path: &Path) -> std::io::Result<String> {
    let mut command = Command::new(path);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await??;
    // Copying tools print it on stderr, xtrabackup after other lines.
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default();
    // "/usr/bin/mysqldump  Ver 9.7.4": its folder is of no interest.
    let words: Vec<&str> = line.split_whitespace().collect();
    let folder = path.parent().map(|dir| format!("{}/", dir.display()));
    let text = words.join(" ");
    Ok(folder.map_or(text.clone(), |folder| text.replace(&folder, "")))
}

/// The tool for a method on a server, or what is missing.
pub(super) fn choose(
    installed: &[Installed],
    method: Option<Method>,
    flavour: Flavour,
    server_version: &str,
) -> Result<Installed, String> {
    let fits = |method: Method| {
        installed
            .iter()
            .find(move |i| i.tool.method() == method && i.tool.flavour() == flavour)
    };
    let chosen = match method {
        Some(method) => fits(method),
        None => fits(Method::Physical).or_else(|| fits(Method::Logical)),
    };
    let Some(chosen) = chosen else {
        let wanted = Tool::ALL
            .into_iter()
            .filter(|tool| tool.flavour() == flavour && method.is_none_or(|m| tool.method() == m));
        let names: Vec<_> = wanted
            .map(|tool| format!("{} (package {})", tool.name(), tool.package()))
            .collect();
        let method = method.map_or("any", Method::as_str);
        return Err(format!(
            "no tool for a backup of {flavour}, method {method}, is installed beside this agent: use an agent image with {}",
            names.join(" or ")
        ));
    };
    speaks(chosen, server_version)?;
    Ok(chosen.clone())
}

/// Whether a tool knows such a server. What copies files must be of its very series; a dump of MySQL
/// asks questions that newer servers do not answer any more. MariaDB keeps the old ones.
fn speaks(installed: &Installed, server_version: &str) -> Result<(), String> {
    let (Some(ours), Some(theirs)) = (series(&installed.version), series(server_version)) else {
        return Ok(());
    };
    let must = match installed.tool {
        Tool::MariadbBackup | Tool::Xtrabackup if ours != theirs => "be of the server's",
        Tool::Mysqldump if ours < theirs => "not be older than the server's",
        _ => return Ok(()),
    };
    let name = installed.tool.name();
    Err(format!(
        "the installed tool is `{}`, the server is {server_version}: {name} must {must} release series, so use an agent image with {name} {}.{}",
        installed.version, theirs.0, theirs.1
    ))
}

/// `10.11` of the server or tool that a version speaks of: in "Ver 10.19 Distrib 10.11.6-MariaDB" and
/// in "from 11.4.2-MariaDB, client 10.19" the other number is that of the client's protocol.
pub(crate) fn series(text: &str) -> Option<(u32, u32)> {
    let text = text.split_once("Distrib ").map_or(text, |(_, rest)| rest);
    text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .find_map(|word| {
            let mut parts = word.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(tool: Tool, version: &str) -> Installed {
        Installed {
            tool,
            path: PathBuf::from(tool.name()),
            version: version.into(),
        }
    }

    #[test]
    fn the_right_tool_or_the_reason() {
        let ours = [
            installed(
                Tool::MariadbBackup,
                "mariadb-backup based on MariaDB server 10.11.19-MariaDB debian",
            ),
            installed(
                Tool::MariadbDump,
                "mariadb-dump Ver 10.19 Distrib 10.11.19-MariaDB",
            ),
        ];
        let choose = |method, flavour, version: &str| {
            choose(&ours, method, flavour, version).map(|i| i.tool)
        };
        let (mariadb, mysql) = (Flavour::Mariadb, Flavour::Mysql);
        assert_eq!(
            choose(None, mariadb, "10.11.4-MariaDB"),
            Ok(Tool::MariadbBackup)
        );
        assert_eq!(
            choose(Some(Method::Logical), mariadb, "11.4.2-MariaDB"),
            Ok(Tool::MariadbDump)
        );
        let error = choose(None, mariadb, "11.4.2-MariaDB").unwrap_err();
        assert!(error.contains("release series"), "{error}");
        let error = choose(None, mysql, "9.7.4").unwrap_err();
        assert!(
            error.contains("mysqldump (package mysql-client)"),
            "{error}"
        );
        let error = choose(Some(Method::Physical), mysql, "9.7.4").unwrap_err();
        assert!(error.contains("xtrabackup (package"), "{error}");
    }

    const XTRABACKUP_8: &str =
        "xtrabackup version 8.0.35-34 based on MySQL server 8.0.35 Linux (x86_64) (revision id: 0)";

    #[test]
    fn a_tool_fits_the_servers_series() {
        for (tool, version, server, fits) in [
            (Tool::Xtrabackup, XTRABACKUP_8, "8.0.44", true),
            (Tool::Xtrabackup, XTRABACKUP_8, "8.4.3", false),
            (Tool::Xtrabackup, XTRABACKUP_8, "9.1.0", false),
            (
                Tool::Mysqldump,
                "mysqldump Ver 9.7.4 for Linux",
                "9.7.1",
                true,
            ),
            (
                Tool::Mysqldump,
                "mysqldump Ver 9.7.4 for Linux",
                "8.0.44",
                true,
            ),
            (
                Tool::Mysqldump,
                "mysqldump Ver 8.0.44 for Linux",
                "9.7.4",
                false,
            ),
            (
                Tool::Mysqldump,
                "mysqldump Ver 8.0.44 for Linux",
                "8.4.0",
                false,
            ),
        ] {
            let ours = [installed(tool, version)];
            let chosen = choose(&ours, Some(tool.method()), Flavour::Mysql, server);
            match chosen {
                Ok(_) => assert!(fits, "{version} with {server}"),
                Err(error) => assert!(!fits && error.contains("release series"), "{error}"),
            }
        }
    }

    #[test]
    fn what_the_project_tests() {
        for (tool, version, server, tested) in [
            (
                Tool::MariadbDump,
                "mariadb-dump Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)",
                "10.11.19-MariaDB",
                true,
            ),
            (
                Tool::MariadbDump,
                "mariadb-dump from 11.4.2-MariaDB, client 10.19 for debian-linux-gnu (x86_64)",
                "11.4.2-MariaDB",
                false,
            ),
            (
                Tool::Mysqldump,
                "mysqldump Ver 9.7.4-2 for Linux",
                "9.7.4",
                true,
            ),
            (
                Tool::Mysqldump,
                "mysqldump Ver 9.7.4-2 for Linux",
                "8.4.0",
                false,
            ),
            (
                Tool::Mysqldump,
                "mysqldump Ver 8.4.0 for Linux",
                "8.4.0",
                false,
            ),
            (Tool::Xtrabackup, XTRABACKUP_8, "8.0.35", false),
        ] {
            let tool = installed(tool, version);
            assert_eq!(tool.tested_on(server), tested, "{version} with {server}");
            assert!(tested || !tool.info().tested || !tool.tool.tested_with(server));
        }
    }
}

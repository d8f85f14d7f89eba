//! The tool table: which programs make which backups, and what they have to say at the end.

use super::request::{Method, ToolInfo};
use crate::database::Flavour;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Longest wait for a tool's `--version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// One kind of tool. What differs between tools is decided by its variant, in `command.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// Physical backups of MariaDB.
    MariadbBackup,
    /// Logical backups of MariaDB.
    MariadbDump,
    /// Logical backups of MySQL.
    Mysqldump,
}

impl Tool {
    const ALL: [Self; 3] = [Self::MariadbBackup, Self::MariadbDump, Self::Mysqldump];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MariadbBackup => "mariadb-backup",
            Self::MariadbDump => "mariadb-dump",
            Self::Mysqldump => "mysqldump",
        }
    }

    pub(super) const fn method(self) -> Method {
        match self {
            Self::MariadbBackup => Method::Physical,
            Self::MariadbDump | Self::Mysqldump => Method::Logical,
        }
    }

    pub(super) const fn flavour(self) -> Flavour {
        match self {
            Self::MariadbBackup | Self::MariadbDump => Flavour::Mariadb,
            Self::Mysqldump => Flavour::Mysql,
        }
    }

    /// The Debian packages that bring it.
    const fn package(self) -> &'static str {
        match self {
            Self::MariadbBackup => "mariadb-backup",
            Self::MariadbDump => "mariadb-client",
            Self::Mysqldump => "mysql-client",
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
    pub(super) fn info(&self) -> ToolInfo {
        ToolInfo {
            name: self.tool.name().to_owned(),
            version: self.version.clone(),
            methods: vec![self.tool.method()],
        }
    }
}

/// Looks for every tool on `PATH`. MariaDB's client packages bring a `mysqldump` of their own,
/// which is no tool for MySQL.
pub(super) async fn find_installed() -> Vec<Installed> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = Vec::new();
    for tool in Tool::ALL {
        let mut candidates = std::env::split_paths(&path).map(|dir| dir.join(tool.name()));
        let Some(path) = candidates.find(|path| path.is_file()) else {
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

async fn version(path: &Path) -> std::io::Result<String> {
    let mut command = Command::new(path);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await??;
    // mariadb-backup prints it on stderr.
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    // "/usr/bin/mysqldump  Ver 9.7.4": the path is of no interest.
    let words: Vec<&str> = line.split_whitespace().collect();
    Ok(words.join(" ").replace(&path.display().to_string(), ""))
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
        return Err(if names.is_empty() {
            format!("there is no {method} backup of {flavour}: use method=logical")
        } else {
            format!(
                "no tool for a backup of {flavour}, method {method}, is installed beside this agent: use an agent image with {}",
                names.join(" or ")
            )
        });
    };
    if chosen.tool == Tool::MariadbBackup {
        let (ours, theirs) = (series(&chosen.version), series(server_version));
        if ours.is_some() && theirs.is_some() && ours != theirs {
            return Err(format!(
                "the installed tool is `{}`, the server is {server_version}: mariadb-backup must be of the server's release series",
                chosen.version
            ));
        }
    }
    Ok(chosen.clone())
}

/// `10.11` of the first version number in a text.
fn series(text: &str) -> Option<(u32, u32)> {
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
        assert!(error.contains("method=logical"), "{error}");
    }
}

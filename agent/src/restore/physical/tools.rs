//! Which programs restore a backup, and whether those that are installed may.

use crate::archive::Metadata;
use crate::backup::tool::{self, Tool};
use crate::restore::RestoreError;
use std::path::PathBuf;

/// A program that is installed.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
}

/// The programs that restore a backup.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    /// Takes the stream apart.
    pub(super) stream: Program,
    /// Makes the files consistent.
    pub(super) backup: Program,
}

/// The tools for a backup.
///
/// # Errors
/// [`RestoreError::Incompatible`] for a backup that is not physical, or of a server that we do not know,
/// and where the tools of its release series are not installed.
pub(super) async fn choose(metadata: &Metadata) -> Result<Tools, RestoreError> {
    let (tool, stream) = wanted(metadata)?;
    let mut found = tool::find(tool.name());
    let installed = match &found {
        Some(path) => tool::version(path)
            .await
            .map_err(|source| RestoreError::Io {
                doing: format!("asking {} for its version", path.display()),
                source,
            })?,
        None => String::new(),
    };
    let (Some(backup), Some(stream_path)) = (found.take(), tool::find(stream)) else {
        return Err(RestoreError::Incompatible(format!(
            "{} and {stream} are not installed here: {}",
            tool.name(),
            remedy(tool, metadata)
        )));
    };
    fits(tool, &installed, metadata)?;
    Ok(Tools {
        stream: Program {
            name: stream,
            path: stream_path,
        },
        backup: Program {
            name: tool.name(),
            path: backup,
        },
    })
}

/// The backup tool and the one for its stream.
fn wanted(metadata: &Metadata) -> Result<(Tool, &'static str), RestoreError> {
    if metadata.method != "physical" {
        return Err(RestoreError::Incompatible(format!(
            "the backup is {}: it goes into a running server, not into a data directory",
            metadata.method
        )));
    }
    match metadata.server_flavour.as_str() {
        "mariadb" => Ok((Tool::MariadbBackup, "mbstream")),
        "mysql" => Ok((Tool::Xtrabackup, "xbstream")),
        other => Err(RestoreError::Incompatible(format!(
            "the backup is of a {other:?} server, which this program does not know: use a newer towline"
        ))),
    }
}

/// What copies files writes them as servers of its own series read them; those of another may refuse or
/// destroy them.
fn fits(tool: Tool, installed: &str, metadata: &Metadata) -> Result<(), RestoreError> {
    let (ours, theirs) = (
        tool::series(installed),
        tool::series(&metadata.server_version),
    );
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours == theirs => Ok(()),
        _ => Err(RestoreError::Incompatible(format!(
            "the backup is of {} {}, the installed tool is `{installed}`: a backup is prepared by the tool of its server's release series; {}",
            metadata.server_flavour,
            metadata.server_version,
            remedy(tool, metadata)
        ))),
    }
}

fn remedy(tool: Tool, metadata: &Metadata) -> String {
    let series = tool::series(&metadata.server_version);
    let series = series.map_or(metadata.server_version.clone(), |(major, minor)| {
        format!("{major}.{minor}")
    });
    format!(
        "use an agent image (toolImage) or a machine with {} {series}",
        tool.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(flavour: &str, version: &str, method: &str) -> Metadata {
        Metadata {
            format_version: 1,
            backup_id: "b-1".to_owned(),
            server_flavour: flavour.to_owned(),
            server_version: version.to_owned(),
            server_uuid: None,
            method: method.to_owned(),
            tool: String::new(),
            tool_version: String::new(),
            start_time: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_physical_backups_of_known_servers() {
        let tool = |flavour, method| wanted(&metadata(flavour, "1.2.3", method));
        assert_eq!(
            tool("mariadb", "physical").unwrap(),
            (Tool::MariadbBackup, "mbstream")
        );
        assert_eq!(
            tool("mysql", "physical").unwrap(),
            (Tool::Xtrabackup, "xbstream")
        );
        for (flavour, method, part) in [
            ("mariadb", "logical", "running server"),
            ("drizzle", "physical", "newer towline"),
        ] {
            let refused = tool(flavour, method).unwrap_err();
            assert!(
                matches!(&refused, RestoreError::Incompatible(m) if m.contains(part)),
                "{refused}"
            );
        }
    }

    #[test]
    fn the_tool_is_of_the_servers_series() {
        let mariadb =
            "mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)";
        let xtrabackup = "xtrabackup version 8.0.35-34 based on MySQL server 8.0.35 Linux (x86_64)";
        for (tool, installed, server, good) in [
            (Tool::MariadbBackup, mariadb, "10.11.4-MariaDB-log", true),
            (Tool::MariadbBackup, mariadb, "10.6.20-MariaDB", false),
            (Tool::MariadbBackup, mariadb, "11.4.2-MariaDB", false),
            (Tool::MariadbBackup, "no version", "10.11.4-MariaDB", false),
            (Tool::Xtrabackup, xtrabackup, "8.0.44", true),
            (Tool::Xtrabackup, xtrabackup, "8.4.3", false),
            (Tool::Xtrabackup, xtrabackup, "9.1.0", false),
        ] {
            let flavour = tool.flavour().as_str();
            let result = fits(tool, installed, &metadata(flavour, server, "physical"));
            assert_eq!(result.is_ok(), good, "{installed} with {server}");
            if let Err(error) = result {
                let text = error.to_string();
                let series = tool::series(server).unwrap();
                let part = format!("{} {}.{}", tool.name(), series.0, series.1);
                assert!(text.contains(&part) && text.contains("toolImage"), "{text}");
            }
        }
    }
}

//! Everything that is asked before the 200: server, tool, privileges, names.

use super::EngineConfig;
use super::request::{BackupRequest, Compression, Method, StartError};
use super::tool::{self, Installed, Tool};
use crate::archive::Recipient;
use crate::database::{Flavour, Grants, Role, ServerInfo, Session, TableNumbers, Tables};
use crate::protocol::info::Replication;

/// What a backup needs to know before its tool runs.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) method: Method,
    pub(super) installed: Installed,
    pub(super) server: ServerInfo,
    pub(super) grants: Grants,
    pub(super) password: Option<String>,
    /// Schemas of a logical backup.
    pub(super) databases: Vec<String>,
    /// Whether accounts are in it: in a dump of everything. In a copy of the files they are anyway.
    pub(super) users: bool,
    /// Tables of the schemas that are backed up, now.
    pub(super) tables: Tables,
    /// InnoDB's tables of the whole server, now; of a logical backup.
    pub(super) table_numbers: TableNumbers,
    pub(super) compression: Compression,
    pub(super) parallel: u16,
    /// Everybody that the archive is encrypted to.
    pub(super) recipients: Vec<Recipient>,
    /// Most bytes of body a second.
    pub(super) max_rate: Option<u64>,
    pub(super) estimated_bytes: Option<u64>,
}

/// Asks the server, and refuses what cannot work.
///
/// # Errors
/// [`StartError`], each with what to do.
pub(super) async fn prepare(
    config: &EngineConfig,
    installed: &[Installed],
    request: BackupRequest,
) -> Result<Plan, StartError> {
    let password = config.database.password().await?;
    let mut session = config.database.connect().await?;
    let plan = ask(config, installed, request, password, &mut session).await;
    session.close().await;
    plan
}

async fn ask(
    config: &EngineConfig,
    installed: &[Installed],
    request: BackupRequest,
    password: Option<String>,
    session: &mut Session,
) -> Result<Plan, StartError> {
    let server = session.info().await?;
    if server.galera.is_some() && !config.allow_galera {
        return Err(StartError::MethodNotAvailable {
            message: "the server is a Galera node, where a lock can hold up the whole cluster: back up an asynchronous replica, or start the agent with --allow-galera".to_owned(),
        });
    }
    replicates(&server, &config.database.user)?;
    let method = request.method.or(config.method);
    let installed = tool::choose(installed, method, server.flavour, &server.version)
        .map_err(|message| StartError::MethodNotAvailable { message })?;
    let method = installed.tool.method();
    fits(method, &request)?;
    let all = request.databases.is_empty();
    let databases = match method {
        Method::Physical => Vec::new(),
        Method::Logical => schemas(session, request.databases).await?,
    };
    let grants = session.grants().await?;
    let users = method == Method::Logical && all;
    privileges(
        installed.tool,
        &grants,
        &databases,
        users,
        &config.database.user,
    )?;
    let tables = of_backup(session.tables().await?, &databases);
    let table_numbers = match method {
        Method::Physical => TableNumbers::new(),
        Method::Logical => session.table_numbers(server.flavour).await?,
    };
    Ok(Plan {
        method,
        installed,
        estimated_bytes: Some(server.data_bytes).filter(|bytes| all && *bytes > 0),
        server,
        grants,
        password,
        databases,
        users,
        tables,
        table_numbers,
        compression: request.compression,
        parallel: request.parallel,
        recipients: request.recipients,
        max_rate: [config.max_rate, request.max_rate]
            .into_iter()
            .flatten()
            .min(),
    })
}

/// A replica that an error has stopped lacks what its source wrote since, and may differ from it
/// already. One that a person stopped, or that does not reach its source, is merely behind.
fn replicates(server: &ServerInfo, user: &str) -> Result<(), StartError> {
    if server.role == Role::Unknown {
        let privilege = match server.flavour {
            Flavour::Mariadb => "REPLICA MONITOR",
            Flavour::Mysql => "REPLICATION CLIENT",
        };
        return Err(StartError::Database {
            message: format!(
                "user '{user}' may not see whether this is a replica that an error has stopped: GRANT {privilege} ON *.* (see deploy/grants)"
            ),
        });
    }
    let broken = |r: &&Replication| r.applying.eq_ignore_ascii_case("no") && r.error.is_some();
    let Some(connection) = server.replication.iter().find(broken) else {
        return Ok(());
    };
    let name = match connection.name.as_str() {
        "" => String::new(),
        name => format!(" on connection {name:?}"),
    };
    let (show, start) = match server.flavour {
        Flavour::Mariadb => ("SHOW ALL SLAVES STATUS", "START ALL SLAVES"),
        Flavour::Mysql => ("SHOW REPLICA STATUS", "START REPLICA"),
    };
    Err(StartError::Unfit {
        message: format!(
            "replication was stopped by error {}{name}, so this replica is not a copy of its source: \
             {show} tells what happened; repair it and run {start}, or back up another server",
            connection.error.unwrap_or_default()
        ),
    })
}

/// The tables of the schemas that are backed up; all, where none are named.
pub(super) fn of_backup(mut tables: Tables, databases: &[String]) -> Tables {
    if !databases.is_empty() {
        tables.retain(|schema, _| databases.contains(schema));
    }
    tables
}

fn fits(method: Method, request: &BackupRequest) -> Result<(), StartError> {
    let bad = |parameter: &str, message: &str| {
        Err(StartError::BadParameter {
            parameter: parameter.to_owned(),
            message: message.to_owned(),
        })
    };
    if method == Method::Physical && !request.databases.is_empty() {
        return bad(
            "database",
            "a physical backup is of the whole server: leave `database` out, or use method=logical",
        );
    }
    if method == Method::Logical && request.parallel > 1 {
        return bad(
            "parallel",
            "a logical backup has one thread: leave `parallel` out, or use method=physical",
        );
    }
    Ok(())
}

async fn schemas(session: &mut Session, wanted: Vec<String>) -> Result<Vec<String>, StartError> {
    let known = session.schemas().await?;
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(*name)) {
        return Err(StartError::BadParameter {
            parameter: "database".to_owned(),
            message: format!(
                "there is no schema {unknown:?} on this server, or the agent's user may not see it; system schemas are never dumped"
            ),
        });
    }
    let chosen: Vec<String> = if wanted.is_empty() {
        known.into_iter().collect()
    } else {
        wanted
    };
    if chosen.is_empty() {
        return Err(StartError::MethodNotAvailable {
            message: "the server has no schema of a user that the agent may see, so there is nothing to dump: create one, grant SELECT, or use method=physical".to_owned(),
        });
    }
    Ok(chosen)
}

/// A dump leaves out what its user may not see, and says nothing; mariadb-backup fails late.
fn privileges(
    tool: Tool,
    grants: &Grants,
    databases: &[String],
    users: bool,
    user: &str,
) -> Result<(), StartError> {
    let mut lacking: Vec<String> = Vec::new();
    let global: &[&[&str]] = match tool {
        Tool::MariadbBackup => &[
            &["RELOAD"],
            &["PROCESS"],
            // It asks for the position at its end, and fails then.
            &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"],
        ],
        Tool::Xtrabackup => &[
            &["BACKUP_ADMIN"],
            &["PROCESS"],
            &["RELOAD"],
            &["LOCK TABLES"],
            &["REPLICATION CLIENT"],
        ],
        // Whether anybody waits for a table of the dump. Without it mysqldump prints an error about
        // tablespaces, too, and goes on.
        Tool::MariadbDump | Tool::Mysqldump => &[&["PROCESS"]],
    };
    for any in global {
        if !grants.global(any) {
            lacking.push(format!("{} ON *.*", any[0]));
        }
    }
    // It reads its position there, and fails late without.
    if tool == Tool::Xtrabackup && !grants.table("performance_schema", "log_status", &["SELECT"]) {
        lacking.push("SELECT ON performance_schema.log_status".to_owned());
    }
    if users && !grants.schema("mysql", &["SELECT"]) {
        lacking.push("SELECT ON mysql.* (for accounts and grants)".to_owned());
    }
    for schema in databases {
        for privilege in ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"] {
            if !grants.schema(schema, &[privilege]) {
                lacking.push(format!("{privilege} ON `{schema}`.*"));
            }
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let more = if lacking.len() > 5 { ", ..." } else { "" };
    lacking.truncate(5);
    Err(StartError::Database {
        message: format!(
            "user '{user}' lacks privileges for {}: GRANT {}{more} (see deploy/grants)",
            tool.name(),
            lacking.join(", GRANT ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tool: Tool, grant: &str) -> Result<(), String> {
        let grants = [grant.to_owned()].into_iter().collect();
        let databases = match tool.method() {
            Method::Physical => Vec::new(),
            Method::Logical => vec!["shop".to_owned()],
        };
        let users = tool.method() == Method::Logical;
        privileges(tool, &grants, &databases, users, "towline").map_err(|error| error.to_string())
    }

    #[test]
    fn every_missing_privilege_is_named() {
        let physical = "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO `towline`@`localhost`";
        assert_eq!(check(Tool::MariadbBackup, physical), Ok(()));
        let error = check(Tool::MariadbBackup, "GRANT RELOAD ON *.* TO `t`@`l`").unwrap_err();
        assert!(error.contains("GRANT PROCESS ON *.*"), "{error}");
        assert!(error.contains("GRANT BINLOG MONITOR ON *.*"), "{error}");
        let logical = "GRANT PROCESS, SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO `t`@`l`";
        assert_eq!(check(Tool::MariadbDump, logical), Ok(()));
        for privilege in ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"] {
            let less = logical.replacen(privilege, "INSERT", 1);
            let error = check(Tool::MariadbDump, &less).unwrap_err();
            assert!(
                error.contains(&format!("GRANT {privilege} ON `shop`.*")),
                "{error}"
            );
        }
        for tool in [Tool::MariadbDump, Tool::Mysqldump] {
            let error = check(tool, &logical.replacen("PROCESS, ", "", 1)).unwrap_err();
            assert!(error.contains("GRANT PROCESS ON *.*"), "{error}");
        }
        let schema = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `shop`.* TO `t`@`l`";
        let error = check(Tool::MariadbDump, schema).unwrap_err();
        assert!(error.contains("GRANT SELECT ON mysql.*"), "{error}");
        assert!(!error.contains("`shop`"), "{error}");
        let copy = "GRANT BACKUP_ADMIN, PROCESS, RELOAD, LOCK TABLES, REPLICATION CLIENT ON *.* TO `t`@`l`";
        let error = check(Tool::Xtrabackup, copy).unwrap_err();
        assert!(error.contains("performance_schema.log_status"), "{error}");
    }

    #[test]
    fn only_an_error_makes_a_replica_unfit() {
        let replica = |applying: &str, error| {
            let mut server = crate::database::tests::server(Flavour::Mariadb);
            server.replication = vec![Replication {
                name: "dc2".into(),
                receiving: "Connecting".into(),
                applying: applying.into(),
                error,
            }];
            replicates(&server, "towline")
        };
        let mut blind = crate::database::tests::server(Flavour::Mysql);
        blind.role = Role::Unknown;
        let error = replicates(&blind, "towline").unwrap_err().to_string();
        assert!(error.contains("GRANT REPLICATION CLIENT"), "{error}");
        assert!(replica("Yes", None).is_ok());
        assert!(replica("No", None).is_ok(), "a person stopped it");
        // It is trying again.
        assert!(replica("Yes", Some(1205)).is_ok());
        let error = replica("No", Some(1062)).unwrap_err();
        assert!(matches!(error, StartError::Unfit { .. }));
        for part in ["error 1062", "\"dc2\"", "START ALL SLAVES"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

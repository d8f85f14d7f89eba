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
    let grants = session.grants().await?;
    replicates(&server, &grants, &config.database.user)?;
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
    let users = method == Method::Logical && all;
    privileges(
        installed.tool,
        &grants,
        &databases,
        users,
        server.binary_log,
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
fn replicates(server: &ServerInfo, grants: &Grants, user: &str) -> Result<(), StartError> {
    if server.role == Role::Unknown {
        let privilege = match server.flavour {
            Flavour::Mariadb => "REPLICA MONITOR",
            Flavour::Mysql => "REPLICATION CLIENT",
        };
        return Err(StartError::Database {
            message: format!(
                "user '{user}' may not see whether this is a replica that an error has stopped: {} (see deploy/grants)",
                grants.statement(privilege, "*.*")
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

/// Whoever has one of these on everything sees every table's name:
/// <https://dev.mysql.com/doc/refman/9.0/en/information-schema-introduction.html>.
const SEES_TABLES: [&str; 13] = [
    "REFERENCES",
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "TRIGGER",
    "CREATE VIEW",
    "SHOW VIEW",
    "DELETE HISTORY",
];

/// A dump leaves out what its user may not see, and says nothing; mariadb-backup fails late.
fn privileges(
    tool: Tool,
    grants: &Grants,
    databases: &[String],
    users: bool,
    binary_log: bool,
    user: &str,
) -> Result<(), StartError> {
    const POSITION: &[&str] = &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"];
    let mut global: Vec<&[&str]> = match tool {
        // The names of tables are in metadata.json.
        Tool::MariadbBackup => vec![&["RELOAD"], &["PROCESS"], &SEES_TABLES],
        Tool::Xtrabackup => vec![
            &["BACKUP_ADMIN"],
            &["PROCESS"],
            &["RELOAD"],
            &["LOCK TABLES"],
            &["REPLICATION CLIENT"],
            &SEES_TABLES,
        ],
        // Whether anybody waits for a table of the dump. Without it mysqldump prints an error about
        // tablespaces, too, and goes on.
        Tool::MariadbDump | Tool::Mysqldump => vec![&["PROCESS"]],
    };
    // Where there is a position, a backup that does not know its own leads to no replica, and to no
    // point in time. mariadb-backup asks at its end, and fails then.
    match tool {
        Tool::MariadbBackup | Tool::MariadbDump if binary_log => global.push(POSITION),
        Tool::Mysqldump if binary_log => {
            global.extend([
                &["FLUSH_TABLES", "RELOAD"] as &[&str],
                &["REPLICATION CLIENT"],
            ]);
        }
        _ => {}
    }
    let mut lacking: Vec<String> = Vec::new();
    let missing: Vec<&str> = global
        .iter()
        .filter(|any| !grants.global(any))
        .map(|any| any[0])
        .collect();
    if !missing.is_empty() {
        lacking.push(grants.statement(&missing.join(", "), "*.*"));
    }
    // It reads its position and the state of the server there, and fails late without.
    if tool == Tool::Xtrabackup {
        for table in [
            "log_status",
            "keyring_component_status",
            "replication_group_members",
        ] {
            if !grants.table("performance_schema", table, &["SELECT"]) {
                let on = format!("performance_schema.{table}");
                lacking.push(grants.statement("SELECT", &on));
            }
        }
    }
    if users && !grants.schema("mysql", &["SELECT"]) {
        let grant = grants.statement("SELECT", "mysql.*");
        lacking.push(format!("{grant} (for accounts and grants)"));
    }
    for schema in databases {
        let missing: Vec<&str> = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"]
            .into_iter()
            .filter(|privilege| !grants.schema(schema, &[privilege]))
            .collect();
        if !missing.is_empty() {
            lacking.push(grants.statement(&missing.join(", "), &format!("`{schema}`.*")));
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let more = if lacking.len() > 5 { "; ..." } else { "" };
    lacking.truncate(5);
    Err(StartError::Database {
        message: format!(
            "user '{user}' lacks privileges for {}: {}{more} (see deploy/grants)",
            tool.name(),
            lacking.join("; ")
        ),
    })
}

#[cfg(test)]
#[path = "../../tests/engine/grants_file.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the tests with a server use more of it"
)]
mod grants_file;

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
        privileges(tool, &grants, &databases, users, true, "towline")
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_missing_privilege_is_named() {
        let physical =
            "GRANT RELOAD, PROCESS, BINLOG MONITOR, REFERENCES ON *.* TO `towline`@`localhost`";
        assert_eq!(check(Tool::MariadbBackup, physical), Ok(()));
        let error = check(Tool::MariadbBackup, "GRANT RELOAD ON *.* TO `t`@`l`").unwrap_err();
        let grant = "GRANT PROCESS, REFERENCES, BINLOG MONITOR ON *.* TO `t`@`l`";
        assert!(error.contains(grant), "{error}");
        for (tool, position) in [
            (Tool::MariadbDump, "BINLOG MONITOR"),
            (Tool::Mysqldump, "FLUSH_TABLES, REPLICATION CLIENT"),
        ] {
            let logical = format!(
                "GRANT PROCESS, {position}, SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO `t`@`l`"
            );
            assert_eq!(check(tool, &logical), Ok(()));
            for privilege in ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"] {
                let less = logical.replacen(privilege, "INSERT", 1);
                let error = check(tool, &less).unwrap_err();
                let grant = format!("GRANT {privilege} ON `shop`.* TO `t`@`l`");
                assert!(error.contains(&grant), "{error}");
            }
            for privilege in position.split(", ").chain(["PROCESS"]) {
                let less = logical.replacen(privilege, "INSERT", 1);
                let error = check(tool, &less).unwrap_err();
                assert!(
                    error.contains(&format!("GRANT {privilege} ON *.*")),
                    "{error}"
                );
            }
        }
        let schema = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `shop`.* TO `t`@`l`";
        let error = check(Tool::MariadbDump, schema).unwrap_err();
        assert!(error.contains("GRANT SELECT ON mysql.*"), "{error}");
        assert!(!error.contains("`shop`"), "{error}");
    }

    /// There is no xtrabackup to test with; what its manual asks for is asked for.
    #[test]
    fn xtrabackup_needs_each_privilege_of_its_file() {
        let sql = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../deploy/grants/mysql-physical.sql"
        );
        let all = grants_file::privileges(&std::fs::read_to_string(sql).unwrap());
        assert_eq!(all.len(), 9, "{all:?}");
        let ask = |without: Option<usize>| {
            let granted = all.iter().enumerate();
            let granted = granted.filter(|(index, _)| Some(*index) != without);
            // As the server prints tables.
            let line = |one: &grants_file::Privilege| {
                let on = one.on.split('.').map(|name| match name {
                    "*" => name.to_owned(),
                    name => format!("`{name}`"),
                });
                one.grant()
                    .replace(&one.on, &on.collect::<Vec<_>>().join("."))
            };
            let grants = granted.map(|(_, one)| line(one)).collect();
            privileges(Tool::Xtrabackup, &grants, &[], false, true, "towline")
        };
        assert_eq!(ask(None).map_err(|error| error.to_string()), Ok(()));
        for (index, privilege) in all.iter().enumerate() {
            let error = ask(Some(index)).unwrap_err().to_string();
            let grant = format!("GRANT {} ON {}", privilege.name, privilege.on);
            assert!(error.contains(&grant), "{grant}: {error}");
        }
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
            replicates(&server, &Grants::default(), "towline")
        };
        let mut blind = crate::database::tests::server(Flavour::Mysql);
        blind.role = Role::Unknown;
        let error = replicates(&blind, &Grants::default(), "towline")
            .unwrap_err()
            .to_string();
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

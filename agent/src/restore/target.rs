//! What is asked of a server before the first write: whether it can take the backup, and may.

use super::filter::UNFINISHED;
use super::{Definers, Events, LogicalOptions, RestoreError, compat};
use crate::backup::tool::version;
use crate::database::{
    Connection, DatabaseError, Flavour, Grants, Role, ServerInfo, Session, is_system_schema,
};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What is to be loaded.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of the backup's server.
    pub flavour: String,
    /// Of the backup's server.
    pub version: String,
    /// Where in its source's history the backup stands; needed with [`LogicalOptions::gtid_purged`].
    pub gtid: Option<String>,
    /// What of the backup, and how. The databases are named, for all of them have to be empty.
    pub options: LogicalOptions,
}

/// A server that can take what is wanted.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) connection: Connection,
    pub(super) password: Option<String>,
    pub(super) wanted: Wanted,
    pub(super) server: ServerInfo,
    /// The program that loads the dump.
    pub(super) client: PathBuf,
    /// Databases that are there already, all empty as far as they are wanted.
    pub(super) existing: BTreeSet<String>,
}

impl Target {
    /// The databases that are restored.
    #[must_use]
    pub fn databases(&self) -> &[String] {
        &self.wanted.options.databases
    }
}

fn unreachable(error: DatabaseError) -> RestoreError {
    RestoreError::Database(error.to_string())
}

/// Asks the server whether it can take a backup. Nothing is written.
///
/// # Errors
/// [`RestoreError`], each with what to do.
pub async fn check(connection: &Connection, wanted: Wanted) -> Result<Target, RestoreError> {
    names(&wanted.options)?;
    let password = connection.password().await.map_err(unreachable)?;
    let mut session = connection.connect().await.map_err(unreachable)?;
    let asked = ask(&mut session, connection, &wanted).await;
    session.close().await;
    let (server, existing) = asked?;
    let client = client(server.flavour).await?;
    Ok(Target {
        connection: connection.clone(),
        password,
        wanted,
        server,
        client,
        existing,
    })
}

fn names(options: &LogicalOptions) -> Result<(), RestoreError> {
    if options.databases.is_empty() {
        return Err(RestoreError::Invalid(
            "no database is named, so there is nothing to restore".to_owned(),
        ));
    }
    match options.databases.iter().find(|name| is_system_schema(name)) {
        Some(name) => Err(RestoreError::Invalid(format!(
            "{name} belongs to the server, and is never restored: accounts and grants are restored when they are asked for"
        ))),
        None => Ok(()),
    }
}

async fn ask(
    session: &mut Session,
    connection: &Connection,
    wanted: &Wanted,
) -> Result<(ServerInfo, BTreeSet<String>), RestoreError> {
    let server = session.info().await.map_err(unreachable)?;
    let options = &wanted.options;
    let flavour = server.flavour.as_str();
    compat::logical(&wanted.flavour, &wanted.version, flavour, &server.version)?;
    takes_writes(&server)?;
    let grants = match session.grants().await {
        // Everybody may do everything, and nobody can be asked.
        Err(DatabaseError::Query { message, .. }) if message.contains("--skip-grant-tables") => {
            let all = ["ALL PRIVILEGES ON *.*", "PROXY ON ``@``"];
            all.map(|all| format!("GRANT {all} TO ``@`` WITH GRANT OPTION"))
                .into_iter()
                .collect()
        }
        grants => grants.map_err(unreachable)?,
    };
    let trusts = trusts_creators(session, &server).await?;
    privileges(&server, &grants, trusts, options, &connection.user)?;
    if options.gtid_purged {
        let gtid = wanted.gtid.as_deref().unwrap_or_default();
        history(session, server.flavour, gtid).await?;
    }
    let contents = session.contents().await.map_err(unreachable)?;
    for name in &options.databases {
        let Some(inside) = contents.get(name).filter(|inside| !inside.is_empty()) else {
            continue;
        };
        return Err(RestoreError::TargetNotEmpty(
            if inside.tables.contains(UNFINISHED) {
                format!(
                    "database {name:?} holds a restore that did not come to its end (table {UNFINISHED}), and is not to be used: \
                     drop the database, and restore again"
                )
            } else {
                format!(
                    "database {name:?} is not empty, it has {:?} for one: a restore never writes over anything, \
                     so rename or drop the database, restore another one, or restore into another server",
                    inside.example().unwrap_or_default()
                )
            },
        ));
    }
    Ok((server, contents.into_keys().collect()))
}

/// A replica would no longer be a copy of its source, and a server that is set to be read-only was set
/// so by somebody.
fn takes_writes(server: &ServerInfo) -> Result<(), RestoreError> {
    if server.role == Role::Replica {
        return Err(RestoreError::Refused(
            "the server replicates from another one: restore into the source, or end the replication first (RESET REPLICA ALL, in MariaDB STOP ALL SLAVES and RESET SLAVE ALL)"
                .to_owned(),
        ));
    }
    if server.read_only {
        return Err(RestoreError::Refused(
            "the server is set to read_only: restore into the primary, or SET GLOBAL read_only = 0 when this is a server of its own"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Whether whoever may create a trigger or a function may do so here: not on a server with a binary log,
/// where that would be a way to get any right on its replicas.
async fn trusts_creators(session: &mut Session, server: &ServerInfo) -> Result<bool, RestoreError> {
    if !server.binary_log {
        return Ok(true);
    }
    let query = "SELECT @@GLOBAL.log_bin_trust_function_creators";
    let value = session
        .value("variables", query)
        .await
        .map_err(unreachable)?;
    Ok(value.as_deref() == Some("1"))
}

fn privileges(
    server: &ServerInfo,
    grants: &Grants,
    trusts_creators: bool,
    options: &LogicalOptions,
    user: &str,
) -> Result<(), RestoreError> {
    let mariadb = server.flavour == Flavour::Mariadb;
    let mut lacking: Vec<String> = Vec::new();
    if server.role == Role::Unknown {
        let privilege = if mariadb {
            "REPLICA MONITOR"
        } else {
            "REPLICATION CLIENT"
        };
        let why = "to see whether the server is a replica, which must not be restored into";
        lacking.push(format!("{} ({why})", grants.statement(privilege, "*.*")));
    }
    // One privilege of each list is wanted.
    let mut all_of = |lists: &[&[&str]], why: &str| {
        let missing = lists.iter().filter(|any| !grants.global(any));
        let missing: Vec<&str> = missing.map(|any| any[0]).collect();
        if !missing.is_empty() {
            let grant = grants.statement(&missing.join(", "), "*.*");
            lacking.push(format!("{grant} ({why})"));
        }
    };
    // Up to 10.11 it holds those that were split from it.
    let super_holds = mariadb && server.version.starts_with("10.");
    let split_from_super = |privilege: &'static str| -> Vec<&'static str> {
        let more = super_holds.then_some("SUPER");
        [privilege].into_iter().chain(more).collect()
    };
    let objects = options.routines || options.triggers;
    if objects && !trusts_creators {
        let why = "to create triggers and functions, or SET GLOBAL log_bin_trust_function_creators = 1, or leave routines and triggers out";
        all_of(&[&["SUPER"]], why);
    }
    if options.definers == Definers::Keep {
        let why = "to create views, routines, triggers and events of others, or choose the current user as definer";
        // Whose they are is known too late: it is in the archive.
        let set_user = split_from_super("SET USER");
        let definers: &[&[&str]] = if mariadb {
            &[&set_user]
        } else {
            &[
                &["SET_ANY_DEFINER", "SET_USER_ID", "SUPER"],
                &["ALLOW_NONEXISTENT_DEFINER", "SET_USER_ID", "SUPER"],
                &["SYSTEM_USER"],
            ]
        };
        all_of(definers, why);
    }
    if !options.binary_log {
        let why = "to leave the binary log out";
        if mariadb {
            all_of(&[&split_from_super("BINLOG ADMIN")], why);
        } else {
            let any = ["SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SUPER"];
            all_of(&[&any], why);
        }
    }
    if options.gtid_purged {
        let why = "to set the position";
        if mariadb {
            all_of(&[&split_from_super("REPLICATION SLAVE ADMIN")], why);
        } else {
            all_of(&[&["SYSTEM_VARIABLES_ADMIN", "SUPER"]], why);
        }
    }
    if options.include_users {
        all_of(&[&["CREATE USER"]], "to create accounts");
        if !grants.may_grant() {
            let all = grants.statement("ALL PRIVILEGES", "*.*");
            lacking.push(format!(
                "{all} WITH GRANT OPTION (to grant to the accounts what they had)"
            ));
        }
        if !grants.may_grant_proxy() {
            let anybody = if mariadb { "''@'%'" } else { "''@''" };
            let proxy = grants.statement("PROXY", anybody);
            lacking.push(format!(
                "{proxy} WITH GRANT OPTION (root has that, so it is among what the accounts had)"
            ));
        }
    }
    let mut of_schema = vec![
        "SELECT",
        "INSERT",
        "CREATE",
        "DROP",
        "ALTER",
        "LOCK TABLES",
        "CREATE VIEW",
    ];
    // MariaDB has it, too, and asks nobody for it.
    if !mariadb {
        of_schema.push("REFERENCES");
    }
    if options.triggers {
        of_schema.push("TRIGGER");
    }
    if options.routines {
        of_schema.extend(["CREATE ROUTINE", "ALTER ROUTINE"]);
    }
    if options.events != Events::Skip {
        of_schema.push("EVENT");
    }
    for schema in &options.databases {
        let missing: Vec<&str> = of_schema
            .iter()
            .copied()
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
    Err(RestoreError::Refused(format!(
        "user '{user}' lacks privileges for a restore: {}{more} (see deploy/grants)",
        lacking.join("; ")
    )))
}

/// The backup's transactions can be told to a server only as long as it has none of them.
async fn history(session: &mut Session, flavour: Flavour, gtid: &str) -> Result<(), RestoreError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-:,_ ".contains(c);
    if gtid.is_empty() {
        return Err(RestoreError::Invalid(
            "the backup knows no GTID, so none can be set: leave that out".to_owned(),
        ));
    }
    if !gtid.chars().all(plain) {
        return Err(RestoreError::Invalid(format!(
            "{gtid:?} is no set of GTIDs"
        )));
    }
    let conflict = |ours: String| {
        RestoreError::Refused(format!(
            "the server has a history of its own ({ours}) that the backup's GTIDs ({gtid}) do not fit to: \
             restore into a new server, or do not set the GTIDs"
        ))
    };
    match flavour {
        Flavour::Mysql => {
            let mode = session
                .value("GTID mode", "SELECT @@GLOBAL.gtid_mode")
                .await;
            if mode.map_err(unreachable)?.as_deref() != Some("ON") {
                return Err(RestoreError::Refused(
                    "gtid_mode is not ON at the server, so no GTIDs can be set".to_owned(),
                ));
            }
            let query = format!(
                "SELECT GTID_SUBTRACT('{gtid}', GTID_SUBTRACT('{gtid}', @@GLOBAL.gtid_executed))"
            );
            let both = session.value("GTIDs", &query).await.map_err(unreachable)?;
            match both.filter(|both| !both.is_empty()) {
                Some(both) => Err(conflict(both)),
                None => Ok(()),
            }
        }
        Flavour::Mariadb => {
            let query = "SELECT CONCAT_WS(',', NULLIF(@@GLOBAL.gtid_slave_pos, ''), NULLIF(@@GLOBAL.gtid_binlog_pos, ''))";
            let own = session.value("GTIDs", query).await.map_err(unreachable)?;
            let own = own.unwrap_or_default();
            if mariadb_conflict(gtid, &own) {
                return Err(conflict(own));
            }
            Ok(())
        }
    }
}

/// Whether a server has come as far as the backup in one of its domains: it would not fetch what lies
/// between. A position is a list of domain-server-number.
fn mariadb_conflict(backup: &str, own: &str) -> bool {
    let parse = |text: &str| -> Vec<(u64, u64)> {
        text.split(',')
            .filter_map(|gtid| {
                let mut parts = gtid.trim().split('-');
                let (domain, _, number) = (parts.next()?, parts.next()?, parts.next()?);
                Some((domain.parse().ok()?, number.parse().ok()?))
            })
            .collect()
    };
    let own = parse(own);
    parse(backup)
        .iter()
        .any(|(domain, number)| own.iter().any(|(d, n)| d == domain && n >= number))
}

/// The client of the server's own flavour. MariaDB's packages bring a `mysql`, too, which is none for MySQL.
async fn client(flavour: Flavour) -> Result<PathBuf, RestoreError> {
    let (name, package) = match flavour {
        Flavour::Mariadb => ("mariadb", "mariadb-client"),
        Flavour::Mysql => ("mysql", "mysql-client"),
    };
    let missing = |what: &str| {
        RestoreError::Incompatible(format!(
            "{what}, which loads a dump of {flavour}: use an agent image of {flavour}, or install the package {package}"
        ))
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| missing(&format!("there is no program {name} here")))?;
    let version = version(&found).await.map_err(|source| RestoreError::Io {
        doing: format!("asking {} for its version", found.display()),
        source,
    })?;
    if flavour == Flavour::Mysql && version.contains("MariaDB") {
        return Err(missing(&format!("the program {name} here is MariaDB's")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::tests::server;

    fn lacking(
        flavour: Flavour,
        grant: &[&str],
        change: impl FnOnce(&mut LogicalOptions),
    ) -> String {
        let mut options = LogicalOptions {
            databases: vec!["shop".to_owned()],
            ..LogicalOptions::default()
        };
        change(&mut options);
        let grants = grant.iter().map(|line| (*line).to_owned()).collect();
        match privileges(&server(flavour), &grants, false, &options, "towline") {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_missing_privilege_is_named() {
        let all = "GRANT ALL PRIVILEGES ON *.* TO `t`@`%` WITH GRANT OPTION";
        for flavour in [Flavour::Mariadb, Flavour::Mysql] {
            let everything = |options: &mut LogicalOptions| {
                options.include_users = true;
                options.gtid_purged = true;
                options.binary_log = false;
            };
            let error = lacking(flavour, &[all], everything);
            assert!(error.contains("GRANT PROXY ON ''@'"), "{error}");
            let proxy = "GRANT PROXY ON ''@'%' TO `t`@`%` WITH GRANT OPTION";
            assert_eq!(lacking(flavour, &[all, proxy], everything), "");
        }
        let some = "GRANT SELECT, INSERT ON *.* TO `t`@`%`";
        let error = lacking(Flavour::Mariadb, &[some], |_| {});
        for part in [
            "GRANT SUPER",
            "SET USER",
            "CREATE, DROP",
            "EVENT ON `shop`.*",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let error = lacking(Flavour::Mysql, &[some], |options| {
            options.include_users = true
        });
        for part in [
            "SUPER",
            "SET_ANY_DEFINER",
            "CREATE USER",
            "WITH GRANT OPTION",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let schema = "GRANT SELECT, INSERT, CREATE, DROP, ALTER, REFERENCES, LOCK TABLES, CREATE VIEW ON `shop`.* TO `t`@`%`";
        let little = |options: &mut LogicalOptions| {
            options.routines = false;
            options.triggers = false;
            options.events = Events::Skip;
            options.definers = Definers::CurrentUser;
        };
        assert_eq!(lacking(Flavour::Mysql, &[schema], little), "");
    }

    #[test]
    fn system_schemas_are_refused() {
        for name in ["mysql", "SYS", "information_schema"] {
            let options = LogicalOptions {
                databases: vec![name.to_owned()],
                ..LogicalOptions::default()
            };
            assert!(matches!(names(&options), Err(RestoreError::Invalid(_))));
        }
    }

    #[test]
    fn a_history_that_does_not_fit() {
        for (backup, own, conflict) in [
            ("0-1-17", "", false),
            ("0-1-17", "0-2-16", false),
            ("0-1-17", "0-2-17", true),
            ("0-1-17,1-1-5", "1-9-9", true),
            ("0-1-17", "7-1-99", false),
        ] {
            assert_eq!(mariadb_conflict(backup, own), conflict, "{backup} {own}");
        }
    }
}

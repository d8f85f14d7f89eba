//! What a server says of itself.

use super::{DatabaseError, Session, text, text_at};
use crate::protocol::info::{Galera, Replication, Server};
use mysql_async::Row;
use std::collections::HashMap;
use std::fmt;

/// Which server this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// MariaDB.
    Mariadb,
    /// MySQL, or a descendant that calls itself so.
    Mysql,
}

impl Flavour {
    /// As metadata and `/v1/info` spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mariadb => "mariadb",
            Self::Mysql => "mysql",
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A server's place in replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It replicates from nobody.
    Primary,
    /// It replicates from another server.
    Replica,
    /// Our user may not see which (`REPLICA MONITOR` or `REPLICATION CLIENT` is not granted).
    Unknown,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        }
    }
}

/// What the server is; each member's meaning is that of [`Server`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Which server this is.
    pub flavour: Flavour,
    /// As `SELECT VERSION()` gives it.
    pub version: String,
    /// Its UUID.
    pub uuid: Option<String>,
    /// Place in replication.
    pub role: Role,
    /// Replication lag, seconds.
    pub replica_lag_seconds: Option<u64>,
    /// Connections of a replica.
    pub replication: Vec<Replication>,
    /// Whether it refuses writes of ordinary users.
    pub read_only: bool,
    /// Present on a Galera node.
    pub galera: Option<Galera>,
    /// Size, bytes; 0: unknown.
    pub data_bytes: u64,
    /// Whether the server writes a binary log.
    pub binary_log: bool,
    /// GTID position or set.
    pub gtid: Option<String>,
}

impl From<ServerInfo> for Server {
    fn from(info: ServerInfo) -> Self {
        Self {
            flavour: info.flavour.to_string(),
            version: info.version,
            uuid: info.uuid,
            role: info.role.as_str().to_owned(),
            replica_lag_seconds: info.replica_lag_seconds,
            replication: info.replication,
            read_only: info.read_only,
            galera: info.galera,
            data_bytes: info.data_bytes,
            binary_log: info.binary_log,
            gtid: info.gtid,
        }
    }
}

const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'version_comment', \
     'server_uuid', 'server_uid', 'read_only', 'log_bin', 'wsrep_on', 'gtid_current_pos', 'gtid_executed')";
const GALERA: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_status', \
     'wsrep_cluster_size', 'wsrep_local_state_comment')";
const SIZE: &str = "CAST(COALESCE(SUM(data_length + index_length), 0) AS UNSIGNED) \
     FROM information_schema.tables";

pub(super) async fn read(session: &mut Session) -> Result<ServerInfo, DatabaseError> {
    let mut variables = pairs(session, "variables", VARIABLES).await?;
    let mut take = |name: &str| variables.remove(name).filter(|value| !value.is_empty());
    let version = take("version").unwrap_or_default();
    let comment = take("version_comment").unwrap_or_default();
    let flavour = flavour(&version, &comment);
    let on = |value: Option<String>| value.is_some_and(|v| is_on(&v));
    let uuid = take("server_uuid").or_else(|| take("server_uid"));
    let read_only = on(take("read_only"));
    let binary_log = on(take("log_bin"));
    let gtid = take("gtid_executed").or_else(|| take("gtid_current_pos"));
    let gtid = gtid.map(|gtid| gtid.replace('\n', ""));
    let galera = if on(take("wsrep_on")) {
        let mut status = pairs(session, "Galera state", GALERA).await?;
        let mut take = |name: &str| status.remove(name).unwrap_or_default();
        Some(Galera {
            cluster_status: take("wsrep_cluster_status"),
            cluster_size: take("wsrep_cluster_size").parse().unwrap_or(0),
            local_state: take("wsrep_local_state_comment"),
        })
    } else {
        None
    };
    let (role, replica_lag_seconds, replication) = replication(session, flavour).await?;
    let data_bytes = data_bytes(session, flavour).await?;
    Ok(ServerInfo {
        flavour,
        version,
        uuid,
        role,
        replica_lag_seconds,
        replication,
        read_only,
        galera,
        data_bytes,
        binary_log,
        gtid,
    })
}

fn flavour(version: &str, comment: &str) -> Flavour {
    let says = |text: &str| text.to_ascii_lowercase().contains("mariadb");
    if says(version) || says(comment) {
        Flavour::Mariadb
    } else {
        Flavour::Mysql
    }
}

/// `read_only` of newer servers is an enumeration; what is not off is on.
fn is_on(value: &str) -> bool {
    !value.eq_ignore_ascii_case("off") && value != "0"
}

async fn pairs(
    session: &mut Session,
    doing: &'static str,
    query: &str,
) -> Result<HashMap<String, String>, DatabaseError> {
    let rows = session.rows(doing, query).await?;
    let pair = |row| Some((text_at(row, 0)?.to_ascii_lowercase(), text_at(row, 1)?));
    Ok(rows.iter().filter_map(pair).collect())
}

/// The server may have to open every table for it; where that takes long, it stays unknown.
async fn data_bytes(session: &mut Session, flavour: Flavour) -> Result<u64, DatabaseError> {
    let query = match flavour {
        Flavour::Mariadb => format!("SET STATEMENT max_statement_time=5 FOR SELECT {SIZE}"),
        Flavour::Mysql => format!("SELECT /*+ MAX_EXECUTION_TIME(5000) */ {SIZE}"),
    };
    match session.rows("size", &query).await {
        Ok(rows) => Ok(rows
            .first()
            .and_then(|row| text_at(row, 0)?.parse().ok())
            .unwrap_or(0)),
        Err(DatabaseError::Query { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

async fn replication(
    session: &mut Session,
    flavour: Flavour,
) -> Result<(Role, Option<u64>, Vec<Replication>), DatabaseError> {
    // MariaDB's plain form shows one connection of several; MySQL's old word is gone in 8.4.
    let query = match flavour {
        Flavour::Mariadb => "SHOW ALL SLAVES STATUS",
        Flavour::Mysql => "SHOW REPLICA STATUS",
    };
    let rows = match session.rows("replication state", query).await {
        Ok(rows) => rows,
        Err(DatabaseError::Query { .. }) => return Ok((Role::Unknown, None, Vec::new())),
        Err(error) => return Err(error),
    };
    if rows.is_empty() {
        return Ok((Role::Primary, None, Vec::new()));
    }
    let lag =
        |row| text(row, "Seconds_Behind_Source").or_else(|| text(row, "Seconds_Behind_Master"));
    // One connection that does not replicate makes the whole lag unknown.
    let lags: Option<Vec<u64>> = rows.iter().map(|row| lag(row)?.parse().ok()).collect();
    let lag = lags.and_then(|lags| lags.into_iter().max());
    Ok((Role::Replica, lag, rows.iter().map(connection).collect()))
}

/// MySQL says Replica and Source where MariaDB says Slave and Master.
fn connection(row: &Row) -> Replication {
    let first = |columns: [&str; 2]| columns.into_iter().find_map(|column| text(row, column));
    let error = text(row, "Last_SQL_Errno").and_then(|number| number.parse().ok());
    Replication {
        name: first(["Connection_name", "Channel_Name"]).unwrap_or_default(),
        receiving: first(["Slave_IO_Running", "Replica_IO_Running"]).unwrap_or_default(),
        applying: first(["Slave_SQL_Running", "Replica_SQL_Running"]).unwrap_or_default(),
        error: error.filter(|number| *number != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavour_by_what_the_server_says() {
        assert_eq!(
            flavour("10.11.19-MariaDB-0+deb12u1-log", "Debian 12"),
            Flavour::Mariadb
        );
        assert_eq!(
            flavour("11.4.2", "mariadb.org binary distribution"),
            Flavour::Mariadb
        );
        assert_eq!(
            flavour("9.1.0", "MySQL Community Server - GPL"),
            Flavour::Mysql
        );
    }

    #[test]
    fn read_only_may_be_a_word() {
        assert!(is_on("ON") && is_on("1") && is_on("NO_LOCK_NO_ADMIN"));
        assert!(!is_on("OFF") && !is_on("0"));
    }
}

//! What the database server is: reached over its socket or over TCP, asked, and left alone.

mod accounts;
mod checks;
mod contents;
mod grants;
mod info;
mod option_file;
mod quoted;

pub use accounts::Accounts;
pub use contents::Contents;
pub use grants::Grants;
pub use info::{Flavour, Role, ServerInfo};
pub(crate) use option_file::private_folder;
pub(crate) use quoted::name as quoted_name;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Row, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Schemas that belong to the server, never to its users.
pub const SYSTEM_SCHEMAS: [&str; 4] = ["information_schema", "performance_schema", "mysql", "sys"];

/// Names and strings are printed in one way, whatever the server is set to.
const PRINT: &str = "SET SESSION sql_mode = '', sql_quote_show_create = 1";

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Socket(PathBuf),
    /// A host name or IP address, and a port.
    Tcp {
        /// Host name or IP address.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// How the server is reached. The password stays in its file and is read at every connection, so
/// that it may rotate.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where the server listens.
    pub address: Address,
    /// User name.
    pub user: String,
    /// File that holds the password; a newline at its end does not count. `None`: no password.
    pub password_file: Option<PathBuf>,
    /// Longest wait for a connection, and for each answer.
    pub timeout: Duration,
}

/// Why the server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Nobody answers at the address.
    #[error(
        "cannot reach the database at {address}: {message}; is the server running, and is the socket or port right?"
    )]
    Unreachable {
        /// Where it was tried.
        address: String,
        /// What the system said.
        message: String,
    },
    /// The server answers, and refuses us.
    #[error(
        "the database at {address} refuses user '{user}': {message}; check --db-user, the password file and the user's host"
    )]
    Refused {
        /// Where it was tried.
        address: String,
        /// Who we said we are.
        user: String,
        /// What the server said.
        message: String,
    },
    /// No answer in time.
    #[error("the database at {address} gave no answer within {seconds} s ({doing})")]
    Timeout {
        /// Where it was tried.
        address: String,
        /// What was being done.
        doing: &'static str,
        /// The time given, in seconds.
        seconds: u64,
    },
    /// The server refuses a question.
    #[error("the database refuses to say its {doing}: {message}")]
    Query {
        /// What was asked.
        doing: &'static str,
        /// What the server said.
        message: String,
    },
    /// What was asked is no SQL.
    #[error("{message}")]
    NoSql {
        /// What the server said.
        message: String,
    },
    /// The password file cannot be read.
    #[error("cannot read the password file {path}: {source}")]
    PasswordFile {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Connection {
    /// The password, read anew.
    ///
    /// # Errors
    /// [`DatabaseError::PasswordFile`].
    pub async fn password(&self) -> Result<Option<String>, DatabaseError> {
        let Some(path) = &self.password_file else {
            return Ok(None);
        };
        let text = tokio::fs::read_to_string(path).await.map_err(|source| {
            DatabaseError::PasswordFile {
                path: path.display().to_string(),
                source,
            }
        })?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`DatabaseError`]; unreachable and refused are told apart.
    pub async fn connect(&self) -> Result<Session, DatabaseError> {
        let mut opts = OptsBuilder::default()
            .user(Some(self.user.clone()))
            .pass(self.password().await?)
            .prefer_socket(false)
            .stmt_cache_size(0);
        opts = match &self.address {
            Address::Socket(path) => opts.socket(Some(path.to_string_lossy())),
            Address::Tcp { host, port } => opts.ip_or_hostname(host.clone()).tcp_port(*port),
        };
        let connecting = tokio::time::timeout(self.timeout, Conn::new(opts));
        let conn = connecting.await.map_err(|_| self.timed_out("connecting"))?;
        let conn = conn.map_err(|error| match error {
            mysql_async::Error::Server(error) => DatabaseError::Refused {
                address: self.address.to_string(),
                user: self.user.clone(),
                message: error.to_string(),
            },
            error => DatabaseError::Unreachable {
                address: self.address.to_string(),
                message: error.to_string(),
            },
        })?;
        Ok(Session {
            conn,
            connection: self.clone(),
        })
    }

    fn failed(&self, doing: &'static str, error: mysql_async::Error) -> DatabaseError {
        match error {
            mysql_async::Error::Server(error) => DatabaseError::Query {
                doing,
                message: error.to_string(),
            },
            error => DatabaseError::Unreachable {
                address: self.address.to_string(),
                message: error.to_string(),
            },
        }
    }

    fn timed_out(&self, doing: &'static str) -> DatabaseError {
        DatabaseError::Timeout {
            address: self.address.to_string(),
            doing,
            seconds: self.timeout.as_secs(),
        }
    }
}

/// Tables, views and sequences by schema.
pub type Tables = BTreeMap<String, BTreeSet<String>>;

/// Names of InnoDB's tables by its own numbers.
pub type TableNumbers = BTreeMap<u64, String>;

/// One session with the server.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    connection: Connection,
}

/// One column of a row as text; `None` for NULL and for a column that is not there.
fn text(row: &Row, column: &str) -> Option<String> {
    let (index, _) = row
        .columns_ref()
        .iter()
        .enumerate()
        .find(|(_, c)| c.name_str().eq_ignore_ascii_case(column))?;
    text_at(row, index)
}

fn text_at(row: &Row, index: usize) -> Option<String> {
    match row.as_ref(index)? {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Int(n) => Some(n.to_string()),
        Value::UInt(n) => Some(n.to_string()),
        other => Some(other.as_sql(true)),
    }
}

impl Session {
    async fn rows(&mut self, doing: &'static str, query: &str) -> Result<Vec<Row>, DatabaseError> {
        let answer = tokio::time::timeout(self.connection.timeout, self.conn.query(query)).await;
        match answer {
            Err(_) => Err(self.connection.timed_out(doing)),
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(self.connection.failed(doing, error)),
        }
    }

    /// Runs a statement that gives nothing.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub(crate) async fn execute(
        &mut self,
        doing: &'static str,
        statement: &str,
    ) -> Result<(), DatabaseError> {
        self.rows(doing, statement).await.map(|_| ())
    }

    /// The first column of the first row that a query gives; `None` for NULL and for no row.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub(crate) async fn value(
        &mut self,
        doing: &'static str,
        query: &str,
    ) -> Result<Option<String>, DatabaseError> {
        let rows = self.rows(doing, query).await?;
        Ok(rows.first().and_then(|row| text_at(row, 0)))
    }

    /// What the server is.
    ///
    /// # Errors
    /// [`DatabaseError`]. What the user may not see (its replicas, say) is left out instead.
    pub async fn info(&mut self) -> Result<ServerInfo, DatabaseError> {
        info::read(self).await
    }

    /// Whether any session waits to use or change a table that others hold. Others' sessions are seen
    /// with the privilege `PROCESS` only.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn somebody_waits_for_a_table(&mut self) -> Result<bool, DatabaseError> {
        let query = "SELECT 1 FROM information_schema.processlist WHERE state = 'Waiting for table metadata lock' LIMIT 1";
        Ok(!self.rows("sessions", query).await?.is_empty())
    }

    /// Names of the users' schemas, without [`SYSTEM_SCHEMAS`], sorted.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn schemas(&mut self) -> Result<BTreeSet<String>, DatabaseError> {
        let query = "SELECT schema_name FROM information_schema.schemata";
        let rows = self.rows("schemas", query).await?;
        let names = rows.iter().filter_map(|row| text_at(row, 0));
        Ok(names.filter(|name| !is_system_schema(name)).collect())
    }

    /// Every table, view and sequence in the users' schemas.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn tables(&mut self) -> Result<Tables, DatabaseError> {
        let query = "SELECT table_schema, table_name FROM information_schema.tables";
        let rows = self.rows("tables", query).await?;
        let mut tables = Tables::new();
        for row in &rows {
            let (Some(schema), Some(table)) = (text_at(row, 0), text_at(row, 1)) else {
                continue;
            };
            if !is_system_schema(&schema) {
                tables.entry(schema).or_default().insert(table);
            }
        }
        Ok(tables)
    }

    /// InnoDB's own numbers of its tables and their names, as `schema/table` in the encoding of file
    /// names. A table keeps its number when it is renamed. Needs the privilege `PROCESS`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn table_numbers(&mut self, flavour: Flavour) -> Result<TableNumbers, DatabaseError> {
        let query = match flavour {
            Flavour::Mariadb => "SELECT table_id, name FROM information_schema.innodb_sys_tables",
            Flavour::Mysql => "SELECT table_id, name FROM information_schema.innodb_tables",
        };
        let rows = self.rows("tables", query).await?;
        let number = |row| Some((text_at(row, 0)?.parse().ok()?, text_at(row, 1)?));
        // What a change of a table works with is no table of anybody's.
        let lasting = |(_, name): &(u64, String)| !name.contains("#sql");
        Ok(rows.iter().filter_map(number).filter(lasting).collect())
    }

    /// What our user may do.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn grants(&mut self) -> Result<Grants, DatabaseError> {
        self.rows("grants", PRINT).await?;
        // MariaDB lists the privileges of the current role by itself; MySQL only when asked to.
        let role = self.rows("role", "SELECT CURRENT_ROLE()").await.ok();
        let role = role.and_then(|rows| rows.first().and_then(|row| text_at(row, 0)));
        let with_role = match role {
            Some(role) if role.starts_with('`') => {
                let query = format!("SHOW GRANTS FOR CURRENT_USER() USING {role}");
                self.rows("grants", &query).await.ok()
            }
            _ => None,
        };
        let rows = match with_role {
            Some(rows) => rows,
            None => self.rows("grants", "SHOW GRANTS").await?,
        };
        Ok(rows.iter().filter_map(|row| text_at(row, 0)).collect())
    }

    /// How long the server has been up.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn uptime(&mut self) -> Result<Duration, DatabaseError> {
        let rows = self
            .rows("uptime", "SHOW GLOBAL STATUS LIKE 'Uptime'")
            .await?;
        let seconds = rows
            .first()
            .and_then(|row| text_at(row, 1))
            .and_then(|s| s.parse().ok());
        Ok(Duration::from_secs(seconds.unwrap_or(u64::MAX)))
    }

    /// Ends the session in order. Dropping it ends it too, without waiting for the server.
    pub async fn close(self) {
        let _ = tokio::time::timeout(self.connection.timeout, self.conn.disconnect()).await;
    }
}

/// Whether a schema belongs to the server.
pub(crate) fn is_system_schema(name: &str) -> bool {
    SYSTEM_SCHEMAS
        .iter()
        .any(|system| system.eq_ignore_ascii_case(name))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Flavour, Role, ServerInfo};

    /// A server that is as simple as can be.
    pub(crate) fn server(flavour: Flavour) -> ServerInfo {
        ServerInfo {
            flavour,
            version: "10.11.19".into(),
            uuid: None,
            role: Role::Primary,
            replica_lag_seconds: None,
            replication: Vec::new(),
            read_only: false,
            galera: None,
            data_bytes: 0,
            binary_log: true,
            gtid: None,
        }
    }
}

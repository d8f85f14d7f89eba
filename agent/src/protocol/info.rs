//! The document of [`PATH_INFO`](super::PATH_INFO): an agent writes it, its callers read it.
//!
//! It reads what older and newer agents write: unknown members are passed over, absent ones have a
//! default, and what may get new words is text.

use crate::archive::Position;
use serde::{Deserialize, Serialize};

/// What an agent and its server are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Info {
    /// The agent's own version.
    pub agent_version: String,
    /// Names of the parameters that the agent takes, and of what else it can do.
    pub capabilities: Vec<String>,
    /// The server; absent when it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Server>,
    /// Why the server does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_error: Option<String>,
    /// The backup tools beside the agent.
    pub tools: Vec<Tool>,
    /// The backup that holds the slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// The last complete backup since the agent's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
}

impl Info {
    /// Whether the agent names this capability.
    #[must_use]
    pub fn can(&self, name: &str) -> bool {
        self.capabilities.iter().any(|c| c == name)
    }
}

/// The database server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// `mariadb` or `mysql`.
    pub flavour: String,
    /// As `SELECT VERSION()` gives it.
    pub version: String,
    /// `server_uuid` of MySQL, `server_uid` of a MariaDB that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// `primary`, `replica` or `unknown` (the agent's user may not see which).
    pub role: String,
    /// The largest lag of its replication connections, seconds; absent for a primary and for a
    /// replica that is not replicating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_lag_seconds: Option<u64>,
    /// Its replication connections, when it is a replica.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replication: Vec<Replication>,
    /// Whether it refuses writes of ordinary users.
    pub read_only: bool,
    /// Present on a Galera node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub galera: Option<Galera>,
    /// Data and indexes of every table, bytes, as far as information_schema knows; 0: unknown.
    pub data_bytes: u64,
    /// Whether it writes a binary log.
    pub binary_log: bool,
    /// GTID position (MariaDB) or executed GTID set (MySQL), when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
}

/// One connection of a replica to its source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Replication {
    /// Its name (MariaDB) or channel (MySQL); empty for the only one.
    pub name: String,
    /// The thread that reads from the source, in the server's words: `Yes`, `No`, `Connecting`.
    pub receiving: String,
    /// The thread that applies what was read, in the server's words: `Yes` or `No`.
    pub applying: String,
    /// Number of the error that stopped applying; absent without one. The server's text may hold
    /// rows, so it is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<u32>,
}

/// State of a Galera node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Galera {
    /// `wsrep_cluster_status`.
    pub cluster_status: String,
    /// `wsrep_cluster_size`.
    pub cluster_size: u32,
    /// `wsrep_local_state_comment`.
    pub local_state: String,
}

/// One installed backup tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What its `--version` printed.
    pub version: String,
    /// `physical`, `logical`.
    pub methods: Vec<String>,
    /// Whether the project tests this tool in this release series.
    pub tested: bool,
}

/// The backup that holds the slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// Its id.
    pub id: String,
    /// `physical` or `logical`.
    pub method: String,
    /// What the tool is doing.
    pub stage: String,
    /// Bytes of body handed to the connection.
    pub bytes: u64,
    /// When it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<jiff::Timestamp>,
    /// The job that it works for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobAttempt>,
}

/// The job that a request works for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobAttempt {
    /// Uid of the job.
    pub uid: String,
    /// Number of the attempt; a higher one of the same job pre-empts.
    pub attempt: u32,
}

/// The last complete backup: what its archive says, for a caller that cannot look inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastBackup {
    /// Its id.
    pub id: String,
    /// When its tool had ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<jiff::Timestamp>,
    /// `physical` or `logical`.
    pub method: String,
    /// Where in the server's history it stands.
    pub position: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_versions_document_is_read() {
        let newer = r#"{"capabilities":["method","fly"],"wings":2,"database":{"flavour":"drizzle",
            "role":"witness","replication":[{"name":"a","x":[1]}],"shards":[1]},
            "tools":[{"name":"t","methods":["snapshot"]}],
            "running":{"id":"r","stage":"hover"},"lastBackup":{"id":"b","position":{"lsn":7,"z":0}}}"#;
        let info: Info = serde_json::from_str(newer).unwrap();
        assert!(info.can("fly") && !info.can("recipient"));
        let server = info.database.unwrap();
        assert_eq!((&*server.flavour, &*server.role), ("drizzle", "witness"));
        assert_eq!(server.replication[0].name, "a");
        assert_eq!(info.last_backup.unwrap().position.lsn, Some(7));
        assert_eq!(serde_json::from_str::<Info>("{}").unwrap(), Info::default());
    }
}

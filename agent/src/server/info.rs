//! `GET /v1/info`: what this agent and its server are.

use super::route::{Api, ApiBody, json};
use crate::backup::{CAPABILITIES, LastBackup, Running, ToolInfo};
use crate::database::ServerInfo;
use http::{Response, StatusCode};
use serde::Serialize;

/// The answer. `database` is absent when the server does not answer; `databaseError` says why.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    agent_version: &'static str,
    capabilities: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<ServerInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database_error: Option<String>,
    tools: Vec<ToolInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<Running>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_backup: Option<LastBackup>,
}

pub(super) async fn get(api: &Api) -> Response<ApiBody> {
    let (server, tools) = tokio::join!(api.backups.server_info(), api.backups.tools());
    let (database, database_error) = match server {
        Ok(info) => (Some(info), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let info = Info {
        agent_version: env!("CARGO_PKG_VERSION"),
        capabilities: CAPABILITIES.iter().copied().chain(["cancel"]).collect(),
        database,
        database_error,
        tools,
        running: api.backups.running(),
        last_backup: api.backups.last_backup(),
    };
    json(StatusCode::OK, &info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parameter;

    #[test]
    fn every_parameter_that_is_taken_is_a_capability() {
        assert!(
            parameter::KNOWN
                .iter()
                .all(|known| CAPABILITIES.contains(known))
        );
    }
}

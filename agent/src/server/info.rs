//! `GET /v1/info`: what this agent and its server are.

use super::route::{Api, ApiBody, json};
use crate::backup::{Running, ToolInfo};
use crate::database::ServerInfo;
use crate::protocol::{CAPABILITIES, parameter};
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
}

pub(super) async fn get(api: &Api) -> Response<ApiBody> {
    let (server, tools) = tokio::join!(api.backups.server_info(), api.backups.tools());
    let (database, database_error) = match server {
        Ok(info) => (Some(info), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let info = Info {
        agent_version: env!("CARGO_PKG_VERSION"),
        capabilities: parameter::KNOWN
            .iter()
            .chain(CAPABILITIES)
            .copied()
            .collect(),
        database,
        database_error,
        tools,
        running: api.backups.running(),
    };
    json(StatusCode::OK, &info)
}

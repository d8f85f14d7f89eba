//! `GET /v1/info`: what this agent and its server are.

use super::route::{Api, ApiBody, json};
use crate::backup::CAPABILITIES;
use crate::protocol::CAPABILITY_RESTORE;
use crate::protocol::info::Info;
use http::{Response, StatusCode};

pub(super) async fn get(api: &Api) -> Response<ApiBody> {
    let (server, tools) = tokio::join!(api.backups.server_info(), api.backups.tools());
    let (database, database_error) = match server {
        Ok(info) => (Some(info.into()), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let restore = api.backups.restores().then_some(CAPABILITY_RESTORE);
    let capabilities = CAPABILITIES
        .iter()
        .copied()
        .chain(["cancel"])
        .chain(restore);
    let info = Info {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: capabilities.map(str::to_owned).collect(),
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

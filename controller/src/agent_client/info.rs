//! What an agent says of itself.

use super::{AgentError, answer};
use crate::{
    peer_text::{Keep, clean},
    reason::{FailureReason, Retry},
};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use towline_agent::protocol::info::Info;

/// Longest answer that is read, bytes.
const MAX_BYTES: usize = 256 << 10;

pub(super) async fn read(
    answer: Response<Incoming>,
    token: Option<&str>,
) -> Result<Info, AgentError> {
    if answer.status() != StatusCode::OK {
        return Err(answer::refusal(answer, token).await);
    }
    let body = answer::bounded(answer.into_body(), MAX_BYTES).await;
    parse(&body, token).map_err(|why| {
        AgentError::new(
            FailureReason::AgentRefused,
            Retry::Counted,
            format!("the answer to /v1/info is not an agent's ({why}): does the URL lead to a Towline agent?"),
        )
    })
}

/// What goes on into a status or a manifest is cleaned; nothing else of it is used.
fn parse(body: &[u8], token: Option<&str>) -> Result<Info, String> {
    let mut info: Info =
        serde_json::from_slice(body).map_err(|e| clean(&e.to_string(), token, Keep::Start))?;
    let tidy = |text: &mut String| *text = clean(text, token, Keep::Start);
    if let Some(server) = &mut info.database {
        tidy(&mut server.flavour);
        tidy(&mut server.version);
    }
    if let Some(running) = &mut info.running {
        tidy(&mut running.stage);
    }
    if let Some(last) = &mut info.last_backup {
        tidy(&mut last.method);
        last.position.gtid.as_mut().map(tidy);
        last.position.binlog_file.as_mut().map(tidy);
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_left_alone_and_what_is_foul_is_cleaned() {
        let info = parse(br#"{"capabilities":["method"],"database":{"flavour":"mariadb","version":"10.11\u001b[2J","role":"primary"},"lastBackup":{"id":"b","position":{"lsn":7,"gtid":"0-1\n"}},"x":1}"#, None);
        let info = info.unwrap();
        assert!(info.can("method") && !info.can("recipient"));
        let last = info.last_backup.unwrap();
        assert_eq!(
            (last.position.lsn, last.position.gtid.as_deref()),
            (Some(7), Some("0-1"))
        );
        assert_eq!(info.database.unwrap().version, "10.11 [2J");
        assert!(
            parse(br#"{"capabilities":[],"database":null}"#, None)
                .unwrap()
                .database
                .is_none()
        );
        assert!(parse(b"<html>", None).is_err());
    }
}

//! The query and the headers of a request to restore.

use super::{MAX_NAME, bad, once, pairs};
use crate::backup::RestoreRequest;
use crate::protocol::{TRAILER_DIGEST, decode_digest, restore_parameter as parameter};
use crate::restore::target::Wanted;
use crate::restore::{Definers, Events, Expected, LogicalOptions};
use crate::server::Problem;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;

/// Longest version of a server that is looked at.
const MAX_VERSION: usize = 128;

fn yes_or_no(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad(name, format!("{name} must be true or false"))),
    }
}

/// Reads the query and the headers of `POST /v1/restore`.
///
/// # Errors
/// A 400 that names the parameter or header.
pub fn parse_restore(query: Option<&str>, headers: &HeaderMap) -> Result<RestoreRequest, Problem> {
    let mut databases: Vec<String> = Vec::new();
    let (mut flavour, mut version, mut gtid) = (None, None, None);
    let (mut users, mut binary_log, mut routines, mut triggers) = (None, None, None, None);
    let (mut events, mut definers) = (None, None);
    for (name, value) in pairs(query.unwrap_or_default())? {
        let name = name.as_str();
        match name {
            parameter::DATABASE => {
                if value.is_empty() || value.chars().count() > MAX_NAME || value.contains('\0') {
                    let what = "database must be the name of a schema, 1 to 64 characters";
                    return Err(bad(name, what));
                }
                if databases.contains(&value) {
                    return Err(bad(name, format!("database '{value}' is given twice")));
                }
                databases.push(value);
            }
            parameter::FLAVOUR => {
                if !["mariadb", "mysql"].contains(&value.as_str()) {
                    return Err(bad(name, "flavour must be mariadb or mysql"));
                }
                once(&mut flavour, name, value)?;
            }
            parameter::VERSION => {
                if value.is_empty() || value.len() > MAX_VERSION {
                    return Err(bad(name, "version must be what SELECT VERSION() gave"));
                }
                once(&mut version, name, value)?;
            }
            parameter::GTID_PURGED => once(&mut gtid, name, value)?,
            parameter::INCLUDE_USERS => once(&mut users, name, yes_or_no(name, &value)?)?,
            parameter::BINARY_LOG => once(&mut binary_log, name, yes_or_no(name, &value)?)?,
            parameter::ROUTINES => once(&mut routines, name, yes_or_no(name, &value)?)?,
            parameter::TRIGGERS => once(&mut triggers, name, yes_or_no(name, &value)?)?,
            parameter::EVENTS => {
                let value = match value.as_str() {
                    "disabled" => Events::Disabled,
                    "as-backed-up" => Events::AsBackedUp,
                    "skip" => Events::Skip,
                    _ => {
                        let what = "events must be disabled, as-backed-up or skip";
                        return Err(bad(name, what));
                    }
                };
                once(&mut events, name, value)?;
            }
            parameter::DEFINERS => {
                let value = match value.as_str() {
                    "keep" => Definers::Keep,
                    "current-user" => Definers::CurrentUser,
                    _ => return Err(bad(name, "definers must be keep or current-user")),
                };
                once(&mut definers, name, value)?;
            }
            _ => {
                let known = parameter::KNOWN.join(", ");
                return Err(bad(
                    name,
                    format!("unknown parameter; for a restore this agent knows {known}"),
                ));
            }
        }
    }
    if databases.is_empty() {
        return Err(bad(
            parameter::DATABASE,
            "name every database that is to be restored: database=NAME",
        ));
    }
    let needed = |name: &str, value: Option<String>| {
        value.ok_or_else(|| {
            bad(
                name,
                format!("say which server the backup is of: {name}=..."),
            )
        })
    };
    let defaults = LogicalOptions::default();
    Ok(RestoreRequest {
        wanted: Wanted {
            flavour: needed(parameter::FLAVOUR, flavour)?,
            version: needed(parameter::VERSION, version)?,
            options: LogicalOptions {
                databases,
                include_users: users.unwrap_or(defaults.include_users),
                gtid_purged: gtid.is_some(),
                binary_log: binary_log.unwrap_or(defaults.binary_log),
                routines: routines.unwrap_or(defaults.routines),
                triggers: triggers.unwrap_or(defaults.triggers),
                events: events.unwrap_or(defaults.events),
                definers: definers.unwrap_or(defaults.definers),
            },
            gtid,
        },
        expected: expected(headers)?,
    })
}

/// What the body has to be. Both are known beforehand, for whoever sends an archive has verified it.
fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let single = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none());
        value.and_then(|value| value.to_str().ok())
    };
    let length = single(CONTENT_LENGTH.as_str()).and_then(|text| text.trim().parse().ok());
    let Some(bytes) = length else {
        return Err(bad(
            CONTENT_LENGTH.as_str(),
            "send the header Content-Length, once, with the bytes of the archive",
        ));
    };
    let Some(sha256) = single(TRAILER_DIGEST).and_then(decode_digest) else {
        return Err(bad(
            TRAILER_DIGEST,
            "send the header Repr-Digest, once, with the archive's sum: sha-256=:BASE64:",
        ));
    };
    Ok(Expected {
        bytes,
        sha256: hex::encode(sha256),
    })
}

//! The query and the headers of a backup request, taken strictly: what is not understood is
//! refused by name, for a caller must not get another backup than the one it asked for.

mod restore;

pub use restore::parse_restore;

use super::problem::{Kind, Problem};
use crate::archive::Recipient;
use crate::archive::encryption::{MAX_RECIPIENTS, RecipientError, looks_secret};
use crate::backup::{BackupRequest, Compression, JobAttempt, Method};
use crate::protocol::{HEADER_ATTEMPT, HEADER_JOB, parameter};
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use std::str::FromStr;

/// Threads of a tool; more than this helps no disk.
const MAX_PARALLEL: u16 = 64;
/// Longest schema name of MySQL and MariaDB, in characters.
const MAX_NAME: usize = 64;

fn bad(parameter: &str, detail: impl Into<String>) -> Problem {
    // What a caller wrote is shown, but cut: it may be anything. A secret is not.
    let plain = percent_decode_str(parameter).decode_utf8_lossy();
    let shown: String = if looks_secret(&plain) {
        "(a secret key)".to_owned()
    } else {
        parameter.chars().take(64).collect()
    };
    Problem::new(Kind::BAD_PARAMETER, detail).parameter(shown)
}

/// A query's pairs, percent-decoded.
fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    if query.is_empty() {
        return Ok(Vec::new());
    }
    let decode = |text: &str, shown: &str| -> Result<String, Problem> {
        let bad_escape = || {
            bad(
                shown,
                "the query has a malformed percent escape: write %HH with two hex digits, UTF-8",
            )
        };
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let digits = rest.as_bytes().get(at + 1..at + 3).ok_or_else(bad_escape)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return Err(bad_escape());
            }
            rest = &rest[at + 3..];
        }
        let text = text.replace('+', " ");
        let decoded = percent_decode_str(&text)
            .decode_utf8()
            .map_err(|_| bad_escape())?;
        Ok(decoded.into_owned())
    };
    query
        .split('&')
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                bad(
                    pair,
                    "every parameter of the query is written name=value, with & between them",
                )
            })?;
            let name = decode(name, name)?;
            let value = decode(value, &name)?;
            Ok((name, value))
        })
        .collect()
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    if slot.replace(value).is_some() {
        return Err(bad(name, format!("{name} may be given once")));
    }
    Ok(())
}

fn number<T: FromStr + PartialOrd + Copy>(
    name: &str,
    value: &str,
    from: T,
    to: T,
    hint: &str,
) -> Result<T, Problem> {
    // FromStr takes a leading plus sign, which nobody means.
    let parsed = value
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| value.parse().ok())
        .flatten();
    parsed
        .filter(|number| *number >= from && *number <= to)
        .ok_or_else(|| bad(name, format!("{name} must be {hint}")))
}

/// Reads the query and the `X-Backup-…` headers of `GET /v1/backup`.
///
/// # Errors
/// A 400 that names the parameter or header.
pub fn parse(query: Option<&str>, headers: &HeaderMap) -> Result<BackupRequest, Problem> {
    let mut method = None;
    let mut zstd = None;
    let mut level = None;
    let mut parallel = None;
    let mut max_rate = None;
    let mut recipients: Vec<Recipient> = Vec::new();
    let mut databases: Vec<String> = Vec::new();
    for (name, value) in pairs(query.unwrap_or_default())? {
        let name = name.as_str();
        match name {
            parameter::METHOD => {
                let value = match value.as_str() {
                    "physical" => Method::Physical,
                    "logical" => Method::Logical,
                    _ => return Err(bad(name, "method must be physical or logical")),
                };
                once(&mut method, name, value)?;
            }
            parameter::COMPRESSION => {
                let value = match value.as_str() {
                    "zstd" => true,
                    "none" => false,
                    _ => return Err(bad(name, "compression must be zstd or none")),
                };
                once(&mut zstd, name, value)?;
            }
            parameter::LEVEL => {
                once(
                    &mut level,
                    name,
                    number(name, &value, 1, 19, "a zstd level from 1 to 19")?,
                )?;
            }
            parameter::PARALLEL => {
                let value = number(
                    name,
                    &value,
                    1,
                    MAX_PARALLEL,
                    "a number of threads from 1 to 64",
                )?;
                once(&mut parallel, name, value)?;
            }
            parameter::MAX_RATE => {
                let value = number(
                    name,
                    &value,
                    1,
                    u64::MAX,
                    "bytes a second, a positive number",
                )?;
                once(&mut max_rate, name, value)?;
            }
            parameter::DATABASE => {
                if value.is_empty() || value.chars().count() > MAX_NAME || value.contains('\0') {
                    return Err(bad(
                        name,
                        "database must be the name of a schema, 1 to 64 characters",
                    ));
                }
                if databases.contains(&value) {
                    return Err(bad(name, format!("database '{value}' is given twice")));
                }
                databases.push(value);
            }
            parameter::RECIPIENT => {
                let recipient: Recipient = value
                    .parse()
                    .map_err(|error: RecipientError| bad(name, error.to_string()))?;
                if recipients.contains(&recipient) {
                    continue;
                }
                if recipients.len() == MAX_RECIPIENTS {
                    let most = format!("an archive has at most {MAX_RECIPIENTS} recipients");
                    return Err(bad(name, most));
                }
                recipients.push(recipient);
            }
            _ => {
                return Err(bad(
                    name,
                    format!(
                        "unknown parameter; this agent knows {}",
                        parameter::KNOWN.join(", ")
                    ),
                ));
            }
        }
    }
    let compression = match (zstd, level) {
        (Some(false), Some(_)) => {
            return Err(bad(
                parameter::LEVEL,
                "level has no meaning with compression=none: leave one of them out",
            ));
        }
        (Some(false), None) => Compression::None,
        (_, level) => Compression::Zstd {
            level: level.unwrap_or(3),
        },
    };
    if method == Some(Method::Physical) && !databases.is_empty() {
        return Err(bad(
            parameter::DATABASE,
            "database works with method=logical only: a physical backup is of the whole server",
        ));
    }
    let parallel = parallel.unwrap_or(1);
    Ok(BackupRequest {
        method,
        compression,
        parallel,
        databases,
        recipients,
        max_rate,
        job: job(headers)?,
    })
}

/// The job and attempt that a request works for.
fn job(headers: &HeaderMap) -> Result<Option<JobAttempt>, Problem> {
    let single = |name: &'static str| -> Result<Option<&str>, Problem> {
        let mut values = headers.get_all(name).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(bad(name, format!("the header {name} may be given once")));
        }
        let text = value.map(|value| value.to_str().map(str::trim)).transpose();
        text.map_err(|_| bad(name, format!("the header {name} must be plain ASCII")))
    };
    match (single(HEADER_JOB)?, single(HEADER_ATTEMPT)?) {
        (None, None) => Ok(None),
        (Some(uid), Some(attempt)) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            if uid.is_empty() || uid.len() > 64 || !uid.bytes().all(plain) {
                return Err(bad(
                    HEADER_JOB,
                    format!(
                        "the header {HEADER_JOB} must be a uid: 1 to 64 letters, digits and dashes"
                    ),
                ));
            }
            let attempt = number(
                HEADER_ATTEMPT,
                attempt,
                1,
                u32::MAX,
                "the number of an attempt, from 1",
            )?;
            Ok(Some(JobAttempt {
                uid: uid.to_owned(),
                attempt,
            }))
        }
        (Some(_), None) => Err(bad(
            HEADER_ATTEMPT,
            format!("the header {HEADER_JOB} needs {HEADER_ATTEMPT} too"),
        )),
        (None, Some(_)) => Err(bad(
            HEADER_JOB,
            format!("the header {HEADER_ATTEMPT} needs {HEADER_JOB} too"),
        )),
    }
}

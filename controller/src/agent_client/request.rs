//! What is asked of an agent.

use super::{AgentError, Claim, Endpoint, Info, connect::Outgoing};
use crate::{
    reason::{FailureReason, Retry},
    transfer::BackupParameters,
};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Empty};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use towline_agent::protocol::{HEADER_ATTEMPT, HEADER_JOB, HEADER_REQUEST_ID};

fn invalid(why: impl Into<String>) -> AgentError {
    AgentError::new(FailureReason::InvalidSpec, Retry::Never, why)
}

/// A GET with all that an agent wants to know.
pub(super) fn get(
    agent: &Endpoint,
    target: &str,
    claim: Option<Claim<'_>>,
) -> Result<Request<Outgoing>, AgentError> {
    let nothing = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut request = request(agent, Method::GET, target, nothing)?;
    if let Some(claim) = claim {
        let headers = request.headers_mut();
        let uid = HeaderValue::from_str(claim.job_uid);
        let uid = uid.map_err(|e| invalid(format!("no request can be made of this: {e}")))?;
        headers.insert(HEADER_JOB, uid);
        headers.insert(HEADER_ATTEMPT, claim.attempt.into());
        // What is a header is one with a number behind it.
        if let Ok(id) = HeaderValue::from_str(&claim.request_id()) {
            headers.insert(HEADER_REQUEST_ID, id);
        }
    }
    Ok(request)
}

/// A POST with a body.
pub(super) fn post(
    agent: &Endpoint,
    target: &str,
    body: Outgoing,
) -> Result<Request<Outgoing>, AgentError> {
    request(agent, Method::POST, target, body)
}

fn request(
    agent: &Endpoint,
    method: Method,
    target: &str,
    body: Outgoing,
) -> Result<Request<Outgoing>, AgentError> {
    let host = agent.base.host_str().unwrap_or_default();
    let host = match agent.base.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, host)
        .header(
            header::USER_AGENT,
            concat!("towline/", env!("CARGO_PKG_VERSION")),
        )
        // TE is for the next hop alone, so Connection names it (RFC 9110, 10.1.4).
        .header(header::TE, "trailers")
        .header(header::CONNECTION, "TE");
    if let Some(token) = &agent.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            invalid("the agent's token has characters that no header can carry: make a new one of letters and digits")
        })?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    request
        .body(body)
        .map_err(|e| invalid(format!("no request can be made of this: {e}")))
}

/// The query, `?` and all. Every parameter that is asked for must be among the agent's capabilities.
pub(super) fn query(wanted: &BackupParameters, info: &Info) -> Result<String, AgentError> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    pairs.extend(wanted.method.clone().map(|v| ("method", v)));
    pairs.extend(wanted.compression.clone().map(|v| ("compression", v)));
    pairs.extend(wanted.level.map(|v| ("level", v.to_string())));
    pairs.extend(wanted.parallel.map(|v| ("parallel", v.to_string())));
    pairs.extend(wanted.databases.iter().map(|v| ("database", v.clone())));
    pairs.extend(wanted.recipients.iter().map(|v| ("recipient", v.clone())));
    pairs.extend(wanted.max_rate.map(|v| ("max-rate", v.to_string())));
    let mut query = String::new();
    for (name, value) in pairs {
        if !info.can(name) {
            return Err(AgentError::new(
                FailureReason::AgentRefused,
                Retry::Never,
                format!(
                    "the agent does not know the parameter {name:?}: upgrade the agent, or do not ask for it"
                ),
            ));
        }
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(&value, NON_ALPHANUMERIC));
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(capabilities: &[&str]) -> Info {
        Info {
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
            ..Info::default()
        }
    }

    #[test]
    fn nothing_is_dropped_and_nothing_slips_in() {
        let wanted = BackupParameters {
            method: Some("logical".into()),
            databases: vec!["a&level=9".into(), "--x é".into()],
            ..BackupParameters::default()
        };
        assert_eq!(
            query(&wanted, &info(&["method", "database"])).unwrap(),
            "?method=logical&database=a%26level%3D9&database=%2D%2Dx%20%C3%A9"
        );
        let error = query(&wanted, &info(&["method"])).unwrap_err();
        assert_eq!(
            (error.reason, error.retry),
            (FailureReason::AgentRefused, Retry::Never)
        );
        assert!(error.message.contains("database"), "{error}");
        assert_eq!(query(&BackupParameters::default(), &info(&[])).unwrap(), "");
    }

    #[test]
    fn encryption_is_never_left_out() {
        let wanted = BackupParameters {
            recipients: vec!["age1x".into()],
            ..BackupParameters::default()
        };
        assert!(query(&wanted, &info(&["method", "compression"])).is_err());
    }

    #[test]
    fn te_is_named_by_connection() {
        let agent = Endpoint {
            base: "http://[fd00::1]:8474".parse().unwrap(),
            token: Some("t".into()),
            tls: None,
            allow_local_addresses: false,
        };
        let request = get(
            &agent,
            "/v1/backup",
            Some(Claim {
                job_uid: "u",
                attempt: 2,
            }),
        )
        .unwrap();
        let header = |n: &str| {
            request
                .headers()
                .get(n)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(header("host"), "[fd00::1]:8474");
        assert_eq!(
            (header("te"), header("connection")),
            ("trailers".to_owned(), "TE".to_owned())
        );
        assert_eq!(
            (header("x-backup-job"), header("x-backup-attempt")),
            ("u".to_owned(), "2".to_owned())
        );
        assert!(!format!("{request:?}").contains("Bearer"));
        let bad = Endpoint {
            token: Some("a\nb".into()),
            ..agent
        };
        assert!(!get(&bad, "/", None).unwrap_err().message.contains("a\nb"));
    }

    #[test]
    fn a_claim_names_the_request_as_our_own_log_does() {
        let agent = Endpoint {
            base: "http://db:8474".parse().unwrap(),
            token: None,
            tls: None,
            allow_local_addresses: false,
        };
        let claim = Claim {
            job_uid: "3f0c1b2a-0000-4000-8000-000000000001",
            attempt: 2,
        };
        let request = get(&agent, "/v1/backup", Some(claim)).unwrap();
        assert_eq!(
            request.headers()[HEADER_REQUEST_ID],
            "3f0c1b2a-0000-4000-8000-000000000001-2"
        );
        let request = get(&agent, "/v1/info", None).unwrap();
        assert!(!request.headers().contains_key(HEADER_REQUEST_ID));
    }
}

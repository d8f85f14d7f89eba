use crate::harness::Harness;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use std::fmt::Write as _;
use towline_agent::backup::{BackupRequest, Compression, JobAttempt, Method};
use towline_agent::protocol::parameter;
use towline_agent::server::parse_query;

/// Public keys of age, and the secret one of the first.
const KEYS: [&str; 2] = [
    "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
    "age12a8fpmnlyhkxzj448hjp7awenghhuc4efwf8npjtj2dlae56mcwqnywcdu",
];
const SECRET: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

fn parse(query: &str, headers: &[(&str, &str)]) -> Result<BackupRequest, (String, String)> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::try_from(*value).unwrap(),
        );
    }
    parse_query(Some(query), &map).map_err(|problem| {
        assert_eq!(problem.kind().status(), 400);
        (
            problem.parameter_name().unwrap_or_default().to_owned(),
            problem.detail().to_owned(),
        )
    })
}

fn plain() -> BackupRequest {
    BackupRequest {
        method: None,
        compression: Compression::Zstd { level: 3 },
        parallel: 1,
        recipients: Vec::new(),
        databases: Vec::new(),
        max_rate: None,
        job: None,
    }
}

#[test]
fn what_is_taken() {
    let logical = Some(Method::Logical);
    for (query, request) in [
        ("", plain()),
        (
            "method=physical",
            BackupRequest {
                method: Some(Method::Physical),
                ..plain()
            },
        ),
        (
            "compression=none",
            BackupRequest {
                compression: Compression::None,
                ..plain()
            },
        ),
        (
            "compression=zstd&level=19",
            BackupRequest {
                compression: Compression::Zstd { level: 19 },
                ..plain()
            },
        ),
        (
            "level=1",
            BackupRequest {
                compression: Compression::Zstd { level: 1 },
                ..plain()
            },
        ),
        (
            "parallel=64&max-rate=1",
            BackupRequest {
                parallel: 64,
                max_rate: Some(1),
                ..plain()
            },
        ),
        (
            // A name that looks like an option is a name; so is one that needs escapes.
            "method=logical&database=--all-databases&database=a%26b+c%C3%A9",
            BackupRequest {
                method: logical,
                databases: vec!["--all-databases".into(), "a&b cé".into()],
                ..plain()
            },
        ),
    ] {
        assert_eq!(parse(query, &[]), Ok(request), "{query}");
    }
    let job = [("X-Backup-Job", "0f3c-9"), ("X-Backup-Attempt", "12")];
    let expected = BackupRequest {
        job: Some(JobAttempt {
            uid: "0f3c-9".into(),
            attempt: 12,
        }),
        ..plain()
    };
    assert_eq!(parse("", &job), Ok(expected));
}

#[test]
fn what_is_refused_by_name() {
    let long = format!("database={}", "x".repeat(65));
    for (query, parameter) in [
        ("metod=physical", "metod"),
        ("METHOD=physical", "METHOD"),
        ("method=", "method"),
        ("method=Physical", "method"),
        ("method=physical&method=physical", "method"),
        ("compression=gzip", "compression"),
        ("compression=none&compression=none", "compression"),
        ("compression=none&level=3", "level"),
        ("level=0", "level"),
        ("level=20", "level"),
        ("level=-1", "level"),
        ("level=%2B3", "level"),
        ("level=+3", "level"),
        ("level=3.0", "level"),
        ("level=", "level"),
        ("parallel=0", "parallel"),
        ("parallel=65", "parallel"),
        ("parallel=99999999999", "parallel"),
        ("max-rate=0", "max-rate"),
        ("max-rate=1MiB", "max-rate"),
        ("max-rate=99999999999999999999", "max-rate"),
        ("database=", "database"),
        ("database=a%00b", "database"),
        ("database=a&database=a", "database"),
        ("method=physical&database=a", "database"),
        (&long, "database"),
        ("recipient=age1xyz", "recipient"),
        ("recipient=ssh-ed25519%20AAAA", "recipient"),
        ("recipient=", "recipient"),
        ("non-innodb=empty", "non-innodb"),
        ("=x", ""),
        ("method", "method"),
        ("method=logical&", ""),
        ("&", ""),
        ("method=%zz", "method"),
        ("method=%4", "method"),
        ("method=%", "method"),
        ("database=%ff", "database"),
        ("a%zz=b", "a%zz"),
    ] {
        let (named, detail) = parse(query, &[]).expect_err(query);
        assert_eq!(named, parameter, "{query}: {detail}");
        assert!(!detail.is_empty());
    }
    let (_, detail) = parse("recipient=age1xyz", &[]).unwrap_err();
    assert!(detail.contains("age-keygen -y"), "{detail}");
}

#[test]
fn recipients() {
    let recipients = |keys: &[&str]| keys.iter().map(|key| key.parse().unwrap()).collect();
    let [one, other] = KEYS;
    for (query, keys) in [
        (format!("recipient={one}"), &[one][..]),
        (format!("recipient={one}&recipient={other}"), &[one, other]),
        (
            format!("recipient={one}&recipient={other}&recipient={one}"),
            &[one, other],
        ),
    ] {
        let expected = BackupRequest {
            recipients: recipients(keys),
            ..plain()
        };
        assert_eq!(parse(&query, &[]), Ok(expected), "{query}");
    }
}

/// Wherever somebody puts a secret key, it does not come back.
#[test]
fn a_secret_key_is_never_shown() {
    let escaped = SECRET.replace('-', "%2D");
    for query in [
        format!("recipient={SECRET}"),
        format!("recipient={escaped}"),
        format!("recipient={}", SECRET.to_lowercase()),
        format!("{SECRET}=recipient"),
        format!("{escaped}=recipient"),
        SECRET.to_owned(),
        escaped.clone(),
        format!("recipient={SECRET}%zz"),
        format!("{escaped}%zz=recipient"),
    ] {
        let (named, detail) = parse(&query, &[]).expect_err(&query);
        let told = format!("{named} {detail}").to_uppercase();
        for part in [&SECRET[14..], &escaped[18..]] {
            assert!(!told.contains(part), "{query}: {told}");
        }
    }
    let (named, detail) = parse(&format!("recipient={SECRET}"), &[]).unwrap_err();
    assert_eq!(named, "recipient");
    assert!(detail.contains("secret key"), "{detail}");
}

#[test]
fn job_and_attempt_come_together() {
    for (headers, named) in [
        (&[("x-backup-job", "a")][..], "x-backup-attempt"),
        (&[("x-backup-attempt", "1")], "x-backup-job"),
        (
            &[("x-backup-job", "a"), ("x-backup-attempt", "0")],
            "x-backup-attempt",
        ),
        (
            &[("x-backup-job", "a"), ("x-backup-attempt", "-1")],
            "x-backup-attempt",
        ),
        (
            &[("x-backup-job", "a"), ("x-backup-attempt", "4294967296")],
            "x-backup-attempt",
        ),
        (
            &[("x-backup-job", "a b"), ("x-backup-attempt", "1")],
            "x-backup-job",
        ),
        (
            &[("x-backup-job", ""), ("x-backup-attempt", "1")],
            "x-backup-job",
        ),
        (
            &[
                ("x-backup-job", "a"),
                ("x-backup-job", "a"),
                ("x-backup-attempt", "1"),
            ],
            "x-backup-job",
        ),
        (
            &[
                ("x-backup-job", "a"),
                ("x-backup-attempt", "1"),
                ("x-backup-attempt", "2"),
            ],
            "x-backup-attempt",
        ),
    ] {
        assert_eq!(parse("", headers).unwrap_err().0, named, "{headers:?}");
    }
}

#[tokio::test]
async fn a_bad_parameter_is_a_problem_document_and_starts_nothing() {
    let server = Harness::open().await;
    let answer = server.request("GET /v1/backup?recipient=age1xyz", "").await;
    assert_eq!(answer.status(), 400);
    assert_eq!(
        answer.header("content-type").as_deref(),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:towline:problem:bad-parameter");
    assert_eq!(problem["parameter"], "recipient");
    assert_eq!(problem["status"], 400);
    assert_eq!(server.fake.starts(), 0);
}

/// A request as a query that asks for the same.
fn written(request: &BackupRequest) -> String {
    let mut query = String::new();
    let mut pair = |name: &str, value: &str| {
        let and = if query.is_empty() { "" } else { "&" };
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        write!(query, "{and}{name}={value}").unwrap();
    };
    if let Some(method) = request.method {
        pair("method", method.as_str());
    }
    match request.compression {
        Compression::Zstd { level } => pair("level", &level.to_string()),
        Compression::None => pair("compression", "none"),
    }
    pair("parallel", &request.parallel.to_string());
    for recipient in &request.recipients {
        pair("recipient", &recipient.to_string());
    }
    for database in &request.databases {
        pair("database", database);
    }
    if let Some(rate) = request.max_rate {
        pair("max-rate", &rate.to_string());
    }
    query
}

/// Names and values that are right, nearly right, and anything.
fn near_miss() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        8 => proptest::sample::select(parameter::KNOWN).prop_map(str::to_owned),
        1 => "[a-zA-Z-]{0,12}",
        1 => any::<String>(),
    ];
    let right: Vec<&str> = vec![
        "physical", "logical", "zstd", "none", "1", "19", "64", "shop", KEYS[0], KEYS[1],
    ];
    let value = prop_oneof![
        8 => proptest::sample::select(right).prop_map(str::to_owned),
        1 => "[0-9]{1,20}",
        1 => any::<String>(),
    ];
    let pair = (name, value, any::<bool>()).prop_map(|(name, value, escape)| {
        if escape {
            let escaped = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            format!("{}={}", escaped(&name), escaped(&value))
        } else {
            format!("{name}={value}")
        }
    });
    proptest::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

proptest! {
    #[test]
    fn no_query_panics(query in ".{0,200}") {
        let _ = parse_query(Some(&query), &HeaderMap::new());
    }

    /// What is taken is what was asked for: nothing unknown, and written anew it is the same.
    #[test]
    fn what_is_taken_says_what_was_meant(query in near_miss()) {
        if let Ok(request) = parse_query(Some(&query), &HeaderMap::new()) {
            let again = written(&request);
            prop_assert_eq!(parse_query(Some(&again), &HeaderMap::new()).ok(), Some(request));
            for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                let name = pair.split('=').next().unwrap().replace('+', " ");
                let name = percent_encoding::percent_decode_str(&name).decode_utf8().unwrap();
                prop_assert!(parameter::KNOWN.contains(&&*name), "{}", query);
            }
        }
    }

    #[test]
    fn unknown_names_are_refused(name in "[a-z][a-z-]{0,12}", value in "[a-z0-9]{0,9}") {
        prop_assume!(!parameter::KNOWN.contains(&name.as_str()));
        let (named, detail) = parse(&format!("{name}={value}"), &[]).unwrap_err();
        prop_assert_eq!(named, name);
        prop_assert!(detail.contains("unknown parameter"));
    }
}

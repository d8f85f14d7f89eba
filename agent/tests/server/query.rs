use crate::harness::Harness;
use http::{HeaderMap, HeaderName, HeaderValue};
use towline_agent::backup::{BackupRequest, Compression, JobAttempt, Method};
use towline_agent::server::parse_query;

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
        ("recipient=", "recipient"),
        ("non-innodb=empty", "non-innodb"),
        ("=x", ""),
        ("method", "method"),
        ("method=logical&", ""),
        ("&", ""),
        ("method=%zz", "%zz"),
        ("method=%4", "%4"),
        ("method=%", "%"),
        ("database=%ff", "%ff"),
    ] {
        let (named, detail) = parse(query, &[]).expect_err(query);
        assert_eq!(named, parameter, "{query}: {detail}");
        assert!(!detail.is_empty());
    }
    let (_, detail) = parse("recipient=age1xyz", &[]).unwrap_err();
    assert!(detail.contains("cannot encrypt"), "{detail}");
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

proptest::proptest! {
    #[test]
    fn no_query_panics(query in ".{0,200}") {
        let _ = parse_query(Some(&query), &HeaderMap::new());
    }
}

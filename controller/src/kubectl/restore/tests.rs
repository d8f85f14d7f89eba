use super::{
    super::which::tests::{job, succeeded},
    *,
};
use crate::api::BackupSchedule;
use clap::Parser;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: RestoreArgs,
}

fn line(words: &[&str]) -> Result<RestoreArgs, clap::Error> {
    let words = [&["restore"], words].concat();
    Line::try_parse_from(words).map(|line| line.args)
}

fn of_job(job: crate::api::BackupJob) -> Choice {
    Choice {
        chosen: Chosen::Job(Box::new(job), None),
        jobs: Vec::new(),
    }
}

fn of_schedule(jobs: Vec<crate::api::BackupJob>) -> Choice {
    let schedule: BackupSchedule = serde_json::from_value(json!({
        "apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule",
        "metadata": {"name": "nightly", "namespace": "shop", "uid": "u"},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"source": {"url": "https://db:8474", "tls": {}}, "storeRef": {"name": "offsite"}}}},
    }))
    .unwrap();
    Choice {
        chosen: Chosen::Schedule(Box::new(schedule)),
        jobs,
    }
}

fn spec(words: &[&str], choice: &Choice) -> Value {
    let made = line(words).unwrap().restore(choice).unwrap();
    assert_eq!(made.metadata.namespace.as_deref(), Some("shop"));
    serde_json::to_value(made.spec).unwrap()
}

fn refused(words: &[&str], choice: &Choice) -> String {
    line(words).unwrap().restore(choice).unwrap_err().message
}

#[test]
fn a_jobs_backup_goes_into_a_claim() {
    let choice = of_job(succeeded("nightly-1", 1, &json!({})));
    let made = spec(&["nightly-1", "--to-claim", "data"], &choice);
    assert_eq!(made["from"], json!({"backupJobRef": {"name": "nightly-1"}}));
    assert_eq!(
        made["to"],
        json!({"persistentVolumeClaim": {"claimName": "data"}})
    );
    let args = line(&["nightly-1", "--to-claim", "data"]).unwrap();
    let name = args.restore(&choice).unwrap().metadata.generate_name;
    assert_eq!(name.as_deref(), Some("nightly-1-restore-"));
}

#[test]
fn a_schedules_newest_does_not_need_its_job() {
    let words = [
        "nightly",
        "--before",
        "2026-03-02T00:00:00Z",
        "--to-claim",
        "data",
    ];
    let made = spec(&words, &of_schedule(Vec::new()));
    let latest = json!({"storeRef": {"name": "offsite"}, "schedule": "nightly", "before": "2026-03-02T00:00:00Z"});
    assert_eq!(made["from"], json!({"latest": latest}));
}

#[test]
fn an_agent_is_reached_as_the_source_is_but_is_no_replica() {
    let logical = json!({"method": "logical"});
    let choice = of_job(succeeded("nightly-1", 1, &logical));
    let words = [
        "nightly-1",
        "--to-agent",
        "app=new,tier=db",
        "--database",
        "shop",
        "--database",
        "billing",
        "--token-secret",
        "restorer/t",
    ];
    let made = spec(&words, &choice);
    let agent = json!({
        "podSelector": {"matchLabels": {"app": "new", "tier": "db"}}, "prefer": "Primary",
        "auth": {"tokenSecretRef": {"name": "restorer", "key": "t"}},
    });
    assert_eq!(made["to"], json!({"agent": agent}));
    assert_eq!(made["databases"], json!(["shop", "billing"]));
    // To a URL, and from one.
    let made = spec(&["nightly-1", "--to-agent", "https://other:8474"], &choice);
    let agent = json!({"url": "https://other:8474", "prefer": "Any", "tls": {}, "auth": {"tokenSecretRef": {"name": "token", "key": "token"}}});
    assert_eq!(made["to"], json!({"agent": agent}));
    let made = spec(
        &["nightly", "--to-agent", "http://other"],
        &of_schedule(Vec::new()),
    );
    assert_eq!(
        made["to"],
        json!({"agent": {"url": "http://other", "prefer": "Any"}})
    );
}

#[test]
fn what_cannot_be_is_refused_with_the_remedy() {
    let physical = of_job(succeeded("nightly-1", 1, &json!({})));
    let logical = of_schedule(vec![succeeded(
        "nightly-1",
        1,
        &json!({"method": "logical"}),
    )]);
    let encrypted = of_job(succeeded(
        "nightly-1",
        1,
        &json!({"objects": [{"key": "a/backup.tar.zst.age", "bytes": 1}]}),
    ));
    let mut imported = job("old", &json!({"phase": "Succeeded", "method": "logical"}));
    imported.spec.source = None;
    for (words, choice, remedy) in [
        (
            &["nightly-1", "--to-agent", "app=db"][..],
            &physical,
            "--to-claim in the place of",
        ),
        (
            &["nightly", "--to-claim", "data"],
            &logical,
            "--to-agent in the place of",
        ),
        (
            &["nightly-1", "--to-claim", "data"],
            &encrypted,
            "--identity-secret",
        ),
        (
            &[
                "nightly-1",
                "--to-claim",
                "data",
                "--before",
                "2026-03-02T00:00:00Z",
            ],
            &physical,
            "name the schedule",
        ),
        (
            &["nightly", "--to-agent", "mariadb"],
            &logical,
            "app=mariadb",
        ),
        (
            &["nightly", "--to-agent", "app in (a)"],
            &logical,
            "app=mariadb",
        ),
        (
            &["old", "--to-agent", "app=db"],
            &of_job(imported),
            "docs/restore.md",
        ),
    ] {
        let message = refused(words, choice);
        assert!(message.contains(remedy), "{words:?}: {message}");
    }
}

#[test]
fn a_line_that_says_too_little_or_too_much_is_refused() {
    for words in [
        &["nightly"][..],
        &["nightly", "--to-claim", "data", "--to-agent", "app=db"],
        &["nightly", "--to-agent", "app=db", "--size", "1Gi"],
        &["nightly", "--to-claim", "data", "--database", "shop"],
        &["nightly", "--to-claim", "data", "--storage-class", "fast"],
        &["nightly", "--to-claim", "data", "--size", "large"],
        &["nightly", "--to-claim", "data", "--size", "0"],
        &["nightly", "--to-claim", "Data"],
        &["nightly", "--to-claim", "data", "--before", "yesterday"],
        &["pod/x", "--to-claim", "data"],
    ] {
        assert!(line(words).is_err(), "{words:?}");
    }
}

#[test]
fn a_claim_is_made_as_asked_for() {
    let made = serde_json::to_value(claim("data", "20Gi", Some("fast")).unwrap()).unwrap();
    assert_eq!(
        made["spec"],
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}, "storageClassName": "fast"})
    );
    let made = serde_json::to_value(claim("data", "20Gi", None).unwrap()).unwrap();
    assert_eq!(made["spec"].get("storageClassName"), None);
}

#[test]
fn what_will_be_done_is_told_first() {
    let words = ["nightly", "--to-claim", "data", "--size", "20Gi"];
    let args = line(&words).unwrap();
    let choice = of_schedule(vec![succeeded("nightly-1", 1, &json!({}))]);
    let plan = args.plan(&choice, true);
    for word in [
        "the newest of nightly: nightly-1, physical",
        "claim data, which is made, 20Gi",
        "nothing is written over",
    ] {
        assert!(plan.contains(word), "{plan}");
    }
    let plan = args.plan(&of_schedule(Vec::new()), true);
    assert!(plan.contains("no BackupJob is left"), "{plan}");
    let args = line(&["nightly-1", "--to-agent", "app=db", "--database", "shop"]).unwrap();
    let plan = args.plan(&of_job(succeeded("nightly-1", 1, &json!({}))), false);
    assert!(
        plan.contains("running server of agent app=db, databases shop"),
        "{plan}"
    );
}

use super::*;
use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};
use towline_agent::build::Build;

fn known() -> ScheduleMetrics {
    ScheduleMetrics {
        last_success: Some(1),
        overdue: Some(1),
        last_verified: Some(1),
        verified: Some(true),
        verify_overdue: Some(1),
        next_run: Some(2),
        last_bytes: Some(3),
        last_duration: Some(Duration::from_secs(4)),
        consecutive_failures: 0,
        suspended: false,
        backups: Some(5),
        stored_bytes: Some(6),
    }
}

/// Every metric, with one series at least.
fn every_metric() -> String {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    Build::new(None)
        .register("towline_build_info", &registry)
        .unwrap();
    metrics.schedule("a", "nightly", &known());
    metrics.job_ended("a", None, Phase::Succeeded, None);
    metrics.restore_ended(
        "a",
        Kind::Volume,
        RestorePhase::Failed,
        Some(RestoreReason::NoSpace),
    );
    metrics.drill_ended("a", None, "Passed");
    metrics.attempt_ended(Some(FailureReason::Stalled));
    metrics.transfer_timings(&Timings {
        copy: Some(1.0),
        ..Default::default()
    });
    metrics.start_delay(Duration::from_secs(1));
    metrics.store("a", "main", true);
    metrics.request(
        Operation::Put,
        RequestResult::Success,
        Duration::from_secs(1),
    );
    metrics.reconciled("BackupJob", Duration::from_secs(1), Some("Api"));
    metrics.malformed("BackupJob", "a", "b", true);
    prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap()
}

#[test]
fn the_document_has_every_metric_and_no_other() {
    let text = every_metric();
    let exposed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let document = std::fs::read_to_string(file).unwrap();
    let documented: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `towline_"))
        .filter(|line| !line.starts_with("agent_"))
        .filter_map(|line| line.split(['`', '{']).next())
        .collect();
    let exposed: BTreeSet<&str> = exposed
        .iter()
        .map(|name| name.trim_start_matches("towline_"))
        .collect();
    assert_eq!(exposed, documented);
}

/// The table of alerts, held to the rules.
#[test]
fn the_document_has_every_alert_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rules = std::fs::read_to_string(root.join("charts/towline/files/alerts.yaml")).unwrap();
    let rules: serde_json::Value = serde_norway::from_str(&rules).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let expected: Vec<String> = groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| {
            let name = rule["alert"].as_str().unwrap();
            let severity = rule["labels"]["severity"].as_str().unwrap();
            let section = name.to_lowercase();
            format!("| [{name}](troubleshooting.md#{section}) | {severity} ")
        })
        .collect();
    let document = std::fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| [Towline"));
    let found: Vec<_> = rows
        .map(|line| line.rsplitn(3, '|').nth(2).unwrap())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn promtool_is_content() {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = match tool {
        Ok(tool) => tool,
        Err(error) => {
            eprintln!("not checked: promtool (package prometheus) does not start: {error}");
            return;
        }
    };
    let text = every_metric();
    tool.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn series_go_with_their_object() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let names = |part: &str| {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        text.lines().filter(|l| l.contains(part)).count()
    };
    let known = known();
    metrics.schedule("a", "nightly", &known);
    metrics.schedule("b", "nightly", &known);
    metrics.job_ended(
        "a",
        Some("nightly"),
        Phase::Failed,
        Some(FailureReason::NoAgent),
    );
    metrics.drill_ended("a", Some("nightly"), "Failed");
    metrics.store("a", "main", true);
    assert_eq!(names("namespace=\"a\""), 15);
    metrics.forget_schedule("a", "nightly");
    metrics.forget_store("a", "main");
    assert_eq!(
        (names("namespace=\"a\""), names("namespace=\"b\"")),
        (0, 12)
    );
}

#[test]
fn a_value_that_is_no_longer_known_goes() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    metrics.schedule(
        "a",
        "nightly",
        &ScheduleMetrics {
            next_run: Some(2),
            ..Default::default()
        },
    );
    metrics.schedule(
        "a",
        "nightly",
        &ScheduleMetrics {
            suspended: true,
            ..Default::default()
        },
    );
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    assert!(!text.contains("next_run_timestamp_seconds{"), "{text}");
    assert!(
        text.contains("towline_schedule_suspended{namespace=\"a\",schedule=\"nightly\"} 1"),
        "{text}"
    );
}

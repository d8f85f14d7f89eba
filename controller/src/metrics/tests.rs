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
        last_timings: Timings {
            dns: Some(0.1),
            copy: Some(3.0),
            lock: Some(0.5),
            ..Timings::default()
        },
        last_drill: Some(Duration::from_secs(7)),
        last_failure: Some((8, FailureReason::NoAgent)),
        consecutive_failures: 0,
        suspended: false,
        backups: Some(5),
        stored_bytes: Some(6),
    }
}

/// Every metric, with one series at least.
fn every_metric() -> Registry {
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
    metrics.attempt_ended("a", None, Some(FailureReason::Stalled));
    metrics.transfer_bytes("a", None).inc();
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
    registry
}

/// docs/metrics.md names every metric with its labels, and no other.
#[test]
fn the_document_has_every_metric_and_no_other() {
    let exposed: BTreeSet<String> = every_metric()
        .gather()
        .iter()
        .map(|family| {
            let labels = family.get_metric()[0].get_label().iter();
            // The library sorts labels by name; the document need not.
            let labels: BTreeSet<_> = labels.map(|label| label.name().to_owned()).collect();
            format!("{} {labels:?}", family.name())
        })
        .collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let document = std::fs::read_to_string(file).unwrap();
    let documented: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|metric| metric.starts_with("towline_") && !metric.starts_with("towline_agent_"))
        .map(|metric| {
            let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
            let labels = labels.trim_end_matches('}').split(',');
            let labels: BTreeSet<_> = labels
                .filter(|l| !l.is_empty())
                .map(str::to_owned)
                .collect();
            format!("{name} {labels:?}")
        })
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
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&every_metric().gather())
        .unwrap();
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
    metrics.attempt_ended("a", Some("nightly"), Some(FailureReason::NoAgent));
    let received = metrics.transfer_bytes("a", Some("nightly"));
    metrics.store("a", "main", true);
    assert_eq!(names("namespace=\"a\""), 22);
    metrics.forget_schedule("a", "nightly");
    metrics.forget_store("a", "main");
    assert_eq!(
        (names("namespace=\"a\""), names("namespace=\"b\"")),
        (0, 17)
    );
    // A transfer that ends after its schedule brings nothing back.
    received.inc();
    assert_eq!(names("namespace=\"a\""), 0);
}

/// One series says why the newest job that failed did.
#[test]
fn another_reason_takes_the_place_of_the_last() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let failures = || {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let lines = text.lines().filter(|line| line.contains("reason="));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let name = "towline_schedule_last_failure_timestamp_seconds";
    for (last_failure, series) in [
        (Some((8, FailureReason::NoAgent)), vec![("NoAgent", 8)]),
        (Some((9, FailureReason::Stalled)), vec![("Stalled", 9)]),
        (Some((10, FailureReason::Stalled)), vec![("Stalled", 10)]),
        // The record is gone.
        (None, vec![]),
    ] {
        let known = ScheduleMetrics {
            last_failure,
            ..known()
        };
        metrics.schedule("a", "nightly", &known);
        let series: Vec<_> = series
            .iter()
            .map(|(reason, when)| {
                format!("{name}{{namespace=\"a\",reason=\"{reason}\",schedule=\"nightly\"}} {when}")
            })
            .collect();
        assert_eq!(failures(), series);
    }
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

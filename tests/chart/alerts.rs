//! The alerting rules: Prometheus reads them, each fires when it should and not before, and each says where to
//! look.

use super::*;
use std::collections::BTreeSet;

fn alerts() -> Vec<Value> {
    let rules: Value = serde_norway::from_str(&read(chart().join("files/alerts.yaml"))).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().unwrap()
}

#[test]
fn promtool_reads_them_and_each_fires_when_it_should() {
    let promtool =
        |args: [&str; 2], file: PathBuf| output(Command::new("promtool").args(args).arg(file));
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("not checked: promtool (package prometheus) does not start");
        return;
    }
    for output in [
        promtool(["check", "rules"], chart().join("files/alerts.yaml")),
        promtool(["test", "rules"], here().join("alerts_test.yaml")),
    ] {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
    }
    let cases: Value = serde_norway::from_str(&read(here().join("alerts_test.yaml"))).unwrap();
    let fires: BTreeSet<String> = cases["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap().clone())
        .filter(|case| {
            case["exp_alerts"]
                .as_array()
                .is_some_and(|alerts| !alerts.is_empty())
        })
        .map(|case| case["alertname"].as_str().unwrap().to_owned())
        .collect();
    let there: BTreeSet<String> = alerts()
        .iter()
        .map(|alert| name(alert).to_owned())
        .collect();
    assert_eq!(fires, there, "alerts that a test sees fire");
}

#[test]
fn each_says_what_it_means_and_where_to_look() {
    for alert in alerts() {
        let name = name(&alert);
        assert!(name.starts_with("Towline"), "{name}");
        assert!(
            ["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        let annotations = &alert["annotations"];
        for key in ["summary", "description"] {
            assert!(
                annotations[key]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{name}: {key}"
            );
        }
        let runbook = format!("docs/troubleshooting.md#{}", name.to_lowercase());
        assert_eq!(annotations["runbook_url"], runbook, "{name}");
    }
}

/// Of metrics that nobody serves an alert never fires.
#[test]
fn they_ask_for_metrics_that_there_are() {
    let sources = [
        "controller/src/metrics.rs",
        "agent/src/metrics.rs",
        "agent/src/backup/metrics.rs",
    ];
    let sources: String = sources.iter().map(|file| read(root().join(file))).collect();
    for alert in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("towline_")).collect();
        assert!(!metrics.is_empty(), "{expression}");
        for metric in metrics {
            let base = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|end| metric.strip_suffix(end));
            let exists = |name: &str| sources.contains(&format!("\"{name}\""));
            assert!(
                exists(metric) || base.is_some_and(exists),
                "{}: {metric}",
                name(&alert)
            );
        }
    }
}

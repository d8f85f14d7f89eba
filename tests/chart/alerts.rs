//! The alerting rules: Prometheus reads them, each fires when it should and not before, and each says where to
//! look.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// For promtool.
const TESTS: [&str; 2] = ["alerts_test.yaml", "alerts_days_test.yaml"];

pub(super) fn alerts() -> Vec<Value> {
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
fn promtool_reads_them_and_they_fire_when_they_should() {
    let promtool =
        |args: [&str; 2], file: PathBuf| output(Command::new("promtool").args(args).arg(file));
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("not checked: promtool (package prometheus) does not start");
        return;
    }
    for output in [
        promtool(["check", "rules"], chart().join("files/alerts.yaml")),
        promtool(["test", "rules"], here().join(TESTS[0])),
        promtool(["test", "rules"], here().join(TESTS[1])),
    ] {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
    }
}

/// Of each alert a test sees that it does not fire, fires, and ends: in this order, of the same series.
#[test]
fn each_has_a_test_that_sees_it_begin_and_end() {
    let mut whole = BTreeSet::new();
    let tests = TESTS.map(|file| {
        let cases: Value = serde_norway::from_str(&read(here().join(file))).unwrap();
        cases["tests"].as_array().unwrap().clone()
    });
    for test in tests.iter().flatten() {
        let mut seen: BTreeMap<&str, Vec<(u64, bool)>> = BTreeMap::new();
        for case in test["alert_rule_test"].as_array().unwrap() {
            let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
            let time = minutes(case["eval_time"].as_str().unwrap());
            let name = case["alertname"].as_str().unwrap();
            seen.entry(name).or_default().push((time, fires));
        }
        for (name, mut times) in seen {
            times.sort_unstable();
            let mut states: Vec<bool> = times.into_iter().map(|(_, fires)| fires).collect();
            states.dedup();
            if states == [false, true, false] {
                whole.insert(name.to_owned());
            }
        }
    }
    let there: BTreeSet<String> = alerts()
        .iter()
        .map(|alert| name(alert).to_owned())
        .collect();
    assert_eq!(whole, there);
}

fn minutes(time: &str) -> u64 {
    let (number, unit) = time.split_at(time.len() - 1);
    let unit = match unit {
        "m" => 1,
        "h" => 60,
        _ => panic!("{time}: minutes or hours"),
    };
    number.parse::<u64>().unwrap() * unit
}

#[test]
fn each_says_what_it_means_and_where_to_look() {
    let troubleshooting = read(root().join("docs/troubleshooting.md"));
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
        let section = format!("\n### {name}\n");
        assert!(troubleshooting.contains(&section), "{name} has no section");
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
    let mut queries = Vec::new();
    for alert in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("towline_")).collect();
        assert!(!metrics.is_empty(), "{expression}");
        queries.push((name(&alert).to_owned(), expression.to_owned()));
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
    let found = dashboards::faults(&queries).unwrap_or_default();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

//! The dashboards: Grafana's types take them, every query asks for what is served, and the chart ships the files.

use super::*;
use e2e::dashboards::{self, Dashboard, interpolate, labels_of_legend};
use std::collections::{BTreeMap, BTreeSet};

/// A program that reads as Grafana and Prometheus do: tests/dashboards.
fn reader() -> Option<Command> {
    variable("TOWLINE_DASHBOARDS").map(Command::new)
}

/// What stands for the variables of all dashboards.
fn values() -> BTreeMap<&'static str, String> {
    [
        ("__interval", "5m"),
        ("__rate_interval", "2m"),
        ("__range", "1h"),
        ("namespace", "shop"),
        ("schedule", "nightly"),
        ("pod", "db-0"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

fn name(dashboard: &Dashboard) -> String {
    let name = dashboard.file.file_name().unwrap();
    name.to_str().unwrap().to_owned()
}

#[test]
fn grafana_takes_them() {
    let Some(mut reader) = reader() else {
        return;
    };
    let all = dashboards::all();
    let files = all.iter().map(|dashboard| &dashboard.file);
    run(reader.arg("check").args(files));
    // A check that takes everything would be none.
    let broken = tempfile::NamedTempFile::new().unwrap();
    for (from, to) in [
        ("\"noValue\"", "\"noVal\""),
        ("\"lastNotNull\"\n", "7\n"),
        ("\"refresh\": 2", "\"refresh\": \"often\""),
        ("\"schemaVersion\": 42", "\"schemaVersion\": 36"),
        ("\"expr\"", "\"expression\""),
        ("\"drawStyle\"", "\"drawStile\""),
        ("\"type\": \"stat\"", "\"type\": \"stats\""),
    ] {
        let text = read(&all[0].file);
        let text_broken = text.replacen(from, to, 1);
        assert_ne!(text, text_broken, "{from}");
        std::fs::write(broken.path(), text_broken).unwrap();
        let mut reader = self::reader().unwrap();
        let output = output(reader.arg("check").arg(broken.path()));
        assert!(!output.status.success(), "{to} was taken");
    }
}

/// What every panel needs to be understood by who has not made it.
#[test]
fn each_panel_says_what_it_shows() {
    for dashboard in dashboards::all() {
        let file = name(&dashboard);
        let json = &dashboard.json;
        assert_eq!(format!("{}.json", dashboard.uid()), file);
        assert_eq!(json["timezone"], "browser", "{file}");
        let mut places: Vec<[u64; 4]> = Vec::new();
        let mut ids = BTreeSet::new();
        for panel in json["panels"].as_array().unwrap() {
            let at = format!("{file}: {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{at}: id");
            let place = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            let [x, y, w, h] = place;
            assert!(x + w <= 24, "{at}");
            for [ox, oy, ow, oh] in &places {
                let apart = x + w <= *ox || ox + ow <= x || y + h <= *oy || oy + oh <= y;
                assert!(apart, "{at} lies over another panel");
            }
            places.push(place);
        }
        for panel in dashboard.panels() {
            let at = format!("{file}: {}", panel["title"]);
            let defaults = &panel["fieldConfig"]["defaults"];
            for text in [
                &panel["title"],
                &panel["description"],
                &defaults["unit"],
                &defaults["noValue"],
            ] {
                assert!(
                    text.as_str().is_some_and(|text| !text.is_empty()),
                    "{at}: {panel}"
                );
            }
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{at}");
            for source in targets
                .iter()
                .chain([panel])
                .map(|of| &of["datasource"]["uid"])
            {
                assert_eq!(
                    source, "${datasource}",
                    "{at}: no data source is everybody's"
                );
            }
        }
    }
}

/// From each to the other, by a link that is there.
#[test]
fn they_lead_to_each_other() {
    let all = dashboards::all();
    let uids: Vec<_> = all.iter().map(Dashboard::uid).collect();
    assert_eq!(uids, ["towline-fleet", "towline-schedule"]);
    for dashboard in &all {
        let text = dashboard.json.to_string();
        let links: BTreeSet<_> = text
            .split("\"/d/")
            .skip(1)
            .map(|rest| rest.split('/').next().unwrap())
            .collect();
        let other: BTreeSet<_> = uids
            .iter()
            .copied()
            .filter(|uid| *uid != dashboard.uid())
            .collect();
        assert_eq!(links, other, "{}", name(dashboard));
    }
    // A link to a schedule names it by the columns that the table has.
    let fleet = all[0].json.to_string();
    for column in ["Namespace", "Schedule"] {
        assert!(fleet.contains(&format!("${{__data.fields.{column}}}")));
    }
}

/// Metrics by name, with their labels: docs/metrics.md, which tests hold to the programs.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = read(root().join("docs/metrics.md"));
    let rows = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.filter(|row| row.starts_with("towline_"))
        .map(|row| {
            let (name, labels) = row.split_once('{').unwrap_or((row, ""));
            let labels = labels.trim_end_matches('}').split(',');
            let mut labels: BTreeSet<_> = labels.map(str::to_owned).collect();
            labels.remove("");
            // Those of the target that was scraped. The controller's `namespace` is the object's.
            labels.extend(["instance", "job", "pod"].map(str::to_owned));
            if name.starts_with("towline_agent_") {
                labels.insert("namespace".into());
            }
            (name.to_owned(), labels)
        })
        .collect()
}

/// What is wrong with queries: no PromQL, or about what nobody serves.
pub(super) fn faults(queries: &[(String, String)]) -> Option<Vec<String>> {
    let mut reader = reader()?;
    let texts: Vec<_> = queries.iter().map(|(_, text)| text).collect();
    let said = feed(reader.arg("ask"), &serde_json::to_string(&texts).unwrap());
    let said: Vec<Value> = serde_json::from_str(&said).unwrap();
    assert_eq!(said.len(), queries.len());
    let known = documented();
    let mut faults = Vec::new();
    for ((at, text), said) in queries.iter().zip(said) {
        if let Some(error) = said["error"].as_str() {
            faults.push(format!("{at}: {error}: {text}"));
        }
        let selectors = said["selectors"].as_array().cloned().unwrap_or_default();
        for selector in selectors {
            let metric = selector["metric"].as_str().unwrap();
            let histogram = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|end| metric.strip_suffix(end));
            let labels = known.get(metric).or_else(|| known.get(histogram?));
            let Some(labels) = labels else {
                faults.push(format!("{at}: no program serves {metric}"));
                continue;
            };
            for label in selector["labels"].as_array().unwrap() {
                let label = label.as_str().unwrap();
                let bound = label == "le" && metric.ends_with("_bucket");
                if !bound && !labels.contains(label) {
                    faults.push(format!("{at}: {metric} has no label {label}"));
                }
            }
        }
    }
    Some(faults)
}

#[test]
fn every_query_asks_for_what_is_served() {
    let mut queries = Vec::new();
    for dashboard in dashboards::all() {
        for query in dashboard.queries() {
            let text = interpolate(&query.expression, &values());
            assert!(!text.contains('$'), "{}: {text}", query.at);
            queries.push((query.at, text));
        }
        for (variable, selector, label) in dashboard.variables() {
            // As Prometheus is asked for the values of a label.
            let text = format!("group by ({label}) ({})", interpolate(&selector, &values()));
            queries.push((format!("{}: variable {variable}", dashboard.uid()), text));
        }
    }
    assert!(queries.len() > 60, "{}", queries.len());
    let document = read(root().join("docs/metrics.md"));
    let (_, questions) = document.split_once("\n| question | query |\n").unwrap();
    let rows = questions
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    for row in rows {
        let query = row.split('`').nth(1).expect(row);
        queries.push((format!("docs/metrics.md: {row}"), query.to_owned()));
    }
    let Some(found) = faults(&queries) else {
        return;
    };
    assert!(found.is_empty(), "{}", found.join("\n"));
    // A check that takes everything would be none.
    for (query, fault) in [
        ("sum(towline_leader", "parse error"),
        ("towline_leaders", "no program serves"),
        ("towline_leader{namespace=\"a\"}", "has no label"),
        ("sum by (schedule) (towline_store_ready)", "has no label"),
        ("towline_leader{le=\"1\"}", "has no label"),
        ("towline_leader * on (kind) towline_leader", "has no label"),
    ] {
        let found = faults(&[("here".into(), query.into())]).unwrap();
        assert!(
            found.iter().any(|f| f.contains(fault)),
            "{query}: {found:?}"
        );
    }
}

/// A legend of a label that the query has aggregated away would be empty.
#[test]
fn legends_name_labels_that_are_left() {
    for query in dashboards::all().iter().flat_map(Dashboard::queries) {
        for label in labels_of_legend(&query.legend) {
            let grouped = query.expression.split(" by (").skip(1).any(|rest| {
                let by = rest.split(')').next().unwrap();
                by.split(", ").any(|name| name == label)
            });
            assert!(grouped, "{}: {label}", query.at);
        }
    }
}

#[test]
fn the_chart_ships_the_files() {
    let linked = root().join("deploy/dashboards").canonicalize().unwrap();
    assert_eq!(
        linked,
        chart().join("files/dashboards").canonicalize().unwrap()
    );
    if programs().is_none() {
        return;
    }
    let rendered = objects(&render(&here().join("values/everything.yaml")));
    let shipped: Vec<_> = rendered
        .iter()
        .filter(|o| o["kind"] == "ConfigMap")
        .collect();
    let all = dashboards::all();
    assert_eq!(shipped.len(), all.len());
    for (config_map, dashboard) in shipped.iter().zip(&all) {
        assert_eq!(config_map["metadata"]["labels"]["grafana_dashboard"], "1");
        let data = config_map["data"].as_object().unwrap();
        assert_eq!(data.len(), 1);
        let text = data[&name(dashboard)].as_str().unwrap();
        assert_eq!(text.trim(), read(&dashboard.file).trim());
    }
    let default = objects(&render(&here().join("values/default.yaml")));
    assert!(default.iter().all(|o| o["kind"] != "ConfigMap"));
}

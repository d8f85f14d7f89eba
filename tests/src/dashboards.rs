//! The dashboards of Grafana, and what Grafana makes of a query before Prometheus gets it.

use crate::cluster::root;
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

/// One dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Its file.
    pub file: PathBuf,
    /// What is in it.
    pub json: Value,
}

/// One query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// Dashboard, panel and letter, to find it.
    pub at: String,
    /// As it stands there, with variables.
    pub expression: String,
    /// Whether it is asked for one time only.
    pub instant: bool,
    /// The least `$__interval`, where the panel has one.
    pub least_interval: Option<String>,
    /// How its series are called, with labels in double braces.
    pub legend: String,
}

/// All of them, by name.
pub fn all() -> Vec<Dashboard> {
    let folder = root().join("charts/towline/files/dashboards");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        let json = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Dashboard { file, json }
    };
    files.into_iter().map(read).collect()
}

impl Dashboard {
    /// Its `uid`, by which others link to it.
    pub fn uid(&self) -> &str {
        self.json["uid"].as_str().unwrap()
    }

    /// Panels that are no rows.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = self.json["panels"].as_array().unwrap().iter();
        panels.filter(|panel| panel["type"] != "row")
    }

    /// The queries of its panels.
    pub fn queries(&self) -> Vec<Query> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut queries = Vec::new();
        for panel in self.panels() {
            for target in panel["targets"].as_array().unwrap() {
                queries.push(Query {
                    at: format!("{}: {} {}", self.uid(), panel["title"], target["refId"]),
                    expression: text(&target["expr"]),
                    instant: target["instant"] == true,
                    least_interval: panel["interval"].as_str().map(str::to_owned),
                    legend: text(&target["legendFormat"]),
                });
            }
        }
        queries
    }

    /// Its variables that are asked of Prometheus: name, metric selector, and the label whose values they are.
    pub fn variables(&self) -> Vec<(String, String, String)> {
        let variables = self.json["templating"]["list"].as_array().unwrap().iter();
        variables
            .filter(|variable| variable["type"] == "query")
            .map(|variable| {
                let query = variable["query"]["query"].as_str().unwrap();
                let inner = query.strip_prefix("label_values(").expect(query);
                let (selector, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
                let name = variable["name"].as_str().unwrap();
                (name.to_owned(), selector.to_owned(), label.to_owned())
            })
            .collect()
    }
}

/// Puts values in the place of variables. A name without a value stays as it is.
pub fn interpolate(text: &str, values: &BTreeMap<&str, String>) -> String {
    // `$a` must not take the beginning of `$ab`.
    let mut names: Vec<_> = values.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut text = text.to_owned();
    for name in names {
        text = text.replace(&format!("${{{name}}}"), &values[name]);
        text = text.replace(&format!("${name}"), &values[name]);
    }
    text
}

/// Labels in double braces of a legend.
pub fn labels_of_legend(legend: &str) -> Vec<&str> {
    let parts = legend.split("{{").skip(1);
    parts
        .filter_map(|part| part.split_once("}}"))
        .map(|(label, _)| label.trim())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_values() {
        let values = BTreeMap::from([
            ("__interval", "5m".to_owned()),
            ("name", "a".to_owned()),
            ("namespace", "b".to_owned()),
        ]);
        assert_eq!(
            interpolate(
                "x{n=\"$namespace\",m=\"${name}\"}[$__interval] $other",
                &values
            ),
            "x{n=\"b\",m=\"a\"}[5m] $other"
        );
        assert_eq!(labels_of_legend("{{pod}} and {{ kind }}"), ["pod", "kind"]);
    }
}

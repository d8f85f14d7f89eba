//! The calls that a controller makes, from its own log: kube writes each of them at debug level.

use std::{collections::BTreeMap, fmt::Write as _};

/// How often each verb was used on each resource. Watches are not calls: one lasts for minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls(BTreeMap<(String, String), usize>);

impl Calls {
    /// Counts the calls in a log.
    pub(crate) fn read(log: &str) -> Self {
        let mut calls = BTreeMap::new();
        for call in log.lines().filter_map(call) {
            *calls.entry(call).or_default() += 1;
        }
        Self(calls)
    }

    /// What was called since then.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let counts = self.0.iter().map(|(call, n)| {
            let was = before.0.get(call).copied().unwrap_or_default();
            (call.clone(), n - was)
        });
        Self(counts.filter(|(_, n)| *n > 0).collect())
    }

    pub(crate) fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// A line for each, with the number per run.
    pub(crate) fn table(&self, runs: usize) -> String {
        let mut table = "| resource | verb | calls a run |\n|---|---|---|\n".to_owned();
        for ((resource, verb), n) in &self.0 {
            let each = *n as f64 / runs as f64;
            writeln!(table, "| {resource} | {verb} | {each:.2} |").unwrap();
        }
        table
    }
}

/// Resource and verb of one line, if it is a call.
fn call(line: &str) -> Option<(String, String)> {
    if !line.trim_end().ends_with("requesting") {
        return None;
    }
    let field = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split([' ', '}']).next()
    };
    let verb = field("http.method=")?;
    let url = field("http.url=")?;
    let (_, path) = url.split_once("://").unwrap_or(("", url));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if query.contains("watch=true") {
        return None;
    }
    let path = path.get(path.find('/')?..)?.trim_matches('/');
    Some((resource(path), verb.to_owned()))
}

/// `backupjobs/status` from a path of the API.
fn resource(path: &str) -> String {
    let mut words: Vec<&str> = path.split('/').collect();
    // /api/v1/… or /apis/GROUP/VERSION/…
    words.drain(..words.len().min(if words[0] == "api" { 2 } else { 3 }));
    if words.len() > 2 && words[0] == "namespaces" {
        words.drain(..2);
    }
    match words[..] {
        [resource, _, sub] => format!("{resource}/{sub}"),
        [resource, ..] => resource.to_owned(),
        [] => path.to_owned(),
    }
}

//! The chart as Helm renders it, its values, its alerts and its README. Most of this needs programs and no
//! cluster: `eval "$(tests/cluster/cluster env)"` says where they are, as `make unit` and `make chart` do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

mod accepted;
mod alertmanager;
mod alerts;
mod command_lines;
mod dashboards;
mod documented;
mod refused;
mod snapshots;

use e2e::cluster::root;
use serde_json::Value;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The chart.
fn chart() -> PathBuf {
    root().join("charts/towline")
}

/// What this test has beside its sources.
fn here() -> PathBuf {
    root().join("tests/chart")
}

/// A variable of `tests/cluster/cluster env`. Without any of them the programs are not there, as before the
/// first `make test`: then the test says that it was not run.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        assert!(
            std::env::var_os("TOWLINE_E2E_KUBECONFIG").is_none(),
            "{name} is not set, though the rest of `tests/cluster/cluster env` is"
        );
        eprintln!(
            "not checked: {name} is not set; make chart sets it, once make cluster-up has built the programs"
        );
    }
    value
}

/// The path of the programs, if there are any.
fn programs() -> Option<()> {
    variable("TOWLINE_HELM_DOCS").map(drop)
}

/// The values files, by name.
fn cases() -> Vec<(String, PathBuf)> {
    let mut cases: Vec<_> = std::fs::read_dir(here().join("values"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    cases.sort();
    cases
}

/// Standard output of a command that reads `input`, and must succeed.
fn feed(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // What it did not read, it has complained about.
    drop(writer.join().unwrap());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

fn output(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Standard output of a command that must succeed.
fn run(command: &mut Command) -> String {
    let output = output(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

/// What Helm makes of the chart with a values file.
fn render(values: &Path) -> String {
    run(Command::new("helm")
        .args(["template", "towline", "--namespace", "towline-system"])
        .args(["--values", values.to_str().unwrap()])
        .arg(chart()))
}

/// The objects of a rendered chart.
fn objects(text: &str) -> Vec<Value> {
    documents(text)
        .map(|document| {
            serde_norway::from_str(document).unwrap_or_else(|e| panic!("{e}\n{document}"))
        })
        .filter(|object: &Value| !object.is_null())
        .collect()
}

fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.trim_start_matches("---\n").split("\n---\n")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

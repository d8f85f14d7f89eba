//! The documents are held to the programs: every code block says what it is, every command line is one
//! that its program takes, every link leads somewhere. No cluster is needed; manifests are given to the
//! API server by the scenario `documents`, and what is marked by a second word is run by a scenario.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

mod commands;
mod links;
mod programs;

use e2e::documents;

/// What a block may be; each is looked at by a test here or in tests/e2e/documents.rs, but for the last
/// line of it, which is for reading.
const LANGUAGES: [&str; 14] = [
    "sh",
    "console",
    "yaml",
    "json",
    "promql",
    "mermaid", //
    "sql",
    "toml",
    "http",
    "text",
    "rust",
    "dockerfile",
    "hcl",
    "ini",
];

#[test]
fn every_code_block_says_what_it_is() {
    let mut wrong = Vec::new();
    for block in documents::all().into_iter().flat_map(|d| d.blocks) {
        if !LANGUAGES.contains(&block.language.as_str()) {
            wrong.push(format!("{}: {:?}", block.at, block.language));
        } else if block.language == "json"
            && let Err(error) = serde_json::from_str::<serde_json::Value>(&block.text)
        {
            wrong.push(format!("{}: {error}", block.at));
        }
    }
    assert!(
        wrong.is_empty(),
        "fence it, and name its language:\n{}",
        wrong.join("\n")
    );
}

/// Every file of the runbook kind: a word behind `sh` promises that a scenario runs the block.
#[test]
fn what_says_that_it_is_run_is_run() {
    let followed = ["docs/restore.md", "docs/quickstart.md"];
    for document in documents::all() {
        let run = document
            .blocks
            .iter()
            .find(|block| block.language == "sh" && !block.words.is_empty());
        if let Some(block) = run {
            assert!(
                followed.contains(&document.path.to_str().unwrap()),
                "{}: no scenario runs this document's blocks",
                block.at
            );
        }
    }
}

/// A kustomization can't read a file above its folder, so the tour has a copy.
#[test]
fn the_quick_start_has_the_grants_of_deploy_grants() {
    let read = |path: &str| std::fs::read_to_string(e2e::cluster::root().join(path)).unwrap();
    let grants = read("deploy/grants/mariadb-physical.sql");
    let indented: String = grants.lines().map(|line| format!("    {line}\n")).collect();
    assert!(read("deploy/quickstart/database.yaml").contains(&indented));
}

//! What is deployed says the same in each place where it has to be said.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn deploy(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Every file below a folder of `deploy`.
fn files(of: &str) -> Vec<PathBuf> {
    let mut folders = vec![folder().join(of)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// Words that begin with `TOWLINE_`.
fn variables(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    words.filter(|word| word.starts_with("TOWLINE_")).collect()
}

/// A setting that is misspelled would be none: the agent does not know that it was meant.
#[test]
fn the_sidecars_set_what_the_agent_knows() {
    let help = Command::new(env!("CARGO_BIN_EXE_towline-agent"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let known = variables(&help);
    let mut set = 0;
    for file in files("sidecar").into_iter().chain(files("examples")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for variable in variables(&text) {
            let file = file.display();
            assert!(known.contains(variable), "{file}: {variable}");
            set += 1;
        }
    }
    assert!(set > 10, "{set}");
}

/// The images of a release are of that release.
#[test]
fn the_sidecars_are_of_this_version() {
    for (variant, series) in [
        ("mariadb", "mariadb-10.11"),
        ("mariadb-logical", "mariadb-10.11"),
        ("mysql", "mysql-9"),
    ] {
        let text = deploy(&format!("sidecar/{variant}/kustomization.yaml"));
        let tag = format!("newTag: {}-{series}", env!("CARGO_PKG_VERSION"));
        assert!(
            text.lines().any(|line| line.trim() == tag),
            "{variant}: {tag}"
        );
    }
}

/// Who follows the documents has certificates with the names that sidecars and samples expect.
#[test]
fn certificates_have_the_same_names_everywhere() {
    for document in ["../docs/tls.md", "../README.md"] {
        let command = "--namespace shop --agent-name agent.shop --client-name towline-controller";
        assert!(deploy(document).contains(command), "{document}");
    }
    let agent = deploy("sidecar/agent/agent.yaml");
    for line in ["value: towline-controller", "secretName: towline-agent-tls"] {
        assert!(agent.lines().any(|l| l.trim() == line), "{line}");
    }
    for sample in [
        "samples/backupjob.yaml",
        "samples/backupschedule.yaml",
        "samples/restorejob-agent.yaml",
    ] {
        let text = deploy(sample);
        assert!(text.contains("serverName: agent.shop"), "{sample}");
        assert_eq!(
            text.matches("name: towline-client-tls").count(),
            2,
            "{sample}"
        );
    }
}

//! `kubectl towline` without a cluster: how it is started, what it says to bad input, what it completes.

#![allow(clippy::unwrap_used)]

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A cluster at which nobody listens.
const NOBODY: &str = "apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
current-context: c
";

struct Plugin {
    dir: tempfile::TempDir,
}

impl Plugin {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_towline"));
        for name in ["kubectl-towline", "kubectl_complete-towline"] {
            symlink(program, dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("nobody"), NOBODY).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run_as(&self, name: &str, words: &[&str]) -> Output {
        Command::new(self.path(name))
            .args(words)
            .env("KUBECONFIG", self.path("nobody"))
            .env("HOME", self.dir.path())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap()
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        let output = self.run_as("kubectl-towline", words);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

#[test]
fn bad_input_is_told_in_words_and_by_the_exit_code() {
    let plugin = Plugin::new();
    let absent = plugin.path("absent").display().to_string();
    for (words, code, needle) in [
        (vec![], 2, "Usage: kubectl towline"),
        (vec!["statsu"], 2, "status"),
        (vec!["ls", "pods"], 2, "backups"),
        (vec!["ls", "-o", "xml"], 2, "yaml"),
        (
            vec!["ls", "stores", "--schedule", "nightly"],
            2,
            "--schedule goes with backups",
        ),
        (vec!["status", "-n", "shop", "-A"], 2, "cannot be used with"),
        (
            vec!["status", "-n", "../kube-system"],
            2,
            "cannot be the name",
        ),
        (vec!["explain"], 2, "NAME"),
        (
            vec!["explain", "pod/x"],
            2,
            "write job, restore, schedule or store",
        ),
        (vec!["explain", "x", "-A"], 2, "give -n NAME instead of -A"),
        (vec!["watch", "schedule/nightly"], 2, "does not end"),
        (vec!["logs", "store/offsite"], 2, "no log of its own"),
        (vec!["completion", "cmd"], 2, "bash"),
        (vec!["status"], 5, "the cluster does not answer"),
        (vec!["watch", "x"], 5, "the cluster does not answer"),
        (vec!["status", "--context", "other"], 5, "other"),
        (
            vec!["status", "--kubeconfig", &absent],
            5,
            "give --kubeconfig FILE or set KUBECONFIG",
        ),
    ] {
        let (found, out, err) = plugin.run(&words);
        assert_eq!(found, code, "{words:?}: {err}");
        assert!(err.contains(needle), "{words:?}: {err}");
        assert_eq!(out, "", "{words:?}");
        if code == 5 {
            assert_eq!(err.lines().count(), 1, "{words:?}: {err}");
            assert!(err.starts_with("kubectl towline: "), "{err}");
        }
    }
}

#[test]
fn help_and_version_are_of_the_plugin_under_its_name_only() {
    let plugin = Plugin::new();
    let (code, out, _) = plugin.run(&["--help"]);
    assert_eq!(code, 0);
    for needle in ["Usage: kubectl towline", "Exit codes:", "explain"] {
        assert!(out.contains(needle), "{out}");
    }
    // No colour into a pipe.
    assert!(!out.contains('\u{1b}'), "{out:?}");
    let (code, out, _) = plugin.run(&["--version"]);
    assert_eq!(code, 0);
    assert!(out.contains(env!("CARGO_PKG_VERSION")), "{out}");
    let towline = Command::new(env!("CARGO_BIN_EXE_towline"))
        .arg("--help")
        .output()
        .unwrap();
    let out = String::from_utf8(towline.stdout).unwrap();
    assert!(out.contains("Usage: towline "), "{out}");
}

#[test]
fn kubectl_is_told_candidates_as_it_wants_them() {
    let plugin = Plugin::new();
    let ask = |words: &[&str]| {
        let output = plugin.run_as("kubectl_complete-towline", words);
        assert!(output.status.success());
        assert_eq!(output.stderr, b"");
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = ask(&[""]);
    assert!(
        commands.contains("status\tThe fleet on one screen"),
        "{commands}"
    );
    assert!(!commands.contains("__complete"), "{commands}");
    assert!(commands.ends_with("\n:4\n"), "{commands}");
    assert!(ask(&["status", "-o", "js"]).starts_with("json"));
    // Names need a cluster; without one there are none, and no error.
    assert_eq!(ask(&["explain", ""]).trim(), ":4");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = plugin.run(&["completion", shell]);
        assert_eq!(code, 0);
        assert!(out.contains("kubectl-towline"), "{shell}");
    }
}

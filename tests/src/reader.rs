//! A reader with a shell, who follows a document word for word.

use crate::{Cluster, cluster::root, command::run_command, documents};
use std::{collections::BTreeMap, path::Path};
use tokio::process::Command;

/// The document's scripts, and what its reader has filled in.
pub struct Reader {
    scripts: BTreeMap<String, String>,
    names: Vec<(String, String)>,
    /// Where the commands run: a folder of the reader's own.
    pub folder: tempfile::TempDir,
}

impl Reader {
    /// Reads a document of `docs/`. `names` are the variables that its reader sets, which it must ask for.
    pub fn of(document: &str, cluster: &Cluster, names: &[(&str, &str)]) -> Self {
        let path = root().join("docs").join(document);
        let text = std::fs::read_to_string(&path).unwrap();
        // The blocks of shell by the word behind `sh`; those of one word are one script.
        let mut scripts = BTreeMap::<String, String>::new();
        for block in documents::read(&path, &text).blocks {
            if block.language == "sh" {
                let word = block.words.first().cloned().unwrap_or_default();
                *scripts.entry(word).or_default() += &block.text;
            }
        }
        let mut reader = Self {
            scripts,
            names: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        for (name, value) in names {
            let export = format!("export {name}=");
            assert!(
                reader.scripts.values().any(|s| s.contains(&export)),
                "{document} does not ask for {name}"
            );
            reader.set(name, value);
        }
        reader.set("KUBECONFIG", &cluster.kubeconfig);
        reader.set("AWS_ACCESS_KEY_ID", &cluster.s3_key.0);
        reader.set("AWS_SECRET_ACCESS_KEY", &cluster.s3_key.1);
        reader.set("AWS_ENDPOINT_URL", &cluster.s3_endpoint_here);
        let towline = std::env::var("TOWLINE_E2E_TOWLINE").unwrap();
        let programs = Path::new(&towline).parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap();
        reader.set("PATH", &format!("{programs}:{path}"));
        reader
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.names.push((name.to_owned(), value.to_owned()));
    }

    /// Types what stands in the blocks of this word.
    pub async fn follow(&self, word: &str) -> String {
        self.follow_changed(word, |script| script).await
    }

    /// The same, with something else in its place that the tests' cluster needs.
    pub async fn follow_changed(&self, word: &str, change: impl Fn(String) -> String) -> String {
        self.follow_in(self.folder.path(), word, change).await
    }

    /// The same, in another folder.
    pub async fn follow_in(
        &self,
        folder: &Path,
        word: &str,
        change: impl Fn(String) -> String,
    ) -> String {
        let script = change(self.scripts[word].clone());
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &script])
            .envs(self.names.iter().cloned())
            .current_dir(folder);
        let output = run_command(command, b"").await;
        assert_eq!(
            output.code, 0,
            "{script}\n{}\n{}",
            output.stdout, output.stderr
        );
        output.stdout
    }
}

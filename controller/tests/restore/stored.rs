//! A store that is a folder, with a backup in it.

use crate::mariadb::BACKUP_ID;
use aws_lc_rs::digest::{SHA256, digest};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::process::Command;
use towline_controller::catalog::{FORMAT_VERSION, JobIdentity, Manifest, ObjectRef, Outcome};

/// The folder and what a manifest in it says.
pub(crate) struct Stored {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) manifest: Manifest,
}

impl Stored {
    /// The archive in two objects. `extension` follows `backup.`
    pub(crate) fn new(archive: &[u8], extension: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let identity = JobIdentity {
            cluster_id: "c".into(),
            namespace: "default".into(),
            job_name: "nightly-1".into(),
            job_uid: "u-1".into(),
            schedule_name: Some("nightly".into()),
            schedule_uid: Some("s-1".into()),
            store_uid: None,
            created: now,
        };
        let folder = dir.path().join(identity.folder());
        fs::create_dir_all(folder.join("1")).unwrap();
        let (first, second) = archive.split_at(archive.len() / 2 + 1);
        let mut objects = Vec::new();
        for (part, name) in [(first, ""), (second, ".0001")] {
            let key = format!("{}/1/backup.{extension}{name}", identity.folder());
            fs::write(dir.path().join(&key), part).unwrap();
            objects.push(ObjectRef {
                key,
                bytes: part.len() as u64,
            });
        }
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            outcome: Outcome::Complete,
            identity,
            attempt: 1,
            time: now,
            objects,
            bytes: archive.len() as u64,
            sha256: hex::encode(digest(&SHA256, archive)),
            backup_id: BACKUP_ID.into(),
            method: "physical".into(),
            server_flavour: "mariadb".into(),
            server_version: "10.11".into(),
            position: Default::default(),
            start_time: now,
        };
        let stored = Self { dir, manifest };
        stored.write_manifest();
        stored
    }

    pub(crate) fn write_manifest(&self) {
        let folder = self.dir.path().join(self.manifest.identity.folder());
        let json = serde_json::to_vec(&self.manifest).unwrap();
        fs::write(folder.join("manifest.json"), json).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.dir.path().display())
    }

    pub(crate) fn object(&self, index: usize) -> PathBuf {
        self.dir.path().join(&self.manifest.objects[index].key)
    }

    /// `towline COMMAND --store ... ARGUMENTS`.
    pub(crate) fn towline(&self, command: &str, args: &[&str]) -> Command {
        let mut towline = Command::new(env!("CARGO_BIN_EXE_towline"));
        towline
            .args([command, "--store", &self.url()])
            .args(args)
            .env_remove("RUST_LOG")
            .kill_on_drop(true)
            .stdin(Stdio::null());
        towline
    }

    /// `towline restore --latest --to-dir DIR`.
    pub(crate) async fn restore(&self, to: &Path, args: &[&str]) -> (i32, String, String) {
        let mut towline = self.towline("restore", &["--latest"]);
        towline.arg("--to-dir").arg(to).args(args);
        told(&towline.output().await.unwrap())
    }
}

pub(crate) fn told(output: &Output) -> (i32, String, String) {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

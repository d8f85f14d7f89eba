//! Encrypted backups, opened with the stock `age`.

use crate::rig::{Rig, request};
use crate::server::{Server, feed, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use towline_agent::archive::{ArchiveError, Identities, verify_with};
use towline_agent::backup::{BackupRequest, Compression, Method, StartError};

/// Whether `age` and `zstd` are there; `make test` installs them.
fn stock_tools() -> bool {
    let there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let both = there("age") && there("zstd");
    if !both {
        eprintln!("skipped: the stock age is not installed: apt install age zstd");
    }
    both
}

/// A key pair by `age-keygen`: the file of the identity, and the recipient.
fn key(dir: &Path, name: &str) -> (PathBuf, String) {
    let file = dir.join(name);
    run(Command::new("age-keygen").arg("-o").arg(&file));
    let public = run(Command::new("age-keygen").arg("-y").arg(&file));
    (file, String::from_utf8(public).unwrap().trim().to_owned())
}

fn identities(file: &Path) -> Identities {
    let mut identities = Identities::default();
    identities.add(fs::File::open(file).unwrap()).unwrap();
    identities
}

/// What `age -d` says of an archive; its output is thrown away.
fn age_opens(archive: &Path, identity: &Path) -> bool {
    let status = Command::new("age")
        .arg("-d")
        .arg("-i")
        .arg(identity)
        .arg(archive)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

/// Two recipients: one that the agent always adds, one that the request names. Each opens the
/// archive with stock tools alone, and nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn stock_tools_open_it_and_only_with_the_right_key() {
    if !stock_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (pinned, pinned_key) = key(dir.path(), "pinned");
    let (asked, asked_key) = key(dir.path(), "asked");
    let (stranger, _) = key(dir.path(), "stranger");
    let server = Server::with_user("physical");
    server.fill("orders", "InnoDB", 20);
    let rig = Rig::with(&server, |config| {
        config.require_recipients = vec![pinned_key.parse().unwrap()];
    });
    let request = |compression| BackupRequest {
        compression,
        // Naming one that is pinned changes nothing.
        recipients: vec![pinned_key.parse().unwrap(), asked_key.parse().unwrap()],
        ..request(Method::Physical)
    };
    for (compression, extension, unpack) in [
        (
            Compression::Zstd { level: 3 },
            ".tar.zst.age",
            "zstd -dc | tar -x",
        ),
        (Compression::None, ".tar.age", "tar -x"),
    ] {
        let started = rig.engine.start(request(compression)).await.unwrap();
        assert_eq!(started.content_type, "application/octet-stream");
        let reader = crate::reader::Reader::of(started);
        let name = &reader.file_name;
        assert!(name.ends_with(extension), "{name}");
        let archive = dir.path().join("backup.age");
        let end = reader.end().await;
        end.succeeded();
        fs::write(&archive, &end.bytes).unwrap();

        for identity in [&pinned, &asked] {
            let folder = tempfile::tempdir_in(dir.path()).unwrap();
            let open = format!(
                "set -o pipefail; age -d -i '{}' '{}' | {unpack} && sha256sum --quiet -c SHA256SUMS",
                identity.display(),
                archive.display(),
            );
            run(Command::new("bash")
                .args(["-euc", &open])
                .current_dir(folder.path()));
            let verified = verify_with(&identities(identity), &end.bytes[..], std::io::sink());
            assert_eq!(verified.unwrap().metadata.backup_id, end.id);
            let data = fs::read_dir(folder.path().join("data")).unwrap().count();
            assert!(data > 1, "one member only");
        }
        assert!(!age_opens(&archive, &stranger));
        let refused = verify_with(&identities(&stranger), &end.bytes[..], std::io::sink());
        assert!(
            matches!(refused, Err(ArchiveError::NotForUs)),
            "{refused:?}"
        );

        // Two files differ in head and key stream, whatever is in them.
        let again = rig.start(request(compression)).await.end().await;
        assert_ne!(again.bytes[..400], end.bytes[..400]);
    }
    rig.is_clean(Some(&server)).await;
}

/// What the agent's owner pinned holds for a request that names nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_cannot_do_without_the_pinned_ones() {
    if !stock_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let keys: Vec<_> = (0..21).map(|n| key(dir.path(), &n.to_string())).collect();
    let server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 1);
    let rig = Rig::with(&server, |config| {
        config.require_recipients = vec![keys[0].1.parse().unwrap()];
    });
    let end = rig.start(request(Method::Logical)).await.end().await;
    end.succeeded();
    let plain = feed(
        Command::new("age").arg("-d").arg("-i").arg(&keys[0].0),
        &end.bytes,
    );
    let verified = towline_agent::archive::verify(&plain[..], std::io::sink()).unwrap();
    assert_eq!(verified.metadata.backup_id, end.id);

    let many = |keys: &[(PathBuf, String)]| BackupRequest {
        recipients: keys.iter().map(|key| key.1.parse().unwrap()).collect(),
        ..request(Method::Logical)
    };
    rig.start(many(&keys[..20])).await.end().await.succeeded();
    match rig.refused(many(&keys[1..])).await {
        StartError::BadParameter { parameter, message } => {
            assert_eq!(parameter, "recipient");
            assert!(message.contains("--require-recipient"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    rig.is_clean(Some(&server)).await;
}

/// A backup that is ended in its middle is no age file that opens to its end.
#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_backup_does_not_open() {
    if !stock_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (identity, public) = key(dir.path(), "key");
    let server = Server::with_user("physical");
    server.fill("orders", "InnoDB", 40);
    let rig = Rig::new(&server);
    let request = BackupRequest {
        recipients: vec![public.parse().unwrap()],
        ..request(Method::Physical)
    };
    let mut reader = rig.start(request).await;
    reader.flows().await;
    let id = reader.id.clone();
    assert!(
        rig.engine
            .cancel(&id, towline_agent::protocol::StreamReason::Cancelled)
    );
    let end = reader.end().await;
    end.failed();
    let archive = dir.path().join("aborted.age");
    fs::write(&archive, &end.bytes).unwrap();
    assert!(!age_opens(&archive, &identity));
    let refused = verify_with(&identities(&identity), &end.bytes[..], std::io::sink());
    assert!(
        matches!(refused, Err(ArchiveError::Cut | ArchiveError::Encryption)),
        "{refused:?}"
    );
    rig.is_clean(Some(&server)).await;
}

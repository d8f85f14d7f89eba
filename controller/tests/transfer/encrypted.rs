//! `towline verify` and archives that only a recipient can open.

use crate::{
    agent::{Agent, HEAD, Step, good_trailers},
    body,
    command::{archive, told, towline},
    place::files,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A key pair by `age-keygen`: the identity's file, and the recipient.
fn key(dir: &Path, name: &str) -> (PathBuf, String) {
    let file = dir.join(name);
    let made = Command::new("age-keygen").arg("-o").arg(&file).output();
    assert!(made.unwrap().status.success());
    let public = Command::new("age-keygen").arg("-y").arg(&file).output();
    let public = String::from_utf8(public.unwrap().stdout).unwrap();
    (file, public.trim().to_owned())
}

/// `plain` as the stock program encrypts it.
fn encrypted(dir: &Path, plain: &[u8], recipients: &[&str]) -> Vec<u8> {
    let file = dir.join("plain");
    std::fs::write(&file, plain).unwrap();
    let mut age = Command::new("age");
    for recipient in recipients {
        age.args(["-r", recipient]);
    }
    let output = age.arg(&file).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

async fn verify(store: &str, identities: &[&Path]) -> (i32, String, String) {
    let mut command = towline(&["verify", "--latest", "--store", store]);
    for identity in identities {
        command.arg("--identity").arg(identity);
    }
    told(&command.output().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_opens_what_it_has_an_identity_for() {
    if Command::new("age").arg("--version").output().is_err() {
        eprintln!("skipped: the stock age is not installed: apt install age");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (ours, public) = key(dir.path(), "ours");
    let (other, other_public) = key(dir.path(), "other");
    let (stranger, _) = key(dir.path(), "stranger");
    let bucket = dir.path().join("bucket");
    std::fs::create_dir(&bucket).unwrap();
    let store = format!("file://{}", bucket.display());
    let data = encrypted(
        dir.path(),
        &archive(&body(20 << 20)),
        &[&public, &other_public],
    );
    let head = HEAD.replace("x.tar.zst", "x.tar.zst.age");
    let mut steps = vec![Step::Raw(head.into())];
    steps.extend(data.chunks(300_000).map(|c| Step::Chunk(c.to_vec())));
    steps.push(Step::End(good_trailers(&data)));
    let agent = Agent::start(steps).await;
    let backup = ["backup", "--agent", agent.url.as_str(), "--store", &store];
    let (code, out, err) = told(&towline(&backup).output().await.unwrap());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!(" bytes={} ", data.len())), "{out}");

    // Without an identity it says that it did not look inside.
    let (code, out, err) = verify(&store, &[]).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("not opened") && out.contains("--identity") && !out.contains("good"),
        "{out}"
    );
    for identities in [&[&*ours][..], &[&other], &[&stranger, &other]] {
        let (code, out, err) = verify(&store, identities).await;
        assert_eq!(code, 0, "{err}");
        assert!(
            out.contains(": good") && out.contains("2 in 1 schemas"),
            "{out}"
        );
    }
    let (code, out, err) = verify(&store, &[&stranger]).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("none of the identities"), "{err}");
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "# nothing\n").unwrap();
    for bad in [&empty, &dir.path().join("missing")] {
        let (code, _, err) = verify(&store, &[bad]).await;
        assert_eq!((code, err.contains("--identity")), (2, true), "{err}");
    }

    // The same archive in two objects, as a store with smaller limits has it.
    let stored = files(&bucket);
    let object = stored.iter().find(|f| f.ends_with("backup.tar.zst.age"));
    let object = object.unwrap();
    let middle = data.len() / 2 + 1;
    std::fs::write(object, &data[..middle]).unwrap();
    let next = object.with_extension("age.0001");
    std::fs::write(&next, &data[middle..]).unwrap();
    let manifest = stored.iter().find(|f| f.ends_with("manifest.json"));
    let manifest = manifest.unwrap();
    let text = std::fs::read(manifest).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let first = json["objects"][0]["key"].as_str().unwrap().to_owned();
    json["objects"] = serde_json::json!([
        { "key": first, "bytes": middle },
        { "key": format!("{first}.0001"), "bytes": data.len() - middle },
    ]);
    std::fs::write(manifest, json.to_string()).unwrap();
    let (code, out, err) = verify(&store, &[&ours]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("2 with") && out.contains(": good"), "{out}");
}

//! `towline pki`, and what it makes in use: by stock openssl, and by `towline backup` over TLS.

use crate::{
    agent::{Agent, TOKEN, good},
    command::{told, towline},
    place::files,
    tls::{Ca, attempt, server},
};
use k8s_openapi::api::core::v1::Secret;
use rustls::version::TLS13;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use towline_controller::{
    agent_client::Tls,
    pki::{Authority, Issued, Usage},
};

/// A run of `towline pki`: the Secrets' values as files, and the notes.
struct Made {
    agent: PathBuf,
    client: PathBuf,
    notes: String,
}

async fn pki(dir: &Path, into: &Path, more: &[&str]) -> Made {
    let dir = dir.to_str().unwrap();
    let args = [
        &["pki", "--dir", dir, "--namespace", "shop"][..],
        &["--agent-name", "127.0.0.1", "--agent-name", "agent.shop"],
        &["--client-name", "towline-controller"],
        more,
    ];
    let (code, out, notes) = told(&towline(&args.concat()).output().await.unwrap());
    assert_eq!(code, 0, "{notes}");
    let mut names = Vec::new();
    for document in out.split("---\n").filter(|d| !d.is_empty()) {
        let secret: Secret = serde_norway::from_str(document).unwrap();
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
        assert_eq!(secret.metadata.namespace.as_deref(), Some("shop"));
        let name = secret.metadata.name.unwrap();
        let folder = into.join(&name);
        fs::create_dir_all(&folder).unwrap();
        let data = secret.data.unwrap();
        let keys: Vec<_> = data.keys().map(String::as_str).collect();
        assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
        for (key, value) in data {
            fs::write(folder.join(key), value.0).unwrap();
        }
        names.push(name);
    }
    assert_eq!(names, ["towline-agent-tls", "towline-client-tls"]);
    Made {
        agent: into.join(&names[0]),
        client: into.join(&names[1]),
        notes,
    }
}

fn issued(folder: &Path) -> Issued {
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    Issued {
        certificate: read("tls.crt"),
        key: read("tls.key"),
        not_after: jiff::Timestamp::MAX,
    }
}

#[tokio::test]
async fn the_ca_is_made_once_and_certificates_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, into) = (folder.path().join("ca"), folder.path().join("out"));
    let first = pki(&ca, &into, &[]).await;
    assert!(first.notes.contains("made a CA"), "{}", first.notes);
    let mode = |file: &str| fs::metadata(ca.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("ca.key"), 0o600);
    let before = fs::read(ca.join("ca.crt")).unwrap();
    assert_eq!(fs::read(first.agent.join("ca.crt")).unwrap(), before);
    let key = fs::read_to_string(ca.join("ca.key")).unwrap();
    for file in files(&into) {
        assert!(
            !fs::read_to_string(&file).unwrap().contains(&key),
            "the CA's key leaves its folder"
        );
    }
    let old = issued(&first.agent);

    let second = pki(&ca, &into, &[]).await;
    assert!(!second.notes.contains("made a CA"), "{}", second.notes);
    for said in [
        "--allowed-client=towline-controller",
        "serverName: 127.0.0.1",
    ] {
        assert!(second.notes.contains(said), "{}", second.notes);
    }
    assert_eq!(fs::read(ca.join("ca.crt")).unwrap(), before);
    let new = issued(&second.agent);
    assert!(new.certificate != old.certificate && new.key != old.key);
}

#[tokio::test]
async fn what_cannot_be_done_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca");
    let made = pki(&ca, folder.path(), &[]).await;
    let key = fs::read(ca.join("ca.key")).unwrap();
    let refused = async |code: i32, parts: &[&str], agent_name: &str| {
        let dir = ca.to_str().unwrap();
        let args = [
            "pki",
            "--dir",
            dir,
            "-n",
            "shop",
            "--agent-name",
            agent_name,
            "--client-name",
            "c",
        ];
        let (got, out, err) = told(&towline(&args).output().await.unwrap());
        assert_eq!((got, out.as_str()), (code, ""), "{err}");
        for part in parts {
            assert!(err.contains(part), "{part} is not in {err}");
        }
    };
    refused(2, &["--agent-name", "a b"], "a b").await;
    fs::remove_file(ca.join("ca.key")).unwrap();
    refused(1, &["ca.crt is there without", "put the key back"], "a").await;
    fs::write(ca.join("ca.key"), issued(&made.agent).key).unwrap();
    refused(1, &["ca.key is not the key of that certificate"], "a").await;
    fs::write(ca.join("ca.crt"), issued(&made.agent).certificate).unwrap();
    refused(1, &["ca.crt is not the certificate of a CA"], "a").await;
    fs::remove_file(ca.join("ca.crt")).unwrap();
    fs::write(ca.join("ca.key"), key).unwrap();
    refused(
        1,
        &["ca.key is there without", "put the certificate back"],
        "a",
    )
    .await;
}

/// As docs/tls.md says: first both CAs are trusted everywhere, then the new one signs.
#[tokio::test]
async fn a_ca_is_replaced_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let (before, between, after) = (
        folder.path().join("before"),
        folder.path().join("between"),
        folder.path().join("after"),
    );
    let append = |from: &Path, to: &Path| {
        let more = fs::read_to_string(from.join("ca.crt")).unwrap();
        let all = fs::read_to_string(to.join("ca.crt")).unwrap() + &more;
        fs::write(to.join("ca.crt"), all).unwrap();
    };
    let before = pki(&old, &before, &[]).await;
    pki(&new, folder.path(), &[]).await;
    append(&new, &old);
    let between = pki(&old, &between, &[]).await;
    append(&old, &new);
    let after = pki(&new, &after, &[]).await;
    // Whoever is one step ahead meets whoever is one behind.
    for (agent, client) in [
        (&before, &between),
        (&between, &before),
        (&between, &after),
        (&after, &between),
        (&after, &after),
    ] {
        let clients = fs::read_to_string(agent.agent.join("ca.crt")).unwrap();
        let config = server(&issued(&agent.agent), Some(&clients), &[&TLS13]);
        let running = Agent::with_tls(config, good(b"x")).await;
        let ca = fs::read(client.client.join("ca.crt")).unwrap();
        let us = issued(&client.client);
        let us = (us.certificate.as_bytes(), us.key.as_bytes());
        let tls = Tls::new(Some(&ca), Some(us), None).unwrap();
        attempt(&running, tls, None).await.unwrap();
    }
}

#[tokio::test]
async fn stock_openssl_agrees() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: no openssl: install it to have its opinion of our certificates");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = pki(&folder.path().join("ca"), folder.path(), &[]).await;
    let verify = |folder: &Path, purpose: &str, more: &[&str]| {
        let ca = folder.join("ca.crt");
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(ca)
            .args(more)
            .arg(folder.join("tls.crt"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    for (folder, purpose, good) in [
        (&made.agent, "sslserver", true),
        (&made.agent, "sslclient", false),
        (&made.client, "sslclient", true),
        (&made.client, "sslserver", false),
    ] {
        let (ok, said) = verify(folder, purpose, &[]);
        assert_eq!(ok, good, "{purpose}: {said}");
    }
    // What calls itself a CA below ours is none: pathLenConstraint is 0.
    let read = |file: &str| fs::read_to_string(folder.path().join("ca").join(file)).unwrap();
    let signer = rcgen::KeyPair::from_pem(&read("ca.key")).unwrap();
    let signer = rcgen::Issuer::from_ca_cert_pem(&read("ca.crt"), signer).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut below = rcgen::CertificateParams::default();
    below.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    below.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    below.use_authority_key_identifier_extension = true;
    let below_pem = below.signed_by(&key, &signer).unwrap().pem();
    let now = jiff::Timestamp::now();
    let lower = Authority::read(&below_pem, &key.serialize_pem(), now).unwrap();
    let names = ["agent.shop".to_owned()];
    let leaf = lower.issue(Usage::Server, &names, Duration::from_secs(3600), now);
    let deep = folder.path().join("deep");
    fs::create_dir(&deep).unwrap();
    fs::write(deep.join("ca.crt"), read("ca.crt")).unwrap();
    fs::write(deep.join("below.crt"), &below_pem).unwrap();
    fs::write(deep.join("tls.crt"), leaf.unwrap().certificate).unwrap();
    let between = deep.join("below.crt");
    let (ok, said) = verify(
        &deep,
        "sslserver",
        &["-untrusted", between.to_str().unwrap()],
    );
    assert!(!ok && said.contains("path length"), "{said}");
    for (name, good) in [("agent.shop", true), ("other.shop", false)] {
        let (ok, said) = verify(&made.agent, "sslserver", &["-verify_hostname", name]);
        assert_eq!(ok, good, "{name}: {said}");
    }
}

#[tokio::test]
async fn towline_backup_over_mutual_tls() {
    let folder = tempfile::tempdir().unwrap();
    let ca_folder = folder.path().join("ca");
    let made = pki(&ca_folder, folder.path(), &[]).await;
    let clients = fs::read_to_string(ca_folder.join("ca.crt")).unwrap();
    let config = server(&issued(&made.agent), Some(&clients), &[&TLS13]);
    let agent = Agent::with_tls(config, good(b"x")).await;
    let stranger = Ca::new();
    let other = folder.path().join("other.crt");
    fs::write(&other, &stranger.certificate).unwrap();

    let store_folder = folder.path().join("store");
    fs::create_dir(&store_folder).unwrap();
    let store = format!("file://{}", store_folder.display());
    let path = |folder: &Path, file: &str| folder.join(file).to_str().unwrap().to_owned();
    let (ca, cert, key) = (
        path(&made.client, "ca.crt"),
        path(&made.client, "tls.crt"),
        path(&made.client, "tls.key"),
    );
    let other = other.to_str().unwrap();
    let https = agent.url.as_str();
    let http = https.replace("https", "http");
    let good = [
        "--ca-file",
        &ca,
        "--client-cert",
        &cert,
        "--client-key",
        &key,
    ];
    let secret_key = format!("AGE-SECRET-KEY-1{}", "Q".repeat(58));
    for (code, said, agent_url, args) in [
        (0, "", https, good.to_vec()),
        (
            0,
            "",
            https,
            [&good[..], &["--server-name", "agent.shop"]].concat(),
        ),
        (
            3,
            "is for 127.0.0.1, agent.shop, not for db",
            https,
            [&good[..], &["--server-name", "db"]].concat(),
        ),
        (3, "no CA that is trusted", https, vec!["--ca-file", other]),
        // The system's CAs have never heard of ours.
        (3, "no CA that is trusted", https, vec![]),
        (3, "--client-cert", https, vec!["--ca-file", &ca]),
        (2, "--ca-file is for TLS", &http, vec!["--ca-file", &ca]),
        (
            2,
            "--server-name is for TLS",
            &http,
            vec!["--server-name", "db"],
        ),
        (
            2,
            "--client-cert needs --client-key",
            https,
            vec!["--client-cert", &cert],
        ),
        (
            2,
            "--client-key needs --client-cert",
            https,
            vec!["--client-key", &key],
        ),
        (
            2,
            "not the key of that certificate",
            https,
            vec!["--ca-file", &ca, "--client-cert", &ca, "--client-key", &key],
        ),
        (2, "holds no certificate", https, vec!["--ca-file", &key]),
        (
            2,
            "cannot be read",
            https,
            vec!["--ca-file", "/nonexistent"],
        ),
        (
            2,
            "neither a DNS name",
            https,
            vec!["--ca-file", &ca, "--server-name", "a b"],
        ),
        (2, "public key", https, vec!["--recipient", "age1nope"]),
        (2, "secret key", https, vec!["--recipient", &secret_key]),
        // Nothing is sent in the clear to an agent that does not encrypt.
        (
            1,
            "recipient",
            https,
            [&good[..], &["--recipient", RECIPIENT]].concat(),
        ),
    ] {
        let backup = ["backup", "--agent", agent_url, "--store", &store];
        let (got, out, err) = told(
            &towline(&[&backup[..], &args].concat())
                .output()
                .await
                .unwrap(),
        );
        assert!(
            got == code && err.contains(said),
            "{args:?}: {got}: {out}{err}"
        );
        assert!(!err.contains(&secret_key) && !err.contains(TOKEN), "{err}");
    }
}

/// Without a CA of its own, an agent is trusted when the system trusts who issued its certificate.
#[tokio::test]
async fn the_systems_cas_are_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let made = pki(&folder.path().join("ca"), folder.path(), &[]).await;
    let config = server(&issued(&made.agent), None, &[&TLS13]);
    let agent = Agent::with_tls(config, good(b"x")).await;
    let store = format!("file://{}", folder.path().display());
    let backup = [
        "backup",
        "--agent",
        agent.url.as_str(),
        "--store",
        &store,
        "--name",
        "db",
    ];
    // Where OpenSSL and rustls-native-certs look before anywhere else.
    let ca = made.agent.join("ca.crt");
    for (file, code, said) in [
        (ca.as_path(), 0, ""),
        (&folder.path().join("nothing"), 2, "--ca-file"),
    ] {
        let mut command = towline(&backup);
        command
            .env("SSL_CERT_FILE", file)
            .env_remove("SSL_CERT_DIR");
        let (got, _, err) = told(&command.output().await.unwrap());
        assert!(got == code && err.contains(said), "{file:?}: {got}: {err}");
    }
}

/// A public key from age's own documentation.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

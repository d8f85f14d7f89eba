//! TLS, mutual TLS and encryption together: certificates by `towline pki`, renewed while everything
//! runs; an archive that only its recipients can open.

use e2e::{
    Namespace, PortForward,
    command::run_command,
    database::Database,
    eventually,
    objects::{attempt_reasons, failure},
    run, run_ok,
};
use serde_json::{Value, json};
use std::{fs, io::Write as _, path::Path};
use tokio::process::Command;

/// In the agents' certificate.
pub(crate) const AGENT: &str = "agent.shop";

fn towline() -> String {
    std::env::var("TOWLINE_E2E_TOWLINE")
        .expect("TOWLINE_E2E_TOWLINE is the path of the program `towline`")
}

/// What a user pipes into kubectl; the same folder is the same CA.
pub(crate) async fn pki(ns: &Namespace, folder: &Path) {
    let folder = folder.to_str().unwrap();
    let args = [
        "pki",
        "--dir",
        folder,
        "--namespace",
        &ns.name,
        "--agent-name",
        AGENT,
        "--client-name",
        "towline-controller",
    ];
    let secrets = run_ok(&towline(), &args, b"").await;
    ns.apply(&secrets).await;
}

/// Serial number of a certificate.
async fn serial(pem: &str) -> Result<String, String> {
    let output = run("openssl", &["x509", "-noout", "-serial"], pem.as_bytes()).await;
    if output.code == 0 {
        Ok(output.stdout.trim().to_owned())
    } else {
        Err(output.stderr)
    }
}

async fn secret_value(ns: &Namespace, secret: &str, key: &str) -> String {
    let template = format!("go-template={{{{index .data {key:?} | base64decode}}}}");
    ns.kubectl_ok(&["get", "secret", secret, "-o", &template])
        .await
}

/// Serial number of the certificate in the agents' Secret.
async fn serial_in_secret(ns: &Namespace) -> String {
    let pem = secret_value(ns, "towline-agent-tls", "tls.crt").await;
    serial(&pem).await.unwrap()
}

/// Serial number of the certificate that the agent shows to a caller that has one of its own.
async fn serial_served(ns: &Namespace, pod: &str) -> Result<String, String> {
    let ours = tempfile::NamedTempFile::new().unwrap();
    for key in ["tls.crt", "tls.key"] {
        let pem = secret_value(ns, "towline-client-tls", key).await;
        ours.as_file().write_all(pem.as_bytes()).unwrap();
    }
    let ours = ours.path().to_str().unwrap();
    // A forwarded port ends when the agent resets a connection, so each call has its own.
    let forward = PortForward::start(ns, pod, 8474).await;
    let at = forward.address();
    let args = [
        "s_client",
        "-connect",
        at,
        "-servername",
        AGENT,
        "-cert",
        ours,
        "-key",
        ours,
    ];
    let shown = run("openssl", &args, b"").await;
    serial(&shown.stdout).await
}

/// A new key: what must be kept secret is in `file`, the public key is the answer.
async fn age_key(file: &Path) -> String {
    let file = file.to_str().unwrap();
    run_ok("age-keygen", &["-o", file], b"").await;
    let key = run_ok("age-keygen", &["-y", file], b"").await;
    key.trim().to_owned()
}

/// `age -d`, `zstd -d`, `tar x`, `sha256sum -c`.
async fn open(archive: &[u8], key: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("backup.tar.zst.age"), archive).unwrap();
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", "age -d -i \"$0\" backup.tar.zst.age | zstd -qd | tar -x; sha256sum -c --quiet SHA256SUMS"])
        .arg(key)
        .current_dir(folder.path());
    let output = run_command(command, b"").await;
    if output.code != 0 {
        return Err(output.stderr);
    }
    assert!(folder.path().join("data/0000000000.xbs").exists());
    Ok(())
}

/// Uid of each pod, and restarts of each of its containers.
async fn lives(ns: &Namespace) -> Vec<String> {
    let template = "{range .items[*]}{.metadata.uid}{range .status.initContainerStatuses[*]} {.name}={.restartCount}{end}{range .status.containerStatuses[*]} {.name}={.restartCount}{end}{\"\\n\"}{end}";
    let pods = ns
        .kubectl_ok(&[
            "get",
            "pods",
            "--sort-by=.metadata.name",
            "-o",
            &format!("jsonpath={template}"),
        ])
        .await;
    pods.lines().map(str::to_owned).collect()
}

pub(crate) fn tls(server_name: &str) -> Value {
    let ours = json!({"name": "towline-client-tls"});
    json!({"tls": {"serverName": server_name, "caSecretRef": ours, "clientCertSecretRef": ours}})
}

#[tokio::test]
async fn mutual_tls_encryption_and_renewal_without_a_restart() {
    let ns = Namespace::create("tls").await;
    ns.install_controller(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let (required, wanted, stranger) = (
        folder.path().join("required"),
        folder.path().join("wanted"),
        folder.path().join("stranger"),
    );
    let recipient = age_key(&required).await;
    let another = age_key(&wanted).await;
    age_key(&stranger).await;
    let ca = folder.path().join("ca");
    pki(&ns, &ca).await;
    let db = Database::mariadb_over_tls(&ns, "mariadb", &recipient).await;
    db.load_shop().await;
    let bucket = ns.ready_store().await;

    let encrypted = json!({"method": "physical", "source": tls(AGENT), "encryption": {"recipients": [another]}});
    ns.job("first", db.app(), encrypted).await;
    let job = ns.job_ends("first", "Succeeded").await;
    assert!(
        job["status"]["timings"]["tls"].is_number(),
        "{}",
        job["status"]
    );
    let key = job["status"]["objects"][0]["key"].as_str().unwrap();
    assert!(key.ends_with("/backup.tar.zst.age"), "{key}");
    bucket.assert_one_backup(&job).await;
    let archive = bucket.archive(&job).await;
    for key in [&required, &wanted] {
        open(&archive, key).await.unwrap();
    }
    open(&archive, &stranger).await.unwrap_err();
    let (id, secret) = &ns.cluster.s3_key;
    let verify = [
        &format!("AWS_ACCESS_KEY_ID={id}"),
        &format!("AWS_SECRET_ACCESS_KEY={secret}"),
        &towline(),
        "verify",
        "--latest",
        "--identity",
        wanted.to_str().unwrap(),
        "--store",
        &format!("s3://{}/backups", bucket.name),
        "--endpoint-url",
        &ns.cluster.s3_endpoint_here,
        "--allow-http",
        "--namespace",
        &ns.name,
    ];
    let told = run_ok("env", &verify, b"").await;
    assert!(told.contains("mariadb-backup"), "{told}");

    let before = lives(&ns).await;
    let old = serial_served(&ns, db.pod()).await.unwrap();
    assert_eq!(old, serial_in_secret(&ns).await);
    pki(&ns, &ca).await;
    let new = serial_in_secret(&ns).await;
    assert_ne!(new, old);
    // The kubelet takes its time to bring a changed Secret into a pod.
    eventually("the agent shows its new certificate", || async {
        match serial_served(&ns, db.pod()).await? {
            served if served == new => Ok(()),
            served => Err(served),
        }
    })
    .await;
    // Asked for no recipient, the agent encrypts to those that it requires; asked for no method, it
    // says which one it took, for the archive says nothing.
    ns.job("second", db.app(), json!({"source": tls(AGENT)}))
        .await;
    let job = ns.job_ends("second", "Succeeded").await;
    assert_eq!(job["status"]["method"], "physical", "{}", job["status"]);
    let archive = bucket.archive(&job).await;
    open(&archive, &required).await.unwrap();
    open(&archive, &wanted).await.unwrap_err();
    assert_eq!(lives(&ns).await, before);

    let mut no_certificate = tls(AGENT);
    no_certificate["tls"]
        .as_object_mut()
        .unwrap()
        .remove("clientCertSecretRef");
    for (name, source, words) in [
        (
            "wrong-name",
            tls("other.shop"),
            vec![AGENT, "not for other.shop", "serverName"],
        ),
        (
            "no-certificate",
            no_certificate,
            vec!["client certificate", "clientCertSecretRef"],
        ),
    ] {
        ns.job(name, db.app(), json!({"backoffLimit": 0, "source": source}))
            .await;
        let job = ns.job_ends(name, "Failed").await;
        assert_eq!(
            attempt_reasons(&job),
            ["AgentUnreachable"],
            "{}",
            job["status"]
        );
        let (_, message) = failure(&job);
        for word in words {
            assert!(message.contains(word), "{word} is not in: {message}");
        }
    }
    ns.delete().await;
}

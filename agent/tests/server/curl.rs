//! What a person with curl sees of a failed backup: the trailer, or an exit code that is not 0.

use crate::harness::{Harness, LIMITS, NO_DRAIN, Script};
use crate::pki::{self, AGENT, Access, CALLER, Ca, Mount};

/// Runs curl with `-f`; returns its exit code and the headers and trailers it saw. `None` without curl.
async fn curl(server: &Harness, args: &[&str]) -> Option<(i32, String)> {
    let url = format!("http://{}/v1/backup", server.addr);
    run(&url, args).await
}

async fn run(url: &str, args: &[&str]) -> Option<(i32, String)> {
    let output = tokio::process::Command::new("curl")
        .args(["-f", "-sS", "--noproxy", "*", "-o", "/dev/null", "-D", "-"])
        .args(args)
        .arg(url)
        .output()
        .await;
    match output {
        Ok(output) => Some((
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )),
        Err(error) => {
            eprintln!("not run: curl does not start: {error}");
            None
        }
    }
}

#[tokio::test]
async fn a_failed_backup_is_always_visible() {
    let server = Harness::open().await;
    server.fake.script(Script::failed("half an archive"));
    for (args, trailers, exit_code) in [
        (&["--http1.1"][..], false, 18),
        (&["--http1.1", "-H", "TE: trailers"], true, 0),
        (&["--http2-prior-knowledge"], false, 92),
        (&["--http2-prior-knowledge", "-H", "TE: trailers"], true, 0),
    ] {
        let Some((code, seen)) = curl(&server, args).await else {
            return;
        };
        let seen = seen.to_ascii_lowercase();
        assert_eq!(
            seen.contains("x-streaming-error: mariadb-backup"),
            trailers,
            "{args:?}: {seen}"
        );
        assert_eq!(code, exit_code, "{args:?}: {seen}");
    }
    server.fake.script(Script::Run {
        chunks: vec!["half".into()],
        failed: None,
    });
    for args in [
        &["--http1.1"][..],
        &["--http1.1", "-H", "TE: trailers"],
        &["--http2-prior-knowledge"],
    ] {
        let Some((code, seen)) = curl(&server, args).await else {
            return;
        };
        assert_ne!(code, 0, "{args:?}: {seen}");
    }
}

#[tokio::test]
async fn a_complete_backup_is_a_success() {
    let server = Harness::open().await;
    for args in [
        &["--http1.1"][..],
        &["--http1.1", "-H", "TE: trailers"],
        &["--http2-prior-knowledge"],
    ] {
        let Some((code, seen)) = curl(&server, args).await else {
            return;
        };
        assert_eq!(code, 0, "{args:?}: {seen}");
    }
}

#[tokio::test]
async fn a_refusal_is_an_error() {
    let server = Harness::open().await;
    server
        .fake
        .refuse(towline_agent::backup::StartError::Draining);
    if let Some((code, _)) = curl(&server, &[]).await {
        assert_eq!(code, 22);
    }
}

#[tokio::test]
async fn mutual_tls_with_files_as_a_person_has_them() {
    let ca = Ca::new("ca");
    let mount = Mount::of(&ca.server(), &ca);
    let (caller, stranger) = (ca.client(&[CALLER]), ca.client(&["other.example.org"]));
    let files = Mount::new(&[
        ("caller.crt", &caller.cert),
        ("caller.key", &caller.key),
        ("stranger.crt", &stranger.cert),
        ("stranger.key", &stranger.key),
        ("other-ca.crt", &Ca::new("other").pem()),
    ]);
    let server = pki::start(&mount, Access::Certificates, LIMITS, NO_DRAIN).await;
    server.fake.script(Script::complete("an archive"));
    let port = server.addr.port();
    let url = format!("https://{AGENT}:{port}/v1/backup");
    let resolve = format!("{AGENT}:{port}:127.0.0.1");
    let path = |mount: &Mount, name: &str| mount.path(name).display().to_string();
    let trusted = path(&mount, "ca.crt");
    let (cert, key) = (path(&files, "caller.crt"), path(&files, "caller.key"));
    let common = ["--resolve", &resolve, "-H", "TE: trailers"];
    let as_caller = ["--cacert", &trusted, "--cert", &cert, "--key", &key];
    for (protocol, head) in [
        ("--http1.1", "http/1.1 200"),
        ("--http2", "http/2 200"),
        ("--tls-max=1.2", "http/2 200"),
    ] {
        // `--tls-max` takes its value apart.
        let protocol: Vec<&str> = protocol.split('=').collect();
        let args = [&common[..], &as_caller, &protocol].concat();
        let Some((code, seen)) = run(&url, &args).await else {
            return;
        };
        let seen = seen.to_ascii_lowercase();
        assert_eq!(code, 0, "{protocol:?}: {seen}");
        assert!(seen.starts_with(head), "{protocol:?}: {seen}");
        assert!(
            seen.contains("x-streaming-error: \r\n") && seen.contains("x-backup-bytes: 10"),
            "{protocol:?}: {seen}"
        );
    }
    server.fake.script(Script::failed("half an archive"));
    for protocol in ["--http1.1", "--http2"] {
        let args = [&common[..], &as_caller, &[protocol]].concat();
        let (_, seen) = run(&url, &args).await.expect("curl ran before");
        let seen = seen.to_ascii_lowercase();
        assert!(seen.contains("x-streaming-error: mariadb-backup"), "{seen}");
    }
    let starts = server.fake.starts();
    let (cert, key) = (path(&files, "stranger.crt"), path(&files, "stranger.key"));
    let other_ca = path(&files, "other-ca.crt");
    for (args, expected) in [
        // 22: an answer of 400 or more. 60: the agent's certificate is not trusted.
        (
            &["--cacert", &trusted, "--cert", &cert, "--key", &key][..],
            Some(22),
        ),
        (&["--cacert", &other_ca], Some(60)),
        (&["--cacert", &trusted], None),
    ] {
        let args = [&common[..], args].concat();
        let (code, seen) = run(&url, &args).await.expect("curl ran before");
        assert_ne!(code, 0, "{seen}");
        assert_eq!(expected.unwrap_or(code), code, "{args:?}: {seen}");
    }
    assert_eq!(server.fake.starts(), starts);
}

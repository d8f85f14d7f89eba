//! What a person with curl sees of a failed backup: the trailer, or an exit code that is not 0.

use crate::harness::{Harness, Script};

/// Runs curl with `-f`; returns its exit code and the headers and trailers it saw. `None` without curl.
async fn curl(server: &Harness, args: &[&str]) -> Option<(i32, String)> {
    let url = format!("http://{}/v1/backup", server.addr);
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
    for (args, trailers) in [
        (&["--http1.1"][..], false),
        (&["--http1.1", "-H", "TE: trailers"], true),
        (&["--http2-prior-knowledge"], true),
        (&["--http2-prior-knowledge", "-H", "TE: trailers"], true),
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
        assert!(
            trailers || code == 18,
            "{args:?}: curl's exit code is {code}"
        );
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

use crate::harness::{Harness, raw};
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;
use towline_agent::backup::BackupMetrics;
use towline_agent::build::Build;
use towline_agent::metrics::TlsMetrics;

async fn scrape(server: &Harness) -> String {
    let answer = raw(
        server.admin,
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status(), 200);
    answer.text().split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn requests_are_counted_by_route_never_by_path() {
    let server = Harness::open().await;
    server
        .request("GET /v1/backup?level=2", "TE: trailers\r\n")
        .await;
    server.request("GET /v1/backup?level=x", "").await;
    server.request("DELETE /v1/backup/whatever", "").await;
    server.request("GET /v1/anything-a-caller-likes", "").await;
    let text = scrape(&server).await;
    for line in [
        r#"towline_agent_http_requests_total{path="/v1/backup",status="200"} 1"#,
        r#"towline_agent_http_requests_total{path="/v1/backup",status="400"} 1"#,
        r#"towline_agent_http_requests_total{path="/v1/backup/{id}",status="404"} 1"#,
        r#"towline_agent_http_requests_total{path="other",status="404"} 1"#,
        "towline_agent_http_connections ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("whatever") && !text.contains("likes"));
}

#[tokio::test]
async fn promtool_is_content() {
    let server = Harness::open().await;
    let _backups = BackupMetrics::new(&server.registry).unwrap();
    let _tls = TlsMetrics::new(&server.registry).unwrap();
    Build::new(None)
        .register("towline_agent_build_info", &server.registry)
        .unwrap();
    server.request("GET /v1/backup", "TE: trailers\r\n").await;
    let text = scrape(&server).await;
    let tool = tokio::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = match tool {
        Ok(tool) => tool,
        Err(error) => {
            eprintln!("not checked: promtool (package prometheus) does not start: {error}");
            return;
        }
    };
    tool.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .await
        .unwrap();
    let output = tool.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

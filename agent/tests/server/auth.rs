use crate::harness::{Answer, Harness, LIMITS, NO_DRAIN, Script};
use std::io::Write as _;
use std::path::PathBuf;
use towline_agent::server::{Auth, TokenFile};

struct Tokens {
    dir: tempfile::TempDir,
}

impl Tokens {
    fn new(text: &str) -> Self {
        let tokens = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        tokens.write(text);
        tokens
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tokens")
    }

    fn write(&self, text: &str) {
        std::fs::File::create(self.path())
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    async fn harness(&self) -> Harness {
        let auth = Auth::Tokens(TokenFile::open(self.path()).await.unwrap());
        Harness::start(auth, LIMITS, NO_DRAIN).await
    }
}

const FILE: &str = "all-token backup cancel restore # everything\nb-token backup\nc-token cancel\n";

#[tokio::test]
async fn odd_forms_of_the_header_are_no_credentials() {
    let tokens = Tokens::new(FILE);
    let server = tokens.harness().await;
    for stranger in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer b-toke\r\n",
        "Authorization: Bearer b-tokenb-token\r\n",
        "Authorization: b-token\r\n",
        "Authorization: Basic b-token\r\n",
        "Authorization: Bearer b-token\r\nAuthorization: Bearer b-token\r\n",
    ] {
        let answer = server.request("GET /v1/backup", stranger).await;
        assert_eq!(answer.status(), 401, "{stranger}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        assert!(!answer.text().contains("b-token"), "{}", answer.text());
    }
    assert_eq!(server.fake.starts(), 0);
}

#[tokio::test]
async fn a_missing_scope_and_a_wrong_method_are_named() {
    let tokens = Tokens::new(FILE);
    let server = tokens.harness().await;
    let ask = async |line: &str, token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        server.request(line, &header).await
    };
    for (line, token, scope) in [
        ("GET /v1/backup", "c-token", "backup"),
        ("DELETE /v1/backup/b-9", "b-token", "cancel"),
        ("POST /v1/restore", "b-token", "restore"),
    ] {
        let answer = ask(line, token).await;
        assert_eq!(answer.status(), 403);
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.contains(&format!("scope=\"{scope}\"")),
            "{challenge}"
        );
    }
    for (line, allowed) in [
        ("POST /v1/backup", "GET"),
        ("GET /v1/backup/b-9", "DELETE"),
        ("PUT /v1/info", "GET"),
        ("GET /v1/restore", "POST"),
    ] {
        let answer = ask(line, "all-token").await;
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.header("allow").as_deref(), Some(allowed));
    }
}

#[tokio::test]
async fn cancelling_works_for_the_running_id_only() {
    let server = Harness::open().await;
    server.fake.script(Script::Manual);
    let mut reader = server.connect().await;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    reader
        .write_all(
            b"GET /v1/backup HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    crate::harness::eventually("started", || (server.fake.starts() == 1).then_some(())).await;
    assert_eq!(
        server.request("DELETE /v1/backup/other", "").await.status(),
        404
    );
    assert_eq!(
        server.request("DELETE /v1/backup/b-1", "").await.status(),
        202
    );
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(
        Answer(bytes).trailer("x-streaming-error-reason").as_deref(),
        Some("Cancelled")
    );
}

#[tokio::test]
async fn a_changed_token_file_counts_from_the_next_request_on() {
    let tokens = Tokens::new(FILE);
    let server = tokens.harness().await;
    let status = async |token: &str| {
        server
            .request(
                "GET /v1/info",
                &format!("Authorization: Bearer {token}\r\n"),
            )
            .await
            .status()
    };
    assert_eq!(status("b-token").await, 200);
    assert_eq!(status("new-token").await, 401);
    tokens.write("new-token backup\n");
    assert_eq!(status("new-token").await, 200);
    assert_eq!(status("b-token").await, 401);
    // A broken file, an empty one and a missing one leave the last good tokens in force.
    for broken in ["half a line", "", "third-token root\n"] {
        tokens.write(broken);
        assert_eq!(status("new-token").await, 200, "{broken:?}");
        assert_eq!(status("third-token").await, 401, "{broken:?}");
    }
    std::fs::remove_file(tokens.path()).unwrap();
    assert_eq!(status("new-token").await, 200);
    tokens.write("third-token backup\n");
    assert_eq!(status("third-token").await, 200);
    assert_eq!(status("new-token").await, 401);
}

#[tokio::test]
async fn a_bad_token_file_at_the_start_is_an_error() {
    for text in ["", "token\n", "token root\n"] {
        let tokens = Tokens::new(text);
        let error = TokenFile::open(tokens.path()).await.unwrap_err();
        assert!(error.to_string().contains("tokens"), "{error}");
    }
    assert!(
        TokenFile::open("/nowhere/tokens".into())
            .await
            .unwrap_err()
            .to_string()
            .contains("--token-file")
    );
}

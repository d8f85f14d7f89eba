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
async fn every_endpoint_with_every_kind_of_credentials() {
    let tokens = Tokens::new(FILE);
    let server = tokens.harness().await;
    // What each token may do; strangers get 401 everywhere.
    let endpoints = [
        ("GET /v1/backup", [200, 200, 403]),
        ("DELETE /v1/backup/b-9", [404, 403, 404]),
        ("GET /v1/info", [200, 200, 200]),
        ("HEAD /v1/backup", [405, 405, 405]),
        ("POST /v1/backup", [405, 405, 405]),
        ("GET /v1/backup/b-9", [405, 405, 405]),
        ("PUT /v1/info", [405, 405, 405]),
        ("GET /v1/restore", [404, 404, 404]),
        ("GET /v1/", [404, 404, 404]),
        ("GET /", [404, 404, 404]),
        ("GET /metrics", [404, 404, 404]),
    ];
    let strangers = [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer b-toke\r\n",
        "Authorization: Bearer b-tokenb-token\r\n",
        "Authorization: b-token\r\n",
        "Authorization: Basic b-token\r\n",
        "Authorization: Bearer b-token\r\nAuthorization: Bearer b-token\r\n",
    ];
    for (endpoint, allowed) in endpoints {
        for stranger in strangers {
            let answer = server.request(endpoint, stranger).await;
            assert_eq!(answer.status(), 401, "{endpoint} {stranger}");
            assert!(
                answer
                    .header("www-authenticate")
                    .unwrap()
                    .starts_with("Bearer"),
                "{endpoint}"
            );
            assert!(!answer.text().contains("b-token"), "{endpoint}");
        }
        for (token, status) in ["all-token", "b-token", "c-token"].into_iter().zip(allowed) {
            let answer = server
                .request(endpoint, &format!("Authorization: Bearer {token}\r\n"))
                .await;
            assert_eq!(answer.status(), status, "{endpoint} {token}");
            if status == 403 {
                let scope = if endpoint.starts_with("GET") {
                    "backup"
                } else {
                    "cancel"
                };
                let challenge = answer.header("www-authenticate").unwrap();
                assert!(
                    challenge.contains(&format!("scope=\"{scope}\"")),
                    "{challenge}"
                );
            }
            if status == 405 {
                assert!(!answer.header("allow").unwrap().is_empty());
            }
        }
    }
    assert_eq!(
        server.fake.starts(),
        2,
        "only the two GETs that were let in start a backup"
    );
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

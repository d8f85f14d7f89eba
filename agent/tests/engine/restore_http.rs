//! `POST /v1/restore` of a real agent beside a real MariaDB, seen through curl.

use crate::agent::{Agent, field, said};
use crate::server::{Server, eventually};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use towline_agent::protocol::encode_digest;
use towline_agent::restore::logical::UNFINISHED;

const H1: &[&str] = &["--http1.1"];
const H1_TE: &[&str] = &["--http1.1", "-H", "TE: trailers"];
const H2_TE: &[&str] = &["--http2-prior-knowledge", "-H", "TE: trailers"];

/// A logical backup of a server with about 40 MB, as a file.
struct Archive {
    dir: tempfile::TempDir,
    version: String,
    checksum: String,
}

const CHECKSUM: &str = "CHECKSUM TABLE shop.orders EXTENDED";

impl Archive {
    fn new() -> Self {
        let source = Server::with_user("logical");
        source.fill("orders", "InnoDB", 40);
        let agent = Agent::start(&source, &[]);
        let mut curl = agent.curl("method=logical", H1_TE);
        assert_eq!(curl.end().0, 0);
        let dir = tempfile::tempdir().unwrap();
        fs::copy(curl.body(), dir.path().join("archive")).unwrap();
        Self {
            dir,
            version: source.sql("SELECT VERSION()").trim().to_owned(),
            checksum: source.sql(CHECKSUM),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn digest(&self) -> String {
        digest(&fs::read(self.path()).unwrap())
    }

    fn query(&self) -> String {
        let version = self.version.replace('+', "%2B");
        format!("database=shop&flavour=mariadb&version={version}")
    }
}

fn digest(bytes: &[u8]) -> String {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    format!(
        "Repr-Digest: {}",
        encode_digest(sum.as_ref().try_into().unwrap())
    )
}

/// An empty server whose user may restore.
fn target() -> Server {
    let server = Server::with_user("logical");
    server.grant("restore");
    server
}

/// curl on a restore.
struct Restore {
    child: Child,
    dir: tempfile::TempDir,
}

impl Restore {
    fn start(agent: &Agent, query: &str, archive: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new("curl")
            .args(["-sS", "-v", "--no-buffer", "--noproxy", "*", "-X", "POST"])
            .args([
                "--expect100-timeout",
                "60",
                "-H",
                "Expect: 100-continue",
                "-T",
            ])
            .arg(archive)
            .arg("-o")
            .arg(dir.path().join("body"))
            .arg("-D")
            .arg(dir.path().join("head"))
            .args(args)
            .arg(format!("{}/v1/restore?{query}", agent.url))
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }

    /// Exit code, status, and what came as headers and trailers.
    fn end(&mut self) -> (i32, u16, Vec<(String, String)>) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let head = self.text("head");
        let last = head.lines().rfind(|line| line.starts_with("HTTP/"));
        let status = last.and_then(|line| line.split(' ').nth(1));
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        let fields = fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        (code, status.map_or(0, |s| s.parse().unwrap()), fields)
    }

    /// The refusal of one that has to be refused before a byte was sent.
    fn refused(&mut self) -> (u16, serde_json::Value) {
        let (_, status, fields) = self.end();
        let problem = serde_json::from_str(&self.text("body"))
            .unwrap_or_else(|_| panic!("{fields:?}: {}", self.text("log")));
        let log = self.text("log");
        assert!(!log.contains("100 Continue"), "{log}");
        (status, problem)
    }
}

fn marked(server: &Server) -> bool {
    let count = format!(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop' AND table_name = '{UNFINISHED}'"
    );
    server.sql(&count).trim() == "1"
}

#[test]
fn a_backup_goes_into_a_running_server() {
    let archive = Archive::new();
    let server = target();
    let agent = Agent::start(&server, &["--allow-restore"]);
    let info = said(Command::new("curl").args(["-fsS", &format!("{}/v1/info", agent.url)]));
    assert!(info.contains("\"restore\""), "{info}");
    for args in [H1_TE, H1, H2_TE] {
        let digest = archive.digest();
        let args: Vec<&str> = args.iter().copied().chain(["-H", &digest]).collect();
        let mut restore = Restore::start(&agent, &archive.query(), &archive.path(), &args);
        let (code, status, fields) = restore.end();
        let log = restore.text("log");
        assert_eq!((code, status), (0, 200), "{log}");
        assert_eq!(field(&fields, "content-type"), Some("application/x-ndjson"));
        if args.contains(&"TE: trailers") {
            assert_eq!(field(&fields, "x-streaming-error"), Some(""), "{log}");
            let body = restore.text("body");
            assert_eq!(
                field(&fields, "x-backup-bytes"),
                Some(body.len().to_string().as_str())
            );
            let sent = self::digest(body.as_bytes());
            assert_eq!(
                field(&fields, "repr-digest").map(|d| format!("Repr-Digest: {d}")),
                Some(sent)
            );
        }
        if !args.contains(&"--http2-prior-knowledge") {
            assert!(log.contains("100 Continue"), "{log}");
        }
        let stages: Vec<String> = restore
            .text("body")
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|look| look["stage"].as_str().unwrap().to_owned())
            .collect();
        assert!(stages.contains(&"Loading".to_owned()), "{stages:?}");
        assert_eq!(stages.last().unwrap(), "Ended");
        assert_eq!(server.sql(CHECKSUM), archive.checksum);
        assert!(!marked(&server));
        agent.is_clean(&server);
        server.sql("DROP DATABASE shop");
    }
}

#[test]
fn what_cannot_be_is_refused_before_a_byte() {
    let archive = Archive::new();
    let server = target();
    server.sql("CREATE DATABASE full; CREATE TABLE full.t (x INT)");
    let agent = Agent::start(&server, &["--allow-restore"]);
    let digest = archive.digest();
    let query = archive.query();
    let without = |name: &str| {
        let parts = query.split('&').filter(|part| !part.starts_with(name));
        parts.collect::<Vec<_>>().join("&")
    };
    for (query, status, word, detail) in [
        (without("database"), 400, "bad-parameter", "database"),
        (without("flavour"), 400, "bad-parameter", "flavour"),
        (without("version"), 400, "bad-parameter", "version"),
        (
            format!("{query}&events=maybe"),
            400,
            "bad-parameter",
            "as-backed-up",
        ),
        (
            format!("{query}&routines=1"),
            400,
            "bad-parameter",
            "true or false",
        ),
        (
            format!("{query}&compression=zstd"),
            400,
            "bad-parameter",
            "unknown",
        ),
        (
            format!("{query}&database=mysql"),
            400,
            "bad-parameter",
            "belongs to the server",
        ),
        (
            query.replace("shop", "full"),
            409,
            "target-not-empty",
            "\"t\"",
        ),
        (
            query.replace("flavour=mariadb", "flavour=mysql"),
            422,
            "incompatible",
            "mysql",
        ),
        (
            format!("{}&version=99.1.0", without("version")),
            422,
            "incompatible",
            "older",
        ),
        (
            format!("{query}&include-users=true"),
            422,
            "target-unfit",
            "CREATE USER",
        ),
        (
            format!("{query}&gtid-purged=0-1-5"),
            422,
            "target-unfit",
            "do not fit",
        ),
    ] {
        let args = [H1_TE, &["-H", &digest]].concat();
        let mut restore = Restore::start(&agent, &query, &archive.path(), &args);
        let (got, problem) = restore.refused();
        let kind = format!("urn:towline:problem:{word}");
        assert_eq!(
            (got, problem["type"].as_str()),
            (status, Some(kind.as_str())),
            "{problem}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(detail),
            "{problem}"
        );
    }
    for (header, args) in [
        ("repr-digest", H1_TE.to_vec()),
        (
            "repr-digest",
            [H1_TE, &["-H", "Repr-Digest: sha-256=:x:"]].concat(),
        ),
        (
            "content-length",
            [H1_TE, &["-H", &digest, "-H", "Transfer-Encoding: chunked"]].concat(),
        ),
    ] {
        let mut restore = Restore::start(&agent, &query, &archive.path(), &args);
        let (status, problem) = restore.refused();
        assert_eq!(
            (status, problem["parameter"].as_str()),
            (400, Some(header)),
            "{problem}"
        );
    }
    assert_eq!(server.sql("SHOW DATABASES LIKE 'shop'"), "");
    agent.is_clean(&server);

    let closed = Agent::start(&server, &[]);
    let args = [H1_TE, &["-H", &digest]].concat();
    let (status, problem) = Restore::start(&closed, &query, &archive.path(), &args).refused();
    assert_eq!(
        (status, &problem["type"]),
        (501, &"urn:towline:problem:restore-not-allowed".into())
    );
    let mut server = server;
    server.kill();
    let (status, problem) = Restore::start(&agent, &query, &archive.path(), &args).refused();
    assert_eq!(
        (status, &problem["type"]),
        (502, &"urn:towline:problem:database".into())
    );
}

/// One slot for both.
#[test]
fn a_restore_and_a_backup_keep_each_other_out() {
    let archive = Archive::new();
    let server = target();
    server.fill("other", "InnoDB", 40);
    let agent = Agent::start(&server, &["--allow-restore"]);
    let digest = archive.digest();
    let args = [H1_TE, &["-H", &digest]].concat();
    let mut backup = agent.curl("method=logical&compression=none&max-rate=1000000", H1_TE);
    backup.flows();
    let (status, problem) =
        Restore::start(&agent, &archive.query(), &archive.path(), &args).refused();
    assert_eq!(
        (status, &problem["title"]),
        (409, &"A backup is running".into()),
        "{problem}"
    );
    backup.child.kill().unwrap();
    backup.child.wait().unwrap();
    agent.is_clean(&server);
    server.sql("DROP DATABASE shop");

    let mut sender = Half::begin(&agent, &archive);
    eventually("it is begun", || marked(&server).then_some(()));
    let refused = Command::new("curl")
        .args(["-sS", &format!("{}/v1/backup?method=logical", agent.url)])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stdout).contains("\"status\":409"));
    sender.go();
    eventually("it is ended", || agent.tools().is_empty().then_some(()));
    agent.is_clean(&server);
    assert!(marked(&server));
}

/// A sender that leaves out the end of an archive.
struct Half(Option<TcpStream>);

impl Half {
    fn begin(agent: &Agent, archive: &Archive) -> Self {
        let bytes = fs::read(archive.path()).unwrap();
        let mut stream = TcpStream::connect(agent.url.strip_prefix("http://").unwrap()).unwrap();
        let head = format!(
            "POST /v1/restore?{} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n{}\r\nContent-Length: {}\r\n\r\n",
            archive.query(),
            archive.digest(),
            bytes.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&bytes[..bytes.len() - 100]).unwrap();
        Self(Some(stream))
    }

    fn go(&mut self) {
        self.0.take();
    }

    /// What it is told until the connection ends.
    fn answer(&mut self) -> String {
        let mut text = String::new();
        let stream = self.0.as_mut().unwrap();
        let _ = std::io::Read::read_to_string(stream, &mut text);
        text
    }
}

#[test]
fn a_sender_that_stalls_and_a_stop_end_it() {
    let archive = Archive::new();
    let server = target();
    let agent = Agent::start(&server, &["--allow-restore", "--stall-timeout", "500ms"]);
    let mut sender = Half::begin(&agent, &archive);
    let answer = sender.answer();
    assert!(
        answer
            .to_ascii_lowercase()
            .contains("x-streaming-error-reason: stalled"),
        "{answer}"
    );
    assert!(answer.contains(UNFINISHED), "{answer}");
    agent.is_clean(&server);
    assert!(marked(&server));
    server.sql("DROP DATABASE shop");

    let mut agent = Agent::start(&server, &["--allow-restore", "--drain-timeout", "100ms"]);
    let mut sender = Half::begin(&agent, &archive);
    eventually("it is begun", || marked(&server).then_some(()));
    agent.signal(rustix::process::Signal::TERM);
    let answer = sender.answer();
    assert!(
        answer
            .to_ascii_lowercase()
            .contains("x-streaming-error-reason: draining"),
        "{answer}"
    );
    assert_eq!(agent.child.wait().unwrap().code(), Some(0));
    eventually("no session is left", || {
        (server.sessions() == 0).then_some(())
    });
    assert!(marked(&server));
}

#[test]
fn an_archive_that_is_not_what_was_announced_is_never_restored() {
    let archive = Archive::new();
    let server = target();
    let agent = Agent::start(&server, &["--allow-restore"]);
    let digest = archive.digest();
    let mut altered = fs::read(archive.path()).unwrap();
    // In the sum of the compressed stream: what the server would refuse by itself proves nothing of sums.
    *altered.last_mut().unwrap() ^= 1;
    fs::write(archive.path(), altered).unwrap();
    for args in [H1_TE, H1, H2_TE] {
        // By its digest, and, when that is right, by its own sums.
        for digest in [digest.clone(), archive.digest()] {
            let args: Vec<&str> = args.iter().copied().chain(["-H", &digest]).collect();
            let mut restore = Restore::start(&agent, &archive.query(), &archive.path(), &args);
            let (code, _, fields) = restore.end();
            if args.contains(&"TE: trailers") {
                let reason = field(&fields, "x-streaming-error-reason");
                assert_eq!(reason, Some("ArchiveDamaged"), "{}", restore.text("log"));
                assert_ne!(field(&fields, "x-streaming-error"), Some(""));
            } else {
                assert_ne!(code, 0, "{}", restore.text("log"));
            }
            agent.is_clean(&server);
            server.sql("DROP DATABASE IF EXISTS shop");
        }
    }
}

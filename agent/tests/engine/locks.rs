use crate::reader::Reader;
use crate::rig::{Rig, request};
use crate::server::{Server, eventually};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::time::Duration;
use towline_agent::backup::Method;
use towline_agent::protocol::StreamReason;

/// A server with much to copy under locks: the tables that have no transactions.
fn server() -> Server {
    let server = Server::with_user("physical");
    server.fill("legacy", "MyISAM", 60);
    server
}

/// Reads until the tool is in a stage that locks writers out, and no further.
async fn until_locked(rig: &Rig, reader: &mut Reader) {
    while !["flush", "block-ddl", "block-commit"].contains(&rig.stage().as_str()) {
        assert_ne!(rig.stage(), "finish");
        assert!(reader.take().await.is_none());
    }
}

fn write(server: &Server) {
    server.sql(
        "INSERT INTO shop.legacy VALUES (0, 'a writer'); DELETE FROM shop.legacy WHERE id = 0",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_does_not_hold_up_writers_for_long() {
    let server = server();
    let rig = Rig::with(&server, |config| {
        config.lock_buffer = 1;
        config.max_lock = Duration::from_secs(1);
    });
    let mut reader = rig.start(request(Method::Physical)).await;
    until_locked(&rig, &mut reader).await;
    // It waits for the locks, and the reader takes nothing.
    write(&server);
    rig.is_clean(Some(&server)).await;
    let (reason, message) = reader.end().await.failed();
    assert_eq!(reason, StreamReason::LockTimeout, "{message}");
    assert!(message.contains("--lock-buffer"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_released_at_the_tools_own_pace() {
    let server = server();
    let rig = Rig::with(&server, |config| config.lock_buffer = 128 << 20);
    let mut reader = rig.start(request(Method::Physical)).await;
    until_locked(&rig, &mut reader).await;
    write(&server);
    eventually("the tool is done", || {
        (rig.stage() == "finish").then_some(())
    });
    reader.end().await.complete();
    rig.is_clean(Some(&server)).await;
}

/// A session that holds a lock.
struct Holder(Child);

impl Holder {
    fn lock(server: &Server) -> Self {
        let mut child = server
            .client()
            .arg("--unbuffered")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let sql = b"LOCK TABLES shop.legacy WRITE;\nSELECT 'locked';\n";
        child.stdin.as_mut().unwrap().write_all(sql).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), "locked");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_not_waited_for_without_end() {
    let server = server();
    let rig = Rig::with(&server, |config| config.max_lock = Duration::from_secs(1));
    let holder = Holder::lock(&server);
    let reader = rig.start(request(Method::Physical)).await;
    let (reason, message) = reader.end().await.failed();
    assert_eq!(reason, StreamReason::LockTimeout, "{message}");
    assert!(message.contains("BACKUP STAGE"), "{message}");
    rig.is_clean(Some(&server)).await;
    drop(holder);
    write(&server);
}

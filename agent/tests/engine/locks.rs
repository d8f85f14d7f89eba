//! The database comes first: no reader prolongs the locks that hold up writers.

use crate::reader::Reader;
use crate::rig::{Rig, request};
use crate::server::{Server, eventually};
use crate::writers::Writers;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::time::Duration;
use towline_agent::backup::Method;
use towline_agent::protocol::StreamReason;

/// A stage, and a server with more to copy in it than pipes and the archive's member take.
fn worst_moments() -> [(&'static str, Server); 2] {
    // Tables without transactions are copied while writes to them wait.
    let flush = Server::with_user("physical");
    flush.fill("legacy", "MyISAM", 60);
    // The optimizer's statistics are copied at the very end, while every commit waits.
    let commit = Server::with_user("physical");
    commit.sql("CREATE DATABASE shop");
    let rows = (0..60).map(|n| {
        format!(
            "INSERT INTO mysql.column_stats (db_name, table_name, column_name, histogram)
             VALUES ('shop', 'legacy', '{n}', REPEAT(RANDOM_BYTES(1024), 1024));"
        )
    });
    commit.sql(&rows.collect::<String>());
    [("flush", flush), ("block-commit", commit)]
}

/// Reads until the tool is in this stage, and no further.
async fn until(stage: &str, rig: &Rig, reader: &mut Reader) {
    while rig.stage() != stage {
        assert_ne!(rig.stage(), "finish");
        assert!(reader.take().await.is_none());
    }
}

/// Writes are held up; then the backup dies, not the database, and that takes no reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_under_locks_holds_up_writers_for_a_bounded_time() {
    for (stage, server) in worst_moments() {
        let rig = Rig::with(&server, |config| {
            config.lock_buffer = 1;
            config.max_lock = Duration::from_secs(5);
        });
        let writers = Writers::start(&server).await;
        let mut reader = rig.start(request(Method::Physical)).await;
        until(stage, &rig, &mut reader).await;
        Writers::are_held_up(&server);
        // From here on the reader takes nothing.
        writers.go_on();
        rig.is_clean(Some(&server)).await;
        writers.go_on();
        let (reason, message) = reader.end().await.failed();
        assert_eq!(reason, StreamReason::LockTimeout, "{stage}: {message}");
        assert!(message.contains("--lock-buffer"), "{message}");
    }
}

/// With room for what is copied under locks, a reader that stalls changes nothing for writers.
#[tokio::test(flavor = "multi_thread")]
async fn locks_are_released_at_the_tools_own_pace() {
    for (stage, server) in worst_moments() {
        let rig = Rig::with(&server, |config| config.lock_buffer = 128 << 20);
        let writers = Writers::start(&server).await;
        let mut reader = rig.start(request(Method::Physical)).await;
        until(stage, &rig, &mut reader).await;
        // From here on the reader takes nothing, until the tool is done.
        eventually("the tool has released its locks", || {
            (rig.stage() == "finish").then_some(())
        });
        writers.go_on();
        drop(writers);
        reader.end().await.complete();
        rig.is_clean(Some(&server)).await;
    }
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
    let server = Server::with_user("physical");
    server.fill("legacy", "MyISAM", 1);
    let rig = Rig::with(&server, |config| config.max_lock = Duration::from_secs(1));
    let holder = Holder::lock(&server);
    let reader = rig.start(request(Method::Physical)).await;
    let (reason, message) = reader.end().await.failed();
    assert_eq!(reason, StreamReason::LockTimeout, "{message}");
    assert!(message.contains("BACKUP STAGE"), "{message}");
    rig.is_clean(Some(&server)).await;
    drop(holder);
    Writers::start(&server).await.go_on();
}

/// Sessions that wait to use or change a table that others hold.
fn waiting_for_tables(server: &Server) -> usize {
    let waiting = server.sql(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'Waiting for table metadata lock'",
    );
    waiting.trim().parse().unwrap()
}

/// A dump holds the table that it reads from. Who wants to change it, and who wants to use it after
/// that, waits no longer for the sake of a slow reader than for locks.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_in_a_dump_holds_up_a_table_for_a_bounded_time() {
    let server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 60);
    let rig = Rig::with(&server, |config| config.max_lock = Duration::from_secs(2));
    let mut reader = rig.start(request(Method::Logical)).await;
    reader.flows().await;
    let mut change = server
        .client()
        .args(["-e", "ALTER TABLE shop.orders ADD COLUMN more INT"])
        .spawn()
        .unwrap();
    eventually("the change waits", || {
        (waiting_for_tables(&server) > 0).then_some(())
    });
    // From here on the reader takes nothing.
    rig.is_clean(None).await;
    assert!(change.wait().unwrap().success(), "the table is free");
    let (reason, message) = reader.end().await.failed();
    assert_eq!(reason, StreamReason::LockTimeout, "{message}");
    assert!(message.contains("method=physical"), "{message}");
    rig.is_clean(Some(&server)).await;
}

/// Where nobody waits for a table, a slow reader is only slow.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_in_a_dump_may_where_nobody_waits() {
    let server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 60);
    let rig = Rig::with(&server, |config| {
        config.max_lock = Duration::from_millis(500);
        config.stall_timeout = Duration::from_secs(5);
    });
    let mut reader = rig.start(request(Method::Logical)).await;
    reader.flows().await;
    // It takes nothing for far longer than locks may be held.
    rig.is_clean(Some(&server)).await;
    let (reason, message) = reader.end().await.failed();
    assert_eq!(reason, StreamReason::Stalled, "{message}");
}

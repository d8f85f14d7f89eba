//! Sessions that write all the time, as applications do.

use crate::server::{Server, eventually};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinHandle;

/// One session for each engine: InnoDB, and one that has no transactions.
pub(crate) struct Writers(Vec<Writer>);

struct Writer {
    rows: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Writers {
    /// Needs a schema `shop`.
    pub(crate) async fn start(server: &Server) -> Self {
        let mut writers = Vec::new();
        for engine in ["InnoDB", "MyISAM"] {
            let opts = OptsBuilder::default()
                .user(Some("root"))
                .prefer_socket(false)
                .socket(Some(server.socket().to_string_lossy()));
            let mut session = Conn::new(opts).await.unwrap();
            let table = format!("shop.written_{}", engine.to_lowercase());
            let create = format!(
                "CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6)) ENGINE={engine}"
            );
            session.query_drop(create).await.unwrap();
            let rows = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&rows);
            let task = tokio::spawn(async move {
                let insert = format!("INSERT INTO {table} (at) VALUES (NOW(6))");
                loop {
                    session.query_drop(&insert).await.unwrap();
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            writers.push(Writer { rows, task });
        }
        Self(writers)
    }

    /// Waits until each has written some rows from now on.
    pub(crate) fn go_on(&self) {
        for writer in &self.0 {
            let before = writer.rows.load(Ordering::Relaxed);
            eventually("writes go on", || {
                (writer.rows.load(Ordering::Relaxed) >= before + 20).then_some(())
            });
        }
    }

    /// Waits until one of them is held up by a backup's lock.
    pub(crate) fn are_held_up(server: &Server) {
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist
            WHERE user = 'root' AND state = 'Waiting for backup lock'";
        eventually("a write waits for the backup's lock", || {
            (server.sql(waiting).trim() != "0").then_some(())
        });
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for writer in &self.0 {
            writer.task.abort();
        }
    }
}

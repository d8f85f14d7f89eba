//! A MariaDB server of this machine, on a restored data directory or a new one.

use crate::{eventually, run, run_ok};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::{Child, Command};

/// A server of our own, on a socket only.
pub struct LocalServer {
    child: Child,
    socket: PathBuf,
}

impl LocalServer {
    /// A new, empty one; root needs no password.
    pub async fn fresh(folder: &Path) -> Self {
        let data = folder.join("data");
        let flag = format!("--datadir={}", data.display());
        let args = [
            "--no-defaults",
            "--user=root",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            &flag,
        ];
        run_ok("mariadb-install-db", &args, b"").await;
        Self::start(folder, &data, &[]).await
    }

    /// Does what the archive's documentation says: `mbstream -x`, prepare, start. `folder` holds the
    /// unpacked archive.
    pub async fn from_physical(folder: &Path) -> Self {
        let data = folder.join("restored");
        std::fs::create_dir(&data).unwrap();
        let target = format!("--target-dir={}", data.display());
        let extract = format!(
            "cat {0}/data/*.xbs | mbstream -x -C {1}",
            folder.display(),
            data.display()
        );
        run_ok("sh", &["-euc", &extract], b"").await;
        run_ok("mariadb-backup", &["--prepare", &target], b"").await;
        Self::start(folder, &data, &["--skip-grant-tables"]).await
    }

    /// One on the data directory `data` in a folder.
    pub async fn on(folder: &Path, data: &str, args: &[&str]) -> Self {
        Self::start(folder, &folder.join(data), args).await
    }

    async fn start(folder: &Path, data: &Path, args: &[&str]) -> Self {
        let socket = folder.join("mysqld.sock");
        let child = Command::new("mariadbd")
            .args(["--no-defaults", "--user=root", "--skip-networking"])
            .args(args)
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("mariadbd.log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .expect("mariadbd is in Debian's package mariadb-server");
        let server = Self { child, socket };
        eventually("the server answers", || async {
            let output = run(
                "mariadb",
                &[
                    "--no-defaults",
                    "--user=root",
                    &server.socket_flag(),
                    "-e",
                    "SELECT 1",
                ],
                b"",
            )
            .await;
            if output.code == 0 {
                Ok(())
            } else {
                Err(output.stderr)
            }
        })
        .await;
        server
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn socket_flag(&self) -> String {
        format!("--socket={}", self.socket.display())
    }

    /// Runs SQL; gives the rows without column names, as the client prints them.
    pub async fn query(&self, sql: &str) -> String {
        run_ok(
            "mariadb",
            &[
                "--no-defaults",
                "--user=root",
                &self.socket_flag(),
                "-N",
                "-B",
                "-e",
                sql,
            ],
            b"",
        )
        .await
    }

    /// About so many MiB of rows as applications have them: numbers, words that repeat, hex digits, and a quarter of bytes
    /// that do not compress.
    pub async fn fill(&self, mib: usize) {
        self
            .query(
                "CREATE DATABASE bulk;
                 CREATE TABLE bulk.t (id BIGINT PRIMARY KEY, customer INT, made DATETIME, state VARCHAR(10),
                     title VARCHAR(200), token CHAR(64), note TEXT, photo BLOB)",
            )
            .await;
        // A row takes 1 KiB and some; batches are of 64 MiB.
        let rows = 64 << 10;
        for batch in 0..mib.div_ceil(64) {
            let from = batch * rows;
            self
                .query(&format!(
                    "USE bulk; INSERT INTO t SELECT seq, seq * 7919 % 100003, '2026-01-01' + INTERVAL seq SECOND,
                         ELT(1 + seq % 4, 'new', 'paid', 'sent', 'returned'),
                         CONCAT('Order ', seq, ' of customer ', seq * 7919 % 100003, ', thank you'),
                         SHA2(seq, 256),
                         CONCAT(REPEAT(CONCAT('line ', seq % 977, ': delivered to the door; '), 8), HEX(RANDOM_BYTES(120))),
                         RANDOM_BYTES(256)
                     FROM seq_{}_to_{}",
                    from + 1,
                    from + rows,
                ))
                .await;
        }
    }

    /// Stops the server.
    pub async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

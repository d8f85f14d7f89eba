//! Whether a server is whole, asked of real ones in the state that a drill's is in.

use crate::rig::{Rig, request};
use crate::server::{Server, program};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use towline_agent::archive::Summary;
use towline_agent::backup::Method;
use towline_agent::database::{Address, Connection, Flavour};
use towline_agent::restore::RestoreError;
use towline_agent::restore::checks::{self, Check};
use towline_agent::restore::drill_server::{server_arguments, write_settings};

/// A server as a drill starts it.
struct Drill {
    child: Child,
    connection: Connection,
}

impl Drill {
    fn on(dir: &Path) -> Self {
        let [settings, data, socket, log] =
            ["server.cnf", "data", "drill.sock", "drill.log"].map(|name| dir.join(name));
        write_settings(&data, &settings).unwrap();
        let mut command = program("mariadbd");
        command.args(server_arguments(
            Flavour::Mariadb,
            &settings,
            &data,
            &socket,
            &log,
        ));
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let connection = Connection {
            address: Address::Socket(socket),
            user: "root".to_owned(),
            password_file: None,
            timeout: Duration::from_secs(60),
        };
        Self { child, connection }
    }

    async fn answers(&mut self) {
        loop {
            match self.connection.connect().await {
                Ok(session) => return session.close().await,
                Err(_) => assert_eq!(self.child.try_wait().unwrap(), None, "it ended"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Drill {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with two tables, a view and a sequence, and what a backup says of it; it is stopped.
async fn backed_up() -> (tempfile::TempDir, Summary) {
    let server = Server::with_user("physical");
    server.fill("orders", "InnoDB", 3);
    server.fill("legacy", "MyISAM", 2);
    server.sql(
        "CREATE VIEW shop.v AS SELECT id FROM shop.orders; CREATE SEQUENCE shop.s;
         CREATE EVENT shop.e ON SCHEDULE EVERY 1 SECOND DO DELETE FROM shop.orders",
    );
    let rig = Rig::new(&server);
    let end = rig.start(request(Method::Physical)).await.end().await;
    let summary = end.complete().0.summary;
    // mariadb-backup 10.11 cannot lock a table of such a name.
    server.sql("CREATE TABLE shop.`odd ``name` (id INT NOT NULL) ENGINE=CSV");
    (server.stop(), summary)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_passes_and_stops_when_it_is_told_to() {
    let (dir, summary) = backed_up().await;
    let mut drill = Drill::on(dir.path());
    drill.answers().await;
    let user = [
        ("SELECT COUNT(*) FROM shop.orders", Some("3")),
        ("SELECT SUM(id) / 2 FROM shop.orders", Some("3.0000")),
        ("SELECT MAX(id) FROM shop.`odd ``name`", None),
        // What would reach others, or change the data by itself, is off.
        ("SELECT @@skip_networking, 1", Some("1")),
        ("SELECT @@event_scheduler", Some("DISABLED")),
        ("SELECT @@log_bin", Some("0")),
    ];
    let user = user.map(|(query, expect)| Check {
        query: query.to_owned(),
        expect: expect.map(str::to_owned),
    });
    let checked = checks::run(&drill.connection, &summary, &user)
        .await
        .unwrap();
    assert_eq!(checked.failure(), None);
    assert_eq!((checked.tables, checked.rows), (5, 5));
    let names: Vec<&str> = checked.results.iter().map(|r| r.check.as_str()).collect();
    assert_eq!(
        names[..3],
        ["the server starts", "every table is there", "CHECK TABLE"]
    );
    assert!(checked.results[0].found.contains("MariaDB"));
    assert_eq!(checked.results[2].found, "3 tables with 5 rows");
    assert_eq!(checked.results[5].found, "NULL");

    drill.connection.connect().await.unwrap().shut_down().await;
    let status = tokio::task::block_in_place(|| drill.child.wait().unwrap());
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found_and_named() {
    let (dir, summary) = backed_up().await;
    // A table of which a part is gone.
    let file = dir.path().join("data/shop/legacy.MYD");
    let rows = fs::read(&file).unwrap();
    fs::write(&file, &rows[..rows.len() / 2]).unwrap();
    let mut drill = Drill::on(dir.path());
    drill.answers().await;
    let ask = async |summary: &Summary, query: &str, expect: Option<&str>| {
        let check = Check {
            query: query.to_owned(),
            expect: expect.map(str::to_owned),
        };
        let checked = checks::run(&drill.connection, summary, &[check]).await;
        checked.unwrap()
    };
    let checked = ask(&summary, "SELECT 1", Some("2")).await;
    let failed: Vec<(&str, &str)> = checked
        .results
        .iter()
        .filter(|r| !r.passed)
        .map(|r| (r.check.as_str(), r.found.as_str()))
        .collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(
        failed[0].0 == "CHECK TABLE" && failed[0].1.contains("shop.legacy"),
        "{failed:?}"
    );
    assert_eq!(failed[1], ("SELECT 1", "1, expected 2"));

    let checked = ask(&summary, "SELECT id FROM shop.nothing", None).await;
    let last = checked.results.last().unwrap();
    assert!(
        !last.passed && last.found.contains("shop.nothing"),
        "{last:?}"
    );

    // A query that is none says nothing about the data.
    let typo = Check {
        query: "SELECT FORM shop.orders WHERE".to_owned(),
        expect: None,
    };
    let error = checks::run(&drill.connection, &summary, &[typo]).await;
    assert!(
        matches!(&error, Err(RestoreError::Invalid(text)) if text.contains("FORM")),
        "{error:?}"
    );

    // A backup that knows of a table more, and one that knows of none.
    let mut more = summary.clone();
    more.schemas
        .get_mut("shop")
        .unwrap()
        .push("lost".to_owned());
    let failure = ask(&more, "SELECT 1", None).await.failure().unwrap();
    assert!(
        failure.contains("1 of 5 are missing: shop.lost"),
        "{failure}"
    );
    let mut none = summary;
    none.schemas.clear();
    let failure = ask(&none, "SELECT 1", None).await.failure().unwrap();
    assert!(failure.contains("has no table"), "{failure}");
}

//! `deploy/grants` for MySQL, which only the images have; MariaDB's are tested in agent/tests/engine.

use e2e::{
    Namespace, PortForward,
    command::run_command,
    database::{
        Database,
        grants_file::{Privilege, privileges},
    },
    objects::TOKEN,
};
use tokio::process::Command;

/// Every kind of object, some of other accounts, one of an account that is not there.
const OBJECTS: &str = "
    CREATE DATABASE shop; USE shop; CREATE USER other@localhost;
    CREATE TABLE orders (id INT PRIMARY KEY, note TEXT);
    INSERT INTO orders VALUES (1, 'one');
    CREATE TABLE lines_ (id INT, FOREIGN KEY (id) REFERENCES orders (id));
    CREATE DEFINER=other@localhost VIEW v AS SELECT id FROM orders;
    CREATE TRIGGER tr BEFORE INSERT ON orders FOR EACH ROW SET NEW.note = COALESCE(NEW.note, '');
    CREATE DEFINER=gone@nowhere PROCEDURE p() SELECT 1;
    CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1;
    CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM orders WHERE id < 0;";

/// What the agent answers: its status, and the whole of what it says.
struct Agent {
    forward: PortForward,
    folder: tempfile::TempDir,
}

impl Agent {
    async fn ask(&self, path: &str, args: &[&str]) -> (String, String) {
        let mut command = Command::new("curl");
        command
            .current_dir(&self.folder)
            .args(["-sS", "--max-time", "120", "--noproxy", "*", "-o", "answer"])
            .args(["-w", "%{http_code}", "-H", "TE: trailers", "-D", "head"])
            .arg("-H")
            .arg(format!("Authorization: Bearer {TOKEN}"))
            .args(args)
            .arg(format!("http://{}/v1/{path}", self.forward.address()));
        let output = run_command(command, b"").await;
        let said = |file| std::fs::read(self.folder.path().join(file)).unwrap_or_default();
        let head = String::from_utf8_lossy(&said("head")).into_owned();
        let answer = String::from_utf8_lossy(&said("answer")).into_owned();
        (output.stdout, format!("{head}{answer}{}", output.stderr))
    }

    async fn backup(&self) -> (String, String) {
        self.ask("backup?method=logical&compression=none&database=shop", &[])
            .await
    }

    /// Of the file `archive`.
    async fn restore(&self, version: &str, options: &str) -> (String, String) {
        let sum = "openssl dgst -sha256 -binary archive | base64 -w0";
        let mut digest = Command::new("sh");
        digest.current_dir(&self.folder).args(["-c", sum]);
        let digest = run_command(digest, b"").await.stdout;
        let digest = format!("Repr-Digest: sha-256=:{digest}:");
        let query = format!("restore?database=shop&flavour=mysql&version={version}{options}");
        let body = [
            "-X",
            "POST",
            "-T",
            "archive",
            "-H",
            "Expect: 100-continue",
            "-H",
            &digest,
        ];
        self.ask(&query, &body).await
    }
}

fn names(privilege: &Privilege, (status, said): &(String, String), expected: &str) {
    assert_eq!(status, expected, "{privilege:?}: {said}");
    let named = privilege.named();
    assert!(
        named.iter().any(|named| said.contains(named)),
        "{named:?}: {said}"
    );
}

/// It ended, and well.
fn complete((status, said): &(String, String)) {
    assert_eq!(status, "200", "{said}");
    let lines = said.lines().map(str::to_ascii_lowercase);
    let error =
        lines.filter_map(|line| Some(line.strip_prefix("x-streaming-error:")?.trim().to_owned()));
    assert_eq!(error.collect::<Vec<_>>(), [""], "{said}");
}

/// Options of a restore that needs a privilege, and of one that does not.
fn with_and_without(privilege: &Privilege) -> (&'static str, Option<&'static str>) {
    let only: Vec<&str> = privilege.only.iter().map(String::as_str).collect();
    match only[..] {
        [] => ("", None),
        ["with triggers"] => ("", Some("&triggers=false")),
        ["with routines"] => ("", Some("&routines=false")),
        ["with events"] => ("", Some("&events=skip")),
        ["with definers kept"] | ["with definers kept", "without SUPER"] => {
            ("", Some("&definers=current-user"))
        }
        ["beside a binary log"] => ("", Some("&triggers=false&routines=false")),
        [what, ..] if what.starts_with("To leave the binary log out (binaryLog: false)") => {
            ("&binary-log=false", Some(""))
        }
        [what, ..] if what.starts_with("To set the GTIDs (gtidPurged)") => {
            ("&gtid-purged=GTID", None)
        }
        [what, ..] if what.starts_with("To restore accounts (includeUsers)") => {
            ("&include-users=true", Some(""))
        }
        ref other => panic!("no restore is known that is {other:?}"),
    }
}

#[tokio::test]
async fn mysql_is_asked_for_each_privilege_before_anything_is_done() {
    let ns = Namespace::create("grants").await;
    let db = Database::for_restore(&ns, "mysql", "mysql", &[]).await;
    db.query(OBJECTS).await;
    let agent = Agent {
        forward: PortForward::start(&ns, db.pod(), 8474).await,
        folder: tempfile::tempdir().unwrap(),
    };

    let started = agent.backup().await;
    complete(&started);
    let file = |name| agent.folder.path().join(name);
    std::fs::copy(file("answer"), file("archive")).unwrap();
    for privilege in privileges(&Database::documented("mysql-logical")) {
        assert!(!privilege.commented);
        assert!(["", "beside a binary log"].contains(&&*privilege.only.join(", ")));
        db.query(&privilege.revoke()).await;
        names(&privilege, &agent.backup().await, "502");
        db.query(&privilege.grant()).await;
    }
    complete(&agent.backup().await);

    // The dump itself, by the plain client as the agent's user: does the server want each of them?
    let dump = "MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysqldump -uroot --set-gtid-purged=COMMENTED --routines --events --databases shop >/tmp/dump.sql";
    let load = format!("MYSQL_PWD={TOKEN} mysql -utowline </tmp/dump.sql");
    let output = ns.sh(db.pod(), "database", dump, "").await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let version = db.query("SELECT VERSION()").await.trim().to_owned();
    let all = privileges(&Database::documented("mysql-restore"));
    let superuser = all
        .iter()
        .find(|privilege| privilege.name == "SUPER")
        .unwrap();
    for privilege in &all {
        let gone = "DROP DATABASE IF EXISTS shop; DELETE FROM mysql.procs_priv; FLUSH PRIVILEGES";
        // Whoever makes a routine may change it, and keeps that privilege when the database goes.
        db.query(gone).await;
        let (needs, needs_not) = with_and_without(privilege);
        let without_super = privilege.only.iter().any(|only| only == "without SUPER");
        if without_super {
            db.query("SET GLOBAL log_bin_trust_function_creators = 1")
                .await;
            db.query(&superuser.revoke()).await;
        }
        if !privilege.commented {
            db.query(&privilege.revoke()).await;
        }
        let refused = agent
            .restore(
                &version,
                &needs.replace("GTID", "3E11FA47-71CA-11E1-9E33-C80AA9429562:1"),
            )
            .await;
        names(privilege, &refused, "422");
        if let Some(options) = needs_not {
            complete(&agent.restore(&version, options).await);
            db.query(gone).await;
        }
        if !privilege.commented {
            let output = ns.sh(db.pod(), "database", &load, "").await;
            assert_ne!(output.code, 0, "{privilege:?} is not needed");
            let denied = ["denied", "you need", "You do not have the SUPER"]
                .iter()
                .any(|word| output.stderr.contains(word));
            assert!(denied, "{privilege:?}: {}", output.stderr);
        }
        db.query(&privilege.grant()).await;
        if without_super {
            db.query("SET GLOBAL log_bin_trust_function_creators = 0")
                .await;
            db.query(&superuser.grant()).await;
        }
    }
    db.query("DROP DATABASE IF EXISTS shop").await;
    complete(&agent.restore(&version, "&binary-log=false").await);
    assert_eq!(db.query("SELECT note FROM shop.orders").await.trim(), "one");
    ns.delete().await;
}

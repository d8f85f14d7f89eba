//! Accounts and grants in a dump of everything.

use crate::reader::End;
use crate::rig::{Rig, connection, request};
use crate::server::{Server, password_file, program};
use std::collections::BTreeSet;
use std::io::Read as _;
use towline_agent::backup::{BackupRequest, Method, StartError};
use towline_agent::database::Flavour;

/// Names that are hard to quote, every kind of grant, roles in roles, and what is printed as if it
/// were something else.
const ACCOUNTS: &str = r#"
    CREATE PROCEDURE shop.p() SELECT 1;
    CREATE ROLE reader; CREATE ROLE writer; CREATE ROLE `od'd DEFAULT ROLE ro``le`;
    GRANT SELECT ON shop.* TO reader;
    GRANT INSERT (id), UPDATE (note) ON shop.orders TO writer;
    GRANT reader TO writer; GRANT `od'd DEFAULT ROLE ro``le` TO writer WITH ADMIN OPTION;
    CREATE USER app@localhost IDENTIFIED BY 'it''s "old" \\' WITH MAX_USER_CONNECTIONS 5 PASSWORD EXPIRE INTERVAL 90 DAY;
    GRANT writer TO app@localhost; SET DEFAULT ROLE writer FOR app@localhost;
    GRANT EXECUTE ON PROCEDURE shop.p TO app@localhost WITH GRANT OPTION;
    CREATE USER 'o''dd `n"a IDENTIFIED me'@localhost IDENTIFIED BY 'pw';
    GRANT SELECT, RELOAD ON *.* TO 'o''dd `n"a IDENTIFIED me'@localhost WITH GRANT OPTION;
    GRANT ALL ON `sh%p\_x`.* TO 'o''dd `n"a IDENTIFIED me'@localhost;
    GRANT PROXY ON app@localhost TO 'o''dd `n"a IDENTIFIED me'@localhost WITH GRANT OPTION;
    CREATE USER locked@'10.%' IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD('x') REQUIRE SSL ACCOUNT LOCK;
    CREATE USER ''@nobody;
    CREATE USER keeper@localhost IDENTIFIED BY 'of the backup';
    GRANT SELECT ON shop.* TO keeper@localhost;
    GRANT SELECT ON shop.orders TO PUBLIC;
"#;

/// What the members below a folder of a plain archive hold, one after the other.
fn members(end: &End, folder: &str) -> Vec<u8> {
    let mut contents = Vec::new();
    for entry in tar::Archive::new(&end.bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().starts_with(folder) {
            entry.read_to_end(&mut contents).unwrap();
        }
    }
    contents
}

/// Every account as the server describes it, by name: statements in no order.
fn described(server: &Server) -> Vec<BTreeSet<String>> {
    let quoted = "CONCAT('`', REPLACE(user, '`', '``'), '`')";
    let host = "CONCAT('@`', REPLACE(host, '`', '``'), '`')";
    let users = server.sql(&format!(
        "SELECT CONCAT({quoted}, {host}) FROM mysql.user WHERE is_role = 'N' ORDER BY 1"
    ));
    let roles = server.sql(&format!(
        "SELECT IF(user = 'PUBLIC', user, {quoted}) FROM mysql.user WHERE is_role = 'Y' ORDER BY 1"
    ));
    let of_user =
        |name: &str| server.sql(&format!("SHOW CREATE USER {name}; SHOW GRANTS FOR {name}"));
    let of_role = |name: &str| server.sql(&format!("SHOW GRANTS FOR {name}"));
    let all = users.lines().map(of_user).chain(roles.lines().map(of_role));
    all.map(|account| account.lines().map(str::to_owned).collect())
        .collect()
}

/// What the server answers to somebody who logs in; `None` when they may not.
fn login(server: &Server, user: &str, password: &str, sql: &str) -> Option<String> {
    let output = program("mariadb")
        .args(["--no-defaults", "--batch", "--skip-column-names"])
        .arg(format!("--socket={}", server.socket().display()))
        .arg(format!("--user={user}"))
        .args(["--execute", sql])
        .env("MYSQL_PWD", password)
        .output()
        .unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| answer.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_back_with_their_grants_and_passwords() {
    let server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 1);
    server.sql(ACCOUNTS);
    let rig = Rig::new(&server);
    let end = rig.start(request(Method::Logical)).await.end().await;
    rig.is_clean(Some(&server)).await;
    let (verified, data) = end.complete();
    let users = members(&end, "users");
    let summary = verified.summary.users.unwrap();
    let known = "SELECT COUNT(*) FROM mysql.user WHERE user <> 'mariadb.sys'";
    assert_eq!(summary.accounts.to_string(), server.sql(known).trim());
    assert_eq!((summary.members, summary.bytes), (1, users.len() as u64));
    // Loading the data alone touches no account.
    assert_eq!(data, members(&end, "data"));
    let text = String::from_utf8_lossy(&data);
    assert!(!text.contains("CREATE USER") && !text.contains("GRANT "));

    let other = Server::start();
    other.sql("CREATE USER keeper@localhost IDENTIFIED BY 'its own'");
    other.load(&data);
    other.load(&users);
    // An account that exists keeps its password, and is granted what is missing.
    let sees = "SELECT COUNT(*) FROM shop.orders";
    let keeper = |password| login(&other, "keeper", password, sees);
    assert_eq!(keeper("its own").as_deref(), Some("1"));
    assert_eq!(keeper("of the backup"), None);
    other.sql("DROP USER keeper@localhost");
    other.load(&users);
    other.load(&users);
    assert_eq!(described(&other), described(&server));
    assert_eq!(keeper("of the backup").as_deref(), Some("1"));
    let role = "SELECT CURRENT_ROLE()";
    let app = login(&other, "app", "it's \"old\" \\", role);
    assert_eq!(app.as_deref(), Some("writer"));
    let odd = "o'dd `n\"a IDENTIFIED me";
    let name = login(&other, odd, "pw", "SELECT USER()").unwrap();
    assert_eq!(name, format!("{odd}@localhost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_no_part_of_a_schema() {
    let server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 1);
    server.sql(
        "REVOKE SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* FROM towline@localhost;
         GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON shop.* TO towline@localhost",
    );
    let rig = Rig::new(&server);
    let refused = rig.refused(request(Method::Logical)).await;
    assert!(
        matches!(refused, StartError::Database { .. }),
        "{refused:?}"
    );
    let message = refused.to_string();
    assert!(message.contains("GRANT SELECT ON mysql.*"), "{message}");

    let shop = BackupRequest {
        databases: vec!["shop".to_owned()],
        ..request(Method::Logical)
    };
    let end = rig.start(shop).await.end().await;
    assert_eq!(end.complete().0.summary.users, None);
    assert_eq!(members(&end, "users"), b"");
    rig.is_clean(Some(&server)).await;
}

/// One that goes while the others are read is none; what is left is still good SQL.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_dropped_meanwhile_is_none() {
    let server = Server::with_user("logical");
    server.sql("CREATE USER a@localhost; CREATE USER b@localhost; CREATE USER c@localhost");
    let password = password_file();
    let connection = connection(&server, &password);
    let mut session = connection.connect().await.unwrap();
    let mut accounts = session.accounts(Flavour::Mariadb).await.unwrap();
    let mut sql = String::new();
    // Before anything is asked about it, and between its creation and its grants.
    server.sql("DROP USER a@localhost");
    while let Some(more) = accounts.next().await.unwrap() {
        sql.push_str(&more);
        if more.contains("USER IF NOT EXISTS `c`") {
            server.sql("DROP USER c@localhost");
        }
    }
    assert!(!sql.contains("`a`") && !sql.contains("TO `c`"), "{sql}");
    assert!(sql.contains("TO `b`@`localhost`"), "{sql}");
    Server::start().load(sql.as_bytes());

    // Anything else that the server refuses is an error, not a gap. A session keeps its global
    // privileges, not those on a schema.
    server.sql(
        "REVOKE SELECT ON *.* FROM towline@localhost; GRANT SELECT ON mysql.* TO towline@localhost",
    );
    let mut session = connection.connect().await.unwrap();
    let mut accounts = session.accounts(Flavour::Mariadb).await.unwrap();
    server.sql("REVOKE SELECT ON mysql.* FROM towline@localhost");
    let mut failed = false;
    while !failed {
        match accounts.next().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => failed = true,
        }
    }
    assert!(failed, "accounts were left out without a word");
}

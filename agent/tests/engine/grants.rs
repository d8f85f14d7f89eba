//! `deploy/grants`: with what a file grants a backup or restore succeeds; without any one of its privileges
//! it is refused before anything is done, by a message that names the privilege.

use crate::grants_file::{Privilege, privileges};
use crate::restore::{Backup, OBJECTS};
use crate::rig::{Rig, request};
use crate::server::{PASSWORD, Server, documented, program};
use std::io::Write as _;
use std::process::Stdio;
use towline_agent::backup::{Method, StartError};
use towline_agent::restore::{Definers, Events, LogicalOptions, RestoreError};

fn of(file: &str) -> Vec<Privilege> {
    let all = privileges(&documented(file));
    assert!(all.len() > 4, "{file}: {all:?}");
    all
}

fn names(privilege: &Privilege, message: &str) {
    let named = privilege.named();
    assert!(
        named.iter().any(|named| message.contains(named)),
        "{named:?}: {message}"
    );
    assert!(message.contains(" TO `towline`@`localhost`"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_asks_for_each_privilege_of_its_file() {
    for method in [Method::Physical, Method::Logical] {
        let mut server = Server::with_user(method.as_str());
        server.fill("orders", "InnoDB", 1);
        let rig = Rig::new(&server);
        rig.start(request(method)).await.end().await.complete();
        let all = of(method.as_str());
        for privilege in &all {
            assert!(!privilege.commented);
            server.sql(&privilege.revoke());
            let refused = rig.refused(request(method)).await;
            assert!(
                matches!(refused, StartError::Database { .. }),
                "{refused:?}"
            );
            names(privilege, &refused.to_string());
            // What the message says to run is enough.
            server.sql(&privilege.grant());
        }
        rig.start(request(method)).await.end().await.complete();

        // What is for a server with a binary log, one without needs not.
        server.restart(&[]);
        for privilege in &all {
            match privilege
                .only
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()[..]
            {
                [] => {}
                ["beside a binary log"] => {
                    server.sql(&privilege.revoke());
                }
                ref other => panic!("{other:?}"),
            }
        }
        rig.start(request(method)).await.end().await.complete();
        rig.is_clean(Some(&server)).await;
    }
}

/// A condition that the tests bring about: they take it away.
const WITHOUT_SUPER: &str = "without SUPER";

/// Whether a privilege is needed where there is no `SUPER` only; then nor is there.
fn without_super(target: &Server, privilege: &Privilege, all: &[Privilege]) -> Option<String> {
    privilege.only.iter().find(|only| *only == WITHOUT_SUPER)?;
    let has_it = all.iter().find(|one| one.name == "SUPER").unwrap();
    target.sql(&format!(
        "SET GLOBAL log_bin_trust_function_creators = 1; {}",
        has_it.revoke()
    ));
    Some(format!(
        "SET GLOBAL log_bin_trust_function_creators = 0; {}",
        has_it.grant()
    ))
}

/// Options of a restore that needs a privilege, and of one that does not.
fn with_and_without(privilege: &Privilege) -> (LogicalOptions, Option<LogicalOptions>) {
    let wanted = || LogicalOptions {
        databases: vec!["shop".to_owned()],
        ..LogicalOptions::default()
    };
    let change = |change: fn(&mut LogicalOptions)| {
        let mut options = wanted();
        change(&mut options);
        options
    };
    let only = privilege.only.iter().map(String::as_str);
    let only: Vec<&str> = only.filter(|only| *only != WITHOUT_SUPER).collect();
    let without: fn(&mut LogicalOptions) = match only[..] {
        [] => return (wanted(), None),
        ["with triggers"] => |options| options.triggers = false,
        ["with routines"] => |options| options.routines = false,
        ["with events"] => |options| options.events = Events::Skip,
        ["with definers kept"] => |options| options.definers = Definers::CurrentUser,
        ["beside a binary log"] => |options| {
            options.triggers = false;
            options.routines = false;
        },
        ["with binaryLog false"] => {
            return (change(|options| options.binary_log = false), Some(wanted()));
        }
        ["To set the position of a replica (gtidPurged)"] => {
            return (change(|options| options.gtid_purged = true), Some(wanted()));
        }
        [account] if account.starts_with("To restore accounts (includeUsers)") => {
            return (
                change(|options| options.include_users = true),
                Some(wanted()),
            );
        }
        ref other => panic!("no restore is known that is {other:?}"),
    };
    (wanted(), Some(change(without)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_asks_for_each_privilege_of_its_file() {
    let source = Server::with_user("logical");
    source.sql(OBJECTS);
    let backup = Backup::of_server(source, &[]).await;
    let target = Server::with_user("logical");
    target.grant("restore");
    let (always, more): (Vec<_>, Vec<_>) = of("restore").into_iter().partition(|p| !p.commented);
    for privilege in &always {
        let (needs, needs_not) = with_and_without(privilege);
        let back = without_super(&target, privilege, &always);
        target.sql(&privilege.revoke());
        let refused = backup.restore(&target, &needs).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Refused(_)), "{refused}");
        names(privilege, &refused.to_string());
        if let Some(options) = needs_not {
            backup.restore(&target, &options).await.unwrap();
            target.sql("DROP DATABASE shop");
        }
        target.sql(&privilege.grant());
        target.sql(&back.unwrap_or_default());
    }
    for privilege in &more {
        let (needs, _) = with_and_without(privilege);
        let back = without_super(&target, privilege, &always);
        let refused = backup.restore(&target, &needs).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Refused(_)), "{refused}");
        names(privilege, &refused.to_string());
        target.sql(&privilege.grant());
        target.sql(&back.unwrap_or_default());
    }
    let (plain, _) = with_and_without(&always[0]);
    let everything = LogicalOptions {
        include_users: true,
        gtid_purged: true,
        binary_log: false,
        ..plain
    };
    target.sql("RESET MASTER");
    backup.restore(&target, &everything).await.unwrap();
}

/// Nobody is asked for more than the server wants: without any one of them it refuses the dump itself.
#[test]
fn a_server_wants_each_privilege_of_a_restore() {
    let source = Server::with_user("logical");
    source.sql(OBJECTS);
    let mut dump = program("mariadb-dump");
    dump.args(["--no-defaults", "--user=root", "--routines", "--events"])
        .args(["--databases", "shop"])
        .arg(format!("--socket={}", source.socket().display()));
    let mut dump = crate::server::run(&mut dump);
    let prologue = b"SET SESSION sql_log_bin = 0;\n";
    dump.splice(..0, *prologue);

    let target = Server::with_user("logical");
    target.grant("restore");
    let load = || {
        let mut client = program("mariadb")
            .args(["--no-defaults", "--user=towline"])
            .arg(format!("--socket={}", target.socket().display()))
            .env("MYSQL_PWD", PASSWORD)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that is refused leaves early.
        let _ = client.stdin.take().unwrap().write_all(&dump);
        let output = client.wait_with_output().unwrap();
        // Whoever makes a routine may change it, and keeps that privilege when the database goes.
        target.sql("DROP DATABASE IF EXISTS shop; DELETE FROM mysql.procs_priv; FLUSH PRIVILEGES");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    load().unwrap();
    let all = of("restore");
    for privilege in all.iter().filter(|p| !p.commented) {
        let back = without_super(&target, privilege, &all);
        target.sql(&privilege.revoke());
        let refused = load().expect_err(&privilege.name);
        let denied = ["denied", "You do not have the SUPER"];
        let denied = denied.iter().any(|word| refused.contains(word));
        assert!(denied, "{}: {refused}", privilege.name);
        target.sql(&privilege.grant());
        target.sql(&back.unwrap_or_default());
    }
    load().unwrap();
}

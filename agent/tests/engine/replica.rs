//! Two real servers: in which states of replication a replica is backed up.

use crate::rig::{Rig, request};
use crate::server::{Server, eventually, free_port};
use towline_agent::backup::{Method, StartError};
use towline_agent::database::Role;
use towline_agent::protocol::info::Replication;

const METHODS: [Method; 2] = [Method::Physical, Method::Logical];

/// What the only connection of a replica says.
async fn connection(rig: &Rig) -> Replication {
    let info = rig.engine.server_info().await.unwrap();
    assert_eq!(info.role, Role::Replica);
    assert_eq!(info.replication.len(), 1);
    info.replication.into_iter().next().unwrap()
}

async fn is_backed_up(rig: &Rig, server: &Server) {
    for method in METHODS {
        rig.start(request(method)).await.end().await.complete();
        rig.is_clean(Some(server)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_error_makes_a_replica_unfit() {
    let port = free_port();
    let listen = [
        "--log-bin=bin",
        "--skip-networking=0",
        "--bind-address=127.0.0.1",
    ];
    let mut source = Server::with_user("physical");
    source.grant("logical");
    source.restart(&[&listen[..], &[&format!("--port={port}")]].concat());
    source.sql(
        "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'r'; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1';
         CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY); INSERT INTO shop.t VALUES (1)",
    );
    let mut replica = Server::start();
    replica.restart(&["--server-id=2", "--log-bin=bin", "--log-slave-updates"]);
    // From the beginning: the agent's user comes with it.
    replica.sql(&format!(
        "CHANGE MASTER 'dc2' TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl',
         MASTER_PASSWORD='r', MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=4, MASTER_CONNECT_RETRY=1;
         START SLAVE 'dc2'"
    ));
    let arrives = |id: u32| {
        eventually("a row arrives", || {
            let known = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'shop'";
            if replica.sql(known).is_empty() {
                return None;
            }
            let rows = replica.sql(&format!("SELECT id FROM shop.t WHERE id = {id}"));
            (rows.trim() == id.to_string()).then_some(())
        });
    };
    arrives(1);

    let rig = Rig::new(&replica);
    let replicates = Replication {
        name: "dc2".to_owned(),
        receiving: "Yes".to_owned(),
        applying: "Yes".to_owned(),
        error: None,
    };
    assert_eq!(connection(&rig).await, replicates);
    let info = rig.engine.server_info().await.unwrap();
    assert!(info.replica_lag_seconds.is_some());
    is_backed_up(&rig, &replica).await;

    // A person stopped it.
    replica.sql("STOP SLAVE 'dc2' SQL_THREAD");
    let stopped = Replication {
        applying: "No".to_owned(),
        ..replicates.clone()
    };
    assert_eq!(connection(&rig).await, stopped);
    is_backed_up(&rig, &replica).await;
    replica.sql("START SLAVE 'dc2' SQL_THREAD");

    // An error did: both have the same row.
    replica.sql("SET sql_log_bin = 0; INSERT INTO shop.t VALUES (2)");
    source.sql("INSERT INTO shop.t VALUES (2)");
    eventually("replication stops", || {
        let status = replica.sql("SHOW ALL SLAVES STATUS");
        status.contains("1062").then_some(())
    });
    let failed = Replication {
        error: Some(1062),
        ..stopped
    };
    assert_eq!(connection(&rig).await, failed);
    for method in METHODS {
        let refused = rig.refused(request(method)).await;
        assert!(matches!(refused, StartError::Unfit { .. }), "{refused:?}");
        let message = refused.to_string();
        for part in [
            "1062",
            "\"dc2\"",
            "SHOW ALL SLAVES STATUS",
            "START ALL SLAVES",
        ] {
            assert!(message.contains(part), "{message}");
        }
        rig.is_clean(Some(&replica)).await;
    }

    // Repaired as the message says.
    replica.sql("SET sql_log_bin = 0; DELETE FROM shop.t WHERE id = 2; SET sql_log_bin = 1; START ALL SLAVES");
    arrives(2);
    is_backed_up(&rig, &replica).await;

    // Its source is gone.
    source.kill();
    eventually("the connection is lost", || {
        let status = replica.sql("SHOW ALL SLAVES STATUS");
        status.contains("Connecting").then_some(())
    });
    let lost = Replication {
        receiving: "Connecting".to_owned(),
        ..replicates
    };
    assert_eq!(connection(&rig).await, lost);
    is_backed_up(&rig, &replica).await;
}

//! Which of several servers is backed up: a real primary and its replica.

use e2e::{Namespace, database::Database, eventually, objects::failure};
use serde_json::{Value, json};

/// A job from whichever of the pods labelled `replication=shop` it prefers.
fn of_shop(source: &Value) -> Value {
    let mut source = source.clone();
    source["podSelector"] = json!({"matchLabels": {"app": null, "replication": "shop"}});
    json!({"source": source, "method": "physical", "backoffLimit": 0})
}

async fn started(ns: &Namespace, job: &str) -> String {
    let events = ns.events(job).await;
    let started = events.iter().find(|event| event.starts_with("Started"));
    started.cloned().unwrap_or_else(|| panic!("{events:?}"))
}

#[tokio::test]
async fn the_role_of_the_server_decides() {
    let ns = Namespace::create("sources").await;
    ns.install_controller(&[]).await;
    // By name the primary comes first, so a replica is never taken by chance.
    let (primary, replica) = tokio::join!(
        Database::mariadb_with(&ns, "a", &["--server-id=1", "--log-bin=binlog"]),
        Database::mariadb_with(&ns, "b", &["--server-id=2"])
    );
    ns.ready_store().await;
    for db in [&primary, &replica] {
        ns.kubectl_ok(&["label", "pod", db.pod(), "replication=shop"])
            .await;
    }
    primary
        .query("CREATE USER repl IDENTIFIED BY 'repl'; GRANT REPLICATION SLAVE ON *.* TO repl")
        .await;
    let position = primary.query("SELECT @@gtid_binlog_pos").await;
    replica
        .query(&format!(
            "SET GLOBAL gtid_slave_pos = '{}';
             CHANGE MASTER TO MASTER_HOST = '{}', MASTER_USER = 'repl', MASTER_PASSWORD = 'repl', MASTER_USE_GTID = slave_pos;
             START SLAVE",
            position.trim(),
            ns.pod_ip(primary.pod()).await
        ))
        .await;
    eventually("the replica replicates", || async {
        let state = replica.query("SHOW ALL SLAVES STATUS\\G").await;
        if state.matches("Yes").count() >= 2 {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;

    for (name, source, db, role) in [
        ("primary", json!({"prefer": "Primary"}), &primary, "primary"),
        (
            "replica",
            json!({"prefer": "Replica", "maxReplicaLagSeconds": 3600}),
            &replica,
            "replica",
        ),
        (
            "better",
            json!({"prefer": "PreferReplica"}),
            &replica,
            "replica",
        ),
    ] {
        ns.job(name, "x", of_shop(&source)).await;
        let job = ns.job_ends(name, "Succeeded").await;
        let from = &job["status"]["source"];
        assert_eq!(from["pod"], json!(db.pod()), "{name}: {from}");
        assert_eq!(from["role"], json!(role), "{name}: {from}");
        let other = if role == "primary" {
            &replica
        } else {
            &primary
        };
        let event = started(&ns, name).await;
        assert!(
            event.contains(&format!("passed over: {} is ", other.pod())),
            "{event}"
        );
    }

    // Without a replica that replicates: one that must be so waits in vain, one that need not be goes on.
    replica.query("STOP SLAVE").await;
    ns.job(
        "late",
        "x",
        of_shop(&json!({"prefer": "Replica", "maxReplicaLagSeconds": 3600})),
    )
    .await;
    let (reason, message) = failure(&ns.job_ends("late", "Failed").await);
    assert_eq!(reason, "NoAgent", "{message}");
    for part in [
        format!("{} is the primary", primary.pod()),
        format!("{} is a replica that is not replicating", replica.pod()),
    ] {
        assert!(message.contains(&part), "{message}");
    }
    ns.job(
        "second",
        "x",
        of_shop(&json!({"prefer": "PreferReplica", "maxReplicaLagSeconds": 3600})),
    )
    .await;
    let job = ns.job_ends("second", "Succeeded").await;
    assert_eq!(job["status"]["source"]["pod"], json!(primary.pod()));
    let event = started(&ns, "second").await;
    assert!(event.contains("not replicating"), "{event}");
    ns.delete().await;
}

use crate::rig::{Rig, request};
use crate::server::{Server, eventually, free_port};
use towline_agent::backup::{Method, StartError};

/// Where Debian has it; mariadb-server depends on it.
const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";

/// A real cluster of one node.
#[tokio::test(flavor = "multi_thread")]
async fn a_galera_node_is_backed_up_only_where_that_is_allowed() {
    if !std::path::Path::new(PROVIDER).is_file() {
        eprintln!("not run: there is no {PROVIDER} (Debian: galera-4)");
        return;
    }
    let mut server = Server::with_user("physical");
    server.grant("logical");
    server.fill("orders", "InnoDB", 1);
    let (listen, transfer) = (free_port(), free_port());
    server.restart(&[
        "--log-bin=bin",
        "--wsrep-on=ON",
        &format!("--wsrep-provider={PROVIDER}"),
        "--wsrep-cluster-address=gcomm://",
        "--wsrep-node-address=127.0.0.1",
        "--innodb-autoinc-lock-mode=2",
        &format!(
            "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{listen};ist.recv_addr=127.0.0.1:{transfer}"
        ),
    ]);
    eventually("the node is in its cluster", || {
        let state = server.sql("SHOW STATUS LIKE 'wsrep_local_state_comment'");
        state.contains("Synced").then_some(())
    });
    let rig = Rig::new(&server);
    let galera = rig.engine.server_info().await.unwrap().galera.unwrap();
    assert_eq!(
        (
            &*galera.cluster_status,
            galera.cluster_size,
            &*galera.local_state
        ),
        ("Primary", 1, "Synced")
    );
    for method in [Method::Physical, Method::Logical] {
        let refused = rig.refused(request(method)).await;
        assert!(
            matches!(refused, StartError::MethodNotAvailable { .. }),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("--allow-galera"), "{refused}");
        rig.is_clean(Some(&server)).await;

        let allowed = Rig::with(&server, |config| config.allow_galera = true);
        allowed.start(request(method)).await.end().await.complete();
        allowed.is_clean(Some(&server)).await;
    }
}

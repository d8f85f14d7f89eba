//! Logical backups in a restore's pod: into a running server through its agent, and into a drill's.

use super::{Root, S3, plan, serve};
use crate::logical::{Place, SUMS, backed_up, install};
use crate::mariadb::processes;
use crate::stored::Stored;
use serde_json::{Value, json};
use std::fs;
use towline_controller::catalog::Manifest;
use towline_controller::reason::RestoreReason;
use towline_controller::restore_pod::{AGENT_SECRET_DIR, DATA_DIR, IDENTITY_DIR};

/// An encrypted backup in a store, its key in a pod.
async fn backup(source: &Place) -> Option<(Stored, S3, Root)> {
    let dir = tempfile::tempdir().unwrap();
    let (_, key) = backed_up(source, dir.path()).await;
    let store = tempfile::tempdir().unwrap();
    fs::rename(dir.path().join("store"), store.path()).unwrap();
    let folder = fs::read_dir(store.path().join("default/db"))
        .unwrap()
        .next();
    let manifest = fs::read(folder.unwrap().unwrap().path().join("manifest.json")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    let stored = Stored {
        dir: store,
        manifest,
    };
    let s3 = S3::of(&stored)?;
    let root = Root::new();
    fs::copy(key, root.path(IDENTITY_DIR).join("identity")).unwrap();
    Some((stored, s3, root))
}

fn into(agent: &Place, options: Value) -> Value {
    json!({"kind": "agent", "url": agent.url, "serverName": null, "options": options})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_gets_it_through_its_agent() {
    let source = Place::filled().await;
    let Some((stored, s3, root)) = backup(&source).await else {
        return;
    };
    let target = Place::new(true).await;
    let token = |token: &str| fs::write(root.path(AGENT_SECRET_DIR).join("token"), token).unwrap();
    let run = async |options: Value| {
        let plan = plan(&s3.endpoint, &stored, into(&target, options));
        root.run(&plan).await
    };
    token("some\n");
    let (code, report) = run(json!({})).await;
    assert_eq!(
        (code, report.reason),
        (1, Some(RestoreReason::TargetRefused)),
        "{report:?}"
    );
    assert!(
        !report.target_written && report.message.contains("scope `restore`"),
        "{report:?}"
    );

    token("all\n");
    let (code, report) = run(json!({"databases": ["nosuch"]})).await;
    assert_eq!(
        (code, report.reason),
        (1, Some(RestoreReason::InvalidSpec)),
        "{report:?}"
    );
    assert!(
        !report.target_written && report.message.contains("nosuch"),
        "{report:?}"
    );

    let (code, report) = run(json!({"includeUsers": true})).await;
    assert_eq!((code, report.reason), (0, None), "{report:?}");
    assert_eq!((report.tables, report.bytes), (2, stored.manifest.bytes));
    assert!(report.target_written);
    assert_eq!(target.server.sql(SUMS), source.server.sql(SUMS));

    let (code, report) = run(json!({})).await;
    assert_eq!(
        (code, report.reason),
        (1, Some(RestoreReason::TargetNotEmpty)),
        "{report:?}"
    );
    assert!(!report.target_written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_loads_it_into_a_throwaway_server() {
    let source = Place::filled().await;
    let Some((stored, s3, root)) = backup(&source).await else {
        return;
    };
    let prepare = json!({"kind": "drillPrepare", "useMemory": null});
    let (code, report) = root.run(&plan(&s3.endpoint, &stored, prepare)).await;
    assert_eq!((code, report.reason), (0, None), "{report:?}");
    // As the server's container does it.
    install(&root.path(DATA_DIR));
    let server = serve(root.0.path());
    let checks = json!([{"query": "SELECT COUNT(*) FROM shop.orders", "expect": "20"}]);
    let check = json!({"kind": "drillCheck", "checks": checks});
    let (code, report) = root.run(&plan(&s3.endpoint, &stored, check)).await;
    assert_eq!((code, report.reason), (0, None), "{report:?}");
    assert_eq!(report.tables, 2);
    assert!(report.checks.iter().all(|check| check.passed), "{report:?}");
    tokio::task::block_in_place(|| server.join().unwrap());
    assert_eq!(processes(root.0.path()), Vec::<String>::new());
}

use super::*;
use serde_json::{Value, json};
use towline_agent::protocol::info::Server;

fn pod(name: &str, volumes: Value, phase: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"containers": [], "volumes": volumes},
        "status": {"phase": phase},
    }))
    .unwrap()
}

#[test]
fn who_uses_a_claim() {
    let claim = |name: &str| json!([{"name": "v", "persistentVolumeClaim": {"claimName": name}}]);
    let pods = [
        pod("b-running", claim("data"), "Running"),
        pod("a-pending", claim("data"), "Pending"),
        pod("other", claim("data-1"), "Running"),
        pod("done", claim("data"), "Succeeded"),
        pod("failed", claim("data"), "Failed"),
        pod("theirs", claim("data"), "Running"),
        pod("none", Value::Null, "Running"),
        pod("eph", json!([{"name": "vol", "ephemeral": {}}]), "Running"),
    ];
    assert_eq!(users(&pods, "data"), ["a-pending", "b-running", "theirs"]);
    assert_eq!(users(&pods, "eph-vol"), ["eph"]);
    assert!(users(&pods, "free").is_empty());
}

#[test]
fn a_claim_has_to_be_a_file_system_that_stays() {
    let claim = |json: Value| serde_json::from_value::<PersistentVolumeClaim>(json).unwrap();
    let good = claim(json!({"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}));
    assert_eq!(claim_is_good(Some(&good), "c", "n"), Ok(()));
    for (bad, part) in [
        (None, "does not exist in namespace n"),
        (
            Some(claim(
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )),
            "being deleted",
        ),
        (
            Some(claim(json!({"spec": {"volumeMode": "Block"}}))),
            "file system",
        ),
        (Some(claim(json!({"status": {"phase": "Lost"}}))), "lost"),
    ] {
        let refusal = claim_is_good(bad.as_ref(), "c", "n").unwrap_err();
        assert_eq!(refusal.reason, RestoreReason::InvalidSpec);
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
}

#[test]
fn the_image_of_the_series_or_what_to_write() {
    let images = BTreeMap::from([("mariadb-10.11".to_owned(), "i".to_owned())]);
    let backup = |version: &str| RestoredBackup {
        server_flavour: "mariadb".into(),
        server_version: version.into(),
        ..RestoredBackup::default()
    };
    assert_eq!(
        tool_image(&images, &backup("10.11.6-MariaDB"), "drill"),
        Ok("i")
    );
    let refusal = tool_image(&images, &backup("11.4.2-MariaDB"), "drill").unwrap_err();
    for part in [
        "spec.to.drill.toolImage",
        "--tool-images=mariadb-11.4=IMAGE",
    ] {
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
}

#[test]
fn what_an_agent_takes() {
    let backup = RestoredBackup {
        server_flavour: "mariadb".into(),
        server_version: "10.11.6".into(),
        ..RestoredBackup::default()
    };
    let info = |capability: &str, flavour: &str, role: &str| Info {
        capabilities: vec![capability.into()],
        database: Some(Server {
            flavour: flavour.into(),
            role: role.into(),
            ..Server::default()
        }),
        ..Info::default()
    };
    assert_eq!(
        takes(&info("restore", "mariadb", "primary"), "db-0", &backup),
        Ok(())
    );
    let silent = Info {
        database: None,
        ..info("restore", "", "")
    };
    for (info, reason, part) in [
        (
            info("method", "mariadb", "primary"),
            RestoreReason::TargetRefused,
            "--allow-restore",
        ),
        (
            info("restore", "mysql", "primary"),
            RestoreReason::Incompatible,
            "has a mysql server",
        ),
        (
            info("restore", "mariadb", "replica"),
            RestoreReason::TargetRefused,
            "prefer: Primary",
        ),
        (silent, RestoreReason::TargetUnreachable, "does not answer"),
    ] {
        let refusal = takes(&info, "db-0", &backup).unwrap_err();
        assert_eq!(refusal.reason, reason);
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
}

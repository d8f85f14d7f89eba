//! The example for Alertmanager: each alert goes to whom it concerns, and what follows from another is not heard of.

use super::*;
use e2e::{eventually, monitoring::Alertmanager};

fn file() -> PathBuf {
    root().join("deploy/alertmanager/alertmanager.yaml")
}

/// Whether Debian's package is there; says when it is not.
fn amtool() -> bool {
    let there = Command::new("amtool").arg("--version").output().is_ok();
    if !there {
        eprintln!("not checked: amtool (package prometheus-alertmanager) does not start");
    }
    there
}

#[test]
fn each_alert_goes_to_its_team() {
    if !amtool() {
        return;
    }
    run(Command::new("amtool").arg("check-config").arg(file()));
    let receiver = |labels: &[&str]| {
        let mut command = Command::new("amtool");
        command.args(["config", "routes", "test", "--config.file"]);
        run(command.arg(file()).args(labels)).trim().to_owned()
    };
    for alert in super::alerts::alerts() {
        let name = format!("alertname={}", alert["alert"].as_str().unwrap());
        let severity = alert["labels"]["severity"].as_str().unwrap();
        let shop = if severity == "critical" {
            "team-shop-pager"
        } else {
            "team-shop"
        };
        let severity = format!("severity={severity}");
        for (namespace, team) in [
            ("shop", shop),
            ("shop-staging", shop),
            ("billing", "team-billing"),
            ("shopping", "platform"),
        ] {
            let namespace = format!("namespace={namespace}");
            let found = receiver(&[&name, &severity, &namespace]);
            assert_eq!(found, team, "{name} {severity} {namespace}");
        }
        assert_eq!(receiver(&[&name, &severity]), "platform", "{name}");
    }
    // Alerts of others are none of ours.
    let others = [
        "alertname=KubePodCrashLooping",
        "severity=critical",
        "namespace=shop",
    ];
    assert_eq!(receiver(&others), "platform");
}

/// Alertmanager itself, with alerts as Prometheus would send them.
#[tokio::test]
async fn what_follows_from_another_is_not_heard_of() {
    if !amtool() {
        return;
    }
    let alertmanager = Alertmanager::start("shop|shop-.+").await;
    let url = format!("--alertmanager.url=http://{}", alertmanager.address);
    let add = |labels: &str| {
        let mut command = Command::new("amtool");
        run(command.args(["alert", "add", &url]).args(labels.split(' ')));
    };
    let shop = "namespace=shop schedule=nightly severity=";
    add("TowlineStoreNotReady severity=critical namespace=shop store=offsite");
    alertmanager
        .told("team-shop-pager", "TowlineStoreNotReady", "firing")
        .await;
    add(&format!("TowlineBackupFailing {shop}warning"));
    add(&format!("TowlineBackupOverdue {shop}critical"));
    add(&format!("TowlineDrillFailed {shop}critical"));
    add("TowlineBackupFailing namespace=billing schedule=nightly severity=warning");
    add("TowlineBackupOverdue namespace=billing schedule=weekly severity=critical");
    alertmanager
        .told("team-billing", "TowlineBackupFailing", "firing")
        .await;
    alertmanager
        .told("team-shop-pager", "TowlineDrillFailed", "firing")
        .await;
    let inhibited = || {
        let mut command = Command::new("amtool");
        let query = ["alert", "query", "--inhibited", "--output=json", &url];
        let found: Value = serde_json::from_str(&run(command.args(query))).unwrap();
        let mut found: Vec<String> = found
            .as_array()
            .unwrap()
            .iter()
            .filter(|alert| alert["status"]["state"] == "suppressed")
            .map(|alert| {
                let label = |name: &str| alert["labels"][name].as_str().unwrap_or("-").to_owned();
                format!(
                    "{} {}/{}",
                    label("alertname"),
                    label("namespace"),
                    label("schedule")
                )
            })
            .collect();
        found.sort();
        found
    };
    let shop = [
        "TowlineBackupFailing shop/nightly",
        "TowlineBackupOverdue shop/nightly",
    ];
    assert_eq!(inhibited(), shop);
    // The same schedule, more gravely; another schedule is heard of.
    add("TowlineBackupOverdue namespace=billing schedule=nightly severity=critical");
    let mut wanted = vec!["TowlineBackupFailing billing/nightly"];
    wanted.extend(shop);
    eventually("the graver alert alone is heard of", || async {
        let found = inhibited();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    // Nobody works: nothing else is heard of but what is not its consequence.
    add("TowlineControllerDown severity=critical");
    let wanted = [
        "TowlineBackupFailing billing/nightly",
        "TowlineBackupFailing shop/nightly",
        "TowlineBackupOverdue billing/nightly",
        "TowlineBackupOverdue billing/weekly",
        "TowlineBackupOverdue shop/nightly",
    ];
    eventually("no schedule is heard of", || async {
        let found = inhibited();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    alertmanager
        .told("platform", "TowlineControllerDown", "firing")
        .await;
    let told = alertmanager.messages();
    let shop = told
        .iter()
        .filter(|message| message.receiver.starts_with("team-shop"));
    for (alert, _) in shop.flat_map(|message| message.alerts()) {
        assert!(!alert.starts_with("TowlineBackup"), "{alert}");
    }
}

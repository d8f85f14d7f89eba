use super::*;
use serde_json::{Value, json};

fn read<K: serde::de::DeserializeOwned>(
    name: &str,
    namespace: &str,
    spec: Value,
    status: Value,
) -> K {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec, "status": status,
    }))
    .unwrap()
}

fn fleet() -> Fleet {
    let spec = json!({
        "schedule": "0 2 * * *",
        "jobTemplate": {"spec": {"source": {"url": "http://db:8474"}, "storeRef": {"name": "offsite"}}},
        "verify": {"schedule": "@weekly", "image": "mariadb:10.11"},
    });
    let c = |type_: &str, status: &str, reason: &str, message: &str| json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-03-04T03:00:00Z"});
    let good: BackupSchedule = read(
        "nightly",
        "shop",
        spec.clone(),
        json!({
            "conditions": [c("Ready", "True", "Scheduled", ""), c("Verified", "True", "Succeeded", "")],
            "lastSuccessfulTime": "2026-03-04T02:00:00Z", "lastVerifiedTime": "2026-03-01T12:00:00Z",
            "nextScheduleTime": "2026-03-05T02:00:00Z", "backups": 7, "bytes": 7516192768_u64,
        }),
    );
    let late: BackupSchedule = read(
        "hourly",
        "billing",
        spec,
        json!({
            "conditions": [c("Ready", "True", "Scheduled", ""), c("Overdue", "True", "NoRecentSuccess", "m"), c("Failing", "True", "NoAgent", "no pod\u{1b}[2J matches")],
            "lastSuccessfulTime": "2026-03-04T00:00:00Z", "nextScheduleTime": "2026-03-04T12:00:00Z", "consecutiveFailures": 11,
        }),
    );
    let running: BackupJob = read(
        "by-hand",
        "shop",
        json!({"source": {"url": "http://db:8474"}, "storeRef": {"name": "offsite"}}),
        json!({"phase": "Running", "attempt": 2, "startTime": "2026-03-04T11:58:00Z",
            "progress": {"bytes": 1073741824, "estimatedBytes": 3221225472_u64, "bytesPerSecond": 89128960, "lastProgressTime": "2026-03-04T12:00:00Z"}}),
    );
    let store: BackupStore = read(
        "offsite",
        "shop",
        json!({"file": {"path": "a"}}),
        json!({"conditions": [c("Ready", "True", "Probed", "")], "location": "s3://backups/shop", "backups": 7, "bytes": 7516192768_u64}),
    );
    let objects = Objects {
        schedules: vec![&good, &late],
        jobs: vec![&running],
        stores: vec![&store],
        ..Objects::default()
    };
    Fleet::of(&objects, "2026-03-04T12:00:00Z".parse().unwrap())
}

#[test]
fn one_screen_says_it_all() {
    let expected = "\
2 schedules in all namespaces, 1 good; 7 backups, 7.00GiB

NEEDS ATTENTION
Critical BackupSchedule billing/hourly: NoRecentSuccess: last good backup 12h0m ago; the last job failed: NoAgent: no pod [2J matches (9h0m)

SCHEDULES
NAMESPACE   SCHEDULE   STATE     LAST GOOD    VERIFIED    NEXT       FAILED   BACKUPS   SIZE
billing     hourly     Overdue   12h0m ago    not yet     now        11       -         -
shop        nightly    Good      10h0m ago    3d0h ago    in 14h0m   0        7         7.00GiB

RUNNING
NAMESPACE   RUNNING   WHAT               SINCE   DONE                   RATE         ENDS
shop        by-hand   backup attempt 2   2m0s    1.00GiB of <3.00GiB    85.0MiB/s    within 24s

STORES
NAMESPACE   STORE     READY   BACKUPS   SIZE      LOCATION
shop        offsite   yes     7         7.00GiB   s3://backups/shop
";
    let found = screen(&fleet(), None, false, Paint::new(false));
    let squeeze = |text: &str| {
        let lines = text.lines().map(|line| {
            line.split("  ")
                .filter(|cell| !cell.trim().is_empty())
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" | ")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(squeeze(&found), squeeze(expected), "{found}");
}

#[test]
fn one_namespace_needs_no_column_and_wide_has_more() {
    let found = screen(&fleet(), Some("shop"), true, Paint::new(false));
    assert!(!found.contains("NAMESPACE"), "{found}");
    assert!(found.contains("0 2 * * *"), "{found}");
    assert!(found.contains("Etc/UTC"), "{found}");
}

#[test]
fn an_empty_cluster_says_so() {
    let fleet = Fleet::of(&Objects::default(), Timestamp::UNIX_EPOCH);
    let found = screen(&fleet, Some("shop"), false, Paint::new(false));
    assert!(found.contains("namespace shop"), "{found}");
    assert_eq!(found.lines().count(), 1);
}

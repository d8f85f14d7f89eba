use super::*;
use crate::catalog::{JobIdentity, ObjectRef};
use serde_json::json;

fn manifest(job: &str, schedule: Option<&str>, created: i64, end: i64) -> Manifest {
    let at = |second| Timestamp::from_second(second).unwrap();
    Manifest {
        format_version: 1,
        outcome: Outcome::Complete,
        identity: JobIdentity {
            cluster_id: "c".into(),
            namespace: "shop".into(),
            job_name: job.into(),
            job_uid: format!("uid-{job}"),
            schedule_name: schedule.map(str::to_owned),
            schedule_uid: None,
            store_uid: None,
            created: at(created),
        },
        attempt: 1,
        time: at(end),
        objects: vec![ObjectRef {
            key: "x/backup.tar.zst".into(),
            bytes: 1,
        }],
        bytes: 1,
        sha256: "00".into(),
        backup_id: "b".into(),
        method: "physical".into(),
        server_flavour: "mariadb".into(),
        server_version: "10.11.6".into(),
        position: towline_agent::archive::Position::default(),
        start_time: at(created),
    }
}

fn listed(manifests: Vec<Manifest>) -> Vec<Listed> {
    let list = manifests.into_iter().map(|manifest| Listed {
        key: format!("{}/manifest.json", manifest.identity.folder()),
        manifest: Ok(manifest),
    });
    list.collect()
}

fn latest(before: Option<i64>) -> FromLatest {
    FromLatest {
        store_ref: crate::api::LocalReference { name: "s".into() },
        schedule: Some("nightly".into()),
        before: before.map(|s| Time(Timestamp::from_second(s).unwrap())),
    }
}

#[test]
fn the_newest_that_was_complete_in_time() {
    let mut abandoned = manifest("n-4", Some("nightly"), 400, 410);
    abandoned.outcome = Outcome::Abandoned;
    let all = || {
        listed(vec![
            manifest("n-1", Some("nightly"), 100, 110),
            manifest("n-3", Some("nightly"), 300, 390),
            manifest("n-2", Some("nightly"), 200, 210),
            manifest("other-9", Some("other"), 900, 910),
            manifest("now", None, 950, 960),
            abandoned.clone(),
        ])
    };
    let now = Timestamp::from_second(1000).unwrap();
    for (before, name) in [
        (None, "n-3"),
        // It began before, and was not complete by then.
        (Some(389), "n-2"),
        (Some(390), "n-3"),
        (Some(150), "n-1"),
    ] {
        let found = newest(all(), &latest(before), now).unwrap();
        assert_eq!(found.identity.job_name, name, "{before:?}");
    }
    let any = FromLatest {
        schedule: None,
        ..latest(None)
    };
    assert_eq!(newest(all(), &any, now).unwrap().identity.job_name, "now");
    let none = newest(all(), &latest(Some(105)), now).unwrap_err();
    assert_eq!(none.reason, RestoreReason::BackupNotFound);
    assert!(
        none.message.contains("none of the 3 backups"),
        "{}",
        none.message
    );
    let mut bad = listed(vec![manifest("n-1", Some("nightly"), 1, 2)]);
    bad[0].manifest = Err(StoreError::failed("cut"));
    let none = newest(bad, &latest(None), now).unwrap_err();
    assert!(
        none.message.contains("1 cannot be read"),
        "{}",
        none.message
    );
}

#[test]
fn a_key_lies_under_the_restores_namespace() {
    let key = |namespace: &str| format!("{namespace}/nightly/20260102T030405Z-u");
    assert!(of_key(&key("shop"), "shop").is_ok());
    for other in ["shop2", "", "sho", "SHOP", "shop/.."] {
        let refusal = of_key(&key(other), "shop").unwrap_err();
        assert_eq!(refusal.reason, RestoreReason::InvalidSpec, "{other}");
    }
}

#[test]
fn the_folder_of_a_manifest() {
    for (key, prefix, folder) in [
        ("a/b/shop/n/t-u/manifest.json", "a/b", Some("shop/n/t-u")),
        ("a/b/shop/n/t-u/manifest.json", "a/b/", Some("shop/n/t-u")),
        ("shop/n/t-u/manifest.json", "", Some("shop/n/t-u")),
        ("shop/n/t-u/manifest.json", "a", None),
        ("ab/shop/n/t-u/manifest.json", "a", None),
        ("shop/n/t-u", "", None),
    ] {
        assert_eq!(folder_of(key, prefix).as_deref(), folder, "{key} {prefix}");
    }
}

#[test]
fn a_backup_job_has_to_have_one() {
    let job = |status: serde_json::Value| {
        let job = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "metadata": {"name": "n-1"},
            "spec": {"source": {"url": "http://db"}, "storeRef": {"name": "main"}}, "status": status});
        serde_json::from_value::<BackupJob>(job).unwrap()
    };
    let good = job(json!({"phase": "Succeeded", "manifestKey": "shop/n/t-u/manifest.json"}));
    assert_eq!(of_job(Some(&good), "n-1", "shop").unwrap().store, "main");
    for (bad, part) in [
        (
            Some(job(json!({"phase": "Running"}))),
            "its phase is Running",
        ),
        (Some(job(json!({"phase": "Failed"}))), "its phase is Failed"),
        (None, "does not exist in namespace shop"),
    ] {
        let Err(refusal) = of_job(bad.as_ref(), "n-1", "shop") else {
            panic!("{part}");
        };
        assert_eq!(refusal.reason, RestoreReason::BackupNotFound);
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_made() {
    let spec = |to: serde_json::Value, decryption: bool| {
        let decryption = decryption.then(|| json!({"identitySecretRef": {"name": "i"}}));
        let spec =
            json!({"from": {"backupJobRef": {"name": "b"}}, "to": to, "decryption": decryption});
        serde_json::from_value::<RestoreJobSpec>(spec).unwrap()
    };
    let volume = json!({"persistentVolumeClaim": {"claimName": "c"}});
    let agent = json!({"agent": {"url": "http://db"}});
    let drill = json!({"drill": {"image": "i"}});
    for (to, method, encrypted, identity, refused) in [
        (&volume, "physical", false, false, None),
        (
            &volume,
            "logical",
            false,
            false,
            Some(RestoreReason::Incompatible),
        ),
        (&agent, "logical", false, false, None),
        (
            &agent,
            "physical",
            false,
            false,
            Some(RestoreReason::Incompatible),
        ),
        (&drill, "physical", false, false, None),
        (&drill, "logical", true, true, None),
        (&drill, "logical", false, true, None),
        (
            &volume,
            "physical",
            true,
            false,
            Some(RestoreReason::NotDecryptable),
        ),
    ] {
        let backup = RestoredBackup {
            method: method.into(),
            encrypted,
            ..RestoredBackup::default()
        };
        let found = check(&spec(to.clone(), identity), &backup).err();
        assert_eq!(found.map(|r| r.reason), refused, "{to} {method}");
    }
}

#[test]
fn encrypted_objects_are_known_by_their_names() {
    for (key, encrypted) in [
        ("a/1/backup.tar.zst", false),
        ("a/1/backup.tar.zst.age", true),
        ("a/1/backup.tar.age.0001", true),
        ("a.age/1/backup.tar.zst.0001", false),
    ] {
        assert_eq!(is_encrypted(key), encrypted, "{key}");
    }
}

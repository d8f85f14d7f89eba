//! Which backup somebody means.

use super::{Listed, Manifest, Outcome};
use crate::storage::StoreError;
use jiff::Timestamp;

/// How somebody says which backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// As `towline ls` prints it: its folder, or the end of it; its manifest's key does too.
    Key(String),
    /// The newest one.
    Latest {
        /// Of this schedule alone.
        schedule: Option<String>,
        /// That was complete before this time.
        before: Option<Timestamp>,
    },
}

/// Why there is no such backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackup {
    /// There is none.
    #[error("{0}")]
    NotFound(String),
    /// Its manifest cannot be read.
    #[error(transparent)]
    Unreadable(#[from] StoreError),
}

/// The manifest of a complete backup out of [`super::list`]'s answer.
///
/// # Errors
/// [`NoBackup`].
pub fn choose(listed: Vec<Listed>, namespace: &str, which: &Which) -> Result<Manifest, NoBackup> {
    match which {
        Which::Key(key) => by_key(listed, namespace, key),
        Which::Latest { schedule, before } => {
            let fits = |m: &Manifest| {
                m.outcome == Outcome::Complete
                    && (schedule.is_none() || m.identity.schedule_name == *schedule)
                    && before.is_none_or(|before| m.time < before)
            };
            let mut manifests = listed.into_iter().filter_map(|l| l.manifest.ok());
            // The list is sorted by time.
            manifests.rfind(fits).ok_or_else(|| {
                let mut text = format!("there is no backup in namespace {namespace}");
                if let Some(schedule) = schedule {
                    text.push_str(&format!(" of schedule {schedule}"));
                }
                if let Some(before) = before {
                    text.push_str(&format!(" that was complete before {before}"));
                }
                NoBackup::NotFound(text + ": see towline ls")
            })
        }
    }
}

fn by_key(listed: Vec<Listed>, namespace: &str, key: &str) -> Result<Manifest, NoBackup> {
    let wanted = key.trim_matches('/').trim_end_matches("/manifest.json");
    let is_it = |l: &Listed| {
        let folder = l.key.trim_end_matches("/manifest.json");
        folder == wanted
            || folder
                .strip_suffix(wanted)
                .is_some_and(|before| before.ends_with('/'))
    };
    let Some(found) = listed.into_iter().find(is_it) else {
        return Err(NoBackup::NotFound(format!(
            "there is no backup {wanted:?} in namespace {namespace}: see towline ls"
        )));
    };
    let manifest = found.manifest?;
    if manifest.outcome == Outcome::Abandoned {
        return Err(NoBackup::NotFound(format!(
            "{wanted} is no backup: it was given up at {}",
            manifest.time
        )));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::super::{JobIdentity, ObjectRef};
    use super::*;

    fn listed(schedule: Option<&str>, uid: &str, day: u8, outcome: Outcome) -> Listed {
        let created: Timestamp = format!("2026-01-{day:02}T01:00:00Z").parse().unwrap();
        let identity = JobIdentity {
            cluster_id: "c".into(),
            namespace: "ns".into(),
            job_name: "by-hand".into(),
            job_uid: uid.into(),
            schedule_name: schedule.map(Into::into),
            schedule_uid: None,
            store_uid: None,
            created,
        };
        let key = format!("p/{}/manifest.json", identity.folder());
        let manifest = Manifest {
            format_version: 1,
            outcome,
            identity,
            attempt: 1,
            time: format!("2026-01-{day:02}T02:00:00Z").parse().unwrap(),
            objects: vec![ObjectRef {
                key: "k".into(),
                bytes: 1,
            }],
            bytes: 1,
            sha256: String::new(),
            backup_id: String::new(),
            method: "physical".into(),
            server_flavour: "mariadb".into(),
            server_version: "10.11".into(),
            position: Default::default(),
            start_time: created,
        };
        Listed {
            key,
            manifest: Ok(manifest),
        }
    }

    fn all() -> Vec<Listed> {
        let unreadable = Listed {
            key: "p/ns/nightly/20260109T010000Z-u-9/manifest.json".into(),
            manifest: Err(StoreError::failed("is not a manifest")),
        };
        vec![
            listed(Some("nightly"), "u-1", 1, Outcome::Complete),
            listed(None, "u-2", 2, Outcome::Complete),
            listed(Some("nightly"), "u-3", 3, Outcome::Complete),
            listed(Some("weekly"), "u-4", 4, Outcome::Complete),
            listed(Some("weekly"), "u-5", 5, Outcome::Abandoned),
            unreadable,
        ]
    }

    #[test]
    fn the_latest_that_fits() {
        let latest = |schedule: Option<&str>, before: Option<&str>| {
            let which = Which::Latest {
                schedule: schedule.map(Into::into),
                before: before.map(|t| t.parse().unwrap()),
            };
            choose(all(), "ns", &which).map(|m| m.identity.job_uid)
        };
        assert_eq!(latest(None, None).unwrap(), "u-4");
        assert_eq!(latest(Some("nightly"), None).unwrap(), "u-3");
        // Complete only at this very moment: too late.
        assert_eq!(
            latest(Some("nightly"), Some("2026-01-03T02:00:00Z")).unwrap(),
            "u-1"
        );
        assert_eq!(latest(None, Some("2026-01-03T01:59:59Z")).unwrap(), "u-2");
        let none = latest(Some("weekly"), Some("2026-01-03T00:00:00Z")).unwrap_err();
        let text = none.to_string();
        assert!(
            text.contains("weekly") && text.contains("2026-01-03") && text.contains("towline ls"),
            "{text}"
        );
    }

    #[test]
    fn by_its_key() {
        let of = |key: &str| choose(all(), "ns", &Which::Key(key.into()));
        for key in [
            "ns/nightly/20260103T010000Z-u-3",
            "/p/ns/nightly/20260103T010000Z-u-3/",
            "nightly/20260103T010000Z-u-3/manifest.json",
        ] {
            assert_eq!(of(key).unwrap().identity.job_uid, "u-3", "{key}");
        }
        for key in [
            "ns/nightly/20260103T010000Z-u",
            "u-3",
            "weekly/20260105T010000Z-u-5",
        ] {
            assert!(matches!(of(key), Err(NoBackup::NotFound(_))), "{key}");
        }
        let unreadable = of("nightly/20260109T010000Z-u-9");
        assert!(matches!(unreadable, Err(NoBackup::Unreadable(_))));
    }
}

use super::*;
use crate::catalog::{Attempt, FORMAT_VERSION, Manifest};
use std::{collections::BTreeMap, sync::Arc};

fn t(hour: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap()
}

fn manifest(outcome: Outcome, attempt: u32, hour: i64) -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        outcome,
        identity: JobIdentity {
            cluster_id: "c".into(),
            namespace: "ns".into(),
            job_name: "job".into(),
            job_uid: "u".into(),
            schedule_name: None,
            schedule_uid: None,
            store_uid: None,
            created: t(0),
        },
        attempt,
        time: t(hour),
        objects: Vec::new(),
        bytes: 0,
        sha256: String::new(),
        backup_id: String::new(),
        method: String::new(),
        server_flavour: String::new(),
        server_version: String::new(),
        position: Default::default(),
        start_time: t(0),
    }
}

#[test]
fn what_is_done_about_a_folder() {
    let complete = |attempt| Some(Ok(Arc::new(manifest(Outcome::Complete, attempt, 0))));
    let abandoned = || Some(Ok(Arc::new(manifest(Outcome::Abandoned, 1, 0))));
    let unreadable = || Some(Err(StoreError::failed("newer")));
    // Attempts: number, marked, hour of the newest object.
    for (what, manifest, attempts, ours, hour, steps) in [
        ("nothing", None, vec![], vec![], 9999, vec![]),
        (
            "a backup",
            complete(1),
            vec![(1, true, 0)],
            vec![1],
            9999,
            vec![],
        ),
        (
            "an attempt that lost",
            complete(2),
            vec![(1, true, 0), (2, true, 0)],
            vec![1],
            0,
            vec![Step::Clean(1)],
        ),
        (
            "a dead attempt",
            None,
            vec![(1, true, 0)],
            vec![1],
            23,
            vec![Step::Clean(1)],
        ),
        (
            "one that is long dead",
            None,
            vec![(1, true, 0)],
            vec![1],
            24,
            vec![Step::Abandon(1)],
        ),
        (
            "two of them",
            None,
            vec![(1, true, 0), (2, true, 20)],
            vec![1, 2],
            24,
            vec![Step::Abandon(1), Step::Clean(2)],
        ),
        (
            "another's mark",
            None,
            vec![(1, true, 0)],
            vec![],
            9999,
            vec![],
        ),
        ("no mark", None, vec![(1, false, 0)], vec![], 9999, vec![]),
        (
            "a clock that went back",
            None,
            vec![(1, true, 50)],
            vec![1],
            0,
            vec![Step::Clean(1)],
        ),
        (
            "left by a zombie",
            abandoned(),
            vec![(1, true, 0)],
            vec![1],
            1,
            vec![Step::Clean(1)],
        ),
        (
            "abandoned, with what is not ours",
            abandoned(),
            vec![(1, false, 0)],
            vec![],
            9999,
            vec![],
        ),
        (
            "abandoned",
            abandoned(),
            vec![],
            vec![],
            30 * 24 - 1,
            vec![],
        ),
        (
            "abandoned long ago",
            abandoned(),
            vec![],
            vec![],
            30 * 24,
            vec![Step::Forget],
        ),
        (
            "abandoned long ago, not clean yet",
            abandoned(),
            vec![(1, true, 0)],
            vec![1],
            9999,
            vec![Step::Clean(1)],
        ),
        (
            "a backup, however old",
            complete(1),
            vec![],
            vec![],
            99_999,
            vec![],
        ),
        (
            "unreadable",
            unreadable(),
            vec![(1, true, 0)],
            vec![1],
            9999,
            vec![],
        ),
    ] {
        let folder = Folder {
            verdict: None,
            key: "p/ns/job/x".into(),
            manifest,
            attempts: attempts
                .into_iter()
                .map(|(n, marked, newest)| {
                    (
                        n,
                        Attempt {
                            marked,
                            newest: t(newest),
                        },
                    )
                })
                .collect::<BTreeMap<_, _>>(),
        };
        let ours = ours.into_iter().collect();
        assert_eq!(plan(&folder, &ours, t(hour)), steps, "{what}");
    }
}

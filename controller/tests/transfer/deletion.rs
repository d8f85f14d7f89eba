//! Backups that are deleted, and what dead attempts leave: on a folder and on a real S3 server, with a
//! process that dies between any two requests.

use crate::{
    agent::{Agent, Step, good, head},
    body,
    gate::{Gate, Side},
    job,
    place::{Place, places},
    run,
    servers::Server,
    transfer_of,
};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use towline_controller::{
    catalog::{self, Folder, JobIdentity, Known, Manifest, Outcome},
    storage::Store,
    transfer::{self, Progress},
    upkeep::sweep::{Us, sweep_folder},
};

const US: Us<'_> = Us {
    cluster_id: "c",
    namespace: "ns",
};

fn later(hours: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(hours)
}

async fn survey(store: &Store) -> Vec<Folder> {
    catalog::survey(store, "ns", &mut Known::default())
        .await
        .unwrap()
}

/// Sweeps everything, as if every job had ended; gives how many uploads were aborted.
async fn sweep(store: &Store, now: Timestamp) -> usize {
    let mut aborted = 0;
    for folder in survey(store).await {
        let ended = async |_: &JobIdentity| Ok(false);
        aborted += sweep_folder(store, &folder, &US, ended, now).await.unwrap();
    }
    aborted
}

async fn of(place: &Place, job: &JobIdentity) -> Vec<String> {
    let mut remains = place.remains().await;
    remains.retain(|key| key.contains(&job.folder()));
    remains
}

/// Two objects of one part each.
async fn backup(agent: &Agent, store: &Arc<Store>, job: &JobIdentity, attempt: u32) -> Manifest {
    let success = run(transfer_of(&agent.url, store, job, attempt)).await;
    success.unwrap().manifest
}

/// Leaves an attempt in the middle of its upload, as a process that is killed does.
async fn killed(store: &Arc<Store>, job: &JobIdentity, attempt: u32) {
    let agent = Agent::start(vec![head(), Step::Chunk(body(10)), Step::Hold, Step::Hold]).await;
    let (progress, mut watched) = watch::channel(Progress::default());
    let transfer = transfer_of(&agent.url, store, job, attempt);
    let running = tokio::spawn(transfer::run(transfer, progress, CancellationToken::new()));
    // Bytes are read only after the upload is open and recorded.
    watched.wait_for(|p| p.bytes > 0).await.unwrap();
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_with_all_that_is_its_own_and_nothing_else() {
    let (places, _gateway) = places().await;
    let agent = Agent::start(good(&body(6 << 20))).await;
    for place in &places {
        let store = place.store(1);
        let (doomed, other) = (job("doomed"), job("other"));
        let manifest = backup(&agent, &store, &doomed, 1).await;
        backup(&agent, &store, &other, 1).await;
        let theirs = of(place, &other).await;
        assert_eq!(theirs.len(), 4, "two objects, mark, manifest: {theirs:?}");

        let another = catalog::delete_backup(&store, "another", &manifest, later(0)).await;
        assert!(another.unwrap_err().message.contains("the cluster \"c\""));
        assert_eq!(
            of(place, &doomed).await.len(),
            4,
            "another cluster deletes nothing"
        );

        catalog::delete_backup(&store, "c", &manifest, later(0))
            .await
            .unwrap();
        assert_eq!(place.remains().await, theirs);
        // Twice is no error, and a backup that was never there is gone.
        catalog::delete_backup(&store, "c", &manifest, later(0))
            .await
            .unwrap();
        assert_eq!(place.remains().await, theirs);
        assert_eq!(sweep(&store, later(10_000)).await, 0);
        assert_eq!(
            place.remains().await,
            theirs,
            "however old, a backup is not swept"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_backup_of_several_attempts_leaves_a_bar_for_zombies() {
    let (places, _gateway) = places().await;
    let agent = Agent::start(good(&body(6 << 20))).await;
    for place in &places {
        let store = place.store(1);
        let job = job("u");
        killed(&store, &job, 1).await;
        let manifest = backup(&agent, &store, &job, 2).await;
        catalog::delete_backup(&store, "c", &manifest, later(0))
            .await
            .unwrap();
        assert_eq!(
            of(place, &job).await,
            [format!("pre/{}/manifest.json", job.folder())]
        );
        let stands = catalog::read_decision(&store, &job).await.unwrap().unwrap();
        assert_eq!(stands.outcome, Outcome::Abandoned);
        // The zombie of attempt 1 meets it.
        assert_eq!(
            catalog::abandon(&store, &job, 1, later(0)).await.unwrap(),
            stands
        );
        sweep(&store, later(29 * 24)).await;
        assert_eq!(of(place, &job).await.len(), 1);
        sweep(&store, later(31 * 24)).await;
        assert_eq!(place.remains().await, Vec::<String>::new());
        // An old one has no zombies any more.
        let manifest = backup(&agent, &store, &job, 2).await;
        catalog::delete_backup(&store, "c", &manifest, later(25))
            .await
            .unwrap();
        assert_eq!(place.remains().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_dies_anywhere_is_finished_by_the_sweep() {
    let Some(gateway) = Server::versitygw().await else {
        return;
    };
    let gate = Gate::before(&gateway.endpoint).await;
    let agent = Agent::start(good(&body(6 << 20))).await;
    let direct = gateway.place();
    let gated = Place::S3 {
        endpoint: gate.endpoint.clone(),
    };
    let (mut whole, mut half) = (0, 0);
    for side in [Side::Before, Side::After] {
        for n in 0.. {
            let job = job(&format!("u-{side:?}-{n}").to_lowercase());
            let manifest = backup(&agent, &direct.store(1), &job, 1).await;
            let store = gated.store(1);
            gate.stop_at(n, side);
            let dead = tokio::select! {
                done = catalog::delete_backup(&store, "c", &manifest, later(0)) => {
                    done.unwrap();
                    None
                }
                at = gate.reached() => Some(at),
            };
            let Some(at) = dead else {
                assert!(n > 5, "so few requests: {n}");
                break;
            };
            drop(store);
            gate.quiet().await;
            let store = direct.store(1);
            let decision = catalog::read_decision(&store, &job).await.unwrap();
            // The sweep need not wait: the mark says what was being done.
            sweep(&store, later(0)).await;
            let left = of(&direct, &job).await;
            if decision.is_some() {
                whole += 1;
                assert_eq!(
                    left.len(),
                    4,
                    "{side:?} {at}: the backup stands, whole: {left:?}"
                );
                catalog::delete_backup(&store, "c", &manifest, later(0))
                    .await
                    .unwrap();
            } else {
                half += 1;
                assert_eq!(left, Vec::<String>::new(), "{side:?} {at}");
            }
            assert_eq!(
                of(&direct, &job).await,
                Vec::<String>::new(),
                "{side:?} {at}"
            );
        }
    }
    assert!(
        whole > 0 && half > 0,
        "the interesting moments were met: {whole} {half}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_attempts_are_swept_up() {
    let (places, _gateway) = places().await;
    for place in &places {
        let store = place.store(1);
        let dead = job("dead");
        killed(&store, &dead, 1).await;
        let before = place.remains().await;
        assert!(!before.is_empty());
        let mut other = dead.clone();
        other.cluster_id = "another".into();
        for (us, live) in [
            (
                Us {
                    cluster_id: "another",
                    ..US
                },
                false,
            ),
            (
                Us {
                    namespace: "another",
                    ..US
                },
                false,
            ),
            (US, true),
        ] {
            for folder in survey(&store).await {
                let live = async |job: &JobIdentity| {
                    assert_eq!(job.job_uid, "dead", "the job that is asked for");
                    Ok(live)
                };
                sweep_folder(&store, &folder, &us, live, later(10_000))
                    .await
                    .unwrap();
            }
            assert_eq!(place.remains().await, before, "{us:?} {live}");
        }
        let unknown = async |_: &JobIdentity| Err("the API server does not answer".to_owned());
        let folder = survey(&store).await.remove(0);
        sweep_folder(&store, &folder, &US, unknown, later(10_000))
            .await
            .unwrap_err();
        assert_eq!(
            place.remains().await,
            before,
            "who cannot be asked about may live"
        );

        // Unfinished uploads go at once.
        assert!(sweep(&store, later(0)).await > 0);
        assert_eq!(place.remains().await, Vec::<String>::new());
    }
}

/// Dead between complete and manifest: the objects stay a day, then a decision bars the way first.
#[tokio::test(flavor = "multi_thread")]
async fn completed_objects_wait_a_day() {
    let Some(gateway) = Server::versitygw().await else {
        return;
    };
    let gate = Gate::before(&gateway.endpoint).await;
    let agent = Agent::start(good(&body(6 << 20))).await;
    let direct = gateway.place();
    let gated = Place::S3 {
        endpoint: gate.endpoint.clone(),
    };
    let job = job("z");
    // Requests: decision, mark, open, mark, part, open, mark, part, complete, head, complete, head, manifest.
    gate.stop_at(12, Side::Before);
    let store = gated.store(1);
    tokio::select! {
        done = run(transfer_of(&agent.url, &store, &job, 1)) => panic!("{done:?}"),
        at = gate.reached() => assert!(at.starts_with("PUT") && at.contains("manifest.json"), "{at}"),
    }
    drop(store);
    gate.quiet().await;
    let store = direct.store(1);
    sweep(&store, later(23)).await;
    let left = direct.remains().await;
    assert_eq!(left.len(), 3, "two objects and the mark: {left:?}");
    sweep(&store, later(25)).await;
    assert_eq!(
        direct.remains().await,
        [format!("pre/{}/manifest.json", job.folder())]
    );
    let stands = catalog::read_decision(&store, &job).await.unwrap().unwrap();
    assert_eq!(stands.outcome, Outcome::Abandoned);
    sweep(&store, later(25 + 31 * 24)).await;
    assert_eq!(direct.remains().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_has_no_mark_is_not_touched() {
    let place = Place::file();
    let Place::File(dir) = &place else { return };
    let folder = dir.path().join("pre/ns/job/20260102T030405Z-u");
    for (file, text) in [
        ("1/backup.tar.zst", "x"),
        ("01/upload.json", "{}"),
        ("notes.txt", "x"),
        ("verified/20260103T000000Z.json", "{}"),
    ] {
        let file = folder.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let before = place.remains().await;
    let store = place.store(1);
    sweep(&store, later(100_000)).await;
    assert_eq!(place.remains().await, before);
    // A mark that cannot be read holds up its own folder only.
    std::fs::write(folder.join("1/upload.json"), "nonsense").unwrap();
    let folder = survey(&store).await.remove(0);
    let ended = async |_: &JobIdentity| Ok(false);
    let error = sweep_folder(&store, &folder, &US, ended, later(100_000)).await;
    assert!(error.unwrap_err().contains("upload.json"));
    assert_eq!(place.remains().await.len(), before.len() + 1);
}

/// A manifest is read once, as long as the listing says that it is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_survey_reads_what_is_new() {
    let (places, _gateway) = places().await;
    let agent = Agent::start(good(&body(10))).await;
    for place in &places {
        let store = place.store(1);
        let mut known = Known::default();
        let mut complete = async |store: &Store| {
            let folders = catalog::survey(store, "ns", &mut known).await.unwrap();
            let manifests = folders.into_iter().filter_map(|f| f.manifest?.ok());
            manifests.collect::<Vec<_>>()
        };
        let first = backup(&agent, &store, &job("u-1"), 1).await;
        let once = complete(&store).await;
        assert_eq!(*once[0], first);
        let second = backup(&agent, &store, &job("u-2"), 1).await;
        let twice = complete(&store).await;
        assert_eq!(twice.len(), 2);
        assert!(
            Arc::ptr_eq(&once[0], &twice[0]),
            "the first was not read again"
        );
        // One that was replaced is another.
        catalog::delete_backup(&store, "c", &first, later(0))
            .await
            .unwrap();
        killed(&store, &job("u-1"), 1).await;
        assert_eq!(
            complete(&store)
                .await
                .iter()
                .map(|m| &**m)
                .collect::<Vec<_>>(),
            [&second]
        );
    }
}

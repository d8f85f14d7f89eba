//! A process dies between any two requests to the store; the next one cleans up. In the end there
//! is one decision, and nothing that it does not account for.

use crate::{
    agent::{Agent, Step, good},
    body,
    gate::{Gate, Side},
    job,
    place::Place,
    run,
    servers::Server,
    transfer_of,
};
use tokio_util::sync::CancellationToken;
use towline_controller::{
    catalog::{self, Outcome},
    transfer::{self, Progress},
};

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_request() {
    let Some(gateway) = Server::versitygw().await else {
        return;
    };
    let gate = Gate::before(&gateway.endpoint).await;
    // Two objects of one part each.
    let data = body(6 << 20);
    let agent = Agent::start(good(&data)).await;
    let direct = gateway.place();
    let gated = Place::S3 {
        endpoint: gate.endpoint.clone(),
    };
    let mut decided = 0;
    let mut completed = 0;
    for side in [Side::Before, Side::After] {
        for n in 0.. {
            let job = job(&format!("u-{side:?}-{n}").to_lowercase());
            gate.stop_at(n, side);
            let store = gated.store(1);
            let dead = tokio::select! {
                done = run(transfer_of(&agent.url, &store, &job, 1)) => {
                    done.unwrap();
                    None
                }
                at = gate.reached() => Some(at),
            };
            let Some(at) = dead else {
                assert!(n > 10, "so few requests: {n}");
                break;
            };
            drop(store);
            gate.quiet().await;

            let store = direct.store(1);
            let cleaned = catalog::clean_attempt(&store, &job, 1).await.unwrap();
            assert_eq!(
                catalog::clean_attempt(&store, &job, 1)
                    .await
                    .unwrap()
                    .aborted_uploads,
                0,
                "{side:?} {at}"
            );
            let mine = async || -> Vec<String> {
                direct
                    .remains()
                    .await
                    .into_iter()
                    .filter(|k| k.contains(&job.folder()))
                    .collect()
            };
            match catalog::read_decision(&store, &job).await.unwrap() {
                Some(manifest) => {
                    // Between manifest and status: the backup stands, whole.
                    decided += 1;
                    assert_eq!(manifest.outcome, Outcome::Complete);
                    let mut stored = Vec::new();
                    for object in &manifest.objects {
                        stored.extend(direct.read(&object.key).await);
                    }
                    assert!(stored == data, "{side:?} {at}");
                    let asked = agent.requests.lock().unwrap().len();
                    assert_eq!(
                        run(transfer_of(&agent.url, &store, &job, 2))
                            .await
                            .unwrap()
                            .manifest,
                        manifest
                    );
                    assert_eq!(
                        agent.requests.lock().unwrap().len(),
                        asked,
                        "no second transfer"
                    );
                }
                None if cleaned.completed_objects.is_empty() => {
                    assert_eq!(mine().await, Vec::<String>::new(), "{side:?} {at}");
                }
                None => {
                    // Between complete and manifest: the next attempt wins, then the first one's objects go.
                    completed += 1;
                    let won = run(transfer_of(&agent.url, &store, &job, 2))
                        .await
                        .unwrap()
                        .manifest;
                    assert_eq!(won.attempt, 2);
                    catalog::clean_attempt(&store, &job, 1).await.unwrap();
                    let left = mine().await;
                    assert!(
                        !left.iter().any(|k| k.contains("/1/")),
                        "{side:?} {at}: {left:?}"
                    );
                    assert_eq!(left.len(), 4, "two objects, mark, manifest: {left:?}");
                }
            }
        }
    }
    assert!(
        decided > 0 && completed > 0,
        "the interesting moments were met: {decided} {completed}"
    );
}

/// An abandoned job: a zombie's completed objects go, whatever it does later.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_meets_the_abandoned_manifest() {
    let Some(gateway) = Server::versitygw().await else {
        return;
    };
    let gate = Gate::before(&gateway.endpoint).await;
    let data = body(6 << 20);
    let agent = Agent::start(good(&data)).await;
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
    let cleaned = catalog::clean_attempt(&store, &job, 1).await.unwrap();
    assert_eq!(cleaned.completed_objects.len(), 2);
    let decision = catalog::abandon(&store, &job, 1, jiff::Timestamp::now())
        .await
        .unwrap();
    assert_eq!(decision.outcome, Outcome::Abandoned);
    assert_eq!(
        catalog::clean_attempt(&store, &job, 1)
            .await
            .unwrap()
            .completed_objects,
        Vec::<String>::new()
    );
    assert_eq!(
        direct.remains().await,
        [format!("pre/{}/manifest.json", job.folder())]
    );
}

/// A reply that is lost is no failure when the store has done it.
#[tokio::test(flavor = "multi_thread")]
async fn lost_replies() {
    let Some(gateway) = Server::versitygw().await else {
        return;
    };
    let gate = Gate::before(&gateway.endpoint).await;
    let data = body(6 << 20);
    let agent = Agent::start(good(&data)).await;
    let gated = Place::S3 {
        endpoint: gate.endpoint.clone(),
    };
    type Matches = fn(&http::Method, &http::Uri) -> bool;
    let cases: [(&str, Matches); 4] = [
        ("complete", |m, u| {
            *m == http::Method::POST && u.query().is_some_and(|q| q.starts_with("uploadId="))
        }),
        ("manifest", |m, u| {
            *m == http::Method::PUT && u.path().ends_with("manifest.json")
        }),
        ("part", |m, u| {
            *m == http::Method::PUT && u.query().is_some_and(|q| q.contains("partNumber="))
        }),
        ("mark", |m, u| {
            *m == http::Method::PUT && u.path().ends_with("upload.json")
        }),
    ];
    for (name, matches) in cases {
        let store = gated.store(8);
        gate.lose_reply(matches);
        let success = run(transfer_of(&agent.url, &store, &job(name), 1))
            .await
            .unwrap();
        assert!(gate.reply_was_lost(), "{name}");
        assert_eq!(success.manifest.attempt, 1, "{name}");
    }
}

/// Marks that do not name the job are left alone, objects and all.
#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let place = Place::file();
    let store = place.store(8);
    let agent = Agent::start(vec![
        crate::agent::head(),
        Step::Chunk(body(10)),
        Step::Hold,
        Step::Hold,
    ])
    .await;
    let ours = job("u");
    let (progress, mut watched) = tokio::sync::watch::channel(Progress::default());
    let attempt = transfer_of(&agent.url, &store, &ours, 1);
    let running = tokio::spawn(transfer::run(attempt, progress, CancellationToken::new()));
    // Bytes are read only after the upload is open and recorded.
    watched.wait_for(|p| p.bytes > 0).await.unwrap();
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let before = place.remains().await;
    let mut other = ours.clone();
    other.cluster_id = "another".into();
    assert_eq!(
        catalog::clean_attempt(&store, &other, 1).await.unwrap(),
        catalog::Cleaned::default()
    );
    assert_eq!(place.remains().await, before);
    catalog::clean_attempt(&store, &ours, 1).await.unwrap();
    assert_eq!(place.remains().await, Vec::<String>::new());
}

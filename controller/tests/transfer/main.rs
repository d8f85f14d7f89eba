//! One attempt against agents that lie, break and stall, and against real stores: what is left in
//! the store afterwards is what counts.

// Helpers outside #[test] functions are tests too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value)]

mod agent;
mod command;
mod conformance;
mod crash;
mod deletion;
mod encrypted;
mod faults;
mod gate;
mod pki;
mod place;
mod real_agent;
mod servers;
mod stores;
mod tls;
mod trace;

use agent::{Agent, HEAD, Step, TOKEN, good, good_trailers, head};
use place::{PART, Place, places};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use towline_controller::{
    agent_client::{Endpoint, trace::Trace},
    catalog::{self, JobIdentity, Outcome},
    reason::{FailureReason, Retry},
    storage::Store,
    transfer::{self, BackupParameters, Failure, Progress, Success, Transfer},
};

pub(crate) fn job(uid: &str) -> JobIdentity {
    JobIdentity {
        cluster_id: "c".into(),
        namespace: "ns".into(),
        job_name: "job".into(),
        job_uid: uid.into(),
        schedule_name: None,
        schedule_uid: None,
        store_uid: None,
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

pub(crate) fn transfer_of(
    agent: &url::Url,
    store: &Arc<Store>,
    job: &JobIdentity,
    attempt: u32,
) -> Transfer {
    Transfer {
        job: job.clone(),
        attempt,
        agent: Endpoint {
            base: agent.clone(),
            token: Some(TOKEN.into()),
            tls: None,
            allow_local_addresses: true,
        },
        parameters: BackupParameters::default(),
        store: Arc::clone(store),
        stall_timeout: Duration::from_secs(60),
        trace: Trace::none(),
    }
}

pub(crate) async fn run(transfer: Transfer) -> Result<Success, Failure> {
    let (progress, _watch) = watch::channel(Progress::default());
    transfer::run(transfer, progress, CancellationToken::new()).await
}

pub(crate) fn body(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// Parts, continuation objects, manifest and mark are exactly what the layout says.
pub(crate) async fn good_backups_are_exactly_their_objects(place: &Place) {
    // Two parts an object: 10 MiB, then 10 MiB to the last byte, then a rest; and a body that ends with an object.
    for (uid, len, sizes) in [
        ("u-1", (20 << 20) + 7, vec![2 * PART, 2 * PART, 7]),
        ("u-2", 10 << 20, vec![2 * PART]),
        ("u-3", 1, vec![1]),
    ] {
        let data = body(len);
        let agent = Agent::start(good(&data)).await;
        let store = place.store(2);
        let job = job(uid);
        let success = run(transfer_of(&agent.url, &store, &job, 3)).await.unwrap();
        let folder = format!("pre/ns/job/20260102T030405Z-{uid}");
        let keys: Vec<String> = (0..sizes.len())
            .map(|n| {
                format!(
                    "{folder}/3/backup.tar.zst{}",
                    if n == 0 {
                        String::new()
                    } else {
                        format!(".{n:04}")
                    }
                )
            })
            .collect();
        let m = &success.manifest;
        assert_eq!(
            m.objects
                .iter()
                .map(|o| (o.key.clone(), o.bytes))
                .collect::<Vec<_>>(),
            keys.iter().cloned().zip(sizes).collect::<Vec<_>>()
        );
        assert_eq!(
            (m.outcome, m.attempt, m.bytes),
            (Outcome::Complete, 3, len as u64)
        );
        assert_eq!(
            (
                m.method.as_str(),
                m.server_flavour.as_str(),
                m.backup_id.as_str()
            ),
            ("", "mariadb", "b-1")
        );
        assert_eq!(success.timings.lock, Some(1.5));
        assert!(success.timings.connect.is_some() && success.timings.wrote_request.is_some());
        let mut stored = Vec::new();
        for key in &keys {
            stored.extend(place.read(key).await);
        }
        assert!(stored == data, "what is stored differs");
        let mut expected = keys;
        expected.extend([
            format!("{folder}/3/upload.json"),
            format!("{folder}/manifest.json"),
        ]);
        let here: Vec<String> = place
            .remains()
            .await
            .into_iter()
            .filter(|k| k.starts_with(&folder))
            .collect();
        expected.sort();
        assert_eq!(here, expected);
        assert_eq!(
            catalog::read_decision(&store, &job).await.unwrap().as_ref(),
            Some(m)
        );

        // Decided is decided: neither another attempt nor a clean-up changes anything.
        let asked = agent.requests.lock().unwrap().len();
        assert_eq!(
            run(transfer_of(&agent.url, &store, &job, 4))
                .await
                .unwrap()
                .manifest,
            *m
        );
        assert_eq!(agent.requests.lock().unwrap().len(), asked);
        assert_eq!(
            catalog::clean_attempt(&store, &job, 3).await.unwrap(),
            catalog::Cleaned::default()
        );
        let after: Vec<String> = place
            .remains()
            .await
            .into_iter()
            .filter(|k| k.starts_with(&folder))
            .collect();
        assert_eq!(after, expected);
    }
    let listed = catalog::list(&place.store(2), "ns").await.unwrap();
    assert_eq!(listed.iter().filter(|l| l.manifest.is_ok()).count(), 3);
}

/// The request as RFC 9110 and the protocol want it; what the agent cannot do is not asked for.
#[tokio::test]
async fn only_what_the_agent_names_is_asked_for() {
    let place = Place::file();
    let store = place.store(8);
    let agent = Agent::start(good(b"x")).await;
    let mut t = transfer_of(&agent.url, &store, &job("u"), 2);
    t.parameters.method = Some("logical".into());
    t.parameters.databases = vec!["--all".into()];
    run(t).await.unwrap();
    let request = agent
        .requests
        .lock()
        .unwrap()
        .remove(0)
        .to_ascii_lowercase();
    assert!(
        request.starts_with("get /v1/backup?method=logical&database=%2d%2dall http/1.1\r\n"),
        "{request}"
    );
    for line in [
        "te: trailers",
        "connection: te",
        &format!("authorization: bearer {TOKEN}"),
        "x-backup-job: u",
        "x-backup-attempt: 2",
    ] {
        assert!(
            request.contains(&format!("\r\n{line}\r\n")),
            "{line} in {request}"
        );
    }

    let mut t = transfer_of(&agent.url, &store, &job("u2"), 1);
    t.parameters.recipients = vec!["age1x".into()];
    let failure = run(t).await.unwrap_err();
    assert_eq!(
        (failure.reason, failure.retry),
        (FailureReason::AgentRefused, Retry::Never)
    );
    assert!(agent.requests.lock().unwrap().is_empty());

    // An agent that claims encryption and sends plain text is caught by the name it gives.
    let agent = Agent::with_info(r#"{"capabilities":["recipient"]}"#, good(b"x")).await;
    let mut t = transfer_of(&agent.url, &store, &job("u2"), 1);
    t.parameters.recipients = vec!["age1x".into()];
    assert_eq!(
        run(t).await.unwrap_err().reason,
        FailureReason::AgentRefused
    );
}

/// What is encrypted tells nothing of itself: its name says that it is, its manifest what the agent said.
#[tokio::test]
async fn an_encrypted_archive_is_named_as_one() {
    let place = Place::file();
    let store = place.store(8);
    let data = b"age-encryption.org/v1 and what only its recipients can read";
    let head = Step::Raw(HEAD.replace("x.tar.zst", "x.tar.zst.age").into());
    let end = Step::End(good_trailers(data));
    let info = r#"{"capabilities":["last-backup","recipient"],"database":{"flavour":"mariadb","version":"10.11.19"},
        "lastBackup":{"id":"b-1","method":"physical","position":{"lsn":7}}}"#;
    let agent = Agent::with_info(info, vec![head, Step::Chunk(data.to_vec()), end]).await;
    let mut t = transfer_of(&agent.url, &store, &job("u"), 1);
    t.parameters.recipients = vec!["age1a".into(), "age1b".into()];
    let manifest = run(t).await.unwrap().manifest;
    let request = agent.requests.lock().unwrap().remove(0);
    let asked = "GET /v1/backup?recipient=age1a&recipient=age1b HTTP/1.1\r\n";
    assert!(request.starts_with(asked), "{request}");
    let [object] = &manifest.objects[..] else {
        panic!("{manifest:?}");
    };
    assert!(object.key.ends_with("/1/backup.tar.zst.age"), "{object:?}");
    assert_eq!(place.read(&object.key).await, data);
    assert_eq!(
        (manifest.method.as_str(), manifest.server_version.as_str()),
        ("physical", "10.11.19")
    );
    assert_eq!(manifest.position.lsn, Some(7));
    let listed = catalog::list(&store, "ns").await.unwrap();
    assert!(matches!(&listed[..], [one] if one.manifest.as_ref().is_ok_and(|m| *m == manifest)));
}

pub(crate) async fn a_cancelled_transfer_leaves_nothing_and_frees_the_agent(place: &Place) {
    let agent = Agent::start(vec![
        head(),
        Step::Chunk(body(6 << 20)),
        Step::Hold,
        Step::Hold,
    ])
    .await;
    let store = place.store(8);
    let cancel = CancellationToken::new();
    let (progress, mut watched) = watch::channel(Progress::default());
    let mut running = tokio::spawn(transfer::run(
        transfer_of(&agent.url, &store, &job("u"), 1),
        progress,
        cancel.clone(),
    ));
    agent.reached_hold(&mut running).await;
    watched.wait_for(|p| p.bytes > 0).await.unwrap();
    assert_eq!(watched.borrow().estimated_bytes, Some(1000));
    cancel.cancel();
    let failure = running.await.unwrap().unwrap_err();
    assert_eq!(
        (failure.reason, failure.retry),
        (FailureReason::Interrupted, Retry::NotCounted)
    );
    assert!(!failure.complete_tried);
    assert_eq!(place.remains().await, Vec::<String>::new());
}

/// Two attempts at once, as after a partition: one decision, and nothing of the loser.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_second_takes_the_decision_that_stands() {
    let (places, _gateway) = places().await;
    let data = body(6 << 20);
    for place in &places {
        let store = place.store(8);
        for uid in ["won", "given-up"] {
            let job = job(uid);
            let slow = Agent::start(vec![
                head(),
                Step::Chunk(data.clone()),
                Step::Hold,
                Step::End(good_trailers(&data)),
            ])
            .await;
            let mut running = tokio::spawn(run(transfer_of(&slow.url, &store, &job, 1)));
            slow.reached_hold(&mut running).await;
            let standing = if uid == "won" {
                let fast = Agent::start(good(&data)).await;
                run(transfer_of(&fast.url, &store, &job, 2))
                    .await
                    .unwrap()
                    .manifest
            } else {
                catalog::abandon(&store, &job, 1, jiff::Timestamp::now())
                    .await
                    .unwrap()
            };
            slow.release();
            let outcome = running.await.unwrap();
            if uid == "won" {
                assert_eq!(outcome.unwrap().manifest, standing);
            } else {
                let failure = outcome.unwrap_err();
                assert_eq!(
                    (failure.reason, failure.retry),
                    (FailureReason::Interrupted, Retry::Never)
                );
                assert!(!failure.complete_tried);
            }
            let left: Vec<String> = place
                .remains()
                .await
                .into_iter()
                .filter(|k| k.contains(&job.folder()))
                .collect();
            assert!(!left.iter().any(|k| k.contains("/1/")), "{left:?}");
            assert_eq!(
                catalog::read_decision(&store, &job).await.unwrap(),
                Some(standing)
            );
        }
    }
}

#[tokio::test]
async fn the_store_comes_before_the_database() {
    let agent = Agent::start(good(b"x")).await;
    let place = Place::S3 {
        endpoint: "http://127.0.0.1:1".into(),
    };
    let failure = run(transfer_of(&agent.url, &place.store(8), &job("u"), 1))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.reason, failure.retry),
        (FailureReason::StoreError, Retry::Counted)
    );
    assert!(
        failure.message.contains("nothing answers"),
        "{}",
        failure.message
    );
    assert!(agent.requests.lock().unwrap().is_empty());
}

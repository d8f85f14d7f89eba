//! One suite for every kind of store: what a backup relies on, seen on real servers.

use crate::{
    a_cancelled_transfer_leaves_nothing_and_frees_the_agent,
    agent::{Agent, good},
    body,
    gate::Gate,
    good_backups_are_exactly_their_objects, job,
    place::{PART, Place},
    run,
    servers::Server,
    transfer_of,
};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use towline_controller::{
    catalog::{self, Outcome},
    storage::{Capabilities, Created, Store},
    transfer::{self, Progress},
};

/// What the servers do not do as the clouds they stand for.
#[derive(Clone, Copy, Default)]
struct Differs {
    /// moto's Google takes a create of what exists.
    ignores_create_only: bool,
    /// Azure has no abort: blocks that were not committed stay, unseen, for a week.
    has_no_abort: bool,
    /// A listing of uploads.
    lists_uploads: bool,
    /// Compares CRC64NVME checksums.
    checks: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn file() {
    suite(&Place::file(), Differs::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versitygw() {
    let Some(server) = Server::versitygw().await else {
        return;
    };
    let differs = Differs {
        lists_uploads: true,
        checks: true,
        ..Differs::default()
    };
    suite(&server.place(), differs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_s3() {
    let Some(server) = Server::moto().await else {
        return;
    };
    let differs = Differs {
        lists_uploads: true,
        ..Differs::default()
    };
    suite(&server.place(), differs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_gcs() {
    let Some(server) = Server::moto().await else {
        return;
    };
    let endpoint = server.endpoint.clone();
    let differs = Differs {
        ignores_create_only: true,
        lists_uploads: true,
        ..Differs::default()
    };
    suite(&Place::Gcs { endpoint }, differs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azurite() {
    let Some(server) = Server::azurite().await else {
        return;
    };
    let endpoint = server.endpoint.clone();
    let differs = Differs {
        has_no_abort: true,
        ..Differs::default()
    };
    suite(&Place::Azure { endpoint }, differs).await;
}

async fn suite(place: &Place, differs: Differs) {
    small_objects(place, differs).await;
    uploads(place, differs).await;
    // An answer to a complete may be lost, and the client asks again.
    complete_is_asked_for_twice(place, differs).await;
    probed(place, differs).await;
    if !differs.has_no_abort {
        unrecorded_uploads_are_found(place, differs).await;
    }
    good_backups_are_exactly_their_objects(place).await;
    decided_and_cleaned(place, differs).await;
    for key in place.remains().await {
        let (store, key) = (place.store(8), Path::parse(&key).unwrap());
        store.delete(&key).await.unwrap();
    }
    a_cancelled_transfer_leaves_nothing_and_frees_the_agent(place).await;
    if !matches!(place, Place::File(_)) {
        memory_is_bounded(place).await;
        slowed_down(place).await;
    }
}

fn key(store: &Store, name: &str) -> Path {
    store.key(&format!("ns/x/{name}")).unwrap()
}

async fn read(store: &Store, key: &Path) -> Vec<u8> {
    let pieces: Vec<Bytes> = store
        .stream(key)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    pieces.concat()
}

async fn small_objects(place: &Place, differs: Differs) {
    let store = place.store(8);
    let (a, b) = (key(&store, "a=1.json"), key(&store, "b"));
    assert_eq!(store.get(&a, 100).await.unwrap(), None);
    assert_eq!(store.head(&a).await.unwrap(), None);
    store.delete(&a).await.unwrap();
    let folder = store.key("ns/x").unwrap();
    assert!(store.list(&folder).await.unwrap().is_empty());

    store.put(&a, "one".into()).await.unwrap();
    store.put(&a, "two!".into()).await.unwrap();
    assert_eq!(store.get(&a, 100).await.unwrap().unwrap(), "two!");
    assert_eq!(store.head(&a).await.unwrap(), Some(4));
    assert_eq!(read(&store, &a).await, b"two!");
    assert!(store.get(&a, 3).await.is_err(), "larger than it may be");

    assert_eq!(store.create(&b, "b".into()).await.unwrap(), Created::Yes);
    if !differs.ignores_create_only {
        let again = store.create(&b, "c".into()).await.unwrap();
        assert_eq!(again, Created::AlreadyExists);
        assert_eq!(store.get(&b, 100).await.unwrap().unwrap(), "b");
    }
    let mut listed: Vec<(String, u64)> = store
        .list(&folder)
        .await
        .unwrap()
        .into_iter()
        .map(|o| (o.location.to_string(), o.size))
        .collect();
    listed.sort();
    assert_eq!(listed, [(a.to_string(), 4), (b.to_string(), 1)]);
    for key in [&a, &b, &b] {
        store.delete(key).await.unwrap();
    }
    assert!(store.list(&folder).await.unwrap().is_empty());
}

async fn uploads(place: &Place, differs: Differs) {
    let store = place.store(8);
    let mark = key(&store, "mark");
    // As every attempt does: a folder has to be there.
    store.put(&mark, "m".into()).await.unwrap();
    let (whole, gone) = (key(&store, "whole"), key(&store, "gone"));
    let part = usize::try_from(PART).unwrap();
    let data = body(2 * part + 3);

    let id = store.uploads().open(&whole).await.unwrap();
    let writer = store.uploads().parts(&whole, &id);
    let send = async |n: usize| {
        let end = data.len().min((n + 1) * part);
        let piece = Bytes::copy_from_slice(&data[n * part..end]);
        writer.put(n, piece).await.unwrap()
    };
    // In any order, and one of them twice, as after a lost reply.
    let (third, _, first, second) = (send(2).await, send(0).await, send(0).await, send(1).await);
    assert_eq!(store.head(&whole).await.unwrap(), None, "not yet visible");
    let parts = vec![first, second, third];
    store.uploads().complete(&whole, &id, parts).await.unwrap();
    assert_eq!(store.head(&whole).await.unwrap(), Some(data.len() as u64));
    assert!(read(&store, &whole).await == data);

    let id = store.uploads().open(&gone).await.unwrap();
    let writer = store.uploads().parts(&gone, &id);
    writer.put(0, "1".into()).await.unwrap();
    assert!(store.uploads().abort(&gone, &id).await.unwrap());
    assert_eq!(store.head(&gone).await.unwrap(), None);
    if !differs.has_no_abort {
        assert!(!store.uploads().abort(&gone, &id).await.unwrap());
        assert!(writer.put(1, "2".into()).await.is_err(), "it stays aborted");
        let parts = Vec::from([object_store::multipart::PartId {
            content_id: "x".into(),
        }]);
        let completed = store.uploads().complete(&gone, &id, parts).await;
        assert!(completed.is_err(), "it stays aborted");
    }
    assert_eq!(store.head(&gone).await.unwrap(), None);
    for key in [&whole, &mark] {
        store.delete(key).await.unwrap();
    }
    assert_eq!(place.remains().await, Vec::<String>::new());
}

/// Whatever the second answer is, the object stays what it was.
async fn complete_is_asked_for_twice(place: &Place, _: Differs) {
    let store = place.store(8);
    let (mark, object) = (key(&store, "mark"), key(&store, "object"));
    store.put(&mark, "m".into()).await.unwrap();
    let id = store.uploads().open(&object).await.unwrap();
    let writer = store.uploads().parts(&object, &id);
    let parts = vec![writer.put(0, "once".into()).await.unwrap()];
    let complete = async || store.uploads().complete(&object, &id, parts.clone()).await;
    complete().await.unwrap();
    let _either = complete().await;
    assert_eq!(store.head(&object).await.unwrap(), Some(4));
    assert_eq!(read(&store, &object).await, b"once");
    for key in [&object, &mark] {
        store.delete(key).await.unwrap();
    }
}

async fn probed(place: &Place, differs: Differs) {
    let found = place.store(100).probe("ns").await.unwrap();
    let expected = Capabilities {
        crc64nvme: differs.checks,
        list_uploads: differs.lists_uploads,
    };
    assert_eq!(found, expected);
    assert_eq!(place.remains().await, Vec::<String>::new());
    let fast = place.store(100).capabilities("ns").await;
    assert_eq!(fast.crc64nvme, differs.checks);
    assert_eq!(place.remains().await, Vec::<String>::new());
    if !differs.checks {
        return;
    }
    // What was found out is used, and does what it promises.
    let config = towline_controller::storage::StoreConfig {
        capabilities: found,
        ..place.config(2)
    };
    let store = std::sync::Arc::new(Store::open(config).unwrap());
    let data = body((11 << 20) + 7);
    let agent = Agent::start(good(&data)).await;
    let job = job("checked");
    let success = run(transfer_of(&agent.url, &store, &job, 1)).await.unwrap();
    let mut stored = Vec::new();
    for object in &success.manifest.objects {
        stored.extend(place.read(&object.key).await);
    }
    assert!(stored == data);
    for key in place.remains().await {
        store.delete(&Path::parse(&key).unwrap()).await.unwrap();
    }
}

/// A crash between opening an upload and recording its id.
async fn unrecorded_uploads_are_found(place: &Place, _: Differs) {
    let store = place.store(8);
    let mark = key(&store, "mark");
    store.put(&mark, "m".into()).await.unwrap();
    let ours = key(&store, "ours");
    store.uploads().open(&ours).await.unwrap();
    assert_eq!(place.remains().await.len(), 2);
    let folder = store.key("ns/x").unwrap();
    assert_eq!(store.abort_unrecorded(&folder).await.unwrap(), 1);
    assert_eq!(store.abort_unrecorded(&folder).await.unwrap(), 0);
    store.delete(&mark).await.unwrap();
    assert_eq!(place.remains().await, Vec::<String>::new());
}

/// An attempt that dies leaves nothing that the next process does not find; who decides first has decided.
async fn decided_and_cleaned(place: &Place, differs: Differs) {
    let store = place.store(8);
    let job = job("died");
    let agent = Agent::start(vec![
        crate::agent::head(),
        crate::agent::Step::Chunk(body(6 << 20)),
        crate::agent::Step::Hold,
        crate::agent::Step::Hold,
    ])
    .await;
    let (progress, mut watched) = watch::channel(Progress::default());
    let attempt = transfer_of(&agent.url, &store, &job, 1);
    let dying = tokio::spawn(transfer::run(attempt, progress, CancellationToken::new()));
    // Bytes are read only after the upload is open and recorded.
    watched.wait_for(|p| p.bytes > 0).await.unwrap();
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled());

    let cleaned = catalog::clean_attempt(&store, &job, 1).await.unwrap();
    assert_eq!(cleaned.aborted_uploads, 1);
    assert_eq!(cleaned.completed_objects, Vec::<String>::new());
    let mine = async || -> Vec<String> {
        let all = place.remains().await;
        all.into_iter()
            .filter(|k| k.contains(&job.folder()))
            .collect()
    };
    assert_eq!(mine().await, Vec::<String>::new());

    let now = jiff::Timestamp::now();
    let decision = catalog::abandon(&store, &job, 1, now).await.unwrap();
    assert_eq!(decision.outcome, Outcome::Abandoned);
    let standing = catalog::read_decision(&store, &job).await.unwrap();
    assert_eq!(standing, Some(decision));
    if !differs.ignores_create_only {
        // Another that comes later finds it, and changes nothing.
        let later = now + jiff::SignedDuration::from_secs(60);
        let found = catalog::abandon(&store, &job, 1, later).await.unwrap();
        assert_eq!(standing, Some(found));
    }
}

/// However slow the store is, only the parts under way and the one that is being filled are in memory.
async fn memory_is_bounded(place: &Place) {
    let gate = Gate::before(&endpoint(place)).await;
    let data = body(60 << 20);
    let agent = Agent::start(good(&data)).await;
    // Four parts an object.
    let store = place.through(&gate.endpoint).store(4);
    let (progress, mut watched) = watch::channel(Progress::default());
    let attempt = transfer_of(&agent.url, &store, &job("bounded"), 1);
    let running = tokio::spawn(transfer::run(attempt, progress, CancellationToken::new()));
    let mut held = 0;
    while watched.changed().await.is_ok() {
        // In this order: what is answered later only makes the difference smaller.
        let received = watched.borrow_and_update().bytes;
        let stored = gate.bytes_stored();
        held = held.max(received.saturating_sub(stored));
    }
    running.await.unwrap().unwrap();
    assert!(
        held <= 5 * PART + (1 << 20),
        "{held} bytes were in memory at once"
    );
    assert!(held > 2 * PART, "parts are sent side by side: {held}");
}

/// A store that takes one part at a time, and asks to slow down whoever sends more.
async fn slowed_down(place: &Place) {
    let gate = Gate::before(&endpoint(place)).await;
    gate.one_part_at_a_time();
    let data = body(40 << 20);
    let agent = Agent::start(good(&data)).await;
    let store = place.through(&gate.endpoint).store(8);
    let slowed = job("slowed");
    let success = run(transfer_of(&agent.url, &store, &slowed, 1))
        .await
        .unwrap();
    assert_eq!(success.manifest.bytes, data.len() as u64);
    assert!(store.throttled() > 0, "it was asked to slow down");
}

fn endpoint(place: &Place) -> String {
    match place {
        Place::File(_) => panic!("a folder has no endpoint"),
        Place::S3 { endpoint } | Place::Gcs { endpoint } | Place::Azure { endpoint } => {
            endpoint.clone()
        }
    }
}

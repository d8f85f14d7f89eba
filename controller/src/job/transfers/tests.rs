use super::*;
use crate::{
    agent_client::{Endpoint, trace::Trace},
    catalog::JobIdentity,
    storage::{Location, Store, StoreConfig},
    transfer::BackupParameters,
};
use futures::{StreamExt as _, channel::mpsc};
use std::time::Duration;

fn transfers(max: usize) -> Transfers {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    Transfers::new(max, Arc::new(metrics))
}

fn job(name: &str) -> JobRef {
    JobRef::new(name).within("shop")
}

/// A transfer from an agent that takes the connection and says nothing.
fn silent(agent: &tokio::net::TcpListener, folder: &std::path::Path) -> Transfer {
    let config = StoreConfig::new(Location::File {
        root: folder.to_owned(),
        confined_to: None,
    });
    let base = format!("http://{}", agent.local_addr().unwrap());
    Transfer {
        job: JobIdentity {
            cluster_id: "c".into(),
            namespace: "shop".into(),
            job_name: "a".into(),
            job_uid: "1".into(),
            schedule_name: None,
            schedule_uid: None,
            store_uid: None,
            created: Timestamp::UNIX_EPOCH,
        },
        attempt: 1,
        agent: Endpoint {
            base: base.parse().unwrap(),
            token: None,
            tls: None,
            allow_local_addresses: true,
        },
        parameters: BackupParameters::default(),
        store: Arc::new(Store::open(config).unwrap()),
        stall_timeout: Duration::from_secs(300),
        trace: Trace::none(),
    }
}

#[tokio::test]
async fn a_job_without_a_slot_is_woken_when_one_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let agent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transfers = transfers(1);
    let (wake, mut woken) = mpsc::unbounded();
    let slot = transfers.reserve("1", &job("a"), None, &wake).unwrap();
    transfers.start(slot, "1", &job("a"), &wake, silent(&agent, folder.path()));
    assert_eq!(
        transfers.reserve("2", &job("b"), None, &wake).unwrap_err(),
        NoSlot::Full {
            ahead: 0,
            news: true
        }
    );
    assert_eq!(
        (transfers.local("1"), transfers.local("2")),
        (Local::Running, Local::None)
    );

    transfers.cancel("1", FailureReason::Cancelled);
    transfers.cancel("1", FailureReason::DeadlineExceeded);
    let both = [woken.next().await.unwrap(), woken.next().await.unwrap()];
    assert!(
        both.contains(&job("a")) && both.contains(&job("b")),
        "{both:?}"
    );
    let ended = transfers.ended("1").unwrap();
    assert_eq!(
        (ended.attempt, ended.stopped_by),
        (1, Some(FailureReason::Cancelled))
    );
    assert_eq!(ended.result.unwrap_err().reason, FailureReason::Interrupted);
    assert!(transfers.reserve("2", &job("b"), None, &wake).is_ok());
}

#[tokio::test]
async fn closing_ends_what_runs_and_starts_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let agent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transfers = transfers(4);
    let (wake, mut woken) = mpsc::unbounded();
    let slot = transfers.reserve("1", &job("a"), None, &wake).unwrap();
    transfers.start(slot, "1", &job("a"), &wake, silent(&agent, folder.path()));
    transfers.close();
    assert_eq!(
        transfers.reserve("2", &job("b"), None, &wake).unwrap_err(),
        NoSlot::Closed
    );
    woken.next().await.unwrap();
    assert_eq!(transfers.local("1"), Local::Ended);
    transfers.forget("1");
    transfers.empty().await;
}

#[tokio::test]
async fn a_job_of_the_same_name_is_another_job() {
    let folder = tempfile::tempdir().unwrap();
    let agent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transfers = transfers(4);
    let (wake, _woken) = mpsc::unbounded();
    let slot = transfers.reserve("1", &job("a"), None, &wake).unwrap();
    transfers.start(slot, "1", &job("a"), &wake, silent(&agent, folder.path()));
    transfers.forget_others(&job("a"), Some("1"));
    transfers.forget_others(&job("b"), None);
    assert_eq!(transfers.local("1"), Local::Running);
    transfers.forget_others(&job("a"), Some("2"));
    assert_eq!(transfers.local("1"), Local::None);
}

/// Takes the slot, or says how many are ahead, where that is news.
fn ask(
    transfers: &Transfers,
    job: &JobRef,
    schedule: &str,
    wake: &Wake,
) -> Result<Slot, Option<usize>> {
    let uid = format!("{}/{}", job.namespace.as_deref().unwrap(), job.name);
    transfers
        .reserve(&uid, job, Some(schedule), wake)
        .map_err(|no| match no {
            NoSlot::Full { ahead, news } => news.then_some(ahead),
            NoSlot::Closed => panic!("closed"),
        })
}

#[tokio::test]
async fn turns_go_round_and_only_whose_turn_it_is_is_woken() {
    let transfers = transfers(1);
    let (wake, mut woken) = mpsc::unbounded();
    let of = |namespace: &str, name: &str| JobRef::new(name).within(namespace);
    let mut slot = Some(ask(&transfers, &of("big", "0"), "s", &wake).unwrap());
    for (job, ahead) in [("1", 0), ("2", 1), ("3", 2)] {
        let told = ask(&transfers, &of("big", job), "s", &wake).unwrap_err();
        assert_eq!(told, Some(ahead), "{job}");
    }
    // It comes after one of the others, not after all.
    assert_eq!(
        ask(&transfers, &of("small", "1"), "s", &wake).unwrap_err(),
        Some(1)
    );
    // Who asks again is told again when half of those ahead have gone.
    assert_eq!(
        ask(&transfers, &of("big", "3"), "s", &wake).unwrap_err(),
        None
    );

    for job in [
        of("big", "1"),
        of("small", "1"),
        of("big", "2"),
        of("big", "3"),
    ] {
        drop(slot.take());
        assert_eq!(woken.next().await.unwrap(), job);
        assert!(woken.try_recv().is_err(), "nobody else is woken");
        // A newcomer does not get the slot that is meant for another.
        assert!(ask(&transfers, &of("late", "1"), "s", &wake).is_err());
        transfers.leave("late/1");
        slot = Some(ask(&transfers, &job, "s", &wake).unwrap());
    }
}

#[tokio::test]
async fn a_slot_that_is_not_taken_goes_on_to_the_next() {
    let transfers = transfers(1);
    let (wake, mut woken) = mpsc::unbounded();
    let of = |name: &str| JobRef::new(name).within("ns");
    let slot = ask(&transfers, &of("0"), "s", &wake).unwrap();
    for job in ["1", "2", "3", "4"] {
        ask(&transfers, &of(job), "s", &wake).unwrap_err();
    }
    drop(slot);
    assert_eq!(woken.next().await.unwrap(), of("1"));
    // Cancelled, or its store is gone.
    transfers.leave("ns/1");
    assert_eq!(woken.next().await.unwrap(), of("2"));
    // Deleted.
    transfers.forget_others(&of("2"), None);
    assert_eq!(woken.next().await.unwrap(), of("3"));
    // Chose an agent and found none.
    drop(ask(&transfers, &of("3"), "s", &wake).unwrap());
    assert_eq!(woken.next().await.unwrap(), of("4"));
    drop(ask(&transfers, &of("4"), "s", &wake).unwrap());
    assert!(
        ask(&transfers, &of("5"), "s", &wake).is_ok(),
        "nobody waits"
    );
}

use super::*;
use serde_json::json;

fn job(name: &str, status: serde_json::Value) -> Item {
    let job: BackupJob = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"source": {"url": "http://db:8474"}, "storeRef": {"name": "offsite"}},
        "status": status,
    }))
    .unwrap();
    Item::from(&job)
}

fn running(name: &str) -> Item {
    job(name, json!({"phase": "Running", "attempt": 1}))
}

fn ended(name: &str, phase: &str) -> Item {
    let type_ = if phase == "Succeeded" {
        "Complete"
    } else {
        "Failed"
    };
    job(
        name,
        json!({"phase": phase, "reason": if phase == "Failed" { json!("NoAgent") } else { json!(null) },
            "conditions": [{"type": type_, "status": "True", "reason": "x", "message": "why\u{1b}[2J", "lastTransitionTime": "2026-03-04T02:10:00Z"}]}),
    )
}

async fn run(only: bool, changes: Vec<Change>) -> (Result<(), Failure>, usize) {
    let count = changes.len();
    let left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(count));
    let counter = std::sync::Arc::clone(&left);
    let changes = stream::iter(changes).inspect(move |_| {
        counter.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    });
    let result = to_the_end(changes.boxed(), 1, only, View::quiet()).await;
    (result, left.load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test]
async fn it_ends_when_what_it_follows_has_and_the_code_tells_how() {
    use Change::{Changed, Found, Gone, Listed};
    let key = |name: &str| ("BackupJob", "shop".to_owned(), name.to_owned());
    let bad = || Err(Failure::failed(""));
    // One object: also when it has ended before.
    assert_eq!(
        run(true, vec![Found(ended("a", "Succeeded")), Listed])
            .await
            .0,
        Ok(())
    );
    assert_eq!(
        run(true, vec![Found(ended("a", "Failed")), Listed]).await.0,
        bad()
    );
    assert_eq!(
        run(true, vec![Found(ended("a", "Cancelled")), Listed])
            .await
            .0,
        bad()
    );
    // All: what had ended before counts for nothing.
    assert_eq!(
        run(false, vec![Found(ended("a", "Failed")), Listed])
            .await
            .0,
        Ok(())
    );
    // Nothing more is read once all have ended, and not before.
    let story = vec![
        Found(running("a")),
        Listed,
        Changed(running("b")),
        Changed(ended("a", "Succeeded")),
        Changed(ended("b", "Succeeded")),
        Changed(running("c")),
    ];
    assert_eq!(run(false, story).await, (Ok(()), 1));
    let story = vec![
        Found(running("a")),
        Listed,
        Changed(running("b")),
        Changed(ended("a", "Failed")),
        Changed(ended("b", "Succeeded")),
    ];
    assert_eq!(run(false, story).await, (bad(), 0));
    assert_eq!(
        run(true, vec![Found(running("a")), Listed, Gone(key("a"))])
            .await
            .0,
        bad()
    );
    // A list that is told again tells nothing twice.
    let story = vec![
        Found(running("a")),
        Listed,
        Found(running("a")),
        Listed,
        Changed(ended("a", "Succeeded")),
    ];
    assert_eq!(run(true, story).await, (Ok(()), 0));
    let denied = Failure::new(super::super::error::Exit::Forbidden, "no");
    assert!(run(true, vec![Change::Failed(denied)]).await.0.is_err());
}

#[test]
fn lines_say_how_far_it_is_and_what_it_waits_for() {
    let now = "2026-03-04T12:00:00Z".parse().unwrap();
    let item = job(
        "a",
        json!({"phase": "Running", "attempt": 2, "progress": {"bytes": 1073741824, "estimatedBytes": 3221225472_u64, "bytesPerSecond": 89128960, "lastProgressTime": "2026-03-04T12:00:00Z"}}),
    );
    assert_eq!(
        view::line(&item.running.unwrap(), now),
        "attempt 2  1.00GiB of <3.00GiB  85.0MiB/s  within 24s"
    );
    let item = job(
        "a",
        json!({"phase": "Pending", "reason": "AgentBusy", "retryTime": "2026-03-04T12:00:30Z", "conditions": [
            {"type": "Progressing", "status": "True", "reason": "AgentBusy", "message": "another runs", "lastTransitionTime": "2026-03-04T02:10:00Z"}]}),
    );
    assert_eq!(
        view::line(&item.running.unwrap(), now),
        "waits: AgentBusy: another runs (next attempt in 30s)"
    );
    assert_eq!(
        ending(&ended("a", "Failed"), true, Paint::new(false)),
        "backup shop/a: Failed: NoAgent: why [2J"
    );
}

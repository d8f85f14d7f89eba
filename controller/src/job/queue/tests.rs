use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Jobs as `namespace/schedule/job`.
fn queue(jobs: &[&str]) -> FairQueue<String> {
    let mut queue = FairQueue::default();
    for job in jobs {
        push(&mut queue, job);
    }
    queue
}

fn push(queue: &mut FairQueue<String>, job: &str) {
    let parts: Vec<_> = job.split('/').collect();
    let place = Place {
        namespace: parts[0],
        schedule: parts[1],
        id: job,
    };
    queue.push(place, job.to_owned());
}

fn drain(queue: &mut FairQueue<String>) -> Vec<String> {
    std::iter::from_fn(|| queue.pop().map(|(id, _)| id)).collect()
}

#[test]
fn turns() {
    for (what, jobs, order) in [
        ("nobody", &[][..], &[][..]),
        (
            "one schedule: first come, first served",
            &["a/s/1", "a/s/2", "a/s/3"],
            &["a/s/1", "a/s/2", "a/s/3"],
        ),
        (
            "a namespace that asks for much waits for one that asks for little",
            &["a/s/1", "a/s/2", "a/s/3", "b/s/1"],
            &["a/s/1", "b/s/1", "a/s/2", "a/s/3"],
        ),
        (
            "so do schedules within a namespace",
            &["a/s/1", "a/s/2", "a/t/1", "a//1", "a//2"],
            &["a/s/1", "a/t/1", "a//1", "a/s/2", "a//2"],
        ),
        (
            "many schedules give a namespace no more turns",
            &["a/s/1", "a/t/1", "a/u/1", "b/s/1", "b/s/2"],
            &["a/s/1", "b/s/1", "a/t/1", "b/s/2", "a/u/1"],
        ),
    ] {
        assert_eq!(drain(&mut queue(jobs)), order, "{what}");
    }
}

#[test]
fn who_comes_back_joins_at_the_end() {
    let mut queue = queue(&["a/s/1", "b/s/1", "c/s/1"]);
    assert_eq!(queue.pop().unwrap().0, "a/s/1");
    push(&mut queue, "a/s/2");
    assert_eq!(drain(&mut queue), ["b/s/1", "c/s/1", "a/s/2"]);
}

#[test]
fn who_asks_again_keeps_the_place() {
    let mut queue = queue(&["a/s/1", "a/s/2", "a/s/1"]);
    assert_eq!(queue.len(), 2);
    assert_eq!(drain(&mut queue), ["a/s/1", "a/s/2"]);
}

#[test]
fn who_leaves_leaves_no_trace() {
    let mut queue = queue(&["a/s/1", "b/s/1", "b/t/1"]);
    assert_eq!(queue.remove("a/s/1").as_deref(), Some("a/s/1"));
    assert_eq!(queue.remove("a/s/1"), None);
    assert_eq!(queue.ahead("a/s/1"), None);
    assert_eq!(queue.remove("b/s/1").as_deref(), Some("b/s/1"));
    assert_eq!(drain(&mut queue), ["b/t/1"]);
    assert!(queue.namespaces.is_empty());
}

fn jobs() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::btree_set((0..4_u8, 0..3_u8, 0..9_u8), 0..40)
        .prop_map(|set| set.iter().map(|(n, s, j)| format!("{n}/{s}/{j}")).collect())
        .prop_shuffle()
}

proptest! {
    #[test]
    fn every_job_has_one_turn_and_the_place_it_was_told(jobs in jobs()) {
        let refs: Vec<_> = jobs.iter().map(String::as_str).collect();
        let mut queue = queue(&refs);
        let told: Vec<_> = jobs.iter().map(|job| (queue.ahead(job).unwrap(), job.clone())).collect();
        let order = drain(&mut queue);
        prop_assert_eq!(order.iter().collect::<BTreeSet<_>>(), jobs.iter().collect());
        for (ahead, job) in told {
            prop_assert_eq!(&order[ahead], &job);
        }
    }

    /// While others keep coming, whoever waits is never passed over: within as many turns as there are
    /// namespaces, each that waits has one, and the same goes for the schedules of a namespace.
    #[test]
    fn nobody_starves(first in jobs(), coming in proptest::collection::vec((0..4_u8, 0..3_u8), 0..200)) {
        let refs: Vec<_> = first.iter().map(String::as_str).collect();
        let mut queue = queue(&refs);
        // Turns of others since a namespace has begun to wait, or had its last; and the same of a
        // schedule, counted in turns of its namespace.
        let mut passed: BTreeMap<String, usize> = BTreeMap::new();
        let mut coming = coming.into_iter().enumerate();
        loop {
            for (n, (namespace, schedule)) in coming.by_ref().take(2) {
                push(&mut queue, &format!("{namespace}/{schedule}/late-{n}"));
            }
            let waiting: BTreeSet<String> = queue.jobs().map(|(id, _)| id.rsplit_once('/').unwrap().0.to_owned()).collect();
            let namespaces: BTreeSet<String> = waiting.iter().map(|id| id.split_once('/').unwrap().0.to_owned()).collect();
            let Some((id, _)) = queue.pop() else { break };
            let schedule = id.rsplit_once('/').unwrap().0.to_owned();
            let namespace = schedule.split_once('/').unwrap().0.to_owned();
            passed.retain(|who, _| waiting.contains(who) || namespaces.contains(who));
            for other in namespaces.iter().filter(|n| **n != namespace) {
                *passed.entry(other.clone()).or_default() += 1;
            }
            for other in waiting.iter().filter(|s| **s != schedule && s.starts_with(&format!("{namespace}/"))) {
                *passed.entry(other.clone()).or_default() += 1;
            }
            passed.remove(&namespace);
            passed.remove(&schedule);
            for (who, turns) in &passed {
                let rivals = if who.contains('/') { 3 } else { 4 };
                prop_assert!(*turns < rivals, "{who} was passed over {turns} times");
            }
        }
    }
}

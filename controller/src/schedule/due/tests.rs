use super::*;
use proptest::prelude::*;

fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn spec(schedule: &str, jitter_seconds: u32) -> BackupScheduleSpec {
    serde_json::from_value(serde_json::json!({
        "schedule": schedule,
        "jitterSeconds": jitter_seconds,
        "jobTemplate": {"spec": {"source": {"podSelector": {"matchLabels": {"app": "db"}}}, "storeRef": {"name": "main"}}},
    }))
    .unwrap()
}

#[test]
fn jitter_delays_a_run_by_the_same_time_always() {
    let spec = spec("0 2 * * *", 3600);
    let since = t("2025-01-01T02:00:00Z");
    let early = times(&spec, "a", since, t("2025-01-02T01:00:00Z")).unwrap();
    assert_eq!(early.run, None);
    let next = early.next;
    assert_eq!(next.time, t("2025-01-02T02:00:00Z"));
    assert!(next.start > next.time && next.start <= t("2025-01-02T03:00:00Z"));
    let just_before = next.start - SignedDuration::from_millis(1);
    let waiting = times(&spec, "a", since, just_before).unwrap();
    assert_eq!((waiting.run, waiting.next), (None, next));
    let come = times(&spec, "a", since, next.start).unwrap();
    assert_eq!(come.run, Some(next));
    assert_eq!(come.next.time, t("2025-01-03T02:00:00Z"));
    let another = times(&spec, "b", since, just_before).unwrap();
    assert_ne!(another.next.start, next.start, "schedules start apart");
}

#[test]
fn the_deadline_counts_from_the_start() {
    let mut spec = spec("0 2 * * *", 7200);
    spec.starting_deadline_seconds = Some(10);
    let since = t("2025-01-01T02:00:00Z");
    let next = times(&spec, "a", since, t("2025-01-01T12:00:00Z"))
        .unwrap()
        .next;
    for (late, runs) in [(0, true), (10, true), (11, false)] {
        let now = next.start + SignedDuration::from_secs(late);
        let times = times(&spec, "a", since, now).unwrap();
        assert_eq!(times.run.is_some(), runs, "{late} s late");
    }
}

#[test]
fn what_ran_does_not_run_again_when_the_clock_is_set_back() {
    let spec = spec("*/10 * * * *", 0);
    let times = times(
        &spec,
        "a",
        t("2025-01-01T02:00:00Z"),
        t("2025-01-01T01:05:00Z"),
    )
    .unwrap();
    assert_eq!(times.run, None);
    assert_eq!(times.next.time, t("2025-01-01T02:10:00Z"));
}

const SCHEDULES: [&str; 5] = [
    "* * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "0 3 * * 1-5",
];

proptest! {
    /// A controller that looks at odd moments, dies between creating a job and writing so, sleeps
    /// for days and has its clock set: what it starts is never started twice, and what came due
    /// while it looked often enough is never left out.
    #[test]
    fn no_run_is_doubled_and_none_is_lost(
        schedule in prop::sample::select(SCHEDULES.to_vec()),
        jitter in prop_oneof![Just(0u32), 1u32..86_400],
        looks in prop::collection::vec((-300i64..100_000, any::<bool>()), 1..60),
    ) {
        let spec = spec(schedule, jitter);
        let calendar = Calendar::parse(schedule, "Etc/UTC").unwrap();
        let mut now = t("2025-03-01T00:00:00Z");
        let mut since = now;
        let mut started: Vec<Timestamp> = Vec::new();
        for (step, small) in looks {
            let step = if small { step % 60 } else { step };
            now += SignedDuration::from_secs(step);
            let seen = times(&spec, "uid", since, now).unwrap();
            prop_assert!(seen.next.start > now || seen.next.time > now);
            if let Some(run) = seen.run {
                prop_assert!(run.start <= now && run.start >= run.time);
                prop_assert!(run.time > since, "a run again");
                prop_assert!(!started.contains(&run.time), "a run twice");
                // Nothing whose start has come lies between the run and now.
                let later = calendar.next(run.time).unwrap();
                prop_assert!(start(&calendar, jitter, "uid", later) > now, "a later run was passed over");
                prop_assert!(run.start < later, "a run overtook the next");
                started.push(run.time);
                since = run.time;
            } else {
                // Nothing since the last run has come to its start.
                let due = calendar.next(since).unwrap();
                prop_assert!(start(&calendar, jitter, "uid", due) > now, "a run was lost");
            }
        }
    }
}

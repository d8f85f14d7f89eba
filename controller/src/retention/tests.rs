use super::*;
use proptest::prelude::*;

fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn owner() -> Owner {
    Owner {
        cluster_id: "c".into(),
        schedule_uids: ["s".to_owned(), "old".to_owned()].into(),
    }
}

fn backup(time: Timestamp, n: usize) -> Backup {
    Backup {
        key: format!("{time}-{n}"),
        cluster_id: "c".into(),
        schedule_uid: Some("s".into()),
        time,
        bytes: 1,
        good: true,
        in_use: false,
    }
}

fn backups(times: &[&str]) -> Vec<Backup> {
    times
        .iter()
        .enumerate()
        .map(|(n, time)| backup(t(time), n))
        .collect()
}

fn policy(json: serde_json::Value, zone: &str) -> Policy {
    Policy::parse(&serde_json::from_value(json).unwrap(), zone).unwrap()
}

/// Positions, in the order given, of what stays.
fn kept(backups: &[Backup], policy: &Policy, now: &str) -> Vec<usize> {
    let decision = decide(backups, &owner(), policy, t(now));
    let stays = |b: &Backup| decision.keep.iter().any(|(k, _)| k.key == b.key);
    assert_eq!(decision.keep.len() + decision.delete.len(), backups.len());
    (0..backups.len()).filter(|n| stays(&backups[*n])).collect()
}

#[test]
fn each_rule_keeps_the_newest_of_its_periods() {
    let nightly = [
        "2025-12-29T01:00:00Z", // 0: Monday of ISO week 1 of 2026
        "2025-12-31T01:00:00Z", // 1
        "2026-01-01T01:00:00Z", // 2: Thursday, the same week
        "2026-01-04T01:00:00Z", // 3: Sunday, the same week
        "2026-01-05T01:00:00Z", // 4: Monday of week 2
        "2026-01-05T23:00:00Z", // 5: in Zurich the 6th
        "2026-01-06T01:00:00Z", // 6
        "2026-01-06T01:30:00Z", // 7
    ];
    let now = "2026-01-06T02:00:00Z";
    for (rule, zone, stays) in [
        (serde_json::json!({"keepLast": 1}), "UTC", vec![7]),
        (serde_json::json!({"keepLast": 3}), "UTC", vec![5, 6, 7]),
        (
            serde_json::json!({"keepLast": 100}),
            "UTC",
            (0..8).collect(),
        ),
        (serde_json::json!({"keepHourly": 2}), "UTC", vec![5, 7]),
        (serde_json::json!({"keepDaily": 2}), "UTC", vec![5, 7]),
        (
            serde_json::json!({"keepDaily": 2}),
            "Europe/Zurich",
            vec![4, 7],
        ),
        (serde_json::json!({"keepWeekly": 2}), "UTC", vec![3, 7]),
        (serde_json::json!({"keepMonthly": 2}), "UTC", vec![1, 7]),
        (serde_json::json!({"keepYearly": 2}), "UTC", vec![1, 7]),
        // Days without a backup are not counted.
        (serde_json::json!({"keepDaily": 4}), "UTC", vec![2, 3, 5, 7]),
        (serde_json::json!({"keepWithin": "1h"}), "UTC", vec![6, 7]),
        (
            serde_json::json!({"keepWithin": "1d1h"}),
            "UTC",
            vec![4, 5, 6, 7],
        ),
        (
            serde_json::json!({"keepWithin": "9999y"}),
            "UTC",
            (0..8).collect(),
        ),
        // Each counts for itself; what any of them keeps stays.
        (
            serde_json::json!({"keepLast": 2, "keepWeekly": 2, "keepYearly": 1}),
            "UTC",
            vec![3, 6, 7],
        ),
    ] {
        assert_eq!(
            kept(&backups(&nightly), &policy(rule.clone(), zone), now),
            stays,
            "{rule} {zone}"
        );
    }
}

#[test]
fn days_on_which_the_clock_changes() {
    // Zurich, 25 October 2026: 03:00 CEST becomes 02:00 CET, so the hour of 2 comes twice.
    let back = [
        "2026-10-25T00:10:00Z",
        "2026-10-25T00:50:00Z",
        "2026-10-25T01:10:00Z",
        "2026-10-25T02:10:00Z",
    ];
    let hourly = |n: u32, zone| policy(serde_json::json!({"keepHourly": n}), zone);
    let now = "2026-10-25T03:00:00Z";
    assert_eq!(
        kept(&backups(&back), &hourly(3, "Europe/Zurich"), now),
        [1, 2, 3]
    );
    // 23 hours ago and 25 hours ago can both be "yesterday", and a day ago is not 24 hours ago.
    let around = ["2026-10-24T02:30:00Z", "2026-10-25T03:00:00Z"];
    let within = |span: &str| policy(serde_json::json!({"keepWithin": span}), "Europe/Zurich");
    assert_eq!(
        kept(&backups(&around), &within("1d"), "2026-10-25T03:15:00Z"),
        [0, 1]
    );
    assert_eq!(
        kept(&backups(&around), &within("24h"), "2026-10-25T03:15:00Z"),
        [1]
    );
    // 29 March 2026: the hour of 2 does not come; 00:30Z and 01:30Z are hours one after the other.
    let forth = [
        "2026-03-28T23:30:00Z",
        "2026-03-29T00:30:00Z",
        "2026-03-29T01:30:00Z",
    ];
    let now = "2026-03-29T02:00:00Z";
    assert_eq!(
        kept(&backups(&forth), &hourly(2, "Europe/Zurich"), now),
        [1, 2]
    );
    assert_eq!(
        kept(
            &backups(&forth),
            &policy(serde_json::json!({"keepDaily": 1}), "Europe/Zurich"),
            now
        ),
        [2]
    );
    // Lord Howe Island moves by half an hour: 5 April 2026, 02:00 becomes 01:30.
    let half = ["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"];
    assert_eq!(
        kept(
            &backups(&half),
            &hourly(2, "Australia/Lord_Howe"),
            "2026-04-05T00:00:00Z"
        ),
        [0, 1]
    );
}

#[test]
fn the_newest_good_backup_always_stays() {
    let old = backups(&["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"]);
    let within = policy(serde_json::json!({"keepWithin": "1h"}), "UTC");
    let now = "2026-01-01T00:00:00Z";
    let decision = decide(&old, &owner(), &within, t(now));
    assert_eq!(decision.keep, [(&old[1], [Reason::Newest].into())]);
    assert_eq!(decision.delete, [&old[0]]);
    // A clock that was ahead: it is the newest, and stays.
    let ahead = backups(&["2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]);
    let last = policy(serde_json::json!({"keepLast": 1}), "UTC");
    assert_eq!(kept(&ahead, &last, "2026-01-02T00:00:00Z"), [1]);
}

#[test]
fn a_bad_backup_takes_no_good_ones_place() {
    let mut all = backups(&[
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
        "2026-01-04T00:00:00Z",
    ]);
    let two = policy(serde_json::json!({"keepLast": 2}), "UTC");
    let now = "2026-01-04T01:00:00Z";
    all[1].good = false;
    all[3].good = false;
    assert_eq!(
        kept(&all, &two, now),
        [0, 2, 3],
        "the two newest good ones, and the bad one beside them"
    );
    // While there is no good one, a bad one may be all that there is.
    all.iter_mut().for_each(|b| b.good = false);
    assert_eq!(kept(&all, &two, now), [2, 3]);
}

#[test]
fn what_is_read_stays_and_counts_no_further() {
    let mut all = backups(&[
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
    ]);
    all[0].in_use = true;
    let one = policy(serde_json::json!({"keepLast": 1}), "UTC");
    assert_eq!(kept(&all, &one, "2026-01-04T00:00:00Z"), [0, 2]);
}

#[test]
fn others_backups_are_not_seen() {
    let mut all = backups(&[
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
        "2026-01-04T00:00:00Z",
        "2026-01-05T00:00:00Z",
    ]);
    all[1].schedule_uid = Some("old".into());
    all[2].cluster_id = "another".into();
    all[3].schedule_uid = Some("another".into());
    all[4].schedule_uid = None;
    let one = policy(serde_json::json!({"keepLast": 1}), "UTC");
    let decision = decide(&all, &owner(), &one, t("2026-01-06T00:00:00Z"));
    assert_eq!(
        decision.keep.iter().map(|(b, _)| *b).collect::<Vec<_>>(),
        [&all[1]],
        "an adopted one is ours"
    );
    assert_eq!(decision.delete, [&all[0]]);
}

#[test]
fn a_policy_that_makes_no_sense_is_none() {
    let parse = |json: serde_json::Value, zone: &str| {
        Policy::parse(&serde_json::from_value(json).unwrap(), zone).map(drop)
    };
    assert_eq!(
        parse(serde_json::json!({}), "UTC"),
        Err(InvalidPolicy::Empty)
    );
    for within in ["0d", "-1d", "soon", "1", ""] {
        let error = parse(serde_json::json!({"keepWithin": within}), "UTC").unwrap_err();
        assert!(error.to_string().contains("keepWithin"), "{error}");
    }
    let error = parse(serde_json::json!({"keepLast": 1}), "Middle/Earth").unwrap_err();
    assert!(error.to_string().contains("spec.timeZone"), "{error}");
    for within in [
        "36h",
        "30d",
        "8w",
        "6mo",
        "1y6mo2w3d4h",
        "9999y9999mo9999w9999d99999h",
    ] {
        parse(serde_json::json!({"keepWithin": within}), "UTC").unwrap();
    }
}

const ZONES: [&str; 4] = [
    "UTC",
    "Europe/Zurich",
    "America/St_Johns",
    "Australia/Lord_Howe",
];

prop_compose! {
    fn some_backup()(
        // Some years, in steps that make hours, days and weeks collide.
        quarter in 0_i64..100_000, n in 0_usize..3, good in prop::bool::weighted(0.8),
        in_use in prop::bool::weighted(0.05), ours in prop::bool::weighted(0.8), same_cluster in prop::bool::weighted(0.9),
    ) -> Backup {
        let time = Timestamp::from_second(1_750_000_000 + quarter * 900).unwrap();
        Backup {
            good,
            in_use,
            schedule_uid: Some(if ours { "s" } else { "another" }.into()),
            cluster_id: if same_cluster { "c" } else { "another" }.into(),
            ..backup(time, n)
        }
    }
}

fn some_backups() -> impl Strategy<Value = Vec<Backup>> {
    prop::collection::vec(some_backup(), 0..60).prop_map(|mut all| {
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        all
    })
}

prop_compose! {
    fn some_retention()(
        last in prop::option::of(1_u32..10), hourly in prop::option::of(1_u32..10), daily in prop::option::of(1_u32..10),
        weekly in prop::option::of(1_u32..10), monthly in prop::option::of(1_u32..10), yearly in prop::option::of(1_u32..4),
        within in prop::option::of(1_u32..2000),
    ) -> Retention {
        let none = [last, hourly, daily, weekly, monthly, yearly, within].iter().all(Option::is_none);
        Retention {
            keep_last: last.or(none.then_some(1)),
            keep_hourly: hourly,
            keep_daily: daily,
            keep_weekly: weekly,
            keep_monthly: monthly,
            keep_yearly: yearly,
            keep_within: within.map(|hours| format!("{hours}h")),
            ..Default::default()
        }
    }
}

/// Keeps at least what `less` keeps.
fn more(less: &Retention, add: [u32; 7]) -> Retention {
    let sum = |keep: Option<u32>, add: u32| match (keep, add) {
        (keep, 0) => keep,
        (keep, add) => Some(keep.unwrap_or(0) + add),
    };
    let hours = less
        .keep_within
        .as_ref()
        .map(|w| w.trim_end_matches('h').parse().unwrap());
    Retention {
        keep_last: sum(less.keep_last, add[0]),
        keep_hourly: sum(less.keep_hourly, add[1]),
        keep_daily: sum(less.keep_daily, add[2]),
        keep_weekly: sum(less.keep_weekly, add[3]),
        keep_monthly: sum(less.keep_monthly, add[4]),
        keep_yearly: sum(less.keep_yearly, add[5]),
        keep_within: sum(hours, add[6]).map(|h| format!("{h}h")),
        ..less.clone()
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_750_000_000 + 100_000 * 900).unwrap()
}

fn keys<'a>(backups: impl IntoIterator<Item = &'a Backup>) -> BTreeSet<String> {
    backups.into_iter().map(|b| b.key.clone()).collect()
}

fn kept_keys(decision: &Decision<'_>) -> BTreeSet<String> {
    keys(decision.keep.iter().map(|(b, _)| *b))
}

proptest! {
    #[test]
    fn nothing_that_is_not_ours_goes(all in some_backups(), retention in some_retention(), zone in prop::sample::select(&ZONES[..])) {
        let decision = decide(&all, &owner(), &Policy::parse(&retention, zone).unwrap(), now());
        for deleted in &decision.delete {
            prop_assert!(owner().owns(deleted) && !deleted.in_use, "{deleted:?}");
        }
        let ours = keys(all.iter().filter(|b| owner().owns(b)));
        let decided = &kept_keys(&decision) | &keys(decision.delete.iter().copied());
        prop_assert_eq!(decided, ours, "each of ours is decided about");
        prop_assert!(decision.keep.iter().all(|(_, why)| !why.is_empty()));
    }

    #[test]
    fn never_the_last_good_one(all in some_backups(), retention in some_retention(), zone in prop::sample::select(&ZONES[..])) {
        let decision = decide(&all, &owner(), &Policy::parse(&retention, zone).unwrap(), now());
        let newest_good = all.iter().filter(|b| owner().owns(b) && b.good).max_by_key(|b| (b.time, &b.key));
        if let Some(newest) = newest_good {
            prop_assert!(kept_keys(&decision).contains(&newest.key));
        }
        let newest = all.iter().filter(|b| owner().owns(b)).max_by_key(|b| (b.time, &b.key));
        if let (Some(newest), None) = (newest, newest_good) {
            prop_assert!(kept_keys(&decision).contains(&newest.key), "it may be all that there is");
        }
    }

    #[test]
    fn a_second_time_nothing_more_goes(all in some_backups(), retention in some_retention(), zone in prop::sample::select(&ZONES[..])) {
        let policy = Policy::parse(&retention, zone).unwrap();
        let first = decide(&all, &owner(), &policy, now());
        let left: Vec<Backup> = first.keep.iter().map(|(b, _)| (*b).clone()).collect();
        let second = decide(&left, &owner(), &policy, now());
        prop_assert_eq!(second.delete, Vec::<&Backup>::new());
    }

    #[test]
    fn more_to_keep_never_deletes_more(
        all in some_backups(), retention in some_retention(), add in prop::array::uniform7(0_u32..5), zone in prop::sample::select(&ZONES[..]),
    ) {
        let parse = |r: &Retention| Policy::parse(r, zone).unwrap();
        let less = decide(&all, &owner(), &parse(&retention), now());
        let more = decide(&all, &owner(), &parse(&more(&retention, add)), now());
        prop_assert!(kept_keys(&less).is_subset(&kept_keys(&more)));
    }

    #[test]
    fn an_older_backup_drives_no_newer_one_out(
        all in some_backups(), retention in some_retention(), age in 1_i64..10_000_000, good in any::<bool>(), zone in prop::sample::select(&ZONES[..]),
    ) {
        let policy = Policy::parse(&retention, zone).unwrap();
        let before = kept_keys(&decide(&all, &owner(), &policy, now()));
        let oldest = all.iter().map(|b| b.time).min().unwrap_or_else(now);
        let mut with_older = all.clone();
        with_older.push(Backup { good, ..backup(oldest - jiff::SignedDuration::from_secs(age), 9) });
        let after = kept_keys(&decide(&with_older, &owner(), &policy, now()));
        prop_assert!(before.is_subset(&after));
    }

    #[test]
    fn order_does_not_matter(all in some_backups(), retention in some_retention()) {
        let policy = Policy::parse(&retention, "UTC").unwrap();
        let mut reversed = all.clone();
        reversed.reverse();
        prop_assert_eq!(decide(&all, &owner(), &policy, now()), decide(&reversed, &owner(), &policy, now()));
    }
}

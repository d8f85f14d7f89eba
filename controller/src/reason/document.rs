//! docs/troubleshooting.md has a section for each word of the closed sets and for each alert, and no other.

use super::{FailureReason, RestoreReason, ScheduleReason, StoreReason};
use std::path::Path;
use towline_agent::protocol::StreamReason;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(path).unwrap()
}

/// The part of the document under one heading of the second level.
fn part<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(&format!("\n## {heading}\n")).unwrap();
    let rest = &document[start + 1..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// Titles of the sections in a part, each of which says what it means, where to look, what to do.
fn sections(part: &str) -> Vec<String> {
    part.split("\n### ")
        .skip(1)
        .map(|section| {
            let title = section.lines().next().unwrap();
            for word in ["\n**Means**", "\n**Look**", "\n**Do**"] {
                assert_eq!(section.matches(word).count(), 1, "{title}: {word}");
            }
            title.to_owned()
        })
        .collect()
}

/// First cells of the rows of a part's tables, without their link.
fn rows(part: &str) -> Vec<String> {
    part.lines()
        .filter_map(|line| line.strip_prefix("| [")?.split(']').next())
        .map(str::to_owned)
        .collect()
}

fn titles(kind: &str, words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("{kind}: {word}")).collect()
}

#[test]
fn it_has_every_word_and_no_other() {
    let document = read("docs/troubleshooting.md");
    let backups = FailureReason::ALL.map(FailureReason::as_str);
    let restores = RestoreReason::ALL.map(RestoreReason::as_str);
    let stores: Vec<_> = StoreReason::ALL.iter().map(|r| r.as_str()).collect();
    let schedules: Vec<_> = ScheduleReason::ALL.iter().map(|r| r.as_str()).collect();
    for (heading, kind, words) in [
        ("Backups", "BackupJob", &backups[..]),
        ("Restores and drills", "RestoreJob", &restores[..]),
        ("Stores", "BackupStore", &stores[..]),
        ("Schedules", "BackupSchedule", &schedules[..]),
    ] {
        assert_eq!(sections(part(&document, heading)), titles(kind, words));
    }
    assert_eq!(rows(part(&document, "Backups")), backups);
    assert_eq!(rows(part(&document, "Restores and drills")), restores);
    // What the agent says, in the section of StreamError.
    let told: Vec<_> = part(&document, "Backups")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(told, StreamReason::ALL.map(StreamReason::as_str));
}

/// The store's own document names the same reasons.
#[test]
fn the_stores_document_has_every_reason_of_the_probe() {
    let document = read("docs/stores.md");
    for reason in StoreReason::ALL {
        let word = format!("`{}`", reason.as_str());
        assert!(document.contains(&word), "docs/stores.md lacks {word}");
    }
}

#[test]
fn every_alert_has_its_section_and_leads_there() {
    let rules: serde_json::Value =
        serde_norway::from_str(&read("charts/towline/files/alerts.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let alerts: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    let names: Vec<_> = alerts
        .iter()
        .map(|a| a["alert"].as_str().unwrap())
        .collect();
    let document = read("docs/troubleshooting.md");
    assert_eq!(sections(part(&document, "Alerts")), names);
    for (alert, name) in alerts.iter().zip(&names) {
        let link = alert["annotations"]["runbook_url"].as_str().unwrap();
        let anchor = format!("docs/troubleshooting.md#{}", name.to_lowercase());
        assert!(link.ends_with(&anchor), "{name}: {link}");
    }
}

//! The pages: what the templates are filled with.

mod front;
mod job;
mod restore;
mod schedule;
mod store;

pub(super) use front::Front;
pub(super) use job::JobPage;
pub(super) use restore::RestorePage;
pub(super) use schedule::SchedulePage;
pub(super) use store::StorePage;

use super::{
    advice::{Help, help},
    parts::{Badge, HelpPart, Shell, When, path},
};
use crate::fleet::Attention;
use askama::{Template, filters::HtmlSafe};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// One page that says one thing: not found, not allowed, not yet.
#[derive(Template)]
#[template(path = "page/notice.html")]
pub(super) struct Notice {
    pub(super) shell: Shell,
    pub(super) heading: String,
    pub(super) text: String,
}

/// A thing to look at, with what to do about it.
#[derive(Template)]
#[template(path = "page/attention.html")]
pub(super) struct Alarm {
    attention: Attention,
    /// Tells it from others of the page.
    id: String,
    badge: Badge,
    href: Option<String>,
    since: Option<When>,
    help: Option<HelpPart>,
}

impl HtmlSafe for Alarm {}

impl Alarm {
    /// `linked`: to the object's own page.
    fn new(attention: &Attention, now: Timestamp, linked: bool) -> Self {
        let Attention {
            kind,
            namespace,
            name,
            reason,
            ..
        } = attention;
        let id = format!("{kind}-{namespace}-{name}-{reason}");
        let help = help(kind, namespace, name, reason);
        // What cannot be read has no page.
        let readable = !attention.text.starts_with("cannot be read");
        Self {
            badge: Badge::of_gravity(attention.gravity),
            href: (linked && readable).then(|| path(kind, namespace, name)),
            since: attention.since.map(|since| When::new(since, now)),
            help: help.map(|help| HelpPart::new(&id, help, false)),
            attention: attention.clone(),
            id,
        }
    }
}

/// A condition of an object.
pub(super) struct ConditionRow {
    type_: String,
    status: String,
    reason: String,
    message: String,
    since: When,
}

fn conditions(all: &[Condition], now: Timestamp) -> Vec<ConditionRow> {
    let row = |condition: &Condition| ConditionRow {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: When::new(condition.last_transition_time.0, now),
    };
    all.iter().map(row).collect()
}

/// The help on each of some reasons once, the first one opened.
fn helps(kind: &str, namespace: &str, name: &str, reasons: Vec<String>) -> Vec<HelpPart> {
    let mut seen: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for reason in reasons {
        if reason.is_empty() || seen.contains(&reason) {
            continue;
        }
        let Some(help): Option<Help> = help(kind, namespace, name, &reason) else {
            continue;
        };
        found.push(HelpPart::new(&reason, help, found.is_empty()));
        seen.push(reason);
    }
    found
}

fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|t| t.0)
}

fn plural(count: usize, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}

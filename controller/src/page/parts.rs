//! The parts that pages are made of. What comes from the cluster is escaped by the templates.

use super::advice::Help;
use crate::{
    fleet::{Gravity, Running, ScheduleState},
    job::record::{human_bytes, human_duration},
};
use askama::{Template, filters::HtmlSafe};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a segment of a path keeps: RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where an object's page is.
pub(super) fn path(kind: &str, namespace: &str, name: &str) -> String {
    let folder = match kind {
        "BackupSchedule" => "schedules",
        "BackupJob" => "jobs",
        "BackupStore" => "stores",
        _ => "restores",
    };
    let encoded = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
    format!("/{folder}/{}/{}", encoded(namespace), encoded(name))
}

/// A time, in UTC and in words.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<time datetime="{{ iso }}">{{ clock }}</time> <span class="ago">({{ words }})</span>"#
)]
pub(super) struct When {
    iso: String,
    clock: String,
    words: String,
}

impl HtmlSafe for When {}

impl When {
    pub(super) fn new(at: Timestamp, now: Timestamp) -> Self {
        let apart = at.duration_since(now);
        let words = match apart.as_secs() {
            -9..=9 => "now".to_owned(),
            10.. => format!("in {}", human_duration(apart)),
            _ => format!("{} ago", human_duration(-apart)),
        };
        Self {
            iso: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            clock: at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            words,
        }
    }
}

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Neither.
    Plain,
    /// At work.
    Busy,
    /// Something failed.
    Warn,
    /// Somebody has to act.
    Bad,
}

/// A word with a mark: the colour says nothing that they do not.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<span class="badge {{ class }}"><span class="mark" aria-hidden="true">{{ mark }}</span>{{ word }}</span>"#
)]
pub(super) struct Badge {
    class: &'static str,
    mark: &'static str,
    word: String,
}

impl HtmlSafe for Badge {}

impl Badge {
    pub(super) fn new(tone: Tone, word: &str) -> Self {
        let (class, mark) = match tone {
            Tone::Good => ("good", "✓"),
            Tone::Plain => ("plain", "–"),
            Tone::Busy => ("busy", "▸"),
            Tone::Warn => ("warn", "!"),
            Tone::Bad => ("bad", "✕"),
        };
        Self {
            class,
            mark,
            word: word.to_owned(),
        }
    }

    pub(super) fn of_schedule(state: ScheduleState) -> Self {
        let (tone, word) = match state {
            ScheduleState::NotReady => (Tone::Bad, "Not ready"),
            ScheduleState::Overdue => (Tone::Bad, "Overdue"),
            ScheduleState::Unrestorable => (Tone::Bad, "Does not restore"),
            ScheduleState::Failing => (Tone::Warn, "Failing"),
            ScheduleState::Suspended => (Tone::Plain, "Suspended"),
            ScheduleState::New => (Tone::Plain, "New"),
            ScheduleState::Good => (Tone::Good, "Good"),
        };
        Self::new(tone, word)
    }

    pub(super) fn of_gravity(gravity: Gravity) -> Self {
        let tone = match gravity {
            Gravity::Critical => Tone::Bad,
            Gravity::Warning => Tone::Warn,
            Gravity::Notice => Tone::Plain,
        };
        Self::new(tone, gravity.as_str())
    }

    /// Of a job's or a restore's phase.
    pub(super) fn of_phase(phase: &str) -> Self {
        let tone = match phase {
            "Succeeded" => Tone::Good,
            "Failed" => Tone::Bad,
            "Running" => Tone::Busy,
            _ => Tone::Plain,
        };
        Self::new(tone, phase)
    }

    /// What drills have found; `None`: nothing yet.
    pub(super) fn of_verified(verified: Option<bool>) -> Self {
        match verified {
            Some(true) => Self::new(Tone::Good, "Restores"),
            Some(false) => Self::new(Tone::Bad, "Does not restore"),
            None => Self::new(Tone::Plain, "Not drilled"),
        }
    }

    /// Of a store.
    pub(super) fn of_ready(ready: Option<bool>) -> Self {
        match ready {
            Some(true) => Self::new(Tone::Good, "Ready"),
            Some(false) => Self::new(Tone::Bad, "Not ready"),
            None => Self::new(Tone::Plain, "Not probed yet"),
        }
    }
}

/// How far something is.
#[derive(Template)]
#[template(path = "page/progress.html")]
pub(super) struct Progress<'a> {
    running: &'a Running,
    now: Timestamp,
    /// What it is of.
    label: String,
}

impl HtmlSafe for Progress<'_> {}

impl<'a> Progress<'a> {
    pub(super) fn new(running: &'a Running, now: Timestamp) -> Self {
        Self {
            running,
            now,
            label: format!("Progress of {}", running.name),
        }
    }

    /// `1.20GiB of at most 3.00GiB at 85.0MiB/s, done by 16:40 UTC`.
    fn numbers(&self) -> String {
        let running = self.running;
        let mut words = human_bytes(running.bytes);
        if let Some(all) = running.total_bytes {
            let of = if running.estimated { "at most " } else { "" };
            words += &format!(" of {of}{}", human_bytes(all));
        }
        if let Some(rate) = running.bytes_per_second {
            words += &format!(" at {}/s", human_bytes(rate));
        }
        if let Some(eta) = running.eta.filter(|eta| *eta > self.now) {
            let by = if running.estimated { "by" } else { "about" };
            let left = human_duration(eta.duration_since(self.now));
            words += &format!(", done {by} {} UTC (in {left})", eta.strftime("%H:%M"));
        }
        words
    }
}

/// What a reason means and what to do, to be opened.
#[derive(Template)]
#[template(path = "page/help.html")]
pub(super) struct HelpPart {
    /// Tells it from others of the page.
    id: String,
    help: Help,
    open: bool,
}

impl HtmlSafe for HelpPart {}

impl HelpPart {
    pub(super) fn new(id: &str, help: Help, open: bool) -> Self {
        Self {
            id: id.to_owned(),
            help,
            open,
        }
    }
}

/// What every page has.
pub(super) struct Shell {
    pub(super) title: String,
    pub(super) version: &'static str,
    pub(super) now: Timestamp,
}

impl Shell {
    pub(super) fn when(&self, at: &Timestamp) -> When {
        When::new(*at, self.now)
    }

    pub(super) fn path(&self, kind: &str, namespace: &str, name: &str) -> String {
        path(kind, namespace, name)
    }

    /// Bytes for people.
    pub(super) fn size(&self, bytes: &Option<u64>) -> String {
        bytes.map_or_else(|| "–".to_owned(), human_bytes)
    }

    pub(super) fn progress<'a>(&self, running: &'a Running) -> Progress<'a> {
        Progress::new(running, self.now)
    }
}

//! What of the watching is seen: bars on a terminal, lines elsewhere.

use super::{
    super::{
        output::{Lines, Paint, out},
        status::done,
        text::{age, bytes, instant},
    },
    Item, Key, ending,
};
use crate::fleet::Running;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Without a terminal, how often there is a line when only the bytes change.
const EVERY: Duration = Duration::from_secs(10);
const WITH_TOTAL: &str = "{prefix}  [{bar:24}] {percent:>3}%  {msg}";
const WITHOUT: &str = "{prefix}  {spinner}  {msg}";

/// What is seen.
pub(super) struct View {
    all: bool,
    kind: Kind,
}

enum Kind {
    Bars {
        place: MultiProgress,
        bars: HashMap<Key, ProgressBar>,
    },
    Lines {
        /// What was said last of each, and when.
        said: HashMap<Key, (String, Instant)>,
    },
    Json,
    /// Nothing is seen.
    #[cfg(test)]
    Quiet,
}

impl View {
    /// `all`: objects of several namespaces.
    pub(super) fn new(lines: Lines, all: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let kind = match lines {
            Lines::Json => Kind::Json,
            Lines::Text if std::io::stdout().is_terminal() && !dumb => Kind::Bars {
                place: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
                bars: HashMap::new(),
            },
            Lines::Text => Kind::Lines {
                said: HashMap::new(),
            },
        };
        Self { all, kind }
    }

    #[cfg(test)]
    pub(super) fn quiet() -> Self {
        Self {
            all: false,
            kind: Kind::Quiet,
        }
    }

    /// One that has not ended.
    pub(super) fn show(&mut self, item: &Item) {
        let Some(running) = &item.running else {
            return;
        };
        let now = Timestamp::now();
        match &mut self.kind {
            #[cfg(test)]
            Kind::Quiet => {}
            Kind::Json => json(item),
            Kind::Bars { place, bars } => {
                let bar = bars
                    .entry(item.key())
                    .or_insert_with(|| place.add(ProgressBar::new_spinner()));
                draw(bar, item, running, self.all, now);
            }
            Kind::Lines { said } => {
                let state = format!(
                    "{} {} {:?} {:?}",
                    running.phase, running.attempt, running.stage, running.reason
                );
                let last = said.get(&item.key());
                if last.is_none_or(|(before, at)| *before != state || at.elapsed() >= EVERY) {
                    out(&format!(
                        "{} {}: {}",
                        instant(now),
                        item.title(self.all),
                        line(running, now)
                    ));
                    said.insert(item.key(), (state, Instant::now()));
                }
            }
        }
    }

    /// One that has ended.
    pub(super) fn end(&mut self, item: &Item) {
        match &mut self.kind {
            #[cfg(test)]
            Kind::Quiet => {}
            Kind::Json => json(item),
            Kind::Bars { place, bars } => {
                if let Some(bar) = bars.remove(&item.key()) {
                    bar.finish_and_clear();
                    place.remove(&bar);
                }
                let line = ending(item, self.all, Paint::of_stdout());
                place.suspend(|| out(&line));
            }
            Kind::Lines { .. } => out(&format!(
                "{} {}",
                instant(Timestamp::now()),
                ending(item, self.all, Paint::of_stdout())
            )),
        }
    }

    /// One that was deleted before its end.
    pub(super) fn gone(&mut self, (kind, namespace, name): &Key) {
        let line = format!("{kind} {namespace}/{name}: was deleted before its end");
        match &mut self.kind {
            #[cfg(test)]
            Kind::Quiet => {}
            Kind::Json => out(
                &serde_json::json!({"kind": kind, "namespace": namespace, "name": name, "phase": "Deleted"})
                    .to_string(),
            ),
            Kind::Bars { place, bars } => {
                if let Some(bar) = bars.remove(&(*kind, namespace.clone(), name.clone())) {
                    bar.finish_and_clear();
                }
                place.suspend(|| out(&line));
            }
            Kind::Lines { .. } => out(&format!("{} {line}", instant(Timestamp::now()))),
        }
    }
}

fn json(item: &Item) {
    let time = Timestamp::now();
    match serde_json::to_value(item) {
        Ok(mut value) => {
            value["time"] = instant(time).into();
            out(&value.to_string());
        }
        Err(error) => tracing::error!(%error, "not written"),
    }
}

fn draw(bar: &ProgressBar, item: &Item, running: &Running, all: bool, now: Timestamp) {
    let template = if running.percent.is_some() {
        WITH_TOTAL
    } else {
        WITHOUT
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(item.title(all));
    bar.set_length(100);
    bar.set_position(running.percent.unwrap_or_default().into());
    bar.set_message(line(running, now));
    bar.tick();
}

/// How far it is, or what it waits for.
pub(super) fn line(running: &Running, now: Timestamp) -> String {
    if running.phase == "Pending" {
        let why = match (&running.reason, &running.message) {
            (Some(reason), Some(message)) => format!("{reason}: {message}"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => "no controller has taken it up yet".to_owned(),
        };
        let retry = running
            .retry
            .filter(|at| *at > now)
            .map_or_else(String::new, |at| {
                format!(" (next attempt in {})", age(Some(now), at))
            });
        return super::clean(&format!("waits: {why}{retry}"));
    }
    let mut parts = Vec::new();
    parts.extend(running.stage.clone());
    if running.attempt > 1 {
        parts.push(format!("attempt {}", running.attempt));
    }
    parts.push(done(running));
    if let Some(rate) = running.bytes_per_second {
        parts.push(format!("{}/s", bytes(Some(rate))));
    }
    if let Some(eta) = running.eta.filter(|at| *at > now) {
        let word = if running.estimated { "within" } else { "in" };
        parts.push(format!("{word} {}", age(Some(now), eta)));
    }
    parts.join("  ")
}

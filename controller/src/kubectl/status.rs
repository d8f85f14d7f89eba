//! `kubectl towline status`: the fleet on one screen.

use super::{
    error::Failure,
    output::{self, Cell, Format, Paint, Table, Tone},
    session::{Connection, Session},
    text::{age, bytes, clean, count, relative},
};
use crate::{
    api::{BackupJob, BackupSchedule, BackupStore, RestoreJob},
    fleet::{Fleet, Gravity, Objects, Running, ScheduleRow, ScheduleState},
};
use clap::Args;
use jiff::Timestamp;

/// How to print it.
#[derive(Args, Debug)]
#[command(after_help = "\
What needs attention comes first, the gravest on top. Critical: data would be lost if the database
were lost now. Warning: something failed, and what was good before is still there. Notice: it is
meant to be so, or passes by itself. `kubectl towline explain` says more about each.

It ends with exit code 0 whatever it finds. For scripts:
  kubectl towline status -A -o json | jq -e '[.attention[] | select(.gravity == \"Critical\")] == []'")]
pub(super) struct StatusArgs {
    /// How to print; name: what needs attention
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What it is made of, as it was found.
pub(super) async fn look(session: &Session) -> Result<Fleet, Failure> {
    let (schedules, jobs, stores, restores) = futures::try_join!(
        session.list::<BackupSchedule>(),
        session.list::<BackupJob>(),
        session.list::<BackupStore>(),
        session.list::<RestoreJob>(),
    )?;
    let malformed = [
        schedules.malformed,
        jobs.malformed,
        stores.malformed,
        restores.malformed,
    ];
    let objects = Objects {
        schedules: schedules.items.iter().collect(),
        jobs: jobs.items.iter().collect(),
        stores: stores.items.iter().collect(),
        restores: restores.items.iter().collect(),
        malformed: malformed.into_iter().flatten().collect(),
    };
    Ok(Fleet::of(&objects, Timestamp::now()))
}

impl StatusArgs {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let session = Session::connect(connection).await?;
        let fleet = look(&session).await?;
        if output::machine(self.output, &fleet)? {
            return Ok(());
        }
        match self.output {
            Format::Name => {
                let mut seen = std::collections::BTreeSet::new();
                for one in &fleet.attention {
                    let name = format!("{}.towline.dev/{}", one.kind.to_lowercase(), one.name);
                    if seen.insert((&one.namespace, name.clone())) {
                        output::out(&name);
                    }
                }
            }
            _ => output::out(
                screen(
                    &fleet,
                    session.scope(),
                    self.output == Format::Wide,
                    Paint::of_stdout(),
                )
                .trim_end(),
            ),
        }
        Ok(())
    }
}

const fn tone(gravity: Gravity) -> Tone {
    match gravity {
        Gravity::Critical => Tone::Bad,
        Gravity::Warning => Tone::Warn,
        Gravity::Notice => Tone::Faint,
    }
}

const fn state_tone(state: ScheduleState) -> Tone {
    match state {
        ScheduleState::NotReady | ScheduleState::Overdue | ScheduleState::Unrestorable => Tone::Bad,
        ScheduleState::Failing => Tone::Warn,
        ScheduleState::Suspended | ScheduleState::New => Tone::Faint,
        ScheduleState::Good => Tone::Good,
    }
}

/// All of it. `namespace` is the one that was asked for; none: all.
fn screen(fleet: &Fleet, namespace: Option<&str>, wide: bool, paint: Paint) -> String {
    let mut out = String::new();
    let place = namespace.map_or_else(
        || "all namespaces".to_owned(),
        |namespace| format!("namespace {namespace}"),
    );
    let good = fleet
        .schedules
        .iter()
        .filter(|row| row.state == ScheduleState::Good)
        .count();
    let stored: u64 = fleet.schedules.iter().filter_map(|row| row.bytes).sum();
    let backups: u64 = fleet.schedules.iter().filter_map(|row| row.backups).sum();
    if fleet.schedules.is_empty() && fleet.stores.is_empty() && fleet.jobs.is_empty() {
        return format!(
            "There are no BackupStores, BackupSchedules and BackupJobs in {place}: see docs/quickstart.md, or choose others with -n or -A."
        );
    }
    out += &format!(
        "{} in {place}, {good} good; {backups} backups, {}\n",
        count(fleet.schedules.len(), "schedule"),
        bytes(Some(stored))
    );
    let all = namespace.is_none();
    attention(fleet, all, paint, &mut out);
    schedules(fleet, all, wide, paint, &mut out);
    running(fleet, all, paint, &mut out);
    stores(fleet, all, paint, &mut out);
    out
}

fn section(title: &str, table: &Table, paint: Paint, out: &mut String) {
    if !table.is_empty() {
        *out += &format!("\n{}\n{}\n", paint.bold(title), table.render(paint));
    }
}

/// `NAMESPACE` as the first column when there are several.
fn head(all: bool, columns: &[&'static str]) -> Vec<&'static str> {
    let first = all.then_some("NAMESPACE");
    first.into_iter().chain(columns.iter().copied()).collect()
}

fn cells(all: bool, namespace: &str, cells: Vec<Cell>) -> Vec<Cell> {
    let first = all.then(|| namespace.into());
    first.into_iter().chain(cells).collect()
}

fn attention(fleet: &Fleet, all: bool, paint: Paint, out: &mut String) {
    if fleet.attention.is_empty() {
        *out += &format!("{}\n", paint.good("Nothing needs attention."));
        return;
    }
    *out += &format!("\n{}\n", paint.bold("NEEDS ATTENTION"));
    for one in &fleet.attention {
        let namespace = if all {
            format!("{}/", one.namespace)
        } else {
            String::new()
        };
        let since = one.since.map_or_else(String::new, |since| {
            format!(" ({})", age(Some(since), fleet.time))
        });
        *out += &format!(
            "{} {} {namespace}{}: {}: {}{since}\n",
            tone(one.gravity).paint(&format!("{:8}", one.gravity.as_str()), paint),
            one.kind,
            one.name,
            one.reason,
            clean(&one.text)
        );
    }
}

fn schedules(fleet: &Fleet, all: bool, wide: bool, paint: Paint, out: &mut String) {
    let mut columns = vec![
        "SCHEDULE",
        "STATE",
        "LAST GOOD",
        "VERIFIED",
        "NEXT",
        "FAILED",
        "BACKUPS",
        "SIZE",
    ];
    if wide {
        columns.extend(["CRON", "TIME ZONE", "STORE"]);
    }
    let mut table = Table::new(head(all, &columns));
    for row in &fleet.schedules {
        let mut line: Vec<Cell> = vec![
            row.name.as_str().into(),
            Cell::toned(row.state.as_str(), state_tone(row.state)),
            relative(row.last_success, fleet.time).into(),
            last_verified(row, fleet.time),
            next(row, fleet.time).into(),
            match row.consecutive_failures {
                0 => "0".into(),
                n => Cell::toned(n.to_string(), Tone::Warn),
            },
            row.backups
                .map_or_else(|| "-".to_owned(), |n| n.to_string())
                .into(),
            bytes(row.bytes).into(),
        ];
        if wide {
            line.extend([
                row.schedule.as_str().into(),
                row.time_zone.as_str().into(),
                row.store.as_str().into(),
            ]);
        }
        table.row(cells(all, &row.namespace, line));
    }
    section("SCHEDULES", &table, paint, out);
}

fn last_verified(row: &ScheduleRow, now: Timestamp) -> Cell {
    match (row.drilled, row.verified) {
        (false, _) => Cell::toned("no drills", Tone::Faint),
        (true, Some(false)) => Cell::toned("NO", Tone::Bad),
        (true, _) => match row.last_verified {
            Some(time) => relative(Some(time), now).into(),
            None => "not yet".into(),
        },
    }
}

fn next(row: &ScheduleRow, now: Timestamp) -> String {
    if !row.running.is_empty() {
        "running".to_owned()
    } else {
        match row.next_run {
            // The controller is about to start it.
            Some(time) if time <= now => "now".to_owned(),
            time => relative(time, now),
        }
    }
}

fn running(fleet: &Fleet, all: bool, paint: Paint, out: &mut String) {
    let columns = ["RUNNING", "WHAT", "SINCE", "DONE", "RATE", "ENDS"];
    let mut table = Table::new(head(all, &columns));
    let mut push = |namespace: &str, what: &str, running: &Running| {
        let line = vec![
            running.name.as_str().into(),
            what.into(),
            age(running.since, fleet.time).into(),
            done(running).into(),
            running
                .bytes_per_second
                .map_or_else(|| "-".to_owned(), |rate| bytes(Some(rate)) + "/s")
                .into(),
            ends(running, fleet.time).into(),
        ];
        table.row(cells(all, namespace, line));
    };
    for row in &fleet.schedules {
        for running in &row.running {
            push(&row.namespace, &phase(running, "backup"), running);
        }
    }
    for row in &fleet.jobs {
        if let Some(running) = &row.running {
            push(&row.namespace, &phase(running, "backup"), running);
        }
    }
    for row in &fleet.restores {
        if let Some(running) = &row.running {
            let what = if row.drill { "drill" } else { "restore" };
            push(&row.namespace, &phase(running, what), running);
        }
    }
    section("RUNNING", &table, paint, out);
}

/// `backup`, `backup waits (AgentBusy)`, `backup attempt 2`, `restore Extracting`.
fn phase(running: &Running, what: &str) -> String {
    if running.phase == "Pending" {
        return match &running.reason {
            Some(reason) => format!("{what} waits ({reason})"),
            None => format!("{what} waits"),
        };
    }
    match (&running.stage, running.attempt) {
        (Some(stage), _) => format!("{what} {stage}"),
        (None, 2..) => format!("{what} attempt {}", running.attempt),
        (None, _) => what.to_owned(),
    }
}

/// `1.20GiB`, of a restore `40%`, of a backup `1.20GiB of <3.00GiB`.
pub(super) fn done(running: &Running) -> String {
    if running.phase == "Pending" {
        return "-".to_owned();
    }
    match (running.total_bytes, running.estimated) {
        (Some(all), true) => format!("{} of <{}", bytes(Some(running.bytes)), bytes(Some(all))),
        (Some(all), false) => format!("{} of {}", bytes(Some(running.bytes)), bytes(Some(all))),
        (None, _) => bytes(Some(running.bytes)),
    }
}

/// When it ends; of a backup the latest.
fn ends(running: &Running, now: Timestamp) -> String {
    match running.eta {
        None => "-".to_owned(),
        Some(at) if at <= now => "soon".to_owned(),
        Some(at) if running.estimated => format!("within {}", age(Some(now), at)),
        Some(at) => relative(Some(at), now),
    }
}

fn stores(fleet: &Fleet, all: bool, paint: Paint, out: &mut String) {
    let columns = ["STORE", "READY", "BACKUPS", "SIZE", "LOCATION"];
    let mut table = Table::new(head(all, &columns));
    for row in &fleet.stores {
        let ready = match (row.ready, &row.reason) {
            (Some(true), _) => Cell::toned("yes", Tone::Good),
            (Some(false), Some(reason)) => Cell::toned(reason.as_str(), Tone::Bad),
            _ => "not probed yet".into(),
        };
        let line = vec![
            row.name.as_str().into(),
            ready,
            row.backups
                .map_or_else(|| "-".to_owned(), |n| n.to_string())
                .into(),
            bytes(row.bytes).into(),
            row.location.as_deref().unwrap_or("-").into(),
        ];
        table.row(cells(all, &row.namespace, line));
    }
    section("STORES", &table, paint, out);
}

#[cfg(test)]
mod tests;

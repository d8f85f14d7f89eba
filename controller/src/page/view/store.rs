//! One store.

use super::{
    super::parts::{Badge, HelpPart, Shell},
    ConditionRow, conditions, helps, time,
};
use crate::{
    api::BackupStore,
    fleet::{Fleet, ScheduleRow, StoreRow},
};
use askama::Template;
use jiff::Timestamp;
use kube::ResourceExt;

/// One store.
#[derive(Template)]
#[template(path = "page/store.html")]
pub(in crate::page) struct StorePage {
    shell: Shell,
    row: StoreRow,
    badge: Badge,
    probed: Option<Timestamp>,
    schedules: Vec<ScheduleRow>,
    conditions: Vec<ConditionRow>,
    help: Vec<HelpPart>,
}

impl StorePage {
    /// `fleet` is of its namespace.
    pub(in crate::page) fn new(
        version: &'static str,
        fleet: &Fleet,
        store: &BackupStore,
    ) -> Option<Self> {
        let (namespace, name) = (store.namespace().unwrap_or_default(), store.name_any());
        let row = fleet.stores.iter().find(|row| row.name == name)?.clone();
        let told = store.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let reasons = row.reason.iter().cloned().collect();
        let users = fleet.schedules.iter().filter(|s| s.store == name);
        Some(Self {
            shell: Shell {
                title: format!("Store {namespace}/{name}"),
                version,
                now: fleet.time,
            },
            badge: Badge::of_ready(row.ready),
            probed: store
                .status
                .as_ref()
                .and_then(|s| time(s.last_probe_time.as_ref())),
            schedules: users.cloned().collect(),
            conditions: conditions(told, fleet.time),
            help: helps("BackupStore", &namespace, &name, reasons),
            row,
        })
    }

    fn state(row: &ScheduleRow) -> Badge {
        Badge::of_schedule(row.state)
    }
}

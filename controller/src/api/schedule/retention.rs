//! `spec.retention` of a schedule: which backups stay.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Which of a schedule's backups stay in the store. One stays when any rule keeps it; failed jobs
/// never count, and the newest good backup always stays. Hours, days, weeks (ISO 8601), months and
/// years are those of `spec.timeZone`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.keepLast) || has(self.keepHourly) || has(self.keepDaily) || has(self.keepWeekly) || has(self.keepMonthly) || has(self.keepYearly) || has(self.keepWithin)").message("say what to keep: at least one of keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly and keepWithin"))]
pub struct Retention {
    /// The newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_last: Option<u32>,
    /// The newest of each of the latest so many hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_hourly: Option<u32>,
    /// The newest of each of the latest so many days that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_daily: Option<u32>,
    /// The newest of each of the latest so many weeks that have one; a week begins on Monday.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_weekly: Option<u32>,
    /// The newest of each of the latest so many months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_monthly: Option<u32>,
    /// The newest of each of the latest so many years that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_yearly: Option<u32>,
    /// All that are not older than this: years, months, weeks, days and hours, e.g. `36h`, `30d`,
    /// `1y6mo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([1-9][0-9]{0,3}y)?([1-9][0-9]{0,3}mo)?([1-9][0-9]{0,3}w)?([1-9][0-9]{0,3}d)?([1-9][0-9]{0,4}h)?$')").message("write numbers with y, mo, w, d and h, the larger unit first, e.g. 36h, 30d, 8w or 1y6mo"))]
    pub keep_within: Option<String>,
    /// Delete nothing: condition `Retained` and an event say what would go.
    #[serde(default)]
    pub dry_run: bool,
    /// Uids of earlier schedules whose backups are this one's now. `towline catalog adopt` fills it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 64)))]
    pub adopt: Vec<String>,
}

//! The syntax of `schedule` and `timeZone`, as the API server checks it.

use kube::core::Rule;

/// Macros that stand for five fields.
const MACROS: &str = "@(yearly|annually|monthly|weekly|daily|midnight|hourly)";

/// `schedule` is five cron fields or a macro. What this lets through and the parser does not
/// (a range that runs backwards) becomes the condition `InvalidSchedule`.
pub(super) fn schedule_rule() -> Rule {
    let minute = field("[0-5]?[0-9]", "");
    let hour = field("(?:[01]?[0-9]|2[0-3])", "");
    let day = field("(?:0?[1-9]|[12][0-9]|3[01])", "|[?]");
    let month = field(
        "(?:0?[1-9]|1[0-2]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)",
        "",
    );
    let weekday = field("(?:[0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)", "|[?]");
    let pattern = format!("^(?i)(?:{MACROS}|{minute} +{hour} +{day} +{month} +{weekday})$");
    Rule::new(format!("self.matches('{pattern}')")).message(
        "write five cron fields (minute hour day-of-month month day-of-week, e.g. '30 2 * * *') or one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually",
    )
}

/// One field: a list of `*`, `*/n`, `a`, `a-b` and `a-b/n`.
fn field(value: &str, or: &str) -> String {
    let step = "(?:/[1-9][0-9]?)";
    let item = format!("(?:[*]{step}?|{value}(?:-{value}{step}?)?{or})");
    format!("{item}(?:,{item})*")
}

/// `timeZone` has the form of an IANA name; that it exists is a rule of its own.
pub(super) fn zone_form_rule() -> Rule {
    Rule::new("self.matches('^[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*$') && self.lowerAscii() != 'local'")
        .message("write the name of an IANA time zone, e.g. 'Etc/UTC' or 'Europe/Berlin'")
}

/// An unknown zone makes the evaluation itself fail, and the API server refuses the object with
/// the name of the zone in its message.
pub(super) fn zone_exists_rule() -> Rule {
    Rule::new("timestamp('2025-01-01T00:00:00Z').getHours(self) >= 0").message(
        "this IANA time zone does not exist; write for example 'Etc/UTC' or 'Europe/Berlin'",
    )
}

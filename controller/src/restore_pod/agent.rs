//! A logical backup into a running server, through its agent.

use super::{
    Plan, Report,
    run::{Failed, Pod, Stop},
};
use crate::reason::RestoreReason;
use towline_agent::restore::{LogicalOptions, Progress};

pub(super) async fn restore(
    _pod: &Pod,
    _plan: &Plan,
    (url, _server_name, _options): (&str, Option<&str>, &LogicalOptions),
    _progress: &Progress,
    _stop: Stop<'_>,
    _report: &mut Report,
) -> Result<(), Failed> {
    Err(Failed::new(
        RestoreReason::Incompatible,
        format!("this towline cannot restore through the agent at {url} yet"),
    ))
}

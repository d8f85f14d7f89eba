//! Scenarios on a real cluster: real databases, real pods, a real S3 server, real kills.
//!
//! Each test has a namespace and a controller of its own. `make test` runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

mod backups;
mod controller_kills;
mod curl;
mod dashboards;
mod deletion;
mod documents;
mod grants;
mod images;
mod install;
mod kubectl;
mod leader;
mod malformed;
mod page;
mod queue;
mod quickstart;
mod refusals;
mod restore;
mod retention;
mod roles;
mod runbook;
mod schedules;
mod sidecar;
mod sources;
mod stores;
mod stream_faults;
mod tenants;
mod tls;

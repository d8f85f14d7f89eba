//! Tools for tests of the whole of Towline on a real cluster.
//!
//! `make test` starts the cluster and sets the variables that [`cluster::Cluster`] reads. A test
//! does what a user does, with `kubectl`, `helm` and `curl`, and asserts what a user would see.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure is how a test speaks"
)]

pub mod browser;
pub mod cluster;
pub mod command;
pub mod dashboards;
pub mod database;
pub mod documents;
pub mod forward;
pub mod monitoring;
pub mod namespace;
pub mod node;
pub mod objects;
pub mod proxy;
pub mod reader;
pub mod report;
pub mod restore;
pub mod stand_in;
pub mod store;
pub mod stored;
pub mod wait;

pub use browser::Browser;
pub use cluster::Cluster;
pub use command::{Output, run, run_ok};
pub use forward::PortForward;
pub use namespace::Namespace;
pub use wait::{eventually, eventually_for};

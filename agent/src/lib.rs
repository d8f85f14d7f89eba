//! `towline-agent`: a sidecar beside MySQL or MariaDB that streams a backup over HTTP while it is
//! generated, and says in a trailer whether it is complete.

pub mod archive;
pub mod backup;
pub mod body;
pub mod build;
pub mod config;
pub mod database;
pub mod error;
pub mod metrics;
pub mod protocol;
pub mod restore;
pub mod server;

//! The server over real sockets, with an engine whose backups end on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access_log;
mod auth;
mod curl;
mod drain;
mod harness;
mod http;
mod metrics;
mod query;
mod trailers;

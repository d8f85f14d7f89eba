//! The server over real sockets, with an engine whose backups end on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod access_log;
mod auth;
mod curl;
mod drain;
mod harness;
mod http;
mod log;
mod metrics;
mod mutual;
mod pki;
mod query;
mod renewal;
mod tls;
mod trailers;

//! The server over real sockets, with an engine whose backups end on demand.

mod access_log;
mod auth;
mod curl;
mod drain;
mod harness;
mod http;
mod metrics;
mod query;
mod trailers;

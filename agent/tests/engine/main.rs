//! The engine with real tools against a real MariaDB: what a caller gets of a backup, whatever
//! becomes of tool, server and reader. First the engine alone, then the agent around it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accounts;
mod agent;
mod checks;
mod encryption;
mod endings;
mod faults;
mod galera;
mod grants;
#[allow(unreachable_pub, reason = "the end-to-end tests use it, too")]
mod grants_file;
mod locks;
mod logical;
mod over_curl;
mod physical;
mod reader;
mod refusals;
mod replica;
mod restore;
mod restore_http;
mod restore_physical;
mod rig;
mod server;
mod writers;

//! The engine with real tools against a real MariaDB: what a caller gets of a backup, whatever
//! becomes of tool, server and reader.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accounts;
mod encryption;
mod endings;
mod faults;
mod locks;
mod logical;
mod physical;
mod reader;
mod refusals;
mod rig;
mod server;

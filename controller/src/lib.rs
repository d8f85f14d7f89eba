//! Library of `towline-controller` and of the command line `towline`.

pub mod agent_client;
pub mod api;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod context;
pub mod error;
pub mod jitter;
pub mod job;
pub mod leader;
pub mod malformed;
pub mod metrics;
pub mod open_stores;
pub mod peer_text;
pub mod pki;
pub mod reason;
pub mod report;
pub mod restore_pod;
pub mod retention;
pub mod run;
pub mod schedule;
pub mod server;
pub mod storage;
pub mod store;
pub mod transfer;
pub mod upkeep;

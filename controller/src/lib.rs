//! Library of `towline-controller` and of the command line `towline`.

pub mod agent_client;
pub mod api;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod peer_text;
pub mod reason;
pub mod storage;
pub mod transfer;

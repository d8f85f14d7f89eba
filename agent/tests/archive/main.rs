//! The archive, seen from outside: what a reader accepts, and what stock tools make of it.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod damaged;
mod forged;
mod properties;
mod sample;
mod written;

//! `towline restore` and a restore's pod, with real backups of a real MariaDB out of a store.

// Helpers outside #[test] functions are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod deep;
mod directory;
mod logical;
mod mariadb;
mod pod;
mod stored;

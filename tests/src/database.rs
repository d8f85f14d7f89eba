//! Databases: ours in pods with the agent beside them, and one on this machine to restore into.

#[path = "../../agent/tests/engine/grants_file.rs"]
pub mod grants_file;
mod local;
mod pod;

pub use local::LocalServer;
pub use pod::{Database, relative};

//! Databases: ours in pods with the agent beside them, and one on this machine to restore into.

mod local;
mod pod;

pub use local::LocalServer;
pub use pod::Database;

//! The agent. 
fn main() {}

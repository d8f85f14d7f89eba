//! The archive: tar members around the tool's output, with sums, compressed as one zstd stream.
//!
//! Everything here is synchronous and single-pass, made to run on a blocking thread.

pub mod metadata;
pub mod reader;
pub mod writer;

pub use metadata::{FORMAT_VERSION, Metadata, Position, Summary};
pub use reader::{Verified, verify};
pub use writer::ArchiveWriter;

//! The archive: tar members around the tool's output, with sums, compressed as one zstd stream, and
//! that in an age file where there is anybody to encrypt to.
//!
//! Everything here is synchronous and single-pass, made to run on a blocking thread.

pub mod encryption;
mod member;
pub mod metadata;
pub mod reader;
pub mod writer;

pub use encryption::{Identities, Recipient};
pub use member::{MAX_DATA_MEMBERS, MAX_METADATA_BYTES, MAX_SUMMARY_BYTES, MEMBER_BYTES};
pub use metadata::{FORMAT_VERSION, Metadata, Position, Summary, Users};
pub use reader::{ArchiveError, Opened, Sink, Verified, open, read, verify, verify_with};
pub use writer::ArchiveWriter;

//! Writes an archive in one pass with memory for one member.

use super::{Metadata, Summary};
use std::io::{self, Write};

/// Turns the tool's output into an archive. The output goes in by [`Write`].
pub struct ArchiveWriter<W: Write> {
    out: W,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive: writes the metadata member.
    ///
    /// `level` is zstd's (1 to 19), `None` leaves the tar uncompressed. `extension` is that of
    /// the data members: `xbs` or `sql`.
    ///
    /// # Errors
    /// Whatever `out` gives.
    pub fn new(_out: W, _metadata: &Metadata, _extension: &'static str, _level: Option<i32>) -> io::Result<Self> {
        todo!()
    }

    /// Ends the archive: last data member, summary, sums, end of tar, end of zstd. Only for a
    /// complete backup; an archive that is dropped instead is cut, and no reader accepts it.
    ///
    /// # Errors
    /// Whatever `out` gives.
    pub fn finish(self, _summary: Summary) -> io::Result<W> {
        todo!()
    }
}

impl<W: Write> Write for ArchiveWriter<W> {
    fn write(&mut self, _data: &[u8]) -> io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

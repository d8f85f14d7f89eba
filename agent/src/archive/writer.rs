//! Writes an archive in one pass with memory for one member.

use super::member::{self, END_BLOCKS, MEMBER_BYTES, METADATA, Part, SUMMARY, SUMS, Sums};
use super::{MAX_METADATA_BYTES, MAX_SUMMARY_BYTES, Metadata, Summary};
use aws_lc_rs::digest::digest;
use std::io::{self, Write};
use std::thread::Builder;
use zstd::stream::raw::CParameter;

/// Threads that compress beside the one that writes. Fixed, for zstd cuts its input by it: the
/// same number gives the same bytes on every machine.
const WORKERS: u32 = 2;

/// Input that one worker takes at once, bytes; bounds what zstd buffers at high levels.
const JOB_BYTES: u32 = 4 << 20;

/// Turns the tool's output into an archive. The output goes in by [`Write`].
pub struct ArchiveWriter<W: Write> {
    out: Output<W>,
    extension: &'static str,
    mtime: u64,
    part: Part,
    /// The member that is being filled.
    member: Vec<u8>,
    sums: Sums,
}

/// Where tar blocks go.
enum Output<W: Write> {
    Plain(W),
    // Dropped without `finish` it leaves the frame open: nothing can take it for whole.
    Zstd(Box<zstd::Encoder<'static, W>>),
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive: writes the metadata member, and sends it on at once, so that a reader
    /// has its first bytes before the tool has filled a member.
    ///
    /// `level` is zstd's (1 to 19), `None` leaves the tar uncompressed. `extension` is that of
    /// the data members: `xbs` or `sql`.
    ///
    /// # Errors
    /// Whatever `out` gives; `InvalidInput` for another level or extension, or metadata larger
    /// than [`MAX_METADATA_BYTES`].
    pub fn new(
        out: W,
        metadata: &Metadata,
        extension: &'static str,
        level: Option<i32>,
    ) -> io::Result<Self> {
        if !matches!(extension, "xbs" | "sql") {
            return Err(invalid("the extension of data members is xbs or sql"));
        }
        let mut archive = Self {
            out: Output::new(out, level)?,
            extension,
            mtime: member::mtime(metadata.start_time),
            part: Part::Data,
            member: Vec::with_capacity(MEMBER_BYTES),
            sums: Sums::default(),
        };
        let json = json(metadata, MAX_METADATA_BYTES, METADATA)?;
        archive.sums.set_metadata(&sha256(&json));
        archive.write_member(METADATA, &json)?;
        archive.out.as_write().flush()?;
        Ok(archive)
    }

    /// What is written from here on is the SQL of accounts. It stands after the data, for grants on
    /// tables and routines need these.
    ///
    /// # Errors
    /// Whatever `out` gives.
    pub fn begin_users(&mut self) -> io::Result<()> {
        if self.part == Part::Data {
            self.end_member()?;
            self.part = Part::Users;
        }
        Ok(())
    }

    /// Ends the archive: last member, summary, sums, end of tar, end of zstd. Only for a
    /// complete backup; an archive that is dropped instead is cut, and no reader accepts it.
    ///
    /// # Errors
    /// Whatever `out` gives; `InvalidInput` for a summary of a backup that is not complete, one
    /// that does not speak of the accounts that were written, or one larger than
    /// [`MAX_SUMMARY_BYTES`].
    pub fn finish(mut self, mut summary: Summary) -> io::Result<W> {
        if !summary.is_complete() {
            return Err(invalid("only a complete backup may end its archive"));
        }
        self.end_member()?;
        summary.data_members = self.sums.members(Part::Data);
        summary.data_bytes = self.sums.bytes(Part::Data);
        match &mut summary.users {
            Some(users) => {
                users.members = self.sums.members(Part::Users);
                users.bytes = self.sums.bytes(Part::Users);
            }
            None if self.part == Part::Users => {
                return Err(invalid("the summary has to speak of the accounts"));
            }
            None => {}
        }
        let json = json(&summary, MAX_SUMMARY_BYTES, SUMMARY)?;
        self.sums.set_summary(&sha256(&json));
        self.write_member(SUMMARY, &json)?;

        let size = self.sums.text_bytes(self.extension);
        let header = member::header(SUMS, size, self.mtime)?;
        let out = self.out.as_write();
        out.write_all(header.as_bytes())?;
        for (_, line) in self.sums.lines(self.extension) {
            out.write_all(line.as_bytes())?;
        }
        out.write_all(member::padding(size))?;
        out.write_all(&[0; END_BLOCKS * member::BLOCK])?;
        self.out.finish()
    }

    fn write_member(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let size = contents.len() as u64;
        let header = member::header(name, size, self.mtime)?;
        let out = self.out.as_write();
        out.write_all(header.as_bytes())?;
        out.write_all(contents)?;
        out.write_all(member::padding(size))
    }

    /// Writes the member that is being filled, if there is anything in it.
    fn end_member(&mut self) -> io::Result<()> {
        if self.member.is_empty() {
            return Ok(());
        }
        let index = self.sums.members(self.part);
        if index == self.part.most() {
            return Err(invalid("the backup is larger than an archive can be"));
        }
        let name = self.part.name(index, self.extension);
        let contents = std::mem::take(&mut self.member);
        // Summed beside the compression: one after the other, a processor without instructions for
        // it would have the compressor wait.
        let digest = std::thread::scope(|scope| {
            let digest = Builder::new().spawn_scoped(scope, || sha256(&contents))?;
            self.write_member(&name, &contents)?;
            digest
                .join()
                .map_err(|_| io::Error::other("a sum could not be computed"))
        })?;
        self.sums.push(self.part, &digest, contents.len() as u64);
        self.member = contents;
        self.member.clear();
        Ok(())
    }
}

impl<W: Write> Write for ArchiveWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(MEMBER_BYTES - self.member.len());
        self.member.extend_from_slice(&data[..taken]);
        if self.member.len() == MEMBER_BYTES {
            self.end_member()?;
        }
        Ok(taken)
    }

    /// Sends on what has left the compressor. It never makes the compressor cut a block, so that
    /// the archive's bytes do not depend on when it is called.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Output::Plain(out) => out.flush(),
            Output::Zstd(encoder) => encoder.get_mut().flush(),
        }
    }
}

impl<W: Write> Output<W> {
    fn new(out: W, level: Option<i32>) -> io::Result<Self> {
        let Some(level) = level else {
            return Ok(Self::Plain(out));
        };
        if !(1..=19).contains(&level) {
            return Err(invalid("the zstd level is 1 to 19"));
        }
        let mut encoder = zstd::Encoder::new(out, level)?;
        encoder.include_checksum(true)?;
        encoder.multithread(WORKERS)?;
        encoder.set_parameter(CParameter::JobSize(JOB_BYTES))?;
        Ok(Self::Zstd(Box::new(encoder)))
    }

    fn as_write(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(out) => out,
            Self::Zstd(encoder) => encoder,
        }
    }

    fn finish(self) -> io::Result<W> {
        let mut out = match self {
            Self::Plain(out) => out,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        out.flush()?;
        Ok(out)
    }
}

fn json(value: &impl serde::Serialize, most: usize, name: &str) -> io::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    if json.len() > most {
        let size = json.len();
        return Err(invalid(&format!(
            "{name} would have {size} bytes, more than the {most} that a reader takes"
        )));
    }
    Ok(json)
}

fn sha256(contents: &[u8]) -> aws_lc_rs::digest::Digest {
    digest(&aws_lc_rs::digest::SHA256, contents)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

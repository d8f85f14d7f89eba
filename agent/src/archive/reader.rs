//! Reads an archive back and believes nothing that its sums do not prove.

mod ahead;
pub(super) mod error;
mod order;

use super::encryption::{AGE_MAGIC, Identities};
use super::member::{
    self, BLOCK, END_BLOCKS, METADATA, Part, SUMMARY, SUMS, Sums, ZSTD_MAGIC, ZSTD_WINDOW_LOG,
};
use super::{FORMAT_VERSION, MAX_METADATA_BYTES, MAX_SUMMARY_BYTES, Metadata, Summary};
use aws_lc_rs::digest::Digest;
pub use error::ArchiveError;
use error::{Source, read_error};
use order::Order;
use serde::Deserialize;
use std::io::{self, BufReader, Read, Write};

/// Contents are read, summed and passed on in pieces of this size, bytes.
const PIECE: usize = 256 << 10;

/// An archive whose every member was read and proven.
#[derive(Clone, Debug)]
pub struct Verified {
    /// First member.
    pub metadata: Metadata,
    /// Last member before the sums.
    pub summary: Summary,
}

/// Where an archive's contents go while it is read. Nothing of it is proven before the reader has
/// returned `Ok`: who acts on it earlier must be able to take it back.
///
/// An error of a sink ends the reading with [`ArchiveError::Data`].
pub trait Sink {
    /// The first member; it comes before anything else.
    ///
    /// # Errors
    /// Whatever the sink has against it.
    fn metadata(&mut self, _metadata: &Metadata) -> io::Result<()> {
        Ok(())
    }

    /// A piece of the tool's output, in order.
    ///
    /// # Errors
    /// Whatever the sink has against it.
    fn data(&mut self, piece: &[u8]) -> io::Result<()>;

    /// A piece of the SQL of accounts, in order, after all data.
    ///
    /// # Errors
    /// Whatever the sink has against it.
    fn users(&mut self, _piece: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// The tool's output, and nothing else.
struct DataOnly<W>(W);

impl<W: Write> Sink for DataOnly<W> {
    fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        self.0.write_all(piece)
    }
}

/// Reads a whole archive (plain tar or zstd, told apart by its first bytes), writes the tool's
/// output to `data` as it goes, and checks order, sizes, sums and the end. Accounts are checked, too,
/// and not passed on.
///
/// Until it returns `Ok`, nothing that went to `data` is proven. Memory is bounded by the
/// format's limits (32 bytes for each 16 MiB read), whatever the archive says of itself.
///
/// # Errors
/// [`ArchiveError`] for anything cut, altered, out of order, newer than we know, or unreadable; an
/// encrypted one is [`ArchiveError::Encrypted`].
pub fn verify(archive: impl Read + Send, data: impl Write) -> Result<Verified, ArchiveError> {
    verify_with(&Identities::default(), archive, data)
}

/// [`verify`] for an archive that may be encrypted to one of the identities.
///
/// # Errors
/// [`verify`]'s, and [`ArchiveError::NotForUs`].
pub fn verify_with(
    identities: &Identities,
    archive: impl Read + Send,
    data: impl Write,
) -> Result<Verified, ArchiveError> {
    let mut sink = DataOnly(data);
    let verified = read(open(identities, archive)?, &mut sink)?;
    sink.0.flush().map_err(ArchiveError::Data)?;
    Ok(verified)
}

/// What is in the age file, where the archive is one, else the archive itself. Its faults are told by
/// [`read`], and by [`ArchiveError::of_opened`] where something else reads it.
///
/// # Errors
/// [`ArchiveError::Encrypted`] without identities, [`ArchiveError::NotForUs`], and whatever is wrong
/// with the head of the age file.
pub fn open<'a>(
    identities: &Identities,
    archive: impl Read + Send + 'a,
) -> Result<Opened<'a>, ArchiveError> {
    let (head, input) = peek(Source(archive))?;
    if head != AGE_MAGIC {
        return Ok(Opened(Box::new(input)));
    }
    if identities.is_empty() {
        return Err(ArchiveError::Encrypted);
    }
    let input = identities.open(BufReader::with_capacity(PIECE, input))?;
    Ok(Opened(Box::new(input)))
}

/// An archive without its outermost layer: tar or zstd.
pub struct Opened<'a>(Box<dyn Read + Send + 'a>);

impl Read for Opened<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(error::known)
    }
}

/// [`verify`] for an archive that is not encrypted any more, with everything in it passed on.
///
/// # Errors
/// [`verify`]'s.
pub fn read(opened: impl Read + Send, sink: &mut impl Sink) -> Result<Verified, ArchiveError> {
    let (head, input) = peek(Source(opened))?;
    if head == AGE_MAGIC {
        return Err(ArchiveError::Encrypted);
    }
    verify_opened(&head, input, sink)
}

/// The first bytes, and everything with them.
fn peek(mut input: impl Read) -> Result<(Vec<u8>, impl Read), ArchiveError> {
    let most = AGE_MAGIC.len();
    let mut head = Vec::with_capacity(most);
    let read = input.by_ref().take(most as u64).read_to_end(&mut head);
    read.map_err(read_error)?;
    Ok((head.clone(), io::Cursor::new(head).chain(input)))
}

/// Decompresses beside the reader: summing and passing on take as long as that.
fn verify_opened(
    head: &[u8],
    input: impl Read + Send,
    sink: &mut impl Sink,
) -> Result<Verified, ArchiveError> {
    let compressed = head.starts_with(&ZSTD_MAGIC);
    std::thread::scope(|scope| {
        let (sender, pieces) = ahead::channel();
        let input = BufReader::with_capacity(PIECE, input);
        let decoding = std::thread::Builder::new()
            .spawn_scoped(scope, move || decode(compressed, input, &sender))
            .map_err(ArchiveError::Read)?;
        let mut pieces = pieces;
        let verified = verify_tar(&mut pieces, sink);
        // If this has found a fault, nothing more is wanted.
        drop(pieces);
        let lost = |_| ArchiveError::Read(io::Error::other("its thread ended without an answer"));
        let decoded = decoding.join().map_err(lost).and_then(|decoded| decoded);
        match (verified, decoded) {
            // It gave nothing more, and says why.
            (Err(ArchiveError::Cut), Err(error)) if !matches!(error, ArchiveError::Trailing) => {
                Err(error)
            }
            (verified, decoded) => verified.and_then(|verified| decoded.map(|()| verified)),
        }
    })
}

/// Gives what is in the outermost layer, and says whether that ends where it has to. Faults on the way
/// are given in their place.
fn decode(
    compressed: bool,
    mut input: BufReader<impl Read>,
    to: &ahead::Sender,
) -> Result<(), ArchiveError> {
    if !compressed {
        to.send_all(&mut input);
        return Ok(());
    }
    let decoder = zstd::Decoder::with_buffer(input).map_err(read_error)?;
    let mut decoder = decoder.single_frame();
    decoder
        .window_log_max(ZSTD_WINDOW_LOG)
        .map_err(read_error)?;
    // Its last read, which finds the end, also checks that the frame is whole.
    if !to.send_all(&mut decoder) {
        return Ok(());
    }
    expect_end(&mut decoder.finish())
}

fn verify_tar(input: &mut impl Read, sink: &mut impl Sink) -> Result<Verified, ArchiveError> {
    let mut tar = Tar {
        input,
        sink,
        piece: vec![0; PIECE],
        mtime: None,
    };
    let mut sums = Sums::default();

    let first = tar.header("the beginning")?;
    if first.name != METADATA {
        return Err(ArchiveError::NotAnArchive);
    }
    let (json, digest) = tar.json(METADATA, &first, MAX_METADATA_BYTES)?;
    sums.set_metadata(&digest);
    let metadata = parse_metadata(&json)?;
    if tar.mtime != Some(member::mtime(metadata.start_time)) {
        return Err(ArchiveError::Header {
            member: METADATA.to_owned(),
        });
    }
    tar.sink.metadata(&metadata).map_err(ArchiveError::Data)?;

    let mut order = Order::default();
    let mut before = METADATA.to_owned();
    let summary = loop {
        let header = tar.header(&before)?;
        if header.name == SUMMARY {
            break header;
        }
        let part = order.next(&header.name, header.size, &sums)?;
        let digest = tar.contents(&header, part)?;
        sums.push(part, &digest, header.size);
        before = header.name;
    };
    let (json, digest) = tar.json(SUMMARY, &summary, MAX_SUMMARY_BYTES)?;
    sums.set_summary(&digest);
    tar.check_sums(&sums, order.extension())?;

    // Parsed after the sums proved it, so that a damaged one is called altered.
    let summary: Summary = parse(SUMMARY, &json)?;
    let users = summary.users.clone().unwrap_or_default();
    for (part, kind, said_members, said_bytes) in [
        (Part::Data, "data", summary.data_members, summary.data_bytes),
        (Part::Users, "users", users.members, users.bytes),
    ] {
        let (members, bytes) = (sums.members(part), sums.bytes(part));
        if (said_members, said_bytes) != (members, bytes) {
            return Err(ArchiveError::Miscounted {
                kind,
                said_members,
                said_bytes,
                members,
                bytes,
            });
        }
    }
    if !summary.is_complete() {
        return Err(ArchiveError::BackupIncomplete {
            exit_status: summary.tool_exit_status,
        });
    }
    for _ in 0..END_BLOCKS {
        if tar.block()? != [0; BLOCK] {
            return Err(ArchiveError::Trailing);
        }
    }
    expect_end(tar.input)?;
    Ok(Verified { metadata, summary })
}

/// A member's header, proven to be the only one that such a member can have.
struct Header {
    name: String,
    size: u64,
}

/// The tar stream, read member by member.
struct Tar<'a, R, S> {
    input: &'a mut R,
    sink: &'a mut S,
    piece: Vec<u8>,
    /// Every member's time; the first one's header says it.
    mtime: Option<u64>,
}

impl<R: Read, S: Sink> Tar<'_, R, S> {
    fn block(&mut self) -> Result<[u8; BLOCK], ArchiveError> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(read_error)?;
        Ok(block)
    }

    /// Reads the header after `before` and compares all of it with the one that the writer makes:
    /// what a tar reader would pass over is refused too.
    fn header(&mut self, before: &str) -> Result<Header, ArchiveError> {
        let block = self.block()?;
        if block == [0; BLOCK] {
            return Err(ArchiveError::OutOfOrder {
                expected: "a further member".to_owned(),
                found: format!("the end of the tar stream, after {before}"),
            });
        }
        let odd = || match self.mtime {
            None => ArchiveError::NotAnArchive,
            Some(_) => ArchiveError::Header {
                member: format!("the member after {before}"),
            },
        };
        let header = tar::Header::from_byte_slice(&block);
        let name = String::from_utf8(header.path_bytes().into_owned()).map_err(|_| odd())?;
        let size = header.entry_size().map_err(|_| odd())?;
        let mtime = header.mtime().map_err(|_| odd())?;
        let mtime = self.mtime.unwrap_or(mtime);
        let only = member::header(&name, size, mtime).map_err(|_| odd())?;
        if *only.as_bytes() != block {
            return Err(odd());
        }
        self.mtime = Some(mtime);
        Ok(Header { name, size })
    }

    /// Returns a member's sum, and passes its contents on.
    fn contents(&mut self, header: &Header, part: Part) -> Result<Digest, ArchiveError> {
        let mut hasher = member::hasher();
        let mut left = header.size;
        while left > 0 {
            let piece = self
                .piece
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = &mut self.piece[..piece];
            self.input.read_exact(piece).map_err(read_error)?;
            hasher.update(piece);
            let taken = match part {
                Part::Data => self.sink.data(piece),
                Part::Users => self.sink.users(piece),
            };
            taken.map_err(ArchiveError::Data)?;
            left -= piece.len() as u64;
        }
        self.padding(header)?;
        Ok(hasher.finish())
    }

    /// Reads a whole member of at most `most` bytes, with its sum.
    fn json(
        &mut self,
        name: &str,
        header: &Header,
        most: usize,
    ) -> Result<(Vec<u8>, Digest), ArchiveError> {
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        if size > most {
            return Err(ArchiveError::Size {
                member: name.to_owned(),
                size: header.size,
            });
        }
        let mut contents = vec![0; size];
        self.input.read_exact(&mut contents).map_err(read_error)?;
        self.padding(header)?;
        let mut hasher = member::hasher();
        hasher.update(&contents);
        Ok((contents, hasher.finish()))
    }

    /// Compares the last member with what it has to say, line by line.
    fn check_sums(&mut self, sums: &Sums, extension: &str) -> Result<(), ArchiveError> {
        let header = self.header(SUMMARY)?;
        if header.name != SUMS {
            return Err(ArchiveError::OutOfOrder {
                expected: SUMS.to_owned(),
                found: header.name,
            });
        }
        if header.size != sums.text_bytes(extension) {
            return Err(ArchiveError::Size {
                member: SUMS.to_owned(),
                size: header.size,
            });
        }
        let mut line = Vec::new();
        for (member, expected) in sums.lines(extension) {
            line.resize(expected.len(), 0);
            self.input.read_exact(&mut line).map_err(read_error)?;
            if line != expected.as_bytes() {
                return Err(ArchiveError::Altered { member });
            }
        }
        self.padding(&header)
    }

    fn padding(&mut self, header: &Header) -> Result<(), ArchiveError> {
        let expected = member::padding(header.size);
        let mut padding = [0; BLOCK];
        let padding = &mut padding[..expected.len()];
        self.input.read_exact(padding).map_err(read_error)?;
        if padding != expected {
            return Err(ArchiveError::Header {
                member: header.name.clone(),
            });
        }
        Ok(())
    }
}

/// Refuses a newer format before anything else is asked of its metadata.
fn parse_metadata(json: &[u8]) -> Result<Metadata, ArchiveError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Format {
        format_version: u32,
    }
    let Format { format_version } = parse(METADATA, json)?;
    if format_version > FORMAT_VERSION {
        return Err(ArchiveError::NewerFormat {
            version: format_version,
        });
    }
    parse(METADATA, json)
}

fn parse<T: for<'a> Deserialize<'a>>(member: &str, json: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(json).map_err(|source| ArchiveError::Json {
        member: member.to_owned(),
        source,
    })
}

fn expect_end(input: &mut impl Read) -> Result<(), ArchiveError> {
    match io::copy(&mut input.take(1), &mut io::sink()).map_err(read_error)? {
        0 => Ok(()),
        _ => Err(ArchiveError::Trailing),
    }
}

//! What writer and reader must agree on to the byte: names, headers, sums and bounds.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use std::io;

/// Size of every data member but the last, bytes. A tar header tells the size before the bytes,
/// so one member is buffered; this is that buffer.
pub const MEMBER_BYTES: usize = 16 << 20;

/// Most data members in one archive: 64 TiB of them, whose sums take 128 MiB of memory.
pub const MAX_DATA_MEMBERS: u64 = 1 << 22;

/// Most members with accounts: 4 GiB of SQL.
const MAX_USERS_MEMBERS: u64 = 1 << 8;

/// Most bytes of `towline/metadata.json`.
pub const MAX_METADATA_BYTES: usize = 64 << 10;

/// Most bytes of `towline/summary.json`, which names every table: some 500,000 of them.
pub const MAX_SUMMARY_BYTES: usize = 16 << 20;

/// First member.
pub(super) const METADATA: &str = "towline/metadata.json";

/// Last member before the sums.
pub(super) const SUMMARY: &str = "towline/summary.json";

/// Last member.
pub(super) const SUMS: &str = "SHA256SUMS";

/// Unit of tar: a header is one block, contents are padded to whole ones.
pub(super) const BLOCK: usize = 512;

/// Two blocks of zeros end a tar archive (POSIX pax, "ustar Interchange Format").
pub(super) const END_BLOCKS: usize = 2;

/// Begins every zstd frame (RFC 8878, section 3.1.1).
pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Largest window of zstd's levels up to 19, as a power of two: 8 MiB.
pub(super) const ZSTD_WINDOW_LOG: u32 = 23;

const PADDING: [u8; BLOCK] = [0; BLOCK];

/// What the members between metadata and summary hold, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// The tool's output.
    #[default]
    Data,
    /// SQL of accounts.
    Users,
}

impl Part {
    /// Name of its member at `index`.
    pub(super) fn name(self, index: u64, extension: &str) -> String {
        match self {
            Self::Data => format!("data/{index:010}.{extension}"),
            Self::Users => format!("users/{index:010}.sql"),
        }
    }

    /// Most members of it.
    pub(super) const fn most(self) -> u64 {
        match self {
            Self::Data => MAX_DATA_MEMBERS,
            Self::Users => MAX_USERS_MEMBERS,
        }
    }
}

/// The zeros that follow `size` bytes of contents.
pub(super) fn padding(size: u64) -> &'static [u8] {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { &[] } else { &PADDING[over..] }
}

/// The one header that a member can have: nothing in it depends on the machine.
///
/// # Errors
/// A name too long for ustar; ours are not.
pub(super) fn header(name: &str, size: u64, mtime: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime);
    header.set_cksum();
    Ok(header)
}

/// Modification time of every member, seconds since the epoch; tar has no room for times before it.
pub(super) fn mtime(start: jiff::Timestamp) -> u64 {
    u64::try_from(start.as_second()).unwrap_or(0)
}

/// A running SHA-256.
pub(super) fn hasher() -> Context {
    Context::new(&SHA256)
}

/// Members of one part so far.
#[derive(Default)]
struct Members {
    sums: Vec<[u8; 32]>,
    bytes: u64,
}

/// SHA-256 of each member so far, in order. Only the digests are kept, for the names follow from
/// the order: 32 bytes for 16 MiB of data.
#[derive(Default)]
pub(super) struct Sums {
    metadata: Option<[u8; 32]>,
    data: Members,
    users: Members,
    summary: Option<[u8; 32]>,
}

impl Sums {
    pub(super) fn set_metadata(&mut self, digest: &Digest) {
        self.metadata = Some(raw(digest));
    }

    pub(super) fn push(&mut self, part: Part, digest: &Digest, bytes: u64) {
        let members = match part {
            Part::Data => &mut self.data,
            Part::Users => &mut self.users,
        };
        members.sums.push(raw(digest));
        members.bytes += bytes;
    }

    pub(super) fn set_summary(&mut self, digest: &Digest) {
        self.summary = Some(raw(digest));
    }

    const fn of(&self, part: Part) -> &Members {
        match part {
            Part::Data => &self.data,
            Part::Users => &self.users,
        }
    }

    /// Number of a part's members.
    pub(super) const fn members(&self, part: Part) -> u64 {
        self.of(part).sums.len() as u64
    }

    /// Sum of their sizes.
    pub(super) const fn bytes(&self, part: Part) -> u64 {
        self.of(part).bytes
    }

    /// The lines of `SHA256SUMS`, each with the member that it is about.
    pub(super) fn lines(&self, extension: &str) -> impl Iterator<Item = (String, String)> {
        let metadata = self.metadata.iter().map(|sum| (METADATA.to_owned(), sum));
        let of = move |part: Part| {
            let numbered = (0..).zip(&self.of(part).sums);
            numbered.map(move |(index, sum)| (part.name(index, extension), sum))
        };
        let summary = self.summary.iter().map(|sum| (SUMMARY.to_owned(), sum));
        let parts = of(Part::Data).chain(of(Part::Users));
        metadata.chain(parts).chain(summary).map(|(name, sum)| {
            let line = format!("{}  {name}\n", hex::encode(sum));
            (name, line)
        })
    }

    /// Size of `SHA256SUMS`, bytes.
    pub(super) fn text_bytes(&self, extension: &str) -> u64 {
        // Names of a part are all as long as the first: that is what the ten digits are for.
        let line = |name: &str| (64 + "  \n".len() + name.len()) as u64;
        let ends =
            self.metadata.map_or(0, |_| line(METADATA)) + self.summary.map_or(0, |_| line(SUMMARY));
        let of = |part: Part| self.members(part) * line(&part.name(0, extension));
        ends + of(Part::Data) + of(Part::Users)
    }
}

fn raw(digest: &Digest) -> [u8; 32] {
    let mut raw = [0; 32];
    raw.copy_from_slice(digest.as_ref());
    raw
}

//! Reads the archive's first member in passing: it says what kind of backup this is.

use std::io::Read;
use towline_agent::archive::Metadata;

/// A zstd block holds at most 128 KiB; the first one holds the whole first member.
const KEEP: usize = 160 << 10;
/// A tar header and block, bytes.
const BLOCK: usize = 512;
/// Longest metadata that is believed, bytes.
const MAX_METADATA: u64 = 64 << 10;

/// The beginning of a stream.
#[derive(Debug, Default)]
pub(crate) struct Peek {
    head: Vec<u8>,
}

impl Peek {
    pub(crate) fn add(&mut self, data: &[u8]) {
        let take = data.len().min(KEEP - self.head.len());
        self.head.extend_from_slice(&data[..take]);
    }

    /// What the archive says of itself; `None` when it is encrypted or not ours.
    pub(crate) fn metadata(&self) -> Option<Metadata> {
        const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
        if self.head.starts_with(&ZSTD_MAGIC) {
            read(zstd::stream::read::Decoder::new(&*self.head).ok()?)
        } else {
            read(&*self.head)
        }
    }
}

fn read(mut tar: impl Read) -> Option<Metadata> {
    let mut header = [0; BLOCK];
    tar.read_exact(&mut header).ok()?;
    if !header.starts_with(b"towline/metadata.json\0") {
        return None;
    }
    let size = std::str::from_utf8(&header[124..136]).ok()?;
    let size = u64::from_str_radix(size.trim_matches(['\0', ' ']), 8).ok()?;
    if size > MAX_METADATA {
        return None;
    }
    let mut json = Vec::new();
    tar.take(size).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use towline_agent::archive::{ArchiveWriter, FORMAT_VERSION, Summary};

    fn archive(level: Option<i32>) -> (Metadata, Vec<u8>) {
        let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let metadata = Metadata {
            format_version: FORMAT_VERSION,
            backup_id: "b".into(),
            server_flavour: "mysql".into(),
            server_version: "9".into(),
            server_uuid: None,
            method: "logical".into(),
            tool: "mysqldump".into(),
            tool_version: "9".into(),
            start_time: now,
        };
        let mut writer = ArchiveWriter::new(Vec::new(), &metadata, "sql", level).unwrap();
        // Does not compress, so the first block is as large as one can be.
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..1 << 20).map(|_| next()).collect();
        writer.write_all(&noise).unwrap();
        let summary = Summary {
            end_time: now,
            data_members: 0,
            data_bytes: 0,
            tool_exit_status: 0,
            completion_line_seen: true,
            position: Default::default(),
            schemas: Default::default(),
            parent: None,
            from_lsn: None,
            users: None,
        };
        (metadata, writer.finish(summary).unwrap())
    }

    #[test]
    fn the_first_member_is_read_from_the_head_alone() {
        for level in [None, Some(1), Some(3), Some(19)] {
            let (metadata, bytes) = archive(level);
            let mut peek = Peek::default();
            for chunk in bytes.chunks(1000) {
                peek.add(chunk);
            }
            assert_eq!(peek.head.len(), KEEP);
            assert_eq!(peek.metadata(), Some(metadata), "{level:?}");
        }
    }

    #[test]
    fn anything_else_says_nothing() {
        let (_, bytes) = archive(Some(3));
        for foul in [&b""[..], b"age-encryption.org/v1", &bytes[..40], &[0; 4096]] {
            let mut peek = Peek::default();
            peek.add(foul);
            assert_eq!(peek.metadata(), None);
        }
    }
}

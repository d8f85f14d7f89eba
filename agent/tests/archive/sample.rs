//! Archives to try things on.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use towline_agent::archive::{
    ArchiveError, ArchiveWriter, FORMAT_VERSION, MEMBER_BYTES, Metadata, Position, Summary, Users,
    Verified, verify,
};

pub(crate) fn metadata() -> Metadata {
    Metadata {
        format_version: FORMAT_VERSION,
        backup_id: "0c2d6b9e-8f0a-4a57-9c9f-6f1f3f1f2f3f".to_owned(),
        server_flavour: "mariadb".to_owned(),
        server_version: "10.11.6-MariaDB-0+deb12u1".to_owned(),
        server_uuid: None,
        method: "physical".to_owned(),
        tool: "mariadb-backup".to_owned(),
        tool_version: "mariadb-backup based on MariaDB server 10.11.6-MariaDB".to_owned(),
        start_time: "2026-03-01T02:00:07.25Z".parse().unwrap(),
    }
}

pub(crate) fn summary() -> Summary {
    Summary {
        end_time: "2026-03-01T02:10:00Z".parse().unwrap(),
        data_members: 0,
        data_bytes: 0,
        tool_exit_status: 0,
        completion_line_seen: true,
        position: Position {
            gtid: Some("0-1-42".to_owned()),
            ..Position::default()
        },
        schemas: BTreeMap::from([("shop".to_owned(), vec!["orders".to_owned()])]),
        parent: None,
        from_lsn: None,
        users: None,
    }
}

pub(crate) fn archive(data: &[u8], level: Option<i32>) -> Vec<u8> {
    archive_in_chunks(data, level, &[data.len().max(1)])
}

pub(crate) fn archive_in_chunks(data: &[u8], level: Option<i32>, chunks: &[usize]) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new(), &metadata(), "xbs", level).unwrap();
    let mut left = data;
    for chunk in chunks.iter().cycle() {
        let (now, later) = left.split_at(left.len().min(*chunk));
        writer.write_all(now).unwrap();
        writer.flush().unwrap();
        left = later;
        if left.is_empty() {
            break;
        }
    }
    writer.finish(summary()).unwrap()
}

pub(crate) fn read(archive: &[u8]) -> Result<(Verified, Vec<u8>), ArchiveError> {
    let mut data = Vec::new();
    let verified = verify(archive, &mut data)?;
    Ok((verified, data))
}

/// Bytes that neither repeat nor vanish under compression.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Members as (name, contents), for tests that put them together anew.
pub(crate) fn members(plain: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(plain);
    tar.entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            (name, contents)
        })
        .collect()
}

/// A plain archive of these members, framed as ours are.
pub(crate) fn forge(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, contents) in members {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(contents.len() as u64);
        header.set_mtime(metadata().start_time.as_second().try_into().unwrap());
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(contents);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// The same with sums that fit, as somebody would who forges an archive with care.
pub(crate) fn forge_with_sums(mut members: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    members.retain(|(name, _)| name != "SHA256SUMS");
    let sums: String = members
        .iter()
        .map(|(name, contents)| {
            let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, contents);
            format!("{}  {name}\n", hex::encode(sum))
        })
        .collect();
    members.push(("SHA256SUMS".to_owned(), sums.into_bytes()));
    forge(&members)
}

/// Three data members, the last one short.
pub(crate) fn long() -> Vec<u8> {
    archive(&noise(2 * MEMBER_BYTES + 1234), None)
}

/// An archive with accounts in it.
pub(crate) fn with_users(data: &[u8], users: &[u8], level: Option<i32>) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new(), &metadata(), "sql", level).unwrap();
    writer.write_all(data).unwrap();
    writer.begin_users().unwrap();
    writer.write_all(users).unwrap();
    let summary = Summary {
        users: Some(Users {
            accounts: 7,
            ..Users::default()
        }),
        ..summary()
    };
    writer.finish(summary).unwrap()
}

//! The archive, seen from outside: what a reader accepts, and what stock tools make of it.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use towline_agent::archive::{
    ArchiveError, ArchiveWriter, FORMAT_VERSION, MEMBER_BYTES, Metadata, Position, Summary,
    Verified, verify,
};

fn metadata() -> Metadata {
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

fn summary() -> Summary {
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
    }
}

fn archive(data: &[u8], level: Option<i32>) -> Vec<u8> {
    archive_in_chunks(data, level, &[data.len().max(1)])
}

fn archive_in_chunks(data: &[u8], level: Option<i32>, chunks: &[usize]) -> Vec<u8> {
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

fn read(archive: &[u8]) -> Result<(Verified, Vec<u8>), ArchiveError> {
    let mut data = Vec::new();
    let verified = verify(archive, &mut data)?;
    Ok((verified, data))
}

/// Bytes that neither repeat nor vanish under compression.
fn noise(len: usize) -> Vec<u8> {
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
fn members(plain: &[u8]) -> Vec<(String, Vec<u8>)> {
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
fn forge(members: &[(String, Vec<u8>)]) -> Vec<u8> {
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
fn forge_with_sums(mut members: Vec<(String, Vec<u8>)>) -> Vec<u8> {
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
fn long() -> Vec<u8> {
    archive(&noise(2 * MEMBER_BYTES + 1234), None)
}

#[test]
fn what_went_in_comes_out() {
    for level in [None, Some(1), Some(3), Some(19)] {
        for len in [0, 1, 511, 512, 70_000] {
            let data = noise(len);
            let (verified, out) = read(&archive(&data, level)).unwrap();
            assert_eq!(out, data);
            assert_eq!(verified.metadata, metadata());
            let expected = Summary {
                data_members: u64::from(len > 0),
                data_bytes: len as u64,
                ..summary()
            };
            assert_eq!(verified.summary, expected);
        }
    }
}

#[test]
fn data_is_cut_into_members_of_one_size() {
    let data = noise(2 * MEMBER_BYTES);
    for (len, sizes) in [
        (2 * MEMBER_BYTES, vec![MEMBER_BYTES, MEMBER_BYTES]),
        (MEMBER_BYTES + 1, vec![MEMBER_BYTES, 1]),
        (MEMBER_BYTES - 1, vec![MEMBER_BYTES - 1]),
    ] {
        let plain = archive(&data[..len], None);
        let names_and_sizes: Vec<_> = members(&plain)
            .into_iter()
            .filter(|(name, _)| name.starts_with("data/"))
            .map(|(name, contents)| (name, contents.len()))
            .collect();
        let expected: Vec<_> = (0..)
            .zip(sizes)
            .map(|(index, size)| (format!("data/000000000{index}.xbs"), size))
            .collect();
        assert_eq!(names_and_sizes, expected);
        assert_eq!(read(&plain).unwrap().1, &data[..len]);
    }
}

#[test]
fn the_first_bytes_do_not_wait_for_the_tool() {
    let sent = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    struct Wire(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);
    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let _writer = ArchiveWriter::new(Wire(sent.clone()), &metadata(), "xbs", Some(3)).unwrap();
    let mut tar = Vec::new();
    let cut = zstd::Decoder::new(sent.borrow().as_slice())
        .unwrap()
        .read_to_end(&mut tar)
        .unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    assert!(String::from_utf8_lossy(&tar).contains(&metadata().backup_id));
}

#[test]
fn cut_at_any_byte_is_refused() {
    for level in [None, Some(3)] {
        let whole = archive(&noise(700), level);
        for at in 0..whole.len() {
            let error = read(&whole[..at]).unwrap_err();
            assert!(
                matches!(error, ArchiveError::Cut),
                "cut at {at} of {}: {error:?}",
                whole.len()
            );
        }
    }
}

#[test]
fn plain_altered_at_any_byte_is_refused() {
    let whole = archive(&noise(700), None);
    for at in 0..whole.len() {
        for mask in [0x01, 0x20, 0x80, 0xff] {
            let mut altered = whole.clone();
            altered[at] ^= mask;
            assert!(read(&altered).is_err(), "byte {at} ^ {mask:#x} accepted");
        }
    }
}

/// zstd has more than one way to say the same thing, so a flip may be read as nothing at all;
/// what is read is then what was written.
#[test]
fn compressed_altered_at_any_byte_is_refused_or_means_the_same() {
    let whole = archive(&noise(700), Some(3));
    let (good, good_data) = read(&whole).unwrap();
    let mut accepted = 0;
    for at in 0..whole.len() {
        for mask in (0..8).map(|bit| 1 << bit).chain([0xff]) {
            let mut altered = whole.clone();
            altered[at] ^= mask;
            if let Ok((verified, data)) = read(&altered) {
                assert_eq!(verified.metadata, good.metadata);
                assert_eq!(verified.summary, good.summary);
                assert_eq!(data, good_data);
                accepted += 1;
            }
        }
    }
    // Bits of the frame and block headers that do not matter to so small an archive.
    assert!(
        accepted * 100 < whole.len() * 9,
        "{accepted} flips accepted"
    );
}

#[test]
fn members_dropped_swapped_or_repeated_are_refused() {
    let whole = members(&long());
    assert!(read(&forge(&whole)).is_ok(), "the forge itself is sound");
    let names: Vec<_> = whole.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "towline/metadata.json",
            "data/0000000000.xbs",
            "data/0000000001.xbs",
            "data/0000000002.xbs",
            "towline/summary.json",
            "SHA256SUMS"
        ]
    );
    for at in 0..whole.len() {
        let mut dropped = whole.clone();
        dropped.remove(at);
        assert!(read(&forge(&dropped)).is_err(), "without {}", names[at]);
        if at > 0 {
            let mut swapped = whole.clone();
            swapped.swap(at - 1, at);
            assert!(read(&forge(&swapped)).is_err(), "{} early", names[at]);
        }
        let mut repeated = whole.clone();
        repeated.insert(at, whole[at].clone());
        assert!(read(&forge(&repeated)).is_err(), "{} twice", names[at]);
        // A tar that ends well, but too early.
        let error = read(&forge(&whole[..at])).unwrap_err();
        assert!(
            matches!(
                error,
                ArchiveError::OutOfOrder { .. } | ArchiveError::NotAnArchive
            ),
            "first {at} members: {error:?}"
        );
    }
}

#[test]
fn contents_exchanged_under_the_same_names_are_altered() {
    let mut whole = members(&long());
    let first = std::mem::take(&mut whole[1].1);
    whole[1].1 = std::mem::replace(&mut whole[2].1, first);
    let error = read(&forge(&whole)).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Altered { member } if member == "data/0000000000.xbs"),
        "{error:?}"
    );
}

#[test]
fn sums_that_fit_do_not_make_up_for_missing_data() {
    let mut whole = members(&long());
    whole.remove(3);
    let error = read(&forge_with_sums(whole)).unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::Miscounted {
                said_members: 3,
                members: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_short_member_in_the_middle_is_refused() {
    let mut whole = members(&long());
    whole[1].1.pop();
    let error = read(&forge_with_sums(whole)).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::OutOfOrder { expected, .. }
            if expected == "towline/summary.json"),
        "{error:?}"
    );
}

#[test]
fn data_members_of_two_kinds_are_refused() {
    let mut whole = members(&long());
    whole[2].0 = "data/0000000001.sql".to_owned();
    let error = read(&forge_with_sums(whole)).unwrap_err();
    assert!(
        matches!(error, ArchiveError::OutOfOrder { .. }),
        "{error:?}"
    );
}

#[test]
fn an_empty_data_member_is_refused() {
    let mut whole = members(&archive(b"x", None));
    whole[1].1.clear();
    let error = read(&forge_with_sums(whole)).unwrap_err();
    assert!(
        matches!(error, ArchiveError::Size { size: 0, .. }),
        "{error:?}"
    );
}

#[test]
fn a_backup_that_failed_is_no_archive() {
    let failed = [
        Summary {
            tool_exit_status: 1,
            ..summary()
        },
        Summary {
            completion_line_seen: false,
            ..summary()
        },
    ];
    for failed in failed {
        let writer = ArchiveWriter::new(Vec::new(), &metadata(), "xbs", None).unwrap();
        let refused = writer.finish(failed.clone()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);

        let mut whole = members(&archive(b"", None));
        whole[1].1 = serde_json::to_vec(&failed).unwrap();
        let error = read(&forge_with_sums(whole)).unwrap_err();
        assert!(
            matches!(error, ArchiveError::BackupIncomplete { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let newer = Metadata {
        format_version: FORMAT_VERSION + 1,
        ..metadata()
    };
    let writer = ArchiveWriter::new(Vec::new(), &newer, "xbs", Some(3)).unwrap();
    let error = read(&writer.finish(summary()).unwrap()).unwrap_err();
    assert!(matches!(error, ArchiveError::NewerFormat { version: 2 }));
    assert_eq!(
        error.to_string(),
        "the archive has format 2, this program reads up to 1: use a newer towline"
    );
    // Whatever else a newer one may have in its metadata.
    let mut whole = members(&archive(b"", None));
    whole[0].1 = br#"{"formatVersion":7,"everything":"else"}"#.to_vec();
    let error = read(&forge_with_sums(whole)).unwrap_err();
    assert!(matches!(error, ArchiveError::NewerFormat { version: 7 }));
}

#[test]
fn bytes_after_the_end_are_refused() {
    let plain = archive(b"data", None);
    let compressed = archive(b"data", Some(3));
    let frame = zstd::encode_all(&b"more"[..], 1).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0][..], b"x"].concat();
    for (whole, more) in [
        (&plain, &b"\0"[..]),
        (&plain, &[0; 512]),
        (&compressed, b"\0"),
        (&compressed, &frame),
        (&compressed, &skippable),
    ] {
        let longer = [whole, more].concat();
        let error = read(&longer).unwrap_err();
        assert!(matches!(error, ArchiveError::Trailing), "{error:?}");
    }
    // Inside the frame, too.
    let inside = zstd::encode_all(&[plain, vec![0; 512]].concat()[..], 1).unwrap();
    let error = read(&inside).unwrap_err();
    assert!(matches!(error, ArchiveError::Trailing), "{error:?}");
}

#[test]
fn what_is_no_archive_is_called_so() {
    for other in [
        noise(5000),
        vec![b'x'; 5000],
        forge(&[("etc/passwd".to_owned(), b"root".to_vec())]),
        zstd::encode_all(&noise(5000)[..], 1).unwrap(),
    ] {
        let error = read(&other).unwrap_err();
        assert!(matches!(error, ArchiveError::NotAnArchive), "{error:?}");
    }
    let age = b"age-encryption.org/v1\n-> X25519 abc\n";
    let error = read(age).unwrap_err();
    assert!(matches!(error, ArchiveError::Encrypted));
    assert!(error.to_string().contains("age -d -i"), "{error}");
}

/// A hostile archive cannot make the reader hold more than the format allows.
#[test]
fn memory_is_bounded_by_the_format() {
    let mut header = tar::Header::new_ustar();
    header.set_path("towline/metadata.json").unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(8_000_000_000);
    header.set_cksum();
    let error = verify(header.as_bytes().chain(io::repeat(b' ')), io::sink()).unwrap_err();
    assert!(matches!(error, ArchiveError::Size { .. }), "{error:?}");

    // A window of 128 MiB, which zstd's own command would take.
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&archive(b"data", None)).unwrap();
    let error = read(&encoder.finish().unwrap()).unwrap_err();
    assert!(matches!(error, ArchiveError::Compression(_)), "{error:?}");
}

#[test]
fn a_failing_source_or_sink_is_not_called_an_altered_archive() {
    struct Broken(io::ErrorKind);
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
    }
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for level in [None, Some(3)] {
        let whole = archive(&noise(5000), level);
        for at in [0, 3, 100, 2500, whole.len()] {
            for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
                let error = verify(whole[..at].chain(Broken(kind)), io::sink()).unwrap_err();
                assert!(
                    matches!(&error, ArchiveError::Read(source) if source.kind() == kind),
                    "{error:?}"
                );
            }
        }
        let error = verify(&whole[..], Broken(io::ErrorKind::StorageFull)).unwrap_err();
        assert!(matches!(error, ArchiveError::Data(_)), "{error:?}");
    }
}

#[test]
fn bad_settings_are_refused_before_the_tool_runs() {
    for (extension, level) in [("tar", None), ("xbs", Some(0)), ("sql", Some(20))] {
        let refused = ArchiveWriter::new(Vec::new(), &metadata(), extension, level);
        let error = refused.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

/// A reader without towline: real zstd, tar and sha256sum.
#[test]
fn stock_tools_open_it() {
    let data = noise(MEMBER_BYTES + 4321);
    let folder = tempfile::tempdir().unwrap();
    for (level, file) in [(Some(3), "backup.tar.zst"), (None, "backup.tar")] {
        let folder = folder.path().join(file.replace('.', "-"));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join(file);
        std::fs::write(&path, archive(&data, level)).unwrap();
        let sh = |script: &str| {
            let run = Command::new("bash")
                .args(["-euo", "pipefail", "-c", script])
                .current_dir(&folder)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(run.status.success(), "{script}: {run:?}");
            assert!(run.stderr.is_empty(), "{script}: {run:?}");
            String::from_utf8(run.stdout).unwrap()
        };
        if level.is_some() {
            sh("zstd -q -t backup.tar.zst; zstd -q -d < backup.tar.zst | tar x --no-same-owner");
        } else {
            sh("tar xf backup.tar --no-same-owner");
        }
        let checked = sh("sha256sum -c SHA256SUMS");
        assert_eq!(
            checked,
            "towline/metadata.json: OK\ndata/0000000000.xbs: OK\ndata/0000000001.xbs: OK\n\
             towline/summary.json: OK\n"
        );
        sh("cat data/* > whole");
        assert!(std::fs::read(folder.join("whole")).unwrap() == data);
        let listed = sh("tar --utc --full-time -tvf backup.tar* SHA256SUMS");
        assert!(
            listed.starts_with("-rw-r--r-- 0/0") && listed.contains("2026-03-01 02:00:07"),
            "{listed}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However the tool's output arrives, the archive is the same, and it holds that output.
    #[test]
    fn chunks_change_nothing(
        data in proptest::collection::vec(any::<u8>(), 0..300_000),
        chunks in proptest::collection::vec(1_usize..70_000, 1..8),
        level in proptest::option::of(1..=9),
    ) {
        let whole = archive_in_chunks(&data, level, &chunks);
        prop_assert!(whole == archive(&data, level));
        let (_, out) = read(&whole).unwrap();
        prop_assert!(out == data);
    }

    /// Garbage is refused, whatever it looks like, and never a panic.
    #[test]
    fn garbage_is_refused(
        start in prop_oneof![Just(vec![]), Just(vec![0x28, 0xb5, 0x2f, 0xfd]), Just(archive(b"x", None))],
        garbage in proptest::collection::vec(any::<u8>(), 1..5000),
    ) {
        prop_assert!(read(&[start, garbage].concat()).is_err());
    }
}

/// More than one member and more than one compressor's job.
#[test]
fn a_long_archive_is_the_same_every_time() {
    let data = noise(MEMBER_BYTES + MEMBER_BYTES / 2);
    let once = archive_in_chunks(&data, Some(3), &[65_536]);
    let again = archive_in_chunks(&data, Some(3), &[1_000_003, 7]);
    assert!(once == again);
    assert!(read(&once).unwrap().1 == data);
}

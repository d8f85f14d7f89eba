//! Archives put together by somebody else: only what the format allows is accepted.

use crate::sample::*;
use std::io::{self, Read as _, Write as _};
use towline_agent::archive::{
    ArchiveError, ArchiveWriter, FORMAT_VERSION, MEMBER_BYTES, Metadata, Summary, verify,
};

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
fn accounts_are_in_their_place_and_counted() {
    let whole = members(&with_users(b"data", &noise(MEMBER_BYTES + 5), None));
    let names: Vec<_> = whole.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names[1..4],
        [
            "data/0000000000.sql",
            "users/0000000000.sql",
            "users/0000000001.sql"
        ]
    );
    assert!(read(&forge_with_sums(whole.clone())).is_ok());
    let mut late_data = whole.clone();
    late_data.swap(1, 2);
    let mut more_data = whole.clone();
    more_data.insert(4, ("data/0000000001.sql".to_owned(), b"x".to_vec()));
    let mut short = whole.clone();
    short[2].1.pop();
    let mut renamed = whole.clone();
    renamed[3].0 = "users/0000000002.sql".to_owned();
    for other in [late_data, more_data, short, renamed] {
        let error = read(&forge_with_sums(other)).unwrap_err();
        assert!(
            matches!(error, ArchiveError::OutOfOrder { .. }),
            "{error:?}"
        );
    }
    let mut fewer = whole.clone();
    fewer.remove(3);
    let error = read(&forge_with_sums(fewer)).unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::Miscounted {
                kind: "users",
                said_members: 2,
                members: 1,
                ..
            }
        ),
        "{error:?}"
    );
    let mut silent = whole;
    silent[4].1 = serde_json::to_vec(&Summary {
        data_members: 1,
        data_bytes: 4,
        ..summary()
    })
    .unwrap();
    let error = read(&forge_with_sums(silent)).unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::Miscounted {
                kind: "users",
                said_members: 0,
                ..
            }
        ),
        "{error:?}"
    );
    // The writer does not make such a one either.
    let mut writer = ArchiveWriter::new(Vec::new(), &metadata(), "sql", None).unwrap();
    writer.begin_users().unwrap();
    let error = writer.finish(summary()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

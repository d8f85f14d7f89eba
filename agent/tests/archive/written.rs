//! What the writer makes, and what stock tools make of it.

use crate::sample::*;
use std::io::{self, Read as _, Write};
use std::process::{Command, Stdio};
use towline_agent::archive::{
    ArchiveError, ArchiveWriter, Identities, MEMBER_BYTES, Metadata, Sink, Summary, Users, open,
};

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
fn accounts_stand_after_the_data() {
    let users = noise(MEMBER_BYTES + 5);
    for (data, users, expected) in [
        (noise(700), &users[..7], vec![("users/0000000000.sql", 7)]),
        (
            Vec::new(),
            &users,
            vec![
                ("users/0000000000.sql", MEMBER_BYTES),
                ("users/0000000001.sql", 5),
            ],
        ),
        (noise(MEMBER_BYTES), &users[..0], vec![]),
    ] {
        let plain = with_users(&data, users, None);
        let (verified, out) = read(&plain).unwrap();
        assert!(out == data, "data alone is passed on");
        let told = verified.summary.users.unwrap();
        let expected_told = Users {
            accounts: 7,
            members: expected.len() as u64,
            bytes: users.len() as u64,
        };
        assert_eq!(told, expected_told);
        let after_data: Vec<_> = members(&plain)
            .into_iter()
            .skip_while(|(name, _)| !name.starts_with("users/"))
            .take_while(|(name, _)| name.starts_with("users/"))
            .collect();
        let sizes: Vec<_> = after_data.iter().map(|(n, c)| (&**n, c.len())).collect();
        assert_eq!(sizes, expected);
        let contents: Vec<u8> = after_data.into_iter().flat_map(|(_, c)| c).collect();
        assert!(contents == users);
        assert!(read(&with_users(&data, users, Some(3))).is_ok());
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

/// More than one member and more than one compressor's job.
#[test]
fn a_long_archive_is_the_same_every_time() {
    let data = noise(MEMBER_BYTES + MEMBER_BYTES / 2);
    let once = archive_in_chunks(&data, Some(3), &[65_536]);
    let again = archive_in_chunks(&data, Some(3), &[1_000_003, 7]);
    assert!(once == again);
    assert!(read(&once).unwrap().1 == data);
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

/// What a sink was given.
#[derive(Default)]
struct Taken {
    metadata: Option<Metadata>,
    data: Vec<u8>,
    users: Vec<u8>,
}

impl Sink for Taken {
    fn metadata(&mut self, metadata: &Metadata) -> std::io::Result<()> {
        assert!(self.data.is_empty(), "it comes first");
        self.metadata = Some(metadata.clone());
        Ok(())
    }

    fn data(&mut self, piece: &[u8]) -> std::io::Result<()> {
        assert!(self.metadata.is_some() && self.users.is_empty());
        self.data.extend_from_slice(piece);
        Ok(())
    }

    fn users(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.users.extend_from_slice(piece);
        Ok(())
    }
}

#[test]
fn everything_goes_to_the_sink_in_its_order() {
    let data = noise(MEMBER_BYTES + 700);
    for level in [None, Some(3)] {
        let archive = with_users(&data, b"CREATE USER u", level);
        let opened = open(&Identities::default(), &archive[..]).unwrap();
        let mut taken = Taken::default();
        let verified = towline_agent::archive::read(opened, &mut taken).unwrap();
        assert_eq!(taken.metadata, Some(verified.metadata));
        assert!(taken.data == data);
        assert_eq!(taken.users, b"CREATE USER u");
    }
}

/// It is asked before it is given anything.
#[test]
fn a_sink_may_refuse_the_metadata() {
    struct Refuses;
    impl Sink for Refuses {
        fn metadata(&mut self, _: &Metadata) -> std::io::Result<()> {
            Err(std::io::Error::other("not this one"))
        }
        fn data(&mut self, _: &[u8]) -> std::io::Result<()> {
            panic!("it has refused")
        }
    }
    let archive = with_users(b"data", b"CREATE USER u", None);
    let error = towline_agent::archive::read(&archive[..], &mut Refuses).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Data(e) if e.to_string() == "not this one"),
        "{error:?}"
    );
}

//! The encrypted layer: what opens it, and that no cut or altered file is taken for whole.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use proptest::prelude::*;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use towline_agent::archive::encryption::Envelope;
use towline_agent::archive::{
    ArchiveError, ArchiveWriter, FORMAT_VERSION, Identities, Metadata, Position, Sink, Summary,
    Verified, verify_with,
};

/// Plain bytes of one piece of an age file, and what encryption adds to it.
const PIECE: usize = 64 << 10;
const TAG: usize = 16;

/// An encrypted archive of `data`.
fn archive(data: &[u8], level: Option<i32>, to: &[&Identity]) -> Vec<u8> {
    let start = "2026-03-01T02:00:07Z".parse().unwrap();
    let metadata = Metadata {
        format_version: FORMAT_VERSION,
        backup_id: "b-1".to_owned(),
        server_flavour: "mariadb".to_owned(),
        server_version: "10.11.6-MariaDB".to_owned(),
        server_uuid: None,
        method: "physical".to_owned(),
        tool: "mariadb-backup".to_owned(),
        tool_version: "10.11.6".to_owned(),
        start_time: start,
    };
    let summary = Summary {
        end_time: start,
        data_members: 0,
        data_bytes: 0,
        tool_exit_status: 0,
        completion_line_seen: true,
        position: Position::default(),
        schemas: [("shop".to_owned(), vec!["orders".to_owned()])].into(),
        parent: None,
        from_lsn: None,
        users: None,
    };
    let recipients: Vec<_> = to
        .iter()
        .map(|identity| identity.to_public().to_string().parse().unwrap())
        .collect();
    let envelope = Envelope::new(Vec::new(), &recipients).unwrap();
    let mut writer = ArchiveWriter::new(envelope, &metadata, "xbs", level).unwrap();
    writer.write_all(data).unwrap();
    writer.finish(summary).unwrap().finish().unwrap()
}

fn holder(of: &Identity) -> Identities {
    let mut identities = Identities::default();
    let secret = of.to_string();
    identities.add(secret.expose_secret().as_bytes()).unwrap();
    identities
}

fn open(identities: &Identities, archive: &[u8]) -> Result<Verified, ArchiveError> {
    verify_with(identities, archive, io::sink())
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len);
    for _ in 0..len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.push(state as u8);
    }
    bytes
}

#[test]
fn each_recipient_opens_it_and_nobody_else() {
    let [one, other, stranger] = [(); 3].map(|()| Identity::generate());
    for level in [None, Some(3)] {
        let archive = archive(&noise(100_000), level, &[&one, &other]);
        for identity in [&one, &other] {
            let verified = open(&holder(identity), &archive).unwrap();
            assert_eq!(verified.metadata.backup_id, "b-1");
        }
        let mut several = holder(&stranger);
        let refused = open(&several, &archive);
        assert!(matches!(refused, Err(ArchiveError::NotForUs)));
        let secret = other.to_string();
        several.add(secret.expose_secret().as_bytes()).unwrap();
        open(&several, &archive).unwrap();
        let refused = open(&Identities::default(), &archive);
        assert!(matches!(refused, Err(ArchiveError::Encrypted)));
    }
}

#[test]
fn a_cut_one_is_refused_wherever_it_is_cut() {
    let identity = Identity::generate();
    let holder = holder(&identity);
    let archive = archive(&noise(3000), Some(3), &[&identity]);
    open(&holder, &archive).unwrap();
    for end in 0..archive.len() {
        let refused = open(&holder, &archive[..end]);
        assert!(refused.is_err(), "cut at {end} of {}", archive.len());
    }
    let longer = [&archive[..], b"x"].concat();
    assert!(open(&holder, &longer).is_err());
}

#[test]
fn an_altered_one_is_refused_wherever_it_is_altered() {
    let identity = Identity::generate();
    let holder = holder(&identity);
    let mut archive = archive(&noise(3000), Some(3), &[&identity]);
    for at in 0..archive.len() {
        archive[at] ^= 1;
        let refused = open(&holder, &archive);
        assert!(refused.is_err(), "altered at {at} of {}", archive.len());
        archive[at] ^= 1;
    }
    open(&holder, &archive).unwrap();
}

/// The stock program's own judgement, at the ends of all pieces and beside them.
#[test]
fn stock_age_refuses_a_cut_one() {
    if Command::new("age").arg("--version").output().is_err() {
        eprintln!("skipped: the stock age is not installed: apt install age");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::generate();
    let key = dir.path().join("key");
    std::fs::write(&key, identity.to_string().expose_secret()).unwrap();
    let stock = |archive: &[u8]| {
        let mut age = Command::new("age")
            .arg("-d")
            .arg("-i")
            .arg(&key)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It may leave before it has read everything.
        let _ = age.stdin.take().unwrap().write_all(archive);
        age.wait().unwrap().success()
    };
    let archive = archive(&noise(300_000), None, &[&identity]);
    assert!(stock(&archive));
    let lines = archive.windows(5).position(|w| w == b"\n--- ").unwrap() + 1;
    let head = lines + archive[lines..].iter().position(|b| *b == b'\n').unwrap() + 1;
    // A nonce of 16 bytes comes before the first piece.
    let pieces = (head + 16..archive.len()).step_by(PIECE + TAG);
    assert!(pieces.len() > 3);
    for end in pieces {
        for end in [end - 1, end, end + 1, end + TAG] {
            assert!(!stock(&archive[..end]), "cut at {end} of {}", archive.len());
        }
    }
    assert!(!stock(&archive[..archive.len() - 1]));
}

/// A head without an end does not fill the memory.
#[test]
fn a_head_that_never_ends() {
    struct Endless {
        read: usize,
    }
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(self.read < 1 << 20, "more is read than a head may have");
            self.read += buffer.len();
            buffer.fill(b'x');
            Ok(buffer.len())
        }
    }
    let holder = holder(&Identity::generate());
    for line in ["", "-> X25519 abc\n"] {
        let start = format!("age-encryption.org/v1\n{line}");
        let input = io::Cursor::new(start).chain(Endless { read: 0 });
        let refused = verify_with(&holder, input, io::sink());
        assert!(matches!(refused, Err(ArchiveError::Encryption)));
    }
}

/// Whoever reads what is in the age file learns the same about it as a verifying reader.
#[test]
fn whose_fault_it_is_whoever_reads() {
    /// It may break off as a connection does.
    struct Source<'a> {
        bytes: &'a [u8],
        breaks: bool,
    }
    impl Read for Source<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.bytes.read(buffer)? {
                0 if self.breaks => Err(io::ErrorKind::ConnectionReset.into()),
                read => Ok(read),
            }
        }
    }
    let identity = Identity::generate();
    let holder = holder(&identity);
    let archive = archive(&noise(300_000), None, &[&identity]);
    let mut altered = archive.clone();
    altered[200_000] ^= 1;
    let cut = &archive[..200_000];
    type Is = fn(&ArchiveError) -> bool;
    // Bytes, whether reading breaks off at their end, and what that is called.
    let cases: [(&str, &[u8], bool, Is); 3] = [
        ("altered", &altered, false, |e| {
            matches!(e, ArchiveError::Encryption)
        }),
        ("cut", cut, false, |e| {
            matches!(e, ArchiveError::Cut | ArchiveError::Encryption)
        }),
        (
            "breaks",
            cut,
            true,
            |e| matches!(e, ArchiveError::Read(e) if e.kind() == io::ErrorKind::ConnectionReset),
        ),
    ];
    for (what, bytes, breaks, is) in cases {
        let input = || Source { bytes, breaks };
        let error = verify_with(&holder, input(), io::sink()).unwrap_err();
        assert!(is(&error), "{what}: {error:?}");
        let mut opened = towline_agent::archive::open(&holder, input()).unwrap();
        let error = io::copy(&mut opened, &mut io::sink()).unwrap_err();
        let error = ArchiveError::of_opened(error);
        assert!(is(&error), "{what}: {error:?}");
        // Something in between, as a digest would be.
        let opened = towline_agent::archive::open(&holder, input()).unwrap();
        let between = io::BufReader::new(opened);
        let error = towline_agent::archive::read(between, &mut Nowhere).unwrap_err();
        assert!(is(&error), "{what}: {error:?}");
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn data(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    /// Anything after the magic is refused, and nothing panics.
    #[test]
    fn heads_of_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let holder = holder(&Identity::generate());
        let file = [&b"age-encryption.org/v1\n"[..], &bytes].concat();
        prop_assert!(open(&holder, &file).is_err());
    }
}

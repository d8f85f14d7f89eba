//! What became of an archive on its way: nothing cut or altered is accepted.

use crate::sample::*;
use std::io::{self, Read, Write};
use towline_agent::archive::{ArchiveError, verify};

#[test]
fn cut_at_any_byte_is_refused() {
    for level in [None, Some(3)] {
        let whole = with_users(&noise(700), b"CREATE USER u", level);
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
    let whole = with_users(&noise(700), b"CREATE USER u", None);
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

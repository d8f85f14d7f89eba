//! Random data, random damage.

use crate::sample::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// An eighth of what is usual, or of what PROPTEST_CASES says: each is an archive or two.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: (usual.cases / 8).max(1),
        ..usual
    }
}

/// One way to damage bytes.
#[derive(Clone, Debug)]
enum Damage {
    Overwrite(Index, Vec<u8>),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Copies a piece to another place.
    Move(Index, Index, usize),
    /// Exchanges two blocks of tar.
    Swap(Index, Index),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    let bytes = || proptest::collection::vec(any::<u8>(), 1..600);
    prop_oneof![
        (at(), bytes()).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        (at(), bytes()).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), 1_usize..2000).prop_map(|(at, size)| Damage::Remove(at, size)),
        (at(), at(), 1_usize..2000).prop_map(|(from, to, size)| Damage::Move(from, to, size)),
        (at(), at()).prop_map(|(a, b)| Damage::Swap(a, b)),
        at().prop_map(Damage::Cut),
    ]
}

impl Damage {
    fn to(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let size = bytes.len();
        match self {
            Self::Overwrite(at, with) => {
                let at = at.index(size);
                for (byte, with) in bytes[at..].iter_mut().zip(with) {
                    *byte = *with;
                }
            }
            Self::Insert(at, more) => {
                let at = at.index(size);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(at, less) => {
                let at = at.index(size);
                bytes.drain(at..size.min(at + less));
            }
            Self::Move(from, to, less) => {
                let from = from.index(size);
                let piece = bytes[from..size.min(from + less)].to_vec();
                let to = to.index(size);
                bytes.splice(to..to, piece);
            }
            Self::Swap(a, b) => {
                let blocks = size / 512;
                if blocks > 0 {
                    let (a, b) = (a.index(blocks) * 512, b.index(blocks) * 512);
                    for at in 0..512 {
                        bytes.swap(a + at, b + at);
                    }
                }
            }
            Self::Cut(at) => bytes.truncate(at.index(size)),
        }
    }
}

proptest! {
    #![proptest_config(cases())]

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

    /// However a plain archive is damaged, it is refused.
    #[test]
    fn a_damaged_archive_is_refused(damages in proptest::collection::vec(damage(), 1..4)) {
        let whole = with_users(&noise(3000), b"CREATE USER u", None);
        let mut altered = whole.clone();
        damages.iter().for_each(|damage| damage.to(&mut altered));
        prop_assert_eq!(read(&altered).is_ok(), altered == whole);
    }

    /// A compressed one, too, or it says the same: zstd has more than one way to say it.
    #[test]
    fn a_damaged_compressed_archive_is_refused_or_means_the_same(
        damages in proptest::collection::vec(damage(), 1..4),
    ) {
        let data = noise(3000);
        let whole = with_users(&data, b"CREATE USER u", Some(3));
        let mut altered = whole.clone();
        damages.iter().for_each(|damage| damage.to(&mut altered));
        if let Ok((verified, out)) = read(&altered) {
            let (good, _) = read(&whole).unwrap();
            prop_assert_eq!(verified.metadata, good.metadata);
            prop_assert_eq!(verified.summary, good.summary);
            prop_assert!(out == data);
        }
    }

    /// Damage below the compression, which then fits again.
    #[test]
    fn what_is_damaged_and_compressed_anew_is_refused(
        damages in proptest::collection::vec(damage(), 1..4),
    ) {
        let whole = with_users(&noise(3000), b"CREATE USER u", None);
        let mut altered = whole.clone();
        damages.iter().for_each(|damage| damage.to(&mut altered));
        let packed = zstd::encode_all(&altered[..], 1).unwrap();
        prop_assert_eq!(read(&packed).is_ok(), altered == whole);
    }

    /// Members in any order, left out or repeated, with sums that fit: only the right ones count.
    #[test]
    fn members_in_any_order_are_refused(order in proptest::collection::vec(0_usize..5, 0..8)) {
        let whole = members(&with_users(b"data", b"users", None));
        let chosen: Vec<_> = order.iter().map(|at| whole[*at].clone()).collect();
        // Sums are made anew.
        let named: Vec<_> = order.into_iter().filter(|at| *at != 4).collect();
        let right = named == [0, 1, 2, 3];
        prop_assert_eq!(read(&forge_with_sums(chosen)).is_ok(), right);
    }
}

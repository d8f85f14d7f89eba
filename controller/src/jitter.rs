//! Delays that spread what would otherwise happen at once. They are hashes, not dice: the same thing
//! has the same delay whenever and wherever it is asked, so no state is needed to keep it.

use aws_lc_rs::digest::{SHA256, digest};

/// A number below `span` (0 for a span of 0) for the `n`-th of what `who` does.
#[must_use]
pub fn below(who: &str, n: i64, span: u64) -> u64 {
    let hash = digest(&SHA256, format!("{who} {n}").as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_ref()[..8]);
    u64::from_be_bytes(first).checked_rem(span).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_spreads_and_repeats() {
        let all: BTreeSet<u64> = (0..100).map(|n| below("job", n, 10)).collect();
        assert_eq!(all, (0..10).collect());
        assert_eq!(below("job", 7, 1000), below("job", 7, 1000));
        assert_ne!(below("job", 7, 1 << 40), below("other", 7, 1 << 40));
        assert_eq!(below("job", 7, 0), 0);
    }
}

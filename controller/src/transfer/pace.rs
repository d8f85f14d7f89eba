//! How many parts are sent at once: as many as the store takes.

/// Halves when the store asks to slow down, and grows by one after as many parts in a row as may be
/// under way: the rule of TCP's congestion control (RFC 5681, section 3.1), in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    most: usize,
    limit: usize,
    /// Parts in a row that went without being slowed down.
    smooth: usize,
    /// Requests to slow down, as of the last part.
    seen: u64,
}

impl Pace {
    /// `most`: parts at once when nothing slows us down; `throttled`: how often the store had asked
    /// to slow down before.
    pub(super) fn new(most: usize, throttled: u64) -> Self {
        Self {
            most,
            limit: most,
            smooth: 0,
            seen: throttled,
        }
    }

    /// Parts that may be under way.
    pub(super) fn limit(self) -> usize {
        self.limit
    }

    /// A part is done, or given up; `throttled` counts how often the store has asked to slow down.
    pub(super) fn part_done(&mut self, throttled: u64) {
        if throttled > self.seen {
            self.seen = throttled;
            self.smooth = 0;
            self.limit = (self.limit / 2).max(1);
            return;
        }
        self.smooth += 1;
        if self.smooth >= self.limit {
            self.smooth = 0;
            self.limit = (self.limit + 1).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_halves_at_once_and_grows_slowly() {
        let mut pace = Pace::new(4, 10);
        let mut limits = Vec::new();
        // Asked to slow down twice, then never again.
        for throttled in [10, 11, 13, 13, 13, 13, 13, 13, 13, 13] {
            pace.part_done(throttled);
            limits.push(pace.limit());
        }
        assert_eq!(limits, [4, 2, 1, 2, 2, 3, 3, 3, 4, 4]);
    }

    proptest! {
        #[test]
        fn there_is_always_one_and_never_more_than_the_most(
            most in 1_usize..8, steps in prop::collection::vec(0_u64..3, 0..200),
        ) {
            let mut pace = Pace::new(most, 0);
            let mut throttled = 0;
            for step in steps {
                throttled += step;
                let before = pace.limit();
                pace.part_done(throttled);
                prop_assert!((1..=most).contains(&pace.limit()));
                prop_assert!(pace.limit() <= before + 1);
                prop_assert!(step == 0 || pace.limit() <= before.div_ceil(2));
            }
        }
    }
}

//! Is an agent that sends nothing stuck, or only quiet? A tool may work for minutes without output:
//! so whoever waits asks the agent, on another connection, what its backup is doing.

use std::time::Duration;
use tokio::time::Instant;

/// How often the agent is asked within the timeout. The last time is when it is over.
const QUESTIONS: u32 = 4;

/// What an agent says that its backup is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sign {
    /// The stage.
    pub(crate) stage: String,
    /// Bytes of body that it has handed on.
    pub(crate) bytes: u64,
}

/// How long nothing has moved. It has moved when bytes came, and when the agent named another stage
/// or count than before; an agent that does not tell leaves the bytes alone to count.
#[derive(Debug)]
pub(crate) struct Quiet {
    timeout: Duration,
    /// Since when nothing has moved, as far as is known; `None` while it is not the peer's turn.
    since: Option<Instant>,
    asked: u32,
    last: Option<Sign>,
}

impl Quiet {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            since: None,
            asked: 0,
            last: None,
        }
    }

    /// It is the peer's turn. Says when to ask the agent, unless something comes before.
    pub(crate) fn waiting(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        since + self.timeout * (self.asked + 1).min(QUESTIONS) / QUESTIONS
    }

    /// Bytes came.
    pub(crate) fn moved(&mut self) {
        self.since = None;
        self.asked = 0;
    }

    /// The agent was asked.
    pub(crate) fn told(&mut self, now: Instant, sign: Option<Sign>) {
        self.asked += 1;
        if sign.is_some() && sign != self.last {
            self.last = sign;
            self.since = Some(now);
            self.asked = 0;
        }
    }

    /// Whether nothing has moved for the whole timeout.
    pub(crate) fn is_over(&self) -> bool {
        self.asked >= QUESTIONS
    }

    /// The stage that the agent named last.
    pub(crate) fn stage(&self) -> Option<&str> {
        self.last.as_ref().map(|sign| sign.stage.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(400);

    fn sign(stage: &str, bytes: u64) -> Option<Sign> {
        Some(Sign {
            stage: stage.into(),
            bytes,
        })
    }

    /// Seconds from the last byte until it is given up, when the agent answers so each time that it
    /// is asked; `None`: it never is.
    fn given_up_after(
        quiet: &mut Quiet,
        mut answer: impl FnMut(u64) -> Option<Sign>,
    ) -> Option<u64> {
        let start = Instant::now();
        let mut now = start;
        quiet.moved();
        for _ in 0..100 {
            now = quiet.waiting(now);
            if quiet.is_over() {
                return Some((now - start).as_secs());
            }
            quiet.told(now, answer((now - start).as_secs()));
        }
        None
    }

    #[test]
    fn silence() {
        let quiet = || Quiet::new(TIMEOUT);
        assert_eq!(
            given_up_after(&mut quiet(), |_| None),
            Some(400),
            "it does not tell"
        );
        // What it was doing before the first question is not known: that counts for it.
        let stuck = |_| sign("COPY", 7);
        assert_eq!(
            given_up_after(&mut quiet(), stuck),
            Some(500),
            "nothing moves"
        );
        assert_eq!(
            given_up_after(&mut quiet(), |at| sign("COPY", at)),
            None,
            "bytes move inside the agent"
        );
        assert_eq!(
            given_up_after(&mut quiet(), |at| sign(
                if at < 450 { "FLUSH" } else { "COPY" },
                7
            )),
            Some(900),
            "another stage at the last moment"
        );
        assert_eq!(
            given_up_after(&mut quiet(), |at| sign("COPY", 7).filter(|_| at < 250)),
            Some(500),
            "it ceases to tell"
        );
    }

    #[test]
    fn what_was_known_before_the_last_byte_is_no_news() {
        let mut quiet = Quiet::new(TIMEOUT);
        let now = Instant::now();
        quiet.waiting(now);
        quiet.told(now, sign("COPY", 7));
        assert_eq!(given_up_after(&mut quiet, |_| sign("COPY", 7)), Some(400));
        assert_eq!(quiet.stage(), Some("COPY"));
    }

    #[test]
    fn our_own_time_does_not_count() {
        let mut quiet = Quiet::new(TIMEOUT);
        let now = Instant::now();
        assert_eq!(quiet.waiting(now), now + TIMEOUT / 4);
        quiet.moved();
        let later = now + TIMEOUT * 3;
        assert_eq!(quiet.waiting(later), later + TIMEOUT / 4);
    }
}

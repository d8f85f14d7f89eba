//! Conditions by the Kubernetes API conventions: one of each type, `lastTransitionTime` moves only
//! when the status does, `observedGeneration` tells which spec was judged.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

impl Status {
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Longest message that a status takes, bytes.
pub const MAX_MESSAGE: usize = 4096;

/// Sets the condition of one type and leaves the others alone.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: Status,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut condition = Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: cut(message, MAX_MESSAGE).to_owned(),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

/// The condition of one type.
#[must_use]
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of this type is there and True.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

/// The longest start of `text` within `max` bytes that ends at a character.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            "Ready",
            Status::False,
            "Unreachable",
            "a",
            Some(1),
            at(1),
        );
        set(
            &mut conditions,
            "Ready",
            Status::False,
            "BucketNotFound",
            "b",
            Some(2),
            at(2),
        );
        let ready = get(&conditions, "Ready").unwrap();
        assert_eq!(
            (
                ready.last_transition_time.0,
                ready.reason.as_str(),
                ready.observed_generation
            ),
            (at(1), "BucketNotFound", Some(2))
        );
        set(
            &mut conditions,
            "Ready",
            Status::True,
            "Probed",
            "",
            Some(2),
            at(3),
        );
        assert_eq!(
            get(&conditions, "Ready").unwrap().last_transition_time.0,
            at(3)
        );
        assert_eq!(conditions.len(), 1);
        assert!(is_true(&conditions, "Ready"));
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 9), "aé");
    }
}

//! Times, sizes and lines for people.

use crate::job::record::{human_bytes, human_duration};
use jiff::Timestamp;

/// How long ago, or in how long: `3h12m ago`, `in 5m2s`. A dash for what is not known.
pub(super) fn relative(time: Option<Timestamp>, now: Timestamp) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time > now => format!("in {}", human_duration(time.duration_since(now))),
        Some(time) => format!("{} ago", human_duration(now.duration_since(time))),
    }
}

/// How long ago, bare: `3h12m`.
pub(super) fn age(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| human_duration(now.duration_since(time)),
    )
}

/// To the second, UTC.
pub(super) fn instant(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), human_bytes)
}

/// What a drill has found.
pub(super) fn verified(verified: Option<bool>) -> String {
    match verified {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "-",
    }
    .to_owned()
}

/// `1 job`, `2 jobs`.
pub(super) fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// What comes from the cluster, without what a terminal would obey.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Broken into lines of at most `width` characters, where words end.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now: Timestamp = "2026-03-04T12:00:00Z".parse().unwrap();
        for (time, text) in [
            (None, "-"),
            (Some("2026-03-04T09:00:00Z"), "3h0m ago"),
            (Some("2026-03-04T12:00:00Z"), "0s ago"),
            (Some("2026-03-04T12:05:02Z"), "in 5m2s"),
        ] {
            assert_eq!(relative(time.map(|t| t.parse().unwrap()), now), text);
        }
    }

    #[test]
    fn lines_are_broken_between_words_and_lose_what_a_terminal_obeys() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
        assert_eq!(clean("a\u{1b}[31mb\nc"), "a [31mb c");
    }
}

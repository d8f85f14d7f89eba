//! What a peer answers, made fit for a status, an event or a log: cut, without control characters
//! and without our own secrets.

/// Longest text taken from a peer, in bytes.
pub const MAX_BYTES: usize = 1024;

/// Which end of a text that is too long survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Explanations say the important thing first.
    Start,
    /// An agent's text begins with what happened and ends with the tool's last lines: a quarter of
    /// the room is for the start.
    Ends,
}

/// Cleans `text`: runs of white space, control and invisible formatting characters become one
/// space, `secret` becomes `***`, and at most [`MAX_BYTES`] are kept.
#[must_use]
pub fn clean(text: &str, secret: Option<&str>, keep: Keep) -> String {
    let mut out = String::with_capacity(text.len().min(4 * MAX_BYTES));
    for ch in text.chars() {
        if ch.is_control() || ch.is_whitespace() || is_invisible(ch) {
            if !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
            }
        } else {
            out.push(ch);
        }
    }
    out.truncate(out.trim_end().len());
    // After the cleaning, for it must not put a split secret together again; before the cut, for
    // a part of a secret is one too.
    if let Some(secret) = secret.filter(|s| !s.is_empty()) {
        out = out.replace(secret, "***");
    }
    if out.len() <= MAX_BYTES {
        return out;
    }
    let room = MAX_BYTES - '…'.len_utf8();
    let head = match keep {
        Keep::Start => room,
        Keep::Ends => room / 4,
    };
    let mut to = head;
    while !out.is_char_boundary(to) {
        to -= 1;
    }
    let mut from = out.len() - (room - head);
    while !out.is_char_boundary(from) {
        from += 1;
    }
    format!("{}…{}", &out[..to], &out[from..])
}

/// Characters that are not controls (Cc) yet change how the text around them is shown.
fn is_invisible(ch: char) -> bool {
    matches!(ch, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_escape_sequence_and_no_second_line() {
        assert_eq!(
            clean("a\u{1b}[31m\r\n b\u{202e}c\0", None, Keep::Start),
            "a [31m b c"
        );
    }

    #[test]
    fn the_secret_goes_before_the_cut() {
        let text = format!("{}s3cret", "x".repeat(MAX_BYTES - 3));
        assert!(!clean(&text, Some("s3cret"), Keep::Start).contains("s3c"));
        assert_eq!(
            clean("Bearer s3cret!", Some("s3cret"), Keep::Start),
            "Bearer ***!"
        );
    }

    #[test]
    fn the_start_or_both_ends_are_kept() {
        let text = format!("first {} last", "é".repeat(MAX_BYTES));
        assert!(clean(&text, None, Keep::Start).starts_with("first"));
        let ends = clean(&text, None, Keep::Ends);
        assert!(ends.starts_with("first") && ends.ends_with("last"));
    }

    proptest! {
        #[test]
        fn always_short_and_clean(text in any::<String>(), end in any::<bool>()) {
            let out = clean(&text.repeat(20), Some("a"), if end { Keep::Ends } else { Keep::Start });
            prop_assert!(out.len() <= MAX_BYTES);
            prop_assert!(!out.chars().any(char::is_control));
            prop_assert!(!out.contains('a'));
        }
    }
}

//! SQL as a server prints it: names in backticks, strings in quotes.

/// Where `needle` first stands outside of quotes. A needle has no quotes in it.
pub(super) fn find(text: &str, needle: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = None;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match open {
            None if bytes[at..].starts_with(needle.as_bytes()) => return Some(at),
            None if matches!(byte, b'`' | b'\'' | b'"') => open = Some(byte),
            None => {}
            // In a string, not in a name, a backslash takes the next one's meaning.
            Some(quote) if byte == b'\\' && quote != b'`' => at += 1,
            // A doubled quote ends here, and begins again at once.
            Some(quote) if byte == quote => open = None,
            Some(_) => {}
        }
        at += 1;
    }
    None
}

/// What stands before and after `needle`, outside of quotes.
pub(super) fn split<'a>(text: &'a str, needle: &str) -> Option<(&'a str, &'a str)> {
    let at = find(text, needle)?;
    Some((&text[..at], &text[at + needle.len()..]))
}

/// A name as the server prints it.
pub(crate) fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_in_quotes_is_not_found() {
        assert_eq!(split("a TO b", " TO "), Some(("a", "b")));
        assert_eq!(split("`a TO ``b` TO c", " TO "), Some(("`a TO ``b`", "c")));
        assert_eq!(split("'it\\'s TO ''x' TO c", " TO ").unwrap().1, "c");
        assert_eq!(split("`back\\` TO c", " TO ").unwrap().1, "c");
        assert_eq!(split("`open TO c", " TO "), None);
    }

    proptest! {
        #[test]
        fn a_quoted_name_hides_everything(text in any::<String>()) {
            let line = format!("{} TO x", name(&text));
            let quoted = name(&text);
            prop_assert_eq!(split(&line, " TO "), Some((&*quoted, "x")));
        }
    }
}

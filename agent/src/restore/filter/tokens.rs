//! The words at the beginning of a statement, as the server reads them: what is in version comments
//! (`/*!50003 ... */`) counts, other comments do not.

use std::ops::Range;

/// A word, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Letters, digits, and `_ $ @ .`
    Word(String),
    /// A name or a string, without its quotes.
    Quoted(String),
    /// Any other character.
    Sign(u8),
}

impl Token {
    /// Whether it is this keyword, in any case.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(own) if own.eq_ignore_ascii_case(word))
    }

    pub(super) fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }

    pub(super) fn is_sign(&self, sign: u8) -> bool {
        self.kind == Kind::Sign(sign)
    }

    /// A name, quoted or not.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(name) | Kind::Quoted(name) => Some(name),
            Kind::Sign(_) => None,
        }
    }
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_$@.".contains(&byte) || !byte.is_ascii()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every word of `sql`. One that is cut at the end is left out.
pub(super) fn tokens(sql: &[u8], escapes: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        let start = at;
        let kind = match rest[0] {
            byte if byte.is_ascii_whitespace() || byte == 0x0b => {
                at += 1;
                continue;
            }
            b'/' if rest.starts_with(b"/*!") || rest.starts_with(b"/*M!") => {
                at += if rest[2] == b'!' { 3 } else { 4 };
                at += sql[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                let end = rest[2..].windows(2).position(|two| two == b"*/");
                at = end.map_or(sql.len(), |end| at + end + 4);
                continue;
            }
            b'*' if rest.starts_with(b"*/") => {
                at += 2;
                continue;
            }
            b'#' => {
                at += rest.iter().take_while(|b| **b != b'\n').count();
                continue;
            }
            b'-' if rest.starts_with(b"--")
                && rest.get(2).is_none_or(|b| b.is_ascii_whitespace()) =>
            {
                at += rest.iter().take_while(|b| **b != b'\n').count();
                continue;
            }
            quote @ (b'\'' | b'"' | b'`') => {
                let Some((name, used)) = quoted(rest, quote, escapes) else {
                    break;
                };
                at += used;
                Kind::Quoted(name)
            }
            byte if in_word(byte) => {
                let length = rest.iter().take_while(|b| in_word(**b)).count();
                at += length;
                Kind::Word(text(&rest[..length]))
            }
            sign => {
                at += 1;
                Kind::Sign(sign)
            }
        };
        tokens.push(Token {
            kind,
            span: start..at,
        });
    }
    tokens
}

/// What is in quotes at the beginning of a text, and how many bytes it takes.
fn quoted(sql: &[u8], quote: u8, escapes: bool) -> Option<(String, usize)> {
    let mut contents = Vec::new();
    let mut at = 1;
    loop {
        let byte = *sql.get(at)?;
        at += 1;
        if byte == quote {
            if sql.get(at) != Some(&quote) {
                return Some((text(&contents), at));
            }
            at += 1;
        } else if byte == b'\\' && escapes && quote != b'`' {
            contents.push(byte);
            contents.push(*sql.get(at)?);
            at += 1;
            continue;
        }
        contents.push(byte);
    }
}

//! Cuts a dump into statements, at the places where the command line client cuts it: `mysql.cc`,
//! `add_line`, with `--binary-mode`, in which `DELIMITER` is the only command.
//!
//! A delimiter in quotes or in a comment is none, and `DELIMITER` is a command only where a statement
//! could begin: so nothing in a row or in the body of a routine is taken for the end of it.

use std::ops::Range;

/// Bytes that may have to be seen at once to know what stands there: a delimiter, the start of a comment.
const LOOK: usize = 32;
/// Longest delimiter; the dump tools write at most 16 semicolons.
const MAX_DELIMITER: usize = 16;
/// Begins the line that takes commands from MariaDB's client. In binary mode it has none to take.
const SANDBOX: &[u8] = b"/*M!999999\\-";

/// What comes next in a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Statements end in another way from here on.
    Delimiter,
    /// A piece of a statement: [`Lexer::text`].
    Text(Range<usize>),
    /// The statement is over.
    End,
}

/// Where in a statement, or between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    /// In a comment between statements, which goes to the end of the line, or to `*/`.
    SkipLine,
    SkipBlock,
    Plain,
    Quoted(u8),
    LineComment,
    BlockComment,
}

/// The cutter. It holds what was given to it last, and never more of a statement than that.
#[derive(Debug)]
pub(super) struct Lexer {
    buffer: Vec<u8>,
    at: usize,
    over: bool,
    place: Place,
    delimiter: Vec<u8>,
    /// Bytes that can mean something outside of quotes.
    telling: [bool; 256],
    /// Whether a backslash takes the next one's meaning; not with the SQL mode `NO_BACKSLASH_ESCAPES`.
    pub(super) escapes: bool,
}

/// Bytes that are no dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LexError {
    #[error("a DELIMITER line names no delimiter of at most {MAX_DELIMITER} bytes")]
    Delimiter,
    #[error("it ends within a statement")]
    Unfinished,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn find(bytes: &[u8], what: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.iter().position(|byte| what(*byte))
}

fn starts_word(text: &[u8], word: &[u8]) -> bool {
    text.len() > word.len()
        && text[..word.len()].eq_ignore_ascii_case(word)
        && matches!(text[word.len()], b' ' | b'\t')
}

/// Whether a comment begins that goes to the end of the line.
fn line_comment(text: &[u8]) -> bool {
    text.starts_with(b"#") || (text.starts_with(b"--") && text.get(2).is_none_or(|b| is_space(*b)))
}

/// Whether a comment begins whose contents are not for the server.
fn block_comment(text: &[u8]) -> bool {
    text.starts_with(b"/*") && text.get(2) != Some(&b'!') && !text[2..].starts_with(b"M!")
}

impl Lexer {
    pub(super) fn new() -> Self {
        let mut lexer = Self {
            buffer: Vec::new(),
            at: 0,
            over: false,
            place: Place::Between,
            delimiter: Vec::new(),
            telling: [false; 256],
            escapes: true,
        };
        lexer.set_delimiter(b";");
        lexer
    }

    fn set_delimiter(&mut self, delimiter: &[u8]) {
        self.delimiter = delimiter.to_vec();
        self.telling = [false; 256];
        for byte in b"'\"`\\#-/".iter().chain(&delimiter[..1]) {
            self.telling[usize::from(*byte)] = true;
        }
    }

    pub(super) fn delimiter(&self) -> &[u8] {
        &self.delimiter
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// Says that no more will come.
    pub(super) fn end_of_input(&mut self) {
        self.over = true;
    }

    pub(super) fn text(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// What comes next; `None` when more has to be fed, or at the end.
    ///
    /// # Errors
    /// [`LexError`].
    pub(super) fn step(&mut self) -> Result<Option<Step>, LexError> {
        loop {
            match self.place {
                Place::Between => match self.between()? {
                    Between::More => return Ok(None),
                    Between::Again => {}
                    Between::Delimiter => return Ok(Some(Step::Delimiter)),
                },
                Place::SkipLine => {
                    let rest = &self.buffer[self.at..];
                    let Some(end) = find(rest, |b| b == b'\n') else {
                        self.at = self.buffer.len();
                        return Ok(None);
                    };
                    self.at += end + 1;
                    self.place = Place::Between;
                }
                Place::SkipBlock => match self.block_end(self.at) {
                    Ok(end) => {
                        self.at = end;
                        self.place = Place::Between;
                    }
                    Err(seen) => {
                        self.at = seen;
                        return self.unfinished();
                    }
                },
                Place::Plain | Place::Quoted(_) | Place::LineComment | Place::BlockComment => {
                    return self.inside();
                }
            }
        }
    }

    fn unfinished(&self) -> Result<Option<Step>, LexError> {
        if self.over {
            Err(LexError::Unfinished)
        } else {
            Ok(None)
        }
    }

    /// Where a block comment has ended, or up to where it certainly has not.
    fn block_end(&self, from: usize) -> Result<usize, usize> {
        let rest = &self.buffer[from..];
        match rest.windows(2).position(|two| two == b"*/") {
            Some(end) => Ok(from + end + 2),
            None => Err(self.buffer.len() - usize::from(rest.last() == Some(&b'*'))),
        }
    }

    fn between(&mut self) -> Result<Between, LexError> {
        let rest = &self.buffer[self.at..];
        let Some(blank) = find(rest, |b| !is_space(b)) else {
            self.at = self.buffer.len();
            return Ok(Between::More);
        };
        self.at += blank;
        let rest = &self.buffer[self.at..];
        if rest.len() < LOOK && !self.over {
            return Ok(Between::More);
        }
        if starts_word(rest, b"DELIMITER") {
            let line = match find(rest, |b| b == b'\n') {
                Some(end) => &rest[..end],
                None if self.over => rest,
                None if rest.len() > 4 * LOOK => return Err(LexError::Delimiter),
                None => return Ok(Between::More),
            };
            let used = line.len();
            let word = line[b"DELIMITER".len()..].trim_ascii().to_vec();
            let plain = |b: &u8| !is_space(*b) && !b"\\'\"`".contains(b);
            if word.is_empty() || word.len() > MAX_DELIMITER || !word.iter().all(plain) {
                return Err(LexError::Delimiter);
            }
            self.set_delimiter(&word);
            self.at += used;
            return Ok(Between::Delimiter);
        }
        if line_comment(rest) {
            self.place = Place::SkipLine;
        } else if block_comment(rest) || rest.starts_with(SANDBOX) {
            self.at += 2;
            self.place = Place::SkipBlock;
        } else if rest.starts_with(&self.delimiter) {
            self.at += self.delimiter.len();
        } else {
            self.place = Place::Plain;
        }
        Ok(Between::Again)
    }

    fn inside(&mut self) -> Result<Option<Step>, LexError> {
        let (start, end) = (self.at, self.buffer.len());
        let mut at = start;
        while at < end {
            let rest = &self.buffer[at..];
            match self.place {
                Place::Quoted(quote) => {
                    // In names a backslash is a letter.
                    let escapes = self.escapes && quote != b'`';
                    let Some(next) = find(rest, |b| b == quote || (escapes && b == b'\\')) else {
                        at = end;
                        break;
                    };
                    at += next;
                    if rest[next] == quote {
                        at += 1;
                        self.place = Place::Plain;
                    } else if next + 1 == rest.len() {
                        break;
                    } else {
                        at += 2;
                    }
                }
                Place::LineComment => match find(rest, |b| b == b'\n') {
                    Some(next) => {
                        at += next;
                        self.place = Place::Plain;
                    }
                    None => at = end,
                },
                Place::BlockComment => match self.block_end(at) {
                    Ok(next) => {
                        at = next;
                        self.place = Place::Plain;
                    }
                    Err(seen) => {
                        at = seen;
                        break;
                    }
                },
                _ => {
                    let Some(next) = find(rest, |b| self.telling[usize::from(b)]) else {
                        at = end;
                        break;
                    };
                    at += next;
                    let rest = &self.buffer[at..];
                    if rest.len() < LOOK && !self.over {
                        break;
                    }
                    if rest.starts_with(&self.delimiter) {
                        if at > start {
                            self.at = at;
                            return Ok(Some(Step::Text(start..at)));
                        }
                        self.at += self.delimiter.len();
                        self.place = Place::Between;
                        return Ok(Some(Step::End));
                    }
                    at += match rest[0] {
                        quote @ (b'\'' | b'"' | b'`') => {
                            self.place = Place::Quoted(quote);
                            1
                        }
                        b'\\' => rest.len().min(2),
                        _ if line_comment(rest) => {
                            self.place = Place::LineComment;
                            1
                        }
                        _ if block_comment(rest) => {
                            self.place = Place::BlockComment;
                            2
                        }
                        _ => 1,
                    };
                }
            }
        }
        if at > start {
            self.at = at;
            return Ok(Some(Step::Text(start..at)));
        }
        self.unfinished()
    }
}

/// What was found between two statements.
enum Between {
    /// More has to be fed.
    More,
    /// Look again.
    Again,
    /// A delimiter was set.
    Delimiter,
}

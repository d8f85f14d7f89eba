//! What of a dump goes to the server: statement by statement, in bounded memory.
//!
//! A section of the dump is one database's. It begins where the dump tool says so with a statement of
//! its own (`CREATE DATABASE`, `USE`), which nothing in a row, a comment or the body of a routine can
//! imitate, for the [`lexer`] cuts statements where the client does.

mod lexer;
mod tokens;

use super::options::{Definers, Events, LogicalOptions};
use crate::database::{is_system_schema, quoted_name};
use lexer::{LexError, Lexer, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tokens::{Token, tokens};

/// Table that tells of a restore that did not come to its end. It is made first and dropped last.
pub const UNFINISHED: &str = "_towline_restore_unfinished";

/// Bytes of a statement that are kept to see what it is; all names and options of a `CREATE` that
/// matter here stand in them. The rest goes by.
const HEAD: usize = 16 << 10;

/// Why a dump is not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("the dump in the archive cannot be read: {0}")]
    Lexer(String),
    #[error(
        "the dump creates event {event:?} in a form that is not known, so that it cannot be created \
         disabled: restore with events as backed up, or without events"
    )]
    Event { event: String },
}

impl From<LexError> for FilterError {
    fn from(error: LexError) -> Self {
        Self::Lexer(error.to_string())
    }
}

/// Which objects a statement creates or drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    Routine,
    Trigger,
    Event,
    View,
    Database,
    Other,
}

/// Whose statements come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Section {
    /// What sets up the session.
    Preamble,
    /// A database that is not restored.
    PassedOver,
    /// A database that is restored.
    Database,
    /// Accounts.
    Users,
}

/// What becomes of the statement that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its beginning is still being read.
    Open,
    Pass,
    Drop,
}

/// A statement's fate, and what is changed in its beginning.
struct Decision {
    fate: Fate,
    /// Bytes of the beginning that are replaced, in order.
    edits: Vec<(Range<usize>, &'static str)>,
    /// Statements that follow it.
    after: Vec<String>,
}

impl Decision {
    fn of(pass: bool) -> Self {
        Self {
            fate: if pass { Fate::Pass } else { Fate::Drop },
            edits: Vec::new(),
            after: Vec::new(),
        }
    }
}

/// The filter of one dump.
#[derive(Debug)]
pub(super) struct Filter {
    options: LogicalOptions,
    backup_id: String,
    /// Databases that the server has already.
    existing: BTreeSet<String>,
    lexer: Lexer,
    section: Section,
    head: Vec<u8>,
    fate: Fate,
    after: Vec<String>,
    /// Databases of the dump, without those that belong to the server.
    found: BTreeSet<String>,
    /// Those of them that are restored.
    entered: BTreeSet<String>,
    /// Whether backslashes mean something by the SQL modes that the dump has put into variables.
    modes: BTreeMap<String, bool>,
}

impl Filter {
    pub(super) fn new(
        options: &LogicalOptions,
        backup_id: &str,
        existing: BTreeSet<String>,
    ) -> Self {
        let plain = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
        Self {
            options: options.clone(),
            backup_id: backup_id.chars().filter(plain).take(64).collect(),
            existing,
            lexer: Lexer::new(),
            section: Section::Preamble,
            head: Vec::new(),
            fate: Fate::Open,
            after: Vec::new(),
            found: BTreeSet::new(),
            entered: BTreeSet::new(),
            modes: BTreeMap::new(),
        }
    }

    /// Databases of the dump so far, without those that belong to the server.
    pub(super) const fn found(&self) -> &BTreeSet<String> {
        &self.found
    }

    /// Databases that were restored so far.
    pub(super) const fn entered(&self) -> &BTreeSet<String> {
        &self.entered
    }

    /// Takes the next bytes of the dump, and adds what goes to the server to `out`.
    ///
    /// # Errors
    /// [`FilterError`].
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        self.lexer.feed(piece);
        self.run(out)
    }

    /// The end of the data, or of the accounts.
    ///
    /// # Errors
    /// [`FilterError`], where it is no end.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), FilterError> {
        self.lexer.end_of_input();
        self.run(out)?;
        if self.lexer.delimiter() != b";" {
            out.extend_from_slice(b"DELIMITER ;\n");
        }
        Ok(())
    }

    /// Accounts follow. They stand on their own.
    ///
    /// # Errors
    /// [`Filter::finish`]'s.
    pub(super) fn begin_users(&mut self, out: &mut Vec<u8>) -> Result<(), FilterError> {
        self.finish(out)?;
        self.lexer = Lexer::new();
        self.section = Section::Users;
        Ok(())
    }

    fn run(&mut self, out: &mut Vec<u8>) -> Result<(), FilterError> {
        while let Some(step) = self.lexer.step()? {
            match step {
                Step::Delimiter => {
                    out.extend_from_slice(b"DELIMITER ");
                    out.extend_from_slice(self.lexer.delimiter());
                    out.push(b'\n');
                }
                Step::Text(range) => {
                    let mut text = range;
                    if self.fate == Fate::Open {
                        let taken = text.len().min(HEAD - self.head.len());
                        let end = text.start + taken;
                        let head = self.lexer.text(text.start..end);
                        self.head.extend_from_slice(head);
                        text.start = end;
                        if self.head.len() == HEAD {
                            self.decide(out)?;
                        }
                    }
                    if self.fate == Fate::Pass {
                        out.extend_from_slice(self.lexer.text(text));
                    }
                }
                Step::End => {
                    if self.fate == Fate::Open {
                        self.decide(out)?;
                    }
                    let end = |out: &mut Vec<u8>| {
                        out.extend_from_slice(self.lexer.delimiter());
                        out.push(b'\n');
                    };
                    if self.fate == Fate::Pass {
                        end(out);
                    }
                    for statement in self.after.drain(..) {
                        out.extend_from_slice(statement.as_bytes());
                        end(out);
                    }
                    self.head.clear();
                    self.fate = Fate::Open;
                }
            }
        }
        Ok(())
    }

    /// Sees what the statement is, and passes its beginning on, or not.
    fn decide(&mut self, out: &mut Vec<u8>) -> Result<(), FilterError> {
        let tokens = tokens(&self.head, self.lexer.escapes);
        let decision = self.decision(&tokens)?;
        self.fate = decision.fate;
        self.after = decision.after;
        if self.fate == Fate::Pass {
            let mut at = 0;
            for (range, text) in decision.edits {
                out.extend_from_slice(&self.head[at..range.start]);
                out.extend_from_slice(text.as_bytes());
                at = range.end;
            }
            out.extend_from_slice(&self.head[at..]);
        }
        Ok(())
    }

    fn decision(&mut self, tokens: &[Token]) -> Result<Decision, FilterError> {
        let Some(verb) = tokens.first() else {
            return Ok(Decision::of(false));
        };
        if verb.is("SET") {
            return Ok(Decision::of(self.set(&tokens[1..])));
        }
        if self.section == Section::Users {
            return Ok(Decision::of(self.account(tokens)));
        }
        if verb.is("USE") {
            let name = tokens.get(1).and_then(Token::name).unwrap_or_default();
            let name = name.to_owned();
            return Ok(self.enter(&name, None));
        }
        let (object, at) = object(tokens);
        if verb.is("CREATE") && object == Object::Database {
            let name = tokens[at + 1..]
                .iter()
                .find(|token| !token.is_any(&["IF", "NOT", "EXISTS"]));
            if let Some(token) = name
                && let Some(name) = token.name()
            {
                let options = String::from_utf8_lossy(&self.head[token.span.end..]).into_owned();
                let has_options = tokens.last() != Some(token);
                let name = name.to_owned();
                return Ok(self.enter(&name, Some(options).filter(|_| has_options)));
            }
        }
        if self.section != Section::Database {
            return Ok(Decision::of(false));
        }
        let wanted = match object {
            Object::Routine => self.options.routines,
            Object::Trigger => self.options.triggers,
            Object::Event => self.options.events != Events::Skip,
            Object::View | Object::Database | Object::Other => true,
        };
        let mut decision = Decision::of(wanted);
        let has_definer = !matches!(object, Object::Database | Object::Other);
        if wanted && verb.is("CREATE") && has_definer {
            if self.options.definers == Definers::CurrentUser
                && let Some(definer) = definer(&tokens[..at])
            {
                decision.edits.push((definer, ""));
            }
            if object == Object::Event && self.options.events == Events::Disabled {
                decision.edits.extend(disable(&tokens[at + 1..])?);
            }
        }
        Ok(decision)
    }

    /// A section begins: with its `CREATE DATABASE` and that one's options, or with a `USE`.
    fn enter(&mut self, name: &str, created: Option<String>) -> Decision {
        if !is_system_schema(name) {
            self.found.insert(name.to_owned());
        }
        let wanted = &self.options.databases;
        let selected = !is_system_schema(name)
            && (wanted.is_empty() || wanted.iter().any(|wanted| wanted == name));
        self.section = if selected {
            Section::Database
        } else {
            Section::PassedOver
        };
        let mut decision = Decision::of(selected);
        if selected && self.entered.insert(name.to_owned()) {
            let database = quoted_name(name);
            if let Some(options) = created
                && self.existing.contains(name)
            {
                // CREATE DATABASE IF NOT EXISTS does nothing to it: it may have another character set.
                let alter = format!("ALTER DATABASE {database}{}", options.trim_end());
                decision.after.push(alter);
            }
            let table = format!("{database}.{}", quoted_name(UNFINISHED));
            decision.after.push(format!(
                "CREATE TABLE {table} (backup VARCHAR(64) CHARACTER SET ascii NOT NULL PRIMARY KEY) \
                 COMMENT 'A restore that is not complete: what is in this database is not to be used'"
            ));
            decision
                .after
                .push(format!("INSERT INTO {table} VALUES ('{}')", self.backup_id));
        }
        decision
    }

    /// Whether a `SET` goes to the server: what concerns the session of the load does, anything that
    /// outlives it or decides on the binary log does not. Keeps track of the SQL mode.
    fn set(&mut self, tokens: &[Token]) -> bool {
        for assignment in tokens.split(|token| token.is_sign(b',')) {
            let [name, sign, value, ..] = assignment else {
                continue;
            };
            if !sign.is_sign(b'=') {
                continue;
            }
            let Some(name) = name.name() else { continue };
            let value_is_mode = value.is_any(&["@@sql_mode", "@@session.sql_mode"]);
            if name.starts_with('@') && !name.starts_with("@@") {
                if value_is_mode {
                    let variable = name.to_ascii_lowercase();
                    self.modes.insert(variable, self.lexer.escapes);
                }
            } else if let Some(value) = value.name()
                && ["sql_mode", "@@sql_mode", "@@session.sql_mode"]
                    .iter()
                    .any(|mode| name.eq_ignore_ascii_case(mode))
            {
                let known = self.modes.get(&value.to_ascii_lowercase());
                let literal = !value.to_ascii_uppercase().contains("NO_BACKSLASH_ESCAPES");
                self.lexer.escapes = known.copied().unwrap_or(literal);
            }
        }
        let outlives = |token: &Token| {
            token.is_any(&[
                "GLOBAL",
                "PERSIST",
                "PERSIST_ONLY",
                "PASSWORD",
                "ROLE",
                "SQL_LOG_BIN",
                "@@SQL_LOG_BIN",
                "@@SESSION.SQL_LOG_BIN",
            ]) || token.name().is_some_and(|name| {
                let name = name.to_ascii_uppercase();
                name.starts_with("@@GLOBAL.") || name.starts_with("@@PERSIST")
            })
        };
        // Roles that are taken at login belong to the accounts.
        let default_role = self.section == Section::Users
            && tokens.first().is_some_and(|token| token.is("DEFAULT"));
        default_role || !tokens.iter().any(outlives)
    }

    /// Whether a statement about accounts goes to the server. What is granted on a table or a routine
    /// that is not restored cannot be granted.
    fn account(&self, tokens: &[Token]) -> bool {
        if !tokens[0].is_any(&["GRANT", "REVOKE"]) {
            return true;
        }
        let mut depth = 0_u32;
        let mut on = tokens.iter().skip_while(|token| {
            // Columns stand in parentheses.
            if token.is_sign(b'(') {
                depth += 1;
            } else if token.is_sign(b')') {
                depth = depth.saturating_sub(1);
            }
            depth > 0 || !token.is("ON")
        });
        on.next();
        let mut on = on.peekable();
        let mut routine = false;
        while let Some(kind) =
            on.next_if(|token| token.is_any(&["TABLE", "FUNCTION", "PROCEDURE", "PACKAGE", "BODY"]))
        {
            routine |= !kind.is("TABLE");
        }
        let (Some(schema), Some(dot), Some(object)) = (on.next(), on.next(), on.next()) else {
            return true;
        };
        let (Some(schema), true, Some(_)) = (schema.name(), dot.is("."), object.name()) else {
            return true;
        };
        if is_system_schema(schema) {
            return true;
        }
        self.entered.contains(schema) && (self.options.routines || !routine)
    }
}

/// What a statement creates, changes or drops, and where that word stands.
fn object(tokens: &[Token]) -> (Object, usize) {
    if !tokens[0].is_any(&["CREATE", "DROP", "ALTER"]) {
        return (Object::Other, 0);
    }
    let mut at = 1;
    while let Some(token) = tokens.get(at) {
        if token.is("DEFINER") {
            at = definer_end(tokens, at).unwrap_or(at + 1);
            continue;
        }
        let object = if token.is_any(&["PROCEDURE", "FUNCTION", "PACKAGE", "LIBRARY"]) {
            Object::Routine
        } else if token.is("TRIGGER") {
            Object::Trigger
        } else if token.is("EVENT") {
            Object::Event
        } else if token.is("VIEW") {
            Object::View
        } else if token.is_any(&["DATABASE", "SCHEMA"]) {
            Object::Database
        } else if token.is_any(&["TABLE", "SEQUENCE", "INDEX"]) {
            Object::Other
        } else {
            at += 1;
            continue;
        };
        return (object, at);
    }
    (Object::Other, 0)
}

/// `DEFINER = user@host`, or a role's: where its end is, as an index of tokens.
fn definer_end(tokens: &[Token], at: usize) -> Option<usize> {
    if !tokens.get(at + 1)?.is_sign(b'=') {
        return None;
    }
    tokens.get(at + 2)?.name()?;
    let host = at + 3;
    match tokens.get(host) {
        // user@`host`
        Some(token) if token.is("@") => tokens.get(host + 1)?.name().map(|_| host + 2),
        Some(token) if matches!(&token.kind, tokens::Kind::Word(w) if w.starts_with('@')) => {
            Some(host + 1)
        }
        // CURRENT_USER()
        Some(token) if token.is_sign(b'(') => Some(host + 2),
        _ => Some(host),
    }
}

/// Where `DEFINER=...` stands before the word for what is created.
fn definer(tokens: &[Token]) -> Option<Range<usize>> {
    let at = tokens.iter().position(|token| token.is("DEFINER"))?;
    let end = definer_end(tokens, at)?;
    Some(tokens[at].span.start..tokens.get(end - 1)?.span.end)
}

/// What makes an event a disabled one: servers print `ON COMPLETION [NOT] PRESERVE`, then the state.
fn disable(event: &[Token]) -> Result<Option<(Range<usize>, &'static str)>, FilterError> {
    let name = event.first().and_then(Token::name).unwrap_or_default();
    let unknown = || FilterError::Event {
        event: name.to_owned(),
    };
    let completion = event
        .windows(2)
        .position(|two| two[0].is("ON") && two[1].is("COMPLETION"))
        .ok_or_else(unknown)?;
    let mut rest = event[completion + 2..].iter();
    let mut state = rest.next().ok_or_else(unknown)?;
    if state.is("NOT") {
        state = rest.next().ok_or_else(unknown)?;
    }
    if !state.is("PRESERVE") {
        return Err(unknown());
    }
    match rest.next() {
        Some(state) if state.is("ENABLE") => Ok(Some((state.span.clone(), "DISABLE"))),
        // On replicas only, too: the words that follow it stay.
        Some(state) if state.is("DISABLE") => Ok(None),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests;

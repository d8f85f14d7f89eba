//! The file of tokens.

use super::{Peer, Scope};
use crate::server::watched::{FileError, Named, Watched};
use aws_lc_rs::digest::{SHA256, digest};
use std::path::PathBuf;
use subtle::ConstantTimeEq as _;

/// Longest peer name in a log, in characters.
const MAX_PEER_NAME: usize = 64;

/// Digests are compared, so neither a token's bytes nor its length show in the time it takes.
#[derive(Clone)]
struct Entry {
    sha256: [u8; 32],
    peer: Peer,
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn parse(file: &Named, bytes: &[u8]) -> Result<Vec<Entry>, FileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| file.error("is not UTF-8 text"))?;
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let error = |message: &str| file.error(format!("line {number}: {message}"));
        let (content, comment) = line.split_once('#').unwrap_or((line, ""));
        let mut words = content.split_ascii_whitespace();
        let Some(token) = words.next() else { continue };
        // RFC 6750, 2.1: anything else could not be sent in the header.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if !token.bytes().all(allowed) {
            return Err(error(
                "a token may have letters, digits and -._~+/= only, as in `openssl rand -hex 32`",
            ));
        }
        let mut scopes = Vec::new();
        for word in words {
            let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            // The word is not shown: behind a blank too many it may be half a token.
            scopes.push(scope.ok_or_else(|| error("a scope is one of backup, cancel, restore"))?);
        }
        if scopes.is_empty() {
            return Err(error(
                "a token needs at least one scope behind it: backup, cancel, restore",
            ));
        }
        let sha256 = sha256(token.as_bytes());
        if entries.iter().any(|entry| entry.sha256 == sha256) {
            return Err(error("this token is in the file twice"));
        }
        let comment = comment.trim();
        let name = if comment.is_empty() {
            format!("token in line {number}")
        } else {
            comment.to_owned()
        };
        let name = name
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_PEER_NAME)
            .collect::<String>();
        entries.push(Entry {
            sha256,
            peer: Peer {
                name: name.into(),
                scopes,
            },
        });
    }
    if entries.is_empty() {
        let message = "holds no token: write lines of TOKEN SCOPE..., with the scopes backup, cancel, restore";
        return Err(file.error(message));
    }
    Ok(entries)
}

/// Tokens and the file they come from. It is read at every request, so a change counts from the
/// next one on.
#[derive(Debug)]
pub struct TokenFile(Watched<Vec<Entry>>);

impl TokenFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// A file that cannot be used. Later such files leave the old tokens in force, with a log line.
    pub async fn open(path: PathBuf) -> Result<Self, FileError> {
        let file = Named::new("--token-file", path);
        Watched::open([file], |[file], [bytes]| parse(file, &bytes))
            .await
            .map(Self)
    }

    /// Who has this token, by the file as it is now.
    pub(super) async fn find(&self, token: &[u8]) -> Option<Peer> {
        let presented = sha256(token);
        let mut found = None;
        for entry in self.0.current().await.iter() {
            // All entries are compared, for the time would tell which one fits.
            if bool::from(entry.sha256.ct_eq(&presented)) {
                found = Some(entry.peer.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, Vec<Scope>)>, String> {
        match parse(&Named::new("--token-file", "/t".into()), text.as_bytes()) {
            Ok(entries) => Ok(entries
                .into_iter()
                .map(|e| (e.peer.name.to_string(), e.peer.scopes))
                .collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn lines_comments_and_scopes() {
        let text =
            "# the controllers\n\nabc backup cancel # controller in prod\n\tdef  backup\r\n#x\n";
        assert_eq!(
            parsed(text).unwrap(),
            [
                (
                    "controller in prod".to_owned(),
                    vec![Scope::Backup, Scope::Cancel]
                ),
                ("token in line 4".to_owned(), vec![Scope::Backup]),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_by_line_and_without_tokens() {
        for (text, needle) in [
            ("", "holds no token"),
            ("# only\n", "holds no token"),
            ("ok backup\nsecret\n", "line 2"),
            ("ok backup\nsecret root\n", "line 2"),
            ("sec\u{e9}ret backup\n", "line 1"),
            ("secret backup\nsecret cancel\n", "line 2"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(needle), "{text:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

//! The file of tokens.

use super::{Peer, Scope};
use aws_lc_rs::digest::{SHA256, digest};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq as _;

/// Largest token file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Longest peer name in a log, in characters.
const MAX_PEER_NAME: usize = 64;

/// Why a token file cannot be used. Says lines, never tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error(
        "cannot read the token file {path}: {message}; check --token-file and that the agent's user may read it"
    )]
    Unreadable {
        /// Its path.
        path: String,
        /// What the system said.
        message: String,
    },
    /// One line is wrong.
    #[error("token file {path}, line {line}: {message}")]
    Line {
        /// Its path.
        path: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong and how it is written.
        message: String,
    },
    /// There is no token in it, so nobody could call.
    #[error(
        "token file {path} holds no token: write lines of TOKEN SCOPE..., with the scopes backup, cancel, restore"
    )]
    Empty {
        /// Its path.
        path: String,
    },
}

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

fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, TokenFileError> {
    let path = path.display().to_string();
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let error = |message: String| TokenFileError::Line {
            path: path.clone(),
            line: number,
            message,
        };
        let (content, comment) = line.split_once('#').unwrap_or((line, ""));
        let mut words = content.split_ascii_whitespace();
        let Some(token) = words.next() else { continue };
        // RFC 6750, 2.1: anything else could not be sent in the header.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if !token.bytes().all(allowed) {
            return Err(error(
                "a token may have letters, digits and -._~+/= only, as in `openssl rand -hex 32`"
                    .into(),
            ));
        }
        let mut scopes = Vec::new();
        for word in words {
            let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            // The word is not shown: behind a blank too many it may be half a token.
            scopes.push(
                scope.ok_or_else(|| error("a scope is one of backup, cancel, restore".into()))?,
            );
        }
        if scopes.is_empty() {
            return Err(error(
                "a token needs at least one scope behind it: backup, cancel, restore".into(),
            ));
        }
        let sha256 = sha256(token.as_bytes());
        if entries.iter().any(|entry| entry.sha256 == sha256) {
            return Err(error("this token is in the file twice".into()));
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
        Err(TokenFileError::Empty { path })
    } else {
        Ok(entries)
    }
}

struct Loaded {
    /// Digest of the text that `entries` were read from, or of the last bad one.
    seen: [u8; 32],
    entries: Arc<[Entry]>,
    unreadable: bool,
}

/// Tokens and the file they come from.
///
/// The file is read at every request, which a request for a backup never notices: so a change
/// counts from the next request on, whatever its time stamp says.
pub struct TokenFile {
    path: PathBuf,
    loaded: Mutex<Loaded>,
}

impl std::fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl TokenFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// A file that cannot be used. Later such files leave the old tokens in force, with a log line.
    pub async fn open(path: PathBuf) -> Result<Self, TokenFileError> {
        let text = read(&path).await?;
        let entries = parse(&path, &text)?.into();
        let loaded = Loaded {
            seen: sha256(text.as_bytes()),
            entries,
            unreadable: false,
        };
        Ok(Self {
            path,
            loaded: Mutex::new(loaded),
        })
    }

    /// Who has this token, by the file as it is now.
    pub(super) async fn find(&self, token: &[u8]) -> Option<Peer> {
        let presented = sha256(token);
        let mut found = None;
        for entry in self.current().await.iter() {
            // All entries are compared, for the time would tell which one fits.
            if bool::from(entry.sha256.ct_eq(&presented)) {
                found = Some(entry.peer.clone());
            }
        }
        found
    }

    async fn current(&self) -> Arc<[Entry]> {
        let text = read(&self.path).await;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                if !std::mem::replace(&mut loaded.unreadable, true) {
                    tracing::error!(%error, "token file not re-read, the old tokens stay in force");
                }
                return loaded.entries.clone();
            }
        };
        loaded.unreadable = false;
        let digest = sha256(text.as_bytes());
        if digest != loaded.seen {
            loaded.seen = digest;
            match parse(&self.path, &text) {
                Ok(entries) => {
                    tracing::info!(tokens = entries.len(), "token file re-read");
                    loaded.entries = entries.into();
                }
                Err(error) => {
                    tracing::error!(%error, "token file not re-read, the old tokens stay in force");
                }
            }
        }
        loaded.entries.clone()
    }
}

async fn read(path: &Path) -> Result<String, TokenFileError> {
    let unreadable = |message: String| TokenFileError::Unreadable {
        path: path.display().to_string(),
        message,
    };
    let bytes = match tokio::fs::metadata(path).await {
        Ok(meta) if meta.len() > MAX_FILE => {
            return Err(unreadable("it is larger than 1 MiB".into()));
        }
        Ok(_) => tokio::fs::read(path)
            .await
            .map_err(|e| unreadable(e.to_string()))?,
        Err(error) => return Err(unreadable(error.to_string())),
    };
    String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, Vec<Scope>)>, String> {
        match parse(Path::new("/t"), text) {
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

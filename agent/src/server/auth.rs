//! Who may call: bearer tokens from a file that is re-read when it changes.

mod token_file;

pub use token_file::{TokenFile, TokenFileError};

use super::problem::{Kind, Problem};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::sync::Arc;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Pull a backup.
    Backup,
    /// Cancel a running backup.
    Cancel,
    /// Write into the server.
    Restore,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Backup, Self::Cancel, Self::Restore];

    /// The word in the token file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Cancel => "cancel",
            Self::Restore => "restore",
        }
    }
}

/// A caller that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    name: Arc<str>,
    scopes: Vec<Scope>,
}

impl Peer {
    /// Its name in the log: the comment behind its token, else the token's line. Never the token.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Lets it do what needs `scope`.
    ///
    /// # Errors
    /// A 403 that names the scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let (word, challenge) = match scope {
            Scope::Backup => (
                "backup",
                r#"Bearer realm="towline", error="insufficient_scope", scope="backup""#,
            ),
            Scope::Cancel => (
                "cancel",
                r#"Bearer realm="towline", error="insufficient_scope", scope="cancel""#,
            ),
            Scope::Restore => (
                "restore",
                r#"Bearer realm="towline", error="insufficient_scope", scope="restore""#,
            ),
        };
        let detail = format!(
            "this token has no scope {word}: add it to the token's line in the agent's token file"
        );
        Err(Problem::new(Kind::FORBIDDEN, detail).challenge(challenge))
    }
}

/// How callers are let in.
#[derive(Debug)]
pub enum Auth {
    /// Everybody may do everything: on loopback only.
    Open,
    /// Bearer tokens.
    Tokens(TokenFile),
}

impl Auth {
    /// Finds out who calls.
    ///
    /// # Errors
    /// A 401 that says what is missing, never what would fit.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Peer, Problem> {
        let Self::Tokens(file) = self else {
            return Ok(Peer {
                name: "anyone".into(),
                scopes: Scope::ALL.to_vec(),
            });
        };
        let Some(token) = bearer(headers) else {
            let detail = "send the header Authorization: Bearer TOKEN, once, with a token of the agent's token file";
            return Err(
                Problem::new(Kind::UNAUTHORIZED, detail).challenge(r#"Bearer realm="towline""#)
            );
        };
        file.find(token).await.ok_or_else(|| {
            let detail = "this token is not in the agent's token file; it may have been rotated";
            Problem::new(Kind::UNAUTHORIZED, detail)
                .challenge(r#"Bearer realm="towline", error="invalid_token""#)
        })
    }
}

/// The bearer token of a request with exactly one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let token = token.trim_ascii();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn authorization_header() {
        let token = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            bearer(&headers).map(|t| String::from_utf8_lossy(t).into_owned())
        };
        assert_eq!(token(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&["bEARER   abc"]).as_deref(), Some("abc"));
        for bad in [
            &["Basic abc"][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearerabc"],
            &["Bearer a", "Bearer a"],
            &[],
        ] {
            assert_eq!(token(bad), None, "{bad:?}");
        }
    }
}

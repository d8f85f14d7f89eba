//! Who may call: bearer tokens, client certificates, or both together.

mod certificates;
mod token_file;

pub use certificates::ClientCertificates;
pub use token_file::TokenFile;

use super::problem::{Kind, Problem};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// What a caller may do.
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
    /// Its name in the log: its certificate's, its token's (the comment behind it, else its line;
    /// never the token), or `certificate (token)`.
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

/// Why a caller is not let in.
#[derive(Debug)]
pub struct Refused {
    /// Its name, if that much is sure.
    pub peer: Option<Arc<str>>,
    /// What it is told.
    pub problem: Problem,
    /// Whether nothing more can come of this connection.
    pub close: bool,
}

/// How callers are let in.
#[derive(Debug)]
pub enum Auth {
    /// Everybody may do everything: on loopback only.
    Open,
    /// Whoever has a token may do what the token allows.
    Tokens(TokenFile),
    /// Whoever has an allowed certificate may do everything.
    Certificates(Arc<ClientCertificates>),
    /// Whoever has an allowed certificate and a token may do what the token allows.
    Both(Arc<ClientCertificates>, TokenFile),
}

impl Auth {
    /// Finds out who calls. `certificates` are those of its connection, its own one first.
    ///
    /// # Errors
    /// A 401 that says what is missing, never what would fit; a 403 for a certificate whose names
    /// are not allowed.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        certificates: &[CertificateDer<'static>],
    ) -> Result<Peer, Refused> {
        match self {
            Self::Open => Ok(Peer {
                name: "anyone".into(),
                scopes: Scope::ALL.to_vec(),
            }),
            Self::Tokens(tokens) => with_token(tokens, headers)
                .await
                .map_err(|problem| Refused {
                    peer: None,
                    problem,
                    close: false,
                }),
            Self::Certificates(clients) => Ok(Peer {
                name: clients.identify(certificates).await?,
                scopes: Scope::ALL.to_vec(),
            }),
            Self::Both(clients, tokens) => {
                let name = clients.identify(certificates).await?;
                match with_token(tokens, headers).await {
                    Ok(peer) => Ok(Peer {
                        name: format!("{name} ({})", peer.name).into(),
                        scopes: peer.scopes,
                    }),
                    Err(problem) => Err(Refused {
                        peer: Some(name),
                        problem,
                        close: false,
                    }),
                }
            }
        }
    }
}

async fn with_token(tokens: &TokenFile, headers: &HeaderMap) -> Result<Peer, Problem> {
    let Some(token) = bearer(headers) else {
        let detail = "send the header Authorization: Bearer TOKEN, once, with a token of the agent's token file";
        return Err(Problem::new(Kind::UNAUTHORIZED, detail).challenge(r#"Bearer realm="towline""#));
    };
    tokens.find(token).await.ok_or_else(|| {
        let detail = "this token is not in the agent's token file; it may have been rotated";
        Problem::new(Kind::UNAUTHORIZED, detail)
            .challenge(r#"Bearer realm="towline", error="invalid_token""#)
    })
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

//! Who may read the page.

use crate::config::{PAGE_FLAGS, PageConfig};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use towline_agent::server::{ClientCertificates, FileError, Named, Watched};

/// Longest name of a reader in the log, in characters.
const MAX_NAME: usize = 64;
/// Shortest token. What `openssl rand -hex 16` gives has twice as many.
const MIN_TOKEN: usize = 16;

/// How a reader may prove who he is. The scheme that a browser asks for comes first: some know only
/// the first.
const CHALLENGES: [&str; 2] = [
    r#"Basic realm="Towline: any user, a token as the password", charset="UTF-8""#,
    r#"Bearer realm="towline""#,
];

/// Who may read the page: whoever has a token of the file, an allowed certificate, or both where both
/// are asked for.
#[derive(Debug)]
pub struct Access {
    tokens: Option<Watched<Vec<Token>>>,
    clients: Option<Arc<ClientCertificates>>,
}

/// A digest is compared, so neither a token's bytes nor its length show in the time it takes.
struct Token {
    sha256: [u8; 32],
    name: Arc<str>,
}

/// Why somebody is not let in.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) status: StatusCode,
    /// How he may prove who he is.
    pub(super) challenges: &'static [&'static str],
    /// What is missing; never what would fit.
    pub(super) detail: String,
}

impl Access {
    /// Reads the files for the first time. They are read again at every request.
    ///
    /// # Errors
    /// A file that cannot be used, and why.
    pub async fn open(config: &PageConfig) -> Result<Self, FileError> {
        let tokens = match &config.tokens {
            Some(file) => {
                let file = Named::new("--page-token-file", file.clone());
                Some(Watched::open([file], |[file], [bytes]| parse(file, &bytes)).await?)
            }
            None => None,
        };
        let clients = match &config.clients {
            Some(clients) => {
                let (ca, allowed) = (clients.ca.clone(), clients.allowed.clone());
                let clients = ClientCertificates::open(ca, allowed, PAGE_FLAGS).await?;
                Some(Arc::new(clients))
            }
            None => None,
        };
        Ok(Self { tokens, clients })
    }

    /// Who checks certificates in handshakes.
    pub(super) fn clients(&self) -> Option<Arc<ClientCertificates>> {
        self.clients.clone()
    }

    /// Finds out who reads; the name is for the log.
    pub(super) async fn admit(
        &self,
        headers: &HeaderMap,
        certificates: &[CertificateDer<'static>],
    ) -> Result<Arc<str>, Denied> {
        let mut names: Vec<Arc<str>> = Vec::new();
        if let Some(clients) = &self.clients {
            let name = clients.identify(certificates).await.map_err(|refused| {
                let status = refused.problem.kind().status();
                Denied {
                    status,
                    // RFC 9110, 15.5.2 wants one with every 401; no registered scheme means certificates.
                    challenges: match status {
                        StatusCode::UNAUTHORIZED => &[r#"Certificate realm="towline""#],
                        _ => &[],
                    },
                    detail: refused.problem.detail().to_owned(),
                }
            })?;
            names.push(name);
        }
        if let Some(tokens) = &self.tokens {
            let denied = |detail: &str| Denied {
                status: StatusCode::UNAUTHORIZED,
                challenges: &CHALLENGES,
                detail: detail.to_owned(),
            };
            let token = presented(headers).ok_or_else(|| {
                denied("Log in with a token as the password, and any user name; a program sends the header Authorization: Bearer TOKEN.")
            })?;
            let presented = sha256(&token);
            let mut found = None;
            for entry in tokens.current().await.iter() {
                // All are compared, for the time would tell which one fits.
                if bool::from(entry.sha256.ct_eq(&presented)) {
                    found = Some(Arc::clone(&entry.name));
                }
            }
            names.push(found.ok_or_else(|| {
                denied("This token is not in the file of --page-token-file; it may have been replaced.")
            })?);
        }
        // Config has seen to it that there is one of the two.
        if names.is_empty() {
            return Err(Denied {
                status: StatusCode::FORBIDDEN,
                challenges: &[],
                detail: "Nobody may read this page.".into(),
            });
        }
        Ok(names.join(", ").into())
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// The token of a request with exactly one `Authorization` header: a bearer token
/// ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750)), or the password of the Basic scheme
/// ([RFC 7617](https://www.rfc-editor.org/rfc/rfc7617)), which browsers ask for and send with everything
/// of the origin, a stream of events too.
fn presented(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        rest.as_bytes().to_vec()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let pair = BASE64_STANDARD.decode(rest).ok()?;
        let colon = pair.iter().position(|b| *b == b':')?;
        pair[colon + 1..].to_vec()
    } else {
        return None;
    };
    (!token.is_empty()).then_some(token)
}

fn parse(file: &Named, bytes: &[u8]) -> Result<Vec<Token>, FileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| file.error("is not UTF-8 text"))?;
    let mut tokens: Vec<Token> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let error = |message: &str| file.error(format!("line {number}: {message}"));
        let (content, comment) = line.split_once('#').unwrap_or((line, ""));
        let mut words = content.split_ascii_whitespace();
        let Some(token) = words.next() else { continue };
        if words.next().is_some() {
            return Err(error(
                "write one token a line, and a name behind # if you like",
            ));
        }
        // RFC 6750, 2.1: anything else could not be sent in the header.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if !token.bytes().all(allowed) || token.len() < MIN_TOKEN {
            return Err(error(
                "a token has at least 16 letters, digits and -._~+/=, as `openssl rand -hex 32` gives it",
            ));
        }
        let sha256 = sha256(token.as_bytes());
        if tokens.iter().any(|known| known.sha256 == sha256) {
            return Err(error("this token is in the file twice"));
        }
        let comment = comment.trim();
        let name = if comment.is_empty() {
            format!("token in line {number}")
        } else {
            comment.to_owned()
        };
        let name: String = name
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_NAME)
            .collect();
        tokens.push(Token {
            sha256,
            name: name.into(),
        });
    }
    if tokens.is_empty() {
        return Err(
            file.error("holds no token: write one a line, as `openssl rand -hex 32` gives it")
        );
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn names(text: &str) -> Result<Vec<String>, String> {
        match parse(
            &Named::new("--page-token-file", "/t".into()),
            text.as_bytes(),
        ) {
            Ok(tokens) => Ok(tokens.iter().map(|t| t.name.to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_token_a_line_with_a_name() {
        let text = "# readers\n\nabcdefghijklmnop # on call\r\n0123456789abcdef\n";
        assert_eq!(names(text).unwrap(), ["on call", "token in line 4"]);
    }

    #[test]
    fn what_is_wrong_is_said_by_line_and_without_tokens() {
        for (text, needle) in [
            ("", "holds no token"),
            ("# only\n", "holds no token"),
            ("abcdefghijklmnop secret-of-somebody", "line 1"),
            ("\nsecret\n", "line 2"),
            ("secret-and-an-\u{e9}-in-it", "line 1"),
            ("secretsecretsecret\nsecretsecretsecret", "line 2"),
        ] {
            let error = names(text).unwrap_err();
            assert!(error.contains(needle), "{text:?}: {error}");
            assert!(error.contains("--page-token-file"), "{error}");
            assert!(
                !error.contains("secret") && !error.contains("abcd"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_token_is_taken_as_bearer_or_as_password() {
        let token = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            presented(&headers).map(|t| String::from_utf8_lossy(&t).into_owned())
        };
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert_eq!(token(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&["bEARER   abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&[&basic("anybody:a:b")]).as_deref(), Some("a:b"));
        assert_eq!(token(&[&basic(":abc")]).as_deref(), Some("abc"));
        for bad in [
            vec!["Bearer".to_owned()],
            vec!["Bearer ".to_owned()],
            vec!["Digest abc".to_owned()],
            vec!["Basic ???".to_owned()],
            vec![basic("abc")],
            vec![basic("abc:")],
            vec!["Bearer abc".to_owned(), "Bearer abc".to_owned()],
            vec![],
        ] {
            let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
            assert_eq!(token(&bad), None, "{bad:?}");
        }
    }
}

//! The status page: where it is served, and to whom.

use super::ConfigError;
use clap::{Args, builder::BoolishValueParser};
use std::{net::SocketAddr, path::PathBuf};
use towline_agent::{
    config::{ClientsConfig, TlsFiles},
    server::TlsFlags,
};

/// Flags of the status page.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Status page")]
pub(super) struct PageArgs {
    /// Where the status page is served: read only, and never without authentication. On a loopback address it is reached by `kubectl port-forward`; on another it needs TLS. Default: nowhere
    #[arg(long, env = "TOWLINE_PAGE_LISTEN", value_name = "ADDRESS")]
    page_listen: Option<SocketAddr>,

    /// File of tokens, one a line, `#` starts a comment, which is the reader's name in the log. A browser asks for it as the password, and takes any user name; programs send Authorization: Bearer TOKEN. Re-read when it changes. With --page-client-ca both are needed
    #[arg(long, env = "TOWLINE_PAGE_TOKEN_FILE", value_name = "FILE")]
    page_token_file: Option<PathBuf>,

    /// Certificate of the page and those between it and its CA (PEM): serve HTTPS; re-read when it changes
    #[arg(long, env = "TOWLINE_PAGE_TLS_CERT", value_name = "FILE")]
    page_tls_cert: Option<PathBuf>,

    /// Private key of --page-tls-cert (PEM); re-read when it changes
    #[arg(long, env = "TOWLINE_PAGE_TLS_KEY", value_name = "FILE")]
    page_tls_key: Option<PathBuf>,

    /// Certificates of the CAs (PEM) one of which must have signed a reader's certificate; re-read when it changes
    #[arg(long, env = "TOWLINE_PAGE_CLIENT_CA", value_name = "FILE")]
    page_client_ca: Option<PathBuf>,

    /// DNS names or URIs, one of which a reader's certificate must have as a subject alternative name
    #[arg(
        long,
        env = "TOWLINE_PAGE_ALLOWED_CLIENT",
        value_delimiter = ',',
        value_name = "NAME,…"
    )]
    page_allowed_client: Vec<String>,

    /// Serve the page over plain HTTP on an address that others reach, say behind a proxy that speaks TLS: on the way to it tokens can be read
    #[arg(long, env = "TOWLINE_PAGE_INSECURE_HTTP", value_parser = BoolishValueParser::new())]
    page_insecure_http: bool,
}

/// The flags that name the page's files.
pub const FLAGS: TlsFlags = TlsFlags {
    cert: "--page-tls-cert",
    key: "--page-tls-key",
    client_ca: "--page-client-ca",
    allowed_client: "--page-allowed-client",
};

/// The status page, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageConfig {
    /// Where it is served.
    pub listen: SocketAddr,
    /// Readers' tokens.
    pub tokens: Option<PathBuf>,
    /// Its own identity; without one, plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Readers' certificates.
    pub clients: Option<ClientsConfig>,
}

impl PageArgs {
    /// `None`: no page.
    pub(super) fn check(self, admin: SocketAddr) -> Result<Option<PageConfig>, ConfigError> {
        let wrong = |flag: &'static str, message: &str| {
            Err(ConfigError::Page {
                flag,
                message: message.to_owned(),
            })
        };
        // A variable that is set but empty is none.
        let given = |file: Option<PathBuf>| file.filter(|f| !f.as_os_str().is_empty());
        let tokens = given(self.page_token_file);
        let (cert, key) = (given(self.page_tls_cert), given(self.page_tls_key));
        let ca = given(self.page_client_ca);
        let allowed = super::non_empty(self.page_allowed_client);
        let Some(listen) = self.page_listen else {
            let first = [
                (tokens.is_some(), "page-token-file"),
                (cert.is_some(), "page-tls-cert"),
                (key.is_some(), "page-tls-key"),
                (ca.is_some(), "page-client-ca"),
                (!allowed.is_empty(), "page-allowed-client"),
                (self.page_insecure_http, "page-insecure-http"),
            ];
            return match first.iter().find(|(given, _)| *given) {
                Some((_, flag)) => wrong(flag, "is of no use without --page-listen: add it"),
                None => Ok(None),
            };
        };
        if listen == admin && listen.port() != 0 {
            return wrong(
                "page-listen",
                "is the address of --admin-listen, too: give the page a port of its own",
            );
        }
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => return wrong("page-tls-cert", "needs --page-tls-key"),
            (None, Some(_)) => return wrong("page-tls-key", "needs --page-tls-cert"),
        };
        if tls.is_some() && self.page_insecure_http {
            return wrong(
                "page-insecure-http",
                "contradicts --page-tls-cert: leave out one of them",
            );
        }
        let clients = match ca {
            Some(_) if tls.is_none() => {
                return wrong(
                    "page-client-ca",
                    "needs TLS: add --page-tls-cert and --page-tls-key",
                );
            }
            Some(_) if allowed.is_empty() => {
                return wrong(
                    "page-client-ca",
                    "lets nobody in: add --page-allowed-client with the names in readers' certificates",
                );
            }
            Some(ca) => Some(ClientsConfig { ca, allowed }),
            None if !allowed.is_empty() => {
                return wrong("page-allowed-client", "needs --page-client-ca");
            }
            None => None,
        };
        // Names are compared as they are, so what could never be equal is a mistake.
        let names = clients.iter().flat_map(|clients| &clients.allowed);
        for name in names {
            if name.contains('*') || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return wrong(
                    "page-allowed-client",
                    &format!(
                        "has {name:?}, which no certificate is compared with: write a DNS name without wildcard, or a URI"
                    ),
                );
            }
        }
        if tokens.is_none() && clients.is_none() {
            return wrong(
                "page-listen",
                "needs --page-token-file, or --page-client-ca and --page-allowed-client: the page is not for everybody",
            );
        }
        if tls.is_none() && !listen.ip().is_loopback() && !self.page_insecure_http {
            return wrong(
                "page-listen",
                &format!(
                    "{listen} is reached by others, who could read tokens on the way: add --page-tls-cert and --page-tls-key, listen on 127.0.0.1 for kubectl port-forward, or say --page-insecure-http"
                ),
            );
        }
        Ok(Some(PageConfig {
            listen,
            tokens,
            tls,
            clients,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        page: PageArgs,
    }

    fn check(flags: &str) -> Result<Option<PageConfig>, String> {
        let args = std::iter::once("x").chain(flags.split_ascii_whitespace());
        let admin = "[::]:8080".parse().unwrap();
        let page = Cli::parse_from(args).page;
        page.check(admin).map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_none_by_default_and_never_one_for_everybody() {
        assert_eq!(check(""), Ok(None));
        for (flags, needles) in [
            (
                "--page-listen 127.0.0.1:8081",
                &["--page-listen", "--page-token-file", "--page-client-ca"][..],
            ),
            (
                "--page-token-file t",
                &["--page-token-file", "--page-listen"],
            ),
            (
                "--page-insecure-http",
                &["--page-insecure-http", "--page-listen"],
            ),
            (
                "--page-listen [::]:8081 --page-token-file t",
                &[
                    "[::]:8081",
                    "--page-tls-cert",
                    "127.0.0.1",
                    "--page-insecure-http",
                ],
            ),
            (
                "--page-listen [::]:8080 --page-token-file t --page-insecure-http",
                &["--admin-listen"],
            ),
            (
                "--page-listen [::]:1 --page-token-file t --page-tls-cert c",
                &["--page-tls-cert", "--page-tls-key"],
            ),
            (
                "--page-listen [::]:1 --page-token-file t --page-tls-key c",
                &["--page-tls-key", "--page-tls-cert"],
            ),
            (
                "--page-listen [::]:1 --page-token-file t --page-tls-cert c --page-tls-key k --page-insecure-http",
                &["--page-insecure-http", "--page-tls-cert"],
            ),
            (
                "--page-listen 127.0.0.1:1 --page-client-ca a --page-allowed-client n",
                &["--page-client-ca", "--page-tls-cert"],
            ),
            (
                "--page-listen [::]:1 --page-tls-cert c --page-tls-key k --page-client-ca a",
                &["--page-client-ca", "--page-allowed-client"],
            ),
            (
                "--page-listen [::]:1 --page-tls-cert c --page-tls-key k --page-token-file t --page-allowed-client n",
                &["--page-allowed-client", "--page-client-ca"],
            ),
            (
                "--page-listen [::]:1 --page-tls-cert c --page-tls-key k --page-client-ca a --page-allowed-client *.example.org",
                &["--page-allowed-client", "wildcard"],
            ),
        ] {
            let error = check(flags).unwrap_err();
            for needle in needles {
                assert!(
                    error.contains(needle),
                    "{flags}: {needle} is not in {error}"
                );
            }
        }
    }

    #[test]
    fn what_is_taken() {
        let plain = check("--page-listen 127.0.0.1:8081 --page-token-file /t").unwrap();
        let plain = plain.unwrap();
        assert_eq!(plain.tokens, Some("/t".into()));
        assert!(plain.tls.is_none() && plain.clients.is_none());
        let behind_a_proxy = "--page-listen [::]:8081 --page-token-file /t --page-insecure-http";
        assert!(check(behind_a_proxy).unwrap().is_some());
        let mutual = check(
            "--page-listen [::]:8081 --page-tls-cert /c --page-tls-key /k --page-client-ca /a --page-allowed-client one,spiffe://x/y",
        );
        let mutual = mutual.unwrap().unwrap();
        assert_eq!(mutual.clients.unwrap().allowed, ["one", "spiffe://x/y"]);
        assert_eq!(mutual.tokens, None);
    }
}

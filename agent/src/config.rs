//! Flags and `TOWLINE_…` variables, parsed once into a validated [`Config`].

mod access;
mod error;
mod flags;
mod units;

pub use access::{AuthConfig, ClientsConfig, TlsFiles};
pub use error::ConfigError;
pub use units::{parse_bytes, parse_duration};

use crate::archive::Recipient;
use crate::archive::encryption::{MAX_RECIPIENTS, RecipientError};
use crate::backup::{EngineConfig, Method};
use crate::database::{Address, Connection};
use crate::server::DrainTimes;
use clap::{CommandFactory as _, FromArgMatches as _, ValueEnum};
use flags::{Flags, MethodFlag};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line
    Json,
    /// For people
    Text,
}

/// What the agent is told to do, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of `/v1`.
    pub listen: SocketAddr,
    /// Address of probes and metrics.
    pub admin_listen: SocketAddr,
    /// Who may call.
    pub auth: AuthConfig,
    /// The agent's identity; without one it serves plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The engine's part.
    pub engine: EngineConfig,
    /// How a stop goes.
    pub drain: DrainTimes,
    /// How log lines are written.
    pub log_format: LogFormat,
}

impl Config {
    /// Reads flags (the first word is the program's name) and `TOWLINE_…` variables. `version` is what
    /// `--version` says.
    ///
    /// # Errors
    /// [`ConfigError`], which names the flag and what to write instead.
    pub fn parse<I, T>(version: &'static str, args: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Flags::command()
            .version(version)
            .try_get_matches_from(args)?;
        Self::check(Flags::from_arg_matches(&matches)?)
    }

    fn check(flags: Flags) -> Result<Self, ConfigError> {
        let value = |flag, message: &str| ConfigError::Value {
            flag,
            message: message.to_owned(),
        };
        let (auth, tls) = access::check(&flags)?;
        let listen = flags.listen;
        if listen == flags.admin_listen && listen.port() != 0 {
            return Err(ConfigError::SameAddress(listen));
        }
        let address = match (flags.db_host, flags.db_port, flags.db_socket) {
            (Some(host), _, _) if host.is_empty() => {
                return Err(value("--db-host", "is empty: name a host"));
            }
            (Some(host), port, _) => Address::Tcp {
                host,
                port: port.unwrap_or(3306),
            },
            (None, Some(_), _) => return Err(ConfigError::PortWithoutHost),
            // The tools run in a folder of their own, where a relative path leads elsewhere.
            (None, None, Some(socket)) if !socket.is_absolute() => {
                let message = format!("must be an absolute path, and {} is none", socket.display());
                return Err(value("--db-socket", &message));
            }
            (None, None, socket) => {
                Address::Socket(socket.unwrap_or_else(|| "/run/mysqld/mysqld.sock".into()))
            }
        };
        if flags.db_user.is_empty() {
            return Err(value(
                "--db-user",
                "is empty: name the agent's user in the database",
            ));
        }
        if let Some(file) = &flags.db_password_file
            && let Err(error) = std::fs::read(file)
        {
            let message = format!("names {}, which cannot be read: {error}", file.display());
            return Err(value("--db-password-file", &message));
        }
        if flags.stall_timeout.is_zero() {
            return Err(value(
                "--stall-timeout",
                "must be longer than 0: 300s is the default",
            ));
        }
        if flags.lock_buffer < 1 << 20 {
            return Err(value(
                "--lock-buffer",
                "must be at least 1MiB; 64MiB is the default",
            ));
        }
        if flags.max_rate == Some(0) {
            return Err(value(
                "--max-rate",
                "must be more than 0; leave it out for no limit",
            ));
        }
        let require_recipients = recipients(&flags.require_recipient)
            .map_err(|message| value("--require-recipient", &message))?;
        let database = Connection {
            address,
            user: flags.db_user,
            password_file: flags.db_password_file,
            timeout: Duration::from_secs(10),
        };
        let method = flags.method.map(|method| match method {
            MethodFlag::Physical => Method::Physical,
            MethodFlag::Logical => Method::Logical,
        });
        let engine = EngineConfig {
            database,
            method,
            lock_buffer: flags.lock_buffer,
            max_lock: Duration::from_secs(flags.max_lock_seconds),
            stall_timeout: flags.stall_timeout,
            max_rate: flags.max_rate,
            require_recipients,
            allow_galera: flags.allow_galera,
            allow_restore: flags.allow_restore,
            tmp: std::env::temp_dir(),
        };
        Ok(Self {
            listen,
            admin_listen: flags.admin_listen,
            auth,
            tls,
            engine,
            drain: DrainTimes {
                delay: flags.drain_delay,
                timeout: flags.drain_timeout,
            },
            log_format: flags.log_format,
        })
    }
}

/// Distinct recipients, as many as an archive can have.
fn recipients(texts: &[String]) -> Result<Vec<Recipient>, String> {
    let mut recipients = Vec::new();
    for text in texts {
        let recipient = text
            .parse()
            // What was written is not shown: it may be a secret.
            .map_err(|error: RecipientError| format!("names something else: {error}"))?;
        if !recipients.contains(&recipient) {
            recipients.push(recipient);
        }
    }
    if recipients.len() > MAX_RECIPIENTS {
        return Err(format!(
            "names {}: an archive has at most {MAX_RECIPIENTS} recipients",
            recipients.len()
        ));
    }
    Ok(recipients)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &str) -> Result<Config, String> {
        let args = std::iter::once("towline-agent").chain(flags.split_ascii_whitespace());
        Config::parse("1", args).map_err(|error| error.to_string())
    }

    #[test]
    fn clap_is_content() {
        Flags::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for arg in Flags::command().get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            let variable = format!("TOWLINE_{}", long.to_ascii_uppercase().replace('-', "_"));
            assert_eq!(
                arg.get_env().and_then(|v| v.to_str()),
                Some(variable.as_str()),
                "{long}"
            );
        }
    }

    #[test]
    fn defaults() {
        let config = parse("--no-auth").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8474");
        assert_eq!(config.admin_listen.to_string(), "[::]:8475");
        assert_eq!(config.auth, AuthConfig::Open);
        assert_eq!(
            config.engine.database.address.to_string(),
            "/run/mysqld/mysqld.sock"
        );
        assert_eq!(config.engine.lock_buffer, 64 << 20);
        assert_eq!(config.engine.max_lock, Duration::from_secs(60));
        assert_eq!(config.engine.stall_timeout, Duration::from_secs(300));
        assert_eq!(config.drain.delay, Duration::from_secs(5));
        assert_eq!(config.drain.timeout, Duration::from_secs(20));
    }

    #[test]
    fn what_is_refused_names_the_flag_and_the_remedy() {
        for (flags, needles) in [
            ("", &["--token-file", "--no-auth"][..]),
            ("--no-auth --token-file /t", &["--no-auth", "--token-file"]),
            (
                "--no-auth --listen 0.0.0.0:1",
                &["--no-auth", "0.0.0.0:1", "--token-file"],
            ),
            (
                "--token-file /t --listen [::]:1",
                &["--listen", "--tls-cert", "--insecure-http"],
            ),
            ("--no-auth --tls-cert x", &["--tls-cert", "--tls-key"]),
            ("--no-auth --tls-key x", &["--tls-key", "--tls-cert"]),
            (
                "--token-file /t --tls-cert c --tls-key k --insecure-http",
                &["--tls-cert", "--insecure-http", "leave out"],
            ),
            (
                "--client-ca a --allowed-client n",
                &["--client-ca", "--tls-cert", "--tls-key"],
            ),
            (
                "--tls-cert c --tls-key k --client-ca a",
                &["--client-ca", "--allowed-client"],
            ),
            (
                "--tls-cert c --tls-key k --token-file t --allowed-client n",
                &["--allowed-client", "--client-ca"],
            ),
            (
                "--tls-cert c --tls-key k --client-ca a --allowed-client n --no-auth",
                &["--no-auth", "--client-ca"],
            ),
            (
                "--tls-cert c --tls-key k --client-ca a --allowed-client *.example.org",
                &["--allowed-client", "wildcard"],
            ),
            (
                "--tls-cert c --tls-key k --client-ca a --allowed-client n,",
                &["--allowed-client", "empty"],
            ),
            (
                "--tls-cert c --tls-key k --client-ca a --allowed-client Jürgen",
                &["--allowed-client", "spiffe://"],
            ),
            (
                "--tls-cert c --tls-key k --listen 127.0.0.1:1",
                &["--token-file", "--client-ca", "--no-auth"],
            ),
            (
                "--token-file /t --listen 127.0.0.1:1 --admin-listen 127.0.0.1:1",
                &["--admin-listen"],
            ),
            ("--no-auth --db-port 1", &["--db-port", "--db-host"]),
            ("--no-auth --db-port 0 --db-host h", &["--db-port"]),
            (
                "--no-auth --db-host h --db-socket /s",
                &["--db-host", "--db-socket"],
            ),
            (
                "--no-auth --db-password-file /nowhere/p",
                &["--db-password-file", "/nowhere/p"],
            ),
            (
                "--no-auth --db-password-file /",
                &["--db-password-file", "cannot be read"],
            ),
            (
                "--no-auth --db-socket mysqld.sock",
                &["--db-socket", "absolute", "mysqld.sock"],
            ),
            ("--no-auth --listen localhost", &["--listen", "localhost"]),
            ("--no-auth --stall-timeout 0", &["--stall-timeout"]),
            ("--no-auth --stall-timeout 5y", &["--stall-timeout", "90s"]),
            ("--no-auth --lock-buffer 5", &["--lock-buffer", "64MiB"]),
            ("--no-auth --max-rate 0", &["--max-rate"]),
            ("--no-auth --max-lock-seconds 0", &["--max-lock-seconds"]),
            ("--no-auth --method fast", &["--method", "logical"]),
            (
                "--no-auth --require-recipient age1x",
                &["--require-recipient", "age-keygen -y"],
            ),
            (
                "--no-auth --require-recipient=",
                &["--require-recipient", "age1"],
            ),
        ] {
            let error = parse(flags).unwrap_err();
            for needle in needles {
                assert!(
                    error.contains(needle),
                    "{flags:?}: {needle:?} is not in {error}"
                );
            }
        }
    }

    #[test]
    fn what_is_taken() {
        let config = parse("--token-file /t --listen [::]:1 --insecure-http --db-host db --max-rate 10MiB --method logical").unwrap();
        assert_eq!(config.auth, AuthConfig::Tokens("/t".into()));
        assert_eq!(config.engine.database.address.to_string(), "db:3306");
        assert_eq!(config.engine.max_rate, Some(10 << 20));
        assert!(!config.engine.allow_restore);
        let restores = parse("--no-auth --allow-restore").unwrap();
        assert!(restores.engine.allow_restore);
        assert_eq!(config.engine.method, Some(Method::Logical));
    }

    #[test]
    fn required_recipients() {
        let one = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
        let other = "age12a8fpmnlyhkxzj448hjp7awenghhuc4efwf8npjtj2dlae56mcwqnywcdu";
        let flags =
            format!("--no-auth --require-recipient {one},{other} --require-recipient {one}");
        let required = parse(&flags).unwrap().engine.require_recipients;
        let required: Vec<String> = required.iter().map(ToString::to_string).collect();
        assert_eq!(required, [one, other]);
        let secret = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
        let error = parse(&format!("--no-auth --require-recipient {one},{secret}")).unwrap_err();
        assert!(error.contains("secret key"), "{error}");
        assert!(!error.contains("GQ9778"), "{error}");
    }

    #[test]
    fn tls_and_certificates() {
        let tls = "--listen [::]:1 --tls-cert /c --tls-key /k";
        let config = parse(&format!("{tls} --token-file /t")).unwrap();
        assert_eq!(config.auth, AuthConfig::Tokens("/t".into()));
        let files = TlsFiles {
            cert: "/c".into(),
            key: "/k".into(),
        };
        assert_eq!(config.tls, Some(files));
        let clients = ClientsConfig {
            ca: "/a".into(),
            allowed: vec!["one".into(), "two".into(), "spiffe://example.org/x".into()],
        };
        let mutual = format!(
            "{tls} --client-ca /a --allowed-client one,two --allowed-client spiffe://example.org/x"
        );
        let config = parse(&mutual).unwrap();
        assert_eq!(config.auth, AuthConfig::Certificates(clients.clone()));
        let config = parse(&format!("{mutual} --token-file /t")).unwrap();
        assert_eq!(config.auth, AuthConfig::Both(clients, "/t".into()));
        let config = parse("--tls-cert /c --tls-key /k --no-auth").unwrap();
        assert_eq!(config.auth, AuthConfig::Open);
    }
}

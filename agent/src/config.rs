//! Flags and `TOWLINE_…` variables, parsed once into a validated [`Config`].

mod units;

pub use units::{parse_bytes, parse_duration};

use crate::backup::{EngineConfig, Method};
use crate::database::{Address, Connection};
use crate::server::DrainTimes;
use clap::builder::BoolishValueParser;
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Every flag has a variable, named in brackets; a flag wins over its variable.
Durations are written 90s, 5m or 1h (a plain number is seconds), sizes 64MiB or 1GB
(a plain number is bytes). RUST_LOG chooses what is logged (default: info).

The token file has a line for each caller: TOKEN SCOPE... with the scopes backup, cancel and
restore; # starts a comment, which is the caller's name in the access log. A change counts from
the next request on.

Exit codes: 0 after a graceful stop (SIGTERM or SIGINT), 2 for wrong flags or files, 1 for any
other failure and when a second signal forces the stop.";

/// Streams a backup of the MySQL or MariaDB server beside it over HTTP, and says in a trailer
/// whether it is complete.
#[derive(Debug, Parser)]
#[command(name = "towline-agent", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Flags {
    /// Address of /v1, where backups are pulled from
    #[arg(
        long,
        env = "TOWLINE_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:8474"
    )]
    listen: SocketAddr,

    /// Address of /livez, /readyz and /metrics, which need no credentials
    #[arg(
        long,
        env = "TOWLINE_ADMIN_LISTEN",
        value_name = "IP:PORT",
        default_value = "[::]:8475"
    )]
    admin_listen: SocketAddr,

    /// File of bearer tokens and their scopes; re-read when it changes
    #[arg(long, env = "TOWLINE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Let everybody do everything; only with --listen on a loopback address
    #[arg(long, env = "TOWLINE_NO_AUTH", value_parser = BoolishValueParser::new())]
    no_auth: bool,

    /// Serve plain HTTP on an address that others reach: tokens and backups can be read on the way
    #[arg(long, env = "TOWLINE_INSECURE_HTTP", value_parser = BoolishValueParser::new())]
    insecure_http: bool,

    /// Unix socket of the database server [default: /run/mysqld/mysqld.sock]
    #[arg(
        long,
        env = "TOWLINE_DB_SOCKET",
        value_name = "PATH",
        conflicts_with = "db_host"
    )]
    db_socket: Option<PathBuf>,

    /// Host of the database server, instead of its socket
    #[arg(long, env = "TOWLINE_DB_HOST", value_name = "HOST")]
    db_host: Option<String>,

    /// Port of the database server, with --db-host [default: 3306]
    #[arg(long, env = "TOWLINE_DB_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    db_port: Option<u16>,

    /// User for the database
    #[arg(
        long,
        env = "TOWLINE_DB_USER",
        value_name = "USER",
        default_value = "towline"
    )]
    db_user: String,

    /// File with the user's password; re-read at every connection. None: the server needs none
    #[arg(long, env = "TOWLINE_DB_PASSWORD_FILE", value_name = "FILE")]
    db_password_file: Option<PathBuf>,

    /// Kind of backup when a request names none [default: physical where a tool for it is installed]
    #[arg(long, env = "TOWLINE_METHOD", value_name = "METHOD", value_enum)]
    method: Option<MethodFlag>,

    /// Memory for output while the tool holds locks, so that a slow reader does not prolong them
    #[arg(long, env = "TOWLINE_LOCK_BUFFER", value_name = "SIZE", default_value = "64MiB", value_parser = parse_bytes)]
    lock_buffer: u64,

    /// Longest time that locks may block writes while the reader is too slow; then the backup dies
    #[arg(long, env = "TOWLINE_MAX_LOCK_SECONDS", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_lock_seconds: u64,

    /// End a backup whose reader has taken nothing for so long
    #[arg(long, env = "TOWLINE_STALL_TIMEOUT", value_name = "DURATION", default_value = "300s", value_parser = parse_duration)]
    stall_timeout: Duration,

    /// From SIGTERM to the close of the listener: time for /readyz to be noticed
    #[arg(long, env = "TOWLINE_DRAIN_DELAY", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    drain_delay: Duration,

    /// From SIGTERM to the cancellation of a running backup: the pod's grace period less 10 s
    #[arg(long, env = "TOWLINE_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    drain_timeout: Duration,

    /// Most bytes a second of one backup, whatever a request asks for; lifted while locks are held
    #[arg(long, env = "TOWLINE_MAX_RATE", value_name = "SIZE", value_parser = parse_bytes)]
    max_rate: Option<u64>,

    /// Back up a Galera node too, which may block the whole cluster for as long as locks are held
    #[arg(long, env = "TOWLINE_ALLOW_GALERA", value_parser = BoolishValueParser::new())]
    allow_galera: bool,

    /// Format of the log
    #[arg(long, env = "TOWLINE_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodFlag {
    /// Copies of the data files
    Physical,
    /// SQL
    Logical,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line
    Json,
    /// For people
    Text,
}

/// How callers are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthConfig {
    /// Everybody, on loopback.
    Open,
    /// Whoever has a token of this file.
    TokenFile(PathBuf),
}

/// Why the flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Unknown or malformed flags; also `--help` and `--version`, which are no failure.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// No way for callers to authenticate.
    #[error(
        "nobody is named who may call, so the agent does not start: add --token-file FILE (lines of TOKEN SCOPE..., see --help), or --no-auth on a loopback address"
    )]
    NoAuth,
    /// Everybody, and somebody.
    #[error("--no-auth and --token-file exclude each other: leave out one of them")]
    TwoAnswers,
    /// Everybody would be let in.
    #[error("--no-auth is for a loopback address only, and --listen {0} is none: use --token-file FILE, or --listen 127.0.0.1:{port}", port = .0.port())]
    OpenToOthers(SocketAddr),
    /// Tokens would go over the network in the clear.
    #[error("--listen {0} is reached by others, who could read tokens and backups on the way: add --insecure-http if the network is trusted, or listen on 127.0.0.1:{port}", port = .0.port())]
    PlainHttp(SocketAddr),
    /// Both listeners on one port.
    #[error("--listen and --admin-listen are both {0}: give one of them another port")]
    SameAddress(SocketAddr),
    /// A port without a host.
    #[error("--db-port needs --db-host: a socket has no port")]
    PortWithoutHost,
    /// A value that cannot be.
    #[error("{flag} {message}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What is wrong and how it is right.
        message: String,
    },
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
    /// The engine's part.
    pub engine: EngineConfig,
    /// How a stop goes.
    pub drain: DrainTimes,
    /// How log lines are written.
    pub log_format: LogFormat,
}

impl Config {
    /// Reads flags (the first word is the program's name) and `TOWLINE_…` variables.
    ///
    /// # Errors
    /// [`ConfigError`], which names the flag and what to write instead.
    pub fn parse<I, T>(args: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        Self::check(Flags::try_parse_from(args)?)
    }

    fn check(flags: Flags) -> Result<Self, ConfigError> {
        let value = |flag, message: &str| ConfigError::Value {
            flag,
            message: message.to_owned(),
        };
        let listen = flags.listen;
        let auth = match flags.token_file {
            // Not left to clap: TOWLINE_NO_AUTH=false is no conflict.
            Some(_) if flags.no_auth => return Err(ConfigError::TwoAnswers),
            Some(file) => AuthConfig::TokenFile(file),
            None if !flags.no_auth => return Err(ConfigError::NoAuth),
            None if !listen.ip().is_loopback() => return Err(ConfigError::OpenToOthers(listen)),
            None => AuthConfig::Open,
        };
        if !listen.ip().is_loopback() && !flags.insecure_http {
            return Err(ConfigError::PlainHttp(listen));
        }
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
            && let Err(error) = std::fs::File::open(file)
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
            require_recipients: Vec::new(),
            allow_galera: flags.allow_galera,
            tmp: std::env::temp_dir(),
        };
        Ok(Self {
            listen,
            admin_listen: flags.admin_listen,
            auth,
            engine,
            drain: DrainTimes {
                delay: flags.drain_delay,
                timeout: flags.drain_timeout,
            },
            log_format: flags.log_format,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(flags: &str) -> Result<Config, String> {
        let args = std::iter::once("towline-agent").chain(flags.split_ascii_whitespace());
        Config::parse(args).map_err(|error| error.to_string())
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
                &["--listen", "--insecure-http"],
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
            ("--no-auth --listen localhost", &["--listen", "localhost"]),
            ("--no-auth --stall-timeout 0", &["--stall-timeout"]),
            ("--no-auth --stall-timeout 5y", &["--stall-timeout", "90s"]),
            ("--no-auth --lock-buffer 5", &["--lock-buffer", "64MiB"]),
            ("--no-auth --max-rate 0", &["--max-rate"]),
            ("--no-auth --max-lock-seconds 0", &["--max-lock-seconds"]),
            ("--no-auth --method fast", &["--method", "logical"]),
            // Later features are refused, never ignored.
            (
                "--no-auth --require-recipient age1x",
                &["--require-recipient"],
            ),
            ("--no-auth --tls-cert x", &["--tls-cert"]),
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
        assert_eq!(config.auth, AuthConfig::TokenFile("/t".into()));
        assert_eq!(config.engine.database.address.to_string(), "db:3306");
        assert_eq!(config.engine.max_rate, Some(10 << 20));
        assert_eq!(config.engine.method, Some(Method::Logical));
    }
}

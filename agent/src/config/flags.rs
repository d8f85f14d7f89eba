//! The command line.

use super::{LogFormat, parse_bytes, parse_duration};
use clap::builder::BoolishValueParser;
use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Every flag has a variable, named in brackets; a flag wins over its variable.
Durations are written 90s, 5m or 1h (a plain number is seconds), sizes 64MiB or 1GB
(a plain number is bytes). RUST_LOG chooses what is logged (default: info).

Callers need a token (--token-file), a certificate (--client-ca and --allowed-client), or both when
both are given. A certificate alone allows everything.

The token file has a line for each caller: TOKEN SCOPE... with the scopes backup, cancel and
restore; # starts a comment, which is the caller's name in the access log. A change counts from
the next request on.

Exit codes: 0 after a graceful stop (SIGTERM or SIGINT), 2 for wrong flags or files, 1 for any
other failure and when a second signal forces the stop.";

/// Streams a backup of the MySQL or MariaDB server beside it over HTTP, and says in a trailer
/// whether it is complete.
#[derive(Debug, Parser)]
#[command(name = "towline-agent", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(super) struct Flags {
    /// Address of /v1, where backups are pulled from
    #[arg(
        long,
        env = "TOWLINE_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:8474"
    )]
    pub(super) listen: SocketAddr,

    /// Address of /livez, /readyz and /metrics, which need no credentials
    #[arg(
        long,
        env = "TOWLINE_ADMIN_LISTEN",
        value_name = "IP:PORT",
        default_value = "[::]:8475"
    )]
    pub(super) admin_listen: SocketAddr,

    /// File of bearer tokens and their scopes; re-read when it changes
    #[arg(long, env = "TOWLINE_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// Certificate of the agent and those between it and its CA (PEM): serve HTTPS; re-read when it
    /// changes
    #[arg(long, env = "TOWLINE_TLS_CERT", value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert (PEM); re-read when it changes
    #[arg(long, env = "TOWLINE_TLS_KEY", value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,

    /// Certificates of the CAs (PEM) one of which must have signed a caller's certificate; re-read
    /// when it changes
    #[arg(long, env = "TOWLINE_CLIENT_CA", value_name = "FILE")]
    pub(super) client_ca: Option<PathBuf>,

    /// DNS name or URI that a caller's certificate must have as a subject alternative name;
    /// repeatable, one of them is enough
    #[arg(
        long,
        env = "TOWLINE_ALLOWED_CLIENT",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(super) allowed_client: Vec<String>,

    /// Let everybody do everything; only with --listen on a loopback address
    #[arg(long, env = "TOWLINE_NO_AUTH", value_parser = BoolishValueParser::new())]
    pub(super) no_auth: bool,

    /// Serve plain HTTP on an address that others reach: tokens and backups can be read on the way
    #[arg(long, env = "TOWLINE_INSECURE_HTTP", value_parser = BoolishValueParser::new())]
    pub(super) insecure_http: bool,

    /// Unix socket of the database server [default: /run/mysqld/mysqld.sock]
    #[arg(
        long,
        env = "TOWLINE_DB_SOCKET",
        value_name = "PATH",
        conflicts_with = "db_host"
    )]
    pub(super) db_socket: Option<PathBuf>,

    /// Host of the database server, instead of its socket
    #[arg(long, env = "TOWLINE_DB_HOST", value_name = "HOST")]
    pub(super) db_host: Option<String>,

    /// Port of the database server, with --db-host [default: 3306]
    #[arg(long, env = "TOWLINE_DB_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) db_port: Option<u16>,

    /// User for the database
    #[arg(
        long,
        env = "TOWLINE_DB_USER",
        value_name = "USER",
        default_value = "towline"
    )]
    pub(super) db_user: String,

    /// File with the user's password; re-read at every connection. None: the server needs none
    #[arg(long, env = "TOWLINE_DB_PASSWORD_FILE", value_name = "FILE")]
    pub(super) db_password_file: Option<PathBuf>,

    /// Kind of backup when a request names none [default: physical where a tool for it is installed]
    #[arg(long, env = "TOWLINE_METHOD", value_name = "METHOD", value_enum)]
    pub(super) method: Option<MethodFlag>,

    /// Memory for output while the tool holds locks, so that a slow reader does not prolong them
    #[arg(long, env = "TOWLINE_LOCK_BUFFER", value_name = "SIZE", default_value = "64MiB", value_parser = parse_bytes)]
    pub(super) lock_buffer: u64,

    /// Longest time that locks may block writes while the reader is too slow; then the backup dies
    #[arg(long, env = "TOWLINE_MAX_LOCK_SECONDS", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) max_lock_seconds: u64,

    /// End a backup whose reader has taken nothing for so long
    #[arg(long, env = "TOWLINE_STALL_TIMEOUT", value_name = "DURATION", default_value = "300s", value_parser = parse_duration)]
    pub(super) stall_timeout: Duration,

    /// From SIGTERM to the close of the listener: time for /readyz to be noticed
    #[arg(long, env = "TOWLINE_DRAIN_DELAY", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub(super) drain_delay: Duration,

    /// From SIGTERM to the cancellation of a running backup: the pod's grace period less 10 s
    #[arg(long, env = "TOWLINE_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    pub(super) drain_timeout: Duration,

    /// Most bytes a second of one backup, whatever a request asks for; lifted while locks are held
    #[arg(long, env = "TOWLINE_MAX_RATE", value_name = "SIZE", value_parser = parse_bytes)]
    pub(super) max_rate: Option<u64>,

    /// Public key of age (age1...) that every archive is encrypted to; repeatable. A request may name
    /// more, not fewer
    #[arg(
        long,
        env = "TOWLINE_REQUIRE_RECIPIENT",
        value_name = "RECIPIENT",
        value_delimiter = ','
    )]
    pub(super) require_recipient: Vec<String>,

    /// Back up a Galera node too, which may block the whole cluster for as long as locks are held
    #[arg(long, env = "TOWLINE_ALLOW_GALERA", value_parser = BoolishValueParser::new())]
    pub(super) allow_galera: bool,

    /// Take archives at POST /v1/restore and load them into the server: the token needs the scope restore,
    /// and the database user the grants of deploy/grants/*-restore.sql
    #[arg(long, env = "TOWLINE_ALLOW_RESTORE", value_parser = BoolishValueParser::new())]
    pub(super) allow_restore: bool,

    /// Format of the log
    #[arg(long, env = "TOWLINE_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub(super) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum MethodFlag {
    /// Copies of the data files
    Physical,
    /// SQL
    Logical,
}

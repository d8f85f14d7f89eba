//! The agent's process: arguments, log, signals, and one call into the library.

use prometheus::Registry;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use towline_agent::backup::{BackupMetrics, Engine};
use towline_agent::build::Build;
use towline_agent::config::{AuthConfig, ClientsConfig, Config, ConfigError, LogFormat};
use towline_agent::error::{AgentError, EXIT_CONFIG, EXIT_OK, EXIT_RUNTIME};
use towline_agent::metrics::{HttpMetrics, TlsMetrics};
use towline_agent::server::{
    Auth, ClientCertificates, Limits, Server, Tls, TlsFlags, TokenFile, listen,
};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const BUILD: Build = Build::new(option_env!("TOWLINE_COMMIT"));
static VERSION: LazyLock<String> = LazyLock::new(|| BUILD.to_string());

/// Connections to each listener.
const CONNECTIONS: usize = 256;
/// Time for a request's head.
const HEADER_READ: Duration = Duration::from_secs(10);
/// How long an HTTP/2 connection may carry nothing.
const IDLE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let config = match Config::parse(&VERSION, std::env::args_os()) {
        Ok(config) => config,
        Err(ConfigError::Usage(error)) => {
            // Help and version go to stdout, the rest to stderr; a closed one changes nothing.
            let _ = error.print();
            return if error.use_stderr() {
                EXIT_CONFIG.into()
            } else {
                EXIT_OK.into()
            };
        }
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_CONFIG.into();
        }
    };
    log_to_stderr(config.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|source| AgentError::System {
        doing: "start threads",
        source,
    });
    let code = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(config));
            // What is left is cut, and with it the tools.
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        }
        Err(error) => Err(error),
    };
    match code {
        Ok(code) => code.into(),
        Err(error) => {
            tracing::error!(%error, "the agent ends");
            error.exit_code().into()
        }
    }
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}

async fn run(config: Config) -> Result<u8, AgentError> {
    let handle = |kind| {
        signal(kind).map_err(|source| AgentError::System {
            doing: "handle signals",
            source,
        })
    };
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let mut stop_signal = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };

    let registry = Registry::new();
    let (auth, tls) = access(&config, &registry).await?;
    let metrics = HttpMetrics::new(&registry)?;
    BUILD.register("towline_agent_build_info", &registry)?;
    let api = listen(config.listen, "--listen")?;
    let admin = listen(config.admin_listen, "--admin-listen")?;
    let address = |listener: &tokio::net::TcpListener| {
        listener.local_addr().map_err(|source| AgentError::System {
            doing: "read a listener's address",
            source,
        })
    };
    tracing::info!(
        version = BUILD.version,
        commit = BUILD.commit,
        listen = %address(&api)?,
        admin_listen = %address(&admin)?,
        database = %config.engine.database.address,
        database_user = config.engine.database.user,
        auth = match auth {
            Auth::Open => "none",
            Auth::Tokens(_) => "tokens",
            Auth::Certificates(_) => "certificates",
            Auth::Both(..) => "certificates and tokens",
        },
        tls = tls.is_some(),
        required_recipients = config.engine.require_recipients.len(),
        "towline-agent starts"
    );
    let limits = Limits {
        connections: CONNECTIONS,
        header_read: HEADER_READ,
        idle: IDLE,
        // Longer than a stall may last, so that a stalled reader ends as one.
        unacknowledged: config
            .engine
            .stall_timeout
            .saturating_add(Duration::from_secs(30)),
    };
    let drain = config.drain;
    let engine = Engine::new(config.engine, BackupMetrics::new(&registry)?);
    tokio::spawn(first_look(engine.clone()));
    let server = Server {
        backups: Arc::new(engine),
        auth,
        tls,
        metrics,
        registry,
        limits,
        drain,
    };

    let (drain_now, draining) = tokio::sync::oneshot::channel();
    let serving = server.run(api, admin, async {
        // A dropped sender is a stop, too.
        let _ = draining.await;
    });
    let stopped_by_force = async {
        let first = stop_signal().await;
        tracing::info!(
            signal = first,
            "signal received; a second one stops at once"
        );
        let _ = drain_now.send(());
        stop_signal().await
    };
    tokio::select! {
        () = serving => Ok(EXIT_OK),
        signal = stopped_by_force => {
            tracing::warn!(signal, "stopped at once");
            Ok(EXIT_RUNTIME)
        }
    }
}

/// Reads the files that say who may call, and the agent's own certificate.
async fn access(config: &Config, registry: &Registry) -> Result<(Auth, Option<Tls>), AgentError> {
    let tokens = |file: &PathBuf| TokenFile::open(file.clone());
    let certificates = async |clients: &ClientsConfig| {
        ClientCertificates::open(clients.ca.clone(), clients.allowed.clone(), TlsFlags::AGENT)
            .await
            .map(Arc::new)
    };
    let (auth, clients) = match &config.auth {
        AuthConfig::Open => (Auth::Open, None),
        AuthConfig::Tokens(file) => (Auth::Tokens(tokens(file).await?), None),
        AuthConfig::Certificates(clients) => {
            let clients = certificates(clients).await?;
            (Auth::Certificates(clients.clone()), Some(clients))
        }
        AuthConfig::Both(clients, file) => {
            let clients = certificates(clients).await?;
            (
                Auth::Both(clients.clone(), tokens(file).await?),
                Some(clients),
            )
        }
    };
    let tls = match &config.tls {
        Some(files) => {
            let (cert, key) = (files.cert.clone(), files.key.clone());
            let metrics = TlsMetrics::new(registry)?;
            Some(Tls::open(cert, key, clients, Some(metrics), TlsFlags::AGENT).await?)
        }
        None => None,
    };
    Ok((auth, tls))
}

/// Says in the log whether the database answers. The agent starts either way: its readiness never
/// depends on the database, which mostly starts at the same time.
async fn first_look(engine: Engine) {
    match engine.server_info().await {
        Ok(info) => {
            tracing::info!(flavour = %info.flavour, version = info.version, "the database answers")
        }
        Err(error) => {
            tracing::warn!(%error, "the database does not answer yet; every backup tries again")
        }
    }
}

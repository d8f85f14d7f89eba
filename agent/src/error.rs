//! Why the agent could not start or could not go on, and the exit code that says so.

use crate::config::ConfigError;
use crate::server::FileError;
use std::io;
use std::net::SocketAddr;

/// Exit code of a graceful stop.
pub const EXIT_OK: u8 = 0;
/// Exit code of a failure while starting or running, and of a stop that a second signal forced.
pub const EXIT_RUNTIME: u8 = 1;
/// Exit code of wrong flags, variables or files.
pub const EXIT_CONFIG: u8 = 2;

/// Why the agent ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Flags or variables are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of tokens, certificates or keys cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A listener cannot be opened.
    #[error(
        "cannot listen on {address}: {source}; is another process there? {flag} chooses another address"
    )]
    Listen {
        /// The address wanted.
        address: SocketAddr,
        /// The flag that chooses it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses something every process is given.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was refused.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Two metrics have one name: a fault of the agent.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl AgentError {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::File(_) => EXIT_CONFIG,
            Self::Listen { .. } | Self::System { .. } | Self::Metrics(_) => EXIT_RUNTIME,
        }
    }
}

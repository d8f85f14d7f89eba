//! How `towline` speaks TLS to an agent.

use super::CliError;
use crate::agent_client::{Tls, TlsError};
use clap::Args;
use std::path::{Path, PathBuf};

/// For an agent at `https://…`.
#[derive(Args, Debug)]
pub(super) struct TlsArgs {
    /// CA certificates in PEM; no other is trusted [default: the system's CAs]
    #[arg(long, value_name = "FILE", help_heading = "Agent")]
    ca_file: Option<PathBuf>,

    /// Our certificate in PEM, for an agent that wants one; with --client-key
    #[arg(long, value_name = "FILE", help_heading = "Agent")]
    client_cert: Option<PathBuf>,

    /// The key of --client-cert, in PEM
    #[arg(long, value_name = "FILE", help_heading = "Agent")]
    client_key: Option<PathBuf>,

    /// Name that the agent's certificate must have [default: the host of the agent's URL]
    #[arg(long, value_name = "NAME", help_heading = "Agent")]
    server_name: Option<String>,
}

impl TlsArgs {
    /// What the flags make, for the agent at `base`.
    pub(super) fn open(&self, base: &url::Url) -> Result<Option<Tls>, CliError> {
        if base.scheme() != "https" {
            let given = [
                ("--ca-file", self.ca_file.is_some()),
                ("--client-cert", self.client_cert.is_some()),
                ("--client-key", self.client_key.is_some()),
                ("--server-name", self.server_name.is_some()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(CliError::usage(format!(
                    "{flag} is for TLS, but the agent's URL is {base}: write https://, or leave {flag} out"
                ))),
                None => Ok(None),
            };
        }
        let ca = self.ca_file.as_deref().map(|f| read("--ca-file", f));
        let ca = ca.transpose()?;
        let client = match (&self.client_cert, &self.client_key) {
            (Some(chain), Some(key)) => {
                Some((read("--client-cert", chain)?, read("--client-key", key)?))
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(CliError::usage(
                    "--client-cert needs --client-key, the file with its key",
                ));
            }
            (None, Some(_)) => {
                return Err(CliError::usage(
                    "--client-key needs --client-cert, the file with its certificate",
                ));
            }
        };
        let client = client.as_ref().map(|(c, k)| (c.as_slice(), k.as_slice()));
        let tls = Tls::new(ca.as_deref(), client, self.server_name.as_deref());
        tls.map(Some).map_err(|error| {
            let at = |flag: &str, file: &Option<PathBuf>| {
                let file = file.as_deref().unwrap_or(Path::new(""));
                CliError::usage(format!("{flag}: {} {error}", file.display()))
            };
            match error {
                TlsError::Ca(_) => at("--ca-file", &self.ca_file),
                TlsError::ClientCertificate(_) => at("--client-cert", &self.client_cert),
                TlsError::ClientKey(_) => at("--client-key", &self.client_key),
                TlsError::ServerName(_) => CliError::usage(format!("--server-name: {error}")),
                TlsError::System(_) => CliError::usage(format!("{error} in --ca-file")),
            }
        })
    }
}

fn read(flag: &str, file: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(file)
        .map_err(|e| CliError::usage(format!("{flag}: {} cannot be read: {e}", file.display())))
}

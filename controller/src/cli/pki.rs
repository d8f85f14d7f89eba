//! `towline pki`: a CA in a folder, and Secrets on standard output.

use super::{CliError, store::dns_name};
use crate::pki::{Authority, Issued, PkiError, Usage};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// Which certificates to make.
#[derive(Args, Debug)]
#[command(after_help = "\
Two Secrets go to standard output, of type kubernetes.io/tls and with the keys of cert-manager
(tls.crt, tls.key, ca.crt): NAME-agent-tls for the agents of the namespace, NAME-client-tls for
the BackupJobs in it. The CA stays in the folder; its key never goes into the cluster. Run again
with the same folder, the same CA signs new certificates; agents and controller need no restart.

  towline pki --dir pki --namespace shop --agent-name agent.shop --client-name towline-controller \\
    | kubectl apply --server-side -f -")]
pub(super) struct PkiArgs {
    /// Folder of the CA: ca.crt and ca.key, made when there are none
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Namespace of the Secrets
    #[arg(short, long, value_name = "NAME", value_parser = dns_name)]
    namespace: String,

    /// What the names of the Secrets begin with
    #[arg(long, value_name = "NAME", default_value = "towline", value_parser = dns_name)]
    name: String,

    /// DNS name or address in the agents' certificate, repeatable: the serverName of a source
    #[arg(long, value_name = "NAME", required = true)]
    agent_name: Vec<String>,

    /// Name in the controller's certificate: the agents' --allowed-client
    #[arg(long, value_name = "NAME")]
    client_name: String,

    /// Days until the certificates end
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

impl PkiArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let now = Timestamp::now();
        let (authority, certificates) = self.authority(now)?;
        let lifetime = Duration::from_secs(u64::from(self.days) * 86_400);
        let issue = |flag: &str, usage, names: &[String]| {
            let issued = authority.issue(usage, names, lifetime, now);
            issued.map_err(|e| match e {
                PkiError::Name(_) => CliError::usage(format!("{flag}: {e}")),
                _ => CliError::failed(e.to_string()),
            })
        };
        let agent = issue("--agent-name", Usage::Server, &self.agent_name)?;
        let client = issue(
            "--client-name",
            Usage::Client,
            std::slice::from_ref(&self.client_name),
        )?;
        let mut stream = String::new();
        for (part, issued) in [("agent", &agent), ("client", &client)] {
            let secret = serde_norway::to_string(&self.secret(part, issued, &certificates));
            let secret = secret.map_err(|e| CliError::failed(e.to_string()))?;
            stream.push_str("---\n");
            stream.push_str(&secret);
        }
        let mut out = io::stdout().lock();
        out.write_all(stream.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| CliError::failed(format!("the Secrets could not be written: {e}")))?;
        self.explain(agent.not_after, lifetime, now);
        Ok(())
    }

    /// The CA of the folder, and all certificates in its file: what follows the first is trusted too.
    fn authority(&self, now: Timestamp) -> Result<(Authority, String), CliError> {
        let (certificate, key) = (self.dir.join("ca.crt"), self.dir.join("ca.key"));
        match (certificate.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => self.create(&certificate, &key, now)?,
            (true, false) => {
                return Err(CliError::failed(format!(
                    "{} is there without {}: put the key back, or remove the certificate to make a new CA",
                    certificate.display(),
                    key.display()
                )));
            }
            (false, true) => {
                return Err(CliError::failed(format!(
                    "{} is there without {}: put the certificate back, or remove the key to make a new CA",
                    key.display(),
                    certificate.display()
                )));
            }
        }
        let read = |file: &Path| {
            fs::read_to_string(file)
                .map_err(|e| CliError::failed(format!("{}: {e}", file.display())))
        };
        let certificates = read(&certificate)?;
        let authority = Authority::read(&certificates, &read(&key)?, now).map_err(|error| {
            let (file, remedy) = match error {
                PkiError::NoKey | PkiError::OtherKey => (&key, "put the right key back"),
                PkiError::Expired(_) => (
                    &certificate,
                    "remove ca.crt and ca.key to make a new CA, and give the new ca.crt to whoever trusts the old one",
                ),
                _ => (&certificate, "put the right certificate back"),
            };
            CliError::failed(format!("{} {error}: {remedy}", file.display()))
        })?;
        Ok((authority, certificates))
    }

    fn create(&self, certificate: &Path, key: &Path, now: Timestamp) -> Result<(), CliError> {
        let (certificate_pem, key_pem) =
            Authority::create(now).map_err(|e| CliError::failed(e.to_string()))?;
        let write = |file: &Path, mode, text: &str| {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(mode).open(file)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .and_then(|()| write(key, 0o600, &key_pem))
            .and_then(|()| write(certificate, 0o644, &certificate_pem))
            .map_err(|e| {
                CliError::failed(format!(
                    "no CA could be made in {}: {e}",
                    self.dir.display()
                ))
            })?;
        eprintln!(
            "towline: made a CA: {}, for ten years; keep {} safe and out of the cluster",
            certificate.display(),
            key.display()
        );
        Ok(())
    }

    fn secret(&self, part: &str, issued: &Issued, certificates: &str) -> Secret {
        let data = [
            ("ca.crt", certificates),
            ("tls.crt", &issued.certificate),
            ("tls.key", &issued.key),
        ];
        let mut secret = Secret {
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(BTreeMap::from(
                data.map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec()))),
            )),
            ..Secret::default()
        };
        secret.metadata.name = Some(format!("{}-{part}-tls", self.name));
        secret.metadata.namespace = Some(self.namespace.clone());
        secret
    }

    /// Notes for people.
    fn explain(&self, not_after: Timestamp, lifetime: Duration, now: Timestamp) {
        let name = &self.name;
        eprintln!(
            "towline: {name}-agent-tls is for the agents: --tls-cert=…/tls.crt --tls-key=…/tls.key --client-ca=…/ca.crt --allowed-client={}",
            self.client_name
        );
        eprintln!(
            "towline: {name}-client-tls is for BackupJobs: source.tls: {{serverName: {}, caSecretRef: {{name: {name}-client-tls}}, clientCertSecretRef: {{name: {name}-client-tls}}}}",
            self.agent_name[0]
        );
        eprintln!(
            "towline: both end at {not_after}; run this again well before that, nothing needs a restart"
        );
        if Duration::try_from(not_after.duration_since(now))
            .is_ok_and(|left| left + Duration::from_secs(1) < lifetime)
        {
            eprintln!(
                "towline: that is earlier than --days says, for the CA itself ends then: docs/tls.md tells how to replace it"
            );
        }
    }
}

//! `towline backup`: one attempt at one backup.

use super::{
    CliError, Exit, human,
    store::{StoreArgs, dns_name},
    tls::TlsArgs,
    token,
};
use crate::{
    agent_client::{
        Endpoint,
        trace::{Trace, Waterfall},
    },
    catalog::{self, JobIdentity, Manifest, Outcome},
    reason::FailureReason,
    storage::Store,
    transfer::{self, BackupParameters, Failure, Progress, Transfer},
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use towline_agent::archive::{Recipient, encryption::RecipientError};

/// A log line without a terminal, every so often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What to back up, and where to.
#[derive(Args, Debug)]
#[command(after_help = "\
On Ctrl-C the upload is aborted and nothing is left in the store.

The last line on standard output is for scripts:
  KEY bytes=N sha256=HEX duration=SECONDSs")]
pub(super) struct BackupArgs {
    /// The agent, https://HOST:PORT, or http://HOST:PORT in plain text
    #[arg(long, value_name = "URL", help_heading = "Agent")]
    agent: Option<url::Url>,

    /// File whose first word is the agent's token; else the variable TOWLINE_TOKEN is taken
    #[arg(long, value_name = "FILE", help_heading = "Agent")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    tls: TlsArgs,

    /// Give up when nothing comes for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Agent")]
    stall_timeout: u64,

    /// Draw on standard error where the time of the pull went
    #[arg(long, help_heading = "Agent")]
    trace: bool,

    /// physical (the server's files) or logical (SQL) [default: the agent's]
    #[arg(long, value_parser = ["physical", "logical"], help_heading = "Backup")]
    method: Option<String>,

    /// Schema to back up, repeatable; with --method logical [default: all]
    #[arg(long, value_name = "NAME", help_heading = "Backup")]
    database: Vec<String>,

    /// zstd or none [default: the agent's]
    #[arg(long, value_parser = ["zstd", "none"], help_heading = "Backup")]
    compression: Option<String>,

    /// zstd level [default: the agent's]
    #[arg(long, value_name = "1-19", value_parser = clap::value_parser!(u8).range(1..=19), help_heading = "Backup")]
    level: Option<u8>,

    /// Public key (age1...) to which the agent encrypts the archive, repeatable: whoever has the secret
    /// key of any of them can open it [default: the agent's, if it has some]
    #[arg(long, value_name = "KEY", help_heading = "Backup")]
    recipient: Vec<String>,

    /// Threads of the backup tool [default: the agent's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Backup")]
    parallel: Option<u16>,

    /// Bytes a second at most [default: the agent's]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Backup")]
    max_rate: Option<u64>,

    /// Second folder in the store [default: the agent's host]
    #[arg(long, value_name = "NAME", value_parser = dns_name, help_heading = "Store")]
    name: Option<String>,

    #[command(flatten)]
    store: StoreArgs,
}

impl BackupArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Some(base) = self.agent.clone() else {
            return Err(CliError::usage(
                "give --agent https://HOST:PORT: working through the cluster, without --agent, comes in a later version",
            ));
        };
        check_recipients(&self.recipient)?;
        let tls = self.tls.open(&base)?;
        let store = Arc::new(self.store.open_for_transfer().await?);
        let name = match &self.name {
            Some(name) => name.clone(),
            None => dns_name(&base.host_str().unwrap_or_default().to_ascii_lowercase()).map_err(
                |_| CliError::usage("the agent's host cannot be a folder's name: give --name"),
            )?,
        };
        let job = JobIdentity {
            cluster_id: "cli".to_owned(),
            namespace: self.store.namespace.clone(),
            job_name: name,
            job_uid: uuid::Uuid::new_v4().to_string(),
            schedule_name: None,
            schedule_uid: None,
            store_uid: None,
            created: jiff::Timestamp::now(),
        };
        let waterfall = self.trace.then(|| Arc::new(Waterfall::default()));
        let transfer = Transfer {
            job: job.clone(),
            attempt: 1,
            agent: Endpoint {
                base,
                token: token(self.token_file.as_deref())?,
                tls,
                allow_local_addresses: true,
            },
            parameters: BackupParameters {
                method: self.method,
                compression: self.compression,
                level: self.level,
                parallel: self.parallel,
                databases: self.database,
                recipients: self.recipient,
                max_rate: self.max_rate,
            },
            store: Arc::clone(&store),
            stall_timeout: Duration::from_secs(self.stall_timeout),
            trace: waterfall.clone().map_or(Trace::none(), |w| Trace::of(w)),
        };

        // An error of its own class, which the transfer's reason could not tell.
        catalog::read_decision(&store, &job).await?;

        let cancel = CancellationToken::new();
        let signals = tokio::spawn(cancel_on_signal(cancel.clone()));
        let started = Instant::now();
        let (progress, watched) = watch::channel(Progress::default());
        let shown = tokio::spawn(show(watched));
        let outcome = transfer::run(transfer, progress, cancel).await;
        // The sender is gone, so it ends; the bar is off the screen before anything else is said.
        let _ = shown.await;
        signals.abort();
        if let Some(waterfall) = waterfall {
            eprint!("{}", waterfall.draw());
        }
        let manifest = match outcome {
            Ok(success) => success.manifest,
            Err(failure) => settle(&store, &job, failure).await?,
        };
        println!(
            "{} bytes={} sha256={} duration={:.1}s",
            manifest.identity.folder(),
            manifest.bytes,
            manifest.sha256,
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

/// A mistake is told before anything is asked of anybody, and without the text: it may be a secret.
fn check_recipients(recipients: &[String]) -> Result<(), CliError> {
    for text in recipients {
        text.parse::<Recipient>().map_err(|error| {
            CliError::usage(match error {
                RecipientError::Secret => "--recipient: this is a secret key, which only who restores needs: give its public key, as age-keygen -y prints it".to_owned(),
                error => format!("--recipient: {error}"),
            })
        })?;
    }
    Ok(())
}

/// Leaves nothing behind. A complete whose answer was lost may have been a backup after all.
async fn settle(store: &Store, job: &JobIdentity, failure: Failure) -> Result<Manifest, CliError> {
    let exit = match failure.reason {
        FailureReason::AgentUnreachable => Exit::Unreachable,
        FailureReason::InvalidSpec => Exit::Usage,
        _ => Exit::Failed,
    };
    let mut message = format!("{}: {}", failure.reason, failure.message);
    if failure.complete_tried {
        let cleaned = async {
            let decision = catalog::abandon(store, job, 1, jiff::Timestamp::now()).await?;
            if decision.outcome == Outcome::Abandoned {
                catalog::clean_attempt(store, job, 1).await?;
            }
            Ok::<_, crate::storage::StoreError>(decision)
        };
        match cleaned.await {
            Ok(decision) if decision.outcome == Outcome::Complete => return Ok(decision),
            Ok(_) => {}
            Err(error) => {
                message.push_str(&format!(
                    "; the folder {} could not be cleaned up: {error}",
                    job.folder()
                ));
            }
        }
    }
    if let Some(after) = failure.retry_after {
        message.push_str(&format!("; try again after {} s", after.as_secs()));
    }
    Err(CliError { exit, message })
}

async fn cancel_on_signal(cancel: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("towline: stopping; the upload is being aborted");
    cancel.cancel();
}

/// A bar on a terminal, a line now and then elsewhere. Ends when the transfer drops its side.
async fn show(mut progress: watch::Receiver<Progress>) {
    let started = Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(
            "{spinner} {binary_bytes} at {binary_bytes_per_sec}, {elapsed} {msg}",
        );
        ProgressBar::new_spinner()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
    });
    let mut told = Instant::now();
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        if let Some(bar) = &bar {
            if let Some(estimate) = now.estimated_bytes {
                // Of the data before compression, so no percentage follows from it.
                bar.set_message(format!("(about {} of data)", human(estimate)));
            }
            bar.set_position(now.bytes);
            bar.tick();
        } else if told.elapsed() >= LOG_INTERVAL {
            told = Instant::now();
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("towline: {} bytes received in {seconds:.0} s", now.bytes);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

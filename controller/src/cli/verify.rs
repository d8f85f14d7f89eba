//! `towline verify`: reads a backup back and says what that proved.

mod deep;

use super::{
    CliError, position,
    store::StoreArgs,
    which::{self, IdentityArgs, WhichArgs},
};
use crate::{
    catalog::Manifest,
    logical_restore::Backup,
    restore_pod::{Check, Report},
    storage::Store,
    stored_archive::{StoredArchive, StoredError},
};
use clap::Args;
use std::{io, path::PathBuf, sync::Arc};
use towline_agent::{
    archive::{self, Identities, Verified},
    restore::Measured,
};

/// Which backup to read.
#[derive(Args, Debug)]
#[command(
    after_help = "Reads every byte of the backup, but restores nothing: only a restore proves that it restores, \
which --deep does in a folder that is removed afterwards. An encrypted backup is opened with --identity; without it \
only its size and its SHA-256 are checked."
)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    which: WhichArgs,

    #[command(flatten)]
    identities: IdentityArgs,

    /// Restore it too, start a server on it that nobody else reaches, check every table, and remove it all. The
    /// programs of the backup's release series have to be here: server, client and backup tool
    #[arg(long, help_heading = "Drill")]
    deep: bool,

    /// With --deep: ask this too, and compare the answer as text where one is given; repeatable
    #[arg(long = "check", value_name = "SQL[=>VALUE]", requires = "deep", value_parser = deep::parse_check, help_heading = "Drill")]
    checks: Vec<Check>,

    /// With --deep: restore into a folder in this one, which needs room for the data [default: the system's for
    /// such]
    #[arg(long, value_name = "DIR", requires = "deep", help_heading = "Drill")]
    tmp: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,
}

impl VerifyArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let which = self.which.which()?;
        let identities = self.identities.open()?;
        let store = Arc::new(self.store.open(true)?);
        let manifest = which::find(&store, &self.store.namespace, &which).await?;
        if !self.deep {
            let verified = read_back(&store, &manifest, identities).await?;
            print!("{}", proven(&manifest, verified.as_ref()));
            return Ok(());
        }
        if manifest.is_encrypted() && identities.is_empty() {
            return Err(CliError::usage(format!(
                "{} is encrypted: give --identity FILE, with the secret key of one of its recipients",
                manifest.identity.folder()
            )));
        }
        let folder = manifest.identity.folder();
        let backup = Backup {
            store,
            manifest,
            identities: Arc::new(identities),
        };
        let report = deep::drill(&backup, self.tmp.as_deref(), &self.checks).await?;
        print!("{}", drilled(&folder, &report));
        match report.reason {
            None => Ok(()),
            Some(reason) => Err(CliError::failed(format!("{reason}: {}", report.message))),
        }
    }
}

/// Reads the objects through the sums. `None`: the archive is encrypted and nobody opens it, so its own
/// sums were not checked.
async fn read_back(
    store: &Arc<Store>,
    manifest: &Manifest,
    identities: Identities,
) -> Result<Option<Verified>, CliError> {
    let opened = !manifest.is_encrypted() || !identities.is_empty();
    let mut stored = Measured::new(StoredArchive::open(Arc::clone(store), manifest), None);
    let reading = tokio::task::spawn_blocking(move || {
        let verified = opened.then(|| archive::verify_with(&identities, &mut stored, io::sink()));
        // Behind a fault the rest is read all the same, for the sum says whether the store or the
        // archive is at fault.
        stored.finish().map(|found| (verified, found.sha256))
    });
    let lost = |e| CliError::failed(format!("the archive's reader ended without an answer: {e}"));
    let (verified, sum) = reading.await.map_err(lost)?.map_err(|error| {
        StoredError::of(&error).map_or_else(
            || CliError::failed(error.to_string()),
            |stored| stored.clone().into(),
        )
    })?;
    if sum != manifest.sha256 {
        return Err(CliError::failed(format!(
            "the objects have the SHA-256 {sum}, the manifest says {}: the store has changed data",
            manifest.sha256
        )));
    }
    let Some(verified) = verified
        .transpose()
        .map_err(|e| CliError::failed(format!("the bytes are as they were stored, but {e}")))?
    else {
        return Ok(None);
    };
    let id = &verified.metadata.backup_id;
    if !manifest.backup_id.is_empty() && *id != manifest.backup_id {
        return Err(CliError::failed(format!(
            "the archive is of backup {id:?}, the manifest speaks of {:?}",
            manifest.backup_id
        )));
    }
    Ok(Some(verified))
}

/// What a drill found, line by line.
fn drilled(folder: &str, report: &Report) -> String {
    let verdict = match report.reason {
        None => "good, restored and asked",
        Some(reason) if reason.blames_backup() => "failed its drill",
        Some(_) => "not proven: the drill could not be carried out",
    };
    let mut lines = vec![format!("{folder}: {verdict}")];
    lines.extend(report.checks.iter().map(|check| {
        let word = if check.passed { "passed" } else { "FAILED" };
        format!("  {word}  {}: {}", check.check, check.found)
    }));
    if let Some(rows) = report.rows {
        lines.push(format!("  tables    {} with {rows} rows", report.tables));
        lines.push(format!("  position  {}", position(&report.position)));
    }
    plain(&lines.join("\n"))
}

/// What an archive or a server says of itself is a peer's text: without control characters.
fn plain(text: &str) -> String {
    text.lines()
        .map(|l| l.chars().filter(|c| !c.is_control()).collect::<String>() + "\n")
        .collect()
}

/// What was proven, line by line.
fn proven(manifest: &Manifest, verified: Option<&Verified>) -> String {
    let found = if verified.is_some() {
        "good"
    } else {
        "as it was stored, but not opened"
    };
    let mut out = format!(
        "{}: {found}\n  objects   {} with {} bytes, SHA-256 as in the manifest\n",
        manifest.identity.folder(),
        manifest.objects.len(),
        manifest.bytes
    );
    let Some(Verified { metadata, summary }) = verified else {
        out.push_str(
            "  archive   encrypted, so nothing in it was checked: give --identity FILE to open it\n",
        );
        return out;
    };
    let tables: usize = summary.schemas.values().map(Vec::len).sum();
    out.push_str(&format!(
        "  archive   {} data members with {} bytes, each as in SHA256SUMS\n  server    {} {}, {} by {}\n  tables    {tables} in {} schemas\n  position  {}\n",
        summary.data_members,
        summary.data_bytes,
        metadata.server_flavour,
        metadata.server_version,
        metadata.method,
        metadata.tool,
        summary.schemas.len(),
        position(&summary.position),
    ));
    plain(&out)
}

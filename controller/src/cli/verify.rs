//! `towline verify`: reads a backup back and says what that proved.

use super::{CliError, store::StoreArgs};
use crate::{
    catalog::{self, Listed, Manifest, Outcome},
    storage::Store,
};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf as _, Bytes};
use clap::Args;
use futures::StreamExt as _;
use object_store::path::Path;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use tokio::sync::mpsc;
use towline_agent::archive::{self, Identities, Position, Verified};

/// Pieces between the store and the reader; each is at most what the store's client reads at once.
const PIECES: usize = 8;

/// Which backup to read.
#[derive(Args, Debug)]
#[command(
    after_help = "Reads every byte of the backup, but restores nothing: only a restore proves that it restores. \
An encrypted one is opened with --identity; without it only its size and its SHA-256 are checked."
)]
pub(super) struct VerifyArgs {
    /// Which backup, as `towline ls` prints it
    #[arg(conflicts_with = "latest")]
    key: Option<String>,

    /// The newest backup of the namespace
    #[arg(long)]
    latest: bool,

    /// File with a secret key of age, to open encrypted backups; repeatable
    #[arg(short, long = "identity", value_name = "FILE")]
    identities: Vec<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,
}

impl VerifyArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        if self.key.is_none() && !self.latest {
            return Err(CliError::usage(
                "say which backup: its key, as towline ls prints it, or --latest",
            ));
        }
        let identities = self.identities()?;
        let store = self.store.open(true)?;
        let listed = catalog::list(&store, &self.store.namespace).await?;
        let manifest = self.choose(listed)?;
        let verified = read_back(&store, &manifest, identities).await?;
        print!("{}", proven(&manifest, verified.as_ref()));
        Ok(())
    }

    fn identities(&self) -> Result<Identities, CliError> {
        let mut identities = Identities::default();
        for path in &self.identities {
            File::open(path)
                .and_then(|file| identities.add(file))
                .map_err(|e| CliError::usage(format!("--identity {}: {e}", path.display())))?;
        }
        Ok(identities)
    }

    fn choose(&self, listed: Vec<Listed>) -> Result<Manifest, CliError> {
        let namespace = &self.store.namespace;
        let Some(key) = &self.key else {
            let complete = |l: Listed| l.manifest.ok().filter(|m| m.outcome == Outcome::Complete);
            // The list is sorted by time.
            return listed
                .into_iter()
                .filter_map(complete)
                .next_back()
                .ok_or_else(|| {
                    CliError::failed(format!("there is no backup in namespace {namespace}"))
                });
        };
        let wanted = key.trim_matches('/').trim_end_matches("/manifest.json");
        let is_it = |l: &Listed| {
            let folder = l.key.trim_end_matches("/manifest.json");
            folder == wanted
                || folder
                    .strip_suffix(wanted)
                    .is_some_and(|before| before.ends_with('/'))
        };
        let Some(found) = listed.into_iter().find(is_it) else {
            return Err(CliError::failed(format!(
                "there is no backup {wanted:?} in namespace {namespace}: see towline ls"
            )));
        };
        let manifest = found.manifest?;
        if manifest.outcome == Outcome::Abandoned {
            return Err(CliError::failed(format!(
                "{wanted} is no backup: it was given up at {}",
                manifest.time
            )));
        }
        Ok(manifest)
    }
}

/// Streams the objects through the sums. `None`: the archive is encrypted and nobody opens it, so its
/// own sums were not checked.
async fn read_back(
    store: &Store,
    manifest: &Manifest,
    identities: Identities,
) -> Result<Option<Verified>, CliError> {
    let encrypted = manifest
        .objects
        .first()
        .is_some_and(|o| o.key.ends_with(".age"));
    let opened = !encrypted || !identities.is_empty();
    let (sender, receiver) = mpsc::channel(PIECES);
    let reader = opened.then(|| {
        tokio::task::spawn_blocking(move || {
            let pieces = Pieces {
                receiver,
                current: Bytes::new(),
            };
            archive::verify_with(&identities, pieces, io::sink())
        })
    });
    let mut sender = Some(sender).filter(|_| opened);
    let mut sum = Context::new(&SHA256);
    for object in &manifest.objects {
        let key = Path::parse(&object.key)
            .map_err(|e| CliError::failed(format!("{:?} is no key: {e}", object.key)))?;
        let mut pieces = store.stream(&key).await?;
        let mut bytes = 0u64;
        while let Some(piece) = pieces.next().await {
            // On an error the sender is dropped before the end was said: the reader sees a cut.
            let piece = piece?;
            bytes += piece.len() as u64;
            sum.update(&piece);
            // A reader that has found a fault takes no more; the sum is computed all the same,
            // for it says whether the store or the archive is at fault.
            if let Some(open) = &sender
                && open.send(piece).await.is_err()
            {
                sender = None;
            }
        }
        if bytes != object.bytes {
            return Err(CliError::failed(format!(
                "{key} has {bytes} bytes, the manifest says {}: the store has lost or changed data",
                object.bytes
            )));
        }
    }
    drop(sender);
    let found = hex::encode(sum.finish());
    if found != manifest.sha256 {
        return Err(CliError::failed(format!(
            "the objects have the SHA-256 {found}, the manifest says {}: the store has changed data",
            manifest.sha256
        )));
    }
    let Some(reader) = reader else {
        return Ok(None);
    };
    let verified = reader
        .await
        .map_err(|e| {
            CliError::failed(format!("the archive's reader ended without an answer: {e}"))
        })?
        .map_err(|e| CliError::failed(format!("the bytes are as they were stored, but {e}")))?;
    let id = &verified.metadata.backup_id;
    if !manifest.backup_id.is_empty() && *id != manifest.backup_id {
        return Err(CliError::failed(format!(
            "the archive is of backup {id:?}, the manifest speaks of {:?}",
            manifest.backup_id
        )));
    }
    Ok(Some(verified))
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
    // What an archive says of itself is a peer's text too.
    out.lines()
        .map(|l| l.chars().filter(|c| !c.is_control()).collect::<String>() + "\n")
        .collect()
}

fn position(p: &Position) -> String {
    let mut parts = Vec::new();
    match (&p.binlog_file, p.binlog_position) {
        (Some(file), Some(at)) => parts.push(format!("binlog {file}:{at}")),
        (Some(file), None) => parts.push(format!("binlog {file}")),
        _ => {}
    }
    parts.extend(p.gtid.as_ref().map(|g| format!("GTID {g}")));
    parts.extend(p.lsn.map(|l| format!("LSN {l}")));
    if parts.is_empty() {
        "not known".to_owned()
    } else {
        parts.join(", ")
    }
}

/// The pieces as one stream for the archive's reader, on its own thread.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let take = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..take]);
        Ok(take)
    }
}

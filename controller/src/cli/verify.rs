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
use std::io::{self, Read};
use tokio::sync::mpsc;
use towline_agent::archive::{self, Position, Verified};

/// Pieces between the store and the reader; each is at most what the store's client reads at once.
const PIECES: usize = 8;

/// Which backup to read.
#[derive(Args, Debug)]
#[command(
    after_help = "Reads every byte of the backup, but restores nothing: only a restore proves that it restores."
)]
pub(super) struct VerifyArgs {
    /// Which backup, as `towline ls` prints it
    #[arg(conflicts_with = "latest")]
    key: Option<String>,

    /// The newest backup of the namespace
    #[arg(long)]
    latest: bool,

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
        let store = self.store.open(true)?;
        let listed = catalog::list(&store, &self.store.namespace).await?;
        let manifest = self.choose(listed)?;
        let verified = read_back(&store, &manifest).await?;
        print!("{}", proven(&manifest, verified.as_ref()));
        Ok(())
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

/// Streams the objects through the sums. `None`: the archive is encrypted, so its own sums were not checked.
async fn read_back(store: &Store, manifest: &Manifest) -> Result<Option<Verified>, CliError> {
    let encrypted = manifest
        .objects
        .first()
        .is_some_and(|o| o.key.ends_with(".age"));
    let (sender, receiver) = mpsc::channel(PIECES);
    let reader = (!encrypted).then(|| {
        tokio::task::spawn_blocking(move || {
            archive::verify(
                Pieces {
                    receiver,
                    current: Bytes::new(),
                },
                io::sink(),
            )
        })
    });
    let mut sender = Some(sender).filter(|_| !encrypted);
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
    let mut out = format!(
        "{}: good\n  objects   {} with {} bytes, SHA-256 as in the manifest\n",
        manifest.identity.folder(),
        manifest.objects.len(),
        manifest.bytes
    );
    let Some(Verified { metadata, summary }) = verified else {
        out.push_str(
            "  archive   encrypted: its own sums can be checked only by who holds the identity\n",
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

//! A stored logical backup into a running server: proven first, then loaded, by ourselves or through
//! the server's agent. The identity that opens it stays here.

use crate::{
    agent_client::{self, Endpoint, RestoreFailure},
    catalog::Manifest,
    reason::RestoreReason,
    storage::Store,
    stored_archive::StoredArchive,
};
use bytes::Bytes;
use std::{
    io::{self, Read as _},
    sync::Arc,
};
use tokio::sync::mpsc;
use towline_agent::{
    archive::{self, ArchiveError, Identities},
    database::Connection,
    restore::{
        LogicalOptions, Measured, Progress, RestoreError, Restored, Stage,
        logical::{self, Input, Proven},
    },
};

/// Bytes that are sent to an agent at once.
const PIECE: usize = 256 << 10;
/// Pieces between the store and the agent.
const PIECES: usize = 4;

/// A backup in a store, and who opens it.
#[derive(Clone)]
pub struct Backup {
    /// Where it lies.
    pub store: Arc<Store>,
    /// Its manifest.
    pub manifest: Manifest,
    /// Who opens it; none for one that is not encrypted.
    pub identities: Arc<Identities>,
}

impl Backup {
    fn archive(&self) -> StoredArchive {
        StoredArchive::open(Arc::clone(&self.store), &self.manifest)
    }

    /// Refuses what no server can take, before anything is read.
    fn is_logical(&self) -> Result<(), RestoreError> {
        if self.manifest.method == "physical" {
            return Err(RestoreError::Incompatible(
                "the backup is physical, which is restored into a directory or a volume, not into a running server"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Reads all of it, and proves it.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing was written anywhere.
    pub async fn prove(
        &self,
        options: &LogicalOptions,
        progress: &Progress,
    ) -> Result<Proven, RestoreError> {
        self.is_logical()?;
        let (archive, identities) = (self.archive(), Arc::clone(&self.identities));
        let expected = self.manifest.expected();
        let (options, progress) = (options.clone(), progress.clone());
        let reading = tokio::task::spawn_blocking(move || {
            logical::prove(archive, &identities, &expected, &options, &progress)
        });
        let proven = reading.await.map_err(|error| RestoreError::Io {
            doing: "reading the archive".to_owned(),
            source: io::Error::other(error),
        })??;
        let (id, found) = (
            &self.manifest.backup_id,
            &proven.verified.metadata.backup_id,
        );
        if !id.is_empty() && id != found {
            return Err(RestoreError::NotAsStored(format!(
                "the archive is of backup {found:?}, and its manifest speaks of {id:?}"
            )));
        }
        Ok(proven)
    }
}

/// Loads a backup into a server that is reached from here. `stop` resolves with a reason when somebody
/// wants the end.
///
/// # Errors
/// [`RestoreError`]. Once the second pass has begun, the databases that were begun are marked.
pub async fn into_server(
    backup: &Backup,
    connection: &Connection,
    options: &LogicalOptions,
    progress: &Progress,
    stop: impl Future<Output = String>,
) -> Result<Restored, RestoreError> {
    let mut stop = std::pin::pin!(stop);
    let proven = tokio::select! {
        why = &mut stop => return Err(RestoreError::Interrupted(why)),
        proven = backup.prove(options, progress) => proven?,
    };
    let input = Input {
        archive: backup.archive(),
        identities: Arc::clone(&backup.identities),
        expected: backup.manifest.expected(),
    };
    logical::load(input, &proven, connection, options, progress, stop).await
}

/// Loads a backup through a server's agent. `stop` resolves with a reason when somebody wants the end.
///
/// # Errors
/// [`RestoreFailure`].
pub async fn through_agent(
    backup: &Backup,
    agent: &Endpoint,
    options: &LogicalOptions,
    progress: &Progress,
    stop: impl Future<Output = String>,
) -> Result<Restored, RestoreFailure> {
    let mut written = false;
    let restored = tokio::select! {
        biased;
        why = stop => Err(RestoreFailure {
            reason: RestoreReason::Interrupted,
            message: why,
            written: false,
        }),
        restored = send(backup, agent, options, progress, &mut written) => restored,
    };
    progress.enter(Stage::Ended, 0);
    restored.map_err(|failure| RestoreFailure {
        written: failure.written || (written && failure.reason == RestoreReason::Interrupted),
        ..failure
    })
}

fn before(error: &RestoreError) -> RestoreFailure {
    RestoreFailure {
        reason: RestoreReason::of(error),
        message: error.to_string(),
        written: false,
    }
}

async fn send(
    backup: &Backup,
    agent: &Endpoint,
    options: &LogicalOptions,
    progress: &Progress,
    written: &mut bool,
) -> Result<Restored, RestoreFailure> {
    backup.is_logical().map_err(|error| before(&error))?;
    let (flavour, version) = (
        &backup.manifest.server_flavour,
        &backup.manifest.server_version,
    );
    // What would be refused in the end is refused before the archive is read.
    agent_client::can_restore(agent, flavour, version).await?;
    let proven = backup.prove(options, progress).await;
    let proven = proven.map_err(|error| before(&error))?;
    let (pieces, queue) = mpsc::channel(PIECES);
    let reading = {
        let (backup, plain) = (backup.clone(), proven.plain.clone());
        let archive = backup.archive();
        tokio::task::spawn_blocking(move || read(archive, &backup, &plain, &pieces))
    };
    *written = true;
    let sent = agent_client::restore(
        agent,
        &proven.wanted(options),
        &proven.plain,
        queue,
        progress,
    )
    .await;
    if let Err(mut failure) = sent {
        // What broke on this side is why it broke off on the other.
        if let Ok(Err(error)) = reading.await
            && failure.written
        {
            failure.reason = RestoreReason::of(&error);
            failure.message = format!("{error}; {}", failure.message);
        }
        return Err(failure);
    }
    let tables = proven
        .databases
        .iter()
        .filter_map(|name| proven.verified.summary.schemas.get(name))
        .map(|tables| tables.len() as u64)
        .sum();
    Ok(Restored {
        metadata: proven.verified.metadata,
        summary: proven.verified.summary,
        databases: proven.databases,
        tables,
    })
}

/// Reads the archive again, opens it, and passes it on. Its last piece goes only when all of it was what
/// it was in the first pass.
fn read(
    archive: StoredArchive,
    backup: &Backup,
    plain: &towline_agent::restore::Expected,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), RestoreError> {
    let result = pass_on(archive, backup, plain, pieces);
    if let Err(error) = &result {
        let _ = pieces.blocking_send(Err(io::Error::other(error.to_string())));
    }
    result
}

fn pass_on(
    archive: StoredArchive,
    backup: &Backup,
    plain: &towline_agent::restore::Expected,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), RestoreError> {
    let unreadable = |error| RestoreError::Archive(ArchiveError::of_opened(error));
    let mut stored = Measured::new(archive, None);
    let mut opened = Measured::new(archive::open(&backup.identities, &mut stored)?, None);
    let mut held: Option<Bytes> = None;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let limit = PIECE as u64;
        opened
            .by_ref()
            .take(limit)
            .read_to_end(&mut piece)
            .map_err(unreadable)?;
        if piece.is_empty() {
            break;
        }
        if let Some(before) = held.replace(piece.into())
            && pieces.blocking_send(Ok(before)).is_err()
        {
            // The agent takes no more, and says why.
            return Ok(());
        }
    }
    let opened = opened.finish().map_err(unreadable)?;
    plain.compare(&opened)?;
    let stored = stored.finish().map_err(unreadable)?;
    backup.manifest.expected().compare(&stored)?;
    if let Some(last) = held {
        let _ = pieces.blocking_send(Ok(last));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{JobIdentity, ObjectRef, Outcome},
        storage::{Location, StoreConfig},
    };
    use towline_agent::restore::Expected;

    /// Bytes of one object, and a manifest that speaks of them.
    async fn stored(dir: &tempfile::TempDir, bytes: &[u8]) -> Backup {
        let location = Location::File {
            root: dir.path().to_owned(),
            confined_to: None,
        };
        let store = Store::open(StoreConfig::new(location)).unwrap();
        let key = store.key("a").unwrap();
        store.put(&key, bytes.to_vec().into()).await.unwrap();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let Expected { bytes, sha256 } = Measured::new(bytes, None).finish().unwrap();
        let manifest = Manifest {
            format_version: 1,
            outcome: Outcome::Complete,
            identity: JobIdentity {
                cluster_id: "c".into(),
                namespace: "ns".into(),
                job_name: "j".into(),
                job_uid: "u".into(),
                schedule_name: None,
                schedule_uid: None,
                store_uid: None,
                created: now,
            },
            attempt: 1,
            time: now,
            objects: vec![ObjectRef {
                key: "a".into(),
                bytes,
            }],
            bytes,
            sha256,
            backup_id: String::new(),
            method: "logical".into(),
            server_flavour: String::new(),
            server_version: String::new(),
            position: Default::default(),
            start_time: now,
        };
        Backup {
            store: Arc::new(store),
            manifest,
            identities: Arc::default(),
        }
    }

    /// What an agent gets: the bytes, and whether they broke off.
    async fn sent(backup: &Backup, plain: &Expected) -> (Vec<u8>, bool, Option<RestoreReason>) {
        let (pieces, mut queue) = mpsc::channel(PIECES);
        let (archive, backup, plain) = (backup.archive(), backup.clone(), plain.clone());
        let reading = tokio::task::spawn_blocking(move || read(archive, &backup, &plain, &pieces));
        let (mut bytes, mut broken) = (Vec::new(), false);
        while let Some(piece) = queue.recv().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(_) => broken = true,
            }
        }
        let ended = reading.await.unwrap();
        (bytes, broken, ended.err().as_ref().map(RestoreReason::of))
    }

    /// Altered between the passes, the archive never arrives whole, so no agent can take it for that.
    #[tokio::test]
    async fn the_last_piece_goes_only_when_all_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let whole: Vec<u8> = (0..3 * PIECE + 7).map(|n| (n % 251) as u8).collect();
        let backup = stored(&dir, &whole).await;
        let plain = backup.manifest.expected();
        let (bytes, broken, reason) = sent(&backup, &plain).await;
        assert!(bytes == whole && !broken);
        assert_eq!(reason, None);

        let mut altered = whole.clone();
        altered[0] ^= 1;
        std::fs::write(dir.path().join("a"), &altered).unwrap();
        let (bytes, broken, reason) = sent(&backup, &plain).await;
        assert!(bytes.len() < whole.len() && broken);
        assert_eq!(reason, Some(RestoreReason::BackupDamaged));

        // Whoever takes no more is told why by somebody else.
        let (pieces, queue) = mpsc::channel(PIECES);
        drop(queue);
        let archive = backup.archive();
        let reading =
            tokio::task::spawn_blocking(move || read(archive, &backup, &plain, &pieces).is_ok());
        assert!(reading.await.unwrap());
    }
}

//! A logical backup into a running server, in two passes: the target is live, so the archive is proven
//! whole before the first write, and proven again as it is loaded.
//!
//! ```text
//! pass one   archive -> age -> zstd -> tar, sums -> filter -> nothing
//! pass two   archive -> age -> zstd -> tar, sums -> filter -> client -> server
//! ```
//! Between the first write and the proof of the second pass each database has a table
//! [`UNFINISHED`]: it stays when anything goes wrong.

use super::client::Client;
use super::filter::{Filter, FilterError};
use super::target::{self, Target, Wanted};
use super::{Expected, LogicalOptions, Measured, Progress, RestoreError, Restored, Stage, compat};
use crate::archive::{self, ArchiveError, Identities, Metadata, Sink, Verified};
use crate::database::{Connection, Flavour, Session, quoted_name};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

pub use super::filter::UNFINISHED;

/// Bytes of SQL that go to the client at once.
const CHUNK: usize = 256 << 10;
/// Chunks between the reader of the archive and the client.
const CHUNKS: usize = 4;

/// An archive that was proven in the first pass.
#[derive(Clone, Debug)]
pub struct Proven {
    /// Its first and its last member.
    pub verified: Verified,
    /// What the archive is without encryption: what an agent gets, and compares.
    pub plain: Expected,
    /// The databases that are restored, by their names in the dump.
    pub databases: Vec<String>,
    /// Its accounts have members of their own.
    pub has_users: bool,
}

/// A fault that a sink has found, on its way through the reader.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Found(RestoreError);

fn found(error: RestoreError) -> io::Error {
    io::Error::other(Found(error))
}

fn filtered(error: FilterError) -> io::Error {
    found(RestoreError::Incompatible(error.to_string()))
}

/// A sink's own fault, where it has found one.
fn reader_error(error: ArchiveError) -> RestoreError {
    match error {
        ArchiveError::Data(source) => match source.downcast::<Found>() {
            Ok(Found(error)) => error,
            Err(source) => ArchiveError::Data(source).into(),
        },
        error => error.into(),
    }
}

/// Pass one: reads the whole archive and proves it, writes nothing, and sees what of it would be
/// restored. Blocks.
///
/// # Errors
/// [`RestoreError`]: the archive is damaged or not as stored, no logical backup, or lacks what
/// `options` ask for.
pub fn prove(
    archive: impl Read + Send,
    identities: &Identities,
    expected: &Expected,
    options: &LogicalOptions,
    progress: &Progress,
) -> Result<Proven, RestoreError> {
    progress.enter(Stage::Verifying, expected.bytes);
    let mut stored = Measured::new(archive, Some(progress.clone()));
    let mut look = Look {
        filter: Filter::new(options, "", BTreeSet::new()),
        out: Vec::new(),
    };
    let mut opened = Measured::new(archive::open(identities, &mut stored)?, None);
    let verified = archive::read(&mut opened, &mut look).map_err(reader_error)?;
    let unreadable = |source| RestoreError::Io {
        doing: "reading the archive to its end".to_owned(),
        source,
    };
    let plain = opened.finish().map_err(unreadable)?;
    expected.compare(&stored.finish().map_err(unreadable)?)?;
    look.out.clear();
    look.filter
        .finish(&mut look.out)
        .map_err(|error| RestoreError::Incompatible(error.to_string()))?;
    let has_users = verified.summary.users.is_some();
    complete(&look.filter, options, has_users)?;
    Ok(Proven {
        databases: look.filter.entered().iter().cloned().collect(),
        verified,
        plain,
        has_users,
    })
}

/// Whether the dump had everything that was asked for.
fn complete(
    filter: &Filter,
    options: &LogicalOptions,
    has_users: bool,
) -> Result<(), RestoreError> {
    let known = || {
        let names: Vec<&str> = filter.found().iter().map(String::as_str).collect();
        names.join(", ")
    };
    for name in &options.databases {
        if !filter.entered().contains(name) {
            return Err(RestoreError::Invalid(format!(
                "the backup has no database {name:?}; it has {}",
                known()
            )));
        }
    }
    if filter.entered().is_empty() {
        return Err(RestoreError::Invalid(
            "the backup has no database, so there is nothing to restore".to_owned(),
        ));
    }
    if options.include_users && !has_users {
        return Err(RestoreError::Invalid(
            "the backup has no accounts, for it is of some databases only: leave the users out"
                .to_owned(),
        ));
    }
    Ok(())
}

fn is_logical(metadata: &Metadata) -> Result<(), RestoreError> {
    if metadata.method == "logical" {
        return Ok(());
    }
    Err(RestoreError::Incompatible(format!(
        "the backup is {}, which is restored into a directory or a volume, not into a running server",
        metadata.method
    )))
}

/// Looks at everything, and keeps nothing.
struct Look {
    filter: Filter,
    out: Vec<u8>,
}

impl Sink for Look {
    fn metadata(&mut self, metadata: &Metadata) -> io::Result<()> {
        is_logical(metadata).map_err(found)
    }

    fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        self.out.clear();
        self.filter.push(piece, &mut self.out).map_err(filtered)
    }
}

/// Pass two: loads what was proven. Asks the server first whether it can take it.
///
/// `stop` resolves with a reason when somebody wants the end. What was begun by then stays marked.
///
/// # Errors
/// [`RestoreError`].
pub async fn load<R: Read + Send + 'static>(
    input: Input<R>,
    proven: &Proven,
    connection: &Connection,
    options: &LogicalOptions,
    progress: &Progress,
    stop: impl Future<Output = String>,
) -> Result<Restored, RestoreError> {
    let target = target::check(connection, proven.wanted(options)).await?;
    run(input, &target, &std::env::temp_dir(), progress, stop).await
}

impl Proven {
    /// What a server has to be asked for.
    #[must_use]
    pub fn wanted(&self, options: &LogicalOptions) -> Wanted {
        Wanted {
            flavour: self.verified.metadata.server_flavour.clone(),
            version: self.verified.metadata.server_version.clone(),
            gtid: self.verified.summary.position.gtid.clone(),
            options: LogicalOptions {
                databases: self.databases.clone(),
                ..options.clone()
            },
        }
    }
}

/// An archive to load, and what it has to be.
pub struct Input<R> {
    /// As it comes.
    pub archive: R,
    /// Who can open it; none for one that is not encrypted.
    pub identities: Arc<Identities>,
    /// Its bytes, as they come.
    pub expected: Expected,
}

/// Loads an archive into a server that was found able to take it.
///
/// # Errors
/// [`RestoreError`]. After the first write the databases that were begun keep their table
/// [`UNFINISHED`].
pub async fn run<R: Read + Send + 'static>(
    input: Input<R>,
    target: &Target,
    tmp: &Path,
    progress: &Progress,
    stop: impl Future<Output = String>,
) -> Result<Restored, RestoreError> {
    progress.enter(Stage::Loading, input.expected.bytes);
    let mut client = Client::start(target, tmp)?;
    let loaded = tokio::select! {
        biased;
        message = stop => Err(RestoreError::Interrupted(message)),
        loaded = feed(input, target, &mut client, progress) => loaded,
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            client.end().await;
            progress.enter(Stage::Ended, 0);
            return Err(error);
        }
    };
    progress.enter(Stage::Ended, 0);
    let Loaded { verified, entered } = loaded;
    let tables = entered
        .iter()
        .filter_map(|name| verified.summary.schemas.get(name))
        .map(|tables| tables.len() as u64)
        .sum();
    Ok(Restored {
        metadata: verified.metadata,
        summary: verified.summary,
        databases: entered,
        tables,
    })
}

/// An archive that was proven while it was loaded.
struct Loaded {
    verified: Verified,
    /// Databases that were restored.
    entered: Vec<String>,
}

async fn feed<R: Read + Send + 'static>(
    input: Input<R>,
    target: &Target,
    client: &mut Client,
    progress: &Progress,
) -> Result<Loaded, RestoreError> {
    let (chunks, mut queue) = mpsc::channel(CHUNKS);
    let sink = Load {
        filter: None,
        wanted: target.wanted.clone(),
        server: (target.server.flavour, target.server.version.clone()),
        existing: target.existing.clone(),
        out: Vec::new(),
        chunks,
        users_begun: false,
    };
    let watch = progress.clone();
    let reader = tokio::task::spawn_blocking(move || read(input, sink, watch));
    let fed = client.feed(&mut queue).await;
    // The reader sees that nobody takes more, and ends.
    drop(queue);
    if fed.is_err() {
        // It takes no more, and says why.
        client.finish().await?;
        return Err(RestoreError::Tool {
            tool: "the client".to_owned(),
            status: "exit status 0".to_owned(),
            stderr: "it ended before it was given everything".to_owned(),
        });
    }
    let loaded = reader.await.map_err(|error| RestoreError::Io {
        doing: "reading the archive".to_owned(),
        source: io::Error::other(error),
    })??;
    client.finish().await?;
    progress.enter(Stage::Checking, 0);
    close(target, &loaded).await?;
    Ok(loaded)
}

/// Reads, proves and filters; to be run on a thread of its own. The client gets its last statement only
/// when all was proven.
fn read<R: Read + Send>(
    input: Input<R>,
    mut sink: Load,
    progress: Progress,
) -> Result<Loaded, RestoreError> {
    let mut stored = Measured::new(input.archive, Some(progress));
    let opened = archive::open(&input.identities, &mut stored)?;
    let verified = archive::read(opened, &mut sink).map_err(reader_error)?;
    let found = stored.finish().map_err(|source| RestoreError::Io {
        doing: "reading the archive to its end".to_owned(),
        source,
    })?;
    input.expected.compare(&found)?;
    let entered = sink.finish(&verified)?;
    Ok(Loaded { verified, entered })
}

/// What is done when the client has loaded everything: the history, and the marks go.
async fn close(target: &Target, loaded: &Loaded) -> Result<(), RestoreError> {
    let lost = |error: crate::database::DatabaseError| RestoreError::Database(error.to_string());
    let mut session = target.connection.connect().await.map_err(lost)?;
    let closed = async {
        let options = &target.wanted.options;
        if !options.binary_log {
            session.execute("binary log", NO_BINARY_LOG).await?;
        }
        if options.gtid_purged
            && let Some(gtid) = &target.wanted.gtid
        {
            set_history(&mut session, target.server.flavour, gtid).await?;
        }
        for name in &loaded.entered {
            let table = format!("{}.{}", quoted_name(name), quoted_name(UNFINISHED));
            let drop = format!("DROP TABLE {table}");
            session.execute("restore's mark", &drop).await?;
        }
        Ok(())
    };
    let closed = closed.await.map_err(lost);
    session.close().await;
    closed
}

const NO_BINARY_LOG: &str = "SET SESSION sql_log_bin = 0";

/// The set was checked to be one before anything was written.
async fn set_history(
    session: &mut Session,
    flavour: Flavour,
    gtid: &str,
) -> Result<(), crate::database::DatabaseError> {
    let statement = match flavour {
        Flavour::Mysql => format!("SET @@GLOBAL.gtid_purged = '+{gtid}'"),
        Flavour::Mariadb => format!("SET GLOBAL gtid_slave_pos = '{gtid}'"),
    };
    session.execute("GTIDs", &statement).await
}

/// Sends to the client what is wanted of a dump.
struct Load {
    filter: Option<Filter>,
    wanted: Wanted,
    server: (Flavour, String),
    existing: BTreeSet<String>,
    out: Vec<u8>,
    chunks: mpsc::Sender<Bytes>,
    users_begun: bool,
}

impl Load {
    fn filter(&mut self) -> io::Result<(&mut Filter, &mut Vec<u8>)> {
        // The reader passes metadata on before anything else.
        let filter = self.filter.as_mut();
        let filter = filter.ok_or_else(|| io::Error::other("data came before metadata"))?;
        Ok((filter, &mut self.out))
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.out));
        let sent = self.chunks.blocking_send(chunk);
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the dump"))
    }

    fn send_much(&mut self) -> io::Result<()> {
        if self.out.len() < CHUNK / 2 {
            return Ok(());
        }
        self.send()
    }

    fn finish(mut self, verified: &Verified) -> Result<Vec<String>, RestoreError> {
        let wanted = self.wanted.clone();
        let cannot = |source| RestoreError::Io {
            doing: "loading the end of the dump".to_owned(),
            source,
        };
        let (filter, out) = self.filter().map_err(cannot)?;
        filter
            .finish(out)
            .map_err(|error| RestoreError::Incompatible(error.to_string()))?;
        let has_users = verified.summary.users.is_some();
        complete(filter, &wanted.options, has_users)?;
        let gtid = &verified.summary.position.gtid;
        if wanted.options.gtid_purged && *gtid != wanted.gtid {
            return Err(RestoreError::Invalid(format!(
                "the GTIDs to set are not the backup's, which stands at {}",
                gtid.as_deref().unwrap_or("none")
            )));
        }
        let entered = filter.entered().iter().cloned().collect();
        out.extend_from_slice(b"COMMIT;\n");
        self.send().map_err(cannot)?;
        Ok(entered)
    }
}

impl Sink for Load {
    fn metadata(&mut self, metadata: &Metadata) -> io::Result<()> {
        is_logical(metadata).map_err(found)?;
        // It may be another than the one that the server was asked for.
        let (flavour, version) = (&metadata.server_flavour, &metadata.server_version);
        compat::logical(flavour, version, self.server.0.as_str(), &self.server.1).map_err(found)?;
        let options = &self.wanted.options;
        // Its answer names the session, so that it can be ended.
        let mut preamble = String::from("SELECT CONNECTION_ID();\nSET SESSION autocommit = 1;\n");
        // A store or a sender may be slow; who ends the restore ends the session.
        preamble.push_str("SET SESSION wait_timeout = 86400;\n");
        if !options.binary_log {
            preamble.push_str(&format!("{NO_BINARY_LOG};\n"));
        }
        self.out.extend_from_slice(preamble.as_bytes());
        let existing = std::mem::take(&mut self.existing);
        self.filter = Some(Filter::new(options, &metadata.backup_id, existing));
        self.send()
    }

    fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        let (filter, out) = self.filter()?;
        filter.push(piece, out).map_err(filtered)?;
        self.send_much()
    }

    fn users(&mut self, piece: &[u8]) -> io::Result<()> {
        if !self.wanted.options.include_users {
            return Ok(());
        }
        let begun = std::mem::replace(&mut self.users_begun, true);
        let (filter, out) = self.filter()?;
        if !begun {
            filter.begin_users(out).map_err(filtered)?;
        }
        filter.push(piece, out).map_err(filtered)?;
        self.send_much()
    }
}

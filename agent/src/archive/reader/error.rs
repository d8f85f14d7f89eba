//! What can be wrong with an archive, and telling its faults from its source's.

use super::FORMAT_VERSION;
use crate::archive::encryption::EncryptionError;
use std::io::{self, Read};

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither a zstd stream nor a tar that begins with our metadata.
    #[error("this is no towline archive: it does not begin with towline/metadata.json")]
    NotAnArchive,
    /// An age file.
    #[error("the archive is encrypted: decrypt it first, with age -d -i KEY")]
    Encrypted,
    /// An age file for others.
    #[error("the archive is encrypted, and none of the identities is one of its recipients'")]
    NotForUs,
    /// The age file is not as it was written.
    #[error("the archive is cut or altered: its encrypted stream does not decrypt")]
    Encryption,
    /// The archive stops before its end.
    #[error("the archive is cut: it stops before its end")]
    Cut,
    /// A member's contents have another sum than `SHA256SUMS` says.
    #[error("the archive is altered: the contents of {member:?} do not match its sum")]
    Altered {
        /// Name of the member.
        member: String,
    },
    /// A tar header, or the padding after a member, is not as the format fixes it.
    #[error("the archive is altered: the tar framing of {member:?} is not as it was written")]
    Header {
        /// Name of the member, or where it stands.
        member: String,
    },
    /// The compressed stream does not decode, or its checksum is wrong.
    #[error("the archive is altered: its zstd stream does not decode")]
    Compression(#[source] io::Error),
    /// A member is missing, repeated or in another's place.
    #[error("the archive is out of order: expected {expected}, found {found:?}")]
    OutOfOrder {
        /// What had to come.
        expected: String,
        /// What came.
        found: String,
    },
    /// A member has a size that it cannot have.
    #[error("the archive is malformed: {member:?} cannot have {size} bytes")]
    Size {
        /// Name of the member.
        member: String,
        /// Size in its header, bytes.
        size: u64,
    },
    /// A JSON member does not hold what the format asks for.
    #[error("the archive is malformed: {member} cannot be read")]
    Json {
        /// Name of the member.
        member: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The summary counts other members than there are.
    #[error(
        "the archive is incomplete: its summary speaks of {said_members} {kind} members with \
         {said_bytes} bytes, it has {members} with {bytes}"
    )]
    Miscounted {
        /// `data` or `users`.
        kind: &'static str,
        /// Members by the summary.
        said_members: u64,
        /// Their bytes by the summary.
        said_bytes: u64,
        /// Members read.
        members: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The summary itself says that the backup failed.
    #[error(
        "the backup in the archive is not complete: its tool ended with status {exit_status}, or \
         without its completion line"
    )]
    BackupIncomplete {
        /// The tool's exit status.
        exit_status: i32,
    },
    /// Written by a newer program.
    #[error(
        "the archive has format {version}, this program reads up to {FORMAT_VERSION}: use a newer \
         towline"
    )]
    NewerFormat {
        /// The archive's `formatVersion`.
        version: u32,
    },
    /// There is something after the archive's end.
    #[error("the archive has further bytes after its end")]
    Trailing,
    /// The archive could not be read from where it is; it may be sound.
    #[error("reading the archive failed")]
    Read(#[source] io::Error),
    /// The data could not be written to where it goes; the archive may be sound.
    #[error("writing the archive's data failed")]
    Data(#[source] io::Error),
}

impl ArchiveError {
    /// What an error of [`super::Opened`] means, where something else than [`super::read`] reads it.
    #[must_use]
    pub fn of_opened(error: io::Error) -> Self {
        match error.downcast::<Known>() {
            Ok(Known(error)) => read_error(error),
            Err(error) => read_error(error),
        }
    }
}

/// A source whose own errors stay recognisable under the decoder, which has `io::Error`s too.
pub(super) struct Source<R>(pub(super) R);

/// A source's own error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::archive) struct SourceError(io::Error);

/// An error that tells already whose fault it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Known(io::Error);

/// Keeps whose fault an error is, whoever reads next.
pub(super) fn known(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, Known(error)),
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            // Not a fault: whoever reads tries again.
            io::ErrorKind::Interrupted => error,
            kind => match error.downcast::<Known>() {
                Ok(Known(error)) => error,
                Err(error) => io::Error::new(kind, SourceError(error)),
            },
        })
    }
}

/// Tells a failing source, a stream that ends early and a stream that does not decode apart.
pub(in crate::archive) fn read_error(error: io::Error) -> ArchiveError {
    let kind = error.kind();
    match error.downcast::<SourceError>() {
        Ok(SourceError(error)) => ArchiveError::Read(error),
        Err(_) if kind == io::ErrorKind::UnexpectedEof => ArchiveError::Cut,
        Err(error) if error.get_ref().is_some_and(|e| e.is::<EncryptionError>()) => {
            ArchiveError::Encryption
        }
        Err(error) => ArchiveError::Compression(error),
    }
}

//! Counts and digests what is read.

use super::{Expected, Progress, RestoreError};
use aws_lc_rs::digest::{Context, SHA256};
use std::io::{self, Read};

/// Bytes at once when only the digest of what is left is wanted.
const PIECE: usize = 256 << 10;

/// A source whose bytes are counted and digested as they are read.
pub struct Measured<R> {
    inner: R,
    bytes: u64,
    digest: Context,
    progress: Option<Progress>,
}

impl<R: Read> Measured<R> {
    /// Measures `inner`. Where `progress` is given, it is told of every byte.
    pub fn new(inner: R, progress: Option<Progress>) -> Self {
        Self {
            inner,
            bytes: 0,
            digest: Context::new(&SHA256),
            progress,
        }
    }

    /// Reads what is left, and tells what all of it was.
    ///
    /// # Errors
    /// The source's.
    pub fn finish(mut self) -> io::Result<Expected> {
        let mut piece = vec![0; PIECE];
        loop {
            match self.read(&mut piece) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Expected {
            bytes: self.bytes,
            sha256: hex::encode(self.digest.finish()),
        })
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.update(&buffer[..read]);
        self.bytes += read as u64;
        if let Some(progress) = &self.progress {
            progress.read(read as u64);
        }
        Ok(read)
    }
}

impl Expected {
    /// Compares what was read with what had to be there.
    ///
    /// # Errors
    /// [`RestoreError::NotAsStored`].
    pub fn compare(&self, found: &Self) -> Result<(), RestoreError> {
        if found.bytes != self.bytes {
            return Err(RestoreError::NotAsStored(format!(
                "the archive has {} bytes, and {} were stored: it was cut or exchanged since",
                found.bytes, self.bytes
            )));
        }
        if found.sha256 != self.sha256 {
            return Err(RestoreError::NotAsStored(format!(
                "the archive has the SHA-256 {}, and {} was stored: it was altered or exchanged since",
                found.sha256, self.sha256
            )));
        }
        Ok(())
    }
}

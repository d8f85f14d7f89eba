//! Files that may be replaced while a program runs, as Kubernetes does when a Secret changes.

use aws_lc_rs::digest::{Context, SHA256};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;

/// Largest file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a file that a flag names cannot be used. Says lines, never what is in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {path}: {message}")]
pub struct FileError {
    flag: &'static str,
    path: String,
    message: String,
}

/// A file and the flag that names it.
#[derive(Clone, Debug)]
pub struct Named {
    flag: &'static str,
    path: PathBuf,
}

impl Named {
    /// `flag` is how its user calls it, in errors.
    #[must_use]
    pub fn new(flag: &'static str, path: PathBuf) -> Self {
        Self { flag, path }
    }

    /// `message` says what is wrong and how it is right.
    pub fn error(&self, message: impl Into<String>) -> FileError {
        FileError {
            flag: self.flag,
            path: self.path.display().to_string(),
            message: message.into(),
        }
    }

    /// The flag that names it.
    pub(super) fn flag(&self) -> &'static str {
        self.flag
    }

    /// Its path, for a log.
    pub(super) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    async fn read(&self) -> Result<Vec<u8>, FileError> {
        let unreadable = |error: std::io::Error| {
            self.error(format!(
                "cannot be read: {error}; check the path, and that the user of this process may read it"
            ))
        };
        let file = tokio::fs::File::open(&self.path)
            .await
            .map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(self.error("is larger than 1 MiB: is it the right file?"));
        }
        Ok(bytes)
    }
}

/// Makes a value of what is in the files.
pub type Make<T, const N: usize> = fn(&[Named; N], [Vec<u8>; N]) -> Result<T, FileError>;

/// What was made of some files; made anew when what is in them changes.
///
/// They are read whenever the value is asked for, which a request for a backup never notices: so a
/// change counts at once, whatever time stamps and links say. What cannot be used leaves the last
/// good value in force, is logged once, and is tried again when it changes.
pub struct Watched<T, const N: usize = 1> {
    files: [Named; N],
    make: Make<T, N>,
    // Held while reading: an older reading never replaces a newer one.
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Of the contents that were last tried, good or bad.
    seen: [u8; 32],
    value: Arc<T>,
}

impl<T, const N: usize> Debug for Watched<T, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<T, const N: usize> Watched<T, N> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub async fn open(files: [Named; N], make: Make<T, N>) -> Result<Self, FileError> {
        let (seen, contents) = read(&files).await;
        let value = make(&files, contents?)?;
        Ok(Self {
            files,
            make,
            state: Mutex::new(State {
                seen,
                value: Arc::new(value),
            }),
        })
    }

    /// The value by the files as they are now.
    pub async fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().await;
        let (mut seen, mut contents) = read(&self.files).await;
        if seen == state.seen {
            return state.value.clone();
        }
        let mut made = contents.and_then(|contents| (self.make)(&self.files, contents));
        if made.is_err() {
            // Several files may have been exchanged between two of the reads.
            (seen, contents) = read(&self.files).await;
            made = contents.and_then(|contents| (self.make)(&self.files, contents));
        }
        state.seen = seen;
        match made {
            Ok(value) => {
                let file = self.files.first().map(|file| file.path().to_string());
                tracing::info!(file, "re-read");
                state.value = Arc::new(value);
            }
            Err(error) => {
                tracing::error!(%error, "not re-read, what was there before stays in force");
            }
        }
        state.value.clone()
    }
}

/// The contents, and a digest that tells them from others; from other errors, too.
async fn read<const N: usize>(files: &[Named; N]) -> ([u8; 32], Result<[Vec<u8>; N], FileError>) {
    let mut digest = Context::new(&SHA256);
    let mut contents = Ok(std::array::from_fn(|_| Vec::new()));
    for (at, file) in files.iter().enumerate() {
        match file.read().await {
            Ok(bytes) => {
                digest.update(&(bytes.len() as u64).to_be_bytes());
                digest.update(&bytes);
                if let Ok(contents) = &mut contents {
                    contents[at] = bytes;
                }
            }
            Err(error) => {
                digest.update(error.to_string().as_bytes());
                contents = contents.and(Err(error));
            }
        }
    }
    let mut seen = [0; 32];
    seen.copy_from_slice(digest.finish().as_ref());
    (seen, contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<const N: usize>(
        files: &[Named; N],
        contents: [Vec<u8>; N],
    ) -> Result<String, FileError> {
        let text = contents.concat();
        if text.starts_with(b"bad") {
            return Err(files[0].error("is bad"));
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    #[tokio::test]
    async fn a_change_counts_at_once_and_a_bad_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = || {
            [
                Named::new("--one", path("1")),
                Named::new("--two", path("2")),
            ]
        };
        std::fs::write(path("1"), "a").unwrap();
        let error = Watched::open(files(), text).await.unwrap_err().to_string();
        assert!(error.contains("--two") && error.contains("/2"), "{error}");
        std::fs::write(path("2"), "b").unwrap();
        let watched = Watched::open(files(), text).await.unwrap();
        assert_eq!(*watched.current().await, "ab");
        std::fs::write(path("2"), "c").unwrap();
        assert_eq!(*watched.current().await, "ac");
        std::fs::write(path("1"), "bad").unwrap();
        assert_eq!(*watched.current().await, "ac");
        std::fs::remove_file(path("1")).unwrap();
        assert_eq!(*watched.current().await, "ac");
        std::fs::write(path("1"), vec![b'x'; MAX_FILE as usize + 1]).unwrap();
        assert_eq!(*watched.current().await, "ac");
        std::fs::write(path("1"), "d").unwrap();
        assert_eq!(*watched.current().await, "dc");
    }

    #[tokio::test]
    async fn what_did_not_change_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "a").unwrap();
        let watched = Watched::open([Named::new("--file", path.clone())], text)
            .await
            .unwrap();
        let first = watched.current().await;
        std::fs::write(&path, "a").unwrap();
        assert!(Arc::ptr_eq(&first, &watched.current().await));
    }
}

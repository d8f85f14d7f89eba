//! The file that says whether a data directory is usable: written before anything else is, and again
//! when all is proven and in its place.

use super::RestoreError;
use crate::archive::{Metadata, Position};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Its name, in the data directory. A server takes no notice of it.
pub const MARKER: &str = "towline-restore.json";

/// What file systems put at their root by themselves.
const NOT_OURS: &str = "lost+found";

/// Longest marker that is read, bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Names that a refusal shows.
const SHOWN: usize = 3;

/// Whether a data directory may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Something was written, and not all of it was proven.
    Unfinished,
    /// It is the backup, proven and prepared.
    Usable,
}

/// What `towline-restore.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// Whether the directory may be used.
    pub state: State,
    /// The backup, as its archive calls it.
    pub backup_id: String,
    /// `mariadb` or `mysql`.
    pub server_flavour: String,
    /// Version of the server that was backed up.
    pub server_version: String,
    /// When the restore began.
    pub start_time: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// Where in the source's history the data stands.
    #[serde(default)]
    pub position: Position,
    /// Why it is not usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Marker {
    /// Of a restore that begins.
    #[must_use]
    pub fn unfinished(metadata: &Metadata, start_time: Timestamp) -> Self {
        Self {
            state: State::Unfinished,
            backup_id: metadata.backup_id.clone(),
            server_flavour: metadata.server_flavour.clone(),
            server_version: metadata.server_version.clone(),
            start_time,
            end_time: None,
            position: Position::default(),
            reason: None,
        }
    }

    /// The marker of a directory; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        use io::Read as _;
        let file = match File::open(directory.join(MARKER)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Writes the first one: it claims the directory, which had none.
    ///
    /// # Errors
    /// `AlreadyExists` where another restore was first; whatever the system says.
    pub(super) fn claim(&self, directory: &Path) -> io::Result<()> {
        let path = directory.join(MARKER);
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        self.write_to(&mut file)?;
        sync(directory)
    }

    /// Puts it in the place of the earlier one, which stays where this fails.
    ///
    /// # Errors
    /// Whatever the system says.
    pub(super) fn replace(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(format!("{MARKER}.new"));
        let written = File::create(&new)
            .and_then(|mut file| self.write_to(&mut file))
            .and_then(|()| fs::rename(&new, directory.join(MARKER)));
        if written.is_err() {
            // There may be no room for it. What stands says the same with fewer words.
            let _ = fs::remove_file(&new);
        }
        written?;
        sync(directory)
    }

    fn write_to(&self, file: &mut File) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Refuses a directory that holds anything, and says what it is.
///
/// # Errors
/// [`RestoreError::TargetNotEmpty`], [`RestoreError::Invalid`] where it is no directory, and what the
/// system says.
pub fn check_empty(directory: &Path) -> Result<(), RestoreError> {
    let shown = directory.display();
    let io = |source: io::Error| RestoreError::io(format!("reading {shown}"), directory, source);
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(RestoreError::Invalid(format!("{shown} is no directory"))),
        Err(error) => return Err(io(error)),
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if name != NOT_OURS {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    let refusal = match Marker::read(directory) {
        Ok(Some(marker)) if marker.state == State::Usable => format!(
            "{shown} holds the restored backup {} of {} already: restore into an empty directory",
            marker.backup_id, marker.start_time
        ),
        Ok(Some(marker)) => format!(
            "{shown} holds an unfinished restore, of backup {}, begun at {}{}: it is not usable; empty the directory, then restore again",
            marker.backup_id,
            marker.start_time,
            marker
                .reason
                .map_or(String::new(), |reason| format!(" ({reason})")),
        ),
        _ if names.iter().any(|name| name == MARKER) => format!(
            "{shown} holds an unfinished restore: it is not usable; empty the directory, then restore again"
        ),
        _ => {
            let more = names.len().saturating_sub(SHOWN);
            let mut list = names[..names.len() - more].join(", ");
            if more > 0 {
                list.push_str(&format!(" and {more} more"));
            }
            format!("{shown} is not empty (it holds {list}): restore into an empty directory")
        }
    };
    Err(RestoreError::TargetNotEmpty(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            state: State::Unfinished,
            backup_id: "b-1".to_owned(),
            server_flavour: "mariadb".to_owned(),
            server_version: "10.11.19-MariaDB".to_owned(),
            start_time: "2026-03-01T02:00:07Z".parse().unwrap(),
            end_time: None,
            position: Position::default(),
            reason: None,
        }
    }

    #[test]
    fn one_restore_claims_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), None);
        marker().claim(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(marker()));
        let second = marker().claim(dir.path()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        let usable = Marker {
            state: State::Usable,
            end_time: Some("2026-03-01T02:10:00Z".parse().unwrap()),
            ..marker()
        };
        usable.replace(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(usable));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let refusal = |fill: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("lost+found")).unwrap();
            fill(dir.path());
            check_empty(dir.path()).map_err(|e| match e {
                RestoreError::TargetNotEmpty(text) => text,
                other => panic!("{other}"),
            })
        };
        assert_eq!(refusal(&|_| {}), Ok(()));
        let touch = |dir: &Path, names: &[&str]| {
            for name in names {
                fs::write(dir.join(name), "").unwrap();
            }
        };
        type Fill<'a> = &'a dyn Fn(&Path);
        let reason = Marker {
            reason: Some("the archive is cut".to_owned()),
            ..marker()
        };
        let usable = Marker {
            state: State::Usable,
            ..marker()
        };
        let cases: [(Fill<'_>, &[&str]); 6] = [
            (
                &|d| touch(d, &["ibdata1"]),
                &["not empty", "(it holds ibdata1)"],
            ),
            (
                &|d| touch(d, &["d", "c", "b", "a"]),
                &["a, b, c and 1 more"],
            ),
            (
                &|d| marker().claim(d).unwrap(),
                &["unfinished restore", "b-1", "empty the directory"],
            ),
            (&|d| reason.claim(d).unwrap(), &["the archive is cut"]),
            (&|d| usable.claim(d).unwrap(), &["restored backup b-1"]),
            (&|d| touch(d, &[MARKER]), &["unfinished restore"]),
        ];
        for (fill, parts) in cases {
            let text = refusal(fill).unwrap_err();
            for part in parts {
                assert!(text.contains(part), "{text}");
            }
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = check_empty(file.path()).unwrap_err();
        assert!(matches!(refused, RestoreError::Invalid(_)), "{refused}");
    }
}

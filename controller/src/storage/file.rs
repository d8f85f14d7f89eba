//! A folder as a store: multipart uploads with ids, as the cloud stores have them.
//!
//! `LocalFileSystem` has only uploads that live in one process. Here an upload is a staging file
//! beside its object that carries the id in its name, so that the next process can remove it.

use super::StoreError;
use crate::reason::StoreReason;
use async_trait::async_trait;
use object_store::{
    Error, MultipartId, PutPayload, PutResult, Result,
    local::LocalFileSystem,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Component, PathBuf},
};

/// End of the name of a staging file.
const STAGED: &str = ".partial";

/// Opens a folder and makes it; below `confined_to` no name may be a symbolic link.
pub(super) fn open(
    root: &std::path::Path,
    confined_to: Option<&std::path::Path>,
) -> std::result::Result<LocalFileSystem, StoreError> {
    let plain = root.is_absolute()
        && root
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !plain {
        return Err(StoreError::config(format!(
            "the folder {} must be an absolute path without `..`",
            root.display()
        )));
    }
    if let Some(limit) = confined_to {
        refuse_links(limit, root)?;
    }
    std::fs::create_dir_all(root).map_err(|e| {
        StoreError::config(format!(
            "the folder {} cannot be made: {e}; create it, writable for this process",
            root.display()
        ))
    })?;
    LocalFileSystem::new_with_prefix(root)
        .map(|fs| fs.with_fsync(true).with_automatic_cleanup(true))
        .map_err(|e| {
            StoreError::config(format!("the folder {} cannot be used: {e}", root.display()))
        })
}

/// Refuses a path below `limit` that leads through a symbolic link, or is one: whoever can plant it
/// would have the controller write, or read, elsewhere. What does not exist yet is no link.
fn refuse_links(
    limit: &std::path::Path,
    path: &std::path::Path,
) -> std::result::Result<(), StoreError> {
    let not_allowed = |message| StoreError {
        message,
        reason: StoreReason::NotAllowed,
    };
    let Ok(below) = path.strip_prefix(limit) else {
        return Err(not_allowed(format!(
            "{} does not lie below the file store root",
            path.display()
        )));
    };
    let mut at = limit.to_owned();
    for name in below.components() {
        at.push(name);
        match std::fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => {
                return Err(not_allowed(format!(
                    "{} is a symbolic link, which a file store does not follow: remove it",
                    at.display()
                )));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => {
                return Err(StoreError::failed(format!(
                    "{} cannot be looked at: {e}",
                    at.display()
                )));
            }
        }
    }
    Ok(())
}

/// Multipart uploads into a folder. Every part but the last must have the store's part size.
#[derive(Clone, Debug)]
pub(super) struct FileUploads {
    objects: LocalFileSystem,
    part_size: u64,
    confined_to: Option<PathBuf>,
}

impl FileUploads {
    pub(super) fn new(
        objects: LocalFileSystem,
        part_size: u64,
        confined_to: Option<PathBuf>,
    ) -> Self {
        Self {
            objects,
            part_size,
            confined_to,
        }
    }

    /// Refuses a key behind a symbolic link, where links are not followed.
    pub(super) fn check(&self, key: &Path) -> std::result::Result<(), StoreError> {
        let path = self
            .objects
            .path_to_filesystem(key)
            .map_err(|e| StoreError::failed(e.to_string()))?;
        self.check_path(&path)
    }

    fn check_path(&self, path: &std::path::Path) -> std::result::Result<(), StoreError> {
        let Some(limit) = &self.confined_to else {
            return Ok(());
        };
        // The operator's own folder may lie behind a link.
        let limit = std::fs::canonicalize(limit)
            .map_err(|e| StoreError::failed(format!("{} is gone: {e}", limit.display())))?;
        refuse_links(&limit, path)
    }

    fn staged(&self, key: &Path, id: &str) -> Result<PathBuf> {
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(failed(
                "upload id",
                key,
                io::Error::other("it is not one of ours"),
            ));
        }
        let mut name = self.objects.path_to_filesystem(key)?.into_os_string();
        name.push(format!(".{id}{STAGED}"));
        let path = PathBuf::from(name);
        self.check_path(&path)
            .map_err(|e| failed("upload", key, io::Error::other(e.message)))?;
        Ok(path)
    }

    /// Removes the staging files in one folder: ours, and `name#1` of a crashed small write.
    pub(super) fn remove_staged(&self, folder: &Path) -> std::result::Result<usize, StoreError> {
        let fail = |e: io::Error| StoreError::failed(format!("cleaning {folder} failed: {e}"));
        let path = self
            .objects
            .path_to_filesystem(folder)
            .map_err(|e| StoreError::failed(e.to_string()))?;
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(fail(e)),
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let small = name
                .rsplit_once('#')
                .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            if (small || name.ends_with(STAGED)) && entry.file_type().map_err(fail)?.is_file() {
                std::fs::remove_file(entry.path()).map_err(fail)?;
                removed += 1;
            }
        }
        if removed > 0 {
            // An attempt that left nothing else leaves no folder either; one that is not empty stays.
            let root = self
                .objects
                .path_to_filesystem(&Path::default())
                .unwrap_or_default();
            for dir in path
                .ancestors()
                .take_while(|d| *d != root && d.starts_with(&root))
            {
                if std::fs::remove_dir(dir).is_err() {
                    break;
                }
            }
        }
        Ok(removed)
    }
}

fn failed(what: &str, key: &Path, e: io::Error) -> Error {
    if e.kind() == io::ErrorKind::NotFound {
        return Error::NotFound {
            path: key.to_string(),
            source: Box::new(e),
        };
    }
    Error::Generic {
        store: "file",
        source: format!("{what} of {key}: {e}").into(),
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

#[async_trait]
impl MultipartStore for FileUploads {
    async fn create_multipart(&self, key: &Path) -> Result<MultipartId> {
        let id = uuid::Uuid::new_v4().to_string();
        let staged = self.staged(key, &id)?;
        // The folder is not made here: the mark is there first. If it is gone, somebody has
        // cleaned up after us, and whatever we left now would stay for ever.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(staged)
            .map_err(|e| failed("staging", key, e))?;
        Ok(id)
    }

    async fn put_part(
        &self,
        key: &Path,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        let staged = self.staged(key, id)?;
        let (key, part_size) = (key.clone(), self.part_size);
        blocking(move || {
            let size = data.content_length() as u64;
            if size > part_size {
                return Err(failed(
                    "part",
                    &key,
                    io::Error::other("it is larger than the part size"),
                ));
            }
            // Opened each time and never created, so that a part that is late cannot bring an
            // aborted upload back.
            let file = OpenOptions::new()
                .write(true)
                .open(&staged)
                .map_err(|e| failed("staging", &key, e))?;
            let mut offset = part_idx as u64 * part_size;
            for chunk in &data {
                file.write_all_at(chunk, offset)
                    .map_err(|e| failed("writing", &key, e))?;
                offset += chunk.len() as u64;
            }
            Ok(PartId {
                content_id: size.to_string(),
            })
        })
        .await
    }

    async fn complete_multipart(
        &self,
        key: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let staged = self.staged(key, id)?;
        let target = self.objects.path_to_filesystem(key)?;
        let (key, part_size) = (key.clone(), self.part_size);
        blocking(move || {
            let sizes: Option<Vec<u64>> = parts.iter().map(|p| p.content_id.parse().ok()).collect();
            let sizes = sizes.unwrap_or_default();
            let full = sizes.iter().rev().skip(1).all(|s| *s == part_size);
            let file = File::open(&staged).map_err(|e| failed("staging", &key, e))?;
            let size = file
                .metadata()
                .map_err(|e| failed("staging", &key, e))?
                .len();
            if sizes.is_empty() || !full || size != sizes.iter().sum::<u64>() {
                return Err(failed(
                    "parts",
                    &key,
                    io::Error::other("they do not make up the object"),
                ));
            }
            file.sync_all().map_err(|e| failed("syncing", &key, e))?;
            std::fs::rename(&staged, &target).map_err(|e| failed("renaming", &key, e))?;
            if let Some(folder) = target.parent() {
                File::open(folder)
                    .and_then(|f| f.sync_all())
                    .map_err(|e| failed("syncing", &key, e))?;
            }
            Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: Default::default(),
            })
        })
        .await
    }

    async fn abort_multipart(&self, key: &Path, id: &MultipartId) -> Result<()> {
        std::fs::remove_file(self.staged(key, id)?).map_err(|e| failed("aborting", key, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn uploads() -> (tempfile::TempDir, FileUploads) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a")).unwrap();
        let fs = open(dir.path(), None).unwrap();
        (dir, FileUploads::new(fs, 4, None))
    }

    fn part(text: &'static str) -> PutPayload {
        PutPayload::from_bytes(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn parts_in_any_order_make_the_object() {
        let (dir, up) = uploads();
        let key = Path::from("a/x");
        let id = up.create_multipart(&key).await.unwrap();
        let second = up.put_part(&key, &id, 1, part("56")).await.unwrap();
        let first = up.put_part(&key, &id, 0, part("1234")).await.unwrap();
        assert!(!dir.path().join("a/x").exists());
        up.complete_multipart(&key, &id, vec![first, second])
            .await
            .unwrap();
        assert_eq!(std::fs::read(dir.path().join("a/x")).unwrap(), b"123456");
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn an_upload_with_a_hole_is_no_object() {
        let (dir, up) = uploads();
        let key = Path::from("a/x");
        let id = up.create_multipart(&key).await.unwrap();
        let second = up.put_part(&key, &id, 1, part("56")).await.unwrap();
        assert!(
            up.complete_multipart(&key, &id, vec![second])
                .await
                .is_err()
        );
        assert!(!dir.path().join("a/x").exists());
    }

    #[tokio::test]
    async fn an_aborted_upload_stays_aborted() {
        let (dir, up) = uploads();
        let key = Path::from("a/x");
        let id = up.create_multipart(&key).await.unwrap();
        up.abort_multipart(&key, &id).await.unwrap();
        assert!(matches!(
            up.put_part(&key, &id, 0, part("1")).await,
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(
            up.abort_multipart(&key, &id).await,
            Err(Error::NotFound { .. })
        ));
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_id_is_no_path() {
        let (_dir, up) = uploads();
        let key = Path::from("a/x");
        assert!(
            up.abort_multipart(&key, &"../../etc/passwd".to_owned())
                .await
                .is_err()
        );
    }

    /// Whatever somebody plants in the folder of a tenant, nothing is read or written elsewhere.
    #[tokio::test]
    async fn links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let limit = dir.path().join("root");
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(limit.join("a/store")).unwrap();
        std::fs::create_dir_all(limit.join("b")).unwrap();
        std::fs::create_dir_all(outside.join("x")).unwrap();
        let link = |from: &std::path::Path, to: &std::path::Path| {
            std::os::unix::fs::symlink(to, from).unwrap();
        };
        // A namespace or a store that is a link is not opened, nor made where it leads to.
        link(&limit.join("c"), &outside);
        link(&limit.join("a/linked"), &limit.join("b"));
        for root in ["c", "c/new", "a/linked", "a/linked/new"] {
            let error = open(&limit.join(root), Some(&limit)).unwrap_err();
            assert_eq!(error.reason, StoreReason::NotAllowed, "{root}");
        }
        assert!(!outside.join("new").exists() && !limit.join("b/new").exists());
        // Planted after it was opened: a folder, an object, a staging file, the store itself.
        let fs = open(&limit.join("a/store"), Some(&limit)).unwrap();
        let up = FileUploads::new(fs, 4, Some(limit.clone()));
        let store = limit.join("a/store");
        std::fs::create_dir(store.join("job")).unwrap();
        let id = up.create_multipart(&Path::from("job/y")).await.unwrap();
        let staged = store.join(format!("job/y.{id}{STAGED}"));
        std::fs::remove_file(&staged).unwrap();
        std::fs::write(outside.join("precious"), "untouched").unwrap();
        link(&staged, &outside.join("precious"));
        link(&store.join("planted"), &outside);
        for key in ["planted/x", "planted"] {
            assert!(up.check(&Path::from(key)).is_err(), "{key}");
        }
        assert!(up.create_multipart(&Path::from("planted/x")).await.is_err());
        let written = up
            .put_part(&Path::from("job/y"), &id, 0, part("1234"))
            .await;
        assert!(written.is_err());
        assert_eq!(
            std::fs::read_to_string(outside.join("precious")).unwrap(),
            "untouched"
        );
        std::fs::rename(&store, limit.join("a/moved")).unwrap();
        link(&store, &outside);
        assert!(up.check(&Path::from("x/y")).is_err());
        assert_eq!(std::fs::read_dir(outside.join("x")).unwrap().count(), 0);
    }

    #[test]
    fn a_root_is_absolute_and_plain() {
        assert!(open(std::path::Path::new("relative"), None).is_err());
        assert!(open(std::path::Path::new("/tmp/../etc/x"), None).is_err());
    }
}

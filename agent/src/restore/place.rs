//! What is done with prepared files before a server may have them.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

/// Files with these names would make the restored server take itself for the old one, join a cluster
/// where it does not belong, or go on replicating.
fn is_stale(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        // MySQL's server UUID: a new one is made at the start.
        "auto.cnf",
        // Galera: where this node thinks that it stands.
        "grastate.dat",
        "gvwstate.dat",
        "galera.cache",
        // Replication settings, of the one connection and of named ones (MariaDB).
        "master.info",
        "relay-log.info",
        "multi-master.info",
    ];
    let named_connection = |begin: &str| name.starts_with(begin) && name.ends_with(".info");
    NAMES.contains(&name) || named_connection("master-") || named_connection("relay-log-")
}

/// Removes what must not come back, gives all files to the directory's owner, and has the system write
/// everything to the disk.
///
/// # Errors
/// Whatever the system says.
pub(super) fn place(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_stale(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    // Who is not root owns what he has written.
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(directory)?;
        if (owner.uid(), owner.gid()) != (0, 0) {
            give(directory, owner.uid(), owner.gid())?;
        }
    }
    let file = fs::File::open(directory)?;
    rustix::fs::syncfs(&file)?;
    Ok(())
}

fn give(directory: &Path, uid: u32, gid: u32) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), uid, gid)?;
        }
        std::os::unix::fs::lchown(entry.path(), Some(uid), Some(gid))?;
    }
    chown(directory, Some(uid), Some(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_make_it_the_old_server_goes() {
        let dir = tempfile::tempdir().unwrap();
        let stale = [
            "auto.cnf",
            "grastate.dat",
            "master.info",
            "master-east.info",
            "relay-log.info",
            "relay-log-east.info",
            "multi-master.info",
        ];
        let kept = [
            "ibdata1",
            "xtrabackup_info",
            "xtrabackup_slave_info",
            "master.ibd",
        ];
        for name in stale.iter().chain(&kept) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        // A schema may have any name.
        fs::create_dir(dir.path().join("shop")).unwrap();
        fs::write(dir.path().join("shop/auto.cnf"), "").unwrap();
        place(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "ibdata1",
                "master.ibd",
                "shop",
                "xtrabackup_info",
                "xtrabackup_slave_info"
            ]
        );
        assert!(dir.path().join("shop/auto.cnf").exists());
    }

    /// Only root can give files away, so nobody else can see this fail.
    #[test]
    fn files_become_the_directorys_owners() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root gives files away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("shop")).unwrap();
        fs::write(dir.path().join("shop/a.ibd"), "").unwrap();
        chown(dir.path(), Some(999), Some(998)).unwrap();
        place(dir.path()).unwrap();
        for path in ["shop", "shop/a.ibd"] {
            let meta = fs::metadata(dir.path().join(path)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (999, 998), "{path}");
        }
    }
}

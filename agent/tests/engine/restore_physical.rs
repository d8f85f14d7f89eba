//! A physical backup into a data directory: it becomes the same server, and whatever is wrong with
//! backup, place or time, nothing half-made is taken for one.

use crate::rig::{Rig, request};
use crate::server::{Server, eventually, run, with_tool};
use aws_lc_rs::digest::{SHA256, digest};
use std::fs;
use std::io::{self, Cursor, Read, Write as _};
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::sync::OnceCell;
use towline_agent::archive::{ArchiveError, ArchiveWriter, Identities, Metadata, Summary, verify};
use towline_agent::backup::{BackupRequest, Compression, Method};
use towline_agent::restore::marker::{Marker, State};
use towline_agent::restore::physical::{PhysicalTarget, physical};
use towline_agent::restore::{Expected, Progress, RestoreError, Restored, Source, Stage};

const SUMS: &str = "CHECKSUM TABLE shop.orders, shop.legacy EXTENDED";

/// A plain archive of a small server, made once, and its checksums.
async fn plain() -> &'static (Vec<u8>, String) {
    static ARCHIVE: OnceCell<(Vec<u8>, String)> = OnceCell::const_new();
    ARCHIVE
        .get_or_init(|| async {
            let server = Server::with_user("physical");
            server.fill("orders", "InnoDB", 20);
            server.fill("legacy", "MyISAM", 1);
            let rig = Rig::new(&server);
            let end = rig.start(request(Method::Physical)).await.end().await;
            end.succeeded();
            (end.bytes, server.sql(SUMS))
        })
        .await
}

fn expected(bytes: &[u8]) -> Expected {
    Expected {
        bytes: bytes.len() as u64,
        sha256: hex::encode(digest(&SHA256, bytes)),
    }
}

/// An empty data directory, and a folder for the tools.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.target().scratch).unwrap();
        place
    }

    fn target(&self) -> PhysicalTarget {
        PhysicalTarget {
            directory: self.0.path().join("data"),
            scratch: self.0.path().join("scratch"),
            use_memory: Some(64 << 20),
        }
    }

    fn data(&self) -> std::path::PathBuf {
        self.target().directory
    }

    /// Names in the data directory.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Something was written, it says that it is not usable and why, and no tool works on it any more.
    fn is_unfinished(&self, reason: &str) {
        let marker = Marker::read(&self.data()).unwrap().expect("a marker");
        assert_eq!(marker.state, State::Unfinished);
        let said = marker.reason.unwrap_or_default();
        assert!(said.contains(reason), "{said:?} lacks {reason:?}");
        // The backup tool writes its verdict on the files here.
        if let Ok(text) = fs::read_to_string(self.data().join("xtrabackup_checkpoints")) {
            // Empty where the extracting tool was ended before it wrote what it had just created.
            assert!(text.is_empty() || text.contains("full-backuped"), "{text}");
        }
        assert_eq!(tools(self.0.path()), Vec::<String>::new());
    }
}

/// Command lines that speak of a folder.
fn tools(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(folder))
        .collect()
}

fn source<R>(archive: R, expected: Expected) -> Source<R> {
    Source {
        archive,
        identities: Arc::default(),
        expected,
        backup_id: String::new(),
    }
}

async fn restore_with(
    archive: &[u8],
    place: &Place,
    change: impl FnOnce(&mut Source<Cursor<Vec<u8>>>),
) -> Result<Restored, RestoreError> {
    let mut source = source(Cursor::new(archive.to_vec()), expected(archive));
    change(&mut source);
    let never = std::future::pending();
    physical(source, &place.target(), &Progress::default(), never).await
}

async fn restore(archive: &[u8], place: &Place) -> Result<Restored, RestoreError> {
    restore_with(archive, place, |_| {}).await
}

/// A backup that is compressed and encrypted becomes the same server, at the same position.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_becomes_the_same_server() {
    use age::secrecy::ExposeSecret as _;
    let server = Server::with_user("physical");
    server.fill("orders", "InnoDB", 20);
    server.fill("legacy", "MyISAM", 1);
    let rig = Rig::new(&server);
    let identity = age::x25519::Identity::generate();
    let wanted = BackupRequest {
        compression: Compression::Zstd { level: 3 },
        parallel: 2,
        recipients: vec![identity.to_public().to_string().parse().unwrap()],
        ..request(Method::Physical)
    };
    let end = rig.start(wanted).await.end().await;
    end.succeeded();

    let place = Place::new();
    let progress = Progress::default();
    let mut identities = Identities::default();
    identities
        .add(identity.to_string().expose_secret().as_bytes())
        .unwrap();
    let source = Source {
        identities: Arc::new(identities),
        backup_id: end.id.clone(),
        ..source(Cursor::new(end.bytes.clone()), expected(&end.bytes))
    };
    let restored = physical(source, &place.target(), &progress, std::future::pending())
        .await
        .unwrap();
    assert_eq!(restored.databases, ["shop"]);
    assert_eq!(restored.tables, 2);
    assert_eq!(progress.look().stage, Stage::Preparing);

    let marker = Marker::read(&place.data()).unwrap().unwrap();
    assert_eq!(marker.state, State::Usable);
    assert_eq!(marker.backup_id, end.id);
    assert_eq!(marker.position, restored.summary.position);
    assert_eq!(marker.reason, None);
    let position = server.sql("SELECT @@gtid_binlog_pos");
    assert_eq!(marker.position.gtid.as_deref(), Some(position.trim()));

    let sums = server.sql(SUMS);
    let again = Server::on(place.0);
    assert_eq!(again.sql(SUMS), sums);
    // The accounts are those of the backup.
    let accounts = "SELECT user, host FROM mysql.user ORDER BY 1, 2";
    assert_eq!(again.sql(accounts), server.sql(accounts));
}

/// Where members end, in a plain archive.
fn boundaries(archive: &[u8]) -> Vec<usize> {
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries().unwrap();
    let starts = entries.map(|entry| entry.unwrap().raw_header_position() as usize);
    starts.chain([archive.len() - 1024]).collect()
}

/// Even where the manifest speaks of the very bytes that are there.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_archive_is_refused_wherever_it_is_cut() {
    let (archive, _) = plain().await;
    let boundaries = boundaries(archive);
    assert!(boundaries.len() > 5, "several data members");
    let inside = boundaries.iter().map(|at| at + 700);
    let ends = [archive.len() - 1, archive.len() - 512];
    for at in boundaries.iter().copied().chain(inside).chain(ends) {
        let place = Place::new();
        let refused = restore(&archive[..at], &place).await.unwrap_err();
        let is_cut = matches!(refused, RestoreError::Archive(ArchiveError::Cut));
        assert!(is_cut, "cut at {at}: {refused:?}");
        if at < 1024 {
            // It does not even say what it is.
            assert_eq!(place.names(), Vec::<String>::new(), "cut at {at}");
        } else {
            place.is_unfinished("is cut");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_archive_is_refused_wherever_it_is_altered() {
    let (archive, _) = plain().await;
    let boundaries = boundaries(archive);
    let second = boundaries[1];
    for (what, at) in [
        ("the metadata", 520),
        ("a header", second + 130),
        ("the stream's first chunk", second + 512),
        ("a chunk's length", second + 512 + 20),
        ("data", second + 512 + (8 << 20)),
        ("later data", boundaries[2] + 5000),
        ("a sum", boundaries[boundaries.len() - 2] + 520),
        ("the end", archive.len() - 100),
    ] {
        let mut altered = archive.clone();
        altered[at] ^= 0x20;
        // As somebody does who alters the manifest, too.
        let place = Place::new();
        let refused = restore(&altered, &place).await.unwrap_err();
        let by_archive = matches!(refused, RestoreError::Archive(_));
        assert!(by_archive, "{what}: {refused:?}");
        if !place.names().is_empty() {
            place.is_unfinished("");
        }
        let place = Place::new();
        let whole = expected(archive);
        let refused = restore_with(&altered, &place, |s| s.expected = whole).await;
        assert!(refused.is_err(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_the_manifest_does_not_speak_of_are_refused() {
    let (archive, _) = plain().await;
    type Change = fn(&mut Source<Cursor<Vec<u8>>>);
    let changes: [(&str, Change); 3] = [
        ("another digest", |s| s.expected.sha256 = "00".repeat(32)),
        ("another length", |s| s.expected.bytes += 1),
        ("another backup", |s| s.backup_id = "b-2".to_owned()),
    ];
    for (what, change) in changes {
        let place = Place::new();
        let refused = restore_with(archive, &place, change).await.unwrap_err();
        assert!(
            matches!(refused, RestoreError::NotAsStored(_)),
            "{what}: {refused:?}"
        );
        if what == "another backup" {
            assert_eq!(place.names(), Vec::<String>::new());
        } else {
            place.is_unfinished("changed after they were stored");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_open_it_writes_nothing() {
    use age::secrecy::ExposeSecret as _;
    let (archive, sums) = plain().await;
    let [ours, others] = [(); 2].map(|()| age::x25519::Identity::generate());
    let recipient = ours.to_public().to_string().parse().unwrap();
    let mut sealed =
        towline_agent::archive::encryption::Envelope::new(Vec::new(), &[recipient]).unwrap();
    sealed.write_all(archive).unwrap();
    let sealed = sealed.finish().unwrap();
    let holder = |of: &age::x25519::Identity| {
        let mut identities = Identities::default();
        let secret = of.to_string();
        identities.add(secret.expose_secret().as_bytes()).unwrap();
        identities
    };

    let place = Place::new();
    let refused = restore(&sealed, &place).await.unwrap_err();
    assert!(
        matches!(refused, RestoreError::Archive(ArchiveError::Encrypted)),
        "{refused:?}"
    );
    let refused = restore_with(&sealed, &place, |s| {
        s.identities = Arc::new(holder(&others))
    })
    .await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, RestoreError::Archive(ArchiveError::NotForUs)),
        "{refused:?}"
    );
    assert_eq!(place.names(), Vec::<String>::new());

    // A piece of the age file that was altered, and one that is not there.
    for at in [sealed.len() / 2, sealed.len() - 20] {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        for archive in [&altered[..], &sealed[..at]] {
            let place = Place::new();
            let refused =
                restore_with(archive, &place, |s| s.identities = Arc::new(holder(&ours))).await;
            let refused = refused.unwrap_err();
            assert!(matches!(refused, RestoreError::Archive(_)), "{refused:?}");
            place.is_unfinished("the archive is cut");
        }
    }

    restore_with(&sealed, &place, |s| s.identities = Arc::new(holder(&ours)))
        .await
        .unwrap();
    assert_eq!(Server::on(place.0).sql(SUMS), *sums);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_empty_stays_as_it_is() {
    let (archive, _) = plain().await;
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    fs::write(place.data().join("ibdata1"), "dear").unwrap();
    let refused = restore(archive, &place).await.unwrap_err();
    assert!(
        matches!(&refused, RestoreError::TargetNotEmpty(m) if m.contains("ibdata1")),
        "{refused:?}"
    );
    assert_eq!(place.names(), ["ibdata1"]);
    assert_eq!(fs::read(place.data().join("ibdata1")).unwrap(), b"dear");

    // What a restore left behind is called by its name, and a second one does not go on with it.
    let place = Place::new();
    fs::create_dir_all(place.data().join("lost+found")).unwrap();
    restore(&archive[..archive.len() - 1], &place)
        .await
        .unwrap_err();
    let before = place.names();
    let refused = restore(archive, &place).await.unwrap_err();
    assert!(
        matches!(&refused, RestoreError::TargetNotEmpty(m) if m.contains("unfinished restore") && m.contains("is cut")),
        "{refused:?}"
    );
    assert_eq!(place.names(), before);
}

/// An archive with other metadata around the same data.
fn of_another(archive: &[u8], change: impl FnOnce(&mut Metadata)) -> Vec<u8> {
    let mut data = Vec::new();
    let verified = verify(archive, &mut data).unwrap();
    let mut metadata = verified.metadata;
    change(&mut metadata);
    let mut writer = ArchiveWriter::new(Vec::new(), &metadata, "xbs", None).unwrap();
    writer.write_all(&data).unwrap();
    writer.finish(verified.summary).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_before_anything_is_written() {
    let (archive, _) = plain().await;
    type Change = fn(&mut Metadata);
    let changes: [(Change, &str); 4] = [
        (|m| m.method = "logical".to_owned(), "running server"),
        (
            |m| m.server_version = "10.6.20-MariaDB".to_owned(),
            "mariadb-backup 10.6",
        ),
        (
            |m| m.server_version = "11.4.2-MariaDB".to_owned(),
            "mariadb-backup 11.4",
        ),
        (
            |m| {
                m.server_flavour = "mysql".to_owned();
                m.server_version = "8.4.0".to_owned();
            },
            "xtrabackup",
        ),
    ];
    for (change, part) in changes {
        let place = Place::new();
        let refused = restore(&of_another(archive, change), &place).await;
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, RestoreError::Incompatible(m) if m.contains(part)),
            "{refused:?}"
        );
        assert_eq!(place.names(), Vec::<String>::new());
    }
}

/// The archive is as its sums say, and what is in it is no backup.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_no_tool_understands_is_a_tools_failure() {
    let (archive, _) = plain().await;
    let verified = verify(&archive[..], io::sink()).unwrap();
    let made = |data: &[u8]| {
        let mut writer = ArchiveWriter::new(Vec::new(), &verified.metadata, "xbs", None).unwrap();
        writer.write_all(data).unwrap();
        writer.finish(Summary::clone(&verified.summary)).unwrap()
    };
    for (data, tool_name) in [(&[7; 100_000][..], "mbstream"), (&[], "mariadb-backup")] {
        let place = Place::new();
        let refused = restore(&made(data), &place).await.unwrap_err();
        assert!(
            matches!(&refused, RestoreError::Tool { tool, .. } if tool == tool_name),
            "{refused:?}"
        );
        place.is_unfinished(tool_name);
    }
}

/// A volume of two megabytes, and one that is full when the backup is prepared.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_is_called_full() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root mounts a small volume");
        return;
    }
    let (archive, _) = plain().await;
    // All files are there, and there is no room for the log that the prepare makes.
    let whole = Place::new();
    restore(archive, &whole).await.unwrap();
    let kib = run(std::process::Command::new("du")
        .arg("-sk")
        .arg(whole.data()));
    let kib: u64 = String::from_utf8(kib)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for (size, what) in [
        (2 << 10, "while extracting"),
        (kib - (8 << 10), "while preparing"),
    ] {
        let place = Place::new();
        fs::create_dir(place.data()).unwrap();
        let mounted = Mounted::new(&place.data(), size);
        let refused = restore(archive, &place).await.unwrap_err();
        assert!(
            matches!(&refused, RestoreError::NoSpace { place: p, .. } if p.ends_with("data")),
            "{what}: {refused:?}"
        );
        place.is_unfinished("");
        drop(mounted);
    }
}

struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(path: &Path, kib: u64) -> Self {
        run(std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(path));
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

/// An archive whose rest comes when the test says so.
struct Halting {
    first: Cursor<Vec<u8>>,
    rest: mpsc::Receiver<Vec<u8>>,
}

impl Read for Halting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.first.read(buffer)? {
            0 => match self.rest.recv() {
                Ok(rest) => {
                    self.first = Cursor::new(rest);
                    self.first.read(buffer)
                }
                Err(_) => Ok(0),
            },
            read => Ok(read),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_ended_leaves_no_tool_and_says_so() {
    let (archive, _) = plain().await;
    let place = Place::new();
    let half = archive.len() / 2;
    let (rest, receiver) = mpsc::channel();
    let halting = Halting {
        first: Cursor::new(archive[..half].to_vec()),
        rest: receiver,
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<String>();
    let (target, progress) = (place.target(), Progress::default());
    let watched = progress.clone();
    let expected = expected(archive);
    let running = tokio::spawn(async move {
        let stop = async { stopped.await.unwrap() };
        physical(source(halting, expected), &target, &progress, stop).await
    });
    tokio::task::block_in_place(|| {
        eventually("the half of it is read", || {
            let all = watched.look().bytes == half as u64;
            (all && !tools(&place.data()).is_empty()).then_some(())
        });
    });
    stop.send("SIGTERM".to_owned()).unwrap();
    let ended = running.await.unwrap().unwrap_err();
    assert!(
        matches!(&ended, RestoreError::Interrupted(why) if why == "SIGTERM"),
        "{ended:?}"
    );
    place.is_unfinished("SIGTERM");
    drop(rest);
}

/// The real tool cannot be made to hang.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_ended_while_it_is_prepared() {
    let test = "restore_physical::one_that_is_ended_while_it_is_prepared";
    let script = r#"[ "$1" = --prepare ] || exec "$TOOL" "$@"
        trap '' INT TERM; sleep 600 & wait; sleep 600"#;
    if !with_tool(test, script) {
        return;
    }
    let (archive, _) = plain().await;
    let place = Place::new();
    let (stop, stopped) = tokio::sync::oneshot::channel::<String>();
    let (target, progress) = (place.target(), Progress::default());
    let watched = progress.clone();
    let running = tokio::spawn(async move {
        let stop = async { stopped.await.unwrap() };
        let source = source(Cursor::new(archive.clone()), expected(archive));
        physical(source, &target, &progress, stop).await
    });
    tokio::task::block_in_place(|| {
        eventually("it is prepared", || {
            let preparing = watched.look().stage == Stage::Preparing;
            (preparing && !tools(&place.data()).is_empty()).then_some(())
        });
    });
    stop.send("SIGTERM".to_owned()).unwrap();
    let ended = running.await.unwrap();
    assert!(
        matches!(ended, Err(RestoreError::Interrupted(_))),
        "{ended:?}"
    );
    place.is_unfinished("SIGTERM");
}

/// The tool's status alone is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_does_not_say_that_it_is_complete_is_none() {
    let test = "restore_physical::a_prepare_that_does_not_say_that_it_is_complete_is_none";
    let script = r#"[ "$1" = --prepare ] || exec "$TOOL" "$@"
        echo "completed OK!" >&2; echo "but for one thing" >&2"#;
    if !with_tool(test, script) {
        return;
    }
    let (archive, _) = plain().await;
    let place = Place::new();
    let refused = restore(archive, &place).await.unwrap_err();
    assert!(
        matches!(&refused, RestoreError::Tool { stderr, .. } if stderr.contains("one thing")),
        "{refused:?}"
    );
    place.is_unfinished("one thing");
}

/// What a replica knows of its source does not come back with its data.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_replica_does_not_replicate() {
    let server = Server::with_user("physical");
    server.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY);
         CHANGE MASTER 'dc2' TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='repl',
         MASTER_PASSWORD='r', MASTER_CONNECT_RETRY=1;
         START SLAVE 'dc2'",
    );
    assert!(server.sql("SHOW ALL SLAVES STATUS").contains("dc2"));
    let rig = Rig::new(&server);
    let end = rig.start(request(Method::Physical)).await.end().await;
    end.succeeded();
    let place = Place::new();
    restore(&end.bytes, &place).await.unwrap();
    assert!(!place.names().iter().any(|name| name.contains("master")));
    let restored = Server::on(place.0);
    assert_eq!(restored.sql("SHOW ALL SLAVES STATUS"), "");
    assert_eq!(restored.sql("SHOW TABLES IN shop").trim(), "t");
}

//! A MariaDB of a test's own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Password of the agent's user.
pub(crate) const PASSWORD: &str = "pass \"word\\";

pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command, or which package brings it.
pub(crate) fn program(name: &str) -> Command {
    let package = match name {
        "mariadb-backup" | "mbstream" => "mariadb-backup",
        "mariadb" | "mariadb-dump" => "mariadb-client",
        _ => "mariadb-server",
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user's PATH may lack the folders of servers.
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    Command::new(found.unwrap_or_else(|| panic!("{name} is not installed: apt install {package}")))
}

/// Runs a command that has to succeed; its output.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {stderr}");
    output.stdout
}

/// The same with input.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A command that leaves early says why itself.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {stderr}");
    output.stdout
}

/// For what the real mariadb-backup cannot be made to do: runs a test again, in a process where this
/// script stands for the tool, which it finds in `$TOOL`. `true`: this is that process.
pub(crate) fn with_tool(test: &str, script: &str) -> bool {
    const AGAIN: &str = "TOWLINE_TEST_TOOL";
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("mariadb-backup");
    let real = program("mariadb-backup").get_program().to_os_string();
    let script = format!("#!/bin/bash\nTOOL='{}'\n{script}\n", real.to_str().unwrap());
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o700)).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [dir.path().to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let again = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env("PATH", std::env::join_paths(path).unwrap())
        .env(AGAIN, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    let errors = String::from_utf8_lossy(&again.stderr);
    assert!(
        again.status.success() && said.contains("1 passed"),
        "{said}\n{errors}"
    );
    false
}

/// MariaDB refuses to run as root unless it is told to.
fn as_user(command: &mut Command) {
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
}

const LOG_SIZE: &str = "--innodb-log-file-size=32M";

/// A freshly installed data directory, made once for each version of the server and kept beside
/// the test programs.
fn installed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let version = run(program("mariadbd").arg("--version"));
        let version: String = String::from_utf8_lossy(&version)
            .split_whitespace()
            .nth(2)
            .unwrap()
            .to_owned();
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = tmp.join(format!("mariadb-{version}"));
        if folder.is_dir() {
            return folder;
        }
        let building = tempfile::tempdir_in(tmp).unwrap();
        let data = building.path().join("data");
        let mut install = program("mariadb-install-db");
        install
            .args(["--no-defaults", "--skip-test-db", LOG_SIZE])
            .arg("--auth-root-authentication-method=normal")
            .arg(format!("--datadir={}", data.display()))
            .env("TMPDIR", building.path());
        as_user(&mut install);
        run(&mut install);
        // Another run of the tests may have been first.
        if let Err(error) = fs::rename(&data, &folder) {
            assert!(folder.is_dir(), "{}: {error}", folder.display());
        }
        folder
    })
}

/// The SQL of `deploy/grants`.
pub(crate) fn documented(method: &str) -> String {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/grants")
        .join(format!("mariadb-{method}.sql"));
    fs::read_to_string(sql).unwrap()
}

/// A file with the password of the agent's user.
pub(crate) fn password_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    file
}

/// A TCP port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Starts a server on the folder `data` in `dir`.
fn spawn(dir: &Path, args: &[&str]) -> Child {
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut command = program("mariadbd");
    command
        .args(["--no-defaults", "--skip-networking", LOG_SIZE])
        .args(["--server-id=1", "--binlog-format=ROW"])
        .args(["--innodb-buffer-pool-size=32M", "--max-allowed-packet=128M"])
        // Nothing here has to survive a power failure.
        .args(["--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0"])
        .args(["--skip-innodb-doublewrite", "--innodb-flush-method=fsync"])
        .arg(format!("--datadir={}", dir.join("data").display()))
        .arg(format!("--socket={}", dir.join("socket").display()))
        .arg(format!("--pid-file={}", dir.join("pid").display()))
        .args(args)
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    as_user(&mut command);
    command.spawn().unwrap()
}

/// A running server on a socket of its own, without networking, with a binary log.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// A new, empty one.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(Command::new("cp")
            .arg("-a")
            .arg(installed())
            .arg(dir.path().join("data")));
        Self::on(dir)
    }

    /// One with the agent's user, who has the documented privileges for a method.
    pub(crate) fn with_user(method: &str) -> Self {
        let server = Self::start();
        let password = PASSWORD.replace('\\', "\\\\");
        server.sql(&documented(method).replace("CHANGE-ME", &password));
        server
    }

    /// Gives the agent's user the documented privileges for a further method.
    pub(crate) fn grant(&self, method: &str) {
        let sql = documented(method);
        self.sql(&sql[sql.find("GRANT").unwrap()..]);
    }

    /// On the folder `data` in `dir`.
    pub(crate) fn on(dir: tempfile::TempDir) -> Self {
        let child = spawn(dir.path(), &["--log-bin=bin"]);
        let mut server = Self { dir, child };
        server.answers();
        server
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it in order; its folder stays.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        self.sql("SHUTDOWN");
        self.child.wait().unwrap();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.dir, empty)
    }

    /// Kills it and starts it again, with these arguments.
    pub(crate) fn restart(&mut self, args: &[&str]) {
        self.kill();
        self.child = spawn(self.dir.path(), args);
        self.answers();
    }

    fn answers(&mut self) {
        eventually("the server answers", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = fs::read_to_string(self.dir.path().join("log"));
                panic!("mariadbd ended ({status}): {}", log.unwrap_or_default());
            }
            let ping = self.client().args(["-e", "SELECT 1"]).output().unwrap();
            ping.status.success().then_some(())
        });
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn client(&self) -> Command {
        let mut client = program("mariadb");
        client
            .args(["--no-defaults", "--user=root", "--batch"])
            .args([
                "--skip-column-names",
                "--comments",
                "--max-allowed-packet=1G",
            ])
            .arg(format!("--socket={}", self.socket().display()));
        client
    }

    /// Runs SQL as root; rows by line, columns by tab.
    pub(crate) fn sql(&self, sql: &str) -> String {
        String::from_utf8(self.load(sql.as_bytes())).unwrap()
    }

    /// The same for a dump.
    pub(crate) fn load(&self, sql: &[u8]) -> Vec<u8> {
        feed(&mut self.client(), sql)
    }

    /// Makes a table with so many rows of 1 MiB.
    pub(crate) fn fill(&self, table: &str, engine: &str, rows: u32) {
        self.sql(&format!(
            "CREATE DATABASE IF NOT EXISTS shop; USE shop;
             CREATE TABLE {table} (id INT PRIMARY KEY, note LONGBLOB) ENGINE={engine};
             INSERT INTO {table} SELECT seq, REPEAT(RANDOM_BYTES(1024), 1024) FROM seq_1_to_{rows};"
        ));
    }

    /// Sessions of the agent's user and its tools.
    pub(crate) fn sessions(&self) -> usize {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'towline'";
        self.sql(sql).trim().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

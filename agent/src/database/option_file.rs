//! How the tools of a server are told where it is and who we are: in a private file, for others can
//! read a command line.

use super::{Address, Connection};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::process::Command;

/// Variables by which the tools would take something else than the file says.
const VARIABLES: [&str; 5] = [
    "MYSQL_PWD",
    "MYSQL_HOST",
    "MYSQL_TCP_PORT",
    "MYSQL_UNIX_PORT",
    "MYSQL_TEST_LOGIN_FILE",
];

/// A private folder in `tmp`; it goes when it is dropped.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn private_folder(tmp: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("towline-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(tmp)
}

impl Connection {
    /// A tool that reaches the server. It runs in `folder`, which holds the file with the password, as
    /// the leader of a process group of its own.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn command(
        &self,
        program: &Path,
        password: Option<&str>,
        folder: &Path,
    ) -> io::Result<Command> {
        let defaults = self.option_file(password, folder)?;
        let mut command = Command::new(program);
        // It must come first; the server's own option files are not read.
        command
            .arg(format!("--defaults-file={}", defaults.display()))
            .current_dir(folder)
            // A group of its own, so that what it starts ends with it.
            .process_group(0)
            .kill_on_drop(true)
            // Messages that are read here come in one language.
            .env("LC_ALL", "C.UTF-8")
            // MySQL's read ~/.mylogin.cnf whatever they are told.
            .env("HOME", folder);
        for name in VARIABLES {
            command.env_remove(name);
        }
        Ok(command)
    }

    fn option_file(&self, password: Option<&str>, folder: &Path) -> io::Result<PathBuf> {
        let path = folder.join("client.cnf");
        let mut text = String::from("[client]\n");
        let mut option = |name: &str, value: &str| {
            text.push_str(&format!("{name}=\"{}\"\n", quote(value)));
        };
        option("user", &self.user);
        if let Some(password) = password {
            option("password", password);
        }
        match &self.address {
            Address::Socket(path) => option("socket", &path.to_string_lossy()),
            Address::Tcp { host, port } => {
                option("host", host);
                option("port", &port.to_string());
                option("protocol", "tcp");
            }
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }
}

/// A value in an option file, in double quotes.
fn quote(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
}

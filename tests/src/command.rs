//! Runs the programs that a user would run.

use std::process::Stdio;
use tokio::{io::AsyncWriteExt as _, process::Command};

/// What a program printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program to its end with `input` on standard input. Panics when it cannot be started.
pub async fn run(program: &str, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program);
    command.args(args);
    run_command(command, input).await
}

/// [`run`] for a command that was prepared otherwise.
pub async fn run_command(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let write = async {
        // A program that has read enough closes its end: no concern of ours.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program that must succeed; gives its standard output.
pub async fn run_ok(program: &str, args: &[&str], input: &[u8]) -> String {
    let output = run(program, args, input).await;
    assert!(
        output.code == 0,
        "{program} {args:?} ended with {}:\n{}\n{}",
        output.code,
        output.stdout,
        output.stderr
    );
    output.stdout
}

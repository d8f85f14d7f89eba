//! Completion. `completion` writes what a shell sources for `kubectl-towline` itself. kubectl completes
//! `kubectl towline` by asking a program called `kubectl_complete-towline`, which is this one under a third name.

use super::{
    Cli, PROGRAM,
    error::Failure,
    kind::Kind,
    output::out,
    session::{Connection, Session},
};
use crate::api::{BackupJob, BackupSchedule, BackupStore, RestoreJob};
use clap::{Args, CommandFactory as _, FromArgMatches as _};
use clap_complete::{
    Shell,
    engine::{ArgValueCompleter, CompletionCandidate, complete},
};
use kube::{ResourceExt, api::ListParams};
use std::{ffi::OsString, io::Write as _, time::Duration};

/// A shell waits for no longer than this.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of cobra's protocol, which kubectl reads: no file names in place of what is missing.
const NO_FILES: &str = ":4";
/// Marks a candidate that stands for the names of a kind's objects.
const NAMES: &str = "\u{1}names of ";

/// Which shell.
#[derive(Args, Debug)]
#[command(after_help = "\
Of kubectl-towline itself, for bash:
  source <(kubectl towline completion bash)
`kubectl towline` is completed by kubectl's own completion, names of objects included, once this
program is on the PATH under the name kubectl_complete-towline, too:
  ln -s kubectl-towline ~/bin/kubectl_complete-towline")]
pub(super) struct CompletionArgs {
    #[arg(value_parser = clap::builder::EnumValueParser::<Shell>::new())]
    shell: Shell,
}

/// The words behind `kubectl towline`; the last is the one to complete.
#[derive(Args, Debug)]
pub(super) struct CompleteArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// For an argument that takes the name of an object of this kind; empty: of any.
pub(super) fn names(kind: &'static str) -> ArgValueCompleter {
    ArgValueCompleter::new(move |_: &std::ffi::OsStr| {
        vec![CompletionCandidate::new(format!("{NAMES}{kind}"))]
    })
}

impl CompletionArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), PROGRAM, &mut script);
        let written = std::io::stdout().lock().write_all(&script);
        written.map_err(|error| Failure::failed(format!("the script cannot be written: {error}")))
    }
}

impl CompleteArgs {
    /// Whatever goes wrong, there are no candidates: a shell has no place for errors.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut words = vec![OsString::from(PROGRAM)];
        words.extend(self.words);
        if words.len() == 1 {
            words.push(OsString::new());
        }
        let last = words.len() - 1;
        let typed = words[last].to_string_lossy().into_owned();
        let connection = connection(&words[..last]);
        let candidates = complete(&mut Cli::command(), words, last, None).unwrap_or_default();
        for candidate in candidates.iter().filter(|c| !c.is_hide_set()) {
            let value = candidate.get_value().to_string_lossy();
            if let Some(kind) = value.strip_prefix(NAMES) {
                let named = tokio::time::timeout(PATIENCE, objects(&connection, kind)).await;
                for name in named.unwrap_or_default() {
                    if name.starts_with(&typed) {
                        out(&name);
                    }
                }
                continue;
            }
            // As cobra, and so kubectl, has it: flags only for who has begun one.
            if value.starts_with('-') && !typed.starts_with('-') {
                continue;
            }
            match candidate.get_help() {
                Some(help) => {
                    let help = help.to_string();
                    let help = help.lines().next().unwrap_or_default();
                    out(&format!("{value}\t{help}"));
                }
                None => out(&value),
            }
        }
        out(NO_FILES);
        Ok(())
    }
}

/// Which cluster the words name so far.
fn connection(words: &[OsString]) -> Connection {
    let command = Cli::command().ignore_errors(true);
    let matches = command.try_get_matches_from(words).ok();
    matches
        .and_then(|matches| Connection::from_arg_matches(&matches).ok())
        .unwrap_or_default()
}

async fn objects(connection: &Connection, kind: &str) -> Vec<String> {
    let Ok(session) = Session::connect(connection).await else {
        return Vec::new();
    };
    match Kind::parse(kind) {
        Some(kind) => of_kind(&session, kind).await,
        // As `explain` takes them: the kind that a name alone means without, the others with.
        None => {
            let mut all = of_kind(&session, Kind::Job).await;
            for (kind, word) in [
                (Kind::Restore, "restore"),
                (Kind::Schedule, "schedule"),
                (Kind::Store, "store"),
            ] {
                let names = of_kind(&session, kind).await;
                all.extend(names.into_iter().map(|name| format!("{word}/{name}")));
            }
            all
        }
    }
}

async fn of_kind(session: &Session, kind: Kind) -> Vec<String> {
    let params = ListParams::default();
    let names = match kind {
        Kind::Job => names_of(session.api::<BackupJob>().list_metadata(&params).await),
        Kind::Restore => names_of(session.api::<RestoreJob>().list_metadata(&params).await),
        Kind::Schedule => names_of(session.api::<BackupSchedule>().list_metadata(&params).await),
        Kind::Store => names_of(session.api::<BackupStore>().list_metadata(&params).await),
    };
    names.unwrap_or_default()
}

fn names_of<K: ResourceExt + Clone>(
    list: Result<kube::core::ObjectList<K>, kube::Error>,
) -> Option<Vec<String>> {
    Some(list.ok()?.iter().map(ResourceExt::name_any).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(words: &[&str]) -> Vec<String> {
        let mut all = vec![OsString::from(PROGRAM)];
        all.extend(words.iter().map(OsString::from));
        let last = all.len() - 1;
        complete(&mut Cli::command(), all, last, None)
            .unwrap()
            .iter()
            .filter(|c| !c.is_hide_set())
            .map(|c| c.get_value().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn commands_flags_values_and_names_are_completed() {
        assert!(candidates(&["st"]).contains(&"status".to_owned()));
        assert!(!candidates(&[""]).contains(&"__complete".to_owned()));
        assert!(candidates(&["status", "--out"]).contains(&"--output".to_owned()));
        assert_eq!(candidates(&["status", "-o", "js"]), ["json"]);
        assert!(candidates(&["ls", "sto"]).contains(&"stores".to_owned()));
        let names = candidates(&["ls", "--schedule", ""]);
        assert_eq!(names, [format!("{NAMES}BackupSchedule")]);
    }

    #[test]
    fn the_cluster_is_the_one_of_the_line() {
        let words = [
            "kubectl-towline",
            "ls",
            "-n",
            "shop",
            "--context=b",
            "--schedule",
        ];
        let connection = connection(&words.map(OsString::from));
        assert_eq!(connection.namespace.as_deref(), Some("shop"));
        assert_eq!(connection.context.as_deref(), Some("b"));
    }

    #[test]
    fn each_shell_has_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("status"), "{shell}");
        }
    }
}

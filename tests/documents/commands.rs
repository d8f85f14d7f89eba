//! Command lines. Bash itself reads each block, in an empty folder and with no program to be found: what it
//! would have started is written down, with the arguments that would have been passed.

use crate::{links::names_a_file, programs::Programs};
use e2e::{
    cluster::root,
    documents::{self, Block, Document},
};
use std::{fs, path::Path, process::Command};

#[test]
fn command_lines_are_such_as_the_programs_take() {
    let programs = Programs::here();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (document, block) in documents::all()
        .iter()
        .flat_map(|document| document.blocks.iter().map(move |block| (document, block)))
    {
        let Some(script) = block.script() else {
            continue;
        };
        match recorded(&format!("{}{script}", variables(document, &script))) {
            Ok(lines) => {
                for line in lines {
                    checked += 1;
                    if let Err(why) = programs.check(&line).and_then(|()| files_exist(&line)) {
                        wrong.push(format!("{}: {}\n    {why}", block.at, line.join(" ")));
                    }
                }
            }
            Err(why) => wrong.push(format!("{}: {why}", block.at)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 50, "only {checked} command lines were found");
}

#[test]
fn a_wrong_command_line_is_found() {
    let programs = Programs::here();
    for (script, needle) in [
        ("towline backup --agnet http://db:8474", "--agnet"),
        (
            "cat key | towline verify --store file:///x --last",
            "--last",
        ),
        ("towline-agent --tls-cert x --nonsense", "--nonsense"),
        ("towline-controller crd", "crd"),
        ("if true; then towline restor; fi", "restor"),
        ("helm install towline charts/towlin", "charts/towlin"),
        ("make chekc", "chekc"),
        ("kubectl towline statsu", "statsu"),
        ("kubectl towline ls pods", "pods"),
    ] {
        let lines = recorded(script).unwrap();
        let error = lines
            .iter()
            .find_map(|line| programs.check(line).and_then(|()| files_exist(line)).err())
            .unwrap_or_else(|| panic!("{script}: taken"));
        assert!(error.contains(needle), "{script}: {error}");
    }
    assert!(recorded("for x in; do (").is_err());
    let lines = recorded("A=1 kubectl get pods | sort\nzstd -d < absent | tar -x").unwrap();
    let mut names: Vec<_> = lines.iter().map(|line| line[0].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["kubectl", "sort", "tar", "zstd"]);
}

/// Gives the script the variables that the document's reader has set, and some word to every other.
fn variables(document: &Document, script: &str) -> String {
    let mut lines = String::new();
    for (at, _) in script.match_indices('$') {
        let name = script[at + 1..].trim_start_matches('{');
        let end = name.find(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let name = &name[..end.unwrap_or(name.len())];
        if !name.is_empty() {
            lines += &format!("{name}=word\n");
        }
    }
    let exports = document.blocks.iter().filter_map(Block::script);
    for line in exports.flat_map(|script| script.lines().map(str::to_owned).collect::<Vec<_>>()) {
        if line.starts_with("export ") && !line.contains("$(") {
            lines += &line;
            lines.push('\n');
        }
    }
    lines
}

/// What the script would start. Files that it reads are made as bash misses them, empty.
fn recorded(script: &str) -> Result<Vec<Vec<String>>, String> {
    const PRELUDE: &str = r#"
        # Each in a process of its own: the halves of a pipe do not write into one another.
        command_not_found_handle() { printf '%s\0' "$@" >"$RECORD/$BASHPID"; }
        # Nothing waits, and nothing outside is touched.
        sleep() { :; }
        cd() { :; }
        exec() { "$@"; }
    "#;
    let work = tempfile::tempdir().unwrap();
    let record = work.path().join("record");
    let here = work.path().join("here");
    fs::create_dir(&here).unwrap();
    for _ in 0..50 {
        let _ = fs::remove_dir_all(&record);
        fs::create_dir(&record).unwrap();
        let output = Command::new("timeout")
            .args(["20", "bash", "--noprofile", "--norc", "-c"])
            .arg(format!("{PRELUDE}\nPATH=/nowhere\n{script}"))
            .env_remove("BASH_ENV")
            .env("RECORD", &record)
            .env("HOME", &here)
            .env("PWD", &here)
            .current_dir(&here)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if errors.contains("syntax error") || errors.contains("unexpected EOF") {
            return Err(errors);
        }
        if output.status.code() == Some(124) {
            return Err("the block does not end".into());
        }
        if !make_missing(&errors, &here) {
            break;
        }
    }
    let mut lines = Vec::new();
    for file in fs::read_dir(&record).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        lines.push(text.split_terminator('\0').map(str::to_owned).collect());
    }
    Ok(lines)
}

/// Makes the files that the last run missed; whether there were any.
fn make_missing(errors: &str, here: &Path) -> bool {
    let mut made = false;
    for line in errors.lines() {
        let Some(rest) = line.strip_suffix(": No such file or directory") else {
            continue;
        };
        let name = rest.rsplit(": ").next().unwrap();
        let path = here.join(name);
        if path.starts_with(here) && !path.exists() && !name.contains("..") {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            made |= fs::write(&path, "").is_ok();
        }
    }
    made
}

fn files_exist(line: &[String]) -> Result<(), String> {
    // Of a build from a clean checkout, which is another folder's business.
    let named = line
        .iter()
        .flat_map(|word| {
            word.split_once('=')
                .map_or([word.as_str(), ""], |(a, b)| [a, b])
        })
        .filter(|word| names_a_file(word));
    for file in named {
        if !root().join(file).exists() {
            return Err(format!("there is no {file}"));
        }
    }
    Ok(())
}

#[test]
fn a_console_is_read_by_its_prompts() {
    let block = Block {
        at: String::new(),
        language: "console".into(),
        words: Vec::new(),
        text: "$ towline ls \\\n    --store x\nNAME\n$ kubectl get pods\n".into(),
    };
    assert_eq!(
        block.script().unwrap(),
        "towline ls \\\n    --store x\nkubectl get pods\n"
    );
}

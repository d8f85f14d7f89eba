//! What the programs take. Ours are asked by their own parsers; of kubectl and helm the help text says which
//! flags there are.

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use e2e::cluster::root;
use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, process::Command};

pub(crate) struct Programs {
    towline_controller: PathBuf,
    targets: Vec<String>,
    /// Flags of kubectl and helm, by program and subcommand; none when the program is not here.
    flags: RefCell<BTreeMap<String, Option<Vec<String>>>>,
}

impl Programs {
    pub(crate) fn here() -> Self {
        // Cargo builds it, for its package has tests that start it; ours lies beside it.
        let test = std::env::current_exe().unwrap();
        let towline_controller = test.ancestors().nth(2).unwrap().join("towline-controller");
        let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
        let targets = makefile
            .lines()
            .filter(|line| !line.starts_with(['\t', '#', '.']))
            .filter_map(|line| line.split_once(':'))
            .map(|(target, _)| target.trim().to_owned())
            .collect();
        Self {
            towline_controller,
            targets,
            flags: RefCell::default(),
        }
    }

    /// Why the program would not take this command line.
    pub(crate) fn check(&self, line: &[String]) -> Result<(), String> {
        match line[0].as_str() {
            "towline" => usage(towline_controller::cli::Cli::try_parse_from(line).err()),
            "towline-agent" => match towline_agent::config::Config::parse("", line) {
                Err(towline_agent::config::ConfigError::Usage(error)) => usage(Some(error)),
                _ => Ok(()),
            },
            "towline-controller" => self.controller(line),
            // kubectl starts it as a program of its own.
            "kubectl" if line.get(1).is_some_and(|word| word == "towline") => {
                usage(towline_controller::kubectl::Cli::try_parse_from(&line[1..]).err())
            }
            "kubectl" => self.kubectl(line),
            "helm" => self.flags("helm", line).and_then(|_| chart(line)),
            "make" => self.make(line),
            _ => Ok(()),
        }
    }

    /// Its parser is the program's own: it is asked for the help of the same command line.
    fn controller(&self, line: &[String]) -> Result<(), String> {
        let output = Command::new(&self.towline_controller)
            .args(&line[1..])
            .arg("--help")
            .output()
            .map_err(|error| {
                format!(
                    "{}: {error}: cargo build",
                    self.towline_controller.display()
                )
            })?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn make(&self, line: &[String]) -> Result<(), String> {
        for word in line[1..]
            .iter()
            .filter(|word| !word.contains('=') && !word.starts_with('-'))
        {
            if !self.targets.contains(word) {
                return Err(format!("the Makefile has no target {word}"));
            }
        }
        Ok(())
    }

    fn kubectl(&self, line: &[String]) -> Result<(), String> {
        let words = self.flags("kubectl", line)?;
        let verb = words.first().map_or("", String::as_str);
        let asks = [
            "get", "describe", "delete", "patch", "label", "annotate", "wait", "scale", "edit",
        ];
        if !asks.contains(&verb) {
            return Ok(());
        }
        let Some(kinds) = words.get(1) else {
            return Ok(()); // Of a file, or of standard input.
        };
        for kind in kinds.split(',') {
            let kind = kind.split('/').next().unwrap_or_default();
            if !(kind.is_empty() || known_kind(kind)) {
                return Err(format!("no kind of object is called {kind}"));
            }
        }
        Ok(())
    }

    /// Checks the flags against the help of the subcommand; gives the words that are none.
    fn flags(&self, program: &str, line: &[String]) -> Result<Vec<String>, String> {
        let mut words: Vec<String> = Vec::new();
        let subcommands = subcommands(program, line);
        let Some(known) = self.known_flags(program, &subcommands) else {
            return Ok(words);
        };
        let mut rest = line[1..].iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                break;
            }
            let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
                words.push(word.clone());
                continue;
            };
            let (name, value) = match flag.strip_prefix('-') {
                Some(long) => match long.split_once('=') {
                    Some((name, _)) => (format!("--{name}"), true),
                    None => (format!("--{long}"), false),
                },
                // -ofile is -o file.
                None => (format!("-{}", &flag[..1]), flag.len() > 1),
            };
            let takes = known.iter().find_map(|entry| {
                let (flag, kind) = entry.split_once(' ').unwrap();
                (flag == name).then_some(kind)
            });
            match takes {
                None => return Err(format!("{program} {} has no {name}", subcommands.join(" "))),
                Some("value") if !value => {
                    rest.next();
                }
                Some(_) => {}
            }
        }
        Ok(words)
    }

    fn known_flags(&self, program: &str, subcommands: &[String]) -> Option<Vec<String>> {
        let key = format!("{program} {}", subcommands.join(" "));
        let mut cache = self.flags.borrow_mut();
        cache
            .entry(key)
            .or_insert_with(|| {
                let Ok(help) = Command::new(program).args(subcommands).arg("--help").output() else {
                    println!("{program} is not on the PATH: its command lines are not checked (make cluster-up builds it)");
                    return None;
                };
                let mut text = String::from_utf8_lossy(&help.stdout).into_owned();
                if program == "kubectl" {
                    let options = Command::new(program).arg("options").output().unwrap();
                    text += &String::from_utf8_lossy(&options.stdout);
                }
                Some(text.lines().flat_map(flags_of_help).collect())
            })
            .clone()
    }
}

/// `-n, --namespace='': …` of kubectl, `-n, --namespace string   …` of helm: names, and whether a value follows.
fn flags_of_help(line: &str) -> Vec<String> {
    let line = line.trim_start();
    if !line.starts_with('-') {
        return Vec::new();
    }
    // Names stand before the description, which two spaces or a colon set apart.
    let head = line.split("  ").next().unwrap();
    let head = head.split(":\u{9}").next().unwrap();
    let head = head.strip_suffix(':').unwrap_or(head);
    let boolean = head.contains("=false") || head.contains("=true") || {
        !head.contains('=')
            && head
                .split_whitespace()
                .last()
                .is_some_and(|word| word.starts_with('-'))
    };
    let kind = if boolean { "switch" } else { "value" };
    head.split([',', ' '])
        .filter(|word| word.starts_with('-'))
        .map(|word| format!("{} {kind}", word.split(['=', '[']).next().unwrap()))
        .collect()
}

/// The words that choose the command, such as `rollout status` or `repo add`.
fn subcommands(program: &str, line: &[String]) -> Vec<String> {
    let nested = [
        "rollout",
        "config",
        "auth",
        "create",
        "set",
        "top",
        "repo",
        "dependency",
        "get",
        "show",
        "registry",
        "plugin",
        "certificate",
        "apply",
    ];
    let takes_value = ["-n", "--namespace", "--kubeconfig", "--context"];
    let mut words = Vec::new();
    let mut rest = line[1..].iter();
    while let Some(word) = rest.next() {
        if takes_value.contains(&word.as_str()) {
            rest.next();
        } else if !word.starts_with('-') {
            words.push(word.clone());
        }
    }
    let nests = |word: &str| match program {
        "kubectl" => nested.contains(&word) && !["get", "apply"].contains(&word),
        _ => nested.contains(&word),
    };
    let count = match words.first().map(String::as_str) {
        Some("create") if words.get(1).is_some_and(|word| word == "secret") => 3,
        Some(word) if nests(word) => 2,
        _ => 1,
    };
    words.truncate(count);
    words
}

/// `helm install NAME CHART`: the chart is a folder of ours, where it is one.
fn chart(line: &[String]) -> Result<(), String> {
    let takes_one = ["install", "upgrade", "template", "lint", "package"];
    if line
        .get(1)
        .is_some_and(|word| takes_one.contains(&word.as_str()))
        && !line
            .iter()
            .any(|word| word.contains('/') || word.ends_with(".tgz"))
    {
        return Err("no chart is named".into());
    }
    Ok(())
}

fn known_kind(kind: &str) -> bool {
    const THEIRS: &str = "pod pods po all service services svc secret secrets configmap configmaps cm namespace namespaces ns node nodes \
        event events ev job jobs cronjob cronjobs deployment deployments deploy statefulset statefulsets sts pvc pv \
        persistentvolumeclaim persistentvolumeclaims persistentvolume persistentvolumes crd crds \
        customresourcedefinition customresourcedefinitions lease leases networkpolicy networkpolicies netpol \
        storageclass storageclasses serviceaccount serviceaccounts sa role roles rolebinding rolebindings \
        clusterrole clusterroles clusterrolebinding clusterrolebindings pdb poddisruptionbudget \
        volumesnapshot volumesnapshots servicemonitor prometheusrule certificate certificates \
        mariadb mariadbs perconaxtradbcluster pxc perconaservermysql ps";
    let ours = towline_controller::api::crd_files().unwrap();
    let kind = kind.strip_suffix(".towline.dev").unwrap_or(kind);
    THEIRS.split_whitespace().any(|known| known == kind)
        || ours.iter().any(|(_, crd)| {
            let crd: serde_json::Value = serde_norway::from_str(crd).unwrap();
            let names = &crd["spec"]["names"];
            let short = names["shortNames"].as_array().into_iter().flatten();
            [&names["plural"], &names["singular"], &names["kind"]]
                .into_iter()
                .chain(short)
                .any(|name| {
                    name.as_str()
                        .is_some_and(|name| name.eq_ignore_ascii_case(kind))
                })
        })
}

/// Help and version are good ends.
fn usage(error: Option<clap::Error>) -> Result<(), String> {
    match error {
        None => Ok(()),
        Some(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            ) =>
        {
            Ok(())
        }
        Some(error) => Err(error.to_string()),
    }
}

#[test]
fn our_parsers_are_sound() {
    towline_controller::cli::Cli::command().debug_assert();
    towline_controller::kubectl::Cli::command().debug_assert();
}

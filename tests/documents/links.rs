//! Links, and the files that the text names.

use e2e::{
    cluster::root,
    documents::{self, Document},
};
use std::path::{Component, Path, PathBuf};

#[test]
fn links_lead_somewhere() {
    let all = documents::all();
    let mut wrong = Vec::new();
    for document in &all {
        for link in &document.links {
            if let Err(why) = leads_somewhere(&all, document, link) {
                wrong.push(format!("{}: {link}: {why}", document.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn leads_somewhere(all: &[Document], from: &Document, link: &str) -> Result<(), String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return Ok(()); // Nothing outside is asked for.
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        from.path.clone()
    } else {
        plain(&from.path.parent().unwrap().join(path))
    };
    if !root().join(&target).exists() {
        return Err("there is no such file".into());
    }
    if anchor.is_empty() {
        return Ok(());
    }
    let target = all.iter().find(|document| document.path == target);
    let target = target.ok_or("an anchor in what is no document")?;
    if target.anchors.iter().any(|a| a == anchor) {
        Ok(())
    } else {
        Err(format!("no such heading; there are {:?}", target.anchors))
    }
}

/// Without `..`, as text.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

const FOLDERS: [&str; 6] = [
    "agent/",
    "controller/",
    "charts/",
    "deploy/",
    "tests/",
    "docs/",
];

/// Whether this names a file or folder of the repository, whole.
pub(crate) fn names_a_file(text: &str) -> bool {
    FOLDERS.iter().any(|folder| text.starts_with(folder))
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
}

#[test]
fn files_that_the_text_names_are_there() {
    let mut wrong = Vec::new();
    for document in documents::all() {
        // What once was may be gone, and other projects have files of their own.
        let of_others = ["CHANGELOG.md", "docs/upgrading.md", "docs/comparison.md"];
        if of_others.contains(&document.path.to_str().unwrap()) {
            continue;
        }
        for code in &document.code {
            if names_a_file(code) && !root().join(code).exists() {
                wrong.push(format!("{}: {code}", document.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "no such file:\n{}", wrong.join("\n"));
}

#[test]
fn anchors_are_those_of_forges() {
    let text = "# Why `it` failed, and what to do\n## B. A running server\n## Same\n## Same\n";
    let document = documents::read(Path::new("x.md"), text);
    assert_eq!(
        document.anchors,
        [
            "why-it-failed-and-what-to-do",
            "b-a-running-server",
            "same",
            "same-1"
        ]
    );
}

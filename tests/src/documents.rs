//! The project's documents, as the tests read them: their code blocks, links and anchors.

use crate::cluster::root;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::path::{Path, PathBuf};

/// One document.
#[derive(Debug)]
pub struct Document {
    /// Relative to the root of the checkout.
    pub path: PathBuf,
    /// Its code blocks, in order.
    pub blocks: Vec<Block>,
    /// Where its links go, as written.
    pub links: Vec<String>,
    /// What stands in backticks.
    pub code: Vec<String>,
    /// What its headings are called in a link, as forges make them.
    pub anchors: Vec<String>,
}

/// A code block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Document and line, to find it.
    pub at: String,
    /// First word behind the fence; empty when there is none, or no fence.
    pub language: String,
    /// The words after it.
    pub words: Vec<String>,
    /// What is in it.
    pub text: String,
}

impl Block {
    /// The command lines in it: all of a script; of a `console` those behind `$ `, with what they continue on.
    pub fn script(&self) -> Option<String> {
        match self.language.as_str() {
            "sh" => Some(self.text.clone()),
            "console" => {
                let mut script = String::new();
                let mut continues = false;
                for line in self.text.lines() {
                    let command = line.strip_prefix("$ ");
                    if let Some(line) = command.or(continues.then_some(line)) {
                        script += line;
                        script.push('\n');
                        continues = line.ends_with('\\');
                    }
                }
                Some(script)
            }
            _ => None,
        }
    }
}

/// Every Markdown file that a user or a contributor reads.
pub fn all() -> Vec<Document> {
    let root = root();
    let mut files = Vec::new();
    for folder in ["", "docs", "deploy", "charts", "tests"] {
        collect(&root.join(folder), folder.is_empty(), &mut files);
    }
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            read(file.strip_prefix(&root).unwrap(), &text)
        })
        .collect()
}

fn collect(folder: &Path, flat: bool, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !flat {
            collect(&path, false, files);
        } else if path.extension().is_some_and(|end| end == "md") {
            files.push(path);
        }
    }
}

/// Reads one document.
pub fn read(path: &Path, text: &str) -> Document {
    let mut document = Document {
        path: path.to_owned(),
        blocks: Vec::new(),
        links: Vec::new(),
        code: Vec::new(),
        anchors: Vec::new(),
    };
    let mut heading: Option<String> = None;
    let mut block: Option<Block> = None;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let info = match kind {
                    CodeBlockKind::Fenced(info) => info.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                let mut words = info.split_whitespace().map(str::to_owned);
                let line = text[..range.start].lines().count();
                block = Some(Block {
                    at: format!("{}:{line}", path.display()),
                    language: words.next().unwrap_or_default(),
                    words: words.collect(),
                    text: String::new(),
                });
            }
            Event::End(TagEnd::CodeBlock) => document.blocks.extend(block.take()),
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let same = |a: &&String| {
                    **a == anchor
                        || a.strip_prefix(&anchor).is_some_and(|end| {
                            end.strip_prefix('-')
                                .is_some_and(|n| n.parse::<u32>().is_ok())
                        })
                };
                let before = document.anchors.iter().filter(same).count();
                document.anchors.push(match before {
                    0 => anchor,
                    n => format!("{anchor}-{n}"),
                });
            }
            Event::Start(Tag::Link { dest_url, .. }) => document.links.push(dest_url.to_string()),
            Event::Text(text) => {
                if let Some(block) = &mut block {
                    block.text += &text;
                }
                if let Some(heading) = &mut heading {
                    *heading += &text;
                }
            }
            Event::Code(code) => {
                if let Some(heading) = &mut heading {
                    *heading += &code;
                }
                document.code.push(code.to_string());
            }
            _ => {}
        }
    }
    document
}

/// As GitHub and GitLab do: lower case, spaces become hyphens, punctuation goes.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c),
            _ => None,
        })
        .collect()
}

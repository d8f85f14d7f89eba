//! A section of the troubleshooting document as plain text, with the names of the reader's objects in it.

use super::{WIDTH, wrap};

/// What is known of the case at hand.
pub(super) struct Words<'a> {
    /// The document's shell variables, and what they are here.
    pub(super) variables: &'a [(&'static str, String)],
    /// What was said; it picks the rows of tables.
    pub(super) message: &'a str,
}

/// The section without marks of Markdown: paragraphs wrapped, commands as they are typed, indented by two. Of a
/// table the row stays whose word the message begins with or names.
pub(super) fn plain(section: &str, words: &Words<'_>) -> String {
    let mut out = String::new();
    let mut paragraph = String::new();
    let mut code = false;
    for line in section.lines() {
        if line.trim_start().starts_with("```") {
            flush(&mut paragraph, &mut out);
            code = !code;
        } else if code {
            out += &format!("      {}\n", filled(line, words));
        } else if let Some(row) = line.strip_prefix('|') {
            flush(&mut paragraph, &mut out);
            if let Some(text) = chosen(row, words.message) {
                flush(&mut unmarked(&text), &mut out);
            }
        } else if line.trim().is_empty() {
            flush(&mut paragraph, &mut out);
        } else {
            paragraph.push_str(&unmarked(&filled(line, words)));
            paragraph.push(' ');
        }
    }
    flush(&mut paragraph, &mut out);
    out
}

fn flush(paragraph: &mut String, out: &mut String) {
    for line in wrap(paragraph, WIDTH) {
        *out += &format!("  {line}\n");
    }
    paragraph.clear();
}

/// The row of a table, as a sentence, when the message names its word.
fn chosen(row: &str, message: &str) -> Option<String> {
    let cells: Vec<_> = row
        .trim_end_matches('|')
        .split('|')
        .map(str::trim)
        .collect();
    let (word, rest) = cells.split_first()?;
    let word = word.strip_prefix('`')?.strip_suffix('`')?;
    message
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|said| said == word)
        .then(|| format!("{word}: {}.", rest.join("; ")))
}

fn filled(line: &str, words: &Words<'_>) -> String {
    let mut text = line.to_owned();
    for (name, value) in words.variables {
        text = text.replace(&format!("${name}"), value);
    }
    text
}

/// Without bold, backticks and the targets of links.
fn unmarked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('[') {
        let link = rest.get(start..).and_then(|from| {
            let (label, after) = from.strip_prefix('[')?.split_once("](")?;
            let (_, after) = after.split_once(')')?;
            (!label.contains(']')).then_some((label, after))
        });
        let (before, _) = rest.split_at(start);
        out.push_str(before);
        match link {
            Some((label, after)) => {
                out.push_str(label);
                rest = after;
            }
            None => {
                out.push('[');
                rest = rest.get(start + 1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out.replace("**", "").replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_becomes_text_with_the_readers_names() {
        let section = "**Means** that it is [so](x.md#y), `a[1]` too.\n\n```sh\nkubectl -n $NS get pod $POD -o jsonpath='{.a[0]}'\n```\n\n| word | meaning | what to do |\n|---|---|---|\n| `Draining` | stopped | nothing |\n| `ToolFailed` | it died | read |\n\n**Do** `x`.";
        let words = Words {
            variables: &[("NS", "shop".into()), ("POD", "db-0".into())],
            message: "ToolFailed: mariadb-backup said no",
        };
        assert_eq!(
            plain(section, &words),
            "  Means that it is so, a[1] too.\n      kubectl -n shop get pod db-0 -o jsonpath='{.a[0]}'\n  ToolFailed: it died; read.\n  Do x.\n"
        );
    }
}

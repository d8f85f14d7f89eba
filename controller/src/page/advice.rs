//! What a reason means and what to do, as the troubleshooting document has it, for a browser.

use crate::{api::check_name, reason::advice};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

/// A section of the troubleshooting document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Help {
    /// The reason.
    pub(super) reason: String,
    /// The section, HTML. It is made of the document alone, and of names that [`check_name`] lets pass.
    pub(super) html: String,
}

/// The section on a reason of an object, with the object's name in its commands.
pub(super) fn help(kind: &str, namespace: &str, name: &str, reason: &str) -> Option<Help> {
    let section = advice::of(kind, reason)?;
    let mut text = section.text.to_owned();
    let variable = match kind {
        "BackupJob" => "$JOB",
        "BackupSchedule" => "$SCHEDULE",
        "BackupStore" => "$STORE",
        _ => "$RESTORE",
    };
    // Only what can be a name goes into a command that somebody may paste into a shell.
    if check_name(namespace).is_ok() && check_name(name).is_ok() {
        text = text.replace("$NS", namespace).replace(variable, name);
    }
    Some(Help {
        reason: reason.to_owned(),
        html: html_of(&text),
    })
}

/// Links lead to other documents, which are not here: their words stay.
fn html_of(markdown: &str) -> String {
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES).filter(|event| {
        !matches!(
            event,
            Event::Start(Tag::Link { .. })
                | Event::End(TagEnd::Link)
                | Event::Html(_)
                | Event::InlineHtml(_)
        )
    });
    let mut out = String::new();
    html::push_html(&mut out, events);
    // `align` of a table would be an inline style.
    out.replace("<th>", "<th scope=\"col\">")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_becomes_html_that_the_policy_allows() {
        for (kind, reason) in advice::every_reason() {
            let help = help(kind, "shop", "nightly-1", reason).unwrap();
            let html = &help.html;
            assert!(
                html.contains("<strong>Do</strong>"),
                "{kind} {reason}: {html}"
            );
            for refused in ["<a ", "style=", "<script", "<img", "$NS"] {
                assert!(!html.contains(refused), "{kind} {reason}: {html}");
            }
        }
    }

    #[test]
    fn commands_name_the_object() {
        let html = help("BackupJob", "shop", "n-1", "StoreNotReady")
            .unwrap()
            .html;
        assert!(
            html.contains("kubectl -n shop describe bkstore $STORE"),
            "{html}"
        );
        let hostile = help("BackupJob", "shop", "$(reboot)", "NoAgent")
            .unwrap()
            .html;
        assert!(!hostile.contains("reboot"), "{hostile}");
        assert_eq!(help("BackupJob", "shop", "n-1", "Succeeded"), None);
    }
}

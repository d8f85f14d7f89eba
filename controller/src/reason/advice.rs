//! What to do about a reason: the sections of docs/troubleshooting.md, which is the one place where it stands.

/// The document itself.
const DOCUMENT: &str = include_str!("../../../docs/troubleshooting.md");

/// What the fleet says of a schedule that no controller has looked at.
pub const NOT_TAKEN_UP: &str = "NotTakenUp";
/// Its section.
const NOBODY: &str = "TowlineControllerDown";
/// Section of objects that their type cannot hold; their condition says `InvalidSpec`.
const MALFORMED: &str = "TowlineMalformedObjects";

/// A section of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Its heading, e.g. `BackupJob: NoAgent`.
    pub title: &'static str,
    /// All of it below the heading, Markdown.
    pub text: &'static str,
    /// The paragraph on what the reason means.
    pub means: &'static str,
    /// Where to look, with the commands.
    pub look: &'static str,
    /// What to do.
    pub act: &'static str,
}

impl Advice {
    /// What a link to the section ends in, behind `#`.
    #[must_use]
    pub fn anchor(&self) -> String {
        anchor(self.title)
    }
}

/// The section on a reason of a kind, e.g. of `BackupJob` on `NoAgent`. None for a word that is in none of the
/// closed sets, such as `Succeeded`.
#[must_use]
pub fn of(kind: &str, reason: &str) -> Option<Advice> {
    let title = match (kind, reason) {
        // What other conditions of a schedule say are the words of its jobs and drills.
        ("BackupSchedule", NOT_TAKEN_UP) => NOBODY.to_owned(),
        ("BackupSchedule", _) => {
            return find(&format!("BackupSchedule: {reason}"))
                .or_else(|| {
                    find(&format!("BackupJob: {reason}")).filter(|_| reason != "InvalidSpec")
                })
                .or_else(|| {
                    find(&format!("RestoreJob: {reason}")).filter(|_| reason != "InvalidSpec")
                })
                .or_else(|| find(MALFORMED).filter(|_| reason == "InvalidSpec"));
        }
        ("BackupStore", "InvalidSpec") => MALFORMED.to_owned(),
        _ => format!("{kind}: {reason}"),
    };
    find(&title)
}

/// The section on an alert.
#[must_use]
pub fn of_alert(alert: &str) -> Option<Advice> {
    find(alert)
}

fn find(title: &str) -> Option<Advice> {
    let mut sections = DOCUMENT.split("\n### ").skip(1);
    let section = sections.find(|section| section.lines().next() == Some(title))?;
    let (title, text) = section.split_once('\n')?;
    let text = text.split("\n## ").next()?.trim();
    let look = text.find("\n**Look**")?;
    let act = text.find("\n**Do**")?;
    Some(Advice {
        title,
        text,
        means: text.get(..look)?.trim(),
        look: text.get(look..act)?.trim(),
        act: text.get(act..)?.trim(),
    })
}

/// As forges make it of a heading: lower case, spaces become hyphens, punctuation goes.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

/// Kind and word of all closed sets, for the tests of what is made of the sections.
#[cfg(test)]
pub(crate) fn every_reason() -> Vec<(&'static str, &'static str)> {
    use super::{FailureReason, RestoreReason, ScheduleReason, StoreReason};
    let mut all = Vec::new();
    all.extend(FailureReason::ALL.map(|r| ("BackupJob", r.as_str())));
    all.extend(RestoreReason::ALL.map(|r| ("RestoreJob", r.as_str())));
    all.extend(StoreReason::ALL.iter().map(|r| ("BackupStore", r.as_str())));
    all.extend(
        ScheduleReason::ALL
            .iter()
            .map(|r| ("BackupSchedule", r.as_str())),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_section() {
        for (kind, reason) in every_reason() {
            let advice = of(kind, reason).unwrap_or_else(|| panic!("{kind} {reason}"));
            assert_eq!(advice.title, format!("{kind}: {reason}"));
            assert!(advice.means.starts_with("**Means**"), "{advice:?}");
            assert!(advice.look.starts_with("**Look**"), "{advice:?}");
            assert!(advice.act.starts_with("**Do**"), "{advice:?}");
            assert!(!advice.text.contains("\n## "), "{advice:?}");
            assert_eq!(
                advice.anchor(),
                format!("{}-{}", kind.to_lowercase(), reason.to_lowercase())
            );
        }
    }

    #[test]
    fn what_a_schedule_says_of_jobs_and_drills_leads_to_them() {
        for (reason, title) in [
            ("NoAgent", "BackupJob: NoAgent"),
            ("CheckFailed", "RestoreJob: CheckFailed"),
            ("InvalidSpec", "TowlineMalformedObjects"),
            ("Suspended", "BackupSchedule: Suspended"),
            (NOT_TAKEN_UP, "TowlineControllerDown"),
        ] {
            assert_eq!(of("BackupSchedule", reason).unwrap().title, title);
        }
        assert_eq!(
            of("BackupStore", "InvalidSpec").unwrap().title,
            "TowlineMalformedObjects"
        );
        assert_eq!(of("BackupJob", "Succeeded"), None);
        assert_eq!(of("BackupJob", ""), None);
    }

    #[test]
    fn alerts_have_theirs() {
        assert_eq!(
            of_alert("TowlineDrillFailed").unwrap().anchor(),
            "towlinedrillfailed"
        );
        assert_eq!(of_alert("Nothing"), None);
    }
}

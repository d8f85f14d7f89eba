//! The kinds of objects, as a command line names them.

use std::{fmt, str::FromStr};

/// A kind of Towline's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `BackupJob`.
    Job,
    /// `RestoreJob`.
    Restore,
    /// `BackupSchedule`.
    Schedule,
    /// `BackupStore`.
    Store,
}

impl Kind {
    /// In the order in which a name alone is looked for.
    pub(super) const ALL: [Self; 4] = [Self::Job, Self::Restore, Self::Schedule, Self::Store];

    /// As the API writes it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "BackupJob",
            Self::Restore => "RestoreJob",
            Self::Schedule => "BackupSchedule",
            Self::Store => "BackupStore",
        }
    }

    /// All its names: short ones of ours, then those of the definition.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Job => &[
                "job",
                "jobs",
                "backup",
                "backups",
                "bkjob",
                "backupjob",
                "backupjobs",
            ],
            Self::Restore => &[
                "restore",
                "restores",
                "drill",
                "drills",
                "rjob",
                "restorejob",
                "restorejobs",
            ],
            Self::Schedule => &[
                "schedule",
                "schedules",
                "bksched",
                "backupschedule",
                "backupschedules",
            ],
            Self::Store => &["store", "stores", "bkstore", "backupstore", "backupstores"],
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        let word = word.strip_suffix(".towline.dev").unwrap_or(word);
        Self::ALL.into_iter().find(|kind| {
            kind.names()
                .iter()
                .any(|name| name.eq_ignore_ascii_case(word))
        })
    }
}

/// `NAME`, or `TYPE/NAME` as kubectl has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// None: whichever kind has an object of this name.
    pub(super) kind: Option<Kind>,
    pub(super) name: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            None => (None, text),
            Some((word, name)) => {
                let kind = Kind::parse(word).ok_or_else(|| {
                    format!("{word} is no kind of Towline's: write job, restore, schedule or store")
                })?;
                (Some(kind), name)
            }
        };
        crate::api::check_name(name)?;
        Ok(Self {
            kind,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{} {}", kind.as_str(), self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The name of an object, checked before it goes into a path.
pub(super) fn object_name(text: &str) -> Result<String, String> {
    crate::api::check_name(text)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_with_or_without_its_kind() {
        for (text, kind) in [
            ("nightly", None),
            ("job/nightly", Some(Kind::Job)),
            ("BackupSchedule/nightly", Some(Kind::Schedule)),
            ("restorejobs.towline.dev/nightly", Some(Kind::Restore)),
            ("bkstore/nightly", Some(Kind::Store)),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.kind, &*target.name), (kind, "nightly"), "{text}");
        }
        for (text, needle) in [
            ("pod/x", "pod is no kind"),
            ("job/", "cannot be the name"),
            ("../secrets", ".. is no kind"),
            ("job/a/b", "cannot be the name"),
            ("Nightly", "cannot be the name"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    /// The definitions' own names are all known.
    #[test]
    fn every_name_of_the_definitions_is_taken() {
        for crd in crate::api::crds() {
            let names = &crd.spec.names;
            let kind = Kind::parse(&names.kind).unwrap();
            assert_eq!(kind.as_str(), names.kind);
            let short = names.short_names.iter().flatten();
            for name in short.chain([&names.plural]).chain(&names.singular) {
                assert_eq!(Kind::parse(name), Some(kind), "{name}");
            }
        }
    }
}

//! In which order members may come, and how large they may be.

use super::ArchiveError;
use crate::archive::member::{MEMBER_BYTES, Part, SUMMARY, Sums};

/// How far the members between metadata and summary have come.
#[derive(Default)]
pub(super) struct Order {
    part: Part,
    /// Of the data members; the first one says it.
    extension: Option<&'static str>,
    /// Only the last member of a part may be short.
    last_was_short: bool,
}

impl Order {
    /// Of the data members, as `SHA256SUMS` spells it.
    pub(super) fn extension(&self) -> &'static str {
        self.extension.unwrap_or("xbs")
    }

    /// What the next member is: one more of its part, or the first one with accounts.
    ///
    /// # Errors
    /// It cannot come here, or cannot have this size.
    pub(super) fn next(
        &mut self,
        name: &str,
        size: u64,
        sums: &Sums,
    ) -> Result<Part, ArchiveError> {
        let extensions = self.extension.map_or(vec!["xbs", "sql"], |was| vec![was]);
        let index = sums.members(self.part);
        let one_more = extensions
            .into_iter()
            .find(|extension| !self.last_was_short && name == self.part.name(index, extension));
        let accounts = self.part == Part::Data && name == Part::Users.name(0, "");
        match one_more {
            Some(extension) if self.part == Part::Data => self.extension = Some(extension),
            Some(_) => {}
            None if accounts => self.part = Part::Users,
            None => return Err(self.expected(name, index)),
        }
        let most = MEMBER_BYTES as u64;
        if !(1..=most).contains(&size) || sums.members(self.part) == self.part.most() {
            return Err(ArchiveError::Size {
                member: name.to_owned(),
                size,
            });
        }
        self.last_was_short = size < most;
        Ok(self.part)
    }

    fn expected(&self, found: &str, index: u64) -> ArchiveError {
        let extension = self.extension.unwrap_or("xbs|sql");
        let expected = if self.last_was_short {
            SUMMARY.to_owned()
        } else {
            format!("{} or {SUMMARY}", self.part.name(index, extension))
        };
        ArchiveError::OutOfOrder {
            expected,
            found: found.to_owned(),
        }
    }
}

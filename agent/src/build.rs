//! What a program was built from: the workspace's version, and the commit that the builder named.

use prometheus::{IntGaugeVec, Opts, Registry};
use std::fmt;

/// Version and commit of a program, as `--version`, its first log line and its `build_info` metric say them.
///
/// Only the programs themselves read `TOWLINE_COMMIT`, so that another commit does not rebuild the libraries.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// The workspace's version.
    pub version: &'static str,
    /// The abbreviated commit, with `-dirty` where the checkout had changes; `unknown` when nobody
    /// said it.
    pub commit: &'static str,
}

impl Build {
    /// `commit` is `option_env!("TOWLINE_COMMIT")` of the program; an empty one counts as none.
    #[must_use]
    pub const fn new(commit: Option<&'static str>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: match commit {
                Some(commit) if !commit.is_empty() => commit,
                _ => "unknown",
            },
        }
    }

    /// Registers the gauge `name`, which is always 1, with version and commit as labels.
    ///
    /// # Errors
    /// When the name is already taken in `registry`.
    pub fn register(&self, name: &str, registry: &Registry) -> Result<(), prometheus::Error> {
        let gauge = IntGaugeVec::new(
            Opts::new(name, "Always 1; the labels say what was built."),
            &["version", "commit"],
        )?;
        gauge.with_label_values(&[self.version, self.commit]).set(1);
        registry.register(Box::new(gauge))
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (commit {})", self.version, self.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_nobody_said_is_unknown() {
        for none in [None, Some("")] {
            assert_eq!(Build::new(none).commit, "unknown");
        }
        let text = Build::new(Some("1a2b3c4d5e6f-dirty")).to_string();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(text, format!("{version} (commit 1a2b3c4d5e6f-dirty)"));
    }
}

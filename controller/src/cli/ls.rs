//! `towline ls`: the backups of a store.

use super::{CliError, human, store::StoreArgs};
use crate::catalog::{self, Listed, Manifest, Outcome};
use clap::{Args, ValueEnum};

/// Which store to list, and how.
#[derive(Args, Debug)]
pub(super) struct LsArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,

    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs: an array of manifests, each with its key
    Json,
}

impl LsArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let store = self.store.open(true)?;
        let listed = catalog::list(&store, &self.store.namespace).await?;
        let good: Vec<&Manifest> = listed
            .iter()
            .filter_map(|l| l.manifest.as_ref().ok())
            .filter(|m| m.outcome == Outcome::Complete)
            .collect();
        match self.output {
            Output::Table => print!("{}", table(&good)),
            Output::Json => println!("{}", json(&good)?),
        }
        let bad: Vec<String> = listed.iter().filter_map(unreadable).collect();
        if bad.is_empty() {
            Ok(())
        } else {
            Err(CliError::failed(bad.join("\ntowline: ")))
        }
    }
}

fn unreadable(listed: &Listed) -> Option<String> {
    listed.manifest.as_ref().err().map(ToString::to_string)
}

fn table(manifests: &[&Manifest]) -> String {
    let mut rows = vec![["KEY", "SIZE", "METHOD", "SERVER", "FINISHED"].map(str::to_owned)];
    rows.extend(manifests.iter().map(|m| {
        [
            m.identity.folder(),
            human(m.bytes),
            m.method.clone(),
            format!("{} {}", m.server_flavour, m.server_version)
                .trim()
                .to_owned(),
            m.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|r| r[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn json(manifests: &[&Manifest]) -> Result<String, CliError> {
    let fail = |e: serde_json::Error| CliError::failed(format!("cannot be written as JSON: {e}"));
    let mut list = Vec::new();
    for manifest in manifests {
        let mut value = serde_json::to_value(manifest).map_err(fail)?;
        value["key"] = manifest.identity.folder().into();
        list.push(value);
    }
    serde_json::to_string_pretty(&list).map_err(fail)
}

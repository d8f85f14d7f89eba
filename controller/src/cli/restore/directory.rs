//! Into a data directory.

use super::{Found, show};
use crate::{
    cli::{CliError, human, position, stop_signal},
    stored_archive::StoredArchive,
};
use std::{path::PathBuf, sync::Arc, time::Instant};
use towline_agent::restore::{
    Progress, Source,
    marker::{Marker, State},
    physical::{PhysicalTarget, physical},
};

pub(super) async fn restore(
    found: Found,
    directory: PathBuf,
    scratch: Option<PathBuf>,
    use_memory: Option<u64>,
) -> Result<(), CliError> {
    let Found {
        store,
        manifest,
        identities,
    } = found;
    let folder = manifest.identity.folder();
    let target = PhysicalTarget {
        directory,
        scratch: scratch.unwrap_or_else(std::env::temp_dir),
        use_memory,
    };
    let source = Source {
        archive: StoredArchive::open(Arc::clone(&store), &manifest),
        identities: Arc::new(identities),
        expected: manifest.expected(),
        backup_id: manifest.backup_id.clone(),
    };
    let started = Instant::now();
    let progress = Progress::default();
    let shown = show::Shown::start(progress.clone());
    let restored = physical(source, &target, &progress, stop_signal()).await;
    shown.end().await;
    let directory = target.directory.display();
    let restored = restored.map_err(|error| {
        let mut error = CliError::from(error);
        let marker = Marker::read(&target.directory).ok().flatten();
        if marker.is_some_and(|marker| marker.state == State::Unfinished) {
            error.message.push_str(&format!(
                "; {directory} is not usable: empty it before you try again"
            ));
        }
        error
    })?;
    let metadata = &restored.metadata;
    let lines = [
        format!("{directory}: the server's data, verified and prepared"),
        format!("  backup    {folder}, {}", human(manifest.bytes)),
        format!(
            "  server    {} {}",
            metadata.server_flavour, metadata.server_version
        ),
        format!(
            "  tables    {} in {} schemas",
            restored.tables,
            restored.databases.len()
        ),
        format!("  position  {}", position(&restored.summary.position)),
        "Give the files to the server's own user, as in chown -R mysql:mysql, before you start it."
            .to_owned(),
        format!(
            "{folder} bytes={} tables={} duration={:.1}s",
            manifest.bytes,
            restored.tables,
            started.elapsed().as_secs_f64()
        ),
    ];
    for line in lines {
        // What an archive says of itself is a peer's text too.
        let plain: String = line.chars().filter(|c| !c.is_control()).collect();
        println!("{plain}");
    }
    Ok(())
}

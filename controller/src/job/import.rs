//! The record of a backup that exists already: its status is what the manifest says, and nothing runs.

use super::Subject;
use crate::{
    api::job::Import,
    catalog::{self, Outcome},
    error::Error,
    reason::FailureReason,
};
use kube::runtime::controller::Action;
use std::time::Duration;

/// What of a key is missing, when it lies under another namespace.
fn refusal(import: &Import, namespace: &str) -> Option<String> {
    let first = import.key.split('/').next().unwrap_or_default();
    (first != namespace).then(|| {
        format!(
            "spec.import.key {:?} lies under namespace {first:?}: a job in namespace {namespace} can be the record of a backup of {namespace} only",
            import.key
        )
    })
}

impl Subject<'_> {
    pub(super) async fn import(&mut self, import: &Import) -> Result<Action, Error> {
        if let Some(message) = refusal(import, &self.namespace) {
            return self.conclude(FailureReason::InvalidSpec, &message).await;
        }
        if let Err(message) = self.store_is_ready().await {
            return self.wait_for_store(&message).await;
        }
        let store = match self.open_store().await? {
            Ok((store, _)) => store,
            Err(message) => return self.wait_for_store(&message).await,
        };
        let name = &import.store_ref.name;
        let read = super::decide::patiently(catalog::read_manifest(&store, &import.key)).await;
        let message = match read {
            Ok(Some(manifest)) if manifest.outcome == Outcome::Complete => {
                let key = manifest.key(&store).unwrap_or_default();
                self.change(|record| record.import(&manifest, key)).await?;
                let note = format!(
                    "the record of {} of {}",
                    super::record::human_bytes(manifest.bytes),
                    manifest.time
                );
                self.context
                    .report
                    .normal(&self.object(), "Imported", "Import", &note)
                    .await;
                return Ok(Action::requeue(Duration::from_millis(100)));
            }
            Ok(Some(manifest)) => format!(
                "spec.import.key names no backup: it was given up at {}; towline ls prints the backups of BackupStore {name}",
                manifest.time
            ),
            Ok(None) => format!(
                "there is no backup {} in BackupStore {name}: correct spec.import.key to one that towline ls prints",
                import.key
            ),
            Err(error) => return self.undecided(&error.message).await,
        };
        self.conclude(FailureReason::InvalidSpec, &message).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LocalReference;

    #[test]
    fn a_key_lies_under_the_jobs_namespace() {
        let import = |key: &str| Import {
            store_ref: LocalReference {
                name: "main".into(),
            },
            key: key.into(),
        };
        let key = |namespace: &str| import(&format!("{namespace}/nightly/20260102T030405Z-u"));
        assert_eq!(refusal(&key("shop"), "shop"), None);
        for other in ["shop2", "", "sho", "SHOP"] {
            assert!(refusal(&key(other), "shop").is_some(), "{other}");
        }
    }
}

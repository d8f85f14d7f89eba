//! Stores that are open, kept for the next attempt: to open one reads the system's certificates and
//! makes clients, and those of an open one have connections.

use crate::storage::{Store, StoreConfig, StoreError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::OnceCell, task};

/// How long a store that nobody uses is kept: longer than the time between two probes.
const KEPT: Duration = Duration::from_secs(600);

/// The open stores of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OpenStores(Arc<Mutex<HashMap<Key, Entry>>>);

/// Namespace and name.
type Key = (String, String);

#[derive(Debug)]
struct Entry {
    config: StoreConfig,
    /// Several that come at once open it once.
    store: Arc<OnceCell<Arc<Store>>>,
    used: Instant,
}

impl OpenStores {
    /// The open store of this name, if it was opened as `config` says, which has the credentials in
    /// it; else it is opened.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open(
        &self,
        namespace: &str,
        name: &str,
        config: StoreConfig,
    ) -> Result<Arc<Store>, StoreError> {
        let key = (namespace.to_owned(), name.to_owned());
        let store = self.entry(key, &config, Instant::now());
        let opened = store.get_or_try_init(|| async {
            let opened = task::spawn_blocking(|| Store::open(config)).await;
            opened
                .unwrap_or_else(|lost| {
                    Err(StoreError::failed(format!("it was not opened: {lost}")))
                })
                .map(Arc::new)
        });
        opened.await.cloned()
    }

    fn entry(&self, key: Key, config: &StoreConfig, now: Instant) -> Arc<OnceCell<Arc<Store>>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| now.duration_since(entry.used) < KEPT);
        let new = || Entry {
            config: config.clone(),
            store: Arc::default(),
            used: now,
        };
        let entry = entries.entry(key).or_insert_with(new);
        if !same(&entry.config, config) {
            *entry = new();
        }
        entry.used = now;
        Arc::clone(&entry.store)
    }
}

/// Whether two configurations open the same store with the same rights. Who is told of requests is
/// the same for all stores of a process.
fn same(a: &StoreConfig, b: &StoreConfig) -> bool {
    let StoreConfig {
        location,
        prefix,
        part_size,
        max_parts,
        allow_local_addresses,
        capabilities,
        observer: _,
    } = a;
    *location == b.location
        && *prefix == b.prefix
        && *part_size == b.part_size
        && *max_parts == b.max_parts
        && *allow_local_addresses == b.allow_local_addresses
        && *capabilities == b.capabilities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Location, S3Config, S3Credentials};

    fn config(bucket: &str, key: &str) -> StoreConfig {
        StoreConfig::new(Location::S3(S3Config {
            bucket: bucket.into(),
            endpoint: Some("http://10.0.0.1:7070".into()),
            allow_http: true,
            force_path_style: true,
            credentials: Some(S3Credentials {
                access_key_id: "id".into(),
                secret_access_key: key.into(),
                session_token: None,
            }),
            ..S3Config::default()
        }))
    }

    #[tokio::test]
    async fn a_store_is_opened_once_until_what_it_is_made_of_changes() {
        let stores = OpenStores::default();
        let open = async |namespace, bucket, key| {
            let opened = stores.open(namespace, "main", config(bucket, key)).await;
            opened.unwrap()
        };
        let (first, again) = tokio::join!(open("a", "x", "1"), open("a", "x", "1"));
        assert!(Arc::ptr_eq(&first, &again));
        for (what, other) in [
            ("another namespace", open("b", "x", "1").await),
            ("a renewed key", open("a", "x", "2").await),
            ("another bucket", open("a", "y", "2").await),
        ] {
            assert!(!Arc::ptr_eq(&first, &other), "{what}");
        }
        assert!(
            !Arc::ptr_eq(&first, &open("a", "x", "1").await),
            "the old one is not kept beside the new one"
        );
        let mut probed = config("x", "1");
        probed.capabilities.crc64nvme = true;
        let before = open("c", "x", "1").await;
        let after = stores.open("c", "main", probed).await.unwrap();
        assert!(
            !Arc::ptr_eq(&before, &after),
            "what a probe found out counts"
        );
    }

    #[tokio::test]
    async fn what_could_not_be_opened_is_tried_again() {
        let stores = OpenStores::default();
        let mut bad = config("x", "1");
        bad.max_parts = 0;
        for _ in 0..2 {
            assert!(stores.open("a", "main", bad.clone()).await.is_err());
        }
        assert!(stores.open("a", "main", config("x", "1")).await.is_ok());
    }

    #[test]
    fn one_that_nobody_uses_is_closed() {
        let stores = OpenStores::default();
        let key = |name: &str| ("a".to_owned(), name.to_owned());
        let begin = Instant::now();
        stores.entry(key("old"), &config("x", "1"), begin);
        stores.entry(key("used"), &config("x", "1"), begin);
        stores.entry(key("used"), &config("x", "1"), begin + KEPT / 2);
        stores.entry(key("new"), &config("x", "1"), begin + KEPT);
        let entries = stores.0.lock().unwrap();
        let mut names: Vec<_> = entries.keys().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["new", "used"]);
    }
}

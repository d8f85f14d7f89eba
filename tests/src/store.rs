//! The S3 server: buckets of tests, and what lies in them.

use crate::{Cluster, Namespace, run_ok};
use futures::TryStreamExt as _;
use object_store::{
    ObjectStore, ObjectStoreExt as _,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    signer::Signer as _,
};
use serde_json::Value;
use std::time::Duration;

/// A bucket, as this process sees it.
pub struct Bucket {
    /// Its name.
    pub name: String,
    store: AmazonS3,
}

impl Bucket {
    /// A bucket that may not exist yet.
    pub fn named(cluster: &Cluster, name: &str) -> Self {
        let store = AmazonS3Builder::new()
            .with_endpoint(&cluster.s3_endpoint_here)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(name)
            .with_access_key_id(&cluster.s3_key.0)
            .with_secret_access_key(&cluster.s3_key.1)
            .build()
            .unwrap();
        Self {
            name: name.to_owned(),
            store,
        }
    }

    /// A new, empty bucket of the namespace's name.
    pub async fn create(namespace: &Namespace) -> Self {
        Self::create_named(&namespace.cluster, &namespace.name).await
    }

    /// A new, empty bucket.
    pub async fn create_named(cluster: &Cluster, name: &str) -> Self {
        let bucket = Self::named(cluster, name);
        bucket.signed("PUT", &[]).await;
        bucket.empty().await;
        bucket
    }

    /// Removes all that is in it, unfinished uploads too.
    pub async fn empty(&self) {
        for key in self.keys().await {
            self.store.delete(&Path::from(key)).await.unwrap();
        }
        for (key, upload) in self.uploads().await {
            object_store::multipart::MultipartStore::abort_multipart(
                &self.store,
                &Path::from(key),
                &upload,
            )
            .await
            .unwrap();
        }
    }

    /// Every key, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let sizes = self.sizes().await;
        sizes.into_iter().map(|(key, _)| key).collect()
    }

    /// Every key with its object's bytes, sorted.
    pub async fn sizes(&self) -> Vec<(String, u64)> {
        let mut objects: Vec<_> = self
            .store
            .list(None)
            .map_ok(|object| (object.location.to_string(), object.size))
            .try_collect()
            .await
            .unwrap();
        objects.sort();
        objects
    }

    /// One object.
    pub async fn read(&self, key: &str) -> Vec<u8> {
        self.store
            .get(&Path::from(key))
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap()
            .to_vec()
    }

    /// Writes one object.
    pub async fn write(&self, key: &str, body: impl Into<object_store::PutPayload>) {
        self.store.put(&Path::from(key), body.into()).await.unwrap();
    }

    /// Opens a multipart upload and leaves it so.
    pub async fn open_upload(&self, key: &str) -> String {
        object_store::multipart::MultipartStore::create_multipart(&self.store, &Path::from(key))
            .await
            .unwrap()
    }

    /// Unfinished multipart uploads: key and upload id.
    pub async fn uploads(&self) -> Vec<(String, String)> {
        let xml = self.signed("GET", &[("uploads", "")]).await;
        let tags = |tag: &str| -> Vec<String> {
            xml.split(&format!("<{tag}>"))
                .skip(1)
                .filter_map(|rest| rest.split("</").next())
                .map(str::to_owned)
                .collect()
        };
        let keys = tags("Key");
        let ids = tags("UploadId");
        assert_eq!(keys.len(), ids.len(), "{xml}");
        keys.into_iter().zip(ids).collect()
    }

    /// There is exactly one archive, that of the job's status and of the one manifest, and it is whole.
    pub async fn assert_one_backup(&self, job: &Value) {
        let status = &job["status"];
        let keys = self.keys().await;
        let manifests: Vec<_> = keys
            .iter()
            .filter(|key| key.ends_with("/manifest.json"))
            .collect();
        let uid = job["metadata"]["uid"].as_str().unwrap();
        let ours: Vec<_> = manifests.iter().filter(|key| key.contains(uid)).collect();
        assert_eq!(ours.len(), 1, "{keys:?}");
        assert_eq!(status["manifestKey"], **ours[0], "{status}");
        let manifest: Value = serde_json::from_slice(&self.read(ours[0]).await).unwrap();
        assert_eq!(manifest["outcome"], "Complete");
        let archives: Vec<_> = keys
            .iter()
            .filter(|key| key.contains(uid) && key.contains("/backup.tar"))
            .collect();
        let named: Vec<_> = status["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["key"].as_str().unwrap())
            .collect();
        assert_eq!(archives, named);
        let archive = self.archive(job).await;
        assert_eq!(status["bytes"].as_u64(), Some(archive.len() as u64));
        let digest = hex::encode(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            &archive,
        ));
        assert_eq!(status["sha256"], digest.as_str());
        assert_eq!(manifest["sha256"], digest.as_str());
    }

    /// A succeeded job's archive: its objects one after the other.
    pub async fn archive(&self, job: &Value) -> Vec<u8> {
        let mut archive = Vec::new();
        for object in job["status"]["objects"].as_array().unwrap() {
            archive.extend(self.read(object["key"].as_str().unwrap()).await);
        }
        archive
    }

    /// Sends a request for the bucket itself by a signed URL. "Already owned by you" is fine.
    async fn signed(&self, method: &str, query: &[(&str, &str)]) -> String {
        let mut options = object_store::signer::SignedUrlOptions::default();
        for (name, value) in query {
            options = options.with_query([(*name, *value)]);
        }
        let url = self
            .store
            .signed_url_opts(
                method.parse().unwrap(),
                &Path::default(),
                Duration::from_secs(60),
                &options,
            )
            .await
            .unwrap();
        run_ok(
            "curl",
            &["-s", "--max-time", "30", "-X", method, url.as_str()],
            b"",
        )
        .await
    }
}

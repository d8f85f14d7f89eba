//! Which cluster the tests use, told by the environment that `tests/cluster` prints.

use std::{env, path::PathBuf};

/// The cluster and what runs beside it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Kubeconfig of an administrator.
    pub kubeconfig: String,
    /// The S3 server, as pods reach it.
    pub s3_endpoint: String,
    /// The S3 server, as this process reaches it.
    pub s3_endpoint_here: String,
    /// Its key pair.
    pub s3_key: (String, String),
    /// Before image names, with a slash at the end: `localhost/` or a registry.
    pub images: String,
    /// Whether this is somebody else's cluster, where nothing on the host may be touched.
    pub external: bool,
}

impl Cluster {
    /// Reads the environment; panics with the remedy when it is not there.
    pub fn from_env() -> Self {
        let need = |name: &str| {
            env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run the tests by `make test`, or `eval \"$(tests/cluster/cluster env)\"` first")
            })
        };
        Self {
            kubeconfig: need("TOWLINE_E2E_KUBECONFIG"),
            s3_endpoint: need("TOWLINE_E2E_S3_ENDPOINT"),
            s3_endpoint_here: env::var("TOWLINE_E2E_S3_ENDPOINT_HERE")
                .unwrap_or_else(|_| need("TOWLINE_E2E_S3_ENDPOINT")),
            s3_key: (
                need("TOWLINE_E2E_S3_ACCESS_KEY"),
                need("TOWLINE_E2E_S3_SECRET_KEY"),
            ),
            images: env::var("TOWLINE_E2E_IMAGES").unwrap_or_else(|_| "localhost/".into()),
            external: env::var("TOWLINE_TEST_KUBECONFIG").is_ok(),
        }
    }

    /// Images of a local cluster are imported, never pulled.
    pub fn pull_policy(&self) -> &'static str {
        if self.external { "Always" } else { "Never" }
    }

    /// Full name of one of our images.
    pub fn image(&self, name: &str) -> String {
        format!("{}{name}", self.images)
    }
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

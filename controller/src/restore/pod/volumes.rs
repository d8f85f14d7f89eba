//! What a restore's pod sees: its target, and Secrets as files, each only where it is used.

use super::{Order, Target};
use crate::{
    api::{job::SourceTls, restore::Decryption},
    restore_pod::{IDENTITY_DIR, SCRATCH_DIR, STORE_SECRET_DIR},
};
use serde_json::{Value, json};

/// Temporary files of tools.
const SCRATCH: &str = "1Gi";
/// Read by the pod's group, which is its fsGroup.
const READABLE: i32 = 0o440;

impl Order<'_> {
    pub(super) fn volumes(&self) -> Result<Vec<Value>, String> {
        let to = &self.spec.to;
        let scratch = to.persistent_volume_claim.as_ref();
        let scratch = scratch.and_then(|volume| volume.scratch.as_deref());
        let mut volumes = vec![empty_dir("scratch", scratch.unwrap_or(SCRATCH))];
        if let Some(reference) = &self.store.credentials_secret_ref {
            volumes.push(json!({
                "name": "store",
                "secret": {"secretName": reference.name, "defaultMode": READABLE},
            }));
        }
        if let Some(decryption) = self.decryption() {
            let secret = &decryption.identity_secret_ref;
            volumes.push(json!({
                "name": "identity",
                // Without the key the pod says so at once; it would else wait for it for ever.
                "secret": {
                    "secretName": secret.name,
                    "items": [{"key": secret.key, "path": "identity"}],
                    "defaultMode": READABLE,
                    "optional": true,
                },
            }));
        }
        match &self.target {
            Target::Volume => {
                let claim = to.persistent_volume_claim.as_ref();
                let claim = claim.map_or("", |volume| volume.claim_name.as_str());
                volumes
                    .push(json!({"name": "data", "persistentVolumeClaim": {"claimName": claim}}));
            }
            Target::Agent { .. } => {
                let sources = self.agent_secrets();
                if !sources.is_empty() {
                    volumes.push(json!({
                        "name": "agent",
                        "projected": {"sources": sources, "defaultMode": READABLE},
                    }));
                }
            }
            Target::Drill => volumes.extend(self.drill_volumes()?),
        }
        Ok(volumes)
    }

    /// The Secrets by which the agent lets us in, each key under its name in the contract.
    pub(super) fn agent_secrets(&self) -> Vec<Value> {
        let Some(agent) = &self.spec.to.agent else {
            return Vec::new();
        };
        let mut sources = Vec::new();
        let mut add = |name: &str, items: Value| {
            sources.push(json!({"secret": {"name": name, "items": items}}));
        };
        if let Some(auth) = &agent.auth {
            let token = &auth.token_secret_ref;
            add(&token.name, json!([{"key": token.key, "path": "token"}]));
        }
        if let Some(SourceTls {
            ca_secret_ref: Some(ca),
            ..
        }) = &agent.tls
        {
            add(&ca.name, json!([{"key": ca.key, "path": "ca.crt"}]));
        }
        if let Some(SourceTls {
            client_cert_secret_ref: Some(us),
            ..
        }) = &agent.tls
        {
            let items = json!([
                {"key": "tls.crt", "path": "tls.crt"},
                {"key": "tls.key", "path": "tls.key"},
            ]);
            add(&us.name, items);
        }
        sources
    }

    /// Who opens the backup, where it has to be opened.
    pub(super) fn decryption(&self) -> Option<&Decryption> {
        let decryption = self.spec.decryption.as_ref();
        decryption.filter(|_| self.backup.encrypted)
    }

    /// What a container needs that reads the backup.
    pub(super) fn reader_mounts(&self) -> Vec<Value> {
        let mut mounts = vec![scratch_mount()];
        if self.store.credentials_secret_ref.is_some() {
            mounts.push(json!({"name": "store", "mountPath": STORE_SECRET_DIR, "readOnly": true}));
        }
        if self.decryption().is_some() {
            mounts.push(json!({"name": "identity", "mountPath": IDENTITY_DIR, "readOnly": true}));
        }
        mounts
    }
}

pub(super) fn empty_dir(name: &str, limit: &str) -> Value {
    json!({"name": name, "emptyDir": {"sizeLimit": limit}})
}

pub(super) fn scratch_mount() -> Value {
    json!({"name": "scratch", "mountPath": SCRATCH_DIR})
}

//! The custom resources of `towline.dev/v1alpha1`. Their CRDs are generated from these types.
//!
//! Every list and string is bounded: the API server prices validation rules by the largest object
//! that the schema allows, and refuses a CRD whose rules could cost too much.

#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, with its pub, into a function body"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "it takes the arguments of several print columns for one attribute"
)]

pub mod conditions;
mod cron;
pub mod job;
#[cfg(test)]
mod reference;
pub mod restore;
pub mod schedule;
pub mod store;

pub use job::{BackupJob, BackupJobSpec, BackupJobStatus};
pub use restore::{RestoreJob, RestoreJobSpec, RestoreJobStatus};
pub use schedule::{BackupSchedule, BackupScheduleSpec, BackupScheduleStatus};
pub use store::{BackupStore, BackupStoreSpec, BackupStoreStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt, KubeSchema, core::Rule};
use serde::{Deserialize, Serialize};

/// API group of all kinds.
pub const GROUP: &str = "towline.dev";

/// Label of a job: the schedule that made it.
pub const LABEL_SCHEDULE: &str = "towline.dev/schedule";

/// Label of a job that is the record of an imported backup: `true`.
pub const LABEL_IMPORTED: &str = "towline.dev/imported";

/// Annotation of a job: when it was to start, jitter included, RFC 3339.
pub const ANNOTATION_SCHEDULED_AT: &str = "towline.dev/scheduled-at";

/// Every CRD, in the order in which a reader meets them.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let crds = [
        BackupStore::crd(),
        BackupSchedule::crd(),
        BackupJob::crd(),
        RestoreJob::crd(),
    ];
    crds.into_iter()
        .map(|mut crd| {
            let schemas = crd
                .spec
                .versions
                .iter_mut()
                .filter_map(|v| v.schema.as_mut());
            for schema in schemas.filter_map(|s| s.open_api_v3_schema.as_mut()) {
                without_nulls(schema);
            }
            crd
        })
        .collect()
}

/// Takes `nullable` from every property: then the API server drops a null, rather than keeping it
/// as a field that is set, which rules of the kind "exactly one of" would count.
fn without_nulls(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        without_nulls(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        without_nulls(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        without_nulls(values);
    }
}

/// Every CRD as a file: its name and its YAML.
///
/// # Errors
/// When a type cannot be written as YAML, which a test rules out.
pub fn crd_files() -> Result<Vec<(String, String)>, serde_norway::Error> {
    crds()
        .iter()
        .map(|crd| {
            let name = crd.metadata.name.as_deref().unwrap_or_default();
            Ok((format!("{name}.yaml"), serde_norway::to_string(crd)?))
        })
        .collect()
}

/// An object of a fixed kind in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::api::name_rule())]
    pub name: String,
}

/// A name that some object of the namespace may have. kube writes names into paths as they are, so
/// that `../../other/secrets/keys` would ask for another namespace's Secret.
fn name_rule() -> Rule {
    Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message(
        "write the name of an object in this namespace: lower-case letters, digits, - and ., without a namespace before it",
    )
}

/// The key of a backup, as `towline ls` prints it.
fn key_rule() -> Rule {
    Rule::new("self.matches('^[a-z0-9-]+/[a-z0-9.-]+/[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9._-]+$')").message(
        "write the key as towline ls prints it, NAMESPACE/NAME/TIME-UID: without the store's prefix and without manifest.json",
    )
}

/// What [`name_rule`] checks, for objects that were stored under an older CRD; the error says what
/// is wrong with the name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = name.bytes().next().is_some_and(edge) && name.bytes().last().is_some_and(edge);
    if ends && name.len() <= 253 && name.bytes().all(|b| edge(b) || b == b'-' || b == b'.') {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be the name of an object: write lower-case letters, digits, - and ., without a namespace before it"
    ))
}

/// One key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crate::api::name_rule())]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "default_token_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_token_key() -> String {
    "token".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_lead_nowhere_else() {
        for good in ["a", "offsite", "my-store.v2", "0"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(254);
        for bad in [
            "",
            ".",
            "..",
            "../../other/secrets/keys",
            "other/keys",
            "a%2fb",
            "a?watch=1",
            "a#b",
            "-a",
            "a.",
            "Ä",
            "a b",
            long.as_str(),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    /// Every field of `a` is in `b`, with the same value.
    fn missing(path: &str, a: &serde_json::Value, b: &serde_json::Value, to: &mut Vec<String>) {
        match (a, b) {
            (serde_json::Value::Object(a), serde_json::Value::Object(b)) => {
                for (key, value) in a {
                    let none = serde_json::Value::Null;
                    let path = format!("{path}.{key}");
                    missing(&path, value, b.get(key).unwrap_or(&none), to);
                }
            }
            (serde_json::Value::Array(a), serde_json::Value::Array(b)) if a.len() == b.len() => {
                for (a, b) in a.iter().zip(b) {
                    missing(path, a, b, to);
                }
            }
            (a, b) if a == b => {}
            _ => to.push(path.to_owned()),
        }
    }

    #[test]
    fn the_samples_say_what_the_types_know() {
        fn read<K: serde::de::DeserializeOwned + Serialize>(text: &str) -> serde_json::Value {
            serde_json::to_value(serde_norway::from_str::<K>(text).unwrap()).unwrap()
        }
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples");
        let mut kinds = std::collections::BTreeSet::new();
        for file in std::fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            if text.lines().any(|line| line == "---") || text.contains("kind: Secret") {
                continue;
            }
            let sample: serde_json::Value = serde_norway::from_str(&text).unwrap();
            let kind = sample["kind"].as_str().unwrap().to_owned();
            let known = match &*kind {
                "BackupStore" => read::<BackupStore>(&text),
                "BackupSchedule" => read::<BackupSchedule>(&text),
                "BackupJob" => read::<BackupJob>(&text),
                "RestoreJob" => read::<RestoreJob>(&text),
                other => panic!("{other} in {}", path.display()),
            };
            kinds.insert(kind);
            let mut lost = Vec::new();
            missing("", &sample, &known, &mut lost);
            assert!(lost.is_empty(), "{}: {lost:?}", path.display());
        }
        assert_eq!(kinds.len(), crds().len(), "{kinds:?}");
    }

    #[test]
    fn the_chart_has_the_crds_of_these_types() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/towline/files/crds");
        let mut expected: Vec<String> = Vec::new();
        for (name, yaml) in crd_files().unwrap() {
            let file = std::fs::read_to_string(dir.join(&name)).unwrap_or_default();
            assert!(
                file == yaml,
                "{name} is not what the types say: run make crds"
            );
            expected.push(name);
        }
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }
}

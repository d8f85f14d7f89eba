//! docs/api.md, made from the types. `make crds` writes it, and drift fails a test. It is made from the
//! schemas before kube flattens them into CRDs, for those still say what each word of an enum means; a test
//! holds the fields to those of the CRDs.

mod fields;

use super::{
    BackupJob, BackupSchedule, BackupStore, GROUP, LocalReference, RestoreJob, SecretKeyReference,
    crds, job, restore, schedule, store,
};
use fields::{cell, row};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt::Write as _, path::Path};

const HEAD: &str = "\
# API reference

Every field of `towline.dev/v1alpha1`, made by `make crds` from the types that the CRDs are made from. Do not
edit it: change the comments in `controller/src/api`.

- A field that is not **required** may be left out; what it is then stands behind *Default*, or in the text.
- *Rule*: what the API server refuses an object for, in the words that it uses.
- What the API server does not know is an error too, with `kubectl apply --server-side` or `--validate=strict`.
- Objects: `name` in a reference is always that of an object in the same namespace.

Examples are in [deploy/samples](../deploy/samples). What the words in `status.reason` and in conditions mean:
[troubleshooting.md](troubleshooting.md).
";

/// One struct of the API.
struct Type {
    name: &'static str,
    description: String,
    schema: Value,
}

/// The schema of a type as the fields have it: whole, nothing named elsewhere.
fn schema<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The type `T`.
fn named<T: JsonSchema>(name: &'static str) -> Type {
    let schema = schema::<T>();
    Type {
        name,
        description: cell(schema["description"].as_str().unwrap_or_default()),
        schema: bare(&schema),
    }
}

/// Every struct, in the order in which the document has them. Of two that are alike the first stands for both.
fn types() -> Vec<Type> {
    macro_rules! types {
        ($($module:ident :: $name:ident),* $(,)?) => {
            vec![
                named::<LocalReference>("LocalReference"),
                named::<SecretKeyReference>("SecretKeyReference"),
                $(named::<$module::$name>(stringify!($name))),*
            ]
        };
    }
    types![
        store::BackupStoreSpec,
        store::S3Spec,
        store::GcsSpec,
        store::AzureSpec,
        store::FileSpec,
        store::ServerSideEncryption,
        store::BackupStoreStatus,
        store::Capabilities,
        job::BackupJobSpec,
        job::Source,
        job::PodSelector,
        job::SelectorRequirement,
        job::SourceAuth,
        job::SourceTls,
        job::CaSecretReference,
        job::Compression,
        job::Encryption,
        job::BackupJobStatus,
        job::Attempt,
        job::SourceStatus,
        job::Progress,
        job::Object,
        job::Position,
        job::Timings,
        schedule::BackupScheduleSpec,
        schedule::JobTemplate,
        schedule::TemplateMetadata,
        schedule::Retention,
        schedule::Verify,
        schedule::BackupScheduleStatus,
        schedule::ActiveJob,
        restore::RestoreJobSpec,
        restore::RestoreFrom,
        restore::FromStore,
        restore::FromLatest,
        restore::RestoreTo,
        restore::VolumeTarget,
        restore::DrillTarget,
        restore::DrillStorage,
        restore::Resources,
        restore::RestoreSecurityContext,
        restore::Check,
        restore::Decryption,
        restore::IdentitySecretReference,
        restore::RestoreJobStatus,
        restore::RestoredBackup,
        restore::RestoreProgress,
        restore::CheckStatus,
    ]
}

/// A schema without what a field adds to its type, so that two fields of a type have the same.
fn bare(schema: &Value) -> Value {
    let mut schema = schema.clone();
    // An optional one is "this or null".
    if let Some([one, null]) = schema["anyOf"].as_array().map(Vec::as_slice)
        && null["type"] == "null"
    {
        schema = one.clone();
    }
    if let Some(fields) = schema.as_object_mut() {
        for name in ["$schema", "title", "description", "default"] {
            fields.remove(name);
        }
        if let Some(one) = fields
            .get("type")
            .and_then(Value::as_array)
            .map(|types| types[0].clone())
        {
            fields.insert("type".into(), one);
        }
    }
    schema
}

/// What links and headings are made from.
struct Types {
    all: Vec<Type>,
    by_schema: BTreeMap<String, usize>,
}

impl Types {
    fn new() -> Self {
        let all = types();
        let mut by_schema = BTreeMap::new();
        for (at, found) in all.iter().enumerate() {
            by_schema.entry(found.schema.to_string()).or_insert(at);
        }
        Self { all, by_schema }
    }

    /// The struct that a field has, unless it is Kubernetes' own or none.
    fn of(&self, schema: &Value) -> Option<&Type> {
        let at = self.by_schema.get(&bare(schema).to_string())?;
        Some(&self.all[*at])
    }

    /// The structs that are met below this one, each once, in the order of its fields.
    fn below<'a>(&'a self, schema: &Value, met: &mut Vec<&'a Type>) {
        for field in schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(Map::values)
        {
            let bare = bare(field);
            let inner = if bare["type"] == "array" {
                &bare["items"]
            } else {
                &bare
            };
            if let Some(found) = self.of(inner) {
                if !met.iter().any(|m| m.name == found.name) {
                    met.push(found);
                }
                self.below(&found.schema, met);
            }
        }
    }
}

/// The whole document.
fn document() -> String {
    let types = Types::new();
    let order = ["BackupStore", "BackupJob", "BackupSchedule", "RestoreJob"];
    let crds = crds();
    let kinds: Vec<(&CustomResourceDefinition, Value)> = order
        .iter()
        .filter_map(|kind| crds.iter().find(|crd| crd.spec.names.kind == *kind))
        .map(|crd| {
            let schema = match crd.spec.names.kind.as_str() {
                "BackupStore" => schema::<BackupStore>(),
                "BackupJob" => schema::<BackupJob>(),
                "BackupSchedule" => schema::<BackupSchedule>(),
                _ => schema::<RestoreJob>(),
            };
            (crd, schema)
        })
        .collect();
    assert_eq!(kinds.len(), crds.len(), "a kind is missing");

    // What one kind alone has stands with it; what several have, at the end.
    let met: Vec<Vec<&Type>> = kinds
        .iter()
        .map(|(_, schema)| {
            let mut met = Vec::new();
            types.below(schema, &mut met);
            met
        })
        .collect();
    let shared = |found: &Type| {
        let by = met
            .iter()
            .filter(|kind| kind.iter().any(|m| m.name == found.name));
        by.count() > 1 && !found.name.starts_with("Backup")
    };

    let mut text = HEAD.to_owned();
    let _ = writeln!(text, "\n| kind | short name | what |\n|---|---|---|");
    for (crd, _) in &kinds {
        let kind = &crd.spec.names.kind;
        let short = crd
            .spec
            .names
            .short_names
            .iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>();
        let what = cell(root(crd)["description"].as_str().unwrap_or_default());
        let first = what
            .split(". ")
            .next()
            .unwrap_or_default()
            .trim_end_matches('.');
        let _ = writeln!(
            text,
            "| [{kind}](#{}) | `{}` | {first} |",
            kind.to_lowercase(),
            short.join(", ")
        );
    }
    let mut written: Vec<&str> = Vec::new();
    for ((crd, _), met) in kinds.iter().zip(&met) {
        kind_heading(&mut text, crd);
        for found in met.iter().filter(|found| !shared(found)) {
            // The template of a schedule is a BackupJob's spec, which has its place already.
            if !written.contains(&found.name) {
                written.push(found.name);
                type_section(&mut text, &types, found);
            }
        }
    }
    text += "\n## What several kinds have\n";
    for found in types.all.iter().filter(|found| shared(found)) {
        if !written.contains(&found.name) {
            written.push(found.name);
            type_section(&mut text, &types, found);
        }
    }
    text
}

/// The root of a kind's schema, as the API server has it.
fn root(crd: &CustomResourceDefinition) -> Value {
    let version = crd.spec.versions.first().and_then(|v| v.schema.as_ref());
    let schema = version.and_then(|s| s.open_api_v3_schema.as_ref());
    serde_json::to_value(schema).unwrap_or_default()
}

fn kind_heading(text: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    let root = root(crd);
    let _ = writeln!(
        text,
        "\n## {}\n\n{}\n",
        names.kind,
        cell(root["description"].as_str().unwrap_or_default())
    );
    let kind = &names.kind;
    let lower = kind.to_lowercase();
    let _ = writeln!(
        text,
        "`spec` is a [{kind}Spec](#{lower}spec), `status` a [{kind}Status](#{lower}status).\n"
    );
    let rules = fields::rules(&root);
    if !rules.is_empty() {
        text.push_str("Rules of the whole object:\n\n");
        for rule in rules {
            let _ = writeln!(text, "- {rule}");
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "`kubectl get {}.{GROUP}` prints, those in *italics* with `-o wide` only:\n",
        names.plural
    );
    text.push_str("| column | from |\n|---|---|\n");
    let version = crd.spec.versions.first();
    for column in version
        .iter()
        .flat_map(|v| v.additional_printer_columns.iter().flatten())
    {
        let name = match column.priority {
            Some(1..) => format!("*{}*", column.name),
            _ => column.name.clone(),
        };
        let _ = writeln!(text, "| {name} | `{}` |", column.json_path);
    }
}

fn type_section(text: &mut String, types: &Types, found: &Type) {
    let _ = writeln!(text, "\n### {}\n\n{}\n", found.name, found.description);
    for rule in fields::rules(&found.schema) {
        let _ = writeln!(text, "- Rule: {rule}");
    }
    if !fields::rules(&found.schema).is_empty() {
        text.push('\n');
    }
    text.push_str("| field | type | what |\n|---|---|---|\n");
    let required = found.schema["required"].as_array();
    for (name, schema) in found.schema["properties"].as_object().into_iter().flatten() {
        let required = required.is_some_and(|all| all.iter().any(|r| r == name.as_str()));
        row(text, types, name, schema, required);
    }
}

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md")
}

/// With `TOWLINE_WRITE_REFERENCE` set, as `make crds` does, it writes the document instead.
#[test]
fn the_document_is_what_the_types_say() {
    let expected = document();
    if std::env::var_os("TOWLINE_WRITE_REFERENCE").is_some() {
        std::fs::write(file(), expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(file()).unwrap_or_default();
    assert!(
        found == expected,
        "docs/api.md is not what the types say: run make crds"
    );
}

/// Each field by its path, objects and lists gone through.
fn paths(at: &str, schema: &Value, to: &mut Vec<String>) {
    let schema = bare(schema);
    if let Some(fields) = schema["properties"].as_object() {
        for (name, field) in fields {
            let path = format!("{at}.{name}");
            to.push(path.clone());
            paths(&path, field, to);
        }
    }
    if schema["items"].is_object() {
        paths(at, &schema["items"], to);
    }
}

#[test]
fn it_has_the_fields_that_the_api_server_knows() {
    let mut ours = Vec::new();
    for (kind, schema) in [
        ("BackupStore", schema::<BackupStore>()),
        ("BackupJob", schema::<BackupJob>()),
        ("BackupSchedule", schema::<BackupSchedule>()),
        ("RestoreJob", schema::<RestoreJob>()),
    ] {
        paths(kind, &schema, &mut ours);
    }
    let mut theirs = Vec::new();
    for crd in crds() {
        paths(&crd.spec.names.kind, &root(&crd), &mut theirs);
    }
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn every_object_below_has_a_section() {
    fn look(types: &Types, at: &str, schema: &Value, text: &str) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            let field = bare(field);
            let inner = if field["type"] == "array" {
                &field["items"]
            } else {
                &field
            };
            if !inner["properties"].is_object() || fields::theirs(inner).is_some() {
                continue;
            }
            let found = types.of(inner);
            let found = found.unwrap_or_else(|| panic!("{at}: add its type to types()"));
            let heading = format!("\n### {}\n", found.name);
            assert_eq!(text.matches(&heading).count(), 1, "{at}: {heading}");
            look(types, &at, &found.schema, text);
        }
    }
    let types = Types::new();
    let text = document();
    look(&types, "BackupStore", &schema::<BackupStore>(), &text);
    look(&types, "BackupJob", &schema::<BackupJob>(), &text);
    look(&types, "BackupSchedule", &schema::<BackupSchedule>(), &text);
    look(&types, "RestoreJob", &schema::<RestoreJob>(), &text);
}

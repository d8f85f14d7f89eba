//! One row of a table: what a field may hold.

use super::{Types, bare};
use serde_json::Value;
use std::fmt::Write as _;

const CONDITION: &str =
    "https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.33/#condition-v1-meta";

/// Text as it may stand in a table.
pub(super) fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// The messages of a schema's own rules, with the field that each is about.
pub(super) fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules
        .into_iter()
        .flatten()
        .map(|rule| {
            let message = cell(rule["message"].as_str().unwrap_or_default());
            match rule["fieldPath"].as_str() {
                Some(path) => format!("`{}`: {message}", path.trim_start_matches('.')),
                None => message,
            }
        })
        .collect()
}

/// How a type of Kubernetes' own is called here.
pub(super) fn theirs(schema: &Value) -> Option<String> {
    let properties = schema["properties"].as_object();
    let condition = properties.is_some_and(|p| p.contains_key("lastTransitionTime"));
    if condition {
        return Some(format!("[Condition]({CONDITION})"));
    }
    (schema["format"] == "date-time").then(|| "time (RFC 3339)".to_owned())
}

/// Writes the row of one field.
pub(super) fn row(text: &mut String, types: &Types, name: &str, schema: &Value, required: bool) {
    let mut what = cell(schema["description"].as_str().unwrap_or_default());
    for (word, meaning) in words(schema) {
        let _ = write!(what, "<br>`{word}`: {meaning}");
    }
    for rule in own_rules(types, schema) {
        let _ = write!(what, "<br>*Rule:* {rule}");
    }
    if let Some(default) = default(schema) {
        let _ = write!(what, "<br>*Default:* `{default}`");
    }
    let needed = if required { "<br>**required**" } else { "" };
    let _ = writeln!(
        text,
        "| `{name}` | {}{needed} | {what} |",
        kind(types, schema)
    );
}

/// Of a field whose type has a section the rules stand there.
fn own_rules(types: &Types, schema: &Value) -> Vec<String> {
    let schema = bare(schema);
    if types.of(&schema).is_some() {
        Vec::new()
    } else {
        rules(&schema)
    }
}

/// The words of an enum and what each means.
fn words(schema: &Value) -> Vec<(String, String)> {
    let schema = bare(schema);
    let words = schema["oneOf"].as_array();
    words
        .into_iter()
        .flatten()
        .filter_map(|one| {
            let word = one["const"].as_str()?;
            Some((
                word.to_owned(),
                cell(one["description"].as_str().unwrap_or_default()),
            ))
        })
        .collect()
}

/// What a field holds when it is left out and that is not nothing.
fn default(schema: &Value) -> Option<String> {
    match &schema["default"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.is_empty() => None,
        Value::Object(fields) if fields.is_empty() => None,
        other => Some(other.to_string()),
    }
}

/// The type, with its bounds.
fn kind(types: &Types, schema: &Value) -> String {
    let schema = bare(schema);
    if let Some(name) = theirs(&schema) {
        return name;
    }
    if let Some(found) = types.of(&schema) {
        return format!("[{}](#{})", found.name, found.name.to_lowercase());
    }
    if schema["oneOf"].is_array() {
        return "one of the words".to_owned();
    }
    let text = |name: &str| schema[name].as_str();
    match text("type").unwrap_or_default() {
        "array" => {
            let most = schema["maxItems"]
                .as_u64()
                .map(|n| format!(" of at most {n}"));
            let of = kind(types, &schema["items"]);
            format!("list{}: {of}", most.unwrap_or_default())
        }
        "object" => {
            let most = schema["maxProperties"]
                .as_u64()
                .map(|n| format!(", at most {n}"));
            format!("map of string{}", most.unwrap_or_default())
        }
        "integer" => format!("integer{}", between(&schema)),
        "string" => {
            let pattern = text("pattern").map(|p| format!(", `{}`", cell(p)));
            format!("string{}{}", length(&schema), pattern.unwrap_or_default())
        }
        other => other.to_owned(),
    }
}

fn between(schema: &Value) -> String {
    let number = |name: &str| schema[name].as_f64().filter(|n| n.abs() < 1e12);
    match (
        number("minimum").filter(|min| *min > 0.0),
        number("maximum"),
    ) {
        (Some(min), Some(max)) => format!(", {min} to {max}"),
        (None, Some(max)) => format!(", at most {max}"),
        (Some(min), None) => format!(", at least {min}"),
        (None, None) => String::new(),
    }
}

fn length(schema: &Value) -> String {
    let number = |name: &str| schema[name].as_u64();
    match (
        number("minLength").filter(|min| *min > 1),
        number("maxLength"),
    ) {
        (Some(min), Some(max)) => format!(", {min} to {max} characters"),
        (None, Some(max)) => format!(", at most {max} characters"),
        (Some(min), None) => format!(", at least {min} characters"),
        (None, None) => String::new(),
    }
}

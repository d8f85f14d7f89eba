//! A line of a program's log: whether it is about the job, and what it says.

use super::Subject;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// Of the access log: one line for each request.
const ACCESS: &str = "towline_agent::access";

/// A line, read.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) time: Timestamp,
    pub(super) level: String,
    target: String,
    message: String,
    fields: Map<String, Value>,
    /// As it stands, where it is not JSON.
    plain: bool,
}

impl Line {
    /// Reads a line before which the kubelet has written its time, as a log with `timestamps=true` has it.
    pub(super) fn read(line: &str) -> Option<Self> {
        let (time, text) = line.split_once(' ').unwrap_or((line, ""));
        let time = time.parse().ok()?;
        let Ok(Value::Object(mut whole)) = serde_json::from_str::<Value>(text) else {
            return Some(Self::plain(time, text));
        };
        let mut take = |key: &str| match whole.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (level, target) = (take("level"), take("target"));
        let mut fields = match whole.remove("fields") {
            Some(Value::Object(fields)) => fields,
            // The agent's have them beside the rest.
            _ => whole,
        };
        fields.remove("timestamp");
        let message = match fields.remove("message") {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        Some(Self {
            time,
            level,
            target,
            message,
            fields,
            plain: false,
        })
    }

    /// `2026-03-04T02:00:00.1Z  INFO target: message a=b`, or anything.
    fn plain(time: Timestamp, text: &str) -> Self {
        let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
        let level = text
            .split_whitespace()
            .take(2)
            .find(|word| levels.contains(word));
        let mut message = text.trim_start();
        // Its own time stands there once more.
        if let Some((first, rest)) = message.split_once(' ')
            && first.parse::<Timestamp>().is_ok()
        {
            message = rest.trim_start();
        }
        if let Some(level) = level {
            message = message.strip_prefix(level).unwrap_or(message).trim_start();
        }
        Self {
            time,
            level: level.unwrap_or("INFO").to_owned(),
            target: String::new(),
            message: message.to_owned(),
            fields: Map::new(),
            plain: true,
        }
    }

    fn field(&self, key: &str) -> &str {
        self.fields.get(key).and_then(Value::as_str).unwrap_or("")
    }

    /// Whether a controller's line is about the subject.
    pub(super) fn of_controller(&self, who: &Subject) -> bool {
        if self.plain {
            return self.message.contains(&who.uid)
                || (self.message.contains(&who.name) && self.message.contains(&who.namespace));
        }
        if self.field("uid") == who.uid || self.field("request_id").starts_with(&who.uid) {
            return true;
        }
        // As kube-rs writes a reference: BackupJob.v1alpha1.towline.dev/NAME.NAMESPACE.
        let object = format!("/{}.{}", who.name, who.namespace);
        let kind = who.kind.as_str();
        (self.field("namespace") == who.namespace && self.field("name") == who.name)
            || (self.field("object").starts_with(kind) && self.field("object").ends_with(&object))
    }

    /// Whether an agent's line is about the subject. Engines before 0.2 name no job.
    pub(super) fn of_agent(&self, who: &Subject) -> bool {
        if self.plain {
            return self.message.contains(&who.uid) || who.in_attempt(self.time);
        }
        let named = [self.field("job"), self.field("request_id")];
        if named.iter().any(|id| id.starts_with(&who.uid)) {
            return true;
        }
        if !self.field("job").is_empty() || !who.in_attempt(self.time) {
            return false;
        }
        // Of the requests of others there may be many.
        self.target != ACCESS || self.field("path").starts_with("/v1/backup")
    }

    /// All of it, but for what every line about the subject has.
    pub(super) fn text(&self, who: &Subject) -> String {
        let mut text = self.message.clone();
        for (key, value) in &self.fields {
            let value = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let known = match key.as_str() {
                "namespace" => value == who.namespace,
                "name" => value == who.name,
                "uid" | "job" => value == who.uid,
                _ => false,
            };
            if known {
                continue;
            }
            let quote = value.is_empty() || value.contains([' ', '"', '=']);
            if quote {
                text += &format!(" {key}={value:?}");
            } else {
                text += &format!(" {key}={value}");
            }
        }
        text
    }
}

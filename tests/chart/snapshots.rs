//! What the chart makes of several values files, line by line.

use super::*;
use std::fs;

/// Definitions and dashboards are long, and held to their sources by other tests: of each only the head is kept.
fn without_schemas(text: &str) -> String {
    let short = |document: &str| {
        for (kind, part) in [("CustomResourceDefinition", "spec"), ("ConfigMap", "data")] {
            if document.contains(&format!("\nkind: {kind}\n"))
                && let Some((head, _)) = document.split_once(&format!("\n{part}:\n"))
            {
                return format!("{head}\n{part}: {{}}");
            }
        }
        document.trim_end().to_owned()
    };
    documents(text)
        .map(short)
        .collect::<Vec<_>>()
        .join("\n---\n")
        + "\n"
}

#[test]
fn what_is_rendered_is_what_was_seen() {
    if programs().is_none() {
        return;
    }
    let write = std::env::var_os("TOWLINE_WRITE_SNAPSHOTS").is_some();
    for (name, values) in cases() {
        let rendered = without_schemas(&render(&values));
        let file = here().join("snapshots").join(format!("{name}.yaml"));
        if write {
            fs::write(&file, &rendered).unwrap();
        }
        let seen = fs::read_to_string(&file).unwrap_or_default();
        let first = rendered.lines().zip(seen.lines()).position(|(a, b)| a != b);
        let first = first.unwrap_or_else(|| rendered.lines().count().min(seen.lines().count()));
        assert!(
            rendered == seen,
            "tests/chart/snapshots/{name}.yaml differs from line {} on: {:?} is rendered, {:?} was seen. If that is wanted: make chart-docs, and look at git diff",
            first + 1,
            rendered.lines().nth(first),
            seen.lines().nth(first),
        );
    }
}

#[test]
fn no_value_is_missing_in_the_file_that_has_everything() {
    let values: Value = serde_norway::from_str(&read(chart().join("values.yaml"))).unwrap();
    let everything = read(here().join("values/everything.yaml"));
    let everything: Value = serde_norway::from_str(&everything).unwrap();
    let mut missing = Vec::new();
    unset("", &values, &everything, &mut missing);
    // They hold nothing, or what the user likes.
    missing.retain(|path| !path.starts_with("/podSecurityContext/"));
    assert!(missing.is_empty(), "not in everything.yaml: {missing:?}");
}

fn unset(at: &str, default: &Value, given: &Value, missing: &mut Vec<String>) {
    let Value::Object(defaults) = default else {
        return;
    };
    for (key, default) in defaults {
        let path = format!("{at}/{key}");
        match given.get(key) {
            None => missing.push(path),
            Some(given) => unset(&path, default, given, missing),
        }
    }
}

/// What pods of the chart are matched by the Service, the policy and the budget: the controller's alone.
#[test]
fn helpers_are_not_taken_for_the_controller() {
    if programs().is_none() {
        return;
    }
    for (name, values) in cases() {
        let objects = objects(&render(&values));
        let of = |kind: &'static str| objects.iter().filter(move |o| o["kind"] == kind);
        let labels = |pod: &Value| pod["metadata"]["labels"].as_object().unwrap().clone();
        let controller = labels(&of("Deployment").next().unwrap()["spec"]["template"]);
        let others: Vec<_> = of("Pod")
            .map(labels)
            .chain(of("Job").map(|job| labels(&job["spec"]["template"])))
            .collect();
        assert_eq!(others.len(), 2, "{name}: helm test, and the hook");
        let selectors = of("Service")
            .map(|o| &o["spec"]["selector"])
            .chain(of("NetworkPolicy").map(|o| &o["spec"]["podSelector"]["matchLabels"]))
            .chain(of("PodDisruptionBudget").map(|o| &o["spec"]["selector"]["matchLabels"]))
            .chain(of("Deployment").map(|o| &o["spec"]["selector"]["matchLabels"]));
        for selector in selectors {
            let selector = selector.as_object().unwrap();
            let matches = |labels: &serde_json::Map<String, Value>| {
                selector.iter().all(|(k, v)| labels.get(k) == Some(v))
            };
            assert!(matches(&controller), "{name}: {selector:?}");
            assert!(!others.iter().any(matches), "{name}: {selector:?}");
        }
    }
}

/// Pods that the chart makes run under the Pod Security Standard `restricted`.
#[test]
fn pods_are_restricted() {
    if programs().is_none() {
        return;
    }
    for (name, values) in cases() {
        for object in objects(&render(&values)) {
            let pod = match object["kind"].as_str().unwrap() {
                "Pod" => &object["spec"],
                "Deployment" | "Job" => &object["spec"]["template"]["spec"],
                _ => continue,
            };
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            let seccomp = &pod["securityContext"]["seccompProfile"]["type"];
            assert_eq!(seccomp, "RuntimeDefault", "{name}");
            for container in pod["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name}");
                assert!(
                    container["resources"]["limits"]["memory"].is_string(),
                    "{name}"
                );
            }
        }
    }
}

//! Would Kubernetes take what the chart makes: by its schemas, strictly, and by the API server itself.

use super::*;
use serde_json::{Map, json};
use std::fs;

#[test]
fn helm_lint_has_nothing_against_it() {
    if programs().is_none() {
        return;
    }
    for (name, values) in cases() {
        let said = run(Command::new("helm")
            .args(["lint", "--strict", "--values"])
            .arg(values)
            .arg(chart()));
        assert!(!said.contains("[WARNING]"), "{name}: {said}");
    }
}

/// A schema of the API server's OpenAPI or of a definition, so that it takes no field that it does not know.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let int_or_string = map.get("format") == Some(&json!("int-or-string"))
                || map.get("x-kubernetes-int-or-string") == Some(&json!(true));
            if int_or_string {
                *schema = json!({"type": ["integer", "string"]});
                return;
            }
            let open = map.contains_key("additionalProperties")
                || map.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            if map.get("properties").is_some_and(Value::is_object) && !open {
                map.insert("additionalProperties".into(), json!(false));
            }
            // Formats that JSON Schema does not have.
            if map.get("format").is_some_and(Value::is_string) {
                map.remove("format");
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(list) => list.iter_mut().for_each(strict),
        _ => {}
    }
}

/// Kubeconform's name for the schema of a kind.
fn file_of(group: &str, version: &str, kind: &str) -> String {
    let group = if group.is_empty() { version } else { group };
    format!("{group}_{version}_{}.json", kind.to_lowercase())
}

/// Writes a schema for each kind that the API server has by itself, for ours, and for those of the Prometheus
/// operator.
fn write_schemas(folder: &Path, kubeconfig: &str, operator: &Path) {
    let openapi = run(Command::new("kubectl").args([
        "--kubeconfig",
        kubeconfig,
        "get",
        "--raw",
        "/openapi/v2",
    ]));
    let mut openapi: Value = serde_json::from_str(&openapi).unwrap();
    let definitions = openapi["definitions"].as_object_mut().unwrap();
    let mut kinds = Vec::new();
    for (name, definition) in definitions.iter_mut() {
        for kind in definition["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let text = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
            kinds.push((
                file_of(&text("group"), &text("version"), &text("kind")),
                name.clone(),
            ));
        }
        strict(definition);
    }
    // A quantity may be a number.
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] =
        json!({"type": ["string", "number"]});
    fs::write(
        folder.join("definitions.json"),
        serde_json::to_vec(&json!({"definitions": definitions})).unwrap(),
    )
    .unwrap();
    for (file, name) in kinds {
        let reference = json!({"$ref": format!("definitions.json#/definitions/{name}")});
        fs::write(folder.join(file), reference.to_string()).unwrap();
    }
    let ours = chart().join("files/crds");
    let definitions = [operator, &ours].map(|folder| fs::read_dir(folder).unwrap());
    for file in definitions.into_iter().flatten() {
        let crd: Value = serde_norway::from_str(&read(file.unwrap().path())).unwrap();
        let spec = &crd["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            strict(&mut schema);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            // What every object has, which a definition leaves to the API server.
            schema["properties"]["apiVersion"] = json!({"type": "string"});
            schema["properties"]["kind"] = json!({"type": "string"});
            schema["properties"]["metadata"] = json!({
                "$ref": "definitions.json#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
            });
            let file = file_of(
                &text(&spec["group"]),
                &text(&version["name"]),
                &text(&spec["names"]["kind"]),
            );
            fs::write(folder.join(file), schema.to_string()).unwrap();
        }
    }
}

fn kubeconform(program: &str, schemas: &Path) -> Command {
    let mut command = Command::new(program);
    let location = schemas.join("{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json");
    command
        .args(["-strict", "-output", "json", "-summary", "-schema-location"])
        .arg(location);
    command
}

#[test]
fn every_object_follows_its_schema() {
    let (Some(kubeconfig), Some(program), Some(operator)) = (
        variable("TOWLINE_E2E_KUBECONFIG"),
        variable("TOWLINE_KUBECONFORM"),
        variable("TOWLINE_MONITORING_CRDS"),
    ) else {
        return;
    };
    let schemas = tempfile::tempdir().unwrap();
    write_schemas(schemas.path(), &kubeconfig, Path::new(&operator));
    for (name, values) in cases() {
        let rendered = render(&values);
        let said = feed(&mut kubeconform(&program, schemas.path()), &rendered);
        let said: Value = serde_json::from_str(&said).unwrap();
        let expected = objects(&rendered).len();
        assert_eq!(said["summary"]["valid"], expected, "{name}: {said}");
        assert_eq!(said["summary"]["skipped"], 0, "{name}: {said}");
    }
    // One of each kind of ours, too.
    for sample in fs::read_dir(root().join("deploy/samples")).unwrap() {
        let sample = sample.unwrap().path();
        if sample.extension().is_some_and(|e| e == "yaml") {
            feed(&mut kubeconform(&program, schemas.path()), &read(&sample));
        }
    }
    let operators = read(root().join("deploy/alertmanager/alertmanagerconfig.yaml"));
    feed(&mut kubeconform(&program, schemas.path()), &operators);
    // A check that takes everything would be none.
    for (kind, broken) in [
        ("apps/v1, kind: Deployment", "replica: 1"),
        ("towline.dev/v1alpha1, kind: BackupStore", "s3: {bucked: a}"),
        (
            "monitoring.coreos.com/v1, kind: ServiceMonitor",
            "endpoints: [{honorLabel: true}]",
        ),
        (
            "monitoring.coreos.com/v1, kind: PodMonitor",
            "selector: {}, podMetricsEndpoints: [{ports: a}]",
        ),
        (
            "monitoring.coreos.com/v1, kind: PrometheusRule",
            "groups: [{rules: []}]",
        ),
    ] {
        let object = format!("{{apiVersion: {kind}, metadata: {{name: a}}, spec: {{{broken}}}}}");
        let mut command = kubeconform(&program, schemas.path());
        let file = schemas.path().join("broken.yaml");
        fs::write(&file, &object).unwrap();
        let output = output(command.arg(&file));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            !output.status.success() && said.contains("statusInvalid"),
            "{object}: {said}"
        );
    }
}

/// What schemas cannot say, the API server does: it is asked without anything being made.
#[test]
fn the_api_server_takes_it() {
    let Some(kubeconfig) = variable("TOWLINE_E2E_KUBECONFIG") else {
        return;
    };
    for (name, values) in cases() {
        let rendered = objects(&render(&values));
        // It does not know the operator's kinds, nor the namespaces of the values.
        let known = rendered
            .into_iter()
            .filter(|o| o["apiVersion"] != "monitoring.coreos.com/v1");
        let items: Vec<Value> = known
            .map(|mut object| {
                let metadata: &mut Map<String, Value> = object["metadata"].as_object_mut().unwrap();
                if metadata.contains_key("namespace") && metadata["namespace"] != "kube-system" {
                    metadata["namespace"] = json!("default");
                }
                // Of a Pod it is asked at once whether its account exists.
                if object["kind"] == "Pod" {
                    object["spec"]["serviceAccountName"] = json!("default");
                }
                object
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ];
        let said = feed(
            Command::new("kubectl")
                .args(["--kubeconfig", &kubeconfig])
                .args(apply),
            &list,
        );
        assert_eq!(said.lines().count(), items.len(), "{name}: {said}");
    }
}

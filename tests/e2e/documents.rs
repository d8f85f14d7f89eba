//! Every manifest in the documents, given to the API server; every chart value, to the chart.

use e2e::{
    Namespace,
    cluster::root,
    documents::{self, Block},
    run,
};
use serde_json::Value;

/// Kinds of others, whose definitions are not on the cluster of the tests: read, but tried by nobody.
const FOREIGN: [&str; 6] = [
    "cert-manager.io/",
    "monitoring.coreos.com/",
    "k8s.mariadb.com/",
    "pxc.percona.com/",
    "ps.percona.com/",
    "snapshot.storage.k8s.io/",
];

#[tokio::test]
async fn manifests_are_such_as_the_api_server_takes() {
    let ns = Namespace::create("documents").await;
    let mut wrong = Vec::new();
    let mut tried = 0;
    for block in documents::all().into_iter().flat_map(|d| d.blocks) {
        if block.language == "yaml" {
            tried += 1;
            if let Err(why) = check(&ns, &block).await {
                wrong.push(format!("{}: {why}", block.at));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 5, "only {tried} manifests were found");

    // It can fail.
    for (words, text) in [
        (
            vec![],
            "apiVersion: towline.dev/v1alpha1\nkind: BackupStore\nmetadata: {name: x}\nspec: {s3: {bucket: b}, nonsense: 1}",
        ),
        (vec!["BackupJob.spec"], "method: magical"),
        (vec!["values"], "replicaz: 2"),
        (vec!["kustomization"], "resources: [statefulset.yaml]"),
    ] {
        let block = Block {
            at: String::new(),
            language: "yaml".into(),
            words: words.into_iter().map(str::to_owned).collect(),
            text: text.into(),
        };
        assert!(check(&ns, &block).await.is_err(), "{text}");
    }
    ns.delete().await;
}

async fn check(ns: &Namespace, block: &Block) -> Result<(), String> {
    match block.words.first().map(String::as_str) {
        None => {
            for object in parse(&block.text)? {
                take(ns, object).await?;
            }
            Ok(())
        }
        Some("values") => values(&block.text).await,
        Some("kustomization") => kustomization(ns, &block.text).await,
        Some(path) => {
            let (kind, path) = path.split_once('.').ok_or("KIND.path is wanted")?;
            let fragment = parse(&block.text)?.into_iter().next().unwrap_or_default();
            fragment_of(ns, kind, path, &fragment).await
        }
    }
}

/// A part of an object counts when the object would be taken with it in one of the samples.
async fn fragment_of(
    ns: &Namespace,
    kind: &str,
    path: &str,
    fragment: &Value,
) -> Result<(), String> {
    let mut why = format!("there is no sample of a {kind}");
    for mut object in samples(kind) {
        let pointer = format!("/{}", path.replace('.', "/"));
        let Some(place) = object.pointer_mut(&pointer).and_then(Value::as_object_mut) else {
            why = format!("the sample has no {path}");
            continue;
        };
        let fragment = fragment.as_object().ok_or("it is no mapping")?;
        place.extend(fragment.clone());
        match take(ns, object).await {
            Ok(()) => return Ok(()),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn samples(kind: &str) -> Vec<Value> {
    let mut samples = Vec::new();
    for file in std::fs::read_dir(root().join("deploy/samples")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let objects = parse(&text).unwrap();
        samples.extend(objects.into_iter().filter(|object| object["kind"] == kind));
    }
    samples
}

/// Server-side apply refuses fields that it does not know.
async fn take(ns: &Namespace, mut object: Value) -> Result<(), String> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    if FOREIGN.iter().any(|group| version.starts_with(group)) {
        println!("a {} of {version} is not tried", object["kind"]);
        return Ok(());
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "-f",
        "-",
    ];
    let output = ns.kubectl(&apply, &object.to_string()).await;
    if output.code == 0 {
        Ok(())
    } else {
        Err(output.stderr)
    }
}

/// Built in a folder beside a clone, as the documents have it, with the StatefulSet of the example. A part of
/// a kustomization gets the settings that the sidecar needs.
async fn kustomization(ns: &Namespace, text: &str) -> Result<(), String> {
    let example = root().join("deploy/examples/statefulset-mariadb");
    let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap();
    let settings = parse(&read("kustomization.yaml"))?.remove(0)["configMapGenerator"][0].take();
    let mut wanted = parse(text)?.remove(0);
    let named = |g: &Value| g["name"] == "towline-sidecar";
    if let Some(components) = wanted["components"].as_array_mut() {
        let socket = Value::from("../towline/deploy/sidecar/socket");
        if !components.contains(&socket) {
            components.insert(0, socket);
        }
        match wanted["configMapGenerator"].as_array_mut() {
            Some(generators) if generators.iter().any(named) => {}
            Some(generators) => generators.push(settings),
            None => wanted["configMapGenerator"] = Value::Array(vec![settings]),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root(), folder.path().join("towline")).unwrap();
    let here = folder.path().join("database");
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join("statefulset.yaml"), read("statefulset.yaml")).unwrap();
    std::fs::write(here.join("kustomization.yaml"), wanted.to_string()).unwrap();
    let built = run("kubectl", &["kustomize", here.to_str().unwrap()], b"").await;
    if built.code != 0 {
        return Err(built.stderr);
    }
    let mut agents = 0;
    for object in parse(&built.stdout)? {
        let containers = &object["spec"]["template"]["spec"]["initContainers"];
        agents += usize::from(containers[0]["name"] == "towline-agent");
        take(ns, object).await?;
    }
    (agents == 1)
        .then_some(())
        .ok_or(format!("{agents} agents"))
}

async fn values(text: &str) -> Result<(), String> {
    let chart = root().join("charts/towline");
    let chart = chart.to_str().unwrap();
    let output = run(
        "helm",
        &["template", "towline", chart, "-f", "-"],
        text.as_bytes(),
    )
    .await;
    if output.code == 0 {
        Ok(())
    } else {
        Err(output.stderr)
    }
}

/// One or more documents.
fn parse(text: &str) -> Result<Vec<Value>, String> {
    use serde::Deserialize as _;
    serde_norway::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).map_err(|error| error.to_string()))
        .filter(|object| !matches!(object, Ok(Value::Null)))
        .collect()
}

/// The samples are what people copy.
#[tokio::test]
async fn samples_are_such_as_the_api_server_takes() {
    let ns = Namespace::create("samples").await;
    let mut kinds = 0;
    for kind in [
        "BackupStore",
        "BackupSchedule",
        "BackupJob",
        "RestoreJob",
        "Secret",
    ] {
        for object in samples(kind) {
            kinds += 1;
            let shown = object["metadata"]["name"].to_string();
            if let Err(why) = take(&ns, object).await {
                panic!("{kind} {shown}: {why}");
            }
        }
    }
    assert!(kinds > 6, "{kinds} samples");
    ns.delete().await;
}

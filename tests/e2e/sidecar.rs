//! `deploy/sidecar` and `deploy/examples`: the components on StatefulSets of other shapes than the
//! examples', which every other scenario runs, and what is written out for charts and operators.

use e2e::{
    Namespace, Output, PortForward,
    cluster::root,
    database::{Database, relative},
    objects::TOKEN,
    run, run_ok,
};
use serde_json::{Value, json};

/// A StatefulSet that nothing was prepared in: other names, an init container, a sidecar of its own.
fn foreign(image: &str, args: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "legacy"}, "spec": {
        "serviceName": "legacy", "replicas": 1, "selector": {"matchLabels": {"app": "legacy"}},
        "template": {"metadata": {"labels": {"app": "legacy"}}, "spec": {
            "securityContext": {"fsGroup": 999},
            "initContainers": [{"name": "prepare", "image": image, "command": ["true"],
                "securityContext": {"runAsUser": 999}}],
            "containers": [
                {"name": "db", "image": image, "args": args, "securityContext": {"runAsUser": 999},
                 "env": [{"name": "MARIADB_ROOT_PASSWORD", "value": TOKEN}],
                 "volumeMounts": [{"name": "files", "mountPath": "/var/lib/mysql"}]},
                {"name": "exporter", "image": image, "command": ["sleep", "inf"], "securityContext": {"runAsUser": 999}},
            ],
        }},
        "volumeClaimTemplates": [{"metadata": {"name": "files"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
    }})
}

/// Its manifests with these components and settings.
async fn build(set: &Value, components: &[&str], settings: &[&str], more: Value) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let deploy = relative(folder.path(), &root().join("deploy"));
    let components: Vec<String> = components
        .iter()
        .map(|name| format!("{deploy}/sidecar/{name}"))
        .collect();
    let mut kustomization = json!({"resources": ["set.yaml"], "components": components, "configMapGenerator": [
        {"name": "towline-sidecar", "literals": settings,
         "options": {"annotations": {"config.kubernetes.io/local-config": "true"}}}]});
    let generators = kustomization["configMapGenerator"].as_array_mut().unwrap();
    generators.extend(
        more["configMapGenerator"]
            .as_array()
            .cloned()
            .unwrap_or_default(),
    );
    for key in ["images", "secretGenerator", "generatorOptions"] {
        kustomization[key] = more[key].clone();
    }
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("set.yaml", set.to_string());
    write("kustomization.yaml", kustomization.to_string());
    run(
        "kubectl",
        &["kustomize", folder.path().to_str().unwrap()],
        b"",
    )
    .await
}

fn parse(text: &str) -> Vec<Value> {
    use serde::Deserialize as _;
    serde_norway::Deserializer::from_str(text)
        .map(|one| Value::deserialize(one).unwrap())
        .collect()
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {list}"))
}

/// Server-side apply refuses fields that it does not know.
async fn take(ns: &Namespace, what: &str, manifest: &str) {
    let apply = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
    let output = ns.kubectl(&apply, manifest).await;
    assert_eq!(output.code, 0, "{what}: {}\n{manifest}", output.stderr);
}

const SETTINGS: [&str; 5] = [
    "uid=1234",
    "dataVolume=files",
    "dataMountPath=/var/lib/mysql",
    "socketVolume=run",
    "socketMountPath=/srv/run",
];

#[tokio::test]
async fn components_and_examples_are_such_as_the_api_server_takes() {
    let ns = Namespace::create("sidecar-shapes").await;
    let set = foreign("mariadb:10.11", &json!([]));
    for variant in ["mariadb", "mariadb-logical", "mysql"] {
        for insecure in [None, Some("insecure-http")] {
            let mut components = vec!["socket", variant];
            components.extend(insecure);
            let output = build(&set, &components, &SETTINGS, Value::Null).await;
            assert_eq!(output.code, 0, "{}", output.stderr);
            take(&ns, variant, &output.stdout).await;
            // Nothing else is made: the settings stay where they are.
            let [object] = &parse(&output.stdout)[..] else {
                panic!("{}", output.stdout);
            };
            let pod = &object["spec"]["template"]["spec"];
            assert_eq!(
                pod["initContainers"][0]["name"], "towline-agent",
                "the first to start"
            );
            let agent = &pod["initContainers"][0];
            assert_eq!(agent["restartPolicy"], "Always");
            assert_eq!(agent["securityContext"]["runAsUser"], 1234);
            let mounts = agent["volumeMounts"].as_array().unwrap();
            let has = |mount: Value| mounts.contains(&mount);
            assert!(has(
                json!({"name": "run", "mountPath": "/srv/run", "readOnly": true})
            ));
            let data = json!({"name": "files", "mountPath": "/var/lib/mysql", "readOnly": true});
            assert_eq!(has(data), variant == "mariadb");
            let server = pod["containers"][0]["volumeMounts"].as_array().unwrap();
            assert!(server.contains(&json!({"name": "run", "mountPath": "/srv/run"})));
            assert!(named(&pod["volumes"], "run")["emptyDir"].is_object());
            assert_eq!(
                pod["containers"][1],
                set["spec"]["template"]["spec"]["containers"][1]
            );
            let tls = agent["env"].to_string().contains("TLS_CERT");
            assert_eq!(tls, insecure.is_none());
        }
    }
    // A setting that is missing is named.
    for setting in SETTINGS {
        let rest: Vec<&str> = SETTINGS
            .into_iter()
            .filter(|other| *other != setting)
            .collect();
        let output = build(&set, &["socket", "mariadb"], &rest, Value::Null).await;
        let key = setting.split('=').next().unwrap();
        assert_ne!(output.code, 0, "{key}");
        assert!(
            output.stderr.contains(&format!("data.{key}")),
            "{}",
            output.stderr
        );
    }

    // The agent as the component has it; what is written out by hand must not differ.
    let model = build(&set, &["socket", "mariadb"], &SETTINGS, Value::Null)
        .await
        .stdout;
    let model = parse(&model)[0]["spec"]["template"]["spec"].clone();
    for example in [
        "bitnami-mariadb/values",
        "bitnami-mysql/values",
        "mariadb-operator/mariadb",
        "percona-xtradb-cluster/cluster",
        "percona-server-mysql/cluster",
    ] {
        let text = root().join(format!("deploy/examples/{example}.yaml"));
        let object = parse(&std::fs::read_to_string(text).unwrap()).remove(0);
        let parts = Parts::of(&object).unwrap_or_else(|| panic!("{example}: no agent"));
        parts.same_as(&model, example);
        take(&ns, example, &parts.in_a_pod().to_string()).await;
    }
    ns.delete().await;
}

/// Where an object of a chart or an operator has what a pod has.
struct Parts {
    agent: Value,
    volumes: Value,
    native: bool,
    /// The operator gives it more than an example can say: ports, probes, a security context.
    bare: bool,
    grace: u64,
    /// Volumes that the chart or operator makes.
    theirs: &'static [&'static str],
}

impl Parts {
    fn of(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let (containers, volumes, grace, theirs): (_, _, _, &[&str]) = match object["kind"].as_str()
        {
            None => (
                &object["primary"]["initContainers"],
                &object["primary"]["extraVolumes"],
                &object["primary"]["terminationGracePeriodSeconds"],
                &["data", "empty-dir"],
            ),
            Some("MariaDB") => (
                &spec["sidecarContainers"],
                &spec["volumes"],
                &spec["terminationGracePeriodSeconds"],
                &["storage"],
            ),
            Some("PerconaXtraDBCluster") => (
                &spec["pxc"]["sidecars"],
                &spec["pxc"]["sidecarVolumes"],
                &spec["pxc"]["gracePeriod"],
                &["datadir", "tmp"],
            ),
            Some("PerconaServerMySQL") => (
                &spec["mysql"]["sidecars"],
                &spec["mysql"]["sidecarVolumes"],
                &spec["mysql"]["gracePeriod"],
                &["datadir"],
            ),
            Some(_) => return None,
        };
        Some(Self {
            agent: named(containers, "towline-agent").clone(),
            volumes: volumes.clone(),
            native: object["kind"].is_null(),
            bare: object["kind"] == "MariaDB",
            grace: grace.as_u64()?,
            theirs,
        })
    }

    fn same_as(&self, model: &Value, example: &str) {
        let model_agent = named(&model["initContainers"], "towline-agent");
        let (agent, what) = (&self.agent, example);
        let env = |agent: &Value| -> Vec<String> {
            let own = ["TOWLINE_DB_SOCKET", "TOWLINE_ALLOW_GALERA"];
            let all = agent["env"].as_array().unwrap().iter();
            let all = all.filter(|one| !own.contains(&one["name"].as_str().unwrap()));
            // Only there every Secret has a folder of its own.
            let text = |one: &Value| {
                one.to_string()
                    .replace("/token/", "/secrets/")
                    .replace("/database/", "/secrets/")
            };
            all.map(text).collect()
        };
        assert_eq!(env(agent), env(model_agent), "{what}");
        assert_eq!(agent["resources"], model_agent["resources"], "{what}");
        assert_eq!(agent["restartPolicy"] == "Always", self.native, "{what}");
        for field in ["ports", "readinessProbe", "livenessProbe"] {
            let expected = if self.bare {
                &Value::Null
            } else {
                &model_agent[field]
            };
            assert_eq!(&agent[field], expected, "{what}: {field}");
        }
        if !self.bare {
            let mut security = model_agent["securityContext"].clone();
            security["runAsUser"] = json!(1001);
            security["runAsGroup"] = json!(1001);
            assert_eq!(agent["securityContext"], security, "{what}");
            for name in ["towline-secrets", "towline-tls", "towline-tmp"] {
                assert_eq!(
                    named(&self.volumes, name),
                    named(&model["volumes"], name),
                    "{what}"
                );
            }
        }
        for mount in agent["volumeMounts"].as_array().unwrap() {
            let writable = mount["mountPath"] == "/tmp";
            assert_eq!(mount["readOnly"] == true, !writable, "{what}: {mount}");
        }
        // A backup may go on for 20 s when nobody says otherwise, and ten are left.
        assert!(self.grace >= 30, "{what}");
    }

    /// A StatefulSet like the one that the chart or operator makes.
    fn in_a_pod(&self) -> Value {
        let mut volumes = self.volumes.as_array().unwrap().clone();
        volumes.extend(
            self.theirs
                .iter()
                .map(|name| json!({"name": name, "emptyDir": {}})),
        );
        let kind = if self.native {
            "initContainers"
        } else {
            "containers"
        };
        let mut pod =
            json!({"containers": [{"name": "server", "image": "server"}], "volumes": volumes});
        match pod[kind].as_array_mut() {
            Some(list) => list.push(self.agent.clone()),
            None => pod[kind] = json!([self.agent]),
        }
        let labels = json!({"app": "x"});
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "x"}, "spec": {
            "serviceName": "x", "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod}}})
    }
}

/// The server's socket lies in its data directory, which the agent has read-only.
#[tokio::test]
async fn a_statefulset_of_another_shape_is_backed_up() {
    let ns = Namespace::create("sidecar-foreign").await;
    let set = foreign(
        "mariadb:10.11",
        &json!(["--socket=/var/lib/mysql/own.sock"]),
    );
    let settings = [
        "uid=999",
        "dataVolume=files",
        "dataMountPath=/var/lib/mysql",
        "socketVolume=run",
        "socketMountPath=/run/mysqld",
    ];
    let image = |name: &str| ns.cluster.image(name);
    let more = json!({
        "images": [
            {"name": "towline-agent", "newName": image("towline-agent-mariadb"), "newTag": "dev"},
            {"name": "mariadb", "newName": image("mariadb"), "newTag": "10.11"},
        ],
        "configMapGenerator": [{"name": "towline-agent", "literals": ["TOWLINE_DB_SOCKET=/var/lib/mysql/own.sock"]}],
        "secretGenerator": [
            {"name": "towline-database", "literals": [format!("password={TOKEN}")]},
            {"name": "agent-token", "literals": [format!("tokens={TOKEN} backup cancel")]},
        ],
    });
    let built = build(
        &set,
        &["socket", "mariadb", "insecure-http"],
        &settings,
        more,
    )
    .await;
    assert_eq!(built.code, 0, "{}", built.stderr);
    ns.apply(&built.stdout).await;
    ns.ready("legacy-0").await;
    let grants = Database::documented("mariadb-physical").replace("CHANGE-ME", TOKEN);
    let sql = "mariadb -uroot --socket=/var/lib/mysql/own.sock";
    let script = format!(
        "until MYSQL_PWD={TOKEN} {sql} -e 'SELECT 1' >/dev/null 2>&1; do sleep 0.2; done; MYSQL_PWD={TOKEN} exec {sql}"
    );
    let made = ns.sh("legacy-0", "db", &script, &grants).await;
    assert_eq!(made.code, 0, "{}", made.stderr);

    let forward = PortForward::start(&ns, "legacy-0", 8474).await;
    let url = format!("http://{}/v1/backup?method=physical", forward.address());
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    let bearer = format!("Authorization: Bearer {TOKEN}");
    // Without TE: trailers a backup that fails is cut, and curl fails.
    let curl = [
        "-fsS",
        "--noproxy",
        "*",
        "-H",
        &bearer,
        "-o",
        archive.to_str().unwrap(),
        &url,
    ];
    run_ok("curl", &curl, b"").await;
    let unpacked = run_ok(
        "sh",
        &["-c", &format!("zstd -dc {} | tar -tf -", archive.display())],
        b"",
    )
    .await;
    assert!(unpacked.contains("data/"), "{unpacked}");

    // The image has no more than a shell for this.
    let asked =
        "while read -r key uid rest; do test $key = Uid: && echo $uid; done </proc/self/status
        (: >/var/lib/mysql/x) 2>&1; (: >/run/mysqld/x) 2>&1; : >/tmp/x && echo written";
    let answer = ns.sh("legacy-0", "towline-agent", asked, "").await.stdout;
    assert!(
        answer.starts_with("999\n") && answer.ends_with("written\n"),
        "{answer}"
    );
    assert_eq!(
        answer.matches("Read-only file system").count(),
        2,
        "{answer}"
    );
    ns.delete().await;
}

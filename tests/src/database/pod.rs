//! `deploy/examples`, as a user would adapt them with kustomize: the components of `deploy/sidecar` put
//! the agent beside every database of the tests.

use crate::{Namespace, cluster::root, objects::TOKEN, run_ok};
use serde_json::{Value, json};
use std::path::{Component, Path};

/// A database in a pod, with the agent beside it.
pub struct Database<'a> {
    namespace: &'a Namespace,
    name: String,
    pod: String,
    client: &'static str,
}

/// What a test wants of a database that differs from the example.
struct Changes<'a> {
    /// Further flags of the agent, as variables.
    agent: Vec<String>,
    /// Flags of the server.
    server: &'a [&'a str],
    /// Patches of the StatefulSet.
    patches: Vec<Value>,
    /// Without TLS: what breaks streams has to see them.
    insecure: bool,
    /// What the token may do.
    scopes: &'static str,
}

impl Default for Changes<'_> {
    fn default() -> Self {
        Self {
            agent: Vec::new(),
            server: &[],
            patches: Vec::new(),
            insecure: true,
            scopes: "backup cancel",
        }
    }
}

impl<'a> Database<'a> {
    /// MariaDB 10.11, ready.
    pub async fn mariadb(namespace: &'a Namespace, name: &str) -> Self {
        Self::start(namespace, name, "mariadb", Changes::default()).await
    }

    /// MySQL 9, ready.
    pub async fn mysql(namespace: &'a Namespace, name: &str) -> Self {
        Self::start(namespace, name, "mysql", Changes::default()).await
    }

    /// A server of this flavour whose agent may restore into it, ready.
    pub async fn for_restore(
        namespace: &'a Namespace,
        name: &str,
        flavour: &'static str,
        options: &[&str],
    ) -> Self {
        let changes = Changes {
            agent: vec!["TOWLINE_ALLOW_RESTORE=true".to_owned()],
            server: options,
            scopes: "backup cancel restore",
            ..Changes::default()
        };
        let database = Self::start(namespace, name, flavour, changes).await;
        database.grant(&format!("{flavour}-restore")).await;
        database
    }

    /// MariaDB with these options of the server, ready.
    pub async fn mariadb_with(namespace: &'a Namespace, name: &str, options: &[&str]) -> Self {
        let changes = Changes {
            server: options,
            ..Changes::default()
        };
        Self::start(namespace, name, "mariadb", changes).await
    }

    /// MariaDB whose agent finds `script` under a tool's name, before the tool itself: for what the
    /// real tool cannot be made to do.
    pub async fn mariadb_with_tool(
        namespace: &'a Namespace,
        name: &str,
        tool: &str,
        script: &str,
    ) -> Self {
        let tools = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tools"}, "data": {tool: script}});
        namespace.apply(&tools.to_string()).await;
        let changes = Changes {
            patches: vec![
                json!({"op": "add", "path": "/spec/template/spec/volumes/-", "value": {"name": "tools", "configMap": {"name": "tools", "defaultMode": 0o755}}}),
                json!({"op": "add", "path": "/spec/template/spec/initContainers/0/volumeMounts/-", "value": {"name": "tools", "mountPath": "/fault"}}),
                json!({"op": "add", "path": "/spec/template/spec/initContainers/0/env/-", "value": {"name": "PATH", "value": "/fault:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}),
            ],
            ..Changes::default()
        };
        Self::start(namespace, name, "mariadb", changes).await
    }

    /// MariaDB whose agent speaks TLS, wants a certificate and a token, and encrypts to `recipient` at
    /// least. The Secret `towline-agent-tls` must be there.
    pub async fn mariadb_over_tls(namespace: &'a Namespace, name: &str, recipient: &str) -> Self {
        let changes = Changes {
            agent: vec![format!("TOWLINE_REQUIRE_RECIPIENT={recipient}")],
            insecure: false,
            ..Changes::default()
        };
        Self::start(namespace, name, "mariadb", changes).await
    }

    async fn start(
        namespace: &'a Namespace,
        name: &str,
        flavour: &'static str,
        changes: Changes<'_>,
    ) -> Self {
        let tag = if flavour == "mysql" { "9" } else { "10.11" };
        let folder = tempfile::tempdir().unwrap();
        let deploy = relative(folder.path(), &root().join("deploy"));
        let components = changes
            .insecure
            .then(|| format!("{deploy}/sidecar/insecure-http"));
        let mut patches = changes.patches;
        if !changes.server.is_empty() {
            patches.push(json!({"op": "add", "path": "/spec/template/spec/containers/0/args", "value": changes.server}));
        }
        let patches: Vec<Value> = patches
            .into_iter()
            .map(|patch| json!({"target": {"kind": "StatefulSet"}, "patch": json!([patch]).to_string()}))
            .collect();
        let secret =
            |name: &str, literals: Vec<String>| json!({"name": name, "literals": literals});
        let kustomization = json!({
            "resources": [format!("{deploy}/examples/statefulset-{flavour}")],
            "components": components.as_slice(),
            "namePrefix": format!("{name}-"),
            "labels": [{"pairs": {"app": name}, "includeSelectors": true}],
            "images": [
                {"name": "towline-agent", "newName": namespace.cluster.image(&format!("towline-agent-{flavour}")), "newTag": "dev"},
                {"name": flavour, "newName": namespace.cluster.image(flavour), "newTag": tag},
            ],
            "patches": patches,
            "configMapGenerator": [{"name": "towline-agent", "literals": changes.agent}],
            "secretGenerator": [
                secret(flavour, vec![format!("root-password={TOKEN}")]),
                secret("towline-database", vec![format!("password={TOKEN}")]),
                secret("agent-token", vec![format!("tokens={TOKEN} {}", changes.scopes)]),
            ],
            "generatorOptions": {"disableNameSuffixHash": true},
        });
        let file = folder.path().join("kustomization.yaml");
        std::fs::write(file, kustomization.to_string()).unwrap();
        let path = folder.path().to_str().unwrap();
        let manifest = run_ok("kubectl", &["kustomize", path], b"").await;
        namespace.apply(&manifest).await;
        // What the jobs of tests name.
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "agent-token"}, "stringData": {"token": TOKEN}});
        namespace.apply(&secret.to_string()).await;
        let database = Self {
            namespace,
            name: name.to_owned(),
            pod: format!("{name}-{flavour}-0"),
            client: flavour,
        };
        namespace.ready(&database.pod).await;
        // The tests use both methods.
        let logical = Self::documented(&format!("{flavour}-logical"));
        database.query(&logical.replace("CHANGE-ME", TOKEN)).await;
        if flavour == "mariadb" {
            database.grant("mariadb-physical").await;
        }
        database
    }

    /// The SQL of a file of deploy/grants.
    pub fn documented(file: &str) -> String {
        std::fs::read_to_string(root().join(format!("deploy/grants/{file}.sql"))).unwrap()
    }

    /// Gives the agent's user what a file of deploy/grants grants.
    async fn grant(&self, file: &str) {
        let grants = Self::documented(file);
        let from = grants.find("GRANT").unwrap();
        self.query(&grants[from..]).await;
    }

    /// A server that is there already, in the container `database` of a pod.
    pub(crate) fn in_pod(namespace: &'a Namespace, pod: &str, client: &'static str) -> Self {
        Self {
            namespace,
            name: pod.to_owned(),
            pod: pod.to_owned(),
            client,
        }
    }

    /// Value of the pod's label `app`.
    pub fn app(&self) -> &str {
        &self.name
    }

    /// Name of the pod.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// `address:port` of the agent, as pods reach it.
    pub async fn agent_address(&self) -> String {
        format!("{}:8474", self.namespace.pod_ip(&self.pod).await)
    }

    /// Runs SQL as root; gives the rows without column names.
    pub async fn query(&self, sql: &str) -> String {
        let output = self.client(sql, "-N -B").await;
        assert!(output.code == 0, "{sql}: {}", output.stderr);
        output.stdout
    }

    /// Loads a dump.
    pub async fn load(&self, dump: &[u8]) {
        let output = self.client(&String::from_utf8_lossy(dump), "").await;
        assert!(output.code == 0, "{}", output.stderr);
    }

    async fn client(&self, input: &str, flags: &str) -> crate::Output {
        let password = self.client.to_uppercase();
        let script = format!(
            "MYSQL_PWD=${password}_ROOT_PASSWORD exec {} -uroot {flags}",
            self.client
        );
        self.namespace
            .sh(&self.pod, "database", &script, input)
            .await
    }

    /// A small shop: 10,000 orders, a function, a trigger, an event, and some text that is hard to quote.
    pub async fn load_shop(&self) {
        let digits = "(SELECT 0 n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
        self.query(&format!(
            "CREATE DATABASE shop; USE shop;
             CREATE TABLE customers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100) NOT NULL, photo BLOB) CHARACTER SET utf8mb4;
             CREATE TABLE orders (id INT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(200), amount DECIMAL(10,2)) CHARACTER SET utf8mb4;
             INSERT INTO customers (name, photo) SELECT CONCAT('Zoë 🚢 ', a.n, b.n), RANDOM_BYTES(1024) FROM {digits} a, {digits} b;
             INSERT INTO orders SELECT 1000*a.n + 100*b.n + 10*c.n + d.n, 1 + 10*a.n + b.n, 'it''s ¼ \\\\ \\n', d.n / 4
               FROM {digits} a, {digits} b, {digits} c, {digits} d;
             CREATE FUNCTION twice(i INT) RETURNS INT DETERMINISTIC NO SQL RETURN 2 * i;
             CREATE EVENT tidy ON SCHEDULE EVERY 1 DAY DO DELETE FROM orders WHERE id < 0;
             CREATE TRIGGER orders_total BEFORE INSERT ON orders FOR EACH ROW SET NEW.amount = COALESCE(NEW.amount, 0);",
        ))
        .await;
    }

    /// 60 MiB that do not compress: more than agent and connection hold, so that the tool has to wait
    /// for a slow reader. MariaDB only.
    pub async fn load_bulk(&self) {
        self.query(
            "CREATE DATABASE bulk; CREATE TABLE bulk.t (id INT AUTO_INCREMENT PRIMARY KEY, b BLOB)",
        )
        .await;
        self.query("USE bulk; INSERT INTO t (b) SELECT RANDOM_BYTES(1024) FROM seq_1_to_61440")
            .await;
    }

    /// Kills the backup tool, as the kernel's out-of-memory killer would.
    pub async fn kill_tool(&self, tool: &str) {
        let script = format!(
            "for p in /proc/[0-9]*; do read -r comm < $p/comm || continue; case $comm in {tool}) kill -9 ${{p#/proc/}}; found=1;; esac; done; test \"$found\""
        );
        let output = self
            .namespace
            .sh(&self.pod, "towline-agent", &script, "")
            .await;
        assert_eq!(output.code, 0, "no process {tool}: {}", output.stderr);
    }
}

/// A path as kustomize wants it: from the folder of the kustomization.
pub fn relative(from: &Path, to: &Path) -> String {
    let up = from.canonicalize().unwrap().components().skip(1).count();
    let down = to.canonicalize().unwrap();
    let down = down
        .components()
        .filter(|c| matches!(c, Component::Normal(_)));
    let parts = std::iter::repeat_n("..", up).chain(down.map(|c| c.as_os_str().to_str().unwrap()));
    parts.collect::<Vec<_>>().join("/")
}

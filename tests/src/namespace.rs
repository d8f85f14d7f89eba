//! A namespace of one test: its own controller, databases and stores, so that tests do not meet.

use crate::{Cluster, Output, command::run_command, eventually, eventually_for, run_ok};
use serde_json::Value;
use std::{fs::File, path::Path, sync::OnceLock};
use tokio::{
    process::Command,
    sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Carried by everything that tests make, so that a later run can clear it away.
const LABEL: &str = "towline.dev/e2e";

/// Held by every test; a controller that watches all namespaces must meet no other.
static ALONE: RwLock<()> = RwLock::const_new(());

/// Waits for other runs on this cluster, which would clear our namespaces away as an earlier run's.
/// The lock is the process's: it goes with it.
fn wait_for_other_runs(kubeconfig: &str) {
    static HELD: OnceLock<File> = OnceLock::new();
    HELD.get_or_init(|| {
        let file = File::open(kubeconfig).expect("TOWLINE_E2E_KUBECONFIG is a file");
        if file.try_lock().is_err() {
            println!("waiting for the end of another run of these tests on the same cluster");
            file.lock().expect("a lock on the kubeconfig");
        }
        file
    });
}

/// Held for as long as a namespace is used.
#[expect(dead_code, reason = "held, not read")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
    /// Of a namespace beside another one of the same test, which has the turn.
    Neighbour,
}

/// One test's namespace.
pub struct Namespace {
    /// The cluster that it is in.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
    _turn: Turn,
}

impl Namespace {
    /// Once a run: what an earlier run left goes, and the custom resources are as the chart has them.
    async fn prepare_cluster(&self) {
        static DONE: OnceCell<()> = OnceCell::const_new();
        DONE.get_or_init(|| async {
            let kubeconfig = self.cluster.kubeconfig.clone();
            tokio::task::spawn_blocking(move || wait_for_other_runs(&kubeconfig))
                .await
                .expect("the lock");
            self.clear_away().await;
            self.apply_definitions().await;
        })
        .await;
    }

    /// Removes what earlier runs left. Their controllers go with them, so nobody takes finalizers off.
    async fn clear_away(&self) {
        let old = format!("{LABEL}=true");
        let old = ["namespaces", "-l", &old];
        let names = ["-o", "jsonpath={.items[*].metadata.name}"];
        let names = self
            .kubectl_ok(&[&["get"], &old[..], &names].concat())
            .await
            .replace(' ', ",");
        if names.is_empty() {
            return;
        }
        self.kubectl_ok(&[&["delete"], &old[..], &["--wait=false"]].concat())
            .await;
        let towline = std::env::var("TOWLINE_E2E_TOWLINE").unwrap();
        let mut command = Command::new(format!("{towline}-controller"));
        command
            .args(["remove-finalizers", "--watch-namespaces", &names])
            .env("KUBECONFIG", &self.cluster.kubeconfig);
        let output = run_command(command, b"").await;
        assert_eq!(output.code, 0, "{}", output.stderr);
        let limit = std::time::Duration::from_secs(300);
        eventually_for(limit, "what earlier runs left is gone", || async {
            let left = self
                .kubectl_ok(&[&["get"], &old[..], &["-o", "name"]].concat())
                .await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// The custom resource definitions as the chart has them.
    pub async fn apply_definitions(&self) {
        let chart = crate::cluster::root().join("charts/towline");
        let show = [
            "template",
            "towline",
            chart.to_str().unwrap(),
            "--show-only",
            "templates/crds.yaml",
        ];
        let crds = run_ok("helm", &show, b"").await;
        self.apply(&crds).await;
        self.kubectl_ok(&[
            "wait",
            "--for=condition=Established",
            "--timeout=120s",
            "crd",
            "-l",
            "app.kubernetes.io/name=towline",
        ])
        .await;
    }

    /// Makes the namespace `e2e-<name>`.
    pub async fn create(name: &str) -> Self {
        Self::create_in(name, Turn::Shared(ALONE.read().await)).await
    }

    /// [`Self::create`] for a test that runs while no other does.
    pub async fn create_alone(name: &str) -> Self {
        Self::create_in(name, Turn::Alone(ALONE.write().await)).await
    }

    /// A second namespace of the same test.
    pub async fn neighbour(&self, name: &str) -> Self {
        Self::create_in(name, Turn::Neighbour).await
    }

    async fn create_in(name: &str, turn: Turn) -> Self {
        let namespace = Self {
            cluster: Cluster::from_env(),
            name: format!("e2e-{name}"),
            _turn: turn,
        };
        namespace.prepare_cluster().await;
        namespace
            .kubectl_ok(&["create", "namespace", &namespace.name])
            .await;
        namespace
            .kubectl_ok(&[
                "label",
                "namespace",
                &namespace.name,
                &format!("{LABEL}=true"),
            ])
            .await;
        namespace
    }

    /// Removes the namespace.
    pub async fn delete(self) {
        // Removed in the background: the next test need not wait for it.
        self.kubectl_ok(&["delete", "namespace", &self.name, "--wait=false"])
            .await;
    }

    /// Runs kubectl in this namespace.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new("kubectl");
        command
            .args(["--kubeconfig", &self.cluster.kubeconfig, "-n", &self.name])
            .args(args);
        run_command(command, input.as_bytes()).await
    }

    /// Runs kubectl, which must succeed; gives its output.
    pub async fn kubectl_ok(&self, args: &[&str]) -> String {
        let output = self.kubectl(args, "").await;
        assert!(
            output.code == 0,
            "kubectl {args:?}: {}{}",
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// `kubectl apply -f -`, which must succeed.
    pub async fn apply(&self, manifest: &str) {
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let output = self.kubectl(&apply, manifest).await;
        assert!(
            output.code == 0,
            "kubectl apply: {}\n{manifest}",
            output.stderr
        );
    }

    /// One object as JSON; `None` when there is none of this name.
    pub async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let output = self.kubectl(&["get", kind, name, "-o", "json"], "").await;
        (output.code == 0).then(|| serde_json::from_str(&output.stdout).unwrap())
    }

    /// All objects of a kind.
    pub async fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let json = self
            .kubectl_ok(&["get", kind, "-l", selector, "-o", "json"])
            .await;
        match serde_json::from_str::<Value>(&json).unwrap()["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        }
    }

    /// Messages of the events of one object.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let json = self
            .kubectl_ok(&[
                "get",
                "events",
                "--field-selector",
                &format!("involvedObject.name={name}"),
                "-o",
                "json",
            ])
            .await;
        let list: Value = serde_json::from_str(&json).unwrap();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| {
                format!(
                    "{} {}",
                    e["reason"].as_str().unwrap_or(""),
                    e["message"].as_str().unwrap_or("")
                )
            })
            .collect()
    }

    /// Runs a shell script in a container.
    pub async fn sh(&self, pod: &str, container: &str, script: &str, input: &str) -> Output {
        self.kubectl(
            &["exec", "-i", pod, "-c", container, "--", "sh", "-c", script],
            input,
        )
        .await
    }

    /// Waits until a pod is ready.
    pub async fn ready(&self, pod: &str) {
        eventually(&format!("pod {pod} is ready"), || async {
            let object = self.get("pod", pod).await.ok_or("no such pod")?;
            let ready = condition(&object, "Ready").is_some_and(|c| c["status"] == "True");
            let going = object["metadata"]["deletionTimestamp"].is_string();
            if ready && !going {
                Ok(())
            } else {
                Err(object["status"].to_string())
            }
        })
        .await;
    }

    /// Address of a pod.
    pub async fn pod_ip(&self, pod: &str) -> String {
        self.kubectl_ok(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
            .await
    }

    /// Installs our chart for this namespace alone, and waits for the controller.
    pub async fn install_controller(&self, settings: &[&str]) {
        let watch = format!("watchNamespaces={{{}}}", self.name);
        let own = ["crds.install=false", &watch, "clusterId=e2e"];
        self.install_chart(&[&own, settings].concat()).await;
    }

    /// Installs our chart with what its values are by default, and waits for the controller.
    pub async fn install_chart(&self, settings: &[&str]) {
        let chart = crate::cluster::root().join("charts/towline");
        self.install_from(&chart, settings).await;
    }

    /// [`Self::install_chart`] of another chart, such as that of the version before.
    pub async fn install_from(&self, chart: &Path, settings: &[&str]) {
        let upgrade = ["upgrade", "--install", "--take-ownership"];
        self.install_by(&upgrade, chart, settings).await;
    }

    /// [`Self::install_from`] by another command of Helm's.
    pub async fn install_by(&self, command: &[&str], chart: &Path, settings: &[&str]) {
        let repository = format!(
            "image.repository={}",
            self.cluster.image("towline-controller")
        );
        let pull = format!("image.pullPolicy={}", self.cluster.pull_policy());
        let mut args = [command, &["towline", chart.to_str().unwrap()]].concat();
        let tools = [
            (r"toolImages.mariadb-10\.11", "towline-agent-mariadb"),
            ("toolImages.mysql-9", "towline-agent-mysql"),
        ]
        .map(|(series, name)| format!("{series}={}:dev", self.cluster.image(name)));
        let own = [&repository, "image.tag=dev", &pull, &tools[0], &tools[1]];
        for setting in own.iter().chain(settings) {
            args.extend(["--set", *setting]);
        }
        self.helm(&args).await;
        self.controller_ready().await;
    }

    /// Runs helm in this namespace, which must succeed.
    pub async fn helm(&self, args: &[&str]) -> String {
        let here = ["--kubeconfig", &self.cluster.kubeconfig, "-n", &self.name];
        run_ok("helm", &[&here, args].concat(), b"").await
    }

    /// Waits for a controller that is ready and not on its way out; gives the pod's name.
    pub async fn controller_ready(&self) -> String {
        eventually("the controller is ready", || async {
            let pods = self.list("pods", "app.kubernetes.io/name=towline").await;
            let up = pods.iter().find(|pod| {
                pod["metadata"]["deletionTimestamp"].is_null()
                    && condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
            });
            up.and_then(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
                .ok_or_else(|| format!("{} pods, none ready", pods.len()))
        })
        .await
    }
}

/// A condition of an object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == kind)
}

/// A test that fails says what it saw last, and makes room; `TOWLINE_E2E_KEEP=1` keeps its remains.
impl Drop for Namespace {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let kubectl = |args: &[&str]| {
            let mut command = std::process::Command::new("kubectl");
            command
                .args(["--kubeconfig", &self.cluster.kubeconfig, "-n", &self.name])
                .args(args);
            let output = command
                .output()
                .map(|output| output.stdout)
                .unwrap_or_default();
            String::from_utf8_lossy(&output).into_owned()
        };
        eprintln!("what was in namespace {}:", self.name);
        for args in [
            &["get", "pods,bkstore,bksched,bkjob,rjob", "-o", "wide"][..],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["logs", "-l", "app.kubernetes.io/name=towline", "--tail=40"],
        ] {
            eprintln!("$ kubectl {}\n{}", args.join(" "), kubectl(args));
        }
        if std::env::var_os("TOWLINE_E2E_KEEP").is_none() {
            kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}

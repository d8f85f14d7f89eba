//! What tests do to the node under the pods: only where the node is this machine.

use crate::{Namespace, run, run_ok};

impl Namespace {
    /// Kills the controller with SIGKILL, as the kernel or a lost node does: `kubectl delete --force`
    /// still sends SIGTERM first.
    pub async fn kill_controller(&self) {
        let pod = self.controller_ready().await;
        self.signal_controller(&pod, "-KILL").await;
    }

    /// Sends a signal to the controller's process in a pod.
    pub async fn signal_controller(&self, pod: &str, signal: &str) {
        let object = self.get("pod", pod).await.unwrap();
        let uid = object["metadata"]["uid"].as_str().unwrap();
        let processes = controllers(uid);
        assert_eq!(
            processes.len(),
            1,
            "the controller of pod {pod} runs on this machine"
        );
        run_ok("kill", &[signal, &processes[0]], b"").await;
    }

    /// Keeps a pod from the API server, until this is dropped: its packets vanish, as on a broken line.
    pub async fn cut_off(&self, pod: &str) -> CutOff {
        let port = self
            .kubectl_ok(&[
                "get",
                "endpoints",
                "kubernetes",
                "-n",
                "default",
                "-o",
                "jsonpath={.subsets[0].ports[0].port}",
            ])
            .await;
        let address = self.pod_ip(pod).await;
        let table = format!("towline_{}", self.name.replace('-', "_"));
        let drop_it = format!("ip saddr {address} tcp dport {port} drop;");
        let rules = format!(
            "table inet {table} {{
               chain in {{ type filter hook input priority -150; {drop_it} }}
               chain forward {{ type filter hook forward priority -150; {drop_it} }}
             }}"
        );
        run_ok("nft", &["-f", "-"], rules.as_bytes()).await;
        CutOff(table)
    }

    /// Whether a test that reaches for the node can run; says so when it cannot.
    pub fn may_kill(&self, test: &str) -> bool {
        if self.cluster.external {
            println!(
                "{test} skipped: it needs the node to be this machine, and that of TOWLINE_TEST_KUBECONFIG is not"
            );
        }
        !self.cluster.external
    }
}

/// Process ids of the controllers in the pod of this uid.
fn controllers(uid: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|process| {
            let read =
                |file: &str| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
            read("comm").starts_with("towline-control") && read("cgroup").contains(uid)
        })
        .map(|process| process.file_name().into_string().unwrap())
        .collect()
}

/// A pod that is cut off.
pub struct CutOff(String);

impl CutOff {
    /// Joins it again.
    pub async fn join(self) {
        let table = self.0.clone();
        std::mem::forget(self);
        let output = run("nft", &["delete", "table", "inet", &table], b"").await;
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
}

/// For a test that fails meanwhile.
impl Drop for CutOff {
    fn drop(&mut self) {
        let table = ["delete", "table", "inet", &self.0];
        drop(std::process::Command::new("nft").args(table).output());
    }
}

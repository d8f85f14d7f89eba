//! `kubectl port-forward`, so that programs of this machine reach a pod of any cluster.

use crate::Namespace;
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// A forwarded port; ends with the value.
pub struct PortForward {
    address: String,
    _child: Child,
}

impl PortForward {
    /// Forwards a free local port to a pod's.
    pub async fn start(namespace: &Namespace, pod: &str, port: u16) -> Self {
        let mut child = Command::new("kubectl")
            .args([
                "--kubeconfig",
                &namespace.cluster.kubeconfig,
                "-n",
                &namespace.name,
                "port-forward",
            ])
            .args([&format!("pod/{pod}"), &format!(":{port}")])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines
            .next_line()
            .await
            .unwrap()
            .expect("kubectl port-forward says where");
        let address = line
            .split_whitespace()
            .find(|word| word.starts_with("127.0.0.1:"))
            .expect(&line)
            .to_owned();
        // Its later lines must go somewhere, or it would stop at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            address,
            _child: child,
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

//! A Prometheus, an Alertmanager and a receiver of its messages, on this machine: Debian's packages.

use crate::{cluster::root, eventually, run, run_ok};
use axum::{
    Json, Router,
    extract::{Path as Route, State},
    routing::post,
};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    task::JoinHandle,
};

/// A port that was free a moment ago.
async fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Starts a program that ends with the value, and waits until it says that it is ready.
async fn start(program: &str, arguments: &[String], address: &str, folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    eventually(&format!("{program} is ready"), || async {
        let url = format!("http://{address}/-/ready");
        match run("curl", &["-sf", "--max-time", "5", &url], b"").await {
            output if output.code == 0 => Ok(()),
            _ => Err(std::fs::read_to_string(folder.join("log")).unwrap()),
        }
    })
    .await;
    child
}

/// A Prometheus that scrapes every second, with the chart's alerting rules.
pub struct Prometheus {
    address: String,
    folder: TempDir,
    _child: Child,
}

impl Prometheus {
    /// Starts it. Alerts go to `alertmanager`, `address:port`.
    pub async fn start(alertmanager: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address().await;
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [root().join("charts/towline/files/alerts.yaml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [{
                "job_name": "towline",
                // As the chart's ServiceMonitor: the controller's own label `namespace` stays.
                "honor_labels": true,
                "file_sd_configs": [{"files": [folder.path().join("targets.json")], "refresh_interval": "1s"}],
            }],
        });
        // What is JSON is YAML.
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ),
            format!("--web.listen-address={address}"),
        ];
        let child = start("prometheus", &arguments, &address, folder.path()).await;
        Self {
            address,
            folder,
            _child: child,
        }
    }

    /// What it scrapes: addresses with the labels that service discovery would give them.
    pub fn scrape(&self, targets: &[(&str, Value)]) {
        let targets: Vec<_> = targets
            .iter()
            .map(|(address, labels)| json!({"targets": [address], "labels": labels}))
            .collect();
        // Whole at once: it is watched.
        let new = self.folder.path().join("targets.new");
        std::fs::write(&new, json!(targets).to_string()).unwrap();
        std::fs::rename(new, self.folder.path().join("targets.json")).unwrap();
    }

    /// Asks its API; gives `data`.
    pub async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let mut arguments = vec!["-s", "--max-time", "20", "--get", &url];
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        for parameter in &parameters {
            arguments.extend(["--data-urlencode", parameter]);
        }
        let text = run_ok("curl", &arguments, b"").await;
        let mut answer: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(text),
        }
    }

    /// States of the alerts of a name, with their labels.
    pub async fn alerts(&self, name: &str) -> Vec<Value> {
        let data = self.ask("alerts", &[]).await.unwrap();
        let alerts = data["alerts"].as_array().unwrap();
        let ours = alerts.iter().filter(|a| a["labels"]["alertname"] == name);
        ours.cloned().collect()
    }
}

/// A message of an Alertmanager, and the end of the address that it came to.
#[derive(Clone, Debug)]
pub struct Message {
    /// Last part of the path.
    pub receiver: String,
    /// What it says.
    pub body: Value,
}

impl Message {
    /// Name and status of each of its alerts.
    pub fn alerts(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let alerts = self.body["alerts"].as_array().unwrap().iter();
        alerts
            .map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["status"])))
            .collect()
    }
}

/// An Alertmanager with the configuration of `deploy/alertmanager`, whose messages come here.
pub struct Alertmanager {
    /// `address:port`.
    pub address: String,
    messages: Arc<Mutex<Vec<Message>>>,
    _folder: TempDir,
    _child: Child,
    server: JoinHandle<()>,
}

impl Alertmanager {
    /// Starts it. Its receivers are here instead of at hooks.example.com, it waits for seconds instead of
    /// minutes, and the namespaces of team `shop` are those of `namespaces`, a regular expression.
    pub async fn start(namespaces: &str) -> Self {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://{}/towline", listener.local_addr().unwrap());
        let keep = messages.clone();
        let router = Router::new()
            .route("/towline/{receiver}", post(receive))
            .with_state(keep);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

        let file = root().join("deploy/alertmanager/alertmanager.yaml");
        let mut config = std::fs::read_to_string(file).unwrap();
        for (from, to) in [
            ("https://hooks.example.com/towline", here.as_str()),
            ("group_wait: 30s", "group_wait: 1s"),
            ("group_interval: 5m", "group_interval: 1s"),
            ("shop|shop-.+", namespaces),
        ] {
            assert!(config.contains(from), "{from}");
            config = config.replace(from, to);
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alertmanager.yml");
        std::fs::write(&file, config).unwrap();
        let address = free_address().await;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
            // It is one alone.
            "--cluster.listen-address=".to_owned(),
        ];
        let child = start(
            "prometheus-alertmanager",
            &arguments,
            &address,
            folder.path(),
        )
        .await;
        Self {
            address,
            messages,
            _folder: folder,
            _child: child,
            server,
        }
    }

    /// What has come so far.
    pub fn messages(&self) -> Vec<Message> {
        let messages = self.messages.lock();
        messages.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a receiver was told this of an alert.
    pub async fn told(&self, receiver: &str, alert: &str, status: &str) {
        let wanted = (alert.to_owned(), status.to_owned());
        eventually(&format!("{receiver} is told: {alert} {status}"), || async {
            let messages = self.messages();
            let mut ours = messages.iter().filter(|m| m.receiver == receiver);
            if ours.any(|message| message.alerts().contains(&wanted)) {
                Ok(())
            } else {
                Err(format!("{messages:?}"))
            }
        })
        .await;
    }
}

async fn receive(
    Route(receiver): Route<String>,
    State(messages): State<Arc<Mutex<Vec<Message>>>>,
    Json(body): Json<Value>,
) {
    let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
    messages.push(Message { receiver, body });
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.server.abort();
    }
}

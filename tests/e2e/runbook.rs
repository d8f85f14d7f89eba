//! docs/restore.md, followed word for word: its commands run as they stand there.

use e2e::{
    Namespace,
    command::run_command,
    database::{Database, LocalServer},
};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};
use tokio::process::Command;

/// The blocks of shell in the runbook, by the word behind `sh`; those of one word are one script.
fn scripts() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(e2e::cluster::root().join("docs/restore.md")).unwrap();
    let mut scripts = BTreeMap::<String, String>::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(word) = line.trim_start().strip_prefix("```sh") else {
            continue;
        };
        let script = scripts.entry(word.trim().to_owned()).or_default();
        for line in lines.by_ref().take_while(|line| line.trim_start() != "```") {
            script.push_str(line);
            script.push('\n');
        }
    }
    scripts
}

/// A reader with a shell, who has filled in the names of the first block.
struct Reader {
    scripts: BTreeMap<String, String>,
    names: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl Reader {
    fn new(ns: &Namespace, names: &[(&str, &str)]) -> Self {
        let scripts = scripts();
        let asked = &scripts["variables"];
        let mut all: Vec<(String, String)> = names
            .iter()
            .map(|(name, value)| {
                let export = format!("export {name}=");
                assert!(
                    asked.contains(&export),
                    "the runbook does not ask for {name}"
                );
                ((*name).to_owned(), (*value).to_owned())
            })
            .collect();
        all.push(("KUBECONFIG".into(), ns.cluster.kubeconfig.clone()));
        let (id, secret) = &ns.cluster.s3_key;
        all.push(("AWS_ACCESS_KEY_ID".into(), id.clone()));
        all.push(("AWS_SECRET_ACCESS_KEY".into(), secret.clone()));
        all.push((
            "AWS_ENDPOINT_URL".into(),
            ns.cluster.s3_endpoint_here.clone(),
        ));
        let towline = std::env::var("TOWLINE_E2E_TOWLINE").unwrap();
        let programs = Path::new(&towline).parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap();
        all.push(("PATH".into(), format!("{programs}:{path}")));
        Self {
            scripts,
            names: all,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Types what stands in the blocks of this word.
    async fn follow(&self, word: &str) -> String {
        self.follow_changed(word, |script| script).await
    }

    async fn follow_changed(&self, word: &str, change: impl Fn(String) -> String) -> String {
        let script = change(self.scripts[word].clone());
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &script])
            .envs(self.names.iter().cloned())
            .current_dir(self.folder.path());
        let output = run_command(command, b"").await;
        assert_eq!(
            output.code, 0,
            "{script}\n{}\n{}",
            output.stdout, output.stderr
        );
        output.stdout
    }
}

/// `towline` does not take plain HTTP unless it is told to: the tests' S3 server has no certificate.
fn plain_http(script: String) -> String {
    script.replace("--store $URL", "--store $URL --allow-http")
}

#[tokio::test]
async fn a_lost_data_directory_and_what_follows() {
    let ns = Namespace::create("runbook-volume").await;
    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "db").await;
    db.load_shop().await;
    let bucket = ns.ready_store().await;
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "nightly"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": Namespace::job_spec(db.app(), &json!({"method": "physical"}))}}});
    ns.apply(&schedule.to_string()).await;
    e2e::eventually_for(std::time::Duration::from_secs(300), "a backup", || async {
        let schedule = ns.get("bksched", "nightly").await.ok_or("none")?;
        if schedule["status"]["lastSuccessfulTime"].is_string() {
            Ok(())
        } else {
            Err(schedule["status"].to_string())
        }
    })
    .await;
    let claims = ns
        .kubectl_ok(&["get", "pvc", "-o", "jsonpath={.items[0].metadata.name}"])
        .await;
    let set = db.pod().trim_end_matches("-0");
    let before = jiff::Timestamp::now().to_string();
    let url = format!("s3://{}/backups", bucket.name);
    let mut reader = Reader::new(
        &ns,
        &[
            ("NS", &ns.name),
            ("DB", set),
            ("CLAIM", &claims),
            ("SCHEDULE", "nightly"),
            ("STORE", "store"),
            ("BEFORE", &before),
            ("URL", &url),
        ],
    );
    reader.follow("first").await;
    // Whoever reads it waits until nothing runs any more.
    e2e::eventually("no job runs", || async {
        let schedule = ns.get("bksched", "nightly").await.ok_or("none")?;
        if schedule["status"]["active"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            Ok(())
        } else {
            Err(schedule["status"].to_string())
        }
    })
    .await;
    db.query("DROP TABLE shop.orders").await;
    reader.follow("a").await;
    ns.ready(db.pod()).await;
    assert_eq!(
        db.query("SELECT COUNT(*) FROM shop.orders").await.trim(),
        "10000"
    );
    // The agent beside it backs up what was restored.
    ns.job("after", db.app(), json!({"method": "physical"}))
        .await;
    ns.job_ends("after", "Succeeded").await;
    reader.follow("first").await;

    let seen = reader.follow_changed("c", plain_http).await;
    assert!(seen.contains("nightly"), "{seen}");
    let empty = reader.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    reader
        .names
        .push(("EMPTY".into(), empty.display().to_string()));
    reader.follow_changed("without", plain_http).await;
    assert!(empty.join("shop/orders.ibd").exists());

    // By hand, with a client of the store's and stock tools.
    let job = ns.get("bkjob", "after").await.unwrap();
    for object in job["status"]["objects"].as_array().unwrap() {
        let key = object["key"].as_str().unwrap();
        let name = key.rsplit('/').next().unwrap();
        std::fs::write(reader.folder.path().join(name), bucket.read(key).await).unwrap();
    }
    reader.follow("d").await;
    let local = LocalServer::on(reader.folder.path(), "restored", &["--skip-grant-tables"]).await;
    assert_eq!(
        local.query("SELECT COUNT(*) FROM shop.orders").await.trim(),
        "10000"
    );
    local.stop().await;
    ns.delete().await;
}

#[tokio::test]
async fn lost_rows_on_a_running_server() {
    let ns = Namespace::create("runbook-server").await;
    ns.install_controller(&[]).await;
    let db = Database::for_restore(&ns, "db", "mariadb", &[]).await;
    db.load_shop().await;
    let bucket = ns.ready_store().await;
    ns.job("before", db.app(), json!({"method": "logical"}))
        .await;
    let job = ns.job_ends("before", "Succeeded").await;
    let sums = db.query(SUMS).await;
    db.query("DROP DATABASE shop").await;
    let mut reader = Reader::new(
        &ns,
        &[
            ("NS", &ns.name),
            ("BACKUP", "before"),
            ("APP", db.app()),
            ("DATABASE", "shop"),
        ],
    );
    reader.follow("b").await;
    assert_eq!(db.query(SUMS).await, sums);

    for object in job["status"]["objects"].as_array().unwrap() {
        let key = object["key"].as_str().unwrap();
        let name = key.rsplit('/').next().unwrap();
        std::fs::write(reader.folder.path().join(name), bucket.read(key).await).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let local = LocalServer::fresh(folder.path()).await;
    reader
        .names
        .push(("SOCKET".into(), local.socket().display().to_string()));
    reader.follow("d-logical").await;
    assert_eq!(local.query(SUMS).await, sums);
    local.stop().await;
    ns.delete().await;
}

const SUMS: &str = "CHECKSUM TABLE shop.orders, shop.customers";

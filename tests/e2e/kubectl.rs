//! `kubectl towline`, as people use it: every command through kubectl's own lookup of plugins, with the least
//! rights that docs/kubectl.md names, and what is said when something is wrong.

use e2e::{
    Cluster, Namespace, Output, cluster::root, command::run_command, database::Database, documents,
    namespace::condition,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
};

/// Somebody with the plugin on the PATH, and a kubeconfig.
struct User {
    bin: PathBuf,
    kubeconfig: PathBuf,
    /// Holds both.
    folder: TempDir,
}

impl User {
    /// With this kubeconfig, as `kubectl config view -o json` prints it.
    fn of(kubeconfig: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let towline = std::env::var("TOWLINE_E2E_TOWLINE").unwrap();
        for name in ["kubectl-towline", "kubectl_complete-towline"] {
            std::os::unix::fs::symlink(&towline, bin.join(name)).unwrap();
        }
        let file = folder.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        Self {
            bin,
            kubeconfig: file,
            folder,
        }
    }

    async fn kubectl(&self, args: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("kubectl");
        command
            .env("PATH", format!("{}:{path}", self.bin.display()))
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(self.folder.path())
            .args(args);
        run_command(command, b"").await
    }

    /// `kubectl towline ARGS`.
    async fn towline(&self, args: &[&str]) -> Output {
        self.kubectl(&[&["towline"], args].concat()).await
    }

    /// The same, which must succeed; gives its standard output.
    async fn ok(&self, args: &[&str]) -> String {
        let output = self.towline(args).await;
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
        output.stdout
    }

    /// The same, which must end with this code and one line on standard error that has these words.
    async fn refused(&self, args: &[&str], code: i32, words: &[&str]) {
        let output = self.towline(args).await;
        assert_eq!(output.code, code, "{args:?}: {output:?}");
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{args:?}: {output:?}");
        assert!(
            lines[0].starts_with("kubectl towline: "),
            "{args:?}: {output:?}"
        );
        for word in words {
            assert!(lines[0].contains(word), "{args:?}, {word}: {output:?}");
        }
        assert_eq!(output.stdout, "", "{args:?}");
    }

    async fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["-o", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }
}

/// The administrator's, for this namespace.
async fn admin(ns: &Namespace) -> Value {
    let view = ["config", "view", "--raw", "--minify", "-o", "json"];
    let mut config: Value = serde_json::from_str(&ns.kubectl_ok(&view).await).unwrap();
    config["contexts"][0]["context"]["namespace"] = json!(ns.name);
    config
}

/// A ServiceAccount's, with these of the Roles of docs/kubectl.md.
async fn account(ns: &Namespace, name: &str, roles: &[&str]) -> User {
    ns.kubectl_ok(&["create", "serviceaccount", name]).await;
    for role in roles {
        let binding = format!("{name}-{role}");
        let (role, who) = (
            format!("--role={role}"),
            format!("--serviceaccount={}:{name}", ns.name),
        );
        ns.kubectl_ok(&["create", "rolebinding", &binding, &role, &who])
            .await;
    }
    let token = ns
        .kubectl_ok(&["create", "token", name, "--duration=1h"])
        .await;
    let mut config = admin(ns).await;
    config["users"][0]["user"] = json!({"token": token.trim()});
    User::of(&config)
}

/// Somebody whose API server is at this address, and asks for no more.
fn at(server: &str) -> User {
    User::of(&json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "users": [{"name": "u", "user": {}}],
    }))
}

/// The API server of the cluster without our definitions: what is asked about our group is asked about another,
/// which is really not there, and the answer is the API server's own.
async fn without_definitions(cluster: &Cluster) -> (String, tokio::process::Child) {
    use tokio::io::AsyncBufReadExt as _;
    let mut proxy = Command::new("kubectl")
        .args(["--kubeconfig", &cluster.kubeconfig, "proxy", "--port=0"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(proxy.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let server = line.rsplit(' ').next().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap_or(b'\n'));
                }
                // One request for each connection: the next has its own line to change.
                let head = String::from_utf8(head).unwrap();
                let head = head
                    .replacen("/apis/towline.dev/", "/apis/not-installed.towline.dev/", 1)
                    .replacen("\r\n", "\r\nConnection: close\r\n", 1);
                let mut server = TcpStream::connect(server).await.unwrap();
                server.write_all(head.as_bytes()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (format!("http://{address}"), proxy)
}

/// The commands that ask the cluster, with names that need not be there.
const ALL: [&[&str]; 9] = [
    &["status"],
    &["ls"],
    &["explain", "job/x"],
    &["watch", "job/x"],
    &["logs", "job/x"],
    &["backup", "now", "x"],
    &["verify", "job/x"],
    &["restore", "job/x", "--to-claim", "data", "--yes"],
    &["cancel", "job/x", "--yes"],
];

async fn what_cannot_work_says_so(ns: &Namespace) {
    let nobody = at("https://127.0.0.1:1");
    let (bare, _proxy) = without_definitions(&ns.cluster).await;
    let bare = at(&bare);
    let stranger = account(ns, "stranger", &[]).await;
    let someone = User::of(&admin(ns).await);
    for command in ALL {
        nobody
            .refused(command, 5, &["the cluster does not answer", "--context"])
            .await;
        bare.refused(command, 5, &["CRDs are not installed", "helm install"])
            .await;
        stranger
            .refused(
                command,
                4,
                &["you may not", "towline.dev", &ns.name, "kubectl auth can-i"],
            )
            .await;
        if !matches!(command, ["status"] | ["ls"]) {
            someone
                .refused(command, 3, &["there is no ", " x in namespace ", &ns.name])
                .await;
        }
    }
    someone
        .refused(&["status", "--context", "nowhere"], 5, &["nowhere"])
        .await;
    // Usage errors are clap's, with what would be right; kubectl hands their code on.
    for command in [
        &["backup", "now"][..],
        &["restore", "nightly"],
        &["verify", "pod/x"],
        &["status", "-o", "xml"],
        &["cancel", "../../secrets"],
    ] {
        let output = someone.towline(command).await;
        assert_eq!(output.code, 2, "{command:?}: {output:?}");
        assert!(output.stderr.starts_with("error: "), "{output:?}");
    }
}

/// The Roles of the document.
async fn apply_roles(ns: &Namespace) {
    let text = std::fs::read_to_string(root().join("docs/kubectl.md")).unwrap();
    let document = documents::read("docs/kubectl.md".as_ref(), &text);
    let roles = document
        .blocks
        .iter()
        .filter(|block| block.language == "yaml" && block.text.contains("kind: Role\n"));
    let roles: Vec<_> = roles.collect();
    assert_eq!(roles.len(), 1, "one block has the roles");
    ns.apply(&roles[0].text).await;
}

async fn schedule(ns: &Namespace, name: &str, app: &str, more: &Value) {
    let image = format!("{}:10.11", ns.cluster.image("mariadb"));
    let schedule = json!({
        "apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": name},
        // Nothing is made but what is asked for.
        "spec": {"schedule": "0 3 1 1 *", "suspend": true, "verify": {"schedule": "0 6 1 1 *", "suspend": true, "image": image},
                 "jobTemplate": {"metadata": {"labels": {"team": "shop"}}, "spec": Namespace::job_spec(app, more)}},
    });
    ns.apply(&schedule.to_string()).await;
}

/// The last word of `backupjob.towline.dev/NAME`.
fn name(printed: &str) -> String {
    printed.trim().rsplit('/').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_plugin_from_its_first_status_to_its_last_restore() {
    let ns = Namespace::create("kubectl").await;
    what_cannot_work_says_so(&ns).await;

    ns.install_controller(&[]).await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_shop().await;
    db.load_bulk().await;
    ns.ready_store().await;
    schedule(&ns, "nightly", db.app(), &json!({"method": "physical"})).await;
    let slow = json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 300_000});
    schedule(&ns, "slow", db.app(), &slow).await;
    apply_roles(&ns).await;
    let reader = account(&ns, "reader", &["towline-reader"]).await;
    let operator = account(&ns, "operator", &["towline-reader", "towline-backups"]).await;
    let restorer = account(&ns, "restorer", &["towline-reader", "towline-restores"]).await;
    assert!(reader.ok(&["status"]).await.contains("nightly"));

    let job = backups(&ns, &reader, &operator).await;
    let cancelled = cancels(&ns, &operator).await;
    reads(&ns, &reader, &job, &cancelled).await;
    restores(&ns, &operator, &restorer, &job, &cancelled).await;
    completes(&reader, &job).await;
    ns.delete().await;
}

/// `backup now`; gives the name of a job that succeeded.
async fn backups(ns: &Namespace, reader: &User, operator: &User) -> String {
    let now = ["backup", "now", "nightly"];
    reader
        .refused(&now, 4, &["you may not create backupjobs.towline.dev"])
        .await;
    // Tried only, here and by the API server.
    let tried = operator
        .ok(&[&now[..], &["--dry-run", "client"]].concat())
        .await;
    assert_eq!(
        tried,
        "backupjob.towline.dev/nightly-now-… created (dry run)\n"
    );
    let tried = operator
        .ok(&[&now[..], &["--dry-run", "server", "-o", "yaml"]].concat())
        .await;
    assert!(tried.contains("kind: BackupJob"), "{tried}");
    assert!(ns.list("backupjobs", "").await.is_empty());

    let output = operator.towline(&[&now[..], &["--wait"]].concat()).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("suspended"), "{output:?}");
    let jobs = ns
        .list("backupjobs", "team=shop,towline.dev/schedule=nightly")
        .await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    let owner = &jobs[0]["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["name"], &owner["controller"]),
        (&json!("nightly"), &json!(true))
    );
    let name = jobs[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("nightly-now-"), "{name}");
    assert!(
        output.stdout.contains(&name) && output.stdout.contains("Succeeded"),
        "{output:?}"
    );
    // It is the schedule's.
    e2e::eventually("the schedule counts it", || async {
        let schedule = ns.get("bksched", "nightly").await.ok_or("none")?;
        let at = schedule["status"]["lastSuccessfulTime"].as_str();
        at.map(drop).ok_or_else(|| schedule["status"].to_string())
    })
    .await;
    name
}

/// `cancel` of a backup that runs; gives its name.
async fn cancels(ns: &Namespace, operator: &User) -> String {
    let printed = operator.ok(&["backup", "now", "slow", "-o", "name"]).await;
    assert!(
        printed.starts_with("backupjob.towline.dev/slow-now-"),
        "{printed}"
    );
    let name = name(&printed);
    ns.job_streams(&name).await;
    assert!(operator.ok(&["status"]).await.contains("RUNNING"));
    let job = format!("job/{name}");
    operator
        .refused(&["verify", &job], 1, &["no backup yet", "Running", "watch"])
        .await;
    operator.ok(&["cancel", &name, "--wait"]).await;
    ns.job_ends(&name, "Cancelled").await;
    operator
        .refused(&["cancel", &job], 1, &["ended already", "Cancelled"])
        .await;
    name
}

/// `ls`, `explain`, `watch`, `logs` and the formats.
async fn reads(ns: &Namespace, reader: &User, job: &str, cancelled: &str) {
    let backups = reader.ok(&["ls"]).await;
    assert!(
        backups.contains(job) && !backups.contains(cancelled),
        "{backups}"
    );
    let jobs = reader.json(&["ls", "jobs"]).await;
    assert_eq!(jobs["items"].as_array().unwrap().len(), 2, "{jobs}");
    assert_eq!(jobs["items"][0]["kind"], "BackupJob");
    let named = reader
        .ok(&["ls", "--schedule", "nightly", "-o", "name"])
        .await;
    assert_eq!(named, format!("backupjob.towline.dev/{job}\n"));
    for what in ["schedules", "stores", "restores", "jobs"] {
        for format in ["table", "wide", "yaml"] {
            reader.ok(&["ls", what, "-o", format]).await;
        }
    }
    let status = reader.json(&["status"]).await;
    assert_eq!(status["schedules"].as_array().unwrap().len(), 2, "{status}");
    // All namespaces are more than a Role gives.
    reader
        .refused(&["status", "-A"], 4, &["in all namespaces", "-A"])
        .await;

    let text = reader.ok(&["explain", cancelled]).await;
    assert!(text.contains("Cancelled"), "{text}");
    let text = reader.ok(&["explain", "schedule/nightly"]).await;
    assert!(text.contains("nightly"), "{text}");
    let ended = reader.towline(&["watch", job]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let ended = reader
        .towline(&["watch", &format!("job/{cancelled}")])
        .await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stdout.contains("Cancelled"), "{ended:?}");

    // With the rights of who runs the cluster, all that was said about the job.
    let someone = User::of(&admin(ns).await);
    let logs = someone
        .ok(&["logs", job, "--controller-namespace", &ns.name])
        .await;
    for source in ["event", "attempt", "controller", "agent"] {
        assert!(logs.contains(source), "{source}: {logs}");
    }
    let lines = someone
        .ok(&[
            "logs",
            job,
            "-o",
            "json",
            "--controller-namespace",
            &ns.name,
        ])
        .await;
    let times: Vec<jiff::Timestamp> = lines
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["time"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    assert!(times.is_sorted(), "{times:?}");
}

/// `verify`, `restore`, and `cancel` of what they began.
async fn restores(ns: &Namespace, operator: &User, restorer: &User, job: &str, cancelled: &str) {
    let into = ["restore", "nightly", "--to-claim", "data"];
    operator
        .refused(
            &["verify", "nightly"],
            4,
            &["you may not create restorejobs.towline.dev"],
        )
        .await;
    let job_named = format!("job/{job}");
    restorer
        .refused(
            &["verify", &format!("job/{cancelled}")],
            1,
            &["has no backup", "Cancelled", "kubectl towline ls"],
        )
        .await;
    // What the API server's rules refuse, by the field.
    restorer
        .refused(
            &["verify", "nightly", "--image", ""],
            1,
            &["spec.to.drill.image"],
        )
        .await;

    let drilled = restorer
        .towline(&["verify", "nightly", "--wait", "-o", "json"])
        .await;
    assert_eq!(drilled.code, 0, "{drilled:?}");
    let drill: Value = serde_json::from_str(&drilled.stdout).unwrap();
    assert_eq!(drill["status"]["phase"], "Succeeded", "{drill}");
    assert_eq!(drill["metadata"]["ownerReferences"][0]["name"], "nightly");
    for (kind, name) in [("bkjob", job), ("bksched", "nightly")] {
        e2e::eventually("it is Verified", || async {
            let object = ns.get(kind, name).await.ok_or("none")?;
            let holds = condition(&object, "Verified").is_some_and(|c| c["status"] == "True");
            if holds {
                Ok(())
            } else {
                Err(object["status"].to_string())
            }
        })
        .await;
    }

    // A claim that is not there, nobody who could be asked, a method that does not go there.
    restorer
        .refused(
            &[&into[..], &["--yes"]].concat(),
            2,
            &["no claim data", "--size"],
        )
        .await;
    let new = [&into[..], &["--size", "1Gi"]].concat();
    let asked = restorer.towline(&new).await;
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(
        asked.stderr.contains(job) && asked.stderr.contains("--yes"),
        "{asked:?}"
    );
    assert!(ns.get("pvc", "data").await.is_none());
    assert!(ns.list("restorejobs", "").await.len() == 1);
    restorer
        .refused(
            &["restore", &job_named, "--to-agent", "app=mariadb", "--yes"],
            2,
            &["physical", "--to-claim"],
        )
        .await;
    let tried = restorer
        .ok(&[&new[..], &["--dry-run", "server", "-o", "name"]].concat())
        .await;
    assert!(
        tried.starts_with("restorejob.towline.dev/nightly-restore-"),
        "{tried}"
    );
    assert!(ns.get("pvc", "data").await.is_none());

    let restored = restorer
        .towline(&[&new[..], &["--yes", "--wait"]].concat())
        .await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert!(restored.stdout.contains("Succeeded"), "{restored:?}");
    let files = ns.in_claim("data", "ls /claim").await;
    assert!(
        files.contains("ibdata1") && files.contains("shop"),
        "{files}"
    );
    // Once more, into what is not empty any more: the exit code is that of the outcome.
    let refused = restorer
        .towline(&[&into[..], &["--yes", "--wait"]].concat())
        .await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("Failed"), "{refused:?}");

    // A drill that cannot start is cancelled by deleting it.
    let stuck = restorer
        .ok(&[
            "verify",
            &job_named,
            "--image",
            "towline.invalid/none:1",
            "-o",
            "name",
        ])
        .await;
    let stuck = format!("restore/{}", name(&stuck));
    let asked = restorer.towline(&["cancel", &stuck]).await;
    assert_eq!(asked.code, 2, "{asked:?}");
    operator
        .refused(
            &["explain", "restore/nothing"],
            3,
            &["no RestoreJob nothing"],
        )
        .await;
    restorer.ok(&["cancel", &stuck, "--yes", "--wait"]).await;
    restorer
        .refused(&["watch", &stuck], 3, &["there is no RestoreJob"])
        .await;
}

/// By kubectl's own completion, which asks the plugin.
async fn completes(reader: &User, job: &str) {
    let completed = async |words: &[&str]| {
        let words = [&["__complete", "towline"], words].concat();
        reader.kubectl(&words).await.stdout
    };
    let commands = completed(&[""]).await;
    for command in [
        "status", "ls", "explain", "watch", "logs", "backup", "verify", "restore", "cancel",
    ] {
        assert!(
            commands
                .lines()
                .any(|line| line.split('\t').next() == Some(command)),
            "{command}: {commands}"
        );
    }
    let names = completed(&["explain", ""]).await;
    assert!(names.contains(job), "{names}");
    let schedules = completed(&["backup", "now", "ni"]).await;
    assert!(schedules.contains("nightly"), "{schedules}");
    let script = reader.ok(&["completion", "bash"]).await;
    assert!(script.contains("backup"), "the script has the commands");
}

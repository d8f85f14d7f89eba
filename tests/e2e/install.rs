//! The chart as most people live with it: installed for all namespaces with its own custom resources, upgraded
//! from the version before, rolled back, uninstalled, and installed again.

use e2e::{
    Namespace, cluster, command::run_command, database::Database, eventually, store::Bucket,
};
use futures::FutureExt as _;
use serde_json::{Value, json};
use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
};
use tokio::process::Command;

const FINALIZER: &str = "towline.dev/delete-backup";
/// More objects than the API server gives in one page of the hook.
const MANY: usize = 520;

#[tokio::test]
async fn a_release_from_its_first_install_to_its_last_uninstall() {
    let ns = Namespace::create_alone("install").await;
    let life = AssertUnwindSafe(life_of_a_release(&ns))
        .catch_unwind()
        .await;
    // Whatever became of them here: the other tests need them.
    ns.apply_definitions().await;
    life.unwrap_or_else(|panic| resume_unwind(panic));
    ns.delete().await;
}

async fn life_of_a_release(ns: &Namespace) {
    no_other_controller(ns).await;
    let old = tempfile::tempdir().unwrap();
    ns.install_from(&old_chart(old.path()).await, &[]).await;
    let columns = async || -> Vec<String> {
        let crd = ns.get("crd", "backupstores.towline.dev").await.unwrap();
        let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array();
        let names = columns
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned());
        names.collect()
    };
    assert!(columns().await.contains(&"Where".into()));
    let db = Database::mariadb(ns, "mariadb").await;
    let bucket = ns.ready_store().await;
    let backup = async |name: &str| {
        let spec = json!({"method": "physical", "deletionPolicy": "Delete"});
        ns.job(name, db.app(), spec).await;
        let job = ns.job_ends(name, "Succeeded").await;
        assert_eq!(finalizers(&job), [FINALIZER], "{name}");
        job
    };
    let first = backup("first").await;
    bucket.assert_one_backup(&first).await;
    // Without `clusterId` it is the uid of namespace kube-system.
    let kube_system = ns.get("namespace", "kube-system").await.unwrap();
    let written = manifest(&bucket, &first).await;
    assert_eq!(written["clusterId"], kube_system["metadata"]["uid"]);

    ns.install_chart(&[]).await;
    assert!(columns().await.contains(&"Location".into()));
    helm_test(ns, "all namespaces").await;
    rights(ns).await;
    let second = backup("second").await;

    ns.helm(&["rollback", "towline", "1", "--wait"]).await;
    assert!(columns().await.contains(&"Where".into()));
    ns.controller_ready().await;
    let third = backup("third").await;

    let more = [
        "replicas=2",
        "podDisruptionBudget.enabled=true",
        "networkPolicy.enabled=true",
    ];
    ns.install_chart(&more).await;
    helm_test(ns, "all namespaces").await;
    who_may_not_is_told(ns).await;
    many_jobs(ns).await;
    ns.helm(&["uninstall", "towline", "--wait"]).await;
    let jobs = ns.list("backupjobs", "").await;
    assert_eq!(jobs.len(), 3 + MANY, "objects stay");
    let held = jobs.iter().filter(|job| !finalizers(job).is_empty());
    assert_eq!(held.count(), 0, "finalizers go");
    assert_eq!(
        ns.get("backupjob", "first").await.unwrap()["status"],
        first["status"]
    );
    nothing_is_left(ns).await;
    // With nobody there to delete a backup, its record goes at once, and alone.
    ns.kubectl_ok(&["delete", "backupjob", "first", "--timeout=60s"])
        .await;
    for job in [&first, &second, &third] {
        manifest(&bucket, job).await;
    }
    in_one_namespace(ns).await;

    // The same name in the same namespace: the definitions that were kept are its own.
    let chart = cluster::root().join("charts/towline");
    ns.install_by(&["install"], &chart, &[]).await;
    eventually("the controller holds its jobs again", || async {
        let job = ns.get("backupjob", "third").await.ok_or("no job")?;
        let held = finalizers(&job) == [FINALIZER];
        held.then_some(())
            .ok_or_else(|| job["metadata"].to_string())
    })
    .await;

    ns.install_chart(&["crds.keep=false"]).await;
    ns.helm(&["uninstall", "towline", "--wait"]).await;
    eventually("the definitions are gone", || async {
        match ns.get("crd", "backupjobs.towline.dev").await {
            None => Ok(()),
            Some(crd) => Err(crd["status"]["conditions"].to_string()),
        }
    })
    .await;
    for job in [&first, &second, &third] {
        manifest(&bucket, job).await;
    }
}

/// One that works for all namespaces would take part: it puts back what the hook takes off.
async fn no_other_controller(ns: &Namespace) {
    let all = ["get", "deployments", "--all-namespaces", "-o", "json"];
    let ours = ["-l", "app.kubernetes.io/name=towline"];
    // That of a scenario that has ended goes with its namespace.
    eventually("no controller works for all namespaces", || async {
        let list = ns.kubectl_ok(&[&all[..], &ours[..]].concat()).await;
        let list: Value = serde_json::from_str(&list).unwrap();
        let everywhere = |object: &&Value| !object.to_string().contains("--watch-namespaces=");
        let others = list["items"].as_array().unwrap().iter().filter(everywhere);
        let others: Vec<_> = others.map(|o| o["metadata"]["namespace"].clone()).collect();
        others
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("one runs in {others:?}: uninstall it"))
    })
    .await;
}

/// The chart of 0.1.0, with another word in its definitions, so that it shows which of the two are there.
async fn old_chart(folder: &Path) -> PathBuf {
    let package = cluster::root().join("tests/e2e/charts/towline-0.1.0.tgz");
    let (package, to) = (package.to_str().unwrap(), folder.to_str().unwrap());
    e2e::run_ok("tar", &["-xzf", package, "-C", to], b"").await;
    let chart = folder.join("towline");
    let file = chart.join("files/crds/backupstores.towline.dev.yaml");
    let crd = std::fs::read_to_string(&file).unwrap();
    assert!(crd.contains("name: Location"));
    std::fs::write(&file, crd.replace("name: Location", "name: Where")).unwrap();
    chart
}

fn finalizers(job: &Value) -> Vec<&str> {
    let finalizers = job["metadata"]["finalizers"].as_array();
    finalizers
        .into_iter()
        .flatten()
        .map(|f| f.as_str().unwrap())
        .collect()
}

/// The manifest of a job's backup, which must be in the bucket.
async fn manifest(bucket: &Bucket, job: &Value) -> Value {
    let key = job["status"]["manifestKey"].as_str().unwrap();
    serde_json::from_slice(&bucket.read(key).await).unwrap()
}

async fn helm(ns: &Namespace, args: &[&str]) -> e2e::Output {
    let mut command = Command::new("helm");
    command
        .args(["--kubeconfig", &ns.cluster.kubeconfig, "-n", &ns.name])
        .args(args);
    run_command(command, b"").await
}

/// `helm test` passes, and says what it has seen.
async fn helm_test(ns: &Namespace, place: &str) {
    let output = helm(ns, &["test", "towline"]).await;
    let said = output.stdout + &output.stderr;
    assert_eq!(output.code, 0, "{said}");
    for part in [
        "ok: the controller is ready",
        "towline_build_info",
        " leads\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for kind in ["BackupStore", "BackupSchedule", "BackupJob", "RestoreJob"] {
        let line = format!("ok: {kind} of towline.dev/v1alpha1 can be read in {place}");
        assert!(said.contains(&line), "{line}: {said}");
    }
}

/// Least rights: it may read a Secret that is named, and list none.
async fn rights(ns: &Namespace) {
    let account = format!("system:serviceaccount:{}:towline", ns.name);
    for (verb, what, may) in [
        ("get", "secrets", "yes"),
        ("list", "secrets", "no"),
        ("create", "pods", "no"),
        ("get", "pods", "no"),
        ("delete", "persistentvolumeclaims", "no"),
        ("patch", "backupjobs", "yes"),
        ("patch", "backupschedules", "no"),
        ("patch", "restorejobs", "no"),
        ("patch", "deployments/scale", "no"),
    ] {
        let answer = ns
            .kubectl(&["auth", "can-i", verb, what, "--as", &account], "")
            .await;
        assert_eq!(answer.stdout.trim(), may, "{verb} {what}");
    }
}

/// What the hook runs, by somebody who may not: it ends at once, and says what to do.
async fn who_may_not_is_told(ns: &Namespace) {
    let token = ns.kubectl_ok(&["create", "token", "default"]).await;
    let config = ns
        .kubectl_ok(&["config", "view", "--raw", "--minify", "-o", "json"])
        .await;
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(e2e::report::program("towline-controller"));
    command.env("KUBECONFIG", &file).arg("remove-finalizers");
    let output = run_command(command, b"").await;
    assert_eq!(output.code, 1, "{output:?}");
    for part in [
        "BackupJobs cannot be listed",
        "forbidden",
        "--no-hooks",
        "kubectl patch bkjob",
    ] {
        assert!(output.stderr.contains(part), "{part}: {output:?}");
    }
}

/// Many jobs that the finalizer is on, and that the controller is busy with when it is stopped.
async fn many_jobs(ns: &Namespace) {
    let spec = Namespace::job_spec(
        "nobody",
        &json!({"cancel": true, "deletionPolicy": "Delete"}),
    );
    let items: Vec<Value> = (0..MANY)
        .map(|n| {
            json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "spec": spec,
                   "metadata": {"name": format!("many-{n}"), "namespace": ns.name, "finalizers": [FINALIZER]}})
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let output = ns.kubectl(&["create", "-f", "-"], &list.to_string()).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
}

/// Of a release that is uninstalled only the definitions stay.
async fn nothing_is_left(ns: &Namespace) {
    let instance = "app.kubernetes.io/instance=towline";
    for kinds in [
        "deployments,pods,services,jobs,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets",
        "clusterroles,clusterrolebindings",
    ] {
        eventually(&format!("no {kinds} are left"), || async {
            let left = ns.list(kinds, instance).await;
            // Cluster-wide there may be some of other scenarios, whose namespaces went without their release.
            let release =
                |o: &&Value| o["metadata"]["annotations"]["meta.helm.sh/release-namespace"].clone();
            let names: Vec<_> = left
                .iter()
                .filter(|o| release(o).is_null() || release(o) == ns.name.as_str())
                .map(|o| format!("{} {}", o["kind"], o["metadata"]["name"]))
                .collect();
            names
                .is_empty()
                .then_some(())
                .ok_or_else(|| names.join(", "))
        })
        .await;
    }
}

/// A release for one namespace: its hook works there, and nowhere else.
async fn in_one_namespace(ns: &Namespace) {
    let other = ns.neighbour("install-one").await;
    other.install_controller(&[]).await;
    helm_test(&other, &format!("namespace {}", other.name)).await;
    for place in [ns, &other] {
        let spec = Namespace::job_spec(
            "nobody",
            &json!({"cancel": true, "deletionPolicy": "Delete"}),
        );
        let job = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "spec": spec,
                         "metadata": {"name": "held", "finalizers": [FINALIZER]}});
        place.apply(&job.to_string()).await;
    }
    other.job_ends("held", "Cancelled").await;
    other.helm(&["uninstall", "towline", "--wait"]).await;
    let held =
        async |place: &Namespace| finalizers(&place.get("backupjob", "held").await.unwrap()).len();
    assert_eq!((held(&other).await, held(ns).await), (0, 1));
    nothing_is_left(&other).await;
    other.delete().await;
}

//! A controller with Roles in one namespace, beside another namespace that is none of its business.

use e2e::{Namespace, database::Database};
use serde_json::json;

#[tokio::test]
async fn a_controller_with_roles_works_where_it_has_them_and_nowhere_else() {
    let ours = Namespace::create("roles").await;
    ours.install_controller(&[]).await;
    let db = Database::mariadb(&ours, "mariadb").await;
    let bucket = ours.ready_store().await;
    let theirs = format!("{}-others", ours.name);
    ours.kubectl_ok(&["create", "namespace", &theirs]).await;
    ours.kubectl_ok(&["label", "namespace", &theirs, "towline.dev/e2e=true"])
        .await;
    // The same objects there, store and Secret included.
    for (kind, name) in [
        ("secret", "s3"),
        ("secret", "agent-token"),
        ("backupstore", "store"),
    ] {
        let mut object = ours.get(kind, name).await.unwrap();
        object["metadata"] = json!({"name": name});
        object.as_object_mut().unwrap().remove("status");
        let output = ours
            .kubectl(&["apply", "-n", &theirs, "-f", "-"], &object.to_string())
            .await;
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    let spec = Namespace::job_spec(db.app(), &json!({"method": "physical"}));
    let job = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupJob", "metadata": {"name": "job"}, "spec": spec});
    let output = ours
        .kubectl(&["apply", "-n", &theirs, "-f", "-"], &job.to_string())
        .await;
    assert_eq!(output.code, 0, "{}", output.stderr);

    ours.job("job", db.app(), json!({"method": "physical"}))
        .await;
    let done = ours.job_ends("job", "Succeeded").await;
    bucket.assert_one_backup(&done).await;
    for (kind, name) in [("backupjob", "job"), ("backupstore", "store")] {
        let left = ours
            .kubectl_ok(&["get", "-n", &theirs, kind, name, "-o", "jsonpath={.status}"])
            .await;
        assert_eq!(left, "", "{kind} in {theirs} is left alone");
    }

    let account = format!("system:serviceaccount:{}:towline", ours.name);
    for (verb, what, here, there) in [
        ("get", "secrets", "yes", "no"),
        ("list", "secrets", "no", "no"),
        ("watch", "secrets", "no", "no"),
        ("list", "backupjobs.towline.dev", "yes", "no"),
        (
            "update",
            "backupjobs.towline.dev --subresource=status",
            "yes",
            "no",
        ),
        ("update", "backupjobs.towline.dev", "no", "no"),
        ("create", "backupjobs.towline.dev", "yes", "no"),
        ("create", "restorejobs.towline.dev", "yes", "no"),
        ("create", "jobs.batch", "yes", "no"),
        ("list", "jobs.batch", "no", "no"),
        ("create", "networkpolicies.networking.k8s.io", "yes", "no"),
        ("update", "networkpolicies.networking.k8s.io", "no", "no"),
        ("get", "persistentvolumeclaims", "yes", "no"),
        ("delete", "persistentvolumeclaims", "no", "no"),
        ("list", "pods", "yes", "no"),
        ("create", "pods", "no", "no"),
        ("create", "events.events.k8s.io", "yes", "no"),
        ("create", "leases.coordination.k8s.io", "yes", "no"),
        ("update", "leases.coordination.k8s.io/towline", "yes", "no"),
        ("update", "leases.coordination.k8s.io/another", "no", "no"),
        ("delete", "leases.coordination.k8s.io/towline", "no", "no"),
    ] {
        for (namespace, may) in [(&ours.name, here), (&theirs, there)] {
            let asked: Vec<&str> = what.split(' ').collect();
            let who = ["-n", namespace, "--as", &account];
            let args = [&["auth", "can-i", verb], &asked[..], &who].concat();
            let answer = ours.kubectl(&args, "").await;
            assert_eq!(
                answer.stdout.trim(),
                may,
                "{verb} {what} in {namespace}: {}",
                answer.stderr
            );
        }
    }
    let everywhere = ours
        .kubectl(
            &[
                "auth",
                "can-i",
                "list",
                "backupjobs.towline.dev",
                "--all-namespaces",
                "--as",
                &account,
            ],
            "",
        )
        .await;
    assert_eq!(everywhere.stdout.trim(), "no");
    ours.kubectl_ok(&["delete", "namespace", &theirs, "--wait=false"])
        .await;
    ours.delete().await;
}

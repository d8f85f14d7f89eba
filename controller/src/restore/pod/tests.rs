use super::*;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use std::collections::BTreeMap;

const UID: &str = "11111111-2222-3333-4444-555555555555";

fn backup(method: &str, encrypted: bool) -> RestoredBackup {
    RestoredBackup {
        store: "main".into(),
        key: "shop/nightly/20260102T030405Z-u".into(),
        method: method.into(),
        bytes: 7,
        sha256: "ab".into(),
        encrypted,
        server_flavour: "mariadb".into(),
        server_version: "10.11.6-MariaDB".into(),
        ..RestoredBackup::default()
    }
}

fn spec(to: Value) -> RestoreJobSpec {
    serde_json::from_value(json!({
        "from": {"backupJobRef": {"name": "nightly-1"}},
        "to": to,
        "decryption": {"identitySecretRef": {"name": "age", "key": "key.txt"}},
    }))
    .unwrap()
}

fn volume(more: Value) -> Value {
    let mut volume = json!({"claimName": "data-0"});
    let fields = more.as_object().unwrap().clone();
    volume.as_object_mut().unwrap().extend(fields);
    json!({"persistentVolumeClaim": volume})
}

struct Made {
    job: Job,
    policy: k8s_openapi::api::networking::v1::NetworkPolicy,
}

fn make(spec: &RestoreJobSpec, backup: &RestoredBackup) -> Result<Made, String> {
    let store = json!({"s3": {"bucket": "abc", "endpoint": "http://s3:7070", "allowHttp": true}, "credentialsSecretRef": {"name": "s3"}});
    let store: BackupStoreSpec = serde_json::from_value(store).unwrap();
    let url = "https://10.0.0.7:8474";
    let order = Order {
        namespace: "shop",
        uid: UID,
        owner: OwnerReference {
            api_version: "towline.dev/v1alpha1".into(),
            kind: "RestoreJob".into(),
            name: "r".into(),
            uid: UID.into(),
            controller: Some(true),
            ..OwnerReference::default()
        },
        job: "r-restore",
        spec,
        backup,
        store: &store,
        target: match Kind::of(spec) {
            Kind::Volume => Target::Volume,
            Kind::Agent => Target::Agent { url },
            Kind::Drill => Target::Drill,
        },
        image: "tools:1",
        seconds: 60,
    };
    Ok(Made {
        job: order.job()?,
        policy: network_policy(&order)?,
    })
}

fn pod(job: &Job) -> &PodSpec {
    job.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

fn containers(job: &Job) -> BTreeMap<&str, &Container> {
    let pod = pod(job);
    let init = pod.init_containers.iter().flatten();
    init.chain(&pod.containers)
        .map(|c| (c.name.as_str(), c))
        .collect()
}

fn mounts(container: &Container) -> Vec<(&str, &str)> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|m| (m.name.as_str(), m.mount_path.as_str()))
        .collect()
}

fn plan(container: &Container) -> Plan {
    let variable = container.env.iter().flatten();
    let variable = variable
        .into_iter()
        .find(|e| e.name == PLAN_VARIABLE)
        .unwrap();
    // As the kubelet gives it to the container.
    let value = variable.value.as_ref().unwrap().replace("$$", "$");
    serde_json::from_str(&value).unwrap()
}

/// Every kind of restore, with a backup that it takes.
fn all() -> Vec<(&'static str, RestoreJobSpec, RestoredBackup)> {
    let agent = json!({"agent": {"url": "https://db:8474", "auth": {"tokenSecretRef": {"name": "t", "key": "k"}},
        "tls": {"caSecretRef": {"name": "ca", "key": "root.pem"}, "clientCertSecretRef": {"name": "us"}, "serverName": "agent.shop"}}});
    let drill = json!({"drill": {"image": "mariadb:10.11"}});
    vec![
        ("volume", spec(volume(json!({}))), backup("physical", true)),
        ("agent", spec(agent), backup("logical", true)),
        ("drill", spec(drill.clone()), backup("physical", true)),
        ("drill", spec(drill), backup("logical", true)),
    ]
}

#[test]
fn whatever_it_restores_the_pod_has_no_rights_and_runs_once() {
    for (what, spec, backup) in all() {
        let made = make(&spec, &backup).unwrap();
        let job = made.job.spec.as_ref().unwrap();
        assert_eq!(
            (
                job.backoff_limit,
                job.completions,
                job.active_deadline_seconds
            ),
            (Some(0), Some(1), Some(60)),
            "{what}"
        );
        assert_eq!(job.pod_replacement_policy.as_deref(), Some("Failed"));
        assert_eq!(
            made.job.metadata.owner_references.as_ref().unwrap()[0].uid,
            UID
        );
        let pod = pod(&made.job);
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"), "{what}");
        assert_eq!(pod.automount_service_account_token, Some(false), "{what}");
        let context = pod.security_context.as_ref().unwrap();
        assert_eq!(
            (
                context.run_as_non_root,
                context.run_as_user,
                context.run_as_group,
                context.fs_group
            ),
            (Some(true), Some(999), Some(999), Some(999)),
            "{what}"
        );
        assert_eq!(
            context.seccomp_profile.as_ref().unwrap().type_,
            "RuntimeDefault"
        );
        for (name, container) in containers(&made.job) {
            let context = container.security_context.as_ref().unwrap();
            assert_eq!(context.allow_privilege_escalation, Some(false), "{name}");
            assert_eq!(context.read_only_root_filesystem, Some(true), "{name}");
            let capabilities = context.capabilities.as_ref().unwrap();
            assert_eq!(
                capabilities.drop.as_deref(),
                Some(&["ALL".to_owned()][..]),
                "{name}"
            );
            assert!(
                container.resources.as_ref().unwrap().requests.is_some(),
                "{name}"
            );
            // Secrets come as files: what is in the environment is in `kubectl describe`.
            for variable in container.env.iter().flatten() {
                assert!(variable.value_from.is_none(), "{what} {name}");
            }
            let volumes: Vec<&str> = pod
                .volumes
                .iter()
                .flatten()
                .map(|v| v.name.as_str())
                .collect();
            for (mount, _) in mounts(container) {
                assert!(volumes.contains(&mount), "{what} {name} {mount}");
            }
        }
    }
}

#[test]
fn the_identity_is_where_the_backup_is_opened_and_nowhere_else() {
    for (what, spec, backup) in all() {
        let job = make(&spec, &backup).unwrap().job;
        for (name, container) in containers(&job) {
            let opens = name == RESTORE || (name == CHECK && backup.method == "logical");
            let mounted = |volume: &str| mounts(container).iter().any(|(name, _)| *name == volume);
            assert_eq!(
                mounted("identity"),
                opens,
                "{what} {} {name}",
                backup.method
            );
            assert_eq!(mounted("store"), opens, "{what} {} {name}", backup.method);
        }
        let volumes = serde_json::to_value(&pod(&job).volumes).unwrap();
        let identity = volumes
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["name"] == "identity");
        let items = &identity.unwrap()["secret"]["items"];
        assert_eq!(
            *items,
            json!([{"key": "key.txt", "path": "identity"}]),
            "{what}"
        );
        // A backup that is not encrypted needs none, even where one is named.
        let plain = RestoredBackup {
            encrypted: false,
            ..backup
        };
        let job = make(&spec, &plain).unwrap().job;
        let volumes = serde_json::to_string(&pod(&job).volumes).unwrap();
        assert!(!volumes.contains("identity"), "{what}");
    }
}

#[test]
fn a_volume_is_mounted_where_the_plan_says() {
    let more = json!({"subPath": "mysql/data", "useMemory": "2Gi", "scratch": "5Gi",
        "securityContext": {"runAsUser": 1001, "fsGroup": 1002}});
    let spec = spec(volume(more));
    let job = make(&spec, &backup("physical", false)).unwrap().job;
    let containers = containers(&job);
    let restore = containers[RESTORE];
    assert_eq!(restore.image.as_deref(), Some("tools:1"));
    assert_eq!(
        restore.command.as_deref(),
        Some(&["towline".to_owned(), "restore-pod".to_owned()][..])
    );
    let data = restore
        .volume_mounts
        .iter()
        .flatten()
        .find(|m| m.name == "data")
        .unwrap();
    assert_eq!(
        (data.mount_path.as_str(), data.sub_path.as_deref()),
        (DATA_DIR, Some("mysql/data"))
    );
    let plan = plan(restore);
    assert_eq!(
        plan.task,
        Task::Volume {
            use_memory: Some(2 << 30)
        }
    );
    assert_eq!(
        (
            plan.namespace.as_str(),
            plan.folder.as_str(),
            plan.expected.bytes
        ),
        ("shop", "shop/nightly/20260102T030405Z-u", 7)
    );
    let memory = &restore.resources.as_ref().unwrap().limits.as_ref().unwrap()["memory"];
    assert_eq!(memory.0, "2816Mi");
    let volumes = serde_json::to_value(&pod(&job).volumes).unwrap();
    let find = |name: &str| {
        volumes
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["name"] == name)
            .unwrap()
    };
    assert_eq!(find("data")["persistentVolumeClaim"]["claimName"], "data-0");
    assert_eq!(find("scratch")["emptyDir"]["sizeLimit"], "5Gi");
    let context = pod(&job).security_context.as_ref().unwrap();
    assert_eq!(
        (context.run_as_user, context.run_as_group, context.fs_group),
        (Some(1001), Some(999), Some(1002))
    );
}

#[test]
fn an_agents_secrets_have_the_names_of_the_contract() {
    let (_, spec, backup) = all().swap_remove(1);
    let job = make(&spec, &backup).unwrap().job;
    let restore = containers(&job)[RESTORE];
    assert!(mounts(restore).contains(&("agent", AGENT_SECRET_DIR)));
    let volumes = serde_json::to_value(&pod(&job).volumes).unwrap();
    let agent = volumes
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == "agent")
        .unwrap();
    let sources = json!([
        {"secret": {"name": "t", "items": [{"key": "k", "path": "token"}]}},
        {"secret": {"name": "ca", "items": [{"key": "root.pem", "path": "ca.crt"}]}},
        {"secret": {"name": "us", "items": [{"key": "tls.crt", "path": "tls.crt"}, {"key": "tls.key", "path": "tls.key"}]}},
    ]);
    assert_eq!(agent["projected"]["sources"], sources);
    let Task::Agent {
        url, server_name, ..
    } = plan(restore).task
    else {
        panic!("{:?}", plan(restore));
    };
    assert_eq!(
        (url.as_str(), server_name.as_deref()),
        ("https://10.0.0.7:8474", Some("agent.shop"))
    );
}

#[test]
fn a_drill_has_a_server_of_its_own_that_starts_from_what_was_restored() {
    let mut spec = spec(
        json!({"drill": {"image": "mariadb:10.11", "storage": {"size": "9Gi", "storageClassName": "fast"}}}),
    );
    let query = "SELECT '$(HOME) $$ $x'";
    spec.checks = vec![crate::api::restore::Check {
        query: query.into(),
        expect: Some("1".into()),
    }];
    for (method, empty) in [("physical", "no"), ("logical", "yes")] {
        let job = make(&spec, &backup(method, false)).unwrap().job;
        let containers = containers(&job);
        assert_eq!(
            plan(containers[RESTORE]).task,
            Task::DrillPrepare { use_memory: None }
        );
        let Task::DrillCheck { checks } = plan(containers[CHECK]).task else {
            panic!("{:?}", plan(containers[CHECK]));
        };
        assert_eq!(
            checks[0].query, query,
            "the kubelet has replaced something in it"
        );
        let server = containers[SERVER];
        assert_eq!(server.image.as_deref(), Some("mariadb:10.11"));
        let arguments = server.args.as_ref().unwrap();
        assert_eq!(
            arguments[..5],
            [
                "server",
                "/restore/drill",
                "/restore/data",
                empty,
                "mariadb"
            ]
            .map(str::to_owned)
        );
        assert!(
            arguments[5].starts_with("--defaults-file=/restore/drill/"),
            "{arguments:?}"
        );
        assert!(arguments.iter().any(|a| a == "--skip-networking"));
        assert!(
            arguments
                .iter()
                .chain(server.command.iter().flatten())
                .all(|a| !a.contains("$(")),
            "the kubelet would replace it"
        );
        let volumes = serde_json::to_value(&pod(&job).volumes).unwrap();
        let data = volumes
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["name"] == "data")
            .unwrap();
        let template = &data["ephemeral"]["volumeClaimTemplate"];
        assert_eq!(template["metadata"]["labels"][LABEL], "r");
        let claim = &template["spec"];
        assert_eq!(
            (
                &claim["storageClassName"],
                &claim["resources"]["requests"]["storage"]
            ),
            (&json!("fast"), &json!("9Gi"))
        );
    }
}

#[test]
fn a_drill_may_ask_for_names_and_its_store_only() {
    let (_, spec, backup) = all().swap_remove(2);
    let made = make(&spec, &backup).unwrap();
    let policy = serde_json::to_value(&made.policy).unwrap();
    let labels = made
        .job
        .spec
        .as_ref()
        .unwrap()
        .template
        .metadata
        .as_ref()
        .unwrap()
        .labels
        .as_ref()
        .unwrap();
    assert_eq!(
        policy["spec"]["podSelector"]["matchLabels"],
        json!({LABEL_UID: labels[LABEL_UID]})
    );
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(
        policy["spec"]["ingress"],
        json!([{"ports": [{"protocol": "TCP", "port": 8476}]}])
    );
    let ports: Vec<&Value> = policy["spec"]["egress"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| &port["port"])
        .collect();
    assert_eq!(ports, [&json!(53), &json!(53), &json!(7070)]);
}

#[test]
fn names_of_jobs_fit_into_a_label_and_stay_apart() {
    assert_eq!(job_name("restore-1"), "restore-1-restore");
    let long = "x".repeat(200);
    let (a, b) = (job_name(&format!("{long}a")), job_name(&format!("{long}b")));
    assert_ne!(a, b);
    let edge = format!("{}-{long}", "y".repeat(45));
    for name in [
        a,
        b,
        job_name("a.b"),
        job_name(&edge),
        job_name(&"z".repeat(55)),
    ] {
        assert!(name.len() <= 63, "{name}");
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{name}"
        );
    }
    assert_ne!(job_name("a.b"), job_name("a-b"));
}

#[test]
fn a_plan_that_no_pod_could_be_given_is_refused_by_its_fields() {
    let mut spec = spec(json!({"drill": {"image": "i"}}));
    spec.checks = vec![
        crate::api::restore::Check {
            query: "\u{1F40B}".repeat(2048),
            expect: None,
        };
        20
    ];
    let Err(message) = make(&spec, &backup("physical", false)) else {
        panic!("it was made");
    };
    assert!(message.contains("spec.checks"), "{message}");
}

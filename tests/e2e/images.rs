//! The images as anybody gets them: what is in them, and that their programs run as the pods run them.

use e2e::{Cluster, Namespace, eventually};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::PathBuf,
};
use tar::{Archive, EntryType};

struct Image {
    /// As `tests/cluster/cluster images` calls it.
    name: &'static str,
    tag: &'static str,
    title: &'static str,
    uid: u32,
    /// Every program that is in it; the first is what it runs.
    programs: &'static [&'static str],
    /// A package that has to be known to whoever lists its parts.
    package: &'static str,
    /// What to run, and what that says.
    runs: &'static [(&'static [&'static str], &'static str)],
}

const IMAGES: [Image; 3] = [
    Image {
        name: "controller",
        tag: "towline-controller:dev",
        title: "towline-controller",
        uid: 65532,
        programs: &["towline-controller", "towline"],
        package: "tzdata",
        runs: &[
            (
                &["towline-controller", "--help"],
                "Usage: towline-controller",
            ),
            (&["towline", "--version"], VERSION),
            (&["towline", "--help"], "Usage: towline"),
        ],
    },
    Image {
        name: "agent-mariadb",
        tag: "towline-agent-mariadb:dev",
        title: "towline-agent",
        uid: 999,
        programs: &[
            "towline-agent",
            "towline",
            "mariadb",
            "mariadb-admin",
            "mariadb-backup",
            "mariadb-binlog",
            "mariadb-dump",
            "mbstream",
            "mysql",
            "mysqladmin",
            "mysqldump",
            "cat",
            "dash",
            "grep",
            "ls",
            "sh",
        ],
        package: "mariadb-backup",
        runs: &[
            (&["towline-agent", "--help"], "Usage: towline-agent"),
            (&["towline", "--version"], VERSION),
            (&["mariadb-backup", "--version"], "10.11."),
            (&["mariadb-dump", "--version"], "10.11."),
            (&["mariadb", "--version"], "10.11."),
        ],
    },
    Image {
        name: "agent-mysql",
        tag: "towline-agent-mysql:dev",
        title: "towline-agent",
        uid: 999,
        programs: &[
            "towline-agent",
            "towline",
            "mysql",
            "mysqladmin",
            "mysqldump",
            "cat",
            "dash",
            "grep",
            "ls",
            "sh",
        ],
        package: "mysql-client",
        runs: &[
            (&["towline", "--version"], VERSION),
            (&["mysqldump", "--version"], "Ver 9."),
            (&["mysql", "--version"], "Ver 9."),
        ],
    },
];

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ");

/// An image as `docker load` takes it: its configuration, and its files over all layers.
struct Contents {
    config: Value,
    /// Type, mode and content (of small files) by path.
    files: BTreeMap<String, (EntryType, u32, Vec<u8>)>,
}

impl Contents {
    fn read(name: &str) -> Self {
        let folder = std::env::var("TOWLINE_E2E_IMAGE_ARCHIVES")
            .expect("TOWLINE_E2E_IMAGE_ARCHIVES, as tests/cluster/cluster env says it");
        let folder = PathBuf::from(folder);
        let current = std::fs::read_to_string(folder.join(format!("{name}.current"))).unwrap();
        let (key, _) = current.split_once(' ').unwrap();
        let open = || Archive::new(File::open(folder.join(format!("{name}-{key}.tar"))).unwrap());
        let json = |wanted: &str| -> Value {
            let mut archive = open();
            let mut entries = archive.entries().unwrap().map(Result::unwrap);
            let entry = entries.find(|e| e.path().unwrap().to_str() == Some(wanted));
            serde_json::from_reader(entry.unwrap_or_else(|| panic!("no {wanted} in {name}")))
                .unwrap()
        };
        let manifest = json("manifest.json");
        let config = json(manifest[0]["Config"].as_str().unwrap());
        let layers: BTreeSet<&str> = manifest[0]["Layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l.as_str().unwrap())
            .collect();
        let mut files = BTreeMap::new();
        for layer in open().entries().unwrap() {
            let layer = layer.unwrap();
            let path = layer.path().unwrap().to_str().unwrap().to_owned();
            if !layers.contains(path.as_str()) {
                continue;
            }
            for file in Archive::new(layer).entries().unwrap() {
                let mut file = file.unwrap();
                let path = file
                    .path()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .trim_matches('/')
                    .to_owned();
                let (kind, mode) = (file.header().entry_type(), file.header().mode().unwrap());
                let mut content = Vec::new();
                if file.size() < 1 << 20 {
                    file.read_to_end(&mut content).unwrap();
                }
                files.insert(path, (kind, mode, content));
            }
        }
        Self { config, files }
    }
}

#[test]
fn images_hold_what_they_need_and_say_what_they_are() {
    for image in IMAGES {
        let name = image.name;
        let Contents { config, files } = Contents::read(name);
        let config = &config["config"];
        assert_eq!(config["User"], format!("{0}:{0}", image.uid), "{name}");
        assert_eq!(
            config["Entrypoint"],
            json!([format!("/usr/local/bin/{}", image.programs[0])]),
            "{name}"
        );
        let label = |key: &str| {
            let value = config["Labels"][format!("org.opencontainers.image.{key}")].as_str();
            value.unwrap_or_else(|| panic!("{name} has no label {key}"))
        };
        assert_eq!(label("title"), image.title);
        assert!(label("description").contains("Towline"));
        assert_eq!(label("version"), env!("CARGO_PKG_VERSION"), "{name}");
        assert_eq!(label("licenses"), "Apache-2.0");
        assert!(!label("revision").is_empty());
        assert!(
            label("created").parse::<jiff::Timestamp>().is_ok(),
            "{name}"
        );

        let programs: BTreeSet<&str> = files
            .iter()
            .filter(|(_, (kind, ..))| !kind.is_dir())
            .filter_map(|(path, _)| {
                let (folder, program) = path.rsplit_once('/')?;
                (folder.ends_with("/bin") || folder.ends_with("/sbin")).then_some(program)
            })
            .collect();
        assert_eq!(programs, image.programs.iter().copied().collect(), "{name}");

        for (path, (kind, mode, _)) in &files {
            assert_eq!(mode & 0o6000, 0, "{name} has {path} with set-user-ID");
            let sticky = kind.is_dir() && mode & 0o1000 != 0;
            assert!(
                kind.is_symlink() || mode & 0o002 == 0 || sticky,
                "{name}: all may write {path}"
            );
        }
        for left_over in [
            "var/lib/apt",
            "var/cache/apt",
            "var/log/apt",
            "usr/share/man",
            "usr/bin/apt-get",
        ] {
            assert!(!files.contains_key(left_over), "{name} has {left_over}");
        }

        // Who lists the parts of an image finds Debian's packages, and their licences.
        let status = String::from_utf8(files["var/lib/dpkg/status"].2.clone()).unwrap();
        let packages: Vec<&str> = status
            .lines()
            .filter_map(|line| line.strip_prefix("Package: "))
            .collect();
        assert!(
            packages.contains(&image.package) && packages.contains(&"libc6"),
            "{name}: {packages:?}"
        );
        for package in &packages {
            let folder = format!("usr/share/doc/{package}");
            let linked = files
                .get(&folder)
                .is_some_and(|(kind, ..)| kind.is_symlink());
            assert!(
                linked || files.contains_key(&format!("{folder}/copyright")),
                "{name}: licence of {package}"
            );
        }
        assert!(!files["etc/ssl/certs/ca-certificates.crt"].2.is_empty());
        assert!(files.contains_key("usr/share/zoneinfo/Europe/Zurich"));
    }
}

/// With a root that cannot be written, no capability, and nobody in particular as the user.
#[tokio::test]
async fn programs_of_the_images_run_as_pods_run_them() {
    let cluster = Cluster::from_env();
    let mut containers = Vec::new();
    let mut expected = BTreeMap::new();
    for image in IMAGES {
        let mut add = |extra: Value, says: &str| {
            let name = format!("{}-{}", image.name, containers.len());
            let mut container = json!({"name": name, "image": cluster.image(image.tag), "imagePullPolicy": cluster.pull_policy(),
                "securityContext": {"runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}});
            let object = container.as_object_mut().unwrap();
            object.extend(extra.as_object().unwrap().clone());
            containers.push(container);
            expected.insert(name, says.to_owned());
        };
        // The image's own entry point, then what else is called by name.
        let own = format!("{} {VERSION}", image.programs[0]);
        add(json!({"args": ["--version"]}), &own);
        for (command, says) in image.runs {
            add(json!({"command": command}), says);
        }
    }
    let namespace = Namespace::create("images").await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "programs"},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": false, "containers": containers}});
    namespace.apply(&pod.to_string()).await;
    eventually("every program has ended", || async {
        let pod = namespace
            .get("pod", "programs")
            .await
            .ok_or("no such pod")?;
        match pod["status"]["phase"].as_str() {
            Some("Succeeded" | "Failed") => Ok(()),
            _ => Err(pod["status"].to_string()),
        }
    })
    .await;
    for (container, says) in &expected {
        let log = namespace
            .kubectl_ok(&["logs", "programs", "-c", container])
            .await;
        assert!(log.contains(says), "{container} does not say {says}: {log}");
    }
    let pod = namespace.get("pod", "programs").await.unwrap();
    assert_eq!(pod["status"]["phase"], "Succeeded", "{}", pod["status"]);
    namespace.delete().await;
}

//! A drill's pod: one container restores, a server starts on what that has left, one asks it.

use super::{
    CHECK, NOT_INITIALISED, Order, SERVER, SMALL_MEMORY, checks, locked_down, resources,
    volumes::{empty_dir, scratch_mount},
};
use crate::{
    api::BackupStoreSpec,
    restore_pod::{
        DATA_DIR, DRILL_DIR, DRILL_EXITED, DRILL_LOG, DRILL_SETTINGS, DRILL_SOCKET, PROGRESS_PORT,
        Task,
    },
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use std::path::Path;
use towline_agent::{database::Flavour, restore::drill_server::server_arguments};

/// Memory of the container that restores and of the server, which do not run at the same time.
const MEMORY: u64 = 1 << 30;
/// How much larger data may be than its archive, with room for what a server writes beside it.
const GROWTH: u64 = 10;
const GIB: u64 = 1 << 30;

/// Runs the server. Its first arguments are folder, data directory, `yes` where an empty data directory
/// has to be made, and the flavour; the others are the server's. The exit status goes to a file, for the
/// container that asks the server does not see it else.
const SCRIPT: &str = r#"
dir=$1 data=$2 empty=$3 flavour=$4
shift 4
end() { echo "$1" >"$dir/exited.new"; mv "$dir/exited.new" "$dir/$EXITED"; exit "$1"; }
case $flavour in mariadb) server=mariadbd ;; *) server=mysqld ;; esac
command -v "$server" >/dev/null || { echo "there is no $server in this image" >>"$dir/$LOG"; end 127; }
if [ "$empty" = yes ]; then
  case $flavour in
    mariadb) mariadb-install-db --no-defaults --datadir="$data" --auth-root-authentication-method=normal --skip-test-db ;;
    *) "$server" --no-defaults --initialize-insecure --datadir="$data" ;;
  esac >>"$dir/$LOG" 2>&1 || end "$NOT_INITIALISED"
fi
"$server" "$@" >>"$dir/$LOG" 2>&1 &
trap 'kill -TERM $!' TERM INT
wait $!
end $?
"#;

/// What both programs of a drill have in common.
pub(super) fn mounts() -> [Value; 2] {
    [
        json!({"name": "data", "mountPath": DATA_DIR}),
        json!({"name": "drill", "mountPath": DRILL_DIR}),
    ]
}

impl Order<'_> {
    pub(super) fn drill_volumes(&self) -> Result<[Value; 3], String> {
        let storage = self.spec.to.drill.as_ref().and_then(|d| d.storage.as_ref());
        let size = storage.and_then(|storage| storage.size.clone());
        let size = size.unwrap_or_else(|| default_size(self.backup.bytes));
        let data = match storage.and_then(|storage| storage.storage_class_name.as_ref()) {
            None => empty_dir("data", &size),
            Some(class) => json!({
                "name": "data",
                "ephemeral": {"volumeClaimTemplate": {
                    "metadata": {"labels": self.labels()},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "storageClassName": class,
                        "resources": {"requests": {"storage": size}},
                    },
                }},
            }),
        };
        Ok([data, empty_dir("drill", "1Gi"), empty_dir("tmp", "2Gi")])
    }

    pub(super) fn drill_resources(&self) -> Value {
        let drill = self.spec.to.drill.as_ref();
        resources(drill.and_then(|d| d.resources.as_ref()), MEMORY)
    }

    fn is_logical(&self) -> bool {
        self.backup.method == "logical"
    }

    pub(super) fn server_container(&self) -> Result<Value, String> {
        let flavour = match self.backup.server_flavour.as_str() {
            "mariadb" => Flavour::Mariadb,
            "mysql" => Flavour::Mysql,
            other => return Err(format!("there is no server for a backup of {other:?}")),
        };
        let dir = Path::new(DRILL_DIR);
        let (settings, socket, log) = (
            dir.join(DRILL_SETTINGS),
            dir.join(DRILL_SOCKET),
            dir.join(DRILL_LOG),
        );
        let empty = if self.is_logical() { "yes" } else { "no" };
        let first = [
            SERVER,
            DRILL_DIR,
            DATA_DIR,
            empty,
            &self.backup.server_flavour,
        ];
        let arguments: Vec<String> = first
            .into_iter()
            .map(str::to_owned)
            .chain(server_arguments(
                flavour,
                &settings,
                Path::new(DATA_DIR),
                &socket,
                &log,
            ))
            .collect();
        let image = self.spec.to.drill.as_ref().map_or("", |d| d.image.as_str());
        let [data, drill] = mounts();
        Ok(json!({
            "name": SERVER,
            "image": image,
            "command": ["/bin/sh", "-c", SCRIPT],
            "args": arguments,
            "env": [
                {"name": "EXITED", "value": DRILL_EXITED},
                {"name": "LOG", "value": DRILL_LOG},
                {"name": "NOT_INITIALISED", "value": NOT_INITIALISED.to_string()},
            ],
            "resources": self.drill_resources(),
            "securityContext": locked_down(),
            "volumeMounts": [data, drill, {"name": "tmp", "mountPath": "/tmp"}],
        }))
    }

    /// It reads the backup again where that is SQL, and only there it needs what opens it.
    pub(super) fn check_container(&self) -> Result<Value, String> {
        let mut mounts = match self.is_logical() {
            true => self.reader_mounts(),
            false => vec![scratch_mount()],
        };
        mounts.extend(self::mounts());
        let task = Task::DrillCheck {
            checks: checks(self.spec),
        };
        self.towline(CHECK, task, &resources(None, SMALL_MEMORY), &mounts)
    }
}

/// Data is larger than its archive: compressed, and of a dump without its indexes.
fn default_size(archive: u64) -> String {
    let gib = archive.saturating_mul(GROWTH).div_ceil(GIB) + 2;
    format!("{gib}Gi")
}

/// Who may talk to a drill's pod, and whom it may ask. That it is followed is the business of the
/// cluster's network: some do not.
///
/// # Errors
/// When the policy cannot be made.
pub fn network_policy(order: &Order<'_>) -> Result<NetworkPolicy, String> {
    let policy = json!({
        "metadata": {
            "name": order.job,
            "namespace": order.namespace,
            "labels": order.labels(),
            "annotations": {
                "towline.dev/note": "Only a network plugin that enforces NetworkPolicies follows this one.",
            },
            "ownerReferences": [order.owner],
        },
        "spec": {
            "podSelector": {"matchLabels": {super::LABEL_UID: order.uid}},
            "policyTypes": ["Ingress", "Egress"],
            // The controller asks how far it is.
            "ingress": [{"ports": [{"protocol": "TCP", "port": PROGRESS_PORT}]}],
            "egress": [
                {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
                {"ports": [{"protocol": "TCP", "port": store_port(order.store)}]},
            ],
        },
    });
    serde_json::from_value(policy).map_err(|e| format!("the NetworkPolicy cannot be made: {e}"))
}

/// Port of a store's endpoint; of the clouds' own 443.
fn store_port(store: &BackupStoreSpec) -> u16 {
    let endpoint = store.s3.as_ref().and_then(|s| s.endpoint.as_deref());
    let endpoint = endpoint
        .or_else(|| store.gcs.as_ref()?.endpoint.as_deref())
        .or_else(|| store.azure.as_ref()?.endpoint.as_deref());
    endpoint
        .and_then(|endpoint| url::Url::parse(endpoint).ok()?.port_or_known_default())
        .unwrap_or(443)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ports() {
        assert_eq!(default_size(0), "2Gi");
        assert_eq!(default_size(1), "3Gi");
        assert_eq!(default_size(GIB), "12Gi");
        for (store, port) in [
            (json!({"s3": {"bucket": "abc"}}), 443),
            (
                json!({"s3": {"bucket": "abc", "endpoint": "http://s3:7070", "allowHttp": true}}),
                7070,
            ),
            (
                json!({"gcs": {"bucket": "abc", "endpoint": "http://g", "allowHttp": true}}),
                80,
            ),
            (
                json!({"azure": {"container": "abc", "account": "a", "endpoint": "https://z:10000/a"}}),
                10000,
            ),
        ] {
            let store = serde_json::from_value(store).unwrap();
            assert_eq!(store_port(&store), port);
        }
    }
}

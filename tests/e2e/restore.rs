//! Restores on a real cluster.

mod drills;
mod interrupted;
mod refused;
mod server;
mod volume;

use e2e::{Namespace, database::Database, run_ok, store::Bucket};
use serde_json::{Value, json};
use std::path::Path;

/// What the shop's tables hold.
const SUMS: &str = "CHECKSUM TABLE shop.orders, shop.customers";

/// A MariaDB with the shop, one backup `backup` of it, and where that lies.
async fn backed_up<'a>(ns: &'a Namespace, spec: &Value) -> (Database<'a>, Bucket, Value) {
    ns.install_controller(&[]).await;
    let db = Database::mariadb(ns, "source").await;
    db.load_shop().await;
    let bucket = ns.ready_store().await;
    ns.job("backup", db.app(), spec.clone()).await;
    let job = ns.job_ends("backup", "Succeeded").await;
    (db, bucket, job)
}

/// Key of the first object of a backup.
fn first_object(job: &Value) -> String {
    job["status"]["objects"][0]["key"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Turns one bit in the middle of an object.
async fn alter(bucket: &Bucket, key: &str) {
    let mut body = bucket.read(key).await;
    let middle = body.len() / 2;
    body[middle] ^= 1;
    bucket.write(key, body).await;
}

/// A new age key: its file, and a Secret `identity` with it; gives the recipient.
pub(crate) async fn age_identity(ns: &Namespace, file: &Path) -> String {
    run_ok("age-keygen", &["-o", file.to_str().unwrap()], b"").await;
    let identity = std::fs::read_to_string(file).unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "identity"}, "stringData": {"identity": identity}});
    ns.apply(&secret.to_string()).await;
    let recipient = run_ok("age-keygen", &["-y", file.to_str().unwrap()], b"").await;
    recipient.trim().to_owned()
}

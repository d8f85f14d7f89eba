//! Holds objects for operators to the types that are generated from the operators' own definitions: a
//! field that an operator does not know, or one of another type, is an error. Arguments: files.

use serde_json::Value;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut failed = false;
    for file in std::env::args().skip(1) {
        match check(&file) {
            Ok(kind) => println!("{file}: {kind}, as its operator takes it"),
            Err(why) => {
                eprintln!("{file}: {why}");
                failed = true;
            }
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn check(file: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let object: Value = serde_norway::from_str(&text).map_err(|error| error.to_string())?;
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let kind = format!("{} {}", text("apiVersion"), text("kind"));
    let understood = match kind.as_str() {
        "k8s.mariadb.com/v1alpha1 MariaDB" => {
            through::<kcr_k8s_mariadb_com::v1alpha1::mariadbs::MariaDb>(&object)
        }
        "pxc.percona.com/v1 PerconaXtraDBCluster" => {
            through::<kcr_pxc_percona_com::v1::perconaxtradbclusters::PerconaXtraDbCluster>(&object)
        }
        "ps.percona.com/v1 PerconaServerMySQL" => {
            through::<kcr_ps_percona_com::v1::perconaservermysqls::PerconaServerMySql>(&object)
        }
        _ => Err(format!("no type is known of a {kind}")),
    }?;
    lost("", &object, &understood)?;
    Ok(kind)
}

/// What is left of an object when it was read into its type.
fn through<T: serde::de::DeserializeOwned + serde::Serialize>(
    object: &Value,
) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// A type does not hold what it does not know.
fn lost(path: &str, wanted: &Value, got: &Value) -> Result<(), String> {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            for (key, value) in wanted {
                let path = format!("{path}.{key}");
                let got = got
                    .get(key)
                    .ok_or_else(|| format!("{path}: no such field"))?;
                lost(&path, value, got)?;
            }
            Ok(())
        }
        (Value::Array(wanted), Value::Array(got)) => wanted
            .iter()
            .zip(got)
            .enumerate()
            .try_for_each(|(index, (wanted, got))| lost(&format!("{path}[{index}]"), wanted, got)),
        _ if wanted == got => Ok(()),
        _ => Err(format!("{path}: {wanted} became {got}")),
    }
}

//! What is deployed says the same in each place where it has to be said.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

use std::path::Path;

fn deploy(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(file);
    std::fs::read_to_string(path).unwrap()
}

/// From `CREATE USER` to the end of the grant, without indentation.
fn grants(text: &str) -> String {
    let start = text.find("CREATE USER").unwrap();
    let end = start + text[start..].find("TO 'towline'@'localhost';").unwrap();
    let lines = text[start..end].lines();
    lines.map(str::trim).collect::<Vec<_>>().join("\n")
}

/// The examples carry the grants that `deploy/grants` documents.
#[test]
fn the_sidecars_users_have_the_documented_grants() {
    for (sidecar, sql) in [
        ("sidecar/mariadb.yaml", "grants/mariadb-physical.sql"),
        ("sidecar/mysql.yaml", "grants/mysql-logical.sql"),
    ] {
        assert_eq!(grants(&deploy(sidecar)), grants(&deploy(sql)), "{sidecar}");
    }
}

/// The password that the server is given is the one that the agent reads, and the token that the
/// controller sends is one that the agent accepts: all are the placeholder, and it is nowhere else.
#[test]
fn a_placeholder_replaced_everywhere_makes_a_working_example() {
    for sidecar in ["sidecar/mariadb.yaml", "sidecar/mysql.yaml"] {
        let text = deploy(sidecar).replace("CHANGE-ME", "secret-1");
        for line in [
            "  root-password: secret-1",
            "  password: secret-1",
            "    CREATE USER 'towline'@'localhost' IDENTIFIED BY 'secret-1';",
            "  token: secret-1",
            "    secret-1 backup cancel",
        ] {
            assert!(text.lines().any(|l| l == line), "{sidecar}: {line}");
        }
    }
}

/// Who follows the documents has certificates with the names that sidecars and samples expect.
#[test]
fn certificates_have_the_same_names_everywhere() {
    for document in ["../docs/tls.md", "../README.md"] {
        let command = "--namespace shop --agent-name agent.shop --client-name towline-controller";
        assert!(deploy(document).contains(command), "{document}");
    }
    for sidecar in ["sidecar/mariadb.yaml", "sidecar/mysql.yaml"] {
        let text = deploy(sidecar);
        for line in [
            "- --allowed-client=towline-controller",
            "name: towline-agent-tls",
        ] {
            assert!(text.lines().any(|l| l.trim() == line), "{sidecar}: {line}");
        }
    }
    for sample in [
        "samples/backupjob.yaml",
        "samples/backupschedule.yaml",
        "samples/restorejob-agent.yaml",
    ] {
        let text = deploy(sample);
        assert!(text.contains("serverName: agent.shop"), "{sample}");
        assert_eq!(
            text.matches("name: towline-client-tls").count(),
            2,
            "{sample}"
        );
    }
}

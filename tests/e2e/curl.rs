//! With plain `curl`, a failed backup is always visible: in the trailer, or in the exit code.

use e2e::{Namespace, PortForward, database::Database, objects::TOKEN, run};

#[tokio::test]
async fn sees_every_failure() {
    let ns = Namespace::create("curl").await;
    // Every physical backup of this agent fails at its end.
    let db = Database::mariadb_with_tool(
        &ns,
        "mariadb",
        "mariadb-backup",
        "#!/bin/sh\n/usr/bin/mariadb-backup \"$@\" 2>/dev/null\necho 'the disk is on fire' >&2\nexit 3\n",
    )
    .await;
    db.load_shop().await;
    let forward = PortForward::start(&ns, db.pod(), 8474).await;
    let auth = format!("Authorization: Bearer {TOKEN}");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for te in [true, false] {
            let heads = tempfile::NamedTempFile::new().unwrap();
            let url = format!("http://{}/v1/backup?method=physical", forward.address());
            let mut args = vec![
                "-sf",
                version,
                "-o",
                "/dev/null",
                "-D",
                heads.path().to_str().unwrap(),
                "-H",
                &auth,
                "-w",
                "%{http_code}",
            ];
            if te {
                args.extend(["-H", "TE: trailers"]);
            }
            args.push(&url);
            let output = run("curl", &args, b"").await;
            let heads = std::fs::read_to_string(heads.path())
                .unwrap()
                .to_lowercase();
            assert!(
                output.stdout.ends_with("200"),
                "{version} te={te}: {output:?}"
            );
            let trailer = heads
                .lines()
                .find_map(|line| line.strip_prefix("x-streaming-error:"))
                .map(str::trim);
            match trailer {
                Some(error) => assert!(
                    error.contains("the disk is on fire"),
                    "{version} te={te}: {heads}"
                ),
                None => assert_ne!(
                    output.code, 0,
                    "{version} te={te}: neither trailer nor exit code: {heads}"
                ),
            }
            assert_eq!(
                trailer.is_some(),
                te,
                "{version}: for who asks, and nobody else: {heads} {output:?}"
            );
        }
    }
    // A good backup is a clean end for all of them.
    let url = format!("http://{}/v1/backup?method=logical", forward.address());
    for te in ["TE: trailers", "X-None: 1"] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let output = run(
                "curl",
                &[
                    "-sSf",
                    version,
                    "-o",
                    "/dev/null",
                    "-H",
                    &auth,
                    "-H",
                    te,
                    &url,
                ],
                b"",
            )
            .await;
            assert_eq!(output.code, 0, "{output:?}");
        }
    }
    // No token, no backup.
    let output = run(
        "curl",
        &[
            "-s",
            "-w",
            "%{http_code} %{content_type}",
            "-o",
            "/dev/null",
            &url,
        ],
        b"",
    )
    .await;
    assert_eq!(output.stdout, "401 application/problem+json");
    ns.delete().await;
}

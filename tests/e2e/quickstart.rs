//! docs/quickstart.md, followed word for word: five commands to the first backup.

use e2e::{Namespace, cluster::root, documents, reader::Reader};

#[tokio::test]
async fn five_commands_to_the_first_backup() {
    let text = std::fs::read_to_string(root().join("docs/quickstart.md")).unwrap();
    let steps = documents::read("docs/quickstart.md".as_ref(), &text).blocks;
    let steps = steps.iter().filter(|block| block.words == ["quickstart"]);
    assert_eq!(steps.count(), 6, "five commands, and a look at the result");

    // Its controller watches all namespaces; those of the document are ours for the time.
    let ns = Namespace::create_alone("quickstart").await;
    let named = [
        "delete",
        "namespace",
        "shop",
        "towline-system",
        "--ignore-not-found",
    ];
    ns.kubectl_ok(&named).await;
    let images = ns.cluster.images.trim_end_matches('/').to_owned();
    let reader = Reader::of("quickstart.md", &ns.cluster, &[("REGISTRY", &images)]);
    // Where the images of this cluster are, and who owns the definitions that other tests have made.
    let here = |script: String| {
        let image = |name: &str| ns.cluster.image(name);
        let pull = ns.cluster.pull_policy();
        script
            .replace(
                "helm install towline",
                &format!("helm install towline --take-ownership --set image.tag=dev,image.pullPolicy={pull}"),
            )
            .replace(
                "| kubectl apply -f -",
                &format!(
                    "| sed 's#image: .*/towline-agent:.*#image: {}#; s#image: mariadb:10.11#image: {}#; s#image: ghcr.io/.*#image: {}#' | kubectl apply -f -",
                    image("towline-agent-mariadb:dev"), image("mariadb:10.11"), image("versitygw:dev"),
                ),
            )
            // The CA's folder is not to lie in the checkout.
            .replace("--dir pki", &format!("--dir {}/pki", reader.folder.path().display()))
    };
    let seen = reader.follow_in(&root(), "quickstart", here).await;
    assert!(seen.contains("Succeeded"), "{seen}");
    let clean = |script: String| script.replace("namespace shop", "namespace shop --wait=false");
    reader.follow_in(&root(), "cleanup", clean).await;
    ns.delete().await;
}

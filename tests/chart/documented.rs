//! The README's table is made from the values, and what Chart.yaml says of the definitions is true.

use super::*;

#[test]
fn the_readme_is_what_helm_docs_makes() {
    let Some(helm_docs) = variable("TOWLINE_HELM_DOCS") else {
        return;
    };
    let made = run(Command::new(helm_docs)
        .args([
            "--dry-run",
            "--sort-values-order=file",
            "--log-level=warning",
        ])
        .arg("--chart-search-root")
        .arg(chart()));
    let readme = read(chart().join("README.md"));
    assert!(
        made.trim() == readme.trim(),
        "charts/towline/README.md is not what README.md.gotmpl and values.yaml make: make chart-docs"
    );
    let undocumented: Vec<_> = made.lines().filter(|line| line.ends_with("|  |")).collect();
    assert!(undocumented.is_empty(), "{}", undocumented.join("\n"));
}

#[test]
fn chart_yaml_names_every_definition() {
    let about: Value = serde_norway::from_str(&read(chart().join("Chart.yaml"))).unwrap();
    let listed = about["annotations"]["artifacthub.io/crds"]
        .as_str()
        .unwrap();
    let listed: Value = serde_norway::from_str(listed).unwrap();
    let mut listed: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|crd| {
            (
                crd["name"].clone(),
                crd["kind"].clone(),
                crd["version"].clone(),
            )
        })
        .collect();
    listed.sort_by_key(|(name, ..)| name.to_string());
    let mut files: Vec<_> = std::fs::read_dir(chart().join("files/crds"))
        .unwrap()
        .map(|file| serde_norway::from_str::<Value>(&read(file.unwrap().path())).unwrap())
        .map(|crd| {
            let spec = &crd["spec"];
            (
                crd["metadata"]["name"].clone(),
                spec["names"]["kind"].clone(),
                spec["versions"][0]["name"].clone(),
            )
        })
        .collect();
    files.sort_by_key(|(name, ..)| name.to_string());
    assert_eq!(listed, files);
}

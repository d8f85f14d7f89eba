//! Values that make no sense are refused before anything is installed, by a message that names them.

use super::*;

#[test]
fn wrong_values_are_refused_by_name() {
    if programs().is_none() {
        return;
    }
    let cases = [
        // A name that there is not, at every depth that is ours.
        ("replicaCount=2", "replicaCount"),
        ("image.tga=1", "tga"),
        ("crds.create=true", "create"),
        ("fileStore.claim=x", "claim"),
        ("metrics.serviceMonitor.enable=true", "enable"),
        ("metrics.prometheusRule.rules=x", "rules"),
        ("metrics.podMonitor.port=x", "port"),
        ("metrics.dashboards.folder=x", "folder"),
        ("networkPolicy.ingress=x", "ingress"),
        ("podDisruptionBudget.minAvailable=1", "minAvailable"),
        ("serviceAccount.automount=true", "automount"),
        ("leaderElection.leaseDuration=30", "leaseDuration"),
        ("livenessProbe.httpGet=x", "httpGet"),
        ("resources.request.cpu=1", "request"),
        ("affinity.podAffinities=x", "podAffinities"),
        ("tolerations[0].keys=x", "keys"),
        ("log.levels=x", "levels"),
        // A value that there is not.
        ("replicas=two", "/replicas"),
        ("replicas=11", "/replicas"),
        ("replicas=-1", "/replicas"),
        ("crds.keep=maybe", "/crds/keep"),
        ("image.repository=", "/image/repository"),
        ("image.repository=towline@sha256:0", "/image/repository"),
        ("image.tag=a:b", "/image/tag"),
        ("image.digest=0123", "/image/digest"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("imagePullSecrets[0]=registry", "/imagePullSecrets/0"),
        (
            "leaderElection.leaseDurationSeconds=5",
            "/leaderElection/leaseDurationSeconds",
        ),
        ("watchNamespaces=shop", "/watchNamespaces"),
        ("watchNamespaces[0]=Shop", "/watchNamespaces/0"),
        ("watchNamespaces={a,a}", "/watchNamespaces"),
        ("clusterId=a/b", "/clusterId"),
        ("allowedSourceHosts={http://db}", "/allowedSourceHosts/0"),
        ("allowedSourceHosts={db:3306}", "/allowedSourceHosts/0"),
        ("fileStore.claimName=Backups", "/fileStore/claimName"),
        (
            "ambientCredentialsNamespaces={-a}",
            "/ambientCredentialsNamespaces/0",
        ),
        ("transfers.max=0", "/transfers/max"),
        ("toolImages.oracle-9=x", "oracle-9"),
        ("toolImages.mysql-9=a b", "/toolImages/mysql-9"),
        ("log.format=yaml", "/log/format"),
        ("log.level=", "/log/level"),
        ("serviceAccount.create=false", "/serviceAccount/name"),
        ("serviceAccount.name=A", "/serviceAccount/name"),
        ("commonLabels.app\\.kubernetes\\.io/name=x", "/commonLabels"),
        ("podLabels.app\\.kubernetes\\.io/instance=x", "/podLabels"),
        ("nameOverride=a.b", "/nameOverride"),
        ("fullnameOverride=UPPER", "/fullnameOverride"),
        ("resources.limits.memory=1 GB", "/resources/limits/memory"),
        (
            "livenessProbe.periodSeconds=0",
            "/livenessProbe/periodSeconds",
        ),
        (
            "readinessProbe.failureThreshold=none",
            "/readinessProbe/failureThreshold",
        ),
        (
            "podDisruptionBudget.maxUnavailable=half",
            "/podDisruptionBudget/maxUnavailable",
        ),
        (
            "networkPolicy.metricsFrom[0].namespace=monitoring",
            "/networkPolicy/metricsFrom/0",
        ),
        ("networkPolicy.egress[0].port=53", "/networkPolicy/egress/0"),
        (
            "metrics.serviceMonitor.interval=30",
            "/metrics/serviceMonitor/interval",
        ),
        (
            "metrics.prometheusRule.labels.helm\\.sh/chart=x",
            "/metrics/prometheusRule/labels",
        ),
        (
            "topologySpreadConstraints[0].maxSkew=1",
            "/topologySpreadConstraints/0",
        ),
        ("tolerations[0].effect=NoRun", "/tolerations/0/effect"),
        ("priorityClassName=High", "/priorityClassName"),
        ("extraEnv[0].value=x", "/extraEnv/0"),
        ("extraEnv[0].names=x", "/extraEnv/0"),
        ("extraVolumes[0].emptyDir=x", "/extraVolumes/0"),
        ("extraVolumes[0].name=file-store", "/extraVolumes/0/name"),
        ("extraVolumes[0].name=page-tls", "/extraVolumes/0/name"),
        ("page.listen=x", "listen"),
        ("page.tls.cert=x", "cert"),
        // Never without authentication.
        ("page.enabled=true", "/page/tokenSecret"),
        ("page.enabled=true,page.tls.secret=a", "/page/tokenSecret"),
        (
            "page.enabled=true,page.insecureHttp=true",
            "/page/tokenSecret",
        ),
        ("page.tls.clientCASecret=a", "/page/tls/secret"),
        (
            "page.tls.clientCASecret=a,page.tls.secret=b",
            "/page/tls/allowedClients",
        ),
        ("page.tls.allowedClients={a}", "/page/tls/allowedClients"),
        (
            "page.tls.clientCASecret=a,page.tls.secret=b,page.tls.allowedClients={*.a}",
            "/page/tls/allowedClients/0",
        ),
        (
            "page.tls.secret=a,page.tokenSecret=b,page.insecureHttp=true",
            "/page/insecureHttp",
        ),
        ("page.port=8080", "/page/port"),
        ("page.port=80", "/page/port"),
        ("page.tokenSecret=Tokens", "/page/tokenSecret"),
        (
            "networkPolicy.pageFrom[0].namespace=a",
            "/networkPolicy/pageFrom/0",
        ),
        ("extraVolumeMounts[0].name=x", "/extraVolumeMounts/0"),
    ];
    let mut wrong = Vec::new();
    for (set, needle) in cases {
        let output = output(
            Command::new("helm")
                .args(["template", "towline", "--set", set])
                .arg(chart()),
        );
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            wrong.push(format!("{set}: taken"));
        } else if !errors.contains("don't meet the specifications of the schema")
            || !errors.contains(needle)
        {
            wrong.push(format!("{set}: {needle} is not in {errors}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Beside what the chart itself does not use, the schema knows what values.yaml has, and no more.
#[test]
fn the_schema_has_every_value_and_no_other() {
    let values: Value = serde_norway::from_str(&read(chart().join("values.yaml"))).unwrap();
    let schema: Value = serde_json::from_str(&read(chart().join("values.schema.json"))).unwrap();
    let mut differences = Vec::new();
    compare("", &schema, &schema, &values, &mut differences);
    differences.sort();
    assert_eq!(
        differences,
        [
            "/affinity/nodeAffinity",
            "/affinity/podAffinity",
            "/affinity/podAntiAffinity",
            "/enabled",
            "/global",
            "/livenessProbe/initialDelaySeconds",
            "/livenessProbe/successThreshold",
            "/readinessProbe/initialDelaySeconds",
            "/readinessProbe/successThreshold",
            "/resources/claims",
            "/resources/limits",
        ],
        "only in one of values.schema.json and values.yaml"
    );
}

fn compare(at: &str, root: &Value, schema: &Value, value: &Value, differences: &mut Vec<String>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), value.as_object())
    else {
        return;
    };
    // The names are the user's.
    if schema["additionalProperties"].is_object() {
        return;
    }
    for (key, property) in properties {
        match values.get(key) {
            Some(value) => compare(&format!("{at}/{key}"), root, property, value, differences),
            None => differences.push(format!("{at}/{key}")),
        }
    }
    let closed = schema["additionalProperties"] == false;
    assert!(closed, "{at}: additionalProperties is not false");
    differences.extend(
        values
            .keys()
            .filter(|k| !properties.contains_key(*k))
            .map(|k| format!("{at}/{k}")),
    );
}

//! A Prometheus scrapes the controller and an agent: no panel of a dashboard is empty once what it shows has
//! happened, and an alert reaches the team that owns the namespace.

use crate::{
    restore::age_identity,
    tls::{AGENT, pki, tls},
};
use e2e::{
    Namespace, PortForward,
    dashboards::{self, Dashboard, Query, interpolate, labels_of_legend},
    database::Database,
    eventually, eventually_for,
    monitoring::{Alertmanager, Prometheus},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Due times come by the minute.
const SOME_RUNS: Duration = Duration::from_secs(400);
/// How far back panels look.
const RANGE: i64 = 15 * 60;

/// Values as Grafana would choose them, for this range and a scrape a second: <https://grafana.com/docs>, "Global
/// variables". A panel's least interval is that of its step, too.
fn values(ns: &Namespace, query: &Query) -> BTreeMap<&'static str, String> {
    let interval = query.least_interval.as_deref().unwrap_or("1s");
    [
        ("__interval", interval),
        ("__rate_interval", "4s"),
        ("__range", "900s"),
        ("namespace", &ns.name),
        ("schedule", "minutely"),
        // All.
        ("pod", ".*"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// Series of a query that have a value, labels of each.
async fn answer(prometheus: &Prometheus, ns: &Namespace, query: &Query) -> Vec<(Value, Vec<f64>)> {
    let expression = interpolate(&query.expression, &values(ns, query));
    let now = Timestamp::now().as_second();
    let (start, end) = ((now - RANGE).to_string(), now.to_string());
    let step = query.least_interval.as_deref().unwrap_or("1s");
    let asked = [("query", expression.as_str())];
    let answer = if query.instant {
        prometheus.ask("query", &asked).await
    } else {
        let range = [("start", start.as_str()), ("end", &end), ("step", step)];
        prometheus
            .ask("query_range", &[&asked[..], &range].concat())
            .await
    };
    let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", query.at));
    let number = |sample: &Value| sample[1].as_str().unwrap().parse::<f64>().unwrap();
    let mut series = Vec::new();
    for one in answer["result"].as_array().unwrap() {
        let samples = match &one["values"] {
            Value::Array(samples) => samples.iter().map(number).collect(),
            _ => vec![number(&one["value"])],
        };
        let told: Vec<f64> = samples
            .into_iter()
            .filter(|sample| !sample.is_nan())
            .collect();
        if !told.is_empty() {
            series.push((one["metric"].clone(), told));
        }
    }
    series
}

async fn set(ns: &Namespace, spec: Value) {
    let patch = json!({"spec": spec}).to_string();
    ns.kubectl_ok(&["patch", "bksched", "minutely", "--type=merge", "-p", &patch])
        .await;
}

async fn schedule_until(ns: &Namespace, what: &str, probe: impl Fn(&Value) -> bool) {
    eventually_for(SOME_RUNS, what, || async {
        let schedule = ns.get("bksched", "minutely").await.ok_or("none")?;
        if probe(&schedule["status"]) {
            Ok(())
        } else {
            Err(schedule["status"].to_string())
        }
    })
    .await;
}

/// What every panel is about, one after the other.
async fn every_panel_has_something(prometheus: &Prometheus, ns: &Namespace) {
    let queries: Vec<Query> = dashboards::all()
        .iter()
        .flat_map(Dashboard::queries)
        .collect();
    for query in &queries {
        let series = eventually(&format!("{} has something to show", query.at), || async {
            let series = answer(prometheus, ns, query).await;
            if series.is_empty() {
                Err(query.expression.clone())
            } else {
                Ok(series)
            }
        })
        .await;
        for label in labels_of_legend(&query.legend) {
            // An empty one is no label, and says that there was no reason.
            let told = series.iter().any(|(labels, _)| labels[label].is_string());
            assert!(
                told || label == "reason",
                "{}: no {label}: {series:?}",
                query.at
            );
        }
    }
    println!("{} queries of dashboards, none is empty", queries.len());
    for dashboard in dashboards::all() {
        for (variable, selector, label) in dashboard.variables() {
            let any = queries.first().unwrap();
            let selector = interpolate(&selector, &values(ns, any));
            let path = format!("label/{label}/values");
            let found = prometheus
                .ask(&path, &[("match[]", &selector)])
                .await
                .unwrap();
            let found = found.as_array().unwrap();
            assert!(!found.is_empty(), "{}: {variable}", dashboard.uid());
        }
    }
}

#[tokio::test]
async fn no_panel_is_empty_and_alerts_reach_their_team() {
    let ns = Namespace::create("dashboards").await;
    ns.install_controller(&[]).await;
    let alertmanager = Alertmanager::start(&ns.name).await;
    let prometheus = Prometheus::start(&alertmanager.address).await;
    let pod = ns.controller_ready().await;
    let controller = PortForward::start(&ns, &pod, 8080).await;
    let target = |pod: &str| json!({"namespace": ns.name, "pod": pod});
    prometheus.scrape(&[(controller.address(), target(&pod))]);

    // The first runs find no database, and another store cannot be reached: no Secret.
    let folder = tempfile::tempdir().unwrap();
    let recipient = age_identity(&ns, &folder.path().join("key")).await;
    pki(&ns, &folder.path().join("ca")).await;
    let bucket = ns.ready_store().await;
    let gone = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupStore", "metadata": {"name": "gone"},
        "spec": {"s3": {"bucket": "gone", "region": "us-east-1", "endpoint": ns.cluster.s3_endpoint, "forcePathStyle": true, "allowHttp": true},
                 "credentialsSecretRef": {"name": "gone"}}});
    ns.apply(&gone.to_string()).await;
    let job = Namespace::job_spec(
        "mariadb",
        &json!({"method": "physical", "backoffLimit": 0, "source": tls(AGENT)}),
    );
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "minutely"},
        "spec": {"schedule": "* * * * *", "retention": {"keepLast": 2}, "jobTemplate": {"spec": job}}});
    ns.apply(&schedule.to_string()).await;
    schedule_until(&ns, "a job has failed", |s| {
        s["consecutiveFailures"].as_u64() > Some(0)
    })
    .await;
    alertmanager
        .told("team-shop", "TowlineBackupFailing", "firing")
        .await;
    // By its rule it has to last.
    eventually("the alert of the store is pending", || async {
        let alerts = prometheus.alerts("TowlineStoreNotReady").await;
        let ours = alerts.iter().find(|a| a["labels"]["store"] == "gone");
        match ours {
            Some(alert) if alert["state"] == "pending" => Ok(()),
            _ => Err(format!("{alerts:?}")),
        }
    })
    .await;

    let db = Database::mariadb_over_tls(&ns, "mariadb", &recipient).await;
    db.load_shop().await;
    let agent = PortForward::start(&ns, db.pod(), 8475).await;
    prometheus.scrape(&[
        (controller.address(), target(&pod)),
        (agent.address(), target(db.pod())),
    ]);
    schedule_until(&ns, "a job has succeeded", |s| {
        s["lastSuccessfulTime"].is_string()
    })
    .await;
    alertmanager
        .told("team-shop", "TowlineBackupFailing", "resolved")
        .await;

    let image = format!("{}:10.11", ns.cluster.image("mariadb"));
    let identity = json!({"identitySecretRef": {"name": "identity"}});
    let verify = json!({"schedule": "* * * * *", "image": image, "decryption": identity});
    set(&ns, json!({"verify": verify})).await;
    schedule_until(&ns, "a drill has passed", |s| {
        s["lastVerifiedTime"].is_string()
    })
    .await;
    set(&ns, json!({"verify": null})).await;
    schedule_until(&ns, "its backups are counted", |s| {
        s["backups"].as_u64() > Some(0)
    })
    .await;

    // A backup that is cancelled while it streams is one that the agent saw fail.
    let slow = json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 50_000, "source": tls(AGENT)});
    ns.job("slow", db.app(), slow).await;
    ns.job_streams("slow").await;
    let cancel = json!({"spec": {"cancel": true}}).to_string();
    ns.kubectl_ok(&["patch", "bkjob", "slow", "--type=merge", "-p", &cancel])
        .await;
    ns.job_ends("slow", "Cancelled").await;
    // Drills are over, and what they are asked for is shown while they are asked for.
    set(
        &ns,
        json!({"verify": {"schedule": "0 3 * * *", "image": image, "decryption": identity}}),
    )
    .await;

    every_panel_has_something(&prometheus, &ns).await;
    // The first failure of a reason is shown, though its counter began with it.
    let queries: Vec<Query> = dashboards::all()
        .iter()
        .flat_map(Dashboard::queries)
        .collect();
    let attempts = queries
        .iter()
        .find(|query| {
            query.at.contains("Attempts by reason") && query.expression.contains("reason!=")
        })
        .unwrap();
    let shown = answer(&prometheus, &ns, attempts).await;
    let failed = shown
        .iter()
        .find(|(labels, _)| labels["reason"] == "NoAgent");
    let most = failed.map(|(_, values)| values.iter().copied().fold(0.0, f64::max));
    assert!(most >= Some(1.0), "{shown:?}");
    // Of this team's alerts nobody else was told.
    let told = alertmanager.messages();
    let elsewhere = told.iter().filter(|m| !m.receiver.starts_with("team-shop"));
    let elsewhere: Vec<_> = elsewhere
        .filter(|m| m.body.to_string().contains(&ns.name))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(!bucket.keys().await.is_empty());
    ns.delete().await;
}

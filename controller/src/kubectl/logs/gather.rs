//! Where what happened is told. What may not be read, or is gone, becomes a note.

use super::{
    super::{
        error::{Asked, Exit, Failure},
        session::Session,
    },
    Entry, Source, Subject,
    line::Line,
};
use crate::restore::pod::LABEL_UID;
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};

/// Name of the chart, which its pods carry.
const CONTROLLER: &str = "app.kubernetes.io/name=towline";
/// Name of the sidecar.
const AGENT: &str = "towline-agent";

/// A missing right and what is gone are notes; all else ends the command.
fn or_note<T>(
    result: Result<T, kube::Error>,
    asked: Asked<'_>,
    what: &str,
    notes: &mut Vec<String>,
) -> Result<Option<T>, Failure> {
    let error = match result {
        Ok(found) => return Ok(Some(found)),
        Err(error) => error,
    };
    let failure = asked.failed(&error);
    if failure.exit == Exit::NoCluster {
        return Err(failure);
    }
    match asked.object {
        Some((kind, name)) if failure.exit == Exit::NotFound => {
            notes.push(format!("{what} missing: {kind} {name} is gone"));
        }
        _ => notes.push(format!("{what} missing: {}", failure.message)),
    }
    Ok(None)
}

/// The object's Events.
pub(super) async fn events(
    session: &Session,
    who: &Subject,
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, Failure> {
    let api: Api<Event> = Api::namespaced(session.client.clone(), &who.namespace);
    let params = ListParams::default().fields(&format!("involvedObject.uid={}", who.uid));
    let asked = Asked {
        verb: "list",
        resource: "events",
        object: None,
        namespace: Some(&who.namespace),
    };
    let Some(events) = or_note(api.list(&params).await, asked, "Events are", notes)? else {
        return Ok(Vec::new());
    };
    Ok(events.iter().filter_map(event).collect())
}

pub(super) fn event(event: &Event) -> Option<Entry> {
    let series = event.series.as_ref();
    let time = series
        .and_then(|s| s.last_observed_time.as_ref().map(|t| t.0))
        .or(event.event_time.as_ref().map(|t| t.0))
        .or(event.last_timestamp.as_ref().map(|t| t.0))
        .or(event.first_timestamp.as_ref().map(|t| t.0))?;
    let times = series
        .and_then(|s| s.count)
        .or(event.count)
        .filter(|n| *n > 1);
    let times = times.map_or_else(String::new, |n| format!(" ({n} times)"));
    let level = match event.type_.as_deref() {
        Some("Warning") => "WARN",
        _ => "INFO",
    };
    Some(Entry {
        time,
        source: Source::Event,
        pod: None,
        level: level.to_owned(),
        text: format!(
            "{}: {}{times}",
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default()
        ),
    })
}

/// The lines of all controller pods about it.
pub(super) async fn controller(
    session: &Session,
    who: &Subject,
    namespace: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, Failure> {
    let api: Api<Pod> = Api::namespaced(session.client.clone(), namespace);
    let asked = Asked {
        verb: "list",
        resource: "pods",
        object: None,
        namespace: Some(namespace),
    };
    let params = ListParams::default().labels(CONTROLLER);
    let what = "the controller's lines are";
    let Some(pods) = or_note(api.list(&params).await, asked, what, notes)? else {
        return Ok(Vec::new());
    };
    if pods.items.is_empty() {
        notes.push(format!(
            "{what} missing: no pod {CONTROLLER} is in namespace {namespace}: give --controller-namespace"
        ));
    }
    let mut entries = Vec::new();
    for pod in &pods {
        let wanted = Wanted {
            source: Source::Controller,
            what,
            keep: |line, who| line.of_controller(who),
        };
        for container in containers(pod, |_| true) {
            read(
                &api,
                pod,
                &container,
                who,
                &wanted,
                namespace,
                notes,
                &mut entries,
            )
            .await?;
        }
    }
    Ok(entries)
}

/// The lines of the agent that the last attempt read from.
pub(super) async fn agent(
    session: &Session,
    who: &Subject,
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, Failure> {
    let what = "the agent's lines are";
    let Some(name) = &who.agent_pod else {
        if who.agent_found {
            notes.push(format!(
                "{what} missing: the source is not a pod of this cluster"
            ));
        }
        return Ok(Vec::new());
    };
    let api: Api<Pod> = Api::namespaced(session.client.clone(), &who.namespace);
    let asked = Asked {
        verb: "get",
        resource: "pods",
        object: Some(("pod", name)),
        namespace: Some(&who.namespace),
    };
    let Some(pod) = or_note(api.get(name).await, asked, what, notes)? else {
        return Ok(Vec::new());
    };
    let wanted = Wanted {
        source: Source::Agent,
        what,
        keep: |line, who| line.of_agent(who),
    };
    let named = containers(&pod, |c| c == AGENT);
    if named.is_empty() {
        notes.push(format!(
            "{what} missing: pod {name} has no container {AGENT}"
        ));
    }
    let mut entries = Vec::new();
    for container in named {
        read(
            &api,
            &pod,
            &container,
            who,
            &wanted,
            &who.namespace,
            notes,
            &mut entries,
        )
        .await?;
    }
    Ok(entries)
}

/// All lines of a restore's pods.
pub(super) async fn restore_pods(
    session: &Session,
    who: &Subject,
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, Failure> {
    let api: Api<Pod> = Api::namespaced(session.client.clone(), &who.namespace);
    let asked = Asked {
        verb: "list",
        resource: "pods",
        object: None,
        namespace: Some(&who.namespace),
    };
    let what = "the lines of the restore's pod are";
    let params = ListParams::default().labels(&format!("{LABEL_UID}={}", who.uid));
    let Some(pods) = or_note(api.list(&params).await, asked, what, notes)? else {
        return Ok(Vec::new());
    };
    if pods.items.is_empty() && who.ended.is_some() {
        notes.push(format!("{what} missing: it is gone"));
    }
    let wanted = Wanted {
        source: Source::Restore,
        what,
        keep: |_, _| true,
    };
    let mut entries = Vec::new();
    for pod in &pods {
        for container in containers(pod, |_| true) {
            read(
                &api,
                pod,
                &container,
                who,
                &wanted,
                &who.namespace,
                notes,
                &mut entries,
            )
            .await?;
        }
    }
    Ok(entries)
}

/// A container that has run, and whether it did before.
struct Container {
    name: String,
    restarted: bool,
}

fn containers(pod: &Pod, wanted: impl Fn(&str) -> bool) -> Vec<Container> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    let main = status.and_then(|s| s.container_statuses.as_ref());
    let has_run = |s: &&k8s_openapi::api::core::v1::ContainerStatus| {
        let state = s.state.as_ref();
        state.is_some_and(|s| s.running.is_some() || s.terminated.is_some()) || s.restart_count > 0
    };
    init.into_iter()
        .chain(main)
        .flatten()
        .filter(has_run)
        .filter(|s| wanted(&s.name))
        .map(|s| Container {
            name: s.name.clone(),
            restarted: s.restart_count > 0,
        })
        .collect()
}

/// Which lines are taken, and what they are called.
struct Wanted {
    source: Source,
    what: &'static str,
    keep: fn(&Line, &Subject) -> bool,
}

/// Reads one container's log, and that of its last life.
#[expect(clippy::too_many_arguments, reason = "it is one step of three callers")]
async fn read(
    api: &Api<Pod>,
    pod: &Pod,
    container: &Container,
    who: &Subject,
    wanted: &Wanted,
    namespace: &str,
    notes: &mut Vec<String>,
    entries: &mut Vec<Entry>,
) -> Result<(), Failure> {
    let name = pod.name_any();
    for previous in [true, false] {
        if previous && !container.restarted {
            continue;
        }
        let params = LogParams {
            container: Some(container.name.clone()),
            since_time: Some(who.created),
            timestamps: true,
            previous,
            ..LogParams::default()
        };
        let asked = Asked {
            verb: "get",
            resource: "pods/log",
            object: Some(("log of pod", &name)),
            namespace: Some(namespace),
        };
        let stream = api.log_stream(&name, &params).await;
        // The log of a former life may be gone, and is not missed.
        if previous && stream.is_err() {
            continue;
        }
        let Some(stream) = or_note(stream, asked, wanted.what, notes)? else {
            continue;
        };
        let mut lines = stream.lines();
        loop {
            let text = match lines.try_next().await {
                Ok(Some(text)) => text,
                Ok(None) => break,
                Err(error) => {
                    notes.push(format!("{} cut: {error}", wanted.what));
                    break;
                }
            };
            let Some(line) = Line::read(&text) else {
                continue;
            };
            if who.is_over(line.time) {
                break;
            }
            if (wanted.keep)(&line, who) {
                entries.push(Entry {
                    time: line.time,
                    source: wanted.source,
                    pod: Some(format!("{name}/{}", container.name)),
                    level: line.level.clone(),
                    text: line.text(who),
                });
            }
        }
    }
    Ok(())
}

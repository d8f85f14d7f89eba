//! What a restore's Job and pod tell: a pure function of both and the time.

use super::{
    Kind,
    pod::{CHECK, NOT_INITIALISED, RESTORE, SERVER},
};
use crate::{
    peer_text::{Keep, clean},
    reason::RestoreReason,
    restore_pod::Report,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod},
};
use kube::ResourceExt;

/// How long a pod may wait for its node, its volumes and its images.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// How long it may wait for what does not come by itself, as far as the kubelet can tell.
const SHORT_PATIENCE: SignedDuration = SignedDuration::from_mins(1);
/// How long a Job may be without a pod.
const POD_PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// Words of the kubelet for a container that it cannot start.
const STUCK: [&str; 9] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
    "RunContainerError",
];

/// What was observed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'a> {
    /// Where it restores to.
    pub(super) kind: Kind,
    /// The Job; `None`: it is gone.
    pub(super) job: Option<&'a Job>,
    /// Its pod.
    pub(super) pod: Option<&'a Pod>,
    /// Whether it was ever seen to have one.
    pub(super) had_pod: bool,
    /// What the pod was seen to wait for, and since when.
    pub(super) waiting: Option<(Wait, Timestamp)>,
    /// Whether the restore's deadline is over.
    pub(super) over: bool,
    /// Now.
    pub(super) now: Timestamp,
}

/// What a pod may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Node, volumes, images: they may take their time.
    Things,
    /// What the kubelet has tried and could not do, an image that is not there, say.
    Stuck,
}

impl Wait {
    /// The reason in the condition Progressing.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Things => "Waiting",
            Self::Stuck => "Stuck",
        }
    }

    /// What the condition Progressing says.
    pub(super) fn of(reason: &str) -> Option<Self> {
        let all = [Self::Things, Self::Stuck];
        all.into_iter().find(|wait| wait.as_str() == reason)
    }

    const fn patience(self) -> SignedDuration {
        match self {
            Self::Things => PATIENCE,
            Self::Stuck => SHORT_PATIENCE,
        }
    }
}

/// What it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The pod waits for something.
    Waiting(Wait, String),
    /// It works.
    Running,
    /// It has ended.
    Ended(Box<Outcome>),
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `None`: all that was asked for was done and proven.
    pub(super) reason: Option<RestoreReason>,
    /// What went wrong and what to do next.
    pub(super) message: String,
    /// Whether anything was written to the target; `None`: not known.
    pub(super) target_written: Option<bool>,
    /// What the pod has left.
    pub(super) report: Report,
    /// When it ended, as the kubelet saw it.
    pub(super) at: Option<Timestamp>,
}

impl Outcome {
    fn failed(reason: RestoreReason, written: Option<bool>, message: String) -> Self {
        Self {
            reason: Some(reason),
            message,
            target_written: written,
            ..Self::default()
        }
    }
}

/// Looks.
#[must_use]
pub(super) fn look(observed: &Observed<'_>) -> Seen {
    let ended = |outcome: Outcome| Seen::Ended(Box::new(outcome));
    let late = observed.over || job_reason(observed.job).as_deref() == Some("DeadlineExceeded");
    let outcome = observed.pod.and_then(|pod| of_pod(observed.kind, pod));
    if let Some(outcome) = outcome {
        // Its end was the deadline's doing.
        if late && outcome.reason == Some(RestoreReason::Interrupted) {
            return ended(Outcome {
                reason: Some(RestoreReason::DeadlineExceeded),
                ..outcome
            });
        }
        return ended(outcome);
    }
    if late {
        let message = "activeDeadlineSeconds are over: raise it if restores may take longer";
        return ended(Outcome::failed(
            RestoreReason::DeadlineExceeded,
            None,
            format!("{message}{}", afterwards(observed.kind)),
        ));
    }
    match (observed.job, observed.pod) {
        (None, _) => ended(interrupted(observed.kind, "its Job was deleted")),
        (Some(job), None) => without_pod(observed, job),
        (Some(_), Some(pod)) => going(observed, pod),
    }
}

fn without_pod(observed: &Observed<'_>, job: &Job) -> Seen {
    let name = job.name_any();
    let finished = job_condition(job, "Complete") || job_condition(job, "Failed");
    if finished || observed.had_pod {
        let message = "its pod was deleted before its report was read";
        return Seen::Ended(Box::new(interrupted(observed.kind, message)));
    }
    let created = job.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let age = created.map(|created| observed.now.duration_since(created));
    if age.is_some_and(|age| age > POD_PATIENCE) {
        return Seen::Ended(Box::new(Outcome::failed(
            RestoreReason::PodFailed,
            Some(false),
            format!(
                "no pod was created for Job {name}: kubectl get events --field-selector involvedObject.name={name} says why"
            ),
        )));
    }
    Seen::Waiting(Wait::Things, "its pod is about to be created".to_owned())
}

/// A pod that has not ended.
fn going(observed: &Observed<'_>, pod: &Pod) -> Seen {
    let Some((wait, why)) = waiting(pod) else {
        return Seen::Running;
    };
    let before = observed.waiting.filter(|(before, _)| *before == wait);
    let since = before.map_or(observed.now, |(_, since)| since);
    if observed.now.duration_since(since) < wait.patience() {
        return Seen::Waiting(wait, why);
    }
    let begun = statuses(pod, RESTORE).any(|s| began(s.state.as_ref()));
    let written = (!begun || observed.kind == Kind::Drill).then_some(false);
    let name = pod.name_any();
    let message =
        format!("{why}; kubectl get events --field-selector involvedObject.name={name} has more");
    Seen::Ended(Box::new(Outcome::failed(
        RestoreReason::PodFailed,
        written,
        message,
    )))
}

/// What a pod waits for.
fn waiting(pod: &Pod) -> Option<(Wait, String)> {
    let status = pod.status.as_ref();
    let containers = all_statuses(pod);
    let stuck = containers.filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        STUCK.contains(&reason).then(|| {
            let said = waiting.message.as_deref().unwrap_or_default();
            let said = clean(said, None, Keep::Start);
            format!(
                "container {} cannot start: {reason}: {said} (image {})",
                container.name, container.image
            )
        })
    });
    if let Some(why) = stuck.into_iter().next() {
        return Some((Wait::Stuck, why));
    }
    if status.and_then(|s| s.phase.as_deref()).unwrap_or("Pending") != "Pending" {
        return None;
    }
    if all_statuses(pod).any(|s| began(s.state.as_ref())) {
        return None;
    }
    let scheduled = status
        .and_then(|s| {
            s.conditions
                .as_ref()?
                .iter()
                .find(|c| c.type_ == "PodScheduled")
        })
        .filter(|c| c.status == "False");
    let why = match scheduled {
        Some(condition) => format!(
            "its pod has no node: {}",
            clean(
                condition.message.as_deref().unwrap_or_default(),
                None,
                Keep::Start
            )
        ),
        None => "its pod waits for its volumes and images".to_owned(),
    };
    Some((Wait::Things, why))
}

/// How a pod ended; `None`: it has not.
fn of_pod(kind: Kind, pod: &Pod) -> Option<Outcome> {
    if kind == Kind::Drill {
        if let Some(end) = terminated(pod, CHECK) {
            let outcome = judge(kind, pod, CHECK, end);
            return Some(excuse(pod, outcome));
        }
        if let Some(end) = terminated(pod, RESTORE) {
            let outcome = judge(kind, pod, RESTORE, end);
            // Done well: the server and its checks come after it.
            if outcome.reason.is_some() {
                return Some(outcome);
            }
        }
    } else if let Some(end) = terminated(pod, RESTORE) {
        return Some(judge(kind, pod, RESTORE, end));
    }
    let failed = pod.status.as_ref()?.phase.as_deref() == Some("Failed");
    failed.then(|| killed(kind, pod))
}

/// What a container's end means. Only a report is believed, and one of success only together with a
/// clean end.
fn judge(kind: Kind, pod: &Pod, container: &str, end: &ContainerStateTerminated) -> Outcome {
    let at = end.finished_at.as_ref().map(|t| t.0);
    let text = end.message.as_deref().unwrap_or_default();
    let outcome = match serde_json::from_str::<Report>(text) {
        Ok(report) if report.reason.is_none() && end.exit_code != 0 => interrupted(
            kind,
            &format!(
                "container {container} said that all was done, and ended with status {}",
                end.exit_code
            ),
        ),
        Ok(report) => Outcome {
            reason: report.reason,
            message: clean(&report.message, None, Keep::Ends),
            target_written: Some(report.target_written),
            report,
            at: None,
        },
        Err(_) => without_report(kind, pod, container, end),
    };
    Outcome { at, ..outcome }
}

fn without_report(
    kind: Kind,
    pod: &Pod,
    container: &str,
    end: &ContainerStateTerminated,
) -> Outcome {
    let name = pod.name_any();
    let reason = end.reason.as_deref().unwrap_or_default();
    let evicted = pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
    if evicted {
        return killed(kind, pod);
    }
    if reason == "OOMKilled" {
        let field = memory_field(kind);
        let message = format!(
            "container {container} was killed, for it needed more memory than its limit: raise {field}"
        );
        return interrupted(kind, &message);
    }
    match end.exit_code {
        // The kubelet's, and the shell's: no such program, or not one that runs here.
        126..=128 => Outcome::failed(
            RestoreReason::PodFailed,
            Some(false),
            format!(
                "container {container} could not start ({}): does its image carry towline?",
                clean(end.message.as_deref().unwrap_or(reason), None, Keep::Start)
            ),
        ),
        code @ (0 | 2) => Outcome::failed(
            RestoreReason::PodFailed,
            Some(false),
            format!(
                "container {container} ended with status {code} and left no report: its image carries another version of towline than the controller's"
            ),
        ),
        code => {
            // Of a drill nothing stays.
            let more = match kind {
                Kind::Drill => String::new(),
                _ => format!(": kubectl logs {name} -c {container} may say why"),
            };
            let message =
                format!("container {container} ended with status {code} and left no report{more}");
            interrupted(kind, &message)
        }
    }
}

/// A pod that the kubelet or the control plane ended.
fn killed(kind: Kind, pod: &Pod) -> Outcome {
    let status = pod.status.as_ref();
    let said = status.and_then(|s| s.message.as_deref()).or_else(|| {
        let conditions = status?.conditions.as_ref()?;
        let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget")?;
        target.message.as_deref()
    });
    let said = clean(said.unwrap_or("nobody says why"), None, Keep::Start);
    // The kubelet's words for an emptyDir that has outgrown its sizeLimit.
    if said.contains("emptyDir") || said.contains("EmptyDir") {
        let field = match kind {
            Kind::Drill => "spec.to.drill.storage.size",
            Kind::Volume => "spec.to.persistentVolumeClaim.scratch",
            Kind::Agent => "the node's storage",
        };
        let message = format!(
            "its pod was evicted: {said}. Raise {field}{}",
            afterwards(kind)
        );
        return Outcome::failed(RestoreReason::NoSpace, None, message);
    }
    interrupted(kind, &format!("its pod was ended: {said}"))
}

/// What the server's own end explains is not the backup's fault: an image that has no such server, or
/// too little memory.
fn excuse(pod: &Pod, outcome: Outcome) -> Outcome {
    if !outcome.reason.is_some_and(RestoreReason::blames_backup) {
        return outcome;
    }
    let Some(end) = terminated(pod, SERVER) else {
        return outcome;
    };
    let message = match (end.reason.as_deref(), end.exit_code) {
        (Some("OOMKilled"), _) => format!(
            "the server was killed, for it needed more memory than its limit: raise {}",
            memory_field(Kind::Drill)
        ),
        (_, 126..=128) => {
            "the image of spec.to.drill.image has no server of this flavour: write the image that the database runs".to_owned()
        }
        (_, NOT_INITIALISED) => format!(
            "the server of spec.to.drill.image could not make an empty data directory: {}",
            outcome.message
        ),
        _ => return outcome,
    };
    Outcome {
        reason: Some(RestoreReason::PodFailed),
        message,
        ..outcome
    }
}

fn memory_field(kind: Kind) -> &'static str {
    match kind {
        Kind::Volume => "spec.to.persistentVolumeClaim.resources.limits.memory",
        Kind::Drill => "spec.to.drill.resources.limits.memory",
        Kind::Agent => "the memory of its node",
    }
}

fn interrupted(kind: Kind, what: &str) -> Outcome {
    let message = format!("{what}{}", afterwards(kind));
    Outcome::failed(RestoreReason::Interrupted, None, message)
}

/// What to do after an end of which nobody knows how far it came.
fn afterwards(kind: Kind) -> &'static str {
    match kind {
        Kind::Volume => {
            ". What the volume holds is not usable unless its towline-restore.json says so: empty it, and create another RestoreJob"
        }
        Kind::Agent => {
            ". A database that has a table _towline_restore_unfinished is not whole: drop it, and create another RestoreJob"
        }
        Kind::Drill => "",
    }
}

/// Whether a Job has ended by itself, so that nothing of it runs.
pub(super) fn has_ended(job: &Job) -> bool {
    job_condition(job, "Complete") || job_condition(job, "Failed")
}

fn job_condition(job: &Job, type_: &str) -> bool {
    let conditions = job
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == type_ && c.status == "True")
}

/// Why a Job failed.
fn job_reason(job: Option<&Job>) -> Option<String> {
    let conditions = job?.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions
        .iter()
        .find(|c| c.type_ == "Failed" && c.status == "True")?;
    failed.reason.clone()
}

fn all_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    let main = status.and_then(|s| s.container_statuses.as_ref());
    init.into_iter().flatten().chain(main.into_iter().flatten())
}

fn statuses<'a>(pod: &'a Pod, container: &str) -> impl Iterator<Item = &'a ContainerStatus> {
    all_statuses(pod).filter(move |s| s.name == container)
}

fn terminated<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStateTerminated> {
    statuses(pod, container)
        .next()?
        .state
        .as_ref()?
        .terminated
        .as_ref()
}

fn began(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
}

#[cfg(test)]
mod tests;

//! Events: what happened to an object, in `kubectl describe`.

use crate::api::conditions::cut;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// Publishes events. One per program: it puts repeated events together.
#[derive(Clone)]
pub struct Report {
    recorder: Recorder,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}

impl Report {
    /// Publishes as `towline-controller`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: "towline-controller".into(),
            instance: std::env::var("HOSTNAME").ok(),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Something went as it should.
    pub async fn normal(&self, about: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(about, EventType::Normal, reason, action, note)
            .await;
    }

    /// Something a person may have to look at.
    pub async fn warning(&self, about: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(about, EventType::Warning, reason, action, note)
            .await;
    }

    /// An event that cannot be written is logged: it must not undo what it tells of.
    async fn publish(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            // events.k8s.io/v1 takes at most 1 kB.
            note: Some(cut(note, 1000).to_owned()),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(%error, reason, name = about.name, namespace = about.namespace, "the event was not written");
        }
    }
}

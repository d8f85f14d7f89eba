//! An object that its type cannot hold, say because a newer release of the definitions took it: it
//! is left alone, says so in a condition of its own, and stops no other.

use crate::{
    api::{
        conditions::{MAX_MESSAGE, Status, cut},
        job::PROGRESSING,
        store::READY,
    },
    context::Context,
    error::Error,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Resource,
    api::{ApiResource, Patch, PatchParams},
    core::DynamicObject,
    runtime::{controller::Action, reflector::ObjectRef},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Reason of the condition and of the event.
const REASON: &str = "InvalidSpec";

/// Writes into an object that it cannot be read. `error` is what the watch said; what is told names
/// the field, where it can be found.
///
/// # Errors
/// When the API server does not let us.
pub async fn tell<K>(object: &ObjectRef<K>, error: &str, context: &Context) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let kind = K::kind(&());
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let resource = ApiResource::erase::<K>(&());
    let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &resource);
    let Some(live) = api.get_opt(&object.name).await? else {
        return Ok(Action::await_change());
    };
    let about = live.object_ref(&resource);
    let generation = live.metadata.generation;
    let version = live.metadata.resource_version.clone();
    let whole = serde_json::to_value(live).map_err(kube::Error::SerdeError)?;
    let message = match serde_path_to_error::deserialize::<_, K>(&whole) {
        // It was corrected meanwhile.
        Ok(_) => return Ok(Action::await_change()),
        Err(found) if found.path().iter().len() == 0 => sentence(error),
        Err(found) => sentence(&format!("{}: {}", found.path(), found.inner())),
    };
    let type_ = if matches!(&*kind, "BackupJob" | "RestoreJob") {
        PROGRESSING
    } else {
        READY
    };
    let condition = Condition {
        type_: type_.to_owned(),
        status: Status::False.as_str().to_owned(),
        reason: REASON.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(Timestamp::now()),
    };
    let Some(conditions) = with(&whole["status"]["conditions"], &condition) else {
        return Ok(Action::await_change());
    };
    tracing::warn!(%kind, namespace, name = object.name, detail = condition.message, "malformed object: it is left alone");
    let patch =
        json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}});
    match api
        .patch_status(&object.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => {}
        // Its status is what is malformed: the event has to do.
        Err(kube::Error::Api(refused)) if refused.code == 422 => {
            tracing::warn!(%kind, namespace, name = object.name, detail = refused.message, "the condition of a malformed object was refused");
        }
        Err(error) => return Err(error.into()),
    }
    context
        .report
        .warning(&about, REASON, "Read", &condition.message)
        .await;
    Ok(Action::await_change())
}

fn sentence(error: &str) -> String {
    let text =
        format!("this object cannot be read ({error}): correct it, or update the controller");
    cut(&text, MAX_MESSAGE).to_owned()
}

/// The conditions with this one in its place; `None` when it stands there as it is.
fn with(conditions: &Value, new: &Condition) -> Option<Vec<Value>> {
    let mut all = conditions.as_array().cloned().unwrap_or_default();
    let mut new = json!(new);
    let Some(old) = all.iter_mut().find(|c| c["type"] == new["type"]) else {
        all.push(new);
        return Some(all);
    };
    if old["status"] == new["status"] {
        new["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
    if *old == new {
        return None;
    }
    *old = new;
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_once_and_leaves_the_others_alone() {
        let condition = |message: &str, second| Condition {
            type_: "Ready".into(),
            status: "False".into(),
            reason: REASON.into(),
            message: message.into(),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::from_second(second).unwrap()),
        };
        let first = with(&Value::Null, &condition("m", 1)).unwrap();
        assert_eq!(first, [json!(condition("m", 1))]);
        assert_eq!(with(&json!(first), &condition("m", 2)), None);
        // Still not readable, but for another reason: the transition was then.
        let other = json!({"type": "Overdue", "status": "maybe", "of": "a newer release"});
        let both = json!([other, first[0]]);
        assert_eq!(
            with(&both, &condition("n", 2)).unwrap(),
            [other.clone(), json!(condition("n", 1))]
        );
        let ready = json!([other, {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:01Z"}]);
        assert_eq!(
            with(&ready, &condition("m", 2)).unwrap(),
            [other, json!(condition("m", 2))]
        );
        assert!(with(&json!({"not": "a list"}), &condition("m", 1)).is_some());
    }
}

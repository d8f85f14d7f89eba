//! Why a command ended badly: one line that says which and what to do, and a code for scripts.

/// What a script sees. The codes are listed in `--help` and docs/kubectl.md; they do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// What was waited for failed, or the cluster refused it.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// There is no such object.
    NotFound = 3,
    /// A right is missing, or the cluster does not know who asks.
    Forbidden = 4,
    /// No cluster, or no CRDs.
    NoCluster = 5,
}

/// Why a command ended badly.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// One line; empty when what was printed says it already.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        // One line, whatever a peer has said.
        let message: String = message.into();
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { exit, message }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
}

/// What was asked of the API server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// E.g. `list`.
    pub(super) verb: &'a str,
    /// The plural, with its group unless it is the core's: `backupjobs.towline.dev`, `pods/log`.
    pub(super) resource: &'a str,
    /// Of one object: its kind and name.
    pub(super) object: Option<(&'a str, &'a str)>,
    /// None: of all namespaces.
    pub(super) namespace: Option<&'a str>,
}

impl Asked<'_> {
    fn place(&self) -> String {
        match self.namespace {
            Some(namespace) => format!("in namespace {namespace}"),
            None => "in all namespaces".to_owned(),
        }
    }

    /// What the API server's answer means.
    pub(super) fn failed(&self, error: &kube::Error) -> Failure {
        let (verb, place) = (self.verb, self.place());
        let resource = self.resource;
        let status = match error {
            kube::Error::Api(status) => status,
            other => {
                return Failure::new(
                    Exit::NoCluster,
                    format!(
                        "the cluster does not answer: {}; check --context and kubectl cluster-info",
                        innermost(other)
                    ),
                );
            }
        };
        match (status.code, self.object) {
            // Of a resource that is not there the answer names no object.
            (404, _)
                if resource.ends_with(".towline.dev")
                    && status.details.as_ref().is_none_or(|d| d.name.is_empty()) =>
            {
                Failure::new(
                    Exit::NoCluster,
                    "Towline's CRDs are not installed in this cluster: helm install towline CHART -n towline-system --create-namespace (docs/quickstart.md), or choose another --context",
                )
            }
            (404, Some((kind, name))) => Failure::new(
                Exit::NotFound,
                format!("there is no {kind} {name} {place}: correct the name, or -n"),
            ),
            (401, _) => Failure::new(
                Exit::Forbidden,
                "the cluster does not know who you are: your credentials have expired or are not valid (kubectl auth whoami)",
            ),
            (403, object) => {
                let name = object.map_or_else(String::new, |(_, name)| format!(" {name}"));
                let what = match resource.split_once('/') {
                    Some((resource, part)) => format!("{resource} --subresource={part}"),
                    None => resource.to_owned(),
                };
                Failure::new(
                    Exit::Forbidden,
                    format!(
                        "you may not {verb} {resource}{name} {place}: ask for a role with that right (docs/kubectl.md#rights); kubectl auth can-i {verb} {what}{}",
                        self.namespace
                            .map_or_else(|| " -A".to_owned(), |n| format!(" -n {n}"))
                    ),
                )
            }
            (_, object) => {
                let what = object.map_or_else(
                    || resource.to_owned(),
                    |(kind, name)| format!("{kind} {name}"),
                );
                Failure::failed(format!("cannot {verb} {what}: {}", refusal(status)))
            }
        }
    }
}

/// Of an object that was refused, each field and what is wrong with it; else what the API server says.
fn refusal(status: &kube::core::Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<String> = causes
        .filter(|cause| !cause.field.is_empty())
        .map(|cause| {
            // `Invalid value: "object": set exactly one of ...`: the value is what was given.
            let said = &cause.message;
            let rule = said
                .strip_prefix("Invalid value: \"")
                .and_then(|rest| rest.split_once("\": "));
            format!(
                "{}: {}",
                cause.field,
                rule.map_or(&**said, |(_, rule)| rule)
            )
        })
        .collect();
    if causes.is_empty() {
        status.message.clone()
    } else {
        causes.join("; ")
    }
}

/// The cause of all causes, which says more than what stands around it.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::{Status, response::StatusDetails};

    fn answer(code: u16, name: &str) -> kube::Error {
        let details: StatusDetails =
            serde_json::from_value(serde_json::json!({"name": name})).unwrap();
        kube::Error::Api(Box::new(Status {
            code,
            message: "the server\nsays so".into(),
            details: Some(details),
            ..Status::default()
        }))
    }

    #[test]
    fn a_refusal_names_the_fields_and_what_to_write() {
        let status = serde_json::from_value(serde_json::json!({
            "code": 422, "message": "RestoreJob.towline.dev \"r\" is invalid: and so on",
            "details": {"causes": [
                {"field": "spec.to", "message": "Invalid value: \"object\": set exactly one of agent and drill"},
                {"field": "spec.size", "message": "Required value"},
                {"field": "", "message": "some rules were not checked"},
            ]},
        }));
        let status: Status = status.unwrap();
        assert_eq!(
            refusal(&status),
            "spec.to: set exactly one of agent and drill; spec.size: Required value"
        );
        let plain = Status {
            message: "no".into(),
            ..Status::default()
        };
        assert_eq!(refusal(&plain), "no");
    }

    #[test]
    fn each_answer_is_one_line_with_a_remedy_and_a_code() {
        let list = Asked {
            verb: "list",
            resource: "backupjobs.towline.dev",
            object: None,
            namespace: Some("shop"),
        };
        let get = Asked {
            verb: "get",
            object: Some(("BackupJob", "nightly-1")),
            ..list
        };
        let everywhere = Asked {
            namespace: None,
            ..list
        };
        let log = Asked {
            resource: "pods/log",
            object: Some(("log of pod", "db-0")),
            ..get
        };
        for (asked, error, exit, words) in [
            (
                log,
                answer(403, "db-0"),
                Exit::Forbidden,
                vec!["can-i get pods --subresource=log -n shop"],
            ),
            (
                list,
                answer(404, ""),
                Exit::NoCluster,
                vec!["CRDs are not installed", "helm install"],
            ),
            (
                get,
                answer(404, ""),
                Exit::NoCluster,
                vec!["CRDs are not installed"],
            ),
            (
                get,
                answer(404, "nightly-1"),
                Exit::NotFound,
                vec!["no BackupJob nightly-1 in namespace shop"],
            ),
            (
                get,
                answer(403, "nightly-1"),
                Exit::Forbidden,
                vec!["may not get backupjobs.towline.dev nightly-1 in namespace shop"],
            ),
            (
                list,
                answer(403, ""),
                Exit::Forbidden,
                vec![
                    "may not list backupjobs.towline.dev in namespace shop",
                    "-n shop",
                ],
            ),
            (
                everywhere,
                answer(403, ""),
                Exit::Forbidden,
                vec!["in all namespaces", "can-i list backupjobs.towline.dev -A"],
            ),
            (
                list,
                answer(401, ""),
                Exit::Forbidden,
                vec!["does not know who you are"],
            ),
            (
                get,
                answer(422, ""),
                Exit::Failed,
                vec!["cannot get BackupJob nightly-1: the server says so"],
            ),
            (
                list,
                kube::Error::LinesCodecMaxLineLengthExceeded,
                Exit::NoCluster,
                vec!["does not answer", "--context"],
            ),
        ] {
            let failure = asked.failed(&error);
            assert_eq!(failure.exit, exit, "{}", failure.message);
            assert!(!failure.message.contains('\n'));
            for word in words {
                assert!(failure.message.contains(word), "{}", failure.message);
            }
        }
    }
}

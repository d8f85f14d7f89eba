//! What can go wrong in a reconcile. The variant decides the metric's label and when it is tried again.

use std::time::Duration;

/// A reconcile that could not be finished. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else changed the object since it was read; nothing was done.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// The API server refused or did not answer.
    #[error("Kubernetes API: {0}")]
    Api(#[source] Box<kube::Error>),
    /// An object of the API server lacks what every object has.
    #[error("the object has no {0}")]
    Malformed(&'static str),
}

impl Error {
    /// Label `reason` of `towline_reconcile_errors_total`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::Api(_) => "Api",
            Self::Malformed(_) => "Malformed",
        }
    }

    /// When it is tried again.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        match self {
            // The watch tells of the change that was in the way; this is for the case that it has told already.
            Self::Conflict => Duration::from_secs(1),
            Self::Api(_) => Duration::from_secs(5),
            Self::Malformed(_) => Duration::from_secs(300),
        }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            _ => Self::Api(Box::new(error)),
        }
    }
}

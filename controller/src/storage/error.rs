//! What went wrong at a store, in words that say what to do next.

use crate::peer_text::{Keep, clean};
use object_store::client::{HttpError, HttpErrorKind};

/// Why a store cannot be used. The message says what to do next and carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// For people; cleaned of control characters.
    pub message: String,
    /// For conditions: `CredentialsRefused`, `BucketNotFound`, `Unreachable`, `CreateOnlyUnsupported`, `Failed`.
    pub reason: &'static str,
}

impl StoreError {
    /// The keys are wrong, or lack a right.
    pub const CREDENTIALS_REFUSED: &'static str = "CredentialsRefused";
    /// There is no such bucket.
    pub const BUCKET_NOT_FOUND: &'static str = "BucketNotFound";
    /// Nothing answers.
    pub const UNREACHABLE: &'static str = "Unreachable";
    /// A second create-only write is accepted.
    pub const CREATE_ONLY_UNSUPPORTED: &'static str = "CreateOnlyUnsupported";
    /// Anything else.
    pub const FAILED: &'static str = "Failed";

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            reason: Self::FAILED,
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            reason: Self::FAILED,
        }
    }
}

/// The codes of S3's error answers that we tell apart.
/// See <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
const KEY_CODES: [&str; 4] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
];

/// Puts an error into a class and into words.
pub(super) fn classify(url: &str, doing: &str, error: &object_store::Error) -> StoreError {
    let text = error.to_string();
    let code = element(&text, "Code");
    let detail = match (code, element(&text, "Message")) {
        (Some(code), Some(message)) => clean(&format!("{code}: {message}"), None, Keep::Start),
        (Some(code), None) => clean(code, None, Keep::Start),
        // Of a failed connection the innermost cause says why; the rest repeats the request.
        _ if http_kind(error).is_some() => clean(&root_cause(error), None, Keep::Start),
        _ => clean(&text, None, Keep::Start),
    };
    let say = |reason, remedy: &str| StoreError {
        message: format!("store {url}: {doing} failed: {remedy} ({detail})"),
        reason,
    };
    if is_missing_bucket(&text) {
        return say(
            StoreError::BUCKET_NOT_FOUND,
            "there is no such bucket: create it, or correct the bucket's name and the endpoint",
        );
    }
    if code.is_some_and(|c| KEY_CODES.contains(&c)) {
        return say(
            StoreError::CREDENTIALS_REFUSED,
            "the store does not accept the credentials: correct the access key, the secret key and the region",
        );
    }
    match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => say(
            StoreError::CREDENTIALS_REFUSED,
            "the credentials are not allowed to do this: grant s3:PutObject, s3:GetObject, s3:DeleteObject, \
             s3:ListBucket and s3:AbortMultipartUpload on the prefix, or correct the keys",
        ),
        object_store::Error::NotFound { .. } => say(StoreError::FAILED, "it is not there"),
        _ => match http_kind(error) {
            Some(HttpErrorKind::Connect | HttpErrorKind::Timeout) => say(
                StoreError::UNREACHABLE,
                "nothing answers there: check the endpoint, its DNS name and port, TLS, and the network policy",
            ),
            Some(_) => say(
                StoreError::UNREACHABLE,
                "the connection broke: check the endpoint and the network",
            ),
            None if text.contains("redirect") || code == Some("PermanentRedirect") => say(
                StoreError::FAILED,
                "the store redirects: correct the region or the endpoint",
            ),
            None => say(StoreError::FAILED, "the store did not do it"),
        },
    }
}

/// Whether an object or upload is missing, but not its whole bucket.
pub(super) fn is_missing_object(error: &object_store::Error) -> bool {
    if is_missing_bucket(&error.to_string()) {
        return false;
    }
    matches!(error, object_store::Error::NotFound { .. })
        || element(&error.to_string(), "Code") == Some("NoSuchUpload")
}

/// `object_store` keeps an answer's body private but shows it.
fn is_missing_bucket(text: &str) -> bool {
    matches!(
        element(text, "Code"),
        Some("NoSuchBucket" | "InvalidBucketName")
    )
}

/// Finds `<name>text</name>` in an XML answer.
pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.trim())
}

fn root_cause(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn http_kind(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(http) = e.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        source = e.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    fn not_found(text: &str) -> object_store::Error {
        object_store::Error::NotFound {
            path: "k".into(),
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let bucket = not_found(
            "404 Not Found: <Error><Code>NoSuchBucket</Code><Message>none</Message></Error>",
        );
        assert!(!is_missing_object(&bucket));
        let e = classify("s3://b", "reading k", &bucket);
        assert_eq!(e.reason, StoreError::BUCKET_NOT_FOUND);
        assert!(e.message.contains("create it"), "{e}");
        assert!(is_missing_object(&not_found("<Code>NoSuchKey</Code>")));
        assert!(is_missing_object(&generic(
            "400: <Code>NoSuchUpload</Code>"
        )));
    }

    #[test]
    fn each_class_says_what_to_do() {
        let refused = object_store::Error::PermissionDenied {
            path: "k".into(),
            source: "403".into(),
        };
        assert_eq!(
            classify("s3://b", "writing k", &refused).reason,
            StoreError::CREDENTIALS_REFUSED
        );
        let key = not_found("404: <Code>InvalidAccessKeyId</Code>");
        assert_eq!(
            classify("s3://b", "writing k", &key).reason,
            StoreError::CREDENTIALS_REFUSED
        );
        let connect = object_store::Error::Generic {
            store: "S3",
            source: Box::new(HttpError::new(
                HttpErrorKind::Connect,
                std::io::Error::other("refused"),
            )),
        };
        assert_eq!(
            classify("s3://b", "writing k", &connect).reason,
            StoreError::UNREACHABLE
        );
        assert_eq!(
            classify("s3://b", "writing k", &generic("500")).reason,
            StoreError::FAILED
        );
    }

    #[test]
    fn peer_text_is_cleaned() {
        let e = classify(
            "s3://b",
            "x",
            &generic("<Code>A\u{1b}[2J</Code><Message>b\nc</Message>"),
        );
        assert!(!e.message.chars().any(char::is_control), "{e}");
    }
}

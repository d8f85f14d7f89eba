//! What went wrong at a store, in words that say what to do next.

use super::{
    config::{Kind, Location},
    endpoint::LocalAddress,
};
use crate::{
    peer_text::{Keep, clean},
    reason::StoreReason,
};
use object_store::client::{HttpError, HttpErrorKind};

/// Why a store cannot be used. The message says what to do next and carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// For people; cleaned of control characters.
    pub message: String,
    /// For conditions.
    pub reason: StoreReason,
}

impl StoreError {
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            reason: StoreReason::Failed,
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            reason: StoreReason::Failed,
        }
    }
}

/// Which store an error is of.
pub(super) struct Place {
    pub(super) kind: Kind,
    /// For people.
    pub(super) url: String,
    /// What must never be shown.
    pub(super) secrets: Vec<String>,
}

impl Place {
    pub(super) fn new(location: &Location, url: String) -> Self {
        Self {
            kind: location.kind(),
            url,
            secrets: location.secrets(),
        }
    }

    /// What a store said: without addresses that may be signed, without our own secrets, short.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = without_queries(text);
        for secret in self.secrets.iter().filter(|s| !s.is_empty()) {
            text = text.replace(secret.as_str(), "***");
        }
        clean(&text, None, Keep::Start)
    }
}

/// What a request needs to be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Put,
    Get,
    List,
    Delete,
    CreateUpload,
    PutPart,
    AbortUpload,
}

impl Right {
    /// In the store's own words.
    fn named(self, kind: Kind) -> &'static str {
        match (kind, self) {
            (Kind::S3, Self::Put | Self::CreateUpload | Self::PutPart) => {
                "the right to write: grant s3:PutObject on the prefix (and, with aws:kms, kms:GenerateDataKey and kms:Decrypt on the key)"
            }
            (Kind::S3, Self::Get) => {
                "the right to read: grant s3:GetObject on the prefix (and, with aws:kms, kms:Decrypt on the key)"
            }
            (Kind::S3, Self::List) => "the right to list: grant s3:ListBucket on the bucket",
            (Kind::S3, Self::Delete) => "the right to delete: grant s3:DeleteObject on the prefix",
            (Kind::S3, Self::AbortUpload) => {
                "the right to abort uploads: grant s3:AbortMultipartUpload on the prefix"
            }
            (Kind::Gcs, Self::Put) => {
                "the right to write: grant storage.objects.create on the bucket (role Storage Object User has it)"
            }
            (Kind::Gcs, Self::CreateUpload | Self::PutPart) => {
                "the right to upload in parts: grant storage.multipartUploads.create and storage.objects.create on the bucket (role Storage Object User has them)"
            }
            (Kind::Gcs, Self::Get) => {
                "the right to read: grant storage.objects.get on the bucket (role Storage Object User has it)"
            }
            (Kind::Gcs, Self::List) => {
                "the right to list: grant storage.objects.list on the bucket (role Storage Object User has it)"
            }
            (Kind::Gcs, Self::Delete) => {
                "the right to delete: grant storage.objects.delete on the bucket (role Storage Object User has it)"
            }
            (Kind::Gcs, Self::AbortUpload) => {
                "the right to abort uploads: grant storage.multipartUploads.abort on the bucket (role Storage Object User has it)"
            }
            (Kind::Azure, Self::Put | Self::CreateUpload | Self::PutPart | Self::AbortUpload) => {
                "the right to write: assign the role Storage Blob Data Contributor on the container, or make a shared access signature with the permissions rwdlc"
            }
            (Kind::Azure, Self::Get) => {
                "the right to read: assign the role Storage Blob Data Contributor on the container, or make a shared access signature with the permissions rwdlc"
            }
            (Kind::Azure, Self::List) => {
                "the right to list: assign the role Storage Blob Data Contributor on the container, or make a shared access signature of the container (sr=c) with the permissions rwdlc"
            }
            (Kind::Azure, Self::Delete) => {
                "the right to delete: assign the role Storage Blob Data Contributor on the container, or make a shared access signature with the permissions rwdlc"
            }
            (Kind::File, _) => "the right to do this: give this process's user the folder",
        }
    }
}

/// Codes that say that the keys are wrong, not that a right is missing. S3:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, Google:
/// <https://cloud.google.com/storage/docs/xml-api/reference-status>, Azure:
/// <https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes>.
const KEY_CODES: [&str; 7] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AuthenticationRequired",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
];
/// Codes of a checksum that does not match.
const DIGEST_CODES: [&str; 4] = [
    "BadDigest",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
    "Md5Mismatch",
];
/// Codes of a bucket or container that is not there.
const BUCKET_CODES: [&str; 3] = ["NoSuchBucket", "InvalidBucketName", "ContainerNotFound"];

/// Puts an error into a class and into words.
pub(super) fn classify(
    place: &Place,
    right: Right,
    doing: &str,
    error: &object_store::Error,
) -> StoreError {
    let text = error.to_string();
    let code = element(&text, "Code");
    let detail = match (code, element(&text, "Message")) {
        (Some(code), Some(message)) => place.clean(&format!("{code}: {message}")),
        (Some(code), None) => place.clean(code),
        // Of a failed connection the innermost cause says why; the rest repeats the request.
        _ if http_kind(error).is_some() => place.clean(&root_cause(error)),
        _ => place.clean(&text),
    };
    let url = &place.url;
    let say = |reason, remedy: &str| StoreError {
        message: format!("store {url}: {doing} failed: {remedy} ({detail})"),
        reason,
    };
    if let Some(local) = find::<LocalAddress>(error) {
        return StoreError {
            message: format!("store {url}: {local}"),
            reason: StoreReason::NotAllowed,
        };
    }
    if is_missing_bucket(&text) {
        return match place.kind {
            Kind::Azure => say(
                StoreReason::BucketNotFound,
                "there is no such container: create it, or correct the container's and the account's name",
            ),
            _ => say(
                StoreReason::BucketNotFound,
                "there is no such bucket: create it, or correct the bucket's name and the endpoint",
            ),
        };
    }
    if code.is_some_and(|c| KEY_CODES.contains(&c)) {
        return say(
            StoreReason::CredentialsRefused,
            match place.kind {
                Kind::S3 => {
                    "the store does not accept the credentials: correct the access key, the secret key and the region"
                }
                Kind::Gcs => {
                    "the store does not accept the credentials: is the service account's key still valid?"
                }
                _ => {
                    "the store does not accept the credentials: correct the account's name and key, or renew the shared access signature"
                }
            },
        );
    }
    if code.is_some_and(|c| DIGEST_CODES.contains(&c)) {
        return say(
            StoreReason::Corrupted,
            "what arrived is not what was sent: something on the way changes it",
        );
    }
    if is_throttled(&text, code) {
        return say(
            StoreReason::Throttled,
            "the store asks to slow down: raise its limits, or let fewer backups run at once",
        );
    }
    match error {
        object_store::Error::Unauthenticated { .. } => say(
            StoreReason::CredentialsRefused,
            "the store does not accept the credentials: correct them",
        ),
        object_store::Error::PermissionDenied { .. } => say(
            StoreReason::PermissionDenied,
            &format!("the credentials lack {}", right.named(place.kind)),
        ),
        object_store::Error::NotFound { .. } => say(StoreReason::Failed, "it is not there"),
        _ => match http_kind(error) {
            Some(HttpErrorKind::Connect | HttpErrorKind::Timeout) => say(
                StoreReason::Unreachable,
                "nothing answers there: check the endpoint, its DNS name and port, TLS, and the network policy",
            ),
            Some(_) => say(
                StoreReason::Unreachable,
                "the connection broke: check the endpoint and the network",
            ),
            None if text.contains("redirect")
                || code == Some("PermanentRedirect")
                || status(&text).is_some_and(|s| (300..400).contains(&s)) =>
            {
                say(
                    StoreReason::Failed,
                    "the store redirects, which is not followed: correct the region or the endpoint",
                )
            }
            None => match status(&text) {
                // A listing's error is always of the general kind.
                Some(403) => say(
                    StoreReason::PermissionDenied,
                    &format!("the credentials lack {}", right.named(place.kind)),
                ),
                Some(401) => say(
                    StoreReason::CredentialsRefused,
                    "the store does not accept the credentials: correct them",
                ),
                _ => say(StoreReason::Failed, "the store did not do it"),
            },
        },
    }
}

/// The store's answer, when it was one: not a broken connection. Within one of Azure's batches it is
/// written in another way.
pub(super) fn status(text: &str) -> Option<u16> {
    let mut found = ["status code: ", "(code: "]
        .iter()
        .filter_map(|before| text.split_once(before));
    found.find_map(|(_, rest)| rest.get(..3)?.parse().ok())
}

/// S3 says `SlowDown`, Azure `ServerBusy`, Google answers 429.
fn is_throttled(text: &str, code: Option<&str>) -> bool {
    matches!(status(text), Some(429 | 503))
        || matches!(
            code,
            Some("SlowDown" | "ServerBusy" | "RequestLimitExceeded")
        )
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
    element(text, "Code").is_some_and(|code| BUCKET_CODES.contains(&code))
}

/// Finds `<name>text</name>` in an XML answer.
pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.trim())
}

/// Every URL without its query: signatures and shared access tokens stand there.
fn without_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        match word.split_once('?') {
            Some((before, _)) if before.contains("://") => {
                out.push_str(before);
                out.push_str("?… ");
            }
            _ => out.push_str(word),
        }
    }
    out
}

fn root_cause(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn http_kind(error: &object_store::Error) -> Option<HttpErrorKind> {
    find::<HttpError>(error).map(HttpError::kind)
}

fn find<T: std::error::Error + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
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

    fn denied() -> object_store::Error {
        object_store::Error::PermissionDenied {
            path: "k".into(),
            source: "403".into(),
        }
    }

    fn place(kind: Kind) -> Place {
        Place {
            kind,
            url: "x://b".into(),
            secrets: vec!["s3cret/key".into(), "c2ln".into()],
        }
    }

    fn told(error: &object_store::Error) -> StoreError {
        classify(&place(Kind::S3), Right::Put, "writing k", error)
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        for code in ["NoSuchBucket", "ContainerNotFound"] {
            let bucket = not_found(&format!(
                "404 Not Found: <Error><Code>{code}</Code><Message>none</Message></Error>"
            ));
            assert!(!is_missing_object(&bucket));
            let e = told(&bucket);
            assert_eq!(e.reason, StoreReason::BucketNotFound);
            assert!(e.message.contains("create it"), "{e}");
        }
        assert!(is_missing_object(&not_found("<Code>NoSuchKey</Code>")));
        assert!(is_missing_object(&generic(
            "400: <Code>NoSuchUpload</Code>"
        )));
    }

    #[test]
    fn each_class_says_what_to_do() {
        let connect = object_store::Error::Generic {
            store: "S3",
            source: Box::new(HttpError::new(
                HttpErrorKind::Connect,
                std::io::Error::other("refused"),
            )),
        };
        let local = object_store::Error::Generic {
            store: "S3",
            source: Box::new(HttpError::new(
                HttpErrorKind::Unknown,
                LocalAddress("127.0.0.1".into()),
            )),
        };
        let status = |code: u16, body: &str| {
            generic(&format!(
                "Server returned non-2xx status code: {code} X: {body}"
            ))
        };
        for (error, reason) in [
            (denied(), StoreReason::PermissionDenied),
            (status(403, ""), StoreReason::PermissionDenied),
            (
                generic("Bulk delete request failed for key k: no (code: 403)"),
                StoreReason::PermissionDenied,
            ),
            (
                not_found("404: <Code>InvalidAccessKeyId</Code>"),
                StoreReason::CredentialsRefused,
            ),
            (
                status(403, "<Code>AuthenticationFailed</Code>"),
                StoreReason::CredentialsRefused,
            ),
            (connect, StoreReason::Unreachable),
            (local, StoreReason::NotAllowed),
            (status(503, "<Code>SlowDown</Code>"), StoreReason::Throttled),
            (status(429, ""), StoreReason::Throttled),
            (
                status(400, "<Code>BadDigest</Code>"),
                StoreReason::Corrupted,
            ),
            (status(500, ""), StoreReason::Failed),
        ] {
            let told = told(&error);
            assert_eq!(told.reason, reason, "{told}");
        }
        assert!(told(&status(307, "")).message.contains("redirects"));
    }

    #[test]
    fn a_missing_right_is_named_in_the_words_of_the_cloud() {
        for (kind, right, words) in [
            (Kind::S3, Right::Put, "s3:PutObject"),
            (Kind::S3, Right::Get, "s3:GetObject"),
            (Kind::S3, Right::List, "s3:ListBucket"),
            (Kind::S3, Right::Delete, "s3:DeleteObject"),
            (Kind::S3, Right::CreateUpload, "s3:PutObject"),
            (Kind::S3, Right::AbortUpload, "s3:AbortMultipartUpload"),
            (Kind::Gcs, Right::List, "storage.objects.list"),
            (
                Kind::Gcs,
                Right::CreateUpload,
                "storage.multipartUploads.create",
            ),
            (Kind::Azure, Right::Delete, "Storage Blob Data Contributor"),
        ] {
            let e = classify(&place(kind), right, "probing", &denied());
            assert!(e.message.contains(words), "{e}");
        }
    }

    #[test]
    fn peer_text_is_cleaned() {
        let e = told(&generic("<Code>A\u{1b}[2J</Code><Message>b\nc</Message>"));
        assert!(!e.message.chars().any(char::is_control), "{e}");
    }

    #[test]
    fn no_secret_and_no_signed_address_is_shown() {
        for text in [
            "Error performing GET https://x/c?sv=1&sig=aGVsbG8%3D in 3ms",
            "error sending request for url (https://x/c?X-Amz-Signature=abcdef)",
            "<Code>X</Code><Message>see https://x/?sig=c2ln&sp=r now</Message>",
            "<Code>X</Code><Message>your key s3cret/key is wrong</Message>",
        ] {
            let e = told(&generic(text));
            for secret in ["s3cret", "sig=", "abcdef", "c2ln", "aGVs"] {
                assert!(!e.message.contains(secret), "{e}");
            }
        }
    }
}

//! Whether a peer can be sent trailers: exactly hyper's own rule, for what hyper does not
//! recognise it drops silently and still ends the response cleanly.

use crate::body::Delivery;
use http::header::TE;
use http::{HeaderMap, Version};

/// Whether the request's `TE` has the list element `trailers`, in any case and without
/// parameters. Lines with bytes outside visible ASCII are skipped, as hyper does.
#[must_use]
pub fn te_has_trailers(headers: &HeaderMap) -> bool {
    let lines = headers
        .get_all(TE)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case("trailers"))
}

/// How the peer can be told a backup's verdict. HTTP/2 carries trailers to everybody, but who did
/// not ask for them may not look: Go's `http.Get` and curl's exit code do not.
#[must_use]
pub fn delivery(version: Version, headers: &HeaderMap) -> Delivery {
    match (te_has_trailers(headers), version) {
        (true, _) => Delivery::Asked,
        (false, Version::HTTP_2) => Delivery::Unasked,
        (false, _) => Delivery::Impossible,
    }
}

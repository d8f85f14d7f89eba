//! Whether a peer can be sent trailers: exactly hyper's own rule, for what hyper does not
//! recognise it drops silently and still ends the response cleanly.

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

/// Whether trailers reach the peer: always over HTTP/2, with `TE: trailers` over HTTP/1.1.
#[must_use]
pub fn takes_trailers(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2 || te_has_trailers(headers)
}

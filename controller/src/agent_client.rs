//! Talks to an agent: one connection per pull, trailers kept.

/// An agent and how to be let in.
#[derive(Clone)]
pub struct Endpoint {
    /// `http://host:port`, without a path.
    pub base: url::Url,
    /// Bearer token.
    pub token: Option<String>,
    /// Whether loopback and link-local addresses are accepted, after resolution: only for the command line.
    pub allow_local_addresses: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

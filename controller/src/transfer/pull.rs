//! Reads a body to its end and keeps count: bytes, digest, and how long nothing came.

use super::{
    quiet::{Quiet, Sign},
    verdict::End,
};
use crate::{
    agent_client::trace::Trace,
    peer_text::{Keep, clean},
};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::time::Duration;
use tokio::time::Instant;

/// What came next.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Bytes of the archive.
    Data(Bytes),
    /// Nothing more will come.
    End(End),
    /// Nothing has come for a while: ask the agent, then tell [`Pull::told`].
    Quiet,
    /// Nothing moved for the stall timeout.
    Stalled,
}

/// A body that is being read.
pub(crate) struct Pull {
    body: Incoming,
    digest: Context,
    bytes: u64,
    /// How long the peer's turn has lasted; while we are busy with the store it is not its turn.
    quiet: Quiet,
    trace: Trace,
}

impl Pull {
    pub(crate) fn new(body: Incoming, stall_timeout: Duration, trace: Trace) -> Self {
        Self {
            body,
            digest: Context::new(&SHA256),
            bytes: 0,
            quiet: Quiet::new(stall_timeout),
            trace,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        let mut sum = [0; 32];
        sum.copy_from_slice(self.digest.clone().finish().as_ref());
        sum
    }

    /// Cancel-safe: a call that is dropped has taken nothing, and does not give the peer more time.
    pub(crate) async fn next(&mut self) -> Piece {
        let until = self.quiet.waiting(Instant::now());
        loop {
            let frame = match tokio::time::timeout_at(until, self.body.frame()).await {
                Err(_) if !self.quiet.is_over() => return Piece::Quiet,
                Err(_) => {
                    self.trace
                        .tell(|t| t.body_end(Err("nothing came any more")));
                    return Piece::Stalled;
                }
                Ok(None) => return self.end(End::Clean(None)),
                Ok(Some(Err(error))) => return self.end(End::Cut(root_cause(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            match frame.into_data() {
                // An empty piece is no progress.
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.quiet.moved();
                    self.bytes += data.len() as u64;
                    self.digest.update(&data);
                    return Piece::Data(data);
                }
                Err(frame) => return self.end(End::Clean(frame.into_trailers().ok())),
            }
        }
    }

    /// What the agent says that its backup is doing, if it tells.
    pub(crate) fn told(&mut self, sign: Option<Sign>) {
        self.quiet.told(Instant::now(), sign);
    }

    /// The stage that the agent named last.
    pub(crate) fn stage(&self) -> Option<&str> {
        self.quiet.stage()
    }

    fn end(&self, end: End) -> Piece {
        match &end {
            End::Clean(trailers) => {
                self.trace.tell(|t| t.body_end(Ok(self.bytes)));
                if let Some(trailers) = trailers {
                    self.trace.tell(|t| t.got_trailers(trailers));
                }
            }
            End::Cut(why) if self.trace.watched() => {
                let why = clean(why, None, Keep::Start);
                self.trace.tell(|t| t.body_end(Err(&why)));
            }
            End::Cut(_) => {}
        }
        Piece::End(end)
    }
}

/// hyper says what it was doing; the cause says why that failed.
fn root_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

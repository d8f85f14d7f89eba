//! The reader of a backup: takes frames, and checks what every end has to be.

use crate::server::PATIENCE;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use towline_agent::archive::{Verified, verify};
use towline_agent::backup::Started;
use towline_agent::body::BackupBody;
use towline_agent::protocol::{
    SERVER_TIMING, StreamReason, TRAILER_BYTES, TRAILER_DIGEST, TRAILER_ERROR, TRAILER_REASON,
    decode_digest, decode_error,
};

pub(crate) struct Reader {
    pub(crate) id: String,
    pub(crate) file_name: String,
    pub(crate) estimated_bytes: Option<u64>,
    body: BackupBody,
    bytes: Vec<u8>,
}

/// A body that has come to its end.
pub(crate) struct End {
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
    trailers: HeaderMap,
}

impl Reader {
    pub(crate) fn of(started: Started) -> Self {
        Self {
            id: started.id,
            file_name: started.file_name,
            estimated_bytes: started.estimated_bytes,
            body: started.body,
            bytes: Vec::new(),
        }
    }

    /// Takes one frame; trailers at the end.
    pub(crate) async fn take(&mut self) -> Option<HeaderMap> {
        let frame = timeout(PATIENCE, self.body.frame()).await;
        let frame = frame.expect("a frame comes").expect("the end is trailers");
        match frame.expect("the body is not cut").into_data() {
            Ok(data) => {
                self.bytes.extend_from_slice(&data);
                None
            }
            Err(frame) => Some(frame.into_trailers().unwrap()),
        }
    }

    /// Reads until a whole data member is there. As the reader takes no more, the tool is held up
    /// by then.
    pub(crate) async fn flows(&mut self) {
        while self.bytes.len() < 1 << 20 {
            let end = self.take().await;
            assert!(end.is_none(), "it ended early: {end:?}");
        }
    }

    /// Reads on to the end.
    pub(crate) async fn end(mut self) -> End {
        let trailers = loop {
            if let Some(trailers) = self.take().await {
                break trailers;
            }
        };
        assert!(
            self.body.frame().await.is_none(),
            "nothing follows trailers"
        );
        let end = End {
            id: self.id,
            bytes: self.bytes,
            trailers,
        };
        assert_eq!(end.trailer(TRAILER_BYTES), end.bytes.len().to_string());
        let timing = end.trailer(SERVER_TIMING);
        for part in ["precheck", "first-byte", "copy", "lock", "finish"] {
            assert!(timing.contains(&format!("{part};dur=")), "{timing}");
        }
        end
    }
}

impl End {
    fn trailer(&self, name: &str) -> &str {
        let value = self.trailers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// Checks the trailers of a backup that has to be complete.
    pub(crate) fn succeeded(&self) {
        let error = self.trailers.get(TRAILER_ERROR).expect("always sent");
        assert_eq!(decode_error(error.as_bytes()), "");
        assert!(!self.trailers.contains_key(TRAILER_REASON));
        let sum = digest(&SHA256, &self.bytes);
        assert_eq!(
            decode_digest(self.trailer(TRAILER_DIGEST)).unwrap(),
            sum.as_ref()
        );
        assert_eq!(self.trailers.len(), 4);
    }

    /// The proven archive and the tool's output, of a backup that has to be complete.
    pub(crate) fn complete(&self) -> (Verified, Vec<u8>) {
        self.succeeded();
        let mut data = Vec::new();
        let verified = verify(&self.bytes[..], &mut data).unwrap();
        assert_eq!(verified.metadata.backup_id, self.id);
        (verified, data)
    }

    /// Class and message of a backup that has to have failed.
    pub(crate) fn failed(&self) -> (StreamReason, String) {
        let reason = StreamReason::parse(self.trailer(TRAILER_REASON));
        let message = decode_error(self.trailer(TRAILER_ERROR).as_bytes());
        assert!(!message.is_empty());
        assert!(verify(&self.bytes[..], std::io::sink()).is_err());
        (reason.expect("a reason"), message)
    }
}

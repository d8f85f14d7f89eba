//! Agents that answer at once, where the controller or the store is what is measured.
//!
//! They speak as much of the agent's protocol as a backup needs, with true verdicts and digests. How
//! an agent works is tested with real ones.

use aws_lc_rs::digest::{Context, SHA256};
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpListener, task::JoinSet};
use towline_agent::protocol::{
    HEADER_BACKUP_ID, HEADER_JOB, PATH_BACKUP, PATH_INFO, TRAILER_BYTES, TRAILER_DIGEST,
    TRAILER_ERROR, TRAILER_NAMES, encode_digest,
};

/// Bytes of one frame of a body.
const FRAME: usize = 256 << 10;
/// What bodies are made of: as much of it again and again as is asked for.
const BLOCK: usize = 16 << 20;

/// A request for a backup.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Uid of the job.
    pub job: String,
    /// When it came.
    pub at: Timestamp,
}

/// Some agents, each at a port of its own. They end with the value.
pub struct StandIns {
    /// Where they listen.
    pub addresses: Vec<SocketAddr>,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

/// The one archive that all of them send.
struct Archive {
    block: Bytes,
    bytes: usize,
    trailers: HeaderMap,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl StandIns {
    /// `number` agents at free ports of `ip`, whose archives have `bytes` bytes that do not compress.
    pub async fn start(ip: IpAddr, number: usize, bytes: usize) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut block = vec![0; bytes.min(BLOCK)];
        aws_lc_rs::rand::fill(&mut block).unwrap();
        let archive = Arc::new(Archive {
            trailers: verdict(&block, bytes),
            block: block.into(),
            bytes,
            asked: Arc::clone(&asked),
        });
        let router = Router::new()
            .route(PATH_INFO, get(|| async { Json(info()) }))
            .route(PATH_BACKUP, get(backup))
            .with_state(archive);
        let mut addresses = Vec::new();
        let mut tasks = JoinSet::new();
        for _ in 0..number {
            let listener = TcpListener::bind((ip, 0)).await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let router = router.clone();
            tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        }
        Self {
            addresses,
            asked,
            _tasks: tasks,
        }
    }

    /// The requests for backups so far.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

fn info() -> Value {
    json!({"agentVersion": "stand-in", "capabilities": ["method", "compression", "level", "parallel", "database", "max-rate"],
        "database": {"flavour": "mariadb", "version": "10.11.0-stand-in", "role": "primary"}})
}

/// The trailers of a complete backup.
fn verdict(block: &[u8], bytes: usize) -> HeaderMap {
    let mut digest = Context::new(&SHA256);
    for size in pieces(bytes, block.len().max(1)) {
        digest.update(&block[..size]);
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(digest.finish().as_ref());
    let mut trailers = HeaderMap::new();
    for (name, value) in [
        (TRAILER_ERROR, String::new()),
        (TRAILER_BYTES, bytes.to_string()),
        (TRAILER_DIGEST, encode_digest(&sum)),
    ] {
        trailers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_str(&value).unwrap(),
        );
    }
    trailers
}

/// `total` in pieces of at most `size`.
fn pieces(total: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..total)
        .step_by(size)
        .map(move |from| size.min(total - from))
}

async fn backup(State(archive): State<Arc<Archive>>, headers: HeaderMap) -> Response<Body> {
    let at = Timestamp::now();
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let job = text(HEADER_JOB).unwrap_or_default().to_owned();
    archive
        .asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Asked { job, at });
    let (block, bytes) = (archive.block.clone(), archive.bytes);
    let blocks = pieces(bytes, BLOCK).flat_map(move |size| {
        let block = block.clone();
        pieces(size, FRAME).scan(0, move |from, size| {
            let frame = block.slice(*from..*from + size);
            *from += size;
            Some(Frame::data(frame))
        })
    });
    let trailers = Frame::trailers(archive.trailers.clone());
    let frames = stream::iter(blocks).chain(stream::iter([trailers]));
    Response::builder()
        .header("content-type", "application/x-tar")
        .header(
            "content-disposition",
            "attachment; filename=\"stand-in.tar\"",
        )
        .header(HEADER_BACKUP_ID, "stand-in")
        .header("trailer", TRAILER_NAMES)
        .body(Body::new(StreamBody::new(frames.map(Ok::<_, Infallible>))))
        .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[test]
    fn pieces_make_the_whole() {
        for (total, size, expected) in [
            (0, 4, vec![]),
            (3, 4, vec![3]),
            (8, 4, vec![4, 4]),
            (9, 4, vec![4, 4, 1]),
        ] {
            assert_eq!(pieces(total, size).collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn an_archive_is_what_its_trailers_say() {
        let bytes = BLOCK + FRAME + 7;
        let mut block = vec![0; BLOCK];
        aws_lc_rs::rand::fill(&mut block).unwrap();
        let archive = Arc::new(Archive {
            trailers: verdict(&block, bytes),
            block: block.into(),
            bytes,
            asked: Arc::default(),
        });
        let body = backup(State(archive), HeaderMap::new()).await.into_body();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        let data = collected.to_bytes();
        assert_eq!(data.len(), bytes);
        let mut sum = [0; 32];
        sum.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, &data).as_ref());
        assert_eq!(trailers[TRAILER_DIGEST], encode_digest(&sum).as_str());
        assert_eq!(trailers[TRAILER_BYTES], bytes.to_string().as_str());
        assert_eq!(trailers[TRAILER_ERROR], "");
    }
}

//! Asks a restore's pod how far it is. Best effort: a network policy may not let us.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{net::TcpStream, task::JoinSet};
use towline_agent::restore::progress::Look;

use crate::restore_pod::PROGRESS_PORT;

/// How long the pod may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer that is read, bytes.
const MAX_BYTES: usize = 4096;

/// What a pod says of itself.
pub(super) async fn ask(pod: &Pod) -> Option<Look> {
    let address = pod.status.as_ref()?.pod_ip.as_deref()?;
    let address = SocketAddr::new(address.parse::<IpAddr>().ok()?, PROGRESS_PORT);
    let answer = tokio::time::timeout(PATIENCE, get(address)).await;
    match answer {
        Ok(Ok(look)) => Some(look),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "the restore's pod does not tell how far it is");
            None
        }
        Err(_) => None,
    }
}

async fn get(address: SocketAddr) -> Result<Look, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this function.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = http::Request::get("/progress")
        .header(http::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let body = Limited::new(answer.into_body(), MAX_BYTES)
        .collect()
        .await?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use towline_agent::restore::Stage;

    #[tokio::test]
    async fn an_answer_is_read_and_a_long_one_is_not() {
        let serve = async |body: String| {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let answer = async {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = peer.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /progress HTTP/1.1\r\n"));
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                // The reader may go before the end.
                drop(peer.write_all((head + &body).as_bytes()).await);
            };
            tokio::join!(get(address), answer).0
        };
        let look = serve(r#"{"stage":"Loading","bytes":3,"totalBytes":9}"#.to_owned()).await;
        let look = look.unwrap();
        assert_eq!(
            (look.stage, look.bytes, look.total_bytes),
            (Stage::Loading, 3, 9)
        );
        assert!(serve("x".repeat(MAX_BYTES + 1)).await.is_err());
    }
}

use super::*;
use std::sync::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

fn net(allow_local: bool, resolver: Arc<dyn Resolver>) -> Net {
    Net {
        allow_http: true,
        allow_local,
        ca_bundle: None,
        system_roots: false,
        observer: None,
        throttled: Arc::default(),
        host: None,
        resolver,
    }
}

/// A name whose addresses change each time one asks; the last answer stays.
#[derive(Debug)]
struct Changing {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicU64,
}

impl Changing {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |a: &&[&str]| a.iter().map(|a| a.parse().unwrap()).collect();
        Arc::new(Self {
            answers: Mutex::new(answers.iter().map(parse).collect()),
            asked: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl Resolver for Changing {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 {
            Ok(answers.remove(0))
        } else {
            Ok(answers.first().cloned().unwrap_or_default())
        }
    }
}

async fn get(connector: &Connector, url: &str) -> Result<HttpResponse, HttpError> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = url.parse().unwrap();
    connector.call(request).await
}

fn is_refusal(error: &HttpError) -> bool {
    error
        .source()
        .is_some_and(|e| e.downcast_ref::<LocalAddress>().is_some())
}

/// Whether somebody has connected. What was connected to is in the backlog at once.
async fn was_met(listener: &TcpListener) -> bool {
    tokio::select! {
        biased;
        _ = listener.accept() => true,
        () = std::future::ready(()) => false,
    }
}

/// DNS rebinding: a name that was good when it was looked at, and leads home when it is connected to.
#[tokio::test]
async fn a_name_that_changes_its_mind_leads_nowhere() {
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = inside.local_addr().unwrap().port();
    // 192.0.2.0/24 is for documentation (RFC 5737): nobody is there.
    for answers in [
        &[&["192.0.2.1"][..], &["127.0.0.1"]][..],
        &[&["192.0.2.1", "127.0.0.1"][..]],
        &[&["127.0.0.1"][..]],
        &[&["::ffff:127.0.0.1"][..]],
        &[&["192.0.2.1"][..], &["::ffff:7f00:1"], &["0.0.0.0"]],
    ] {
        let name = Changing::new(answers);
        let connector = net(false, name.clone()).connector(Patience::PROBE).unwrap();
        let url = format!("http://rebind.example:{port}/x");
        let mut refusals = 0;
        for _ in 0..answers.len() {
            let error = get(&connector, &url).await.unwrap_err();
            refusals += usize::from(is_refusal(&error));
        }
        assert_eq!(
            name.asked.load(Ordering::Relaxed),
            answers.len() as u64,
            "each connection asks anew: {answers:?}"
        );
        let only_local = |a: &&[&str]| !a.contains(&"192.0.2.1");
        assert_eq!(
            refusals,
            answers.iter().copied().filter(only_local).count(),
            "{answers:?}"
        );
        assert!(!was_met(&inside).await, "{answers:?}");
    }
    // The same name is let through for a command line's user.
    let name = Changing::new(&[&["127.0.0.1"]]);
    let connector = net(true, name).connector(Patience::PROBE).unwrap();
    let url = format!("http://rebind.example:{port}/x");
    let (_, met) = tokio::join!(get(&connector, &url), async {
        inside.accept().await.is_ok()
    });
    assert!(met);
}

/// An address that is written as one never meets the resolver.
#[tokio::test]
async fn a_written_address_leads_nowhere_in_any_spelling() {
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = inside.local_addr().unwrap().port();
    let connector = net(false, Arc::new(System))
        .connector(Patience::PROBE)
        .unwrap();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "169.254.169.254",
    ] {
        let error = get(&connector, &format!("http://{host}:{port}/"))
            .await
            .unwrap_err();
        assert!(is_refusal(&error), "{host}: {error}");
    }
    assert!(!was_met(&inside).await);
}

/// Whoever answers does not say whom to ask next.
#[tokio::test]
async fn redirects_are_not_followed() {
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = store.local_addr().unwrap().port();
    let to = inside.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let (mut socket, _) = store.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await.unwrap();
        let answer =
            format!("HTTP/1.1 307 X\r\nlocation: http://{to}/latest\r\ncontent-length: 0\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.unwrap();
    });
    let connector = net(true, Arc::new(System))
        .connector(Patience::PROBE)
        .unwrap();
    let answer = get(&connector, &format!("http://127.0.0.1:{port}/"))
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    answering.await.unwrap();
    assert!(!was_met(&inside).await);
}

#[test]
fn requests_are_told_apart() {
    for (method, uri, operation) in [
        ("PUT", "http://s/b/k", Operation::Put),
        ("PUT", "http://b.s/k", Operation::Put),
        ("POST", "http://its/token", Operation::Token),
        ("GET", "http://s/b/k", Operation::Get),
        ("HEAD", "http://s/b/k", Operation::Head),
        ("DELETE", "http://s/b/k", Operation::Delete),
        ("GET", "http://s/b?list-type=2&prefix=p", Operation::List),
        (
            "GET",
            "http://s/c?restype=container&comp=list",
            Operation::List,
        ),
        (
            "GET",
            "http://s/b/?uploads=&prefix=p",
            Operation::ListUploads,
        ),
        ("GET", "http://s/b?uploads&prefix=p", Operation::ListUploads),
        ("POST", "http://s/b/k?uploads=", Operation::CreateUpload),
        (
            "PUT",
            "http://s/b/k?partNumber=1&uploadId=x",
            Operation::PutPart,
        ),
        (
            "PUT",
            "http://s/c/k?comp=block&blockid=x",
            Operation::PutPart,
        ),
        ("POST", "http://s/b/k?uploadId=x", Operation::CompleteUpload),
        (
            "PUT",
            "http://s/c/k?comp=blocklist",
            Operation::CompleteUpload,
        ),
        ("DELETE", "http://s/b/k?uploadId=x", Operation::AbortUpload),
        (
            "POST",
            "http://s/c?restype=container&comp=batch",
            Operation::Delete,
        ),
        ("POST", "http://login/t/oauth2/v2.0/token", Operation::Token),
    ] {
        let method: Method = method.parse().unwrap();
        let uri: Uri = uri.parse().unwrap();
        assert_eq!(
            Operation::of(&method, &uri, Some("s")),
            operation,
            "{method} {uri}"
        );
    }
}

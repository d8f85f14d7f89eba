//! Debian's Chromium without a window, driven by its own [DevTools
//! protocol](https://chromedevtools.github.io/devtools-protocol/).

use crate::wait::eventually;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// How long one answer of the browser may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whatever breaks the page's policy is kept in the page, and so is what nobody has caught.
const WATCH: &str = "window.violations = []; document.addEventListener('securitypolicyviolation', (e) => window.violations.push(e.violatedDirective + ' ' + e.blockedURI)); addEventListener('error', (e) => window.violations.push(e.message)); addEventListener('unhandledrejection', (e) => window.violations.push(String(e.reason)));";

/// A browser with one tab. It ends with the value.
pub struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    last: u64,
    _child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it with a profile of its own.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Its sandbox refuses to run as root, and there is nothing here to be kept from it.
        let mut child = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--remote-debugging-port=0",
            ])
            .args(["--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Debian's package chromium is installed: tests/cluster/cluster deps");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = timeout(PATIENCE, async {
            loop {
                let line = lines
                    .next_line()
                    .await
                    .unwrap()
                    .expect("chromium says where it listens");
                if let Some(url) = line.strip_prefix("DevTools listening on ") {
                    break url.to_owned();
                }
            }
        });
        let url = url.await.expect("chromium listens");
        // Its later lines must go somewhere, or it would stop at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = connect_async(url).await.unwrap();
        let mut browser = Self {
            socket,
            session: String::new(),
            last: 0,
            _child: child,
            _profile: profile,
        };
        let target = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        browser.call("Page.enable", json!({})).await;
        browser
            .call(
                "Page.addScriptToEvaluateOnNewDocument",
                json!({"source": WATCH}),
            )
            .await;
        browser
    }

    /// Calls a method of the protocol, which must succeed.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.try_call(method, params).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method that may be refused, as one about a node is while another document comes.
    pub async fn try_call(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.last += 1;
        let id = self.last;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
        let answer = timeout(PATIENCE, async {
            loop {
                let message = self.socket.next().await.expect("chromium goes on").unwrap();
                let Message::Text(text) = message else {
                    continue;
                };
                let answer: Value = serde_json::from_str(&text).unwrap();
                if answer["id"] == id {
                    break answer;
                }
            }
        });
        let mut answer = answer
            .await
            .unwrap_or_else(|_| panic!("{method} is not answered"));
        if answer["error"].is_null() {
            Ok(answer["result"].take())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// Opens a page, and waits until it is loaded.
    pub async fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url})).await;
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.until(
            "the page is loaded",
            "document.readyState === 'complete' && location.protocol !== 'about:'",
        )
        .await;
    }

    /// The value of an expression; what it throws fails the test.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", params).await;
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].take()
    }

    /// The same as text.
    pub async fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression).await;
        value
            .as_str()
            .unwrap_or_else(|| panic!("{expression}: {value}"))
            .to_owned()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, what: &str, expression: &str) {
        let this = tokio::sync::Mutex::new(self);
        eventually(what, || async {
            let mut this = this.lock().await;
            match this.value(&format!("Boolean({expression})")).await {
                Value::Bool(true) => Ok(()),
                _ => Err(this
                    .text("document.body ? document.body.innerText : ''")
                    .await),
            }
        })
        .await;
    }

    /// Presses and releases a key, e.g. `Tab`.
    pub async fn press(&mut self, key: &str) {
        let code = if key == "Tab" { 9 } else { 13 };
        for kind in ["rawKeyDown", "char", "keyUp"] {
            let mut params =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "char" {
                if key != "Enter" {
                    continue;
                }
                params["text"] = json!("\r");
            }
            self.call("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Colours as somebody prefers them: `light` or `dark`.
    pub async fn prefers(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// A window of this size, in pixels.
    pub async fn size(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// A picture of the whole page, PNG.
    pub async fn picture(&mut self, file: &Path) {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", params).await;
        let folder = file.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        let base64 = picture["data"].as_str().unwrap();
        fs::write(file, BASE64_STANDARD.decode(base64).unwrap()).unwrap();
        println!("a picture: {}", file.display());
    }
}

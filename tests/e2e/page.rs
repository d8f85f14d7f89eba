//! The status page in a browser: who is let in, what it shows while a backup runs, with and without a
//! script, by keyboard, in both colour schemes and on a narrow screen; then over TLS with certificates.

use e2e::{Browser, Namespace, PortForward, database::Database, eventually, run, run_ok};
use serde_json::json;
use std::path::Path;

const TOKEN: &str = "e2e-page-token-0123456789abcdef";
/// What somebody may write into a message.
const HOSTILE: &str =
    r#"</td><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"#;
/// Text whose contrast with its ground is below 4.5 (WCAG 2.2, 1.4.3), at most so much of it as a person reads.
const FAINT: &str = r"(() => {
  const channels = (c) => c.match(/[\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = channels(c).slice(0, 3).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const opaque = (c) => { const v = channels(c); return v.length === 3 || v[3] === 1; };
  const faint = [];
  for (const e of document.body.querySelectorAll('*')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    let ground = e;
    while (ground && !opaque(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(ground || document.body).backgroundColor)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(e.nodeName + '.' + e.className + ' ' + ratio.toFixed(2) + ' ' + e.textContent.trim().slice(0, 30));
  }
  return faint.slice(0, 10);
})()";

#[tokio::test]
async fn the_status_page_in_a_browser() {
    let ns = Namespace::create("page").await;
    let secret = format!("--from-literal=token={TOKEN} # on call");
    ns.kubectl_ok(&["create", "secret", "generic", "page-tokens", &secret])
        .await;
    ns.install_controller(&["page.enabled=true", "page.tokenSecret=page-tokens"])
        .await;
    let db = Database::mariadb(&ns, "mariadb").await;
    db.load_bulk().await;
    ns.ready_store().await;
    let pod = ns.controller_ready().await;
    // On the pod's loopback address: reached so, and not by its neighbours.
    let forward = PortForward::start(&ns, &pod, 8081).await;
    let address = forward.address().to_owned();
    let ip = ns.pod_ip(&pod).await;
    let connects = async |port: u16| {
        let script = format!("bash -c 'exec 3<>/dev/tcp/{ip}/{port}'");
        ns.sh(db.pod(), "database", &script, "").await.code == 0
    };
    assert!(connects(8080).await, "a neighbour reaches the probes' port");
    assert!(!connects(8081).await, "a neighbour reaches the page");

    // A job by hand that fails, and says something hostile.
    ns.job("lost", "nobody", json!({"backoffLimit": 0})).await;
    let mut lost = ns.job_ends("lost", "Failed").await;
    for condition in lost["status"]["conditions"].as_array_mut().unwrap() {
        condition["message"] = json!(HOSTILE);
    }
    let replace = ["replace", "--subresource=status", "-f", "-"];
    let replaced = ns.kubectl(&replace, &lost.to_string()).await;
    assert_eq!(replaced.code, 0, "{}", replaced.stderr);

    let mut browser = Browser::start().await;
    browser.size(1280, 900).await;
    let url = format!("http://{address}/");
    let opened = browser.call("Page.navigate", json!({"url": url})).await;
    // There is nobody who could fill in what it asks for.
    assert_eq!(opened["errorText"], "net::ERR_INVALID_AUTH_CREDENTIALS");
    let refused = run_ok("curl", &["-s", "-w", "\n%{http_code}", &url], b"").await;
    assert!(
        refused.ends_with("\n401") && refused.contains("token as the password"),
        "{refused}"
    );
    assert!(!refused.contains(&ns.name), "{refused}");
    let status = "performance.getEntriesByType('navigation')[0].responseStatus";
    browser
        .open(&format!("http://on-call:{TOKEN}@{address}/"))
        .await;
    assert_eq!(browser.value(status).await, 200);
    browser
        .until(
            "the script is live",
            "document.getElementById('live').textContent === 'Live'",
        )
        .await;
    browser.value("window.sameDocument = true").await;
    let row = format!("document.getElementById('job-{}-lost')", ns.name);
    let told = browser.text(&format!("{row}.innerText")).await;
    assert!(told.contains(HOSTILE) && told.contains("NoAgent"), "{told}");
    assert_eq!(browser.value("typeof window.hacked").await, "undefined");
    assert_eq!(
        browser
            .value("document.querySelectorAll('main script, main img').length")
            .await,
        0
    );

    // Somebody opens what to do about it and reads on, while all the rest goes on.
    browser
        .value("document.querySelector('.help').open = true")
        .await;
    browser
        .value(&format!(
            "document.getElementById('to-job-{}-lost').focus()",
            ns.name
        ))
        .await;

    // A schedule's job goes on before his eyes. 60 MiB that take half a minute.
    let slow = json!({"method": "physical", "compression": {"type": "none"}, "maxBytesPerSecond": 2_000_000});
    let schedule = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "nightly"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": Namespace::job_spec(db.app(), &slow)}}});
    ns.apply(&schedule.to_string()).await;
    let row = format!("document.getElementById('schedule-{}-nightly')", ns.name);
    browser.until("the new schedule appears", &row).await;
    let progress = format!("{row}.querySelector('progress')");
    browser
        .until(
            "its first job is under way",
            &format!("{progress} && {progress}.value > 0"),
        )
        .await;
    let suspend = r#"{"spec":{"suspend":true}}"#;
    ns.kubectl_ok(&[
        "patch",
        "backupschedule",
        "nightly",
        "--type=merge",
        "-p",
        suspend,
    ])
    .await;
    let numbers = format!("{row}.querySelector('.numbers').textContent");
    let first = browser.text(&numbers).await;
    browser
        .until(
            "its numbers move",
            &format!(
                "!{row}.querySelector('.numbers') || {numbers} !== {}",
                json!(first)
            ),
        )
        .await;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    browser.prefers("light").await;
    browser.picture(&pictures.join("running-light.png")).await;
    let job = ns.list("backupjobs", "towline.dev/schedule=nightly").await[0].clone();
    let job = job["metadata"]["name"].as_str().unwrap().to_owned();
    ns.job_ends(&job, "Succeeded").await;
    browser
        .until(
            "the schedule is seen to be good",
            &format!("{row}.cells[2].querySelector('time') && !{row}.querySelector('progress')"),
        )
        .await;
    let kept = format!(
        "window.sameDocument && document.querySelector('.help').open && document.activeElement.id === 'to-job-{}-lost'",
        ns.name
    );
    assert_eq!(
        browser.value(&kept).await,
        true,
        "the document was loaded anew, or what was opened and focused is not any more"
    );
    assert_eq!(browser.value("window.violations").await, json!([]));

    // By keyboard: the first stop leads past the head, and each row is reached and followed.
    browser.open(&format!("http://{address}/")).await;
    assert_eq!(
        browser.value(status).await,
        200,
        "the browser has kept the credentials"
    );
    browser.press("Tab").await;
    assert_eq!(
        browser.text("document.activeElement.className").await,
        "skip"
    );
    browser.press("Enter").await;
    browser
        .until(
            "focus is past the head",
            "document.activeElement.id === 'main'",
        )
        .await;
    let target = format!("to-{}-nightly", ns.name);
    let mut stops = Vec::new();
    while stops.last() != Some(&target) {
        browser.press("Tab").await;
        stops.push(
            browser
                .text("document.activeElement.id || document.activeElement.nodeName")
                .await,
        );
        assert!(stops.len() < 60, "{target} is not among {stops:?}");
        let seen = "(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2; })()";
        assert_eq!(
            browser.value(seen).await,
            true,
            "focus on {stops:?} is not to be seen"
        );
    }
    browser.press("Enter").await;
    let heading = format!(
        "document.querySelector('h1')?.textContent.startsWith('Schedule {}/nightly')",
        ns.name
    );
    browser
        .until("the schedule's page is there", &heading)
        .await;
    let text = browser.text("document.body.innerText").await;
    for part in [&job, "Suspended", "Succeeded", "MiB"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }

    // Every page, in both schemes and on a narrow screen.
    let pages = [
        ("front", "/".to_owned()),
        ("schedule", format!("/schedules/{}/nightly", ns.name)),
        ("job", format!("/jobs/{}/{job}", ns.name)),
        ("lost", format!("/jobs/{}/lost", ns.name)),
        ("store", format!("/stores/{}/store", ns.name)),
    ];
    for (name, path) in &pages {
        browser.open(&format!("http://{address}{path}")).await;
        assert_eq!(browser.value(status).await, 200, "{path}");
        let outline = browser.value("[document.documentElement.lang, document.querySelectorAll('main').length, document.querySelectorAll('h1').length, [...document.querySelectorAll('th')].every((h) => h.scope), [...document.querySelectorAll('[id]')].every((e) => document.querySelectorAll('#' + CSS.escape(e.id)).length === 1), [...document.querySelectorAll('[aria-labelledby]')].every((e) => document.getElementById(e.getAttribute('aria-labelledby')))]").await;
        assert_eq!(outline, json!(["en", 1, 1, true, true, true]), "{path}");
        for (scheme, width) in [
            ("light", 1280),
            ("dark", 1280),
            ("light", 390),
            ("dark", 390),
            ("light", 1030),
        ] {
            browser.prefers(scheme).await;
            browser.size(width, 900).await;
            let wide = browser.value("document.documentElement.scrollWidth").await;
            assert!(
                wide.as_u64().unwrap() <= u64::from(width),
                "{path} at {width}: {wide}"
            );
            assert_eq!(
                browser.value(FAINT).await,
                json!([]),
                "{path} {scheme} {width}"
            );
            browser
                .picture(&pictures.join(format!("{name}-{scheme}-{width}.png")))
                .await;
        }
        assert_eq!(
            browser.value("window.violations").await,
            json!([]),
            "{path}"
        );
        browser.size(1280, 900).await;
    }
    // That violations would have been seen.
    browser.value("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:1/x'}))").await;
    browser
        .until("a violation is told", "window.violations.length > 0")
        .await;

    // Without a script all of it is there too.
    browser
        .call(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": true}),
        )
        .await;
    let opened = browser
        .call(
            "Page.navigate",
            json!({"url": format!("http://{address}/")}),
        )
        .await;
    assert!(opened["errorText"].is_null(), "{opened}");
    let shown = std::sync::Arc::new(tokio::sync::Mutex::new(browser));
    eventually("the page without a script", || async {
        let mut browser = shown.lock().await;
        let document = browser.call("DOM.getDocument", json!({"depth": 1})).await;
        let root = document["root"]["nodeId"].clone();
        // The document may still be that of the page before.
        let html = browser
            .try_call("DOM.getOuterHTML", json!({"nodeId": root}))
            .await?;
        let html = html["outerHTML"].as_str().unwrap().to_owned();
        let link = browser
            .try_call(
                "DOM.querySelector",
                json!({"nodeId": root, "selector": "noscript a"}),
            )
            .await?;
        if html.contains("nightly")
            && html.contains("Needs attention")
            && link["nodeId"].as_u64() > Some(0)
        {
            Ok(())
        } else {
            Err(html)
        }
    })
    .await;
    drop(shown);
    drop(forward);

    over_tls(&ns).await;
}

/// With the page's own certificate it has a Service; with a CA for readers nobody else is let in.
async fn over_tls(ns: &Namespace) {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"set -eu
ca() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt; }
leaf() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
  printf 'subjectAltName=DNS:%s\n' "$1" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.crt"; }
ca; leaf localhost; leaf reader; leaf other"#;
    let here = format!("cd '{}' && {script}", folder.path().display());
    run_ok("sh", &["-c", &here], b"").await;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (
        format!("--cert={}", file("localhost.crt")),
        format!("--key={}", file("localhost.key")),
    );
    ns.kubectl_ok(&["create", "secret", "tls", "page-tls", &cert, &key])
        .await;
    let ca = format!("--from-file=ca.crt={}", file("ca.crt"));
    ns.kubectl_ok(&["create", "secret", "generic", "page-ca", &ca])
        .await;
    let before = ns.controller_ready().await;
    ns.install_controller(&[
        "page.enabled=true",
        "page.tls.secret=page-tls",
        "page.tls.clientCASecret=page-ca",
        "page.tls.allowedClients={reader}",
        "networkPolicy.enabled=true",
    ])
    .await;
    let pod = eventually("the new controller is ready", || async {
        let pod = ns.controller_ready().await;
        if pod == before { Err(pod) } else { Ok(pod) }
    })
    .await;
    let service = ns
        .get("service", "towline-page")
        .await
        .expect("a Service of the page");
    assert_eq!(service["spec"]["ports"][0]["port"], 8081);
    let forward = PortForward::start(ns, &pod, 8081).await;
    let port = forward.address().rsplit_once(':').unwrap().1;
    let (url, trusted) = (format!("https://localhost:{port}/"), file("ca.crt"));
    let ask = async |name: &str| {
        let (cert, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        let mut args = vec![
            "-sS",
            "--ipv4",
            "--cacert",
            &trusted,
            "-w",
            "\n%{http_code}",
            &url,
        ];
        if !name.is_empty() {
            args.extend(["--cert", &cert, "--key", &key]);
        }
        run("curl", &args, b"").await
    };
    let reader = ask("reader").await;
    assert!(
        reader.stdout.ends_with("\n200") && reader.stdout.contains("nightly"),
        "{}{}",
        reader.stdout,
        reader.stderr
    );
    let other = ask("other").await;
    assert!(
        other.stdout.ends_with("\n403") && !other.stdout.contains("nightly"),
        "{}",
        other.stdout
    );
    let nobody = ask("").await;
    assert!(
        nobody.code != 0 && !nobody.stdout.contains("nightly"),
        "{}",
        nobody.stdout
    );
    // What was said to it stays out of its log.
    let log = ns.kubectl_ok(&["logs", &pod]).await;
    assert!(
        log.contains("the status page is served") && !log.contains(TOKEN),
        "{log}"
    );
}

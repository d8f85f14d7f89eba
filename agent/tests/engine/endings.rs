use crate::rig::{Rig, of_job, request};
use crate::server::{PATIENCE, Server, eventually, with_tool};
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::timeout;
use towline_agent::backup::{Method, StartError};
use towline_agent::protocol::StreamReason;

const METHODS: [Method; 2] = [Method::Physical, Method::Logical];

/// More than all buffers take, so that its tool is held up by a reader that takes nothing.
fn server(method: Method) -> Server {
    let server = Server::with_user(method.as_str());
    server.fill("orders", "InnoDB", 50);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_takes_everything_with_it() {
    for method in METHODS {
        let server = server(method);
        let rig = Rig::new(&server);
        let mut reader = rig.start(request(method)).await;
        reader.flows().await;
        assert!(!rig.tools().is_empty());
        assert!(server.sessions() > 0);
        drop(reader);
        rig.is_clean(Some(&server)).await;

        // A caller that does not wait for the head.
        let mut start = Box::pin(rig.engine.start(request(method)));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while rig.tools().is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "no tool starts");
            if timeout(Duration::from_millis(1), &mut start).await.is_ok() {
                break;
            }
        }
        drop(start);
        rig.is_clean(Some(&server)).await;
        assert!(rig.engine.last_backup().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_does_not_react_is_killed() {
    let server = server(Method::Physical);
    let rig = Rig::new(&server);
    let mut reader = rig.start(request(Method::Physical)).await;
    reader.flows().await;
    rig.signal_tool(Signal::STOP);
    drop(reader);
    rig.is_clean(Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_ends_it() {
    let server = server(Method::Physical);
    let rig = Rig::new(&server);
    for reason in [StreamReason::Cancelled, StreamReason::Draining] {
        let mut reader = rig.start(request(Method::Physical)).await;
        reader.flows().await;
        assert!(!rig.engine.cancel("another", reason));
        if reason == StreamReason::Draining {
            rig.engine.close();
        }
        assert!(rig.engine.cancel(&reader.id, reason));
        // The tool ends whether or not the reader goes on.
        rig.is_clean(Some(&server)).await;
        let (told, message) = reader.end().await.failed();
        assert_eq!(told, reason, "{message}");
    }
    let refused = rig.refused(request(Method::Physical)).await;
    assert!(matches!(refused, StartError::Draining), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_later_attempt_of_the_same_job_takes_over() {
    let method = Method::Physical;
    let server = server(method);
    let rig = Rig::new(&server);
    let mut first = rig.start(of_job(method, "a", 2)).await;
    first.flows().await;
    for other in [
        request(method),
        of_job(method, "b", 9),
        of_job(method, "a", 2),
        of_job(method, "a", 1),
    ] {
        match rig.refused(other).await {
            StartError::Busy { id, retry_after } => {
                assert_eq!(id, first.id);
                assert!(!retry_after.is_zero());
            }
            refused => panic!("{refused:?}"),
        }
    }
    let old = rig.tools();
    // The first one's reader takes nothing meanwhile.
    let second = rig.start(of_job(method, "a", 3)).await;
    let new = rig.tools();
    assert!(!old.iter().any(|pid| new.contains(pid)), "{old:?} {new:?}");
    second.end().await.complete();
    let (reason, message) = first.end().await.failed();
    assert_eq!(reason, StreamReason::Preempted, "{message}");
    rig.is_clean(Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_stalls_and_a_quiet_tool_does_not() {
    let stall = Duration::from_secs(1);
    let server = server(Method::Physical);
    let rig = Rig::with(&server, |config| config.stall_timeout = stall);
    let mut reader = rig.start(request(Method::Physical)).await;
    reader.flows().await;
    rig.is_clean(Some(&server)).await;
    let (reason, message) = reader.end().await.failed();
    assert_eq!(reason, StreamReason::Stalled, "{message}");

    let mut reader = rig.start(request(Method::Physical)).await;
    reader.flows().await;
    rig.signal_tool(Signal::STOP);
    // Until nothing has come for longer than a reader may take nothing.
    while let Ok(end) = timeout(2 * stall, reader.take()).await {
        assert!(end.is_none());
    }
    rig.signal_tool(Signal::CONT);
    reader.end().await.complete();
    rig.is_clean(Some(&server)).await;
}

/// The archive is in memory by then, and only the forwarder is left to notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_when_the_tool_has_ended_is_told_so() {
    let server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 2);
    let rig = Rig::with(&server, |config| {
        config.stall_timeout = Duration::from_millis(300);
    });
    for _ in 0..5 {
        let reader = rig.start(request(Method::Logical)).await;
        rig.is_clean(Some(&server)).await;
        let (reason, message) = reader.end().await.failed();
        assert_eq!(reason, StreamReason::Stalled, "{message}");
    }
}

/// However many callers look at the server, it has connections left for its own users.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_look_take_a_few_connections() {
    let server = Server::with_user("physical");
    server.sql("ALTER USER towline@localhost WITH MAX_USER_CONNECTIONS 20");
    let rig = Rig::new(&server);
    let looks = (0..200).map(|_| {
        let engine = rig.engine.clone();
        tokio::spawn(async move { engine.server_info().await })
    });
    for look in looks.collect::<Vec<_>>() {
        look.await.unwrap().unwrap();
    }
}

/// A limit bounds what is sent, and is no reason to call the reader slow.
#[tokio::test(flavor = "multi_thread")]
async fn the_lower_rate_counts() {
    let server = Server::with_user("physical");
    let rig = Rig::with(&server, |config| {
        config.max_rate = Some(1);
        config.stall_timeout = Duration::from_secs(1);
    });
    let mut limited = request(Method::Physical);
    limited.max_rate = Some(u64::MAX);
    let reader = rig.start(limited).await;
    // The metadata go at once; the next chunk has to wait for its second a byte.
    eventually("the tool is held up or done", || {
        (rig.stage() != "copy").then_some(())
    });
    rig.engine.cancel(&reader.id, StreamReason::Cancelled);
    let end = reader.end().await;
    assert_eq!(end.failed().0, StreamReason::Cancelled);
    assert!(end.bytes.len() < 1 << 20, "{}", end.bytes.len());
}

/// What the tool started ends with it, even if it ignores a polite request; whoever asks for the end.
#[tokio::test(flavor = "multi_thread")]
async fn every_end_takes_the_whole_process_group() {
    let script = "
        if [ \"$1\" != --version ]; then (trap '' INT; exec -a \"$1\" sleep 1000) & fi
        exec \"$TOOL\" \"$@\"";
    if !with_tool("endings::every_end_takes_the_whole_process_group", script) {
        return;
    }
    let method = Method::Physical;
    let server = server(method);
    let rig = Rig::new(&server);
    let both = || {
        eventually("the tool and its child run", || {
            (rig.tools().len() == 2).then_some(())
        });
    };

    let mut reader = rig.start(request(method)).await;
    reader.flows().await;
    both();
    drop(reader);
    rig.is_clean(Some(&server)).await;

    let mut reader = rig.start(request(method)).await;
    reader.flows().await;
    both();
    assert!(rig.engine.cancel(&reader.id, StreamReason::Cancelled));
    rig.is_clean(Some(&server)).await;
    assert_eq!(reader.end().await.failed().0, StreamReason::Cancelled);

    let mut first = rig.start(of_job(method, "a", 1)).await;
    first.flows().await;
    both();
    let old = rig.tools();
    let second = rig.start(of_job(method, "a", 2)).await;
    both();
    assert!(!old.iter().any(|pid| rig.tools().contains(pid)), "{old:?}");
    assert_eq!(first.end().await.failed().0, StreamReason::Preempted);
    drop(second);
    rig.is_clean(Some(&server)).await;
}

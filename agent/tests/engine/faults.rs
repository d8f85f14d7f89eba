use crate::rig::{Rig, request};
use crate::server::{Server, eventually, with_tool};
use rustix::process::Signal;
use towline_agent::backup::Method;
use towline_agent::protocol::StreamReason;

const METHODS: [Method; 2] = [Method::Physical, Method::Logical];

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_killed_in_mid_stream_failed() {
    for method in METHODS {
        let server = Server::with_user(method.as_str());
        server.fill("orders", "InnoDB", 50);
        let rig = Rig::new(&server);
        let mut reader = rig.start(request(method)).await;
        reader.flows().await;
        rig.signal_tool(Signal::KILL);
        let (reason, message) = reader.end().await.failed();
        assert_eq!(reason, StreamReason::ToolFailed, "{message}");
        assert!(message.contains("killed by signal 9"), "{message}");
        if method == Method::Physical {
            // The last lines of its stderr.
            assert!(message.contains("[00] "), "{message}");
        }
        assert!(rig.engine.last_backup().is_none());
        rig.is_clean(Some(&server)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_mid_stream_is_lost() {
    for method in METHODS {
        let mut server = Server::with_user(method.as_str());
        server.fill("orders", "InnoDB", 50);
        let rig = Rig::new(&server);
        let mut reader = rig.start(request(method)).await;
        reader.flows().await;
        server.kill();
        let (reason, message) = reader.end().await.failed();
        assert_eq!(reason, StreamReason::DatabaseLost, "{message}");
        assert!(message.contains("last words"), "{message}");
        rig.is_clean(None).await;
    }
}

/// By the time that the tool has failed, the server is back, and looks as if nothing had been.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_started_anew_is_lost_too() {
    let mut server = Server::with_user("logical");
    server.fill("orders", "InnoDB", 24);
    let rig = Rig::new(&server);
    let mut reader = rig.start(request(Method::Logical)).await;
    reader.flows().await;
    let begun = rig.engine.running().unwrap().start_time.unwrap();
    // A server tells its age in whole seconds: the backup has to be older than that.
    eventually("the backup is old enough", || {
        (begun.duration_until(jiff::Timestamp::now()).as_secs() >= 3).then_some(())
    });
    server.restart(&[]);
    let (reason, message) = reader.end().await.failed();
    assert_eq!(reason, StreamReason::DatabaseLost, "{message}");
    rig.is_clean(Some(&server)).await;
}

/// The real tool, but for its last line, which it always writes.
#[tokio::test(flavor = "multi_thread")]
async fn success_without_the_completion_line_is_incomplete() {
    let script = "exec \"$TOOL\" \"$@\" 2> >(exec grep -v 'completed OK!' >&2)";
    if !with_tool(
        "faults::success_without_the_completion_line_is_incomplete",
        script,
    ) {
        return;
    }
    let server = Server::with_user("physical");
    let rig = Rig::new(&server);
    let (reason, message) = rig
        .start(request(Method::Physical))
        .await
        .end()
        .await
        .failed();
    assert_eq!(reason, StreamReason::ToolIncomplete, "{message}");
    assert!(message.contains("Redo log"), "{message}");
    rig.is_clean(Some(&server)).await;
}

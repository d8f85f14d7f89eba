use crate::rig::{Rig, request};
use crate::server::Server;
use towline_agent::backup::{BackupRequest, Method, StartError};
use towline_agent::database::Address;

fn of(names: &[&str], method: Method) -> BackupRequest {
    BackupRequest {
        databases: names.iter().map(|name| (*name).to_owned()).collect(),
        ..request(method)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_dumped() {
    let server = Server::with_user("logical");
    let rig = Rig::new(&server);
    let nothing = rig.refused(request(Method::Logical)).await;
    assert!(
        matches!(nothing, StartError::MethodNotAvailable { .. }),
        "{nothing}"
    );
    server.sql("CREATE DATABASE shop");
    for name in [
        "nosuch",
        "mysql",
        "information_schema",
        "sys",
        "shop%",
        "--x",
    ] {
        let refused = rig.refused(of(&["shop", name], Method::Logical)).await;
        let StartError::BadParameter { parameter, message } = &refused else {
            panic!("{name}: {refused:?}");
        };
        assert_eq!(parameter, "database");
        assert!(message.contains(name), "{message}");
    }
    let refused = rig.refused(of(&["shop"], Method::Physical)).await;
    assert!(matches!(refused, StartError::BadParameter { .. }));
    rig.is_clean(Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_or_refuses_us() {
    let mut server = Server::start();
    let rig = Rig::new(&server);
    let refused = rig.refused(request(Method::Physical)).await;
    assert!(
        matches!(refused, StartError::Database { .. }),
        "{refused:?}"
    );
    assert!(
        refused.to_string().contains("refuses user 'towline'"),
        "{refused}"
    );

    server.kill();
    let refused = rig.refused(request(Method::Physical)).await;
    assert!(
        matches!(refused, StartError::Database { .. }),
        "{refused:?}"
    );
    let socket = server.socket();
    let named = refused.to_string().contains(socket.to_str().unwrap());
    assert!(named, "{refused}");

    // A server that accepts and says nothing.
    let socket = socket.with_file_name("silent");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let rig = Rig::with(&server, |config| {
        config.database.address = Address::Socket(socket.clone());
        config.database.timeout = std::time::Duration::from_millis(100);
    });
    let refused = rig.refused(request(Method::Physical)).await;
    assert!(refused.to_string().contains("no answer"), "{refused}");
    rig.is_clean(None).await;
}

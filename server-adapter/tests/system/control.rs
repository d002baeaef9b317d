//! Commands on a data folder that a server holds, and on one that nobody holds.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::Duration,
};

use crate::common::{Folder, firsthop, until};

fn exchange(folder: &Folder, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(folder.path.join("control.sock")).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // A refusal may come before all is sent; it is there to be read all the same.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn a_server_is_asked_how_it_is_until_it_ends() {
    let folder = Folder::new();
    assert!(folder.fails(&["status"]).contains("there is no such folder; `firsthop serve` makes it"));
    let mut server = folder.serve();
    let said = folder.ok(&["status"]);
    assert!(said.contains("ready, 1 tenants") && said.contains(&server.child.id().to_string()), "{said}");
    let json: serde_json::Value = serde_json::from_str(&folder.ok(&["status", "--json"])).expect("JSON");
    assert_eq!(
        (json["served"].as_bool(), json["server"]["pid"].as_u64()),
        (Some(true), Some(server.child.id().into()))
    );

    // A crash leaves the socket; nobody serves all the same, and the next start takes its place.
    server.kill();
    assert!(folder.path.join("control.sock").exists());
    assert!(folder.ok(&["status"]).contains("Nobody serves"));
    let mut server = folder.serve();
    assert!(folder.ok(&["status"]).contains(&server.child.id().to_string()));
    server.stop();
    assert!(!folder.path.join("control.sock").exists(), "an orderly end leaves none");
    assert!(folder.ok(&["status", "--json"]).contains(r#""served":false"#));
}

#[test]
fn what_is_no_command_is_refused_with_a_reason() {
    let folder = Folder::new();
    let server = folder.serve();
    for (request, status, says) in [
        (post("/control/1", r#""polish""#), 400, "unknown variant `polish`"),
        (post("/control/1", "{"), 400, "EOF"),
        (post("/control/2", r#""status""#), 404, "/control/2 is not known here"),
        (b"GET /control/1 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 405, "a command is a POST"),
        (post("/control/1", &" ".repeat(2 << 20)), 413, "length limit"),
    ] {
        let answer = exchange(&folder, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(says), "{says}: {answer}");
        assert!(answer.contains(r#""version":""#), "{answer}");
    }
    assert!(exchange(&folder, b"hello\r\n\r\n").starts_with("HTTP/1.1 400 "));
    // Those who connect and say nothing take a few places, for ten seconds, and nobody else's.
    let silent: Vec<_> =
        (0..20).map(|_| UnixStream::connect(folder.path.join("control.sock")).expect("connected")).collect();
    assert_eq!(server.client().get("/readyz").status, 200);
    drop(silent);
    // Once it has noticed that they are gone.
    until("it answers", || folder.run(&["status"]).status.success());
}

#[test]
fn a_server_of_another_version_is_named() {
    let folder = Folder::new();
    folder.tenant("shop", &[]);
    // What holds the folder and listens is made here.
    let lock = std::fs::File::create(folder.path.join("server.lock")).expect("made");
    lock.lock().expect("held");
    let listener = UnixListener::bind(folder.path.join("control.sock")).expect("bound");
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("asked");
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).expect("a request");
        let body = r#"{"version":"7.0.0","reply":{"polished":{}}}"#;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("answered");
    });
    let said = folder.fails(&["status"]);
    assert!(said.contains("is firsthop 7.0.0") && said.contains("restart the server"), "{said}");
    other.join().expect("ended");
    // Held by somebody who does not listen.
    let said = folder.fails(&["status"]);
    assert!(said.contains("does not take commands"), "{said}");
}

#[test]
fn a_folder_with_a_long_path_has_a_socket_too() {
    let folder = Folder::new();
    let data = folder.path.join("a-folder-with-a-long-name/".repeat(5));
    let mut command = firsthop(&data);
    command.arg("serve");
    let mut server = crate::common::Server::start(command);
    let run = || crate::common::text(&firsthop(&data).arg("status").output().expect("runs").stdout);
    assert!(run().contains(&server.child.id().to_string()), "{}", run());
    let link = data.join("control.sock");
    let bound = std::fs::read_link(&link).expect("a link to where it is");
    server.stop();
    assert!(!link.is_symlink() && !bound.parent().expect("a folder").exists(), "nothing is left");
}

//! Sockets that somebody else accepted.

use crate::support;
use crate::support::{
    ACCEPT, Client, TEXT, TestServer, builder, echo, frame, recorder, start, upgrade_request,
};
use campanile::{Accept, HandleError};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

/// A server that listens nowhere else than for the tests, and a listener of the host program's.
fn host(handler: impl Into<campanile::Route>) -> (TestServer, TcpListener) {
    (start(builder().route("/ws/:room", handler)), TcpListener::bind("127.0.0.1:0").unwrap())
}

fn pair(listener: &TcpListener) -> (Client, TcpStream) {
    let client = Client::dial(listener.local_addr().unwrap());
    (client, listener.accept().unwrap().0)
}

/// What the host program reads of the stream before it hands it over.
fn read(socket: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    socket.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_socket_is_adopted_after_any_part_of_its_request() {
    let (handler, events) = recorder();
    let handler = handler
        .on_upgrade(|request| Ok(Accept::new(request.param("room").unwrap().to_owned())))
        .on_message(|conn, message| {
            let answer = format!("{} {}", conn.state, message.as_text().unwrap());
            conn.send(&answer).unwrap();
        });
    let (server, listener) = host(handler);
    let request = upgrade_request("/ws/bell", "");
    let mut all = request.clone().into_bytes();
    all.extend(frame(true, TEXT, b"early"));
    for read_before in [0, 1, 20, request.len() - 1, request.len(), request.len() + 3, all.len()] {
        let (mut client, mut socket) = pair(&listener);
        client.send(&all);
        let received = read(&mut socket, read_before);
        server.handle.adopt(socket, received).unwrap();
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("sec-websocket-accept")),
            (101, Some(ACCEPT)),
            "{read_before}"
        );
        assert_eq!(client.read_text(), "bell early", "{read_before}");
        client.text("more");
        assert_eq!(client.read_text(), "bell more");
        client.close(1000, "");
        client.expect_failed(1000);
        assert!(events.closed().was_clean);
    }
    server.until("all are closed", |s| s.sockets == 0);
}

#[test]
fn an_adopted_socket_may_send_the_rest_of_its_request() {
    let (server, listener) = host(echo());
    let (mut client, mut socket) = pair(&listener);
    let request = upgrade_request("/ws/bell", "");
    client.send(&request[..40]);
    let received = read(&mut socket, 40);
    server.handle.adopt(socket, received).unwrap();
    server.settle();
    client.send(&request[40..]);
    assert_eq!(client.answer().status, 101);
    client.text("here");
    assert_eq!(client.read_text(), "here");
}

#[test]
fn a_socket_is_adopted_after_the_host_has_answered_101_itself() {
    let (handler, events) = recorder();
    let handler = handler
        .on_open(|conn| {
            let hello = format!("{} {:?} {}", conn.state, conn.protocol(), conn.route());
            conn.send(&hello).unwrap();
        })
        .on_message(|conn, message| {
            conn.send(message).unwrap();
        });
    let (server, listener) = host(handler);
    for early in [&b""[..], &frame(true, TEXT, b"early"), &frame(true, TEXT, b"early")[..7]] {
        let (mut client, mut socket) = pair(&listener);
        let peer = client.local_addr();
        let request = upgrade_request("/anything/the/host/likes", "");
        client.send(&request);
        client.send(early);
        let received = read(&mut socket, request.len() + early.len()).split_off(request.len());
        let key = campanile::protocol::handshake::accept_key(support::KEY.as_bytes());
        write!(socket, "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {key}\r\n\r\n").unwrap();
        server.handle.adopt_open(socket, received, "/ws/:room", "Ann".to_owned(), Some("chat.v1")).unwrap();
        assert_eq!(client.answer().header("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(client.read_text(), "Ann Some(\"chat.v1\") /ws/:room");
        client.send(&frame(true, TEXT, b"early")[early.len()..]);
        assert_eq!(client.read_text(), "early");
        let id = events.opened();
        let infos = server.handle.connections("/ws/:room").wait().unwrap();
        let info = infos.iter().find(|c| c.id == id).unwrap();
        assert_eq!((info.peer.to_string(), info.protocol.as_deref()), (peer.to_string(), Some("chat.v1")));
        client.reset();
        events.closed();
    }
}

#[test]
fn a_state_of_the_wrong_type_and_an_unknown_route_are_refused() {
    let (server, listener) = host(echo());
    let (mut client, socket) = pair(&listener);
    let keep = socket.try_clone().unwrap();
    let wrong = server.handle.adopt_open(socket, Vec::new(), "/ws/:room", 42u32, None);
    assert_eq!(wrong, Err(HandleError::WrongState));
    let unknown = server.handle.adopt_open(keep, Vec::new(), "/nowhere", String::new(), None);
    assert!(matches!(unknown, Err(HandleError::NoRoute { .. })), "{unknown:?}");
    client.expect_eof(); // a refused socket is closed
    assert_eq!(server.handle.stats().accepted, 0);
}

#[test]
fn an_unconnected_socket_is_refused() {
    let (server, listener) = host(echo());
    assert!(matches!(server.handle.adopt(listener, Vec::new()), Err(HandleError::Socket(_))));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(server.handle.adopt(file, Vec::new()), Err(HandleError::Socket(_))));
}

#[test]
fn a_unix_socket_is_adopted() {
    let (server, _listener) = host(echo());
    let (ours, theirs) = UnixStream::pair().unwrap();
    server.handle.adopt(theirs, Vec::new()).unwrap();
    let mut client = Client::over(ours.into());
    client.upgrade("/ws/bell");
    client.text("over a pair");
    assert_eq!(client.read_text(), "over a pair");
}

#[test]
fn a_duplicate_of_an_adopted_socket_does_not_matter() {
    let (handler, events) = recorder();
    let (server, listener) = host(handler);
    let (mut client, socket) = pair(&listener);
    let copy = socket.try_clone().unwrap();
    server.handle.adopt(socket, Vec::new()).unwrap();
    client.upgrade("/ws/bell");
    let id = events.opened();
    server.handle.terminate(id).unwrap();
    events.closed();
    server.until("it is closed here", |s| s.sockets == 0);
    // The copy keeps the connection up; what comes on it must not wake or hurt the worker.
    client.text("to nobody");
    let mut next = server.open("/ws/next");
    let before = server.handle.stats().iterations;
    next.expect_nothing_until_pong();
    assert!(server.handle.stats().iterations - before < 20);
    drop(copy);
    client.expect_gone();
}

#[test]
fn an_adopted_socket_gets_plain_http_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server =
        start(builder().get("/", |_: &campanile::Request<'_>| campanile::Response::new(200).text("hello\n")));
    let (mut client, socket) = pair(&listener);
    server.handle.adopt(socket, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT".to_vec()).unwrap();
    assert_eq!(client.answer().text(), "hello\n");
    client.send("TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "hello\n");
}

#[test]
fn a_socket_whose_client_has_left_is_cleaned_up() {
    let (handler, events) = recorder();
    let (server, listener) = host(handler);
    let (client, socket) = pair(&listener);
    drop(client);
    server.handle.adopt(socket, Vec::new()).unwrap();
    server.settle();
    server.until("it is closed", |s| s.accepted == 1 && s.sockets == 0);
    let (client, socket) = pair(&listener);
    drop(client);
    server.handle.adopt_open(socket, Vec::new(), "/ws/:room", String::new(), None).unwrap();
    events.opened();
    assert!(!events.closed().was_clean);
    server.until("it is closed", |s| s.sockets == 0);
}

//! What the client's tests share: waiting for its events, and servers that say every byte themselves.

use crate::support::{DEADLINE, TestServer, millis};
use campanile::client::{Client, ClientEvent, Close, Data, Error, NoEvent, Reconnect};
use campanile::protocol::handshake::accept_key;
use campanile::{CloseCode, ReadyState};
use socket2::{Domain, Socket, Type};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

pub(crate) fn url(server: &TestServer) -> String {
    format!("ws://{}/", server.addr)
}

/// A client that comes back at once.
pub(crate) fn soon() -> Reconnect {
    Reconnect::default().initial_delay(millis(1)).max_delay(millis(20))
}

#[track_caller]
pub(crate) fn next(client: &Client) -> ClientEvent {
    client.next(DEADLINE).expect("an event")
}

#[track_caller]
pub(crate) fn expect_open(client: &Client) {
    let event = next(client);
    assert!(matches!(event, ClientEvent::Open), "{event:?}");
}

#[track_caller]
pub(crate) fn expect_message(client: &Client) -> Data {
    match next(client) {
        ClientEvent::Message(data) => data,
        other => panic!("no message: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn expect_text(client: &Client, text: &str) {
    assert_eq!(expect_message(client), Data::Text(text.into()));
}

#[track_caller]
pub(crate) fn expect_error(client: &Client) -> Error {
    match next(client) {
        ClientEvent::Error(error) => error,
        other => panic!("no error: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn expect_close(client: &Client) -> Close {
    match next(client) {
        ClientEvent::Close(close) => close,
        other => panic!("no close: {other:?}"),
    }
}

/// The last event has come: the connection ended so, and there is no other.
#[track_caller]
pub(crate) fn expect_end(client: &Client, code: u16, was_clean: bool) -> Close {
    let close = expect_close(client);
    assert_eq!((close.code, close.was_clean, close.will_reconnect), (CloseCode(code), was_clean, false));
    assert_eq!(client.next(DEADLINE).unwrap_err(), NoEvent::Ended);
    assert_eq!(client.ready_state(), ReadyState::Closed);
    close
}

pub(crate) fn open(url: &str) -> Client {
    let client = Client::connect(url).expect("a client");
    expect_open(&client);
    client
}

/// A server that is one function, called for the first connection after that has sent its request.
pub(crate) fn scripted<T: Send + 'static>(
    script: impl FnOnce(TcpStream, String) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let thread = std::thread::spawn(move || {
        let (socket, request) = accept(&listener);
        script(socket, request)
    });
    (addr, thread)
}

/// An address that nobody listens on and nobody else gets, for as long as the socket lives.
pub(crate) fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("so that a server may have it too");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let addr = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("an address");
    (socket, addr)
}

pub(crate) fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut socket, _) = listener.accept().expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("a request");
        head.push(byte[0]);
    }
    (socket, String::from_utf8(head).expect("text"))
}

/// The answer to a request, without what follows.
pub(crate) fn agree(request: &str, more: &str) -> String {
    let line = request.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    format!(
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n{more}\r\n",
        accept_key(line.as_bytes())
    )
}

pub(crate) fn read_to_end(mut socket: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = socket.read_to_end(&mut all); // a reset ends it as well
    all
}

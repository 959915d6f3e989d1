//! A name with several addresses, of which some serve and some do not.

use crate::client::prepare::NAMES;
use crate::client::{Client, ClientEvent, ClientLimits, Error, HandshakeError, Reconnect};
use crate::protocol::handshake::accept_key;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);

/// An address whose kernel drops every SYN, since nobody takes the connections that fill its queue.
fn dead() -> (Socket, Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let fill = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&addr.into());
        socket
    };
    (listener, (0..4).map(|_| fill()).collect(), addr)
}

fn named(name: &str, addrs: &[SocketAddr]) -> String {
    NAMES.lock().unwrap().push((name.to_owned(), addrs.to_vec()));
    format!("ws://{name}:1/")
}

fn request(listener: &TcpListener) -> (TcpStream, String) {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (socket, String::from_utf8(head).unwrap())
}

/// Serves one WebSocket.
fn serve(listener: &TcpListener) -> TcpStream {
    let (mut socket, request) = request(listener);
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(answer.as_bytes()).unwrap();
    socket
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn soon() -> Reconnect {
    Reconnect::default().initial_delay(Duration::from_millis(1)).max_delay(Duration::from_millis(1))
}

#[test]
fn a_silent_first_address_delays_the_first_connection_only() {
    let (_held, _fill, dead) = dead();
    let (listener, addr) = listen();
    let url = named("dead-first.test", &[dead, addr]);
    let server = std::thread::spawn(move || {
        drop(serve(&listener));
        let begun = Instant::now();
        drop(serve(&listener));
        begun.elapsed()
    });
    let begun = Instant::now();
    let client = Client::builder(&url).reconnect(soon()).connect().unwrap();
    assert!(matches!(client.next(DEADLINE), Ok(ClientEvent::Open)));
    let first = begun.elapsed();
    assert!(first < Duration::from_secs(4), "{first:?} of the 15 s that a try has");
    let again = server.join().unwrap();
    assert!(again < Duration::from_secs(1), "{again:?} to come back to the address that served");
}

#[test]
fn an_address_without_a_websocket_is_tried_last_next_time() {
    let ((broken, broken_addr), (listener, addr)) = (listen(), listen());
    let url = named("broken-first.test", &[broken_addr, addr]);
    let server = std::thread::spawn(move || {
        let (mut socket, _) = request(&broken);
        socket.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap();
        serve(&listener)
    });
    let client = Client::builder(&url).reconnect(soon()).connect().unwrap();
    let mut events = client.events(DEADLINE);
    let error =
        events.find_map(|event| if let ClientEvent::Error(error) = event { Some(error) } else { None });
    assert_eq!(error, Some(Error::Handshake(HandshakeError::NotHttp)));
    assert!(events.any(|event| matches!(event, ClientEvent::Open)));
    drop(server.join().unwrap());
}

#[test]
fn an_attempt_without_an_answer_ends_at_the_connect_timeout() {
    let ((_a, _b, one), (_c, _d, two)) = (dead(), dead());
    let limit = Duration::from_millis(300);
    let limits = ClientLimits { connect_timeout: limit, ..ClientLimits::default() };
    let url = named("dead.test", &[one, two]);
    let client = Client::builder(&url).limits(limits).connect().unwrap();
    let Ok(ClientEvent::Error(error)) = client.next(DEADLINE) else { panic!("an error") };
    assert!(matches!(error, Error::ConnectTimeout { .. } | Error::Connect { .. }), "{error}");
}

//! The client against servers that mean harm: they go on after their end, lead in circles, or never come to the point.

use crate::support::clients::*;
use crate::support::{DEADLINE, millis};
use campanile::client::{Client, ClientLimits, Error, HandshakeError};
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

/// Sends this again and again, until the other side has gone. How many bytes that were.
fn flood(mut socket: TcpStream, piece: &[u8]) -> usize {
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    let begun = Instant::now();
    let mut sent = 0;
    while socket.write_all(piece).is_ok() {
        sent += piece.len();
        assert!(begun.elapsed() < DEADLINE, "the client goes on reading");
    }
    sent
}

#[test]
fn data_after_the_servers_close_frame_is_discarded_until_the_timeout() {
    let mut limits = ClientLimits::default();
    limits.close_timeout = millis(200);
    let message = [&[0x82, 126, 0xFF, 0xFF][..], &[7; 0xFFFF]].concat();
    for (close, code, was_clean) in [(&[0x88, 2, 0x03, 0xE9][..], 1001, true), (&[0x88, 1, 0], 1006, false)] {
        let message = message.clone();
        let (addr, server) = scripted(move |mut socket, request| {
            socket.write_all(agree(&request, "").as_bytes()).unwrap();
            socket.write_all(close).unwrap();
            flood(socket, &message)
        });
        let client = Client::builder(&format!("ws://{addr}/")).limits(limits).connect().unwrap();
        expect_open(&client);
        if !was_clean {
            assert!(matches!(expect_error(&client), Error::Protocol(_)));
        }
        expect_end(&client, code, was_clean);
        assert!(server.join().unwrap() > 1 << 20, "it was read away, so that the close frame was not lost");
    }
}

#[test]
fn a_server_that_ignores_close_is_dropped_at_the_timeout() {
    let mut limits = ClientLimits::default();
    limits.close_timeout = millis(200);
    let (addr, server) = scripted(|mut socket, request| {
        socket.write_all(agree(&request, "").as_bytes()).unwrap();
        flood(socket, &[&[0x82, 126, 0xFF, 0xFF][..], &[7; 0xFFFF]].concat())
    });
    let client = Client::builder(&format!("ws://{addr}/")).limits(limits).connect().unwrap();
    expect_open(&client);
    client.close(1000, "").unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut failed = false;
    while let Ok(event) = client.next_before(deadline) {
        failed |= matches!(event, campanile::client::ClientEvent::Error(Error::CloseTimeout { .. }));
    }
    assert!(failed && Instant::now() < deadline);
    server.join().unwrap();
}

#[test]
fn circular_redirects_stop_at_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for n in 0..=20 {
            let (mut socket, request) = accept(&listener);
            assert!(request.starts_with(&format!("GET /{n} ")), "{request}");
            let answer = format!("HTTP/1.1 302 On\r\nLocation: /{}\r\n\r\n", n + 1);
            socket.write_all(answer.as_bytes()).unwrap();
        }
        listener
    });
    let client = Client::builder(&format!("ws://{addr}/0")).redirects(20).connect().unwrap();
    assert!(matches!(expect_error(&client), Error::Redirect { followed: 20, .. }));
    expect_end(&client, 1006, false);
    let listener = server.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "no request more");
}

#[test]
fn an_endless_handshake_response_is_refused() {
    for (piece, expected) in [
        (&b"HTTP/1.1 101 Switching Protocols\r\nX: "[..], HandshakeError::TooLong),
        (&[b'a'; 1000], HandshakeError::NotHttp),
        (&[0xFF, 0xFE, 0x00], HandshakeError::NotHttp),
    ] {
        let (addr, server) = scripted(move |mut socket, _| {
            socket.write_all(piece).unwrap();
            flood(socket, &[b'x'; 1000])
        });
        let client = Client::connect(&format!("ws://{addr}/")).unwrap();
        assert_eq!(expect_error(&client), Error::Handshake(expected));
        expect_end(&client, 1006, false);
        server.join().unwrap();
    }
}

/// A byte each time that the client may think something comes.
#[test]
fn a_slow_handshake_response_times_out() {
    let limit = millis(100);
    let mut limits = ClientLimits::default();
    limits.handshake_timeout = limit;
    let (addr, server) = scripted(|mut socket, _| {
        socket.write_all(b"HTTP/1.1 101 x\r\nX: ").unwrap();
        let begun = Instant::now();
        while socket.write_all(b"x").is_ok() {
            std::thread::park_timeout(millis(1));
            assert!(begun.elapsed() < DEADLINE, "the client goes on waiting");
        }
    });
    let client = Client::builder(&format!("ws://{addr}/")).limits(limits).connect().unwrap();
    assert_eq!(expect_error(&client), Error::HandshakeTimeout { limit });
    expect_end(&client, 1006, false);
    server.join().unwrap();
}

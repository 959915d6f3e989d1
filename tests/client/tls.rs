//! The client on `wss://`, against this crate's own server.

use crate::support::clients::*;
use crate::support::tls::{Authority, start_tls};
use crate::support::{DEADLINE, TestServer, builder, echo, limits, millis, recorder, serve};
use campanile::client::{Client, ClientBuilder, ClientEvent, ClientLimits, Error, Trust};
use campanile::deflate::Deflate;
use campanile::{Accept, Route};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use std::io::{self, Write};
use std::net::TcpListener;

fn client(server: &TestServer, trust: &Trust) -> ClientBuilder {
    Client::builder(&format!("wss://localhost:{}/", server.addr.port())).trust(trust)
}

fn generous() -> Route {
    Route::new(echo()).deflate(Deflate::dedicated(15)).limits(limits(|l| {
        l.max_message_size = 20 << 20;
        l.max_backlog = 64 << 20;
    }))
}

#[test]
fn messages_of_all_sizes_are_echoed_over_tls() {
    let authority = Authority::new();
    let server = start_tls(builder().route("/", generous()), &authority.tls());
    let trust = Trust::authorities(authority.pem()).unwrap();
    for deflate in [Deflate::off(), Deflate::shared(), Deflate::dedicated(15).threshold(0)] {
        let client = client(&server, &trust).deflate(deflate).connect().unwrap();
        expect_open(&client);
        assert_eq!(client.extensions().is_empty(), !deflate.is_on());
        for size in [0, 1, 125, 126, 16_383, 16_385, 65_536, 1 << 20, 16 << 20] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251) as u8).collect();
            client.send(&bytes).unwrap();
            assert!(expect_message(&client).as_bytes() == bytes, "{size}");
        }
        // Many at once, which are sealed together.
        for n in 0..2000 {
            client.send(&n.to_string()).unwrap();
        }
        (0..2000).for_each(|n| expect_text(&client, &n.to_string()));
        client.close(1000, "done").unwrap();
        expect_end(&client, 1000, true);
    }
    server.until("all have gone", |s| s.sockets == 0);
}

#[test]
fn a_client_trusts_the_authorities_it_is_given() {
    let (authority, other) = (Authority::new(), Authority::new());
    let pair = authority.issue(&["localhost"]);
    let tls = campanile::Tls::new(pair.certificate()).unwrap();
    let server = start_tls(builder().route("/", echo()), &tls);
    let rustls::SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { unreachable!() };
    let mut digest = [0; 32];
    digest.copy_from_slice(suite.common.hash_provider.hash(&pair.der()).as_ref());
    let pinned = Trust::pinned(digest).unwrap();
    let elsewhere = |trust: &Trust| Client::builder(&format!("wss://{}/", server.addr)).trust(trust);
    for builder in [
        client(&server, &Trust::authorities(authority.pem()).unwrap()),
        client(&server, &pinned),
        elsewhere(&pinned),
        elsewhere(&Trust::danger_accept_any_certificate().unwrap()),
    ] {
        expect_open(&builder.connect().unwrap());
    }
    digest[0] ^= 1;
    for builder in [
        client(&server, &Trust::authorities(other.pem()).unwrap()),
        client(&server, &Trust::pinned(digest).unwrap()),
        elsewhere(&Trust::authorities(authority.pem()).unwrap()),
    ] {
        let client = builder.connect().unwrap();
        let error = expect_error(&client);
        assert!(matches!(error, Error::Certificate(_)), "{error:?}");
        expect_end(&client, 1006, false);
    }
    // No authority that this machine trusts vouches for it, or there is none at all.
    let client = Client::connect(&format!("wss://localhost:{}/", server.addr.port())).unwrap();
    let error = expect_error(&client);
    assert!(matches!(error, Error::Certificate(_) | Error::TlsConfig(_)), "{error:?}");
    assert!(Trust::authorities("nothing").is_err());
}

#[test]
fn a_server_without_tls_or_answer_is_an_error() {
    let trust = Trust::danger_accept_any_certificate().unwrap();
    let plain = serve(echo());
    let error = expect_error(&client(&plain, &trust).connect().unwrap());
    assert!(matches!(error, Error::Tls(_)), "{error:?}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut limits = ClientLimits::default();
    limits.handshake_timeout = millis(50);
    let to = format!("wss://{}/", silent.local_addr().unwrap());
    let client = Client::builder(&to).trust(&trust).limits(limits).connect().unwrap();
    assert_eq!(expect_error(&client), Error::HandshakeTimeout { limit: millis(50) });
    expect_end(&client, 1006, false);
}

#[test]
fn reconnecting_resumes_the_tls_session_unless_disabled() {
    let authority = Authority::new();
    let handler = recorder().0.on_upgrade(|request| {
        let resumed = request.tls().is_some_and(|tls| tls.resumed);
        Ok(Accept::new(String::new()).protocol(if resumed { "again" } else { "first" }))
    });
    let server = start_tls(builder().route("/", handler), &authority.tls());
    let trust = Trust::authorities(authority.pem()).unwrap();
    let said = |trust: &Trust| {
        let client = client(&server, trust).subprotocol("first").subprotocol("again").connect().unwrap();
        expect_open(&client);
        let said = client.protocol();
        client.close(1000, "").unwrap();
        expect_end(&client, 1000, true);
        said
    };
    assert_eq!([said(&trust), said(&trust)], ["first", "again"]);
    let stranger = trust.without_resumption();
    assert_eq!([said(&stranger), said(&stranger)], ["first", "first"]);
}

#[test]
fn tls_runs_through_a_proxy_tunnel() {
    let authority = Authority::new();
    let server = start_tls(builder().route("/", generous()), &authority.tls());
    let port = server.addr.port();
    let (addr, proxy) = scripted(move |mut socket, request| {
        assert!(request.starts_with(&format!("CONNECT localhost:{port} ")), "{request}");
        let mut there = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.write_all(b"HTTP/1.1 200 Go\r\n\r\n").unwrap();
        let (mut back, mut from) = (there.try_clone().unwrap(), socket.try_clone().unwrap());
        let answers = std::thread::spawn(move || {
            let _ = io::copy(&mut back, &mut from);
            let _ = from.shutdown(std::net::Shutdown::Write);
        });
        let seen = read_and_pass(&mut socket, &mut there);
        let _ = there.shutdown(std::net::Shutdown::Write);
        answers.join().unwrap();
        seen
    });
    let trust = Trust::authorities(authority.pem()).unwrap();
    let client = client(&server, &trust).proxy(&format!("http://{addr}")).connect().unwrap();
    expect_open(&client);
    client.send("a secret").unwrap();
    expect_text(&client, "a secret");
    client.close(1000, "").unwrap();
    expect_end(&client, 1000, true);
    let seen = proxy.join().unwrap();
    assert!(
        seen[0] == 22 && !seen.windows(4).any(|w| w == b"GET "),
        "a handshake of TLS and nothing in the clear"
    );
}

fn read_and_pass(from: &mut impl io::Read, to: &mut impl Write) -> Vec<u8> {
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut piece) {
        seen.extend_from_slice(&piece[..n]);
        let _ = to.write_all(&piece[..n]);
    }
    seen
}

#[test]
fn a_vanished_tls_server_is_noticed_and_reconnected_to() {
    let authority = Authority::new();
    let handler = recorder().0.on_message(|conn, _| conn.terminate());
    let server = start_tls(builder().route("/", handler), &authority.tls());
    let trust = Trust::authorities(authority.pem()).unwrap();
    let client = client(&server, &trust).reconnect(soon()).connect().unwrap();
    expect_open(&client);
    for _ in 0..3 {
        client.send("go").unwrap();
        while !matches!(client.next(DEADLINE), Ok(ClientEvent::Open)) {}
    }
}

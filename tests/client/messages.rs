//! The client against this crate's own server, against tungstenite's, and against servers that say every byte
//! themselves. Everything waits for an event with a deadline; nothing sleeps.

use crate::support;
use crate::support::clients::*;
use crate::support::{DEADLINE, echo, limits, millis, recorder, serve};
use campanile::client::{
    Client, ClientEvent, ClientLimits, Data, Error, HandshakeError, InvalidClose, InvalidProxy, NoEvent,
    NotOpened, Pool, ProxyError,
};
#[cfg(feature = "deflate")]
use campanile::protocol::ProtocolError;
use campanile::{Accept, CloseCode, Origins, ReadyState, Refuse, RefusedReason, Route};
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

// ---- messages ----

#[test]
fn messages_of_all_kinds_and_sizes_are_echoed() {
    let limits = limits(|l| {
        l.max_message_size = 20 << 20;
        l.max_backlog = 64 << 20;
    });
    let server = serve(Route::new(echo()).limits(limits));
    let client = open(&url(&server));
    assert_eq!(
        (client.ready_state(), client.protocol(), client.extensions()),
        (ReadyState::Open, "".into(), "".into())
    );
    client.send("gö").unwrap();
    client.send(&[0u8, 255, 1][..]).unwrap();
    client.send("").unwrap();
    expect_text(&client, "gö");
    assert_eq!(expect_message(&client), Data::Binary(vec![0, 255, 1]));
    expect_text(&client, "");
    for size in [125, 126, 65_535, 65_536, 1 << 20, 16 << 20] {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251) as u8).collect();
        client.send(&bytes).unwrap();
        assert!(expect_message(&client) == Data::Binary(bytes), "{size}");
    }
    assert_eq!(client.buffered_amount(), 0);
}

#[test]
fn concurrent_sends_from_threads_keep_messages_whole() {
    let server = serve(echo());
    let client = open(&url(&server));
    let senders: Vec<_> = (0..4)
        .map(|t| {
            let client = client.clone();
            std::thread::spawn(move || {
                for i in 0..500 {
                    client.send(&format!("{t} {i}")).unwrap();
                }
            })
        })
        .collect();
    let mut counts = [0; 4];
    for _ in 0..2000 {
        let data = expect_message(&client);
        let (t, i) = data.as_text().unwrap().split_once(' ').unwrap();
        let t: usize = t.parse().unwrap();
        assert_eq!(i.parse::<usize>().unwrap(), counts[t], "in the sender's order");
        counts[t] += 1;
    }
    senders.into_iter().for_each(|s| s.join().unwrap());
    assert_eq!(counts, [500; 4]);
}

#[test]
fn fragments_pings_and_frames_after_the_response_are_accepted() {
    let (addr, server) = scripted(|mut socket, request| {
        let mut bytes = agree(&request, "").into_bytes();
        bytes.extend(b"\x01\x02g\xc3\x89\x03one\x00\x00\x89\x03two\x80\x01\xb6\x88\x02\x03\xe9");
        for byte in bytes {
            socket.write_all(&[byte]).unwrap();
        }
        read_to_end(socket)
    });
    let client = open(&format!("ws://{addr}/"));
    expect_text(&client, "gö");
    expect_end(&client, 1001, true);
    let answers = server.join().unwrap();
    let unmasked = support_decode(answers);
    assert_eq!(unmasked, [(10, b"one".to_vec()), (10, b"two".to_vec()), (8, vec![3, 233])]);
}

/// Masked frames of at most 125 bytes, unmasked. No two may have the same key.
/// Opcodes and payloads.
type Frames = Vec<(u8, Vec<u8>)>;

fn support_decode(bytes: Vec<u8>) -> Frames {
    let (mut rest, mut frames, mut keys) = (&bytes[..], Vec::new(), Vec::new());
    while let [first, len, a, b, c, d, after @ ..] = rest {
        let (key, len) = ([*a, *b, *c, *d], usize::from(len & 0x7F));
        assert!(!keys.contains(&key), "a fresh key for each frame");
        keys.push(key);
        let payload = after[..len].iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
        frames.push((first & 0xF, payload));
        rest = &after[len..];
    }
    assert!(rest.is_empty());
    frames
}

#[test]
fn an_unread_event_queue_applies_backpressure_without_loss() {
    const COUNT: usize = 2000;
    let (handler, _) = recorder();
    let server_limits = limits(|l| l.max_backlog = 64 << 20);
    let handler = handler.on_open(|conn| {
        for i in 0..COUNT {
            conn.send(&vec![(i % 251) as u8; 8192]).unwrap();
        }
    });
    let server = serve(Route::new(handler).limits(server_limits));
    let mut limits = ClientLimits::default();
    limits.max_inbox = 64 << 10;
    let client = Client::builder(&url(&server)).limits(limits).connect().unwrap();
    client.wait_open(DEADLINE).unwrap();
    assert_eq!(client.wait_open(DEADLINE), Ok(()), "and takes no event");
    server.settle();
    expect_open(&client);
    for i in 0..COUNT {
        let data = expect_message(&client);
        assert!(data.as_bytes().len() == 8192 && data.as_bytes()[0] == (i % 251) as u8, "{i}");
    }
    client.close(1000, "").unwrap();
    expect_end(&client, 1000, true);
}

#[test]
fn a_full_backlog_returns_the_message() {
    let (release, held) = mpsc::channel::<()>();
    let (addr, server) = scripted(move |mut socket, request| {
        socket.write_all(agree(&request, "").as_bytes()).unwrap();
        held.recv_timeout(DEADLINE).unwrap();
        read_to_end(socket).len()
    });
    let mut limits = ClientLimits::default();
    limits.max_backlog = 1 << 20;
    limits.close_timeout = millis(500);
    let client = Client::builder(&format!("ws://{addr}/")).limits(limits).connect().unwrap();
    expect_open(&client);
    let message = vec![7; 100_000];
    let mut taken = 0;
    let refused = loop {
        match client.send(&message) {
            Ok(()) => taken += 1,
            Err(refused) => break (refused.reason, refused.message.len()),
        }
        assert!(taken < 1000, "there is a bound");
    };
    assert_eq!(refused, (RefusedReason::BacklogFull, 100_000));
    assert!(client.buffered_amount() > 900_000);
    client.close(1000, "").unwrap();
    assert_eq!(client.send("late").unwrap_err().reason, RefusedReason::NotOpen);
    release.send(()).unwrap();
    // The server never answers the close, but ends: everything had been written before.
    assert_eq!(expect_error(&client), Error::CloseTimeout { limit: millis(500) });
    expect_end(&client, 1006, false);
    assert!(server.join().unwrap() >= taken * 100_000);
}

// ---- opening ----

#[test]
fn subprotocols_headers_and_origin_reach_the_server() {
    let handler = recorder().0.on_upgrade(|request| {
        assert_eq!(request.header("x-bell"), Some(&b"big"[..]));
        assert_eq!(request.origin(), Some("http://bell.example"));
        assert_eq!(request.protocols().collect::<Vec<_>>(), ["a", "b"]);
        Ok(Accept::new(String::new()).protocol("b"))
    });
    let origins = Origins::list(["http://bell.example"]).unwrap();
    let server = serve(Route::new(handler).origins(origins));
    let client = Client::builder(&url(&server))
        .subprotocol("a")
        .subprotocol("b")
        .header("X-Bell", "big")
        .origin("http://bell.example")
        .connect()
        .unwrap();
    expect_open(&client);
    assert_eq!(client.protocol(), "b");
    assert_eq!(client.url().to_string(), url(&server));
}

#[test]
fn a_refused_handshake_says_its_status() {
    let handler = recorder().0.on_upgrade(|_| Err(Refuse::new(403).text("not you\n")));
    let server = serve(handler);
    let client = Client::connect(&url(&server)).unwrap();
    let error = expect_error(&client);
    let Error::Handshake(HandshakeError::Refused(response)) = &error else { panic!("{error:?}") };
    assert_eq!((response.status, &response.body[..]), (403, &b"not you\n"[..]));
    expect_end(&client, 1006, false);
    assert_eq!(client.wait_open(DEADLINE), Err(NotOpened::Ended(Some(error))));
    assert_eq!(client.send("x").unwrap_err().message, "x");
}

#[test]
fn invalid_settings_are_refused_at_once() {
    assert!(matches!(Client::connect("ftp://x/"), Err(Error::Url(_))));
    #[cfg(not(feature = "tls"))]
    assert!(matches!(Client::connect("wss://x/"), Err(Error::TlsNotBuiltIn { .. })));
    assert!(matches!(Client::builder("ws://x/").header("A", "b\n").connect(), Err(Error::Request(_))));
    assert!(matches!(Client::builder("ws://x/").subprotocol("a b").connect(), Err(Error::Request(_))));
}

#[test]
fn connect_errors_carry_address_name_and_timeout() {
    let (_held, addr) = nobody();
    let client = Client::connect(&format!("ws://{addr}/")).unwrap();
    assert_eq!(expect_error(&client), Error::Connect { addr, kind: ErrorKind::ConnectionRefused });
    expect_end(&client, 1006, false);

    let client = Client::connect("ws://no-such-host.invalid/").unwrap();
    let error = expect_error(&client);
    assert!(matches!(&error, Error::Resolve { host, .. } if host == "no-such-host.invalid"), "{error}");
    expect_end(&client, 1006, false);

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut limits = ClientLimits::default();
    limits.handshake_timeout = millis(50);
    let to = format!("ws://localhost:{}/", silent.local_addr().unwrap().port());
    let client = Client::builder(&to).limits(limits).connect().unwrap();
    assert_eq!(client.next(millis(1)).unwrap_err(), NoEvent::Timeout);
    assert_eq!(client.ready_state(), ReadyState::Connecting);
    assert_eq!(expect_error(&client), Error::HandshakeTimeout { limit: millis(50) });
    expect_end(&client, 1006, false);
}

#[test]
fn redirects_are_followed_on_request_without_credentials() {
    let server = serve(recorder().0.on_upgrade(|request| {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("x-bell"), Some(&b"big"[..]));
        Ok(Accept::new(String::new()))
    }));
    let there = format!("http://{}/", server.addr);
    for follow in [0, 1] {
        let location = there.clone();
        let (addr, scripted) = scripted(move |mut socket, request| {
            assert!(request.contains("\r\nAuthorization: secret\r\n"));
            let answer = format!("HTTP/1.1 307 There\r\nLocation: {location}\r\n\r\n");
            socket.write_all(answer.as_bytes()).unwrap();
        });
        let client = Client::builder(&format!("ws://{addr}/"))
            .header("Authorization", "secret")
            .header("X-Bell", "big")
            .redirects(follow)
            .reconnect(soon())
            .connect()
            .unwrap();
        if follow == 0 {
            let expected = Error::Redirect { status: 307, location: there.clone(), followed: 0 };
            assert_eq!(expect_error(&client), expected);
            expect_end(&client, 1006, false);
        } else {
            expect_open(&client);
            assert_eq!(client.url().to_string(), url(&server));
        }
        scripted.join().unwrap();
    }
}

// ---- closing ----

#[test]
fn either_side_can_close() {
    let (handler, events) = recorder();
    let server = serve(handler.on_message(|conn, _| conn.close(4005, "enough").unwrap()));
    let client = open(&url(&server));
    assert_eq!(client.close(1005, ""), Err(InvalidClose::Code(CloseCode(1005))));
    let long = "x".repeat(124);
    assert_eq!(client.close(1000, &long), Err(InvalidClose::ReasonTooLong { len: 124 }));
    client.close(3001, "done").unwrap();
    client.close(3002, "again").unwrap();
    // Closed, if the server was quick.
    assert!(matches!(client.ready_state(), ReadyState::Closing | ReadyState::Closed));
    expect_end(&client, 3001, true);

    let client = open(&url(&server));
    client.send("please").unwrap();
    assert_eq!(expect_end(&client, 4005, true).reason, "enough");
    server.until("both have gone", |s| s.sockets == 0);
    let ends = [events.closed(), events.closed()].map(|end| (end.code.0, end.was_clean));
    assert_eq!(ends, [(3001, true), (4005, true)]);
}

#[test]
fn dropping_the_last_handle_closes_with_1001() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let client = open(&url(&server));
    let other = client.clone();
    drop(client);
    other.send("still here").unwrap();
    drop(other);
    server.until("it has gone", |s| s.sockets == 0);
    assert_eq!(events.message(), b"still here");
    assert_eq!(events.closed().code, CloseCode::GOING_AWAY);
}

#[test]
fn a_vanished_or_misbehaving_server_is_an_unclean_close() {
    let server = serve(recorder().0.on_message(|conn, _| conn.terminate()));
    let client = open(&url(&server));
    client.send("go").unwrap();
    assert!(matches!(expect_error(&client), Error::Transport(_)));
    expect_end(&client, 1006, false);

    let (addr, server) = scripted(|mut socket, request| {
        let answer = agree(&request, "");
        socket.write_all(&[answer.as_bytes(), &[0x81, 0x81, 1, 2, 3, 4, 5]].concat()).unwrap();
        support_decode(read_to_end(socket))
    });
    let client = open(&format!("ws://{addr}/"));
    assert!(matches!(expect_error(&client), Error::Protocol(_)));
    expect_end(&client, 1006, false);
    assert_eq!(server.join().unwrap(), [(8, vec![3, 234])]);
}

/// A server that sends two messages and a frame that breaks the protocol at once, and gives what the client sent.
fn breaks_the_protocol() -> (SocketAddr, JoinHandle<Frames>) {
    scripted(|mut socket, request| {
        let answer = agree(&request, "");
        let frames = [0x81, 1, b'a', 0x82, 1, b'b', 0x83, 0, 0x81, 1, b'c'];
        socket.write_all(&[answer.as_bytes(), &frames].concat()).unwrap();
        support_decode(read_to_end(socket))
    })
}

#[test]
fn replies_to_earlier_messages_precede_the_close_frame_of_a_protocol_error() {
    let expected = [(1, b"a".to_vec()), (2, b"b".to_vec()), (8, vec![3, 234])];
    let (addr, server) = breaks_the_protocol();
    let client = open(&format!("ws://{addr}/"));
    for _ in 0..2 {
        let data = expect_message(&client);
        client.send(&data).expect("it is open until the error is taken");
    }
    assert!(matches!(expect_error(&client), Error::Protocol(_)));
    assert_eq!(client.send("c").unwrap_err().reason, RefusedReason::NotOpen);
    expect_end(&client, 1006, false);
    assert_eq!(server.join().unwrap(), expected);

    let (addr, server) = breaks_the_protocol();
    let _client = Client::builder(&format!("ws://{addr}/"))
        .connect_with(|client, event| {
            if let ClientEvent::Message(data) = event {
                client.send(&data).expect("as above");
            }
        })
        .unwrap();
    assert_eq!(server.join().unwrap(), expected);

    // Whom nobody listens to is told after a while, and at once where the application closes.
    for closes in [false, true] {
        let (addr, server) = breaks_the_protocol();
        let mut limits = ClientLimits::default();
        limits.close_timeout = if closes { DEADLINE } else { millis(50) };
        let client = Client::builder(&format!("ws://{addr}/")).limits(limits).connect().unwrap();
        if closes {
            expect_open(&client);
            while expect_message(&client).as_bytes() != b"b" {}
            client.close(1000, "").unwrap();
        }
        assert_eq!(server.join().unwrap(), [(8, vec![3, 234])], "{closes}");
    }
}

// ---- compression ----

#[cfg(feature = "deflate")]
#[test]
fn compressed_messages_are_limited_by_their_inflated_size() {
    use campanile::deflate::Deflate;
    let deflated = |d| Route::new(echo()).deflate(d).limits(limits(|l| l.max_message_size = 4 << 20));
    for (ours, theirs) in [
        (Deflate::shared(), Deflate::shared()),
        (Deflate::dedicated(15).threshold(0), Deflate::dedicated(15).threshold(0)),
        (Deflate::dedicated(9).threshold(0).level(9), Deflate::dedicated(12)),
        (Deflate::dedicated(15), Deflate::off()),
    ] {
        let server = serve(deflated(theirs));
        let client =
            Client::builder(&url(&server)).deflate(ours).max_message_size(1 << 20).connect().unwrap();
        expect_open(&client);
        assert_eq!(client.extensions().starts_with("permessage-deflate"), theirs.is_on());
        for text in ["", "short", &"again and again ".repeat(500), &"é".repeat(400_000)] {
            for _ in 0..2 {
                client.send(text).unwrap();
                expect_text(&client, text);
            }
            client.send(text.as_bytes()).unwrap();
            assert_eq!(expect_message(&client).as_bytes(), text.as_bytes());
        }
        // Small on the wire, and too large all the same.
        client.send(&vec![0; (1 << 20) + 1]).unwrap();
        let error = expect_error(&client);
        assert!(matches!(error, Error::Protocol(ProtocolError::MessageTooBig { .. })), "{error:?}");
    }
}

#[cfg(feature = "deflate")]
#[test]
fn a_server_may_not_choose_what_was_not_offered() {
    use campanile::deflate::Deflate;
    for (deflate, chosen, known) in [
        (Deflate::off(), "permessage-deflate", false),
        (Deflate::shared(), "permessage-deflate", true),
        (Deflate::dedicated(15), "x-webkit-deflate-frame", false),
        (Deflate::dedicated(15), "permessage-deflate, permessage-deflate", true),
    ] {
        let (addr, server) = scripted(move |mut socket, request| {
            let more = format!("Sec-WebSocket-Extensions: {chosen}\r\n");
            socket.write_all(agree(&request, &more).as_bytes()).unwrap();
        });
        let client = Client::builder(&format!("ws://{addr}/")).deflate(deflate).connect().unwrap();
        match expect_error(&client) {
            Error::Handshake(HandshakeError::Extension(x)) => {
                assert_eq!((x.as_str(), known), (chosen, false))
            }
            Error::Handshake(HandshakeError::Deflate(_)) => assert!(known, "{chosen}"),
            e => panic!("{chosen}: {e:?}"),
        }
        server.join().unwrap();
    }
}

// ---- proxies ----

/// A proxy for one connection: it answers like this, and then passes bytes on in both directions. Gives its request.
fn proxy(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
    scripted(move |mut socket, request| {
        if let Some(to) = request.strip_prefix("CONNECT ").and_then(|r| r.split(' ').next())
            && answer.starts_with("HTTP/1.1 200")
        {
            let mut server = TcpStream::connect(to).expect("the server");
            socket.write_all(answer.as_bytes()).unwrap();
            let (mut from, mut back) = (socket.try_clone().unwrap(), server.try_clone().unwrap());
            let thread = std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut server);
                let _ = server.shutdown(Shutdown::Write);
            });
            let _ = io::copy(&mut back, &mut socket);
            let _ = socket.shutdown(Shutdown::Write);
            thread.join().unwrap();
        } else {
            socket.write_all(answer.as_bytes()).unwrap();
            read_to_end(socket);
        }
        request
    })
}

#[test]
fn a_proxy_gets_connect_with_credentials() {
    let server = serve(echo());
    let (addr, proxy) = proxy("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n");
    let to = format!("ws://localhost:{}/", server.addr.port());
    let through = format!("http://bell:r%69ng@{addr}");
    let client = Client::builder(&to).proxy(&through).header("X-Bell", "big").connect().unwrap();
    expect_open(&client);
    let large = "x".repeat(60_000);
    for text in ["through", &large] {
        client.send(text).unwrap();
        expect_text(&client, text);
    }
    client.close(1000, "").unwrap();
    expect_end(&client, 1000, true);
    let request = proxy.join().unwrap();
    let port = server.addr.port();
    assert!(request.starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n")));
    assert!(request.contains("\r\nProxy-Authorization: Basic YmVsbDpyaW5n\r\n"), "{request}");
    assert!(!request.contains("X-Bell"), "the server's headers are not for the proxy");
}

#[test]
fn proxy_errors_carry_status_or_timeout() {
    let connect = |addr: SocketAddr, limits| {
        let through = format!("http://{addr}");
        Client::builder("ws://no-such-host.invalid/").proxy(&through).limits(limits).connect().unwrap()
    };
    for (answer, error) in [
        ("HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", ProxyError::Refused { status: 407 }),
        ("HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", ProxyError::Refused { status: 502 }),
        ("SSH-2.0-x\r\n", ProxyError::NotHttp),
    ] {
        let (addr, proxy) = proxy(answer);
        let client = connect(addr, ClientLimits::default());
        assert_eq!(expect_error(&client), Error::Proxy(error));
        expect_end(&client, 1006, false);
        assert!(
            proxy.join().unwrap().starts_with("CONNECT no-such-host.invalid:80 "),
            "a name for the proxy"
        );
    }
    let (addr, proxy) = proxy("");
    let mut limits = ClientLimits::default();
    limits.handshake_timeout = millis(50);
    let client = connect(addr, limits);
    assert_eq!(expect_error(&client), Error::HandshakeTimeout { limit: millis(50) });
    drop(client);
    proxy.join().unwrap();
    let (_held, addr) = nobody();
    let error = expect_error(&connect(addr, ClientLimits::default()));
    assert_eq!(error, Error::Connect { addr, kind: ErrorKind::ConnectionRefused });
    let refused = Client::builder("ws://x/").proxy("socks5://x").connect();
    assert!(matches!(refused, Err(Error::InvalidProxy(InvalidProxy::Scheme))));
}

#[test]
fn the_source_address_can_be_chosen() {
    let server = serve(recorder().0.on_upgrade(|request| {
        assert_eq!(request.peer().to_string().split(':').next(), Some("127.0.0.9"));
        Ok(Accept::new(String::new()))
    }));
    let from = std::net::IpAddr::from([127, 0, 0, 9]);
    let client = Client::builder(&url(&server)).local_address(from).connect().unwrap();
    expect_open(&client);
}

#[test]
fn close_before_open_cancels_the_attempt() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::builder(&format!("ws://{}/", silent.local_addr().unwrap()))
        .reconnect(soon())
        .connect()
        .unwrap();
    client.close(1000, "").unwrap();
    expect_end(&client, 1006, false);
}

// ---- heartbeat ----

#[test]
fn pings_are_answered_by_both_sides() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let client = Client::builder(&url(&server)).heartbeat(millis(20), DEADLINE).connect().unwrap();
    expect_open(&client);
    let id = events.opened();
    server.handle.ping(id, b"are you there?").unwrap();
    events.find("its pong", |e| match e {
        support::Event::Pong(_, payload) => (payload == b"are you there?").then_some(()),
        _ => None,
    });
    events.find("its ping", |e| matches!(e, support::Event::Ping(..)).then_some(()));
    client.close(1000, "").unwrap();
    expect_end(&client, 1000, true);
}

#[test]
fn a_silent_server_is_dropped_at_the_pong_timeout() {
    let (release, held) = mpsc::channel::<()>();
    let (addr, server) = scripted(move |mut socket, request| {
        socket.write_all(agree(&request, "").as_bytes()).unwrap();
        let _ = held.recv_timeout(DEADLINE);
    });
    let client =
        Client::builder(&format!("ws://{addr}/")).heartbeat(millis(20), millis(30)).connect().unwrap();
    expect_open(&client);
    assert_eq!(expect_error(&client), Error::PongTimeout { limit: millis(30) });
    expect_end(&client, 1006, false);
    drop(release);
    server.join().unwrap();
}

// ---- threads ----

#[test]
fn many_connections_share_a_thread() {
    let server = serve(echo());
    let pool = Pool::new(1).unwrap();
    let clients: Vec<Client> =
        (0..200).map(|_| Client::builder(&url(&server)).pool(&pool).connect().unwrap()).collect();
    drop(pool);
    for client in &clients {
        expect_open(client);
    }
    for (i, client) in clients.iter().enumerate() {
        client.send(&i.to_string()).unwrap();
    }
    for (i, client) in clients.iter().enumerate() {
        expect_text(client, &i.to_string());
        client.close(1000, "").unwrap();
    }
    for client in &clients {
        expect_end(client, 1000, true);
    }
}

#[test]
fn callbacks_run_on_their_own_thread() {
    let server = serve(echo());
    let (tell, told) = mpsc::channel();
    let here = std::thread::current().id();
    let client = Client::builder(&url(&server))
        .connect_with(move |client, event| {
            assert_ne!(std::thread::current().id(), here);
            assert_eq!(client.try_next().unwrap_err(), NoEvent::Ended, "events come here alone");
            match &event {
                ClientEvent::Open => client.send("hello").unwrap(),
                ClientEvent::Message(_) => client.close(1000, "heard").unwrap(),
                _ => {}
            }
            tell.send(event).unwrap();
        })
        .unwrap();
    drop(client); // it lives on by itself
    let next = || told.recv_timeout(DEADLINE).expect("an event");
    assert!(matches!(next(), ClientEvent::Open));
    assert!(matches!(next(), ClientEvent::Message(Data::Text(t)) if t == "hello"));
    assert!(matches!(next(), ClientEvent::Close(close) if close.was_clean));
    assert!(told.recv_timeout(DEADLINE).is_err(), "the callback is dropped when all is over");
}

#[test]
fn a_panicking_callback_ends_only_its_connection_with_1011() {
    let (handler, events) = recorder();
    let server = serve(handler.on_message(|conn, message| {
        let _ = conn.send(message);
    }));
    let pool = Pool::new(1).unwrap();
    let other = Client::builder(&url(&server)).pool(&pool).connect().unwrap();
    expect_open(&other);
    let _client = Client::builder(&url(&server))
        .pool(&pool)
        .reconnect(soon())
        .connect_with(|_, event| {
            assert!(!matches!(event, ClientEvent::Open), "a panic that belongs to this test")
        })
        .unwrap();
    assert_eq!(events.closed().code, CloseCode::INTERNAL);
    other.send("still here").unwrap();
    expect_text(&other, "still here");
}

// ---- another's server ----

#[test]
fn tungstenite_as_a_server_echoes_and_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut ws = tungstenite::accept(socket).unwrap();
            ws.send(tungstenite::Message::Ping(b"hi".as_slice().into())).unwrap();
            loop {
                match ws.read() {
                    Ok(m) if m.to_text().is_ok_and(|t| t == "close me") => {
                        let frame =
                            tungstenite::protocol::CloseFrame { code: 4000.into(), reason: "so".into() };
                        ws.close(Some(frame)).unwrap();
                    }
                    Ok(m) if m.is_text() || m.is_binary() => ws.send(m).unwrap(),
                    Ok(tungstenite::Message::Pong(p)) => assert_eq!(&p[..], b"hi"),
                    Ok(_) => {}
                    Err(tungstenite::Error::ConnectionClosed) => break,
                    Err(e) => panic!("{e}"),
                }
            }
        }
    });
    let client = open(&format!("ws://{addr}/"));
    for size in [0, 125, 126, 70_000, 2 << 20] {
        let text = "ab é ".repeat(size / 5);
        client.send(&text).unwrap();
        expect_text(&client, &text);
        client.send(text.as_bytes()).unwrap();
        assert!(expect_message(&client) == Data::Binary(text.into_bytes()));
    }
    client.close(1000, "bye").unwrap();
    expect_end(&client, 1000, true);

    let client = open(&format!("ws://{addr}/"));
    client.send("close me").unwrap();
    assert_eq!(expect_end(&client, 4000, true).reason, "so");
    server.join().unwrap();
}

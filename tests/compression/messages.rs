//! permessage-deflate over real connections: what is agreed on, what arrives, and what a hostile peer gets.

use crate::support;
use crate::support::packed::{Packed, SHARED, small_messages_too, text};
use crate::support::{Client, DEADLINE, TEXT, TestServer, builder, echo, limits, recorder, serve, start};
use campanile::Message;
use campanile::deflate::{Deflate, Deflater, History, Inflater};
use campanile::protocol::Kind;
use campanile::{Accept, Pending, Route, SlowConsumer};
use std::thread::spawn;

#[test]
fn an_echo_is_compressed() {
    let server = serve(Route::new(echo()).deflate(Deflate::shared()));
    let mut client = Packed::open(&server, "/", "permessage-deflate; client_max_window_bits", SHARED);
    for n in 0..3 {
        let message = text(n, 5000);
        client.text(&message);
        let (back, len) = client.read();
        assert_eq!(back, message);
        assert!(len.expect("compressed") < 2500);
    }
    // Compressed or not, as either end likes, message by message.
    client.client.text("short");
    assert_eq!(client.read(), ("short".to_owned(), None));
    server.until("three are counted", |s| s.deflated == 3 && s.inflated == 3 && s.deflate_skipped == 0);
}

#[test]
fn context_takeover_compresses_repeated_content() {
    let server = serve(Route::new(echo()).deflate(small_messages_too(Deflate::dedicated(12))));
    let mut client = Packed::open(
        &server,
        "/",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=12",
    );
    let message = text(1, 2000);
    let mut lens = [0; 3];
    for len in &mut lens {
        client.text(&message);
        let (back, n) = client.read();
        assert_eq!(back, message);
        *len = n.expect("compressed");
    }
    assert!(lens[1] * 4 < lens[0] && lens[2] * 4 < lens[0], "{lens:?}");
}

#[test]
fn offers_are_answered_as_the_rfc_says() {
    let server = start(
        builder()
            .route("/shared", Route::new(echo()).deflate(Deflate::shared()))
            .route("/dedicated", Route::new(echo()).deflate(Deflate::dedicated(11)))
            .route("/off", echo()),
    );
    for (path, offer, agreed) in [
        ("/shared", "permessage-deflate", Some(SHARED)),
        ("/shared", "x-other; a=b, permessage-deflate; client_max_window_bits=10", Some(SHARED)),
        (
            "/shared",
            "permessage-deflate; server_max_window_bits=9",
            Some(
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9",
            ),
        ),
        ("/shared", "permessage-deflate; server_max_window_bits=8", None),
        ("/shared", "permessage-deflate; server_max_window_bits=16, permessage-deflate", Some(SHARED)),
        ("/shared", "permessage-deflate; nonsense", None),
        ("/shared", "permessage-deflate; client_max_window_bits=\"10\"; client_max_window_bits", None),
        ("/shared", ";;;,=,\"", None),
        ("/dedicated", "permessage-deflate", Some("permessage-deflate; client_no_context_takeover")),
        (
            "/dedicated",
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
            Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"),
        ),
        ("/off", "permessage-deflate", None),
    ] {
        let mut client = server.dial();
        let answer = client.ask(path, &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        assert_eq!(
            (answer.status, answer.header("sec-websocket-extensions")),
            (101, agreed),
            "{path} {offer}"
        );
    }
}

/// Six clients that listen to the same topic, agreed on different things.
fn listeners(server: &TestServer) -> (Vec<Packed>, Client) {
    let own = |w: &str| (format!("permessage-deflate; {w}"), format!("{SHARED}; {w}"));
    let (nine, agreed_on_nine) = own("server_max_window_bits=9");
    let dedicated = "permessage-deflate; client_max_window_bits=11";
    let packed = vec![
        Packed::open(server, "/shared", "permessage-deflate", SHARED),
        Packed::open(server, "/shared", "permessage-deflate", SHARED),
        Packed::open(server, "/shared", &nine, &agreed_on_nine),
        Packed::open(server, "/dedicated", "permessage-deflate; client_max_window_bits", dedicated),
        Packed::open(server, "/dedicated", "permessage-deflate; client_max_window_bits", dedicated),
    ];
    (packed, server.open("/plain"))
}

fn bells(workers: usize) -> TestServer {
    let bell = || {
        recorder()
            .0
            .on_open(|conn| {
                conn.subscribe("bell").unwrap();
            })
            .on_message(|conn, message| match message.as_text() {
                Some(own) if own.starts_with("own ") => {
                    conn.send(message).unwrap();
                }
                _ => conn.publish("bell", message).unwrap(),
            })
    };
    let deflate = small_messages_too(Deflate::dedicated(11));
    start(
        builder()
            .workers(workers)
            .route("/shared", Route::new(bell()).deflate(small_messages_too(Deflate::shared())))
            .route("/dedicated", Route::new(bell()).deflate(deflate))
            .route("/plain", bell()),
    )
}

#[test]
fn a_broadcast_is_compressed_once_for_each_encoding() {
    for workers in [1, 2] {
        let server = bells(workers);
        let (mut packed, mut plain) = listeners(&server);
        for n in 0..4 {
            let message = text(n, 700);
            plain.text(&message);
            assert_eq!(plain.read_text(), message);
            for client in &mut packed {
                let (came, len) = client.read();
                assert_eq!(came, message);
                assert!(len.expect("compressed") < message.len());
            }
        }
        // Windows of 15 and 9 bits, and the dedicated route's.
        server.until("four messages in three forms", |s| s.deflated == 4 * 3);
    }
}

#[test]
fn direct_and_published_messages_share_the_compression_context() {
    let server = bells(1);
    let (mut packed, mut plain) = listeners(&server);
    for round in 0..5 {
        for (n, client) in packed.iter_mut().enumerate() {
            for again in 0..3 {
                let own = format!("own {}", text(10 * round + n + again, 400));
                client.text(&own);
                assert_eq!(client.read().0, own);
            }
        }
        let message = text(round, 900);
        plain.text(&message);
        assert_eq!(plain.read_text(), message);
        for client in &mut packed {
            assert_eq!(client.read().0, message);
        }
    }
}

#[test]
fn handles_reach_compressed_connections() {
    let (handler, events) = recorder();
    let server = serve(Route::new(handler).deflate(small_messages_too(Deflate::dedicated(15))));
    let mut client = Packed::open(&server, "/", "permessage-deflate", "permessage-deflate");
    let id = events.opened();
    let message = text(1, 3000);
    for _ in 0..2 {
        server.handle.send(id, &message).unwrap();
        server.handle.broadcast("/", &message).unwrap();
        server.handle.send(id, Message::text(&message).verbatim()).unwrap();
        server.handle.broadcast("/", Message::text(&message).verbatim()).unwrap();
        for compressed in [true, true, false, false] {
            let (came, len) = client.read();
            assert_eq!((came, len.is_some()), (message.clone(), compressed));
        }
    }
}

#[test]
fn droppable_messages_are_compressed_without_context() {
    let (handler, events) = recorder();
    let limits = limits(|l| l.max_backlog = 64 << 10);
    let route = Route::new(handler).limits(limits).slow_consumer(SlowConsumer::DropOldest);
    let server = serve(route.deflate(small_messages_too(Deflate::dedicated(15))));
    let slow = Client::dial_with(server.addr, Some(4 << 10));
    let mut client = Packed::over(slow, "/", "permessage-deflate", "permessage-deflate");
    let id = events.opened();
    // Each has its number and much in common with those before it, and does not get short alone.
    let noise: String =
        (0u64..1000).map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    for n in 0..2000 {
        server.handle.send(id, format!("{n} {noise}")).unwrap();
    }
    server.until("some are given up", |s| s.dropped > 0);
    server.handle.send(id, "end").unwrap();
    let (mut last, mut read) = (None, 0);
    loop {
        let (message, _) = client.read();
        if message == "end" {
            break;
        }
        let (number, rest) = message.split_once(' ').expect("a number");
        let number: u32 = number.parse().expect("a number");
        assert!(rest == noise && last < Some(number));
        (last, read) = (Some(number), read + 1);
    }
    assert!(read < 2000 && last == Some(1999), "{read}");
}

#[test]
fn a_compressed_message_comes_in_fragments_with_a_ping_between_them() {
    let server = serve(Route::new(echo()).deflate(Deflate::shared()));
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    let message = text(3, 4000);
    let mut packed = Vec::new();
    client.deflater.compress(message.as_bytes(), None, &mut packed);
    let (first, rest) = packed.split_at(packed.len() / 3);
    client.client.frame(false, 0x40 | TEXT, first);
    client.client.ping(b"?");
    for byte in &rest[..10] {
        client.client.frame(false, 0, &[*byte]);
    }
    client.client.frame(true, 0, &rest[10..]);
    assert_eq!(client.client.read_pong(), b"?");
    assert_eq!(client.read().0, message);
}

#[test]
fn close_frames_are_not_compressed() {
    let closing = recorder().0.on_message(|conn, _| conn.close(4000, &"x".repeat(120)).unwrap());
    let server = serve(Route::new(closing).deflate(small_messages_too(Deflate::shared())));
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    client.text("end");
    let frame = client.client.read_frame();
    assert_eq!((frame.rsv1, frame.opcode, frame.payload.len()), (false, 8, 122));
}

#[test]
fn messages_to_others_leave_the_context_unchanged() {
    let handler =
        recorder().0.on_open(|conn| assert!(conn.subscribe("bell").unwrap())).on_message(|conn, message| {
            conn.publish_to_others("bell", message).unwrap();
            conn.send(message).unwrap();
        });
    let server = serve(Route::new(handler).deflate(small_messages_too(Deflate::dedicated(15))));
    let mut client = Packed::open(&server, "/", "permessage-deflate", "permessage-deflate");
    let message = text(1, 2000);
    client.text(&message);
    let first = client.read().1.expect("compressed");
    client.text(&message);
    let second = client.read().1.expect("compressed");
    assert!(second * 4 < first, "{second} {first}");
}

#[test]
fn an_undecided_upgrade_keeps_compressed_messages() {
    let handler = echo().on_upgrade(|_| {
        let accept = |pending: Pending<String>| drop(spawn(|| pending.accept(Accept::new(String::new()))));
        Ok(Accept::later(DEADLINE, accept))
    });
    let server = serve(Route::new(handler).deflate(small_messages_too(Deflate::dedicated(15))));
    let mut client = server.dial();
    let request = support::upgrade_request("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let (mut deflater, mut sent) = (Deflater::new(15, 1), History::new(15));
    let mut all = request.into_bytes();
    let messages = [0, 1, 2].map(|_| text(7, 900));
    for message in &messages {
        let mut packed = Vec::new();
        deflater.compress(message.as_bytes(), Some(&mut sent), &mut packed);
        all.extend(support::frame(true, 0x40 | TEXT, &packed));
    }
    client.send(&all);
    let answer = client.answer();
    assert_eq!(answer.header("sec-websocket-extensions"), Some("permessage-deflate"));
    client.rsv1 = true;
    let (mut inflater, mut received) = (Inflater::new(), History::new(15));
    for message in &messages {
        let frame = client.read_frame();
        let mut back = Vec::new();
        inflater.inflate(&frame.payload, Some(&mut received), Kind::Text, 1 << 20, &mut back).unwrap();
        assert!(frame.rsv1 && back == message.as_bytes());
    }
}

//! Hostile and unusual peers of connections that compress: bombs, streams that are none, fragments, offers, slow readers.

use crate::support;
use crate::support::packed::{Packed, SHARED, small_messages_too, text};
use crate::support::{BINARY, Client, DEADLINE, TEXT, builder, echo, limits, recorder, serve, start};
use campanile::deflate::{Deflate, Deflater, History};
use campanile::protocol::Kind;
use campanile::{ReadyState, Route};

#[test]
fn invalid_deflate_or_text_ends_the_connection() {
    let server = serve(Route::new(echo()).deflate(Deflate::shared()));
    let open = || Packed::open(&server, "/", "permessage-deflate", SHARED);
    let fails = |send: &dyn Fn(&mut Packed), code: u16| {
        let mut client = open();
        send(&mut client);
        client.client.expect_failed(code);
    };
    // A block of the type that DEFLATE has not.
    fails(&|c| c.client.frame(true, 0x40 | BINARY, &[0x06, 1, 2, 3]), 1007);
    // Inflates to bytes that are no text.
    fails(
        &|c| {
            let mut packed = Vec::new();
            c.deflater.compress(&[0xFF; 100], None, &mut packed);
            c.client.frame(true, 0x40 | TEXT, &packed);
        },
        1007,
    );
    // RSV1 on a control frame, and on a continuation (RFC 7692 section 6.1).
    fails(&|c| c.client.frame(true, 0x40 | 9, b""), 1002);
    fails(
        &|c| {
            c.client.frame(false, 0x40 | TEXT, b"");
            c.client.frame(true, 0x40, b"");
        },
        1002,
    );
    let mut unasked = server.open("/");
    unasked.frame(true, 0x40 | TEXT, b"");
    unasked.expect_failed(1002);
}

/// Bytes that don't get shorter.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    });
    bytes.take(len).collect()
}

#[test]
fn a_message_that_compression_grew_over_the_limit_is_accepted() {
    const LIMIT: usize = 64 << 10;
    let limits = limits(|l| l.max_message_size = LIMIT);
    let server = serve(Route::new(echo()).limits(limits).deflate(Deflate::shared()));
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    let message = noise(LIMIT);
    // One that does not even try, as a browser's for noise, and one that has small blocks.
    for mut deflater in [Deflater::new(15, 0), Deflater::new(9, 1)] {
        let mut packed = Vec::new();
        deflater.compress(&message, None, &mut packed);
        assert!(packed.len() > LIMIT);
        let (first, rest) = packed.split_at(LIMIT / 2);
        client.client.frame(true, 0x40 | BINARY, &packed);
        assert!(client.client.read_binary() == message);
        client.client.frame(false, 0x40 | BINARY, first);
        client.client.frame(true, 0, rest);
        assert!(client.client.read_binary() == message);
    }
    let mut packed = Vec::new();
    Deflater::new(15, 0).compress(&noise(LIMIT + 1), None, &mut packed);
    client.client.frame(true, 0x40 | BINARY, &packed);
    client.client.expect_failed(1009);
    // What is not compressed has no such reason.
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    client.client.frame(true, BINARY, &noise(LIMIT + 1));
    client.client.expect_failed(1009);
}

#[test]
fn large_inflated_messages_are_spread_over_iterations() {
    const BOMBS: usize = 30;
    let limits = limits(|l| l.max_message_size = 1 << 20);
    // Paused first, so that all of it is there when it goes on.
    let handler = recorder().0.on_message(|conn, message| {
        if message.as_text().is_some_and(|t| t == "pause") {
            conn.pause();
        } else if message.len() < 100 {
            conn.send(message).unwrap();
        }
    });
    let route = Route::new(handler).limits(limits).deflate(Deflate::dedicated(15));
    let server = start(builder().workers(1).route("/", route));
    let mut client = Packed::open(&server, "/", "permessage-deflate", "permessage-deflate");
    let mut packed = Vec::new();
    Deflater::new(15, 9).compress(&vec![0; 1 << 20], None, &mut packed);
    let mut all = support::frame(true, TEXT, b"pause");
    for _ in 0..BOMBS {
        all.extend(support::frame(true, 0x40 | BINARY, &packed));
        all.extend(support::frame(true, TEXT, b"between"));
    }
    assert!(all.len() < 256 << 10, "it is one read");
    client.client.send(&all);
    let id = server.handle.connections("/").wait().unwrap()[0].id;
    server.until("it is paused", |s| s.messages_in == 1);
    let before = server.handle.stats().iterations;
    server.handle.resume(id).unwrap();
    for _ in 0..BOMBS {
        assert_eq!(client.read().0, "between");
    }
    let iterations = server.handle.stats().iterations - before;
    assert!(iterations as usize >= BOMBS / 2 - 1, "{iterations} iterations");
    client.client.text("end");
    assert_eq!(client.read().0, "end");
}

#[test]
fn inflating_for_many_connections_is_fair() {
    const CLIENTS: usize = 40;
    let limits = limits(|l| l.max_message_size = 1 << 20);
    let handler = recorder().0.on_message(|conn, message| {
        if message.as_text().is_some_and(|t| t == "pause") {
            conn.pause();
        } else {
            conn.send(&message.len().to_string()).unwrap();
        }
    });
    let route = Route::new(handler).limits(limits).deflate(Deflate::shared());
    let server = start(builder().workers(1).route("/", route));
    let mut packed = Vec::new();
    Deflater::new(15, 9).compress(&vec![0; 1 << 20], None, &mut packed);
    let bomb = support::frame(true, 0x40 | BINARY, &packed);
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| Packed::open(&server, "/", "permessage-deflate", agreed)).collect();
    for client in &mut clients {
        client.client.send([support::frame(true, TEXT, b"pause"), bomb.clone(), bomb.clone()].concat());
    }
    server.until("all are paused", |s| s.messages_in == CLIENTS as u64);
    let ids: Vec<_> = server.handle.connections("/").wait().unwrap().iter().map(|c| c.id).collect();
    let before = server.handle.stats().iterations;
    for id in ids {
        server.handle.resume(id).unwrap();
    }
    for client in &mut clients {
        assert_eq!([client.read().0, client.read().0], ["1048576", "1048576"]);
    }
    let iterations = server.handle.stats().iterations - before;
    // 4 MiB and the message that is over it in each.
    assert!(iterations as usize >= 2 * CLIENTS / 5, "{iterations} iterations");
}

/// A client's compressed message in so many fragments.
fn fragments(packed: &[u8], count: usize) -> Vec<u8> {
    let size = packed.len() / count;
    let mut all = Vec::new();
    for n in 0..count {
        let end = if n + 1 == count { packed.len() } else { (n + 1) * size };
        let opcode = if n == 0 { 0x40 | TEXT } else { 0 };
        all.extend(support::frame(n + 1 == count, opcode, &packed[n * size..end]));
    }
    all
}

#[test]
fn compressed_fragments_are_limited() {
    const MOST: u32 = 10_000;
    let limits = limits(|l| {
        (l.max_fragments, l.max_message_size) = (MOST, 1 << 20);
    });
    let server = serve(Route::new(echo()).limits(limits).deflate(small_messages_too(Deflate::shared())));
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    let message = text(1, 50_000);
    let mut packed = Vec::new();
    client.deflater.compress(message.as_bytes(), None, &mut packed);
    client.client.send(fragments(&packed, MOST as usize));
    assert!(client.read().0 == message);
    client.client.send(fragments(&packed, MOST as usize + 1));
    client.client.expect_failed(1008);
}

#[test]
fn an_empty_message_has_many_compressed_forms() {
    let server = serve(Route::new(echo()).deflate(small_messages_too(Deflate::dedicated(15))));
    let mut client = Packed::open(&server, "/", "permessage-deflate", "permessage-deflate");
    for form in [
        &b""[..],
        &[0],                      // a stored block that the tail completes
        &[2, 0],                   // one with fixed codes
        &[3, 0],                   // the same, the last
        &[1, 0, 0, 0xFF, 0xFF],    // a stored one, the last
        &[0, 0, 0, 0xFF, 0xFF, 0], // two
        &[3, 0, 3, 0, 3, 0, 0],    // streams behind one another
    ] {
        client.client.frame(true, 0x40 | TEXT, form);
        assert_eq!(client.read(), (String::new(), None), "{form:?}");
        client.client.send(fragments(form, 3));
        assert_eq!(client.read(), (String::new(), None), "{form:?}");
    }
    client.text(&text(1, 500));
    assert_eq!(client.read().0, text(1, 500));
}

#[test]
fn an_incomplete_deflate_stream_is_refused() {
    let server = serve(Route::new(echo()).deflate(Deflate::dedicated(11)));
    let agreed = "permessage-deflate; client_max_window_bits=11";
    for cut in [
        &[0, 5, 0, 0xFA, 0xFF, b'a'][..], // four bytes of the stored block are missing
        &[0, 5],                          // the head is
        &[0x4A],                          // a code that is cut
        &[5, 0x81],                       // a table of codes that is
    ] {
        let mut client = Packed::open(&server, "/", "permessage-deflate; client_max_window_bits", agreed);
        client.client.frame(true, 0x40 | TEXT, cut);
        client.client.expect_failed(1007);
    }
    // Refers to what was never said, and further back than was agreed on.
    let mut client = Packed::open(&server, "/", "permessage-deflate; client_max_window_bits", agreed);
    let mut far = History::new(15);
    let mut packed = Vec::new();
    let (said, filler) = (noise(400), noise(4400));
    for message in [&said, &filler[400..].to_vec(), &said] {
        packed.clear();
        Deflater::new(15, 6).compress(message, Some(&mut far), &mut packed);
        client.client.frame(true, 0x40 | BINARY, &packed);
    }
    assert!(packed.len() < 100, "it refers to the first");
    let _ = (client.client.read_frame(), client.client.read_frame());
    client.client.expect_failed(1007);
}

#[test]
fn long_extension_offers_are_parsed_completely() {
    let server = serve(Route::new(echo()).deflate(Deflate::shared()));
    let lines = |value: &str, times: usize| format!("Sec-WebSocket-Extensions: {value}\r\n").repeat(times);
    for (offers, agreed) in [
        (lines(&"x-other; a=\"b,c\", ".repeat(300), 1), false),
        (lines(&"permessage-deflate; nonsense, ".repeat(200), 1), false),
        (lines(&"permessage-deflate; nonsense, ".repeat(10), 20) + &lines("permessage-deflate", 1), true),
        (lines(&format!("permessage-deflate{}", "; server_no_context_takeover".repeat(200)), 1), false),
        (lines(&"\"".repeat(7000), 1), false),
        (lines(&format!("permessage-deflate; server_max_window_bits=\"{}\"", "\\1".repeat(3000)), 1), false),
        (lines(&",".repeat(7000), 1) + &lines("permessage-deflate", 1), true),
    ] {
        let mut client = server.dial();
        let answer = client.ask("/", &offers);
        assert_eq!(
            (answer.status, answer.header("sec-websocket-extensions")),
            (101, agreed.then_some(SHARED))
        );
    }
}

#[test]
fn a_slow_reader_with_context_can_inflate_everything_until_its_close() {
    let (handler, events) = recorder();
    let limits = limits(|l| (l.max_backlog, l.close_timeout) = (64 << 10, DEADLINE));
    let route = Route::new(handler).limits(limits).deflate(small_messages_too(Deflate::dedicated(11)));
    let server = serve(route);
    let slow = Client::dial_with(server.addr, Some(128 << 10));
    let mut client =
        Packed::over(slow, "/", "permessage-deflate", "permessage-deflate; client_no_context_takeover");
    let id = events.opened();
    // Each begins with what the one before it ended with, and has much between that does not get shorter.
    let part = |n: u64, len: u64| -> String {
        (0..len).map(|i| format!("{:x}", (n << 32 | i).wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
    };
    let message = |n: u64| format!("{} {} {n} {}", part(n, 60), part(n + 1, 1000), part(n + 1, 60));
    let is_open =
        || server.handle.connection(id).wait().unwrap().is_some_and(|c| c.ready_state == ReadyState::Open);
    let mut sent = 0;
    while is_open() {
        for n in sent..sent + 16 {
            server.handle.send(id, message(n)).unwrap();
        }
        sent += 16;
    }
    let (mut read, mut referring) = (0, 0);
    let code = loop {
        let frame = client.client.read_frame();
        if frame.opcode == 8 {
            break u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
        }
        let mut came = Vec::new();
        if !frame.rsv1 {
            // The loop had fallen behind.
            assert!(frame.payload == message(read).into_bytes());
            read += 1;
            continue;
        }
        let history = client.received.as_mut();
        client.inflater.inflate(&frame.payload, history, Kind::Text, 1 << 20, &mut came).expect("DEFLATE");
        assert!(came == message(read).into_bytes());
        let alone = client.inflater.inflate(&frame.payload, None, Kind::Text, 1 << 20, &mut came);
        referring += u64::from(alone.is_err());
        read += 1;
    };
    assert_eq!(code, 1013);
    assert!(0 < referring && referring < read && read < sent, "{referring} of {read} of {sent}");
}

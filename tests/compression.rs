//! permessage-deflate over real connections: what is agreed on, what arrives, and what a hostile peer gets.

mod support;

use campanile::Message;
use campanile::deflate::{Deflate, Deflater, History, Inflater};
use campanile::protocol::Kind;
use campanile::{Accept, Pending, ReadyState, Route, SlowConsumer};
use std::thread::{sleep, spawn};
use support::{
    BINARY, Client, DEADLINE, TEXT, TestServer, builder, echo, limits, millis, recorder, resident, serve,
    start,
};

const SHARED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A client that compresses.
struct Packed {
    client: Client,
    deflater: Deflater,
    inflater: Inflater,
    sent: Option<History>,
    received: Option<History>,
}

impl Packed {
    /// Opens a WebSocket with this offer; the answer to it must be `agreed`.
    fn open(server: &TestServer, path: &str, offer: &str, agreed: &str) -> Self {
        Self::over(server.dial(), path, offer, agreed)
    }

    fn over(mut client: Client, path: &str, offer: &str, agreed: &str) -> Self {
        let answer = client.ask(path, &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-extensions"), Some(agreed));
        client.rsv1 = true;
        let history = |without: &str| (!agreed.contains(without)).then(|| History::new(15));
        Self {
            client,
            deflater: Deflater::new(9, 1),
            inflater: Inflater::new(),
            sent: history("client_no_context_takeover"),
            received: history("server_no_context_takeover"),
        }
    }

    fn text(&mut self, text: &str) {
        let mut packed = Vec::new();
        self.deflater.compress(text.as_bytes(), self.sent.as_mut(), &mut packed);
        self.client.frame(true, 0x40 | TEXT, &packed);
    }

    /// The next message, and how many bytes of payload it came in; `None`: uncompressed.
    fn read(&mut self) -> (String, Option<usize>) {
        let frame = self.client.read_frame();
        assert_eq!((frame.fin, frame.opcode), (true, TEXT));
        let mut text = Vec::new();
        if frame.rsv1 {
            let history = self.received.as_mut();
            self.inflater.inflate(&frame.payload, history, Kind::Text, 1 << 30, &mut text).expect("DEFLATE");
        } else {
            text.clone_from(&frame.payload);
        }
        (String::from_utf8(text).expect("UTF-8"), frame.rsv1.then_some(frame.payload.len()))
    }
}

/// Text of about so many bytes that gets shorter, different for each number.
fn text(n: usize, len: usize) -> String {
    (0..)
        .flat_map(|i| format!("{{\"bell\":{n},\"ring\":{},\"tone\":\"ä{i}\"}}", i * 7).into_bytes())
        .take(len)
        .map(char::from)
        .map(|c| if c.is_ascii() { c } else { 'ö' })
        .collect()
}

fn small_messages_too(deflate: Deflate) -> Deflate {
    deflate.threshold(16)
}

#[test]
fn an_echo_comes_back_compressed() {
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
fn with_context_a_message_costs_what_is_new_in_it() {
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
                _ => conn.publish_all("bell", message),
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
fn a_message_to_many_is_compressed_once_for_each_form_on_however_many_workers() {
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
fn what_goes_to_one_and_what_goes_to_all_share_a_connection_and_its_context() {
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
fn messages_that_may_be_given_up_refer_to_none_that_was() {
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
        server.handle.send(id, &format!("{n} {noise}")).unwrap();
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
fn what_is_no_deflate_or_no_text_ends_the_connection() {
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
fn a_bomb_costs_no_more_than_the_limit() {
    const LIMIT: usize = 4 << 20;
    let limits = limits(|l| l.max_message_size = LIMIT);
    let server = serve(Route::new(echo()).limits(limits).deflate(Deflate::shared()));
    let mut packed = Vec::new();
    // 1 GiB of zeros in a megabyte: 64 times the same, each with the tail that makes it end on a byte.
    Deflater::new(15, 9).compress(&vec![0; 16 << 20], None, &mut packed);
    packed.extend_from_slice(&[0, 0, 0xFF, 0xFF]);
    let mut packed = packed.repeat(64);
    packed.truncate(packed.len() - 4);
    assert!(packed.len() < LIMIT, "it would be refused for what it is");
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    let before = resident();
    client.client.frame(true, 0x40 | BINARY, &packed);
    client.client.expect_failed(1009);
    let cost = resident().saturating_sub(before);
    // The message as it came, what it was inflated to, and this test's own buffers.
    assert!(cost < LIMIT + 4 * packed.len(), "{cost} bytes");
}

/// A server that sends to each what it says, and for whatever begins with "slow" takes a while; and what takes both
/// that while and much to compress.
fn slow_server(threshold: usize) -> (TestServer, String) {
    let slow =
        recorder().0.on_open(|conn| assert!(conn.subscribe("bell").unwrap())).on_message(|conn, message| {
            if message.as_text().is_some_and(|t| t.starts_with("slow")) {
                sleep(millis(80));
            }
            if message.as_text().is_some_and(|t| t.ends_with("all")) {
                return conn.publish_all("bell", message);
            }
            conn.send(message).unwrap();
        });
    let limits = limits(|l| l.max_message_size = 4 << 20);
    let route = Route::new(slow).limits(limits).deflate(Deflate::shared().threshold(threshold));
    (serve(route), format!("slow {}", text(0, 1 << 20)))
}

/// Whether what comes back is compressed.
fn comes_compressed(client: &mut Packed, message: &str) -> bool {
    client.client.text(message);
    let (came, len) = client.read();
    assert!(came == message);
    len.is_some()
}

#[test]
fn a_loop_that_falls_behind_stops_compressing_until_it_has_caught_up() {
    let (server, much) = slow_server(16);
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    let quick = format!("quick {}", text(0, 500));
    assert!(comes_compressed(&mut client, &much), "nobody knew");
    assert!(!comes_compressed(&mut client, &quick), "the last turn took 80 ms");
    server.until("counted", |s| s.deflate_skipped == 1);
    let end = std::time::Instant::now() + DEADLINE;
    while !comes_compressed(&mut client, &quick) {
        assert!(std::time::Instant::now() < end, "it never catches up");
    }
}

#[test]
fn turns_that_are_long_for_another_reason_go_on_compressing_or_try_again() {
    let (server, much) = slow_server(16);
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    let slow = format!("slow {}", text(0, 500));
    for _ in 0..3 {
        assert!(comes_compressed(&mut client, &slow));
    }
    assert!(comes_compressed(&mut client, &much));
    let skipped = (0..100).take_while(|_| !comes_compressed(&mut client, &slow)).count();
    assert!((1..=16).contains(&skipped), "{skipped}");
    server.until("counted", |s| s.deflate_skipped == skipped as u64);
}

#[test]
fn closing_is_never_compressed() {
    let closing = recorder().0.on_message(|conn, _| conn.close(4000, &"x".repeat(120)));
    let server = serve(Route::new(closing).deflate(small_messages_too(Deflate::shared())));
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    client.text("end");
    let frame = client.client.read_frame();
    assert_eq!((frame.rsv1, frame.opcode, frame.payload.len()), (false, 8, 122));
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
fn what_only_compressing_made_larger_than_the_limit_is_taken() {
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
fn what_inflates_to_much_takes_many_turns() {
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
    let id = server.handle.connections("/").unwrap()[0].id;
    server.until("it is paused", |s| s.messages_in == 1);
    let before = server.handle.stats().turns;
    server.handle.resume(id).unwrap();
    for _ in 0..BOMBS {
        assert_eq!(client.read().0, "between");
    }
    let turns = server.handle.stats().turns - before;
    assert!(turns as usize >= BOMBS / 2 - 1, "{turns} turns");
    client.client.text("end");
    assert_eq!(client.read().0, "end");
}

#[test]
fn what_is_not_for_a_connection_leaves_its_context_alone() {
    let handler =
        recorder().0.on_open(|conn| assert!(conn.subscribe("bell").unwrap())).on_message(|conn, message| {
            conn.publish("bell", message);
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
fn as_many_fragments_as_allowed_are_inflated_and_no_more() {
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
fn a_stream_that_does_not_end_with_its_message_is_none() {
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
fn headers_full_of_offers_are_read_to_their_end() {
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
fn a_slow_reader_with_a_context_is_closed_and_understands_all_that_came() {
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
    let is_open = || server.handle.connection(id).unwrap().is_some_and(|c| c.ready_state == ReadyState::Open);
    let mut sent = 0;
    while is_open() {
        for n in sent..sent + 16 {
            server.handle.send(id, &message(n)).unwrap();
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

#[test]
fn short_messages_are_not_counted_as_skipped() {
    let (server, much) = slow_server(200);
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    assert!(comes_compressed(&mut client, &much));
    let messages = ["short", "short to all", &text(0, 200)];
    client.client.send(messages.map(|m| support::frame(true, TEXT, m.as_bytes())).concat());
    for message in messages {
        assert_eq!(client.read(), (message.to_owned(), None));
    }
    server.until("counted", |s| s.deflate_skipped > 0);
    assert_eq!(server.handle.stats().deflate_skipped, 1);
}

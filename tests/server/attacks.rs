//! Hostile input: each gets its close code or status at its bound, and a second client notices nothing.

use crate::support;
use crate::support::{
    BINARY, CLOSE, CONTINUATION, Client, DEADLINE, PING, PONG, TEXT, TestServer, builder, close_payload,
    echo, frame, head, limits, millis, recorder, serve, start, upgrade_request,
};
use campanile::endpoint::static_files::Files;
use campanile::{HttpLimits, Route};
use std::time::{Duration, Instant};

/// An echo with somebody on it who must not notice anything.
struct Scene {
    server: TestServer,
    healthy: Client,
}

impl Scene {
    fn new() -> Self {
        Self::with(serve(echo()))
    }

    fn with(server: TestServer) -> Self {
        let healthy = server.open("/");
        Self { server, healthy }
    }

    fn open(&self) -> Client {
        self.server.open("/")
    }

    fn all_is_well(&mut self) {
        self.healthy.text("all is well");
        assert_eq!(self.healthy.read_text(), "all is well");
        assert_eq!(self.server.handle.stats().panics, 0);
    }

    /// These bytes on a fresh connection end it with this code, whether they come at once or one by one.
    fn fails_with(&mut self, bytes: &[u8], code: u16) {
        for one_by_one in [false, true] {
            let mut client = self.open();
            if one_by_one {
                // It may end before the last byte; what is written then is of no interest.
                let _ = bytes.iter().try_for_each(|b| client.try_send(&[*b]));
            } else {
                client.send(bytes);
            }
            let (got, reason) = client.read_close();
            assert_eq!(got, code, "{reason} for {}", bytes.escape_ascii());
            client.expect_eof();
        }
        self.all_is_well();
    }
}

// ---- fragments (T1, T2, T3, T7) ----

#[test]
fn a_message_in_too_many_fragments_ends_with_1008() {
    let mut scene = Scene::new();
    let mut all = frame(false, TEXT, b"");
    for _ in 0..200_000 {
        all.extend(frame(false, CONTINUATION, b"A"));
    }
    let mut client = scene.open();
    let _ = client.try_send(&all); // the server stops reading what it wants no more
    assert_eq!(client.skip_to_close(), 1008);
    scene.all_is_well();
}

#[test]
fn empty_fragments_are_fragments() {
    let mut scene = Scene::new();
    let mut all = frame(false, BINARY, b"");
    all.extend(frame(false, CONTINUATION, b"").repeat(1023));
    let mut good = scene.open();
    good.send(&all);
    good.expect_nothing_until_pong();
    all.extend(frame(false, CONTINUATION, b""));
    scene.fails_with(&all, 1008);
}

#[test]
fn a_message_that_never_ends_is_ended_however_alive_its_sender_is() {
    let limits = limits(|l| {
        l.message_timeout = millis(300);
        l.ping_interval = millis(50);
    });
    let mut scene = Scene::with(serve(Route::new(echo()).limits(limits)));
    let mut client = scene.open();
    client.frame(false, TEXT, b"and");
    let code = loop {
        let got = client.read_frame();
        match got.opcode {
            PING => client.frame(true, PONG, &got.payload),
            CLOSE => break u16::from_be_bytes(*got.payload.first_chunk().unwrap()),
            _ => {}
        }
        client.frame(false, CONTINUATION, b" and");
    };
    assert_eq!(code, 1008);
    loop {
        let got = scene.healthy.read_frame();
        scene.healthy.frame(true, PONG, &got.payload);
        scene.healthy.text("all is well");
        if scene.healthy.read_frame().opcode == TEXT {
            return;
        }
    }
}

#[test]
fn fragments_whose_lengths_overflow_together_end_with_1009() {
    let mut scene = Scene::new();
    let mask = [0; 4];
    for len in [u64::from(u32::MAX), i64::MAX as u64, i64::MAX as u64 - 1, 64 << 10] {
        let mut all = frame(false, BINARY, b"12");
        all.extend(head(0x80, len, mask));
        scene.fails_with(&all, 1009);
    }
    let mut all = frame(false, BINARY, &[0; 40_000]);
    all.extend(head(0x00, 40_000, mask));
    let mut client = scene.open();
    client.send(all);
    client.expect_failed(1009);
}

// ---- lengths (T5, T6) ----

#[test]
fn a_huge_length_is_refused_before_anything_is_allocated() {
    let mut scene = Scene::new();
    scene.fails_with(b"\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0", 1009);
    scene.fails_with(&head(0x82, (64 << 10) + 1, [0; 4]), 1009);
    scene.fails_with(&head(0x01, 1 << 40, [0; 4]), 1009);
}

#[test]
fn lengths_that_are_too_long_or_not_in_their_shortest_form_end_with_1002() {
    let mut scene = Scene::new();
    for bad in [
        &b"\x82\xFF\x80\0\0\0\0\0\0\0\0\0\0\0"[..],
        b"\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0",
        b"\x82\xFE\0\x05\0\0\0\0hello",
        b"\x82\xFE\0\x7D\0\0\0\0",
        b"\x82\xFF\0\0\0\0\0\0\xFF\xFF\0\0\0\0",
    ] {
        scene.fails_with(bad, 1002);
    }
}

// ---- frames (T9, T10, T16, T17) ----

#[test]
fn reserved_bits_and_opcodes_end_with_1002() {
    let mut scene = Scene::new();
    for bits in [0x40, 0x20, 0x10, 0x70] {
        for opcode in [TEXT, BINARY, PING, CLOSE] {
            scene.fails_with(&head(0x80 | bits | opcode, 0, [0; 4]), 1002);
        }
        let mut all = frame(false, TEXT, b"x");
        all.extend(head(0x80 | bits, 0, [0; 4]));
        scene.fails_with(&all, 1002);
    }
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        scene.fails_with(&head(0x80 | opcode, 0, [0; 4]), 1002);
    }
}

#[test]
fn what_follows_a_bad_frame_in_its_segment_is_not_looked_at() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let mut client = server.open("/");
    let mut all = frame(true, TEXT, b"good");
    all.extend(frame(true, TEXT, b"\xFF"));
    all.extend(frame(true, TEXT, b"also good"));
    all.extend(frame(true, PING, b"?"));
    all.extend(frame(true, CLOSE, &close_payload(1000, "")));
    client.send(all);
    client.expect_failed(1007);
    drop(client);
    let end = events.find("the end", |e| {
        assert!(!matches!(&e, support::Event::Message(_, m) if m != b"good"), "{e:?}");
        if let support::Event::Close(_, end) = e { Some(end) } else { None }
    });
    assert!(!end.was_clean && end.code.0 == 1007, "{end:?}");
}

#[test]
fn frames_that_may_not_be_end_with_their_code() {
    let mut scene = Scene::new();
    let mut between = frame(false, TEXT, b"one");
    between.extend(frame(true, TEXT, b"two"));
    for bad in [
        b"\x81\x05hello".to_vec(),
        b"\x89\x00".to_vec(),
        head(0x89, 126, [0; 4]),
        head(0x88, 70_000, [0; 4]),
        head(0x09, 0, [0; 4]),
        head(0x08, 2, [0; 4]),
        frame(true, CONTINUATION, b"of nothing"),
        frame(false, CONTINUATION, b""),
        between,
        frame(true, CLOSE, b"\x03"),
    ] {
        scene.fails_with(&bad, 1002);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        scene.fails_with(&frame(true, CLOSE, &close_payload(code, "because")), 1002);
    }
    for reason in
        [&b"\x03\xE8\xFF"[..], b"\x03\xE8\xC0\xAF", b"\x03\xE8\xED\xA0\x80", b"\x03\xE8\xF0\x9F\x94"]
    {
        scene.fails_with(&frame(true, CLOSE, reason), 1007);
    }
}

#[test]
fn text_that_is_not_utf8_ends_with_1007_as_soon_as_that_is_known() {
    let mut scene = Scene::new();
    for bad in [
        &b"\xC0\xAF"[..],
        b"\xE0\x80\xAF",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"\xF8\x88\x80\x80\x80",
        b"\x80",
        b"ok \xE2\x82",
        b"\xFF",
    ] {
        scene.fails_with(&frame(true, TEXT, bad), 1007);
    }
    // Cut in the middle of a character, and then the character goes wrong.
    let mut all = frame(false, TEXT, b"ok \xF0\x9F");
    all.extend(frame(false, CONTINUATION, b"\x94"));
    all.extend(frame(false, CONTINUATION, b"x"));
    scene.fails_with(&all, 1007);
    // The rest of the frame, and of the message, is never sent.
    let bad = frame(false, TEXT, &[&[b'a'; 1000][..], &[0xFF], &[b'a'; 30_000]].concat());
    scene.fails_with(&bad[..1010], 1007);
    let mut client = scene.open();
    client.send(&bad[..3]);
    scene.server.settle();
    client.send(&bad[3..20_000]);
    client.expect_failed(1007);
    // Binary may be anything.
    let mut client = scene.open();
    client.binary(b"\xFF\xC0");
    assert_eq!(client.read_binary(), b"\xFF\xC0");
}

// ---- the opening handshake (T11 to T15) ----

#[test]
fn offered_extensions_are_declined_whatever_they_are() {
    let mut scene = Scene::new();
    for offer in [
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=999",
        "permessage-deflate; server_max_window_bits=07; client_max_window_bits=\"\"",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "foo; constructor, __proto__; hasOwnProperty",
        "permessage-deflate; x=\"unterminated",
        ",,,;;;==",
    ] {
        let mut client = scene.server.dial();
        let answer = client.ask("/", &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        assert_eq!((answer.status, answer.header("sec-websocket-extensions")), (101, None), "{offer}");
        client.expect_nothing_until_pong();
    }
    let many = "Sec-WebSocket-Extensions: a; b=c\r\n".repeat(50);
    assert_eq!(scene.server.dial().ask("/", &many).status, 101);
    scene.all_is_well();
}

#[test]
fn offered_subprotocols_have_their_bounds() {
    let mut scene = Scene::new();
    let ask = |value: &[u8]| {
        let mut client = scene.server.dial();
        let mut request = upgrade_request("/", "").into_bytes();
        request.truncate(request.len() - 2);
        request.extend([b"Sec-WebSocket-Protocol: ", value, b"\r\n\r\n"].concat());
        let began = Instant::now();
        client.send(request);
        let status = client.answer().status;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        status
    };
    assert_eq!(ask(b"chat, other"), 101);
    assert_eq!(ask(&[b"b", &b" ".repeat(60_000)[..], b"x"].concat()), 431);
    assert_eq!(ask(&[b"b", &b" ".repeat(900)[..], b"x"].concat()), 400);
    assert_eq!(ask(&b"t,".repeat(40)), 431);
    assert_eq!(ask(&b"t,".repeat(10_000)), 431);
    for bad in [&b"caf\xE9"[..], b"\x80\xFF", b"a b", b"a;b", b"(x)", b"\"x\""] {
        assert_eq!(ask(bad), 400, "{}", bad.escape_ascii());
    }
    scene.all_is_well();
}

#[test]
fn heads_that_are_too_long_are_refused_at_the_limit() {
    let mut scene = Scene::new();
    let begin = "GET / HTTP/1.1\r\nHost: a\r\n";
    let flood = |piece: &[u8]| {
        let mut client = scene.server.dial();
        client.socket.set_write_timeout(Some(DEADLINE)).unwrap();
        client.send(begin);
        let mut sent = 0;
        while sent < 16 << 20 && client.try_send(piece).is_ok() {
            sent += piece.len();
        }
        let all = client.read_to_end();
        assert!(all.starts_with(b"HTTP/1.1 431 "), "{}", support::shorten(&all));
    };
    let limit = scene.server.handle.stats().requests;
    flood(&format!("X-Long: {}\r\n", "x".repeat(1000)).into_bytes());
    flood(&b"X: y\r\n".repeat(200));
    flood(&[b'n'; 1024]);
    assert_eq!(scene.server.handle.stats().requests, limit + 3);
    scene.all_is_well();
}

#[test]
fn a_head_that_comes_slowly_is_refused_in_time() {
    let mut http = HttpLimits::default();
    http.timeout = millis(300);
    let mut scene = Scene::with(start(builder().http_limits(http).route("/", echo())));
    let mut clients: Vec<Client> = (0..50).map(|_| scene.server.dial()).collect();
    let began = Instant::now();
    clients.iter_mut().for_each(|c| c.send("GET / HTTP/1.1\r\nHo"));
    for client in &mut clients {
        assert_eq!(client.answer().status, 408);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(clients);
    scene.server.until("their sockets are free", |s| s.sockets == 1);
    scene.all_is_well();
}

#[test]
fn requests_that_two_parties_could_read_differently_are_refused() {
    let mut scene = Scene::new();
    let good = upgrade_request("/", "");
    let with = |line: &str| good.replacen("\r\n", &format!("\r\n{line}\r\n"), 1);
    for (request, status) in [
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked"), 400),
        (with("Content-Length: 3\r\nContent-Length: 4"), 400),
        (with("Content-Length: +3"), 400),
        (with("Content-Length: 0x3"), 400),
        (with("Transfer-Encoding: chunked"), 411),
        (with("Transfer-Encoding: xchunked"), 501),
        (with("Host: other.example"), 400),
        (with(" folded: yes"), 400),
        (with("X: a\r\n b"), 400),
        (with("X : a"), 400),
        (with("X\u{1}: a"), 400),
        (with("X: a\0b"), 400),
        (with("X: a\rb"), 400),
        (good.replace("\r\n", "\n"), 400),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 505),
        (good.replace("GET / ", "get / "), 405),
        (good.replace("GET / ", "GET http://bell.example/ "), 101),
        (good.replace("GET / ", "GET ftp://bell.example/ "), 400),
        (good.replace("GET / ", "GET bell.example:80 "), 400),
        (good.replace("GET / ", "CONNECT bell.example:80 "), 501),
        (good.replace("GET / ", "GET /\u{1} "), 400),
        (good.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"), 101),
        (good.replace(support::KEY, "not base64 of 24 letters"), 400),
    ] {
        let mut client = scene.server.dial();
        client.send(&request);
        assert_eq!(client.answer().status, status, "{request}");
    }
    // What is no HTTP at all.
    for garbage in [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03"[..],
        b"\0\0\0\0",
        b"\r\n\r\n\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ] {
        let mut client = scene.server.dial();
        client.send(garbage);
        client.end();
        let answer = client.read_to_end();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
    }
    scene.all_is_well();
}

#[test]
fn a_refused_request_ends_the_connection_so_that_nothing_can_be_smuggled_behind_it() {
    let server = start(builder().route("/", echo()));
    let mut client = server.dial();
    let smuggled = upgrade_request("/", "");
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    ));
    assert_eq!(client.answer().status, 400);
    client.expect_eof();
    assert_eq!(server.handle.stats().upgraded, 0);
}

// ---- floods (T4, T21, T25) ----

#[test]
fn many_that_stay_within_their_own_limits_do_not_exceed_the_servers() {
    const BUDGET: u64 = 2 << 20;
    let mut scene = Scene::with(start(builder().max_memory(BUDGET).route("/", echo())));
    let half = frame(true, BINARY, &[7; 60_000]);
    let mut clients: Vec<Client> = (0..100).map(|_| scene.open()).collect();
    for client in &mut clients {
        client.send(&half[..50_000]);
    }
    scene.server.until("some are closed", |s| s.over_budget > 0);
    scene.server.settle();
    let stats = scene.server.handle.stats();
    assert!(stats.held_bytes <= BUDGET + 64 * 1024, "{} bytes", stats.held_bytes);
    assert!((20..100).contains(&stats.over_budget), "{} were closed", stats.over_budget);
    scene.all_is_well();
    // Who was closed knows why; who was not goes on as if nothing had been.
    let (mut closed, mut served) = (0, 0);
    for client in &mut clients {
        let _ = client.try_send(&half[50_000..]);
        let got = client.read_frame();
        match got.opcode {
            CLOSE => {
                assert_eq!(got.payload.first_chunk().map(|c| u16::from_be_bytes(*c)), Some(1013));
                closed += 1;
            }
            _ => {
                assert_eq!(got.payload, [7; 60_000]);
                served += 1;
            }
        }
    }
    assert!(closed >= 20 && served >= 20, "{closed} closed, {served} served");
    drop(clients);
    scene.server.until("all is given back", |s| s.held_bytes == 0 && s.sockets == 1);
}

#[test]
fn unfinished_requests_of_many_clients_do_not_exceed_the_memory_budget() {
    const BUDGET: u64 = 2 << 20;
    let mut scene = Scene::with(start(builder().max_memory(BUDGET).route("/", echo()).post(
        "/",
        |request: &campanile::Request<'_>| {
            campanile::Response::new(200).text(request.body().len().to_string())
        },
    )));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
    let mut clients: Vec<Client> = (0..100).map(|_| scene.server.dial()).collect();
    for client in &mut clients {
        client.send(head);
        let _ = client.try_send(&[b'x'; 50_000]);
    }
    scene.server.until("some are refused", |s| s.over_budget > 0);
    scene.server.settle();
    let stats = scene.server.handle.stats();
    assert!(stats.held_bytes <= BUDGET + 256 * 1024, "{} bytes", stats.held_bytes);
    scene.all_is_well();
    let (mut refused, mut served) = (0, 0);
    for client in &mut clients {
        let _ = client.try_send(&[b'x'; 10_000]);
        match client.answer().status {
            200 => served += 1,
            503 => refused += 1,
            other => panic!("status {other}"),
        }
    }
    assert!(refused >= 20 && served >= 20, "{refused} refused, {served} served");
    drop(clients);
    scene.server.until("all is given back", |s| s.held_bytes == 0 && s.sockets == 1);
}

#[test]
fn ends_of_every_kind_leave_no_socket_behind() {
    let mut scene = Scene::new();
    for round in 0..50 {
        let mut half = scene.open();
        half.send(&frame(true, TEXT, &[b'x'; 5000])[..3000]);
        match round % 5 {
            0 => drop(half),
            1 => half.reset(),
            2 => {
                half.end();
                half.expect_eof();
            }
            3 => {
                let mut early = scene.server.dial();
                early.send("GET / HT");
                early.reset();
            }
            _ => drop(scene.server.dial()),
        }
    }
    scene.server.until("all have gone", |s| s.sockets == 1 && s.open == 1);
    scene.all_is_well();
}

#[test]
fn a_flood_of_subscriptions_stops_at_its_limit_and_is_forgotten_at_the_end() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, message| {
        let from: usize = message.as_text().unwrap().parse().unwrap();
        let made = (from..from + 10_000).filter(|n| conn.subscribe(&format!("topic {n}")).is_ok()).count();
        assert!(conn.subscribe(&"x".repeat(1 << 20)).is_err());
        conn.send(&made.to_string()).unwrap();
    });
    let server = serve(handler);
    let mut client = server.open("/");
    for (from, made) in [(0, 1024), (10_000, 0), (20_000, 0)] {
        client.text(&from.to_string());
        assert_eq!(client.read_text(), made.to_string());
    }
    let id = events.opened();
    server.handle.subscribe(id, "one more").unwrap();
    assert_eq!(server.handle.subscribers("one more").wait(), Ok(0));
    assert_eq!(server.handle.subscribers("topic 1023").wait(), Ok(1));
    client.reset();
    server.until("it has gone", |s| s.sockets == 0);
    assert_eq!(server.handle.subscribers("topic 1023").wait(), Ok(0));
    assert_eq!(server.handle.stats().panics, 0);
}

// ---- names (T31) ----

#[test]
fn what_is_sent_to_connections_that_come_and_go_reaches_only_whom_it_is_for() {
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| {
        let id = conn.id().to_string();
        conn.subscribe(&id).unwrap();
        conn.send(&id).unwrap();
    });
    let server = start(builder().workers(2).route("/", handler));
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let (handle, events) = (server.handle.clone(), events.clone());
            std::thread::spawn(move || {
                let mut known = Vec::new();
                while let Ok(event) = events.0.recv_timeout(millis(300)) {
                    if let support::Event::Open(id) = event {
                        known.push(id);
                    }
                    for id in known.iter().rev().take(20) {
                        let _ = handle.send(*id, id.to_string());
                        let _ = handle.publish(&id.to_string(), id.to_string());
                    }
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let mut clients: Vec<Client> = (0..10).map(|_| server.open("/")).collect();
        for client in &mut clients {
            let id = client.read_text();
            client.ping(b"until here");
            loop {
                let got = client.read_frame();
                if got.opcode == PONG {
                    break;
                }
                assert_eq!(got.payload, id.as_bytes(), "it was for somebody else");
            }
        }
        clients.into_iter().for_each(Client::reset);
    }
    senders.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(server.handle.stats().panics, 0);
}

// ---- files (T33) ----

#[test]
fn no_path_leads_out_of_the_folder() {
    let root = std::env::temp_dir().join(format!("campanile-attacks-{}", std::process::id()));
    let inside = root.join("public");
    std::fs::create_dir_all(inside.join("sub")).unwrap();
    std::fs::write(root.join("secret.txt"), "secret").unwrap();
    std::fs::write(inside.join("ok.txt"), "ok").unwrap();
    std::fs::write(inside.join(".hidden"), "secret").unwrap();
    std::os::unix::fs::symlink(root.join("secret.txt"), inside.join("link.txt")).unwrap();
    std::os::unix::fs::symlink(&root, inside.join("up")).unwrap();
    let server = start(builder().get("/*", Files::new(&inside).unwrap()).route("/ws", echo()));
    let ask = |target: &str, more: &str| {
        let mut client = server.dial();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        client.answer()
    };
    assert_eq!(ask("/ok.txt", "").text(), "ok");
    for target in [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E%2Fsecret.txt",
        "/..%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "//secret.txt",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/link.txt",
        "/up/secret.txt",
        "/.hidden",
        "/sub/%00",
        "/ok.txt%00.html",
        "/ok.txt/",
        "/ok.txt/..",
        "/sub",
        "/sub/",
        "http://a/../secret.txt",
    ] {
        let answer = ask(target, "");
        assert!(matches!(answer.status, 301 | 400 | 404), "{target}: {answer:?}");
        assert!(
            !answer.text().contains("secret") && !answer.text().contains("root:"),
            "{target}: {answer:?}"
        );
    }
    for (range, status) in [
        ("bytes=0-0", 206),
        ("bytes=5-", 416),
        ("bytes=18446744073709551615-18446744073709551616", 416),
        ("bytes=-0", 416),
        ("bytes=1-0", 200),
        ("bytes=0-0,1-1", 200),
        ("lines=0-0", 200),
        (&*format!("bytes={}", "0-1,".repeat(1000)), 200),
    ] {
        let answer = ask("/ok.txt", &format!("Range: {range}\r\n"));
        assert_eq!(answer.status, status, "{}", support::shorten(range.as_bytes()));
    }
    server.open("/ws").expect_nothing_until_pong();
    std::fs::remove_dir_all(&root).unwrap();
}

// ---- closing (T34) and everything at once ----

#[test]
fn a_client_that_never_answers_a_close_frame_is_left_and_does_not_hold_up_the_server() {
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| conn.close(4000, "bye").unwrap());
    let mut server = serve(Route::new(handler).limits(limits(|l| l.close_timeout = millis(200))));
    let mut clients: Vec<Client> = (0..20).map(|_| server.open("/")).collect();
    for client in &mut clients {
        assert_eq!(client.read_close().0, 4000);
        client.expect_eof();
    }
    for _ in 0..20 {
        let end = events.closed();
        assert!(!end.was_clean && end.code.0 == 4000);
    }
    server.shutdown(DEADLINE);
}

#[test]
fn random_bytes_end_only_their_own_connection() {
    let mut scene = Scene::new();
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let bytes: Vec<u8> = (0..200).map(|_| random() as u8).collect();
        let mut client = if round % 3 == 0 { scene.server.dial() } else { scene.open() };
        if round % 3 == 2 {
            // Whole frames around random parts get deeper.
            let opcode = (random() % 16) as u8;
            client.send(frame(random() % 2 == 0, opcode, &bytes[..(random() % 130) as usize]));
        }
        client.send(&bytes);
        client.end();
        client.read_to_end();
    }
    scene.all_is_well();
    scene.server.until("all have gone", |s| s.sockets == 1);
}
